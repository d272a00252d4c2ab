import { z } from "zod";
import type { Duration } from "../config/api.ts";
import { type Deciding, policyBuilder } from "../config/policy.ts";
import type { EnvReference, SecretReference } from "../config/values.ts";
import type { Reference } from "../table/table.ts";
import { authenticating, challenge } from "./authentication.ts";
import { BoundedMemory } from "./bounded-memory.ts";
import { admissionByClaims, type ClaimOptions, claimShape, compileClaims } from "./claims.ts";
import {
  type Admission,
  type Authentication,
  type CompileContext,
  type Exchange,
  type GatewayContext,
  type MakeAuthenticator,
  type PolicyRun,
  type Refusal,
  removeCookie,
  type Step,
} from "./contract.ts";
import { durationOption } from "./durations.ts";
import { LoginFailed, LoginProvider, type LoginProviderConfig, ProviderAway } from "./login-provider.ts";
import { providerUrl } from "./provider-request.ts";
import { openSealed, randomSecret, SEALED_COOKIE_LIMIT, type SealedFor, seal, sealingKey } from "./sealed-cookie.ts";
import { MAX_TIMEOUT, reference, text, value, valuesOf } from "./signed-token.ts";
import { TokenRefused } from "./token-refusal.ts";
import { subjectOf } from "./token-verifier.ts";

export interface OidcLoginOptions extends Deciding, ClaimOptions {
  /** The provider, exactly as it calls itself; its addresses and keys are found by its metadata (OpenID Connect Discovery 1.0). */
  readonly issuer: string | EnvReference;
  readonly clientId: string | EnvReference;
  readonly clientSecret: SecretReference;
  /**
   * What sessions are encrypted with: 32 characters or more, of anything random. Of several the first encrypts and all decrypt, so that
   * a key can be changed without ending sessions.
   */
  readonly cookieKey: SecretReference | readonly SecretReference[];
  /** What is asked for. Default: `openid profile email`. */
  readonly scope?: string;
  /** Where the provider sends browsers back to; a path of a route that has this policy. Default: `/auth/callback`. */
  readonly callbackPath?: string;
  /** Where a session ends, here and at the provider; likewise. Default: `/auth/logout`. */
  readonly logoutPath?: string;
  /** The path to which the provider sends browsers after that; also registered with it. Default: `/`. */
  readonly afterLogout?: string;
  /** How long a session is good. There is no way to end it sooner but to change the key. Default: `8h`. */
  readonly lifetime?: Duration;
  /** The session's cookie, with `__Host-` in front over https. Default: `portcullis-session`. */
  readonly cookie?: string;
  /** Claims of the ID token that the session keeps, beside those that the other options name. Default: `name`, `email`. */
  readonly claims?: readonly string[];
  /** For one request to the provider, at most `25s`. Default: `5s`. */
  readonly timeout?: Duration;
}

/**
 * Signs browsers in by the authorization code flow with PKCE (OpenID Connect Core 1.0, 3.1; RFC 7636) and keeps them signed in by an
 * encrypted cookie. A page that is asked for without a session leads to the provider; anything else is 401 `credentials-missing`. 400
 * `login-failed`; 503 `credentials-unavailable` while the provider cannot be asked.
 */
export const oidcLogin = policyBuilder<OidcLoginOptions>("oidcLogin");

export const schema = () => {
  const path = z.string().regex(PATH, "must be a path without a query, such as /auth/callback");
  return z.strictObject({
    mode: z.enum(["enforce", "report", "off"]).optional(),
    ...claimShape(),
    issuer: value(),
    clientId: value(),
    clientSecret: reference("secret"),
    cookieKey: z.union([reference("secret"), z.array(reference("secret")).min(1)]),
    scope: text().optional(),
    callbackPath: path.optional(),
    logoutPath: path.optional(),
    afterLogout: path.optional(),
    lifetime: text().optional(),
    cookie: z
      .string()
      .regex(/^(?!__)[A-Za-z0-9_-]{1,64}$/, "must be letters, digits, _ and -, and not begin with __")
      .optional(),
    claims: z.array(text()).optional(),
    timeout: text().optional(),
  });
};

const PATH = /^\/(?:[A-Za-z0-9._~-]+(?:\/[A-Za-z0-9._~-]+)*)?$/;

