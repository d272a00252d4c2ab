import { z } from "zod";
import type { Duration } from "../config/api.ts";
import { policyBuilder } from "../config/policy.ts";
import type { EnvReference, SecretReference } from "../config/values.ts";
import type { Reference } from "../table/table.ts";
import { isClaimable } from "./claims.ts";
import {
  type CompileContext,
  type Exchange,
  type GatewayRuntime,
  NotConfigured,
  type PolicyRun,
  pass,
  refuse,
} from "./contract.ts";
import { TOKEN } from "./credential-place.ts";
import { durationOption } from "./durations.ts";
import { Flight } from "./flight.ts";
import { Pause } from "./pause.ts";
import { askProvider, formEncoded, providerUrl } from "./provider-request.ts";
import { MAX_TIMEOUT, reference, text, value, valuesOf } from "./signed-token.ts";

export interface UpstreamTokenOptions {
  /** The token endpoint: an https URL; plain http for loopback addresses only. */
  readonly endpoint: string | EnvReference;
  /** As whom the gateway asks: HTTP Basic, as RFC 6749, 2.3.1 has it. */
  readonly clientId: string | EnvReference;
  readonly clientSecret: SecretReference;
  /** Scopes, separated by blanks. Default: what the issuer gives. */
  readonly scope?: string;
  /** The `resource` (RFC 8707) that the token is for. Default: none. */
  readonly resource?: string | EnvReference;
  /** The same by the name of `audience`, for issuers that call it so. */
  readonly audience?: string | EnvReference;
  /** Where the origin gets the token. Default: `authorization`, as `Bearer <token>`; in another header the token alone. */
  readonly header?: string;
  /** How long before it expires a token is replaced, in the background. Default: `60s`, at most half of the token's life. */
  readonly refreshAhead?: Duration;
  /** For one answer, at most `25s`. Default: `5s`. */
  readonly timeout?: Duration;
}

/**
 * Gives the origin a token of the gateway's own, got by client credentials (RFC 6749, 4.4). 503 `upstream-token-unavailable` while there
 * is none to be had. It replaces whatever the client sent in that header.
 */
export const upstreamToken = policyBuilder<UpstreamTokenOptions>("upstreamToken");

export const schema = () =>
  z.strictObject({
    endpoint: value(),
    clientId: value(),
    clientSecret: reference("secret"),
    scope: text().optional(),
    resource: value().optional(),
    audience: value().optional(),
    header: z.string().regex(TOKEN, "is no name of a header").optional(),
    refreshAhead: text().optional(),
    timeout: text().optional(),
  });

/** Durations are in milliseconds. */
export interface UpstreamTokenConfig {
  readonly endpoint: string | Reference;
  readonly clientId: string | Reference;
  readonly clientSecret: Reference;
  readonly scope?: string;
  readonly resource?: string | Reference;
  readonly audience?: string | Reference;
  /** In lower case. */
  readonly header: string;
  readonly refreshAhead: number;
  readonly timeout: number;
}

export function compile(options: UpstreamTokenOptions, context: CompileContext): UpstreamTokenConfig {
  const { endpoint, scope, resource, audience } = options;
  if (typeof endpoint === "string" && !providerUrl(endpoint)) {
    context.problem(
      `"${endpoint}" is no address of a token endpoint`,
      "write an https URL without user or password; http is for loopback addresses only",
    );
  }
  const header = (options.header ?? "authorization").toLowerCase();
  if (header !== "authorization" && !isClaimable(header)) {
    context.problem(
      `the origin cannot get a token in the header "${header}"`,
      'leave `header` out, or use one of its own, such as "x-service-token"',
    );
  }
  if (header !== "authorization") context.identityHeaders([header]);
  const one = (given: string | EnvReference) => valuesOf(given, context)[0] as string | Reference;
  return {
    endpoint: one(endpoint),
    clientId: one(options.clientId),
    clientSecret: context.reference(options.clientSecret),
    ...(scope !== undefined && { scope }),
    ...(resource !== undefined && { resource: one(resource) }),
    ...(audience !== undefined && { audience: one(audience) }),
    header,
    refreshAhead: durationOption(context, "refreshAhead", options.refreshAhead, 60_000),
    timeout: durationOption(context, "timeout", options.timeout, 5_000, 1, MAX_TIMEOUT),
  };
}

// Of a token whose life the issuer does not tell (RFC 6749, 5.1 only recommends it).
const UNTOLD_LIFE_MS = 300_000;
// A token must still be good when it arrives.
const MARGIN_MS = 2_000;

/** Milliseconds since the epoch. */
interface ServiceToken {
  readonly value: string;
  readonly refreshAt: number;
  readonly until: number;
}

/** The token of one isolate: one request gets it, the others look for it in memory. */
class TokenSource {
  readonly #config: UpstreamTokenConfig;
  readonly #ask: () => Promise<ServiceToken>;
  readonly #now: () => number;
  readonly #flight: Flight;
  readonly #pause: Pause;
  #token: ServiceToken | undefined;

