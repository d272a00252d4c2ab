import { z } from "zod";
import type { Duration } from "../config/api.ts";
import type { ConsumerDeclaration } from "../config/consumer.ts";
import { type Deciding, policyBuilder } from "../config/policy.ts";
import type { EnvReference } from "../config/values.ts";
import type { Reference } from "../table/table.ts";
import { admissionOf, authenticating, consumerFacts, deepFreeze } from "./authentication.ts";
import { isClaimable, SCOPE_TOKEN } from "./claims.ts";
import {
  type Admission,
  type Authentication,
  type Caller,
  type CompileContext,
  type Exchange,
  type GatewayContext,
  type MakeAuthenticator,
  NotConfigured,
  type PolicyRun,
  type Refusal,
} from "./contract.ts";
import { TOKEN } from "./credential-place.ts";
import { durationOption } from "./durations.ts";
import { Pause } from "./pause.ts";
import { askService, isAway, type ProviderAnswer, providerUrl } from "./provider-request.ts";
import { MAX_TIMEOUT, value, valuesOf } from "./signed-token.ts";

export interface ForwardAuthOptions extends Deciding {
  /** What is asked, with GET and without a body: an https URL; plain http for loopback addresses only. */
  readonly url: string | EnvReference;
  /** The request's headers that it gets, beside those that tell it method, host, path and client. Default: `authorization`, `cookie`. */
  readonly requestHeaders?: readonly string[];
  /** Headers of its answer that the origin gets. What clients send in them is removed on all routes. Default: none. */
  readonly responseHeaders?: readonly string[];
  /** The header of its answer that says who is calling. Without it a request that is let in has no caller. */
  readonly subjectFrom?: string;
  /** The header of its answer that names one of `consumers`. */
  readonly consumerFrom?: string;
  readonly consumers?: readonly ConsumerDeclaration[];
  /** The header of its answer that lists scopes, separated by blanks. */
  readonly scopesFrom?: string;
  /** For its whole answer, at most `25s`. Default: `1s`. */
  readonly timeout?: Duration;
  /** Whether the origin gets the `requestHeaders` too; cookies it always gets. Default: false. */
  readonly forwardCredentials?: boolean;
}

/**
 * Lets requests through that a service of yours says yes to: an answer from 200 to 299. Any other below 500 is given to the client as it is,
 * so that it may ask for a login or redirect to one. 503 `credentials-unavailable` when there is none in time, or a failure.
 */
export const forwardAuth = policyBuilder<ForwardAuthOptions>("forwardAuth");

export const schema = () => {
  const header = z.string().regex(TOKEN, "is no name of a header");
  const text = z.string().min(1);
  return z.strictObject({
    mode: z.enum(["enforce", "report", "off"]).optional(),
    url: value(),
    requestHeaders: z.array(header).optional(),
    responseHeaders: z.array(header).optional(),
    subjectFrom: header.optional(),
    consumerFrom: header.optional(),
    consumers: z.array(z.looseObject({ kind: z.literal("consumer"), name: z.string() })).optional(),
    scopesFrom: header.optional(),
    timeout: text.optional(),
    forwardCredentials: z.boolean().optional(),
  });
};

/** Header names are in lower case. */
export interface ForwardAuthConfig {
  readonly url: string | Reference;
  readonly requestHeaders: readonly string[];
  readonly responseHeaders: readonly string[];
  readonly subjectFrom?: string;
  readonly consumerFrom?: string;
  readonly consumers: readonly string[];
  readonly scopesFrom?: string;
  /** Milliseconds. */
  readonly timeout: number;
  readonly forwardCredentials: boolean;
}

export function compile(options: ForwardAuthOptions, context: CompileContext): ForwardAuthConfig {
  const { url, subjectFrom, consumerFrom, scopesFrom, consumers = [] } = options;
  if (typeof url === "string" && !providerUrl(url)) {
    context.problem(
      `"${url}" is no address of a service`,
      "write an https URL without user or password; http is for loopback addresses only",
    );
  }
  if ((consumerFrom === undefined) !== (consumers.length === 0)) {
    context.problem(
      "`consumerFrom` and `consumers` go together",
      'write consumerFrom: "x-auth-consumer", consumers: [...], or leave both out',
    );
  }
  const lower = (names: readonly string[]) => [...new Set(names.map((name) => name.toLowerCase()))].sort();
  const responseHeaders = lower(options.responseHeaders ?? []);
  for (const name of responseHeaders) {
    if (!isClaimable(name)) {
      context.problem(
        `the header "${name}" cannot come from forwardAuth`,
        'use a header of its own, of letters, digits and hyphens, such as "x-user-id"',
      );
    }
  }
  context.identityHeaders(responseHeaders);
  return {
    url: valuesOf(url, context)[0] as string | Reference,
    requestHeaders: lower(options.requestHeaders ?? ["authorization", "cookie"]),
    responseHeaders,
    ...(subjectFrom !== undefined && { subjectFrom: subjectFrom.toLowerCase() }),
    ...(consumerFrom !== undefined && { consumerFrom: consumerFrom.toLowerCase() }),
    consumers: [...new Set(consumers.map(({ name }) => name))].sort(),
    ...(scopesFrom !== undefined && { scopesFrom: scopesFrom.toLowerCase() }),
    timeout: durationOption(context, "timeout", options.timeout, 1_000, 1, MAX_TIMEOUT),
    forwardCredentials: options.forwardCredentials ?? false,
  };
}