/** Durations are in milliseconds. */
export interface OidcLoginConfig extends LoginProviderConfig {
  readonly cookieKeys: readonly Reference[];
  readonly callbackPath: string;
  readonly logoutPath: string;
  readonly afterLogout: string;
  readonly lifetime: number;
  readonly cookie: string;
}

export function compile(options: OidcLoginOptions, context: CompileContext): OidcLoginConfig {
  const { issuer, scope = "openid profile email" } = options;
  if (typeof issuer === "string" && !providerUrl(issuer)) {
    context.problem(
      `"${issuer}" is no address of an issuer`,
      "write an https URL without user or password; http is for loopback addresses only",
    );
  }
  if (!scope.split(" ").includes("openid"))
    context.problem(`the scope "${scope}" gives no ID token`, 'add "openid" to it');
  const callbackPath = options.callbackPath ?? "/auth/callback";
  const logoutPath = options.logoutPath ?? "/auth/logout";
  if (callbackPath === logoutPath)
    context.problem(`"${callbackPath}" is both callbackPath and logoutPath`, "give each a path of its own");
  const one = (given: string | EnvReference) => valuesOf(given, context)[0] as string | Reference;
  const claims = compileClaims(options, context, "oidcLogin", ["cookie"]);
  const needed = [
    ...(options.claims ?? ["name", "email"]),
    ...claims.claimsToHeaders.map(([claim]) => claim),
    ...claims.consumers.flatMap((consumer) => Object.keys(consumer.claims)),
    ...(claims.groupsFrom === undefined ? [] : [claims.groupsFrom]),
  ];
  return {
    ...claims,
    issuer: one(issuer),
    clientId: one(options.clientId),
    clientSecret: context.reference(options.clientSecret),
    cookieKeys: [options.cookieKey].flat().map((key) => context.reference(key as SecretReference)),
    scope,
    callbackPath,
    logoutPath,
    afterLogout: options.afterLogout ?? "/",
    lifetime: durationOption(context, "lifetime", options.lifetime, 28_800_000, 60_000),
    cookie: options.cookie ?? "portcullis-session",
    claims: [...new Set(needed)].sort(),
    timeout: durationOption(context, "timeout", options.timeout, 5_000, 1, MAX_TIMEOUT),
  };
}

// Who has not come back from the provider by then begins anew.
const LOGIN_LIFETIME_MS = 600_000;
// A browser with as many logins under way has left some of them, and its cookies must fit into a header.
const MOST_LOGINS = 4;

/** A login under way. */
interface Login {
  readonly state: string;
  readonly nonce: string;
  readonly verifier: string;
  /** Where the browser wanted to go: an own path, with its query. */
  readonly returnTo: string;
}

/** What a session's cookie holds. */
interface Session {
  readonly claims: Readonly<Record<string, unknown>>;
}