  constructor(config: UpstreamTokenConfig, runtime: GatewayRuntime, env: unknown) {
    this.#config = config;
    this.#now = runtime.now;
    this.#flight = new Flight(runtime.now);
    this.#pause = new Pause(runtime.now);
    this.#ask = questioner(config, runtime, env);
  }

  get retryAfter(): number {
    return this.#pause.retryAfter;
  }

  /** A token that is good now; undefined when there is none to be had. */
  async get(exchange: Exchange): Promise<string | undefined> {
    const { good } = this;
    if (good) {
      if (this.#now() >= good.refreshAt && !this.#flight.underway && this.#pause.over)
        exchange.waitUntil(this.#fetch());
      return good.value;
    }
    if (this.#flight.underway) await this.#flight.over();
    else if (this.#pause.over) {
      const work = this.#fetch();
      // The outcome is for all requests, so it must not end with a client that goes away.
      exchange.waitUntil(work);
      await work;
    }
    return this.good?.value;
  }

  get good(): ServiceToken | undefined {
    return this.#token && this.#now() < this.#token.until ? this.#token : undefined;
  }

  /** The origin does not take it: the issuer may have revoked it. */
  reject(token: string): void {
    if (this.#token?.value === token) this.#token = undefined;
  }

  /** Never rejects. */
  #fetch(): Promise<void> {
    const started = this.#now();
    return this.#flight.begin(this.#config.timeout, async (isCurrent) => {
      try {
        const token = await this.#ask();
        if (!isCurrent()) return;
        this.#token = token;
        this.#pause.succeeded();
      } catch (error) {
        this.#pause.failed(started);
        console.error(JSON.stringify({ event: "upstream-token-failed", error: whyFailed(error) }));
      }
    });
  }
}

export const run: PolicyRun<UpstreamTokenConfig> = (config, runtime) => {
  let source: TokenSource | undefined;
  // Else an origin that refuses every token would have the gateway ask for one with each request.
  let rejectedAt = Number.NEGATIVE_INFINITY;
  return async (c, next) => {
    const exchange = c.get("exchange");
    source ??= new TokenSource(config, runtime, c.env);
    const token = await source.get(exchange);
    if (token === undefined) {
      return refuse(exchange, "upstreamToken", "enforce", "upstream-token-unavailable", {
        headers: { "retry-after": String(source.retryAfter) },
      });
    }
    exchange.upstream.set(config.header, config.header === "authorization" ? `Bearer ${token}` : token);
    pass(exchange, "upstreamToken");
    await next();
    // An answer without a reason is the origin's.
    if (
      c.res.status === 401 &&
      exchange.record.reason === undefined &&
      runtime.now() >= rejectedAt + REJECTION_PAUSE_MS
    ) {
      rejectedAt = runtime.now();
      source.reject(token);
    }
    return undefined;
  };
};

const REJECTION_PAUSE_MS = 10_000;

function questioner(config: UpstreamTokenConfig, runtime: GatewayRuntime, env: unknown): () => Promise<ServiceToken> {
  const textOf = (one: string | Reference) => (typeof one === "string" ? one : runtime.text(one, env));
  const endpoint = providerUrl(textOf(config.endpoint));
  if (!endpoint) throw new NotConfigured("the token endpoint is no https URL");
  const client = `${formEncoded(textOf(config.clientId))}:${formEncoded(runtime.text(config.clientSecret, env))}`;
  const parameters = {
    grant_type: "client_credentials",
    ...(config.scope !== undefined && { scope: config.scope }),
    ...(config.resource !== undefined && { resource: textOf(config.resource) }),
    ...(config.audience !== undefined && { audience: textOf(config.audience) }),
  };
  return async () => {
    const asked = runtime.now();
    const { status, text } = await askProvider(endpoint, config.timeout, {
      method: "POST",
      headers: { authorization: `Basic ${btoa(client)}`, accept: "application/json" },
      body: new URLSearchParams(parameters),
    });
    if (status !== 200) throw new Error(`status ${status}`);
    const { access_token: value, expires_in: life, token_type: type } = JSON.parse(text) as Record<string, unknown>;
    // What no header can carry is no token (RFC 6750, 2.1).
    if (typeof value !== "string" || !/^[\w.~+/-]+=*$/.test(value)) throw new Error("no token");
    if (typeof type === "string" && type.toLowerCase() !== "bearer") throw new Error("no bearer token");
    const lifetime = typeof life === "number" && life > 0 ? life * 1_000 : UNTOLD_LIFE_MS;
    const until = asked + lifetime - Math.min(MARGIN_MS, lifetime / 2);
    return { value, until, refreshAt: until - Math.min(config.refreshAhead, lifetime / 2) };
  };
}

/** In few words, none of them the issuer's: it may repeat the secret. */
function whyFailed(error: unknown): string {
  const { name, message } = error as Error;
  if (name === "TimeoutError" || name === "AbortError") return "timeout";
  return /^(?:status \d+|no token|no bearer token)$/.test(message) ? message : name;
}