// Of an answer that goes to the client; all else is between the gateway and the service.
const PASSED_ON = ["content-type", "location", "www-authenticate", "cache-control", "retry-after"];

export const authenticator: MakeAuthenticator<ForwardAuthConfig> = (config, runtime) => {
  const pause = new Pause(runtime.now);
  let url: string | undefined;

  const unavailable = (why: string): Refusal => ({
    refused: "credentials-unavailable",
    extras: { headers: { "retry-after": String(pause.retryAfter) }, facts: { service: "failed", why } },
  });

  const ask = (c: GatewayContext): Promise<ProviderAnswer> => {
    const exchange = c.get("exchange");
    url ??= addressOf(config.url, (reference) => runtime.text(reference, c.env));
    return askService(url, config.timeout, { headers: headersFor(config.requestHeaders, c.req.raw, exchange) });
  };

  const judge = async (c: GatewayContext): Promise<Authentication> => {
    if (!pause.over) return unavailable("paused");
    const started = runtime.now();
    let answer: ProviderAnswer;
    try {
      answer = await ask(c);
    } catch (error) {
      if (error instanceof NotConfigured) throw error;
      pause.failed(started);
      return unavailable(whyFailed(error));
    }
    if (answer.status >= 500) {
      if (isAway(answer.status)) pause.failed(started);
      else pause.suspected(started);
      return unavailable(`status ${answer.status}`);
    }
    pause.succeeded();
    if (answer.status >= 200 && answer.status < 300) return admit(answer);
    return refusal(answer, !config.requestHeaders.some((name) => c.req.raw.headers.has(name)));
  };

  const admit = ({ headers }: ProviderAnswer): Admission => {
    const read = (name: string | undefined) => (name === undefined ? undefined : (headers.get(name) ?? undefined));
    const more = config.responseHeaders.flatMap((name): [string, string][] => {
      const value = read(name);
      return value ? [[name, value]] : [];
    });
    const subject = read(config.subjectFrom);
    const named = read(config.consumerFrom);
    const consumer = named !== undefined && config.consumers.includes(named) ? named : undefined;
    if (!subject && consumer === undefined) return deepFreeze({ headers: more });
    const scopes = (read(config.scopesFrom) ?? "").split(" ").filter((scope) => SCOPE_TOKEN.test(scope));
    const caller: Caller = {
      ...consumerFacts(runtime, consumer),
      subject: subject ? `forwardAuth:${subject}` : `consumer:${consumer}`,
      scopes,
      claims: {},
      credential: { kind: "forwardAuth" },
    };
    return admissionOf(caller, subject ? [...more, ["x-consumer-subject", subject]] : more);
  };

  return {
    authenticate: judge,
    ...(!config.forwardCredentials && {
      withhold: ({ upstream }: Exchange) => {
        // Cookies carry more than credentials.
        for (const name of config.requestHeaders) if (name !== "cookie") upstream.delete(name);
      },
    }),
  };
};

export const run: PolicyRun<ForwardAuthConfig> = authenticating("forwardAuth", authenticator);

/** The service's own answer, for the client; a problem document in place of one that is too long. */
function refusal({ status, headers, body }: ProviderAnswer, absent: boolean): Refusal {
  const asked = headers.get("www-authenticate");
  return {
    refused: absent ? "credentials-missing" : status === 403 ? "access-denied" : "credentials-invalid",
    ...(absent && { absent }),
    extras: { ...(asked !== null && { headers: { "www-authenticate": asked } }), facts: { service: status } },
    ...(body && { answer: () => passedOn(status, headers, body) }),
  };
}

function passedOn(status: number, headers: Headers, body: Uint8Array<ArrayBuffer>): Response {
  const passed = new Headers({ "cache-control": "no-store" });
  for (const name of PASSED_ON) {
    const value = headers.get(name);
    if (value !== null) passed.set(name, value);
  }
  for (const cookie of headers.getSetCookie()) passed.append("set-cookie", cookie);
  return new Response(body.length === 0 ? null : body, { status, headers: passed });
}

function addressOf(given: string | Reference, text: (reference: Reference) => string): string {
  const url = providerUrl(typeof given === "string" ? given : text(given));
  if (!url) throw new NotConfigured("the address of forwardAuth's service is no https URL");
  return url;
}

/** What the service is told of the request, in the headers that nginx's, Traefik's and Envoy's auth services know. */
function headersFor(names: readonly string[], request: Request, exchange: Exchange): Headers {
  const headers = new Headers({ accept: request.headers.get("accept") ?? "*/*" });
  for (const name of names) {
    const value = request.headers.get(name);
    if (value !== null) headers.set(name, value);
  }
  headers.set("x-forwarded-method", request.method);
  headers.set("x-forwarded-proto", exchange.scheme);
  headers.set("x-forwarded-host", exchange.upstream.get("x-forwarded-host") ?? exchange.host);
  headers.set("x-forwarded-uri", exchange.path + exchange.search);
  if (exchange.clientAddress !== "") headers.set("x-forwarded-for", exchange.clientAddress);
  headers.set("x-request-id", exchange.record.id);
  return headers;
}

function whyFailed(error: unknown): string {
  const { name } = error as Error;
  return name === "TimeoutError" || name === "AbortError" ? "timeout" : name;
}