export const authenticator: MakeAuthenticator<OidcLoginConfig> = (config, runtime) => {
  const { now } = runtime;
  // Opening a cookie takes some 30 µs and a turn of the event loop.
  const sessions = new BoundedMemory<{ readonly admission: Admission; readonly until: number }>(1_000);
  let provider: LoginProvider | undefined;

  const names = (exchange: Exchange) => {
    const prefix = exchange.scheme === "https" ? "__Host-" : "";
    return { session: `${prefix}${config.cookie}`, login: `${prefix}${config.cookie}-login-` };
  };
  const setCookie = (exchange: Exchange, name: string, text: string, seconds: number): string =>
    `${name}=${text}; Path=/; Max-Age=${seconds}; HttpOnly; SameSite=Lax${exchange.scheme === "https" ? "; Secure" : ""}`;
  const own = (exchange: Exchange, path: string): string =>
    `${exchange.scheme}://${exchange.upstream.get("x-forwarded-host") ?? exchange.host}${path}`;

  const unavailable = (provider: LoginProvider): Refusal => ({
    refused: "credentials-unavailable",
    extras: { headers: { "retry-after": String(provider.retryAfter) }, facts: { provider: "failed" } },
  });
  const failed = ({ why, message }: LoginFailed): Refusal => ({
    refused: "login-failed",
    extras: { detail: message, facts: { why } },
  });

  const admissionOf = async (c: GatewayContext, cookie: string): Promise<Admission | undefined> => {
    const opened = await openSealed<Session>(cookie, sealedFor(c, "session"), await keysOf(c), now());
    if (!opened) return undefined;
    const { claims } = opened.payload;
    const subject = subjectOf(String(claims.iss), claims.sub);
    try {
      const admission = admissionByClaims(claims, subject, config, runtime, "oidcLogin");
      sessions.put(cookie, { admission, until: opened.until });
      return admission;
    } catch (error) {
      if (error instanceof TokenRefused) return undefined;
      throw error;
    }
  };

  const keysOf = (c: GatewayContext) =>
    Promise.all(config.cookieKeys.map((key) => sealingKey(runtime.text(key, c.env), Object.values(key)[0] as string)));

  // Another API of this host may sign others in, elsewhere, with the same key: who is signed in there is not signed in here.
  const sealedFor = (c: GatewayContext, purpose: SealedFor["purpose"]): SealedFor => {
    provider ??= new LoginProvider(config, runtime, c.env);
    return { purpose, audience: `${provider.issuer} ${provider.clientId}` };
  };

  /** The way to the provider, for a browser that wants a page; 401 for everything else, which cannot follow it. */
  const askToLogIn = async (c: GatewayContext): Promise<Refusal> => {
    const exchange = c.get("exchange");
    const refusal = {
      refused: "credentials-missing",
      absent: true,
      extras: { headers: { "www-authenticate": challenge(exchange, "Session") } },
    } as const;
    if (!wantsPage(c.req.raw)) return refusal;
    provider ??= new LoginProvider(config, runtime, c.env);
    const metadata = await provider.metadata(exchange);
    if (!metadata?.authorization_endpoint) return unavailable(provider);
    const login: Login = {
      state: randomSecret(),
      nonce: randomSecret(),
      verifier: randomSecret(),
      returnTo: returnTo(exchange),
    };
    const name = names(exchange).login;
    const sealed = await seal(
      login,
      sealedFor(c, "login"),
      (await keysOf(c))[0] as CryptoKey,
      now() + LOGIN_LIFETIME_MS,
    );
    const location = new URL(metadata.authorization_endpoint);
    const parameters = {
      response_type: "code",
      client_id: provider.clientId,
      redirect_uri: own(exchange, config.callbackPath),
      scope: config.scope,
      state: login.state,
      nonce: login.nonce,
      code_challenge: await challengeOf(login.verifier),
      code_challenge_method: "S256",
    };
    for (const [parameter, value] of Object.entries(parameters)) location.searchParams.set(parameter, value);
    const left = cookiesNamed(c.req.raw, (one) => one.startsWith(name)).map(([one]) => one);
    const forgotten = left.length < MOST_LOGINS ? [] : left;
    return {
      ...refusal,
      answer: () =>
        redirect(location.href, [
          ...forgotten.map((one) => setCookie(exchange, one, "", 0)),
          setCookie(exchange, name + login.state.slice(0, 8), sealed, LOGIN_LIFETIME_MS / 1_000),
        ]),
    };
  };

  const finishLogin = async (c: GatewayContext): Promise<Refusal | Step> => {
    const exchange = c.get("exchange");
    provider ??= new LoginProvider(config, runtime, c.env);
    try {
      const given = new URLSearchParams(exchange.search);
      const state = given.get("state") ?? "";
      const cookie = `${names(exchange).login}${state.slice(0, 8)}`;
      const [, sealed = ""] = cookiesNamed(c.req.raw, (one) => one === cookie)[0] ?? [];
      const keys = await keysOf(c);
      const login = (await openSealed<Login>(sealed, sealedFor(c, "login"), keys, now()))?.payload;
      // The cookie is bound to the browser, and the state to the cookie: a link of somebody else's login leads nowhere.
      if (!login || login.state !== state)
        throw new LoginFailed("state", "It was begun too long ago, or in another browser. Try again.");
      const error = given.get("error");
      if (error !== null) {
        const code = /^[a-z_]{1,40}$/.test(error) ? error : "unknown";
        throw new LoginFailed(code, `The provider refused it: ${code}.`);
      }
      // RFC 9207: a code of another provider's must not be handed to this one.
      const issuer = given.get("iss");
      if (issuer !== null && issuer !== provider.issuer)
        throw new LoginFailed("issuer", "It was answered by another provider.");
      const claims = await provider.claims(exchange, {
        code: given.get("code") ?? "",
        verifier: login.verifier,
        nonce: login.nonce,
        redirectUri: own(exchange, config.callbackPath),
      });
      admissionByClaims(claims, subjectOf(String(claims.iss), claims.sub), config, runtime, "oidcLogin");
      const session: Session = { claims };
      const text = await seal(session, sealedFor(c, "session"), keys[0] as CryptoKey, now() + config.lifetime);
      if (text.length > SEALED_COOKIE_LIMIT)
        throw new LoginFailed("size", "The claims do not fit into a cookie; the operator must keep fewer of them.");
      const { session: name } = names(exchange);
      return {
        step: "login",
        answer: () =>
          redirect(login.returnTo, [
            setCookie(exchange, cookie, "", 0),
            setCookie(exchange, name, text, Math.floor(config.lifetime / 1_000)),
          ]),
      };
    } catch (error) {
      if (error instanceof LoginFailed) return failed(error);
      if (error instanceof TokenRefused) return failed(new LoginFailed(error.reason, "You are not known here."));
      if (error instanceof ProviderAway) return unavailable(provider);
      throw error;
    }
  };

  const logOut = async (c: GatewayContext): Promise<Refusal | Step> => {
    const exchange = c.get("exchange");
    // A link or an image on another site must not sign anybody out.
    if (c.req.raw.headers.get("sec-fetch-site") === "cross-site")
      return failed(new LoginFailed("cross-site", "A logout begins on this site."));
    provider ??= new LoginProvider(config, runtime, c.env);
    const end = (await provider.metadata(exchange))?.end_session_endpoint;
    const after = own(exchange, config.afterLogout);
    const location = end ? new URL(end) : undefined;
    location?.searchParams.set("client_id", provider.clientId);
    location?.searchParams.set("post_logout_redirect_uri", after);
    const { session } = names(exchange);
    return {
      step: "logout",
      answer: () => redirect(location?.href ?? config.afterLogout, [setCookie(exchange, session, "", 0)]),
    };
  };

  const open = async (c: GatewayContext, cookie: string): Promise<Authentication> =>
    (await admissionOf(c, cookie)) ?? askToLogIn(c);

  return {
    authenticate(c: GatewayContext): Authentication | Promise<Authentication> {
      const exchange = c.get("exchange");
      if (exchange.path === config.callbackPath) return finishLogin(c);
      if (exchange.path === config.logoutPath) return logOut(c);
      const { session } = names(exchange);
      const [, cookie] = cookiesNamed(c.req.raw, (name) => name === session)[0] ?? [];
      if (!cookie) return askToLogIn(c);
      const known = sessions.get(cookie);
      return known && now() < known.until ? known.admission : open(c, cookie);
    },
    withhold: (exchange: Exchange) => {
      const { session, login } = names(exchange);
      const cookies = exchange.upstream.get("cookie");
      if (!cookies?.includes(session)) return;
      removeCookie(exchange.upstream, session);
      for (const pair of cookies.split(";")) {
        const name = pair.split("=", 1)[0]?.trim() ?? "";
        if (name.startsWith(login)) removeCookie(exchange.upstream, name);
      }
    },
  };
};

