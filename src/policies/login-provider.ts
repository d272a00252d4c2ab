/** A provider that signs browsers in, as one isolate knows it: its metadata, and what it says of who comes back with a code. */
import type { Reference } from "../table/table.ts";
import type { ClaimConfig } from "./claims.ts";
import { claimAt, type Exchange, type GatewayRuntime, NotConfigured } from "./contract.ts";
import { discover, type ProviderMetadata } from "./jwks.ts";
import { Kept } from "./kept.ts";
import { askProvider, formEncoded, providerUrl } from "./provider-request.ts";
import { ASYMMETRIC, reasonOf, Verifier } from "./token-verifier.ts";

export interface LoginProviderConfig extends ClaimConfig {
  readonly issuer: string | Reference;
  readonly clientId: string | Reference;
  readonly clientSecret: Reference;
  /** What is asked for. */
  readonly scope: string;
  /** Those that sessions keep, by their path in the ID token. */
  readonly claims: readonly string[];
  /** Milliseconds for one request. */
  readonly timeout: number;
}

/** The login cannot go on. */
export class LoginFailed extends Error {
  readonly why: string;
  constructor(why: string, detail: string) {
    super(detail);
    this.why = why;
  }
}

/** There is no answer of the provider's to be had. */
export class ProviderAway extends Error {}

export class LoginProvider {
  readonly issuer: string;
  readonly clientId: string;
  readonly #secret: string;
  readonly #config: LoginProviderConfig;
  readonly #metadata: Kept<ProviderMetadata>;
  readonly #verifier: Verifier;

  constructor(config: LoginProviderConfig, runtime: GatewayRuntime, env: unknown) {
    const textOf = (one: string | Reference) => (typeof one === "string" ? one : runtime.text(one, env));
    this.#config = config;
    this.issuer = textOf(config.issuer);
    this.clientId = textOf(config.clientId);
    this.#secret = runtime.text(config.clientSecret, env);
    if (!providerUrl(this.issuer)) throw new NotConfigured("the issuer of oidcLogin is no https URL");
    const { timeout } = config;
    const keySet = { timeout, maxAge: 600_000, coolDown: 30_000 };
    this.#metadata = new Kept(keySet, { load: () => discover(this.issuer, timeout) }, runtime.now);
    this.#verifier = new Verifier(
      {
        ...config,
        issuer: [this.issuer],
        audience: [this.clientId],
        keys: { discovery: true, keySet },
        algorithms: ASYMMETRIC,
        requiredClaims: ["iss", "sub", "exp", "iat", "nonce"],
        leeway: 5_000,
      },
      runtime,
      env,
      "oidcLogin",
      () => {},
    );
  }

  get retryAfter(): number {
    return this.#metadata.retryAfter;
  }

  async metadata(exchange: Exchange): Promise<ProviderMetadata | undefined> {
    this.#metadata.tend(exchange);
    if (!this.#metadata.value) await this.#metadata.update(exchange);
    return this.#metadata.value;
  }

  /** What the ID token for `code` says, of that what sessions keep. Throws LoginFailed and ProviderAway. */
  async claims(
    exchange: Exchange,
    login: { readonly code: string; readonly verifier: string; readonly nonce: string; readonly redirectUri: string },
  ): Promise<Record<string, unknown>> {
    const endpoint = (await this.metadata(exchange))?.token_endpoint;
    if (!endpoint) throw new ProviderAway();
    const answer = await this.#exchange(endpoint, login);
    let payload: Readonly<Record<string, unknown>>;
    try {
      ({ payload } = await this.#verifier.claims(String(answer.id_token), exchange, {}));
    } catch (error) {
      if (error instanceof Error && error.name === "KeysUnavailable") throw new ProviderAway();
      throw new LoginFailed(`id-token-${reasonOf(error)}`, "The provider's answer was not valid.");
    }
    if (payload.nonce !== login.nonce) throw new LoginFailed("nonce", "The provider's answer was for another login.");
    // OpenID Connect Core 1.0, 3.1.3.7, steps 4 and 5.
    if (payload.azp !== undefined && payload.azp !== this.clientId)
      throw new LoginFailed("azp", "The provider's answer was for another client.");
    const { scope = this.#config.scope } = answer;
    const kept = this.#config.claims.flatMap((name): [string, unknown][] => {
      const value = claimAt(payload, name);
      return value === undefined ? [] : [[name, value]];
    });
    return { ...Object.fromEntries(kept), iss: payload.iss, sub: payload.sub, scope: String(scope) };
  }

  async #exchange(
    endpoint: string,
    { code, verifier, redirectUri }: { readonly code: string; readonly verifier: string; readonly redirectUri: string },
  ): Promise<{ readonly id_token?: unknown; readonly scope?: unknown }> {
    const client = btoa(`${formEncoded(this.clientId)}:${formEncoded(this.#secret)}`);
    const { status, text } = await askProvider(endpoint, this.#config.timeout, {
      method: "POST",
      headers: { authorization: `Basic ${client}`, accept: "application/json" },
      body: new URLSearchParams({
        grant_type: "authorization_code",
        code,
        redirect_uri: redirectUri,
        code_verifier: verifier,
      }),
    }).catch(() => {
      throw new ProviderAway();
    });
    if (status >= 500) throw new ProviderAway();
    // A code that was used, has expired, or was begun with another verifier.
    if (status !== 200) throw new LoginFailed("code", "The provider did not accept its own code. Try again.");
    try {
      return JSON.parse(text);
    } catch {
      throw new ProviderAway();
    }
  }
}