export const run: PolicyRun<OidcLoginConfig> = authenticating("oidcLogin", authenticator);

/** Whether who asks is a browser on its way to a page: it follows redirects to another site, and shows what is there. */
function wantsPage({ method, headers }: Request): boolean {
  if (method !== "GET") return false;
  const mode = headers.get("sec-fetch-mode");
  return mode === null ? /\btext\/html\b/.test(headers.get("accept") ?? "") : mode === "navigate";
}

/** An own path: what a browser would take for another host does not come out of a normal path, and is not taken on trust. */
function returnTo({ path, search }: Exchange): string {
  const target = path + search;
  return /^\/(?![/\\])/.test(target) ? target : "/";
}

function redirect(location: string, cookies: readonly string[]): Response {
  const headers = new Headers({ location, "cache-control": "no-store" });
  for (const cookie of cookies) headers.append("set-cookie", cookie);
  return new Response(null, { status: 303, headers });
}

function cookiesNamed(request: Request, wanted: (name: string) => boolean): [name: string, value: string][] {
  return (request.headers.get("cookie") ?? "").split(";").flatMap((pair): [string, string][] => {
    const equals = pair.indexOf("=");
    const name = pair.slice(0, equals).trim();
    return equals !== -1 && wanted(name) ? [[name, pair.slice(equals + 1).trim()]] : [];
  });
}

/** RFC 7636, 4.2. */
async function challengeOf(verifier: string): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier)));
  return btoa(String.fromCharCode(...digest))
    .replace(/\+/g, "-")
    .replace(/\//g, "_")
    .replace(/=+$/, "");
}
