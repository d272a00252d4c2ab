import { z } from "zod";
import type { Duration } from "../config/api.ts";
import { type Deciding, policyBuilder } from "../config/policy.ts";
import type { EnvReference, SecretReference } from "../config/values.ts";
import type { Reference } from "../table/table.ts";
import { type Answer, Answers } from "./answers.ts";
import { sha256 } from "./api-key-format.ts";
import { authenticating } from "./authentication.ts";
import { admissionByClaims, type ClaimConfig, type ClaimOptions, claimShape, compileClaims } from "./claims.ts";
import {
  type Admission,
  type Authentication,
  type CompileContext,
  type Exchange,
  type GatewayContext,
  type MakeAuthenticator,
  NotConfigured,
  type PolicyRun,
  type Refusal,
} from "./contract.ts";
import { type CredentialPlace, placeOf, placeSchema, readCredential } from "./credential-place.ts";
import { durationOption } from "./durations.ts";
import { Pause } from "./pause.ts";
import { askProvider, formEncoded, isAway, providerUrl } from "./provider-request.ts";
import { MAX_TIMEOUT, reference, text, value, valuesOf } from "./signed-token.ts";
import { check, type TokenReason, TokenRefused, tokenMissing, tokenRefusal } from "./token-refusal.ts";
import { subjectOf } from "./token-verifier.ts";

export interface IntrospectionOptions extends Deciding, ClaimOptions {
  /** The introspection endpoint: an https URL; plain http for loopback addresses only. */
  readonly endpoint: string | EnvReference;
  /** As whom the gateway asks: HTTP Basic, as RFC 6749, 2.3.1 has it. */
  readonly clientId: string | EnvReference;
  readonly clientSecret: SecretReference;
  /** One of these must be in the answer's `iss`. Default: any; the endpoint is asked about its own tokens. */
  readonly issuer?: string | EnvReference | readonly (string | EnvReference)[];
  /** One of these must be in the answer's `aud`. Without it a token that was made for another API passes. */
  readonly audience?: string | EnvReference | readonly (string | EnvReference)[];
  /** Default: `[{ header: "authorization", scheme: "Bearer" }]`. Different tokens in one request are refused. */
  readonly tokenFrom?: readonly CredentialPlace[];
  /** In bytes. Default: 8192. */
  readonly maxTokenSize?: number;
  /** Requests without a token pass, with no caller; a token that is there must be active. Default: false. */
  readonly optional?: boolean;
  /** Whether the origin gets the token too. Default: false. */
  readonly forwardToken?: boolean;
  /**
   * How long an isolate believes that a token is active, or until its `exp`; so the longest time until a revocation counts
   * everywhere. Default: `60s`.
   */
  readonly maxAge?: Duration;
  /** How long an isolate believes that it is not. Default: `10s`. */
  readonly inactiveFor?: Duration;
  /** For one answer, at most `25s`. Default: `2s`. */
  readonly timeout?: Duration;
  /** How many answers an isolate remembers. Default: 10000. */
  readonly remember?: number;
}

/**
 * Lets requests through by an opaque token, of which the issuer says whether it is good (RFC 7662). 401 `token-missing`,
 * `token-invalid` or `token-conflict`; 503 `credentials-unavailable` while the issuer cannot be asked.
 */
export const introspection = policyBuilder<IntrospectionOptions>("introspection");

export const schema = () =>
  z.strictObject({
    mode: z.enum(["enforce", "report", "off"]).optional(),
    ...claimShape(),
    endpoint: value(),
    clientId: value(),
    clientSecret: reference("secret"),
    issuer: z.union([value(), z.array(value()).min(1)]).optional(),
    audience: z.union([value(), z.array(value()).min(1)]).optional(),
    tokenFrom: z.array(placeSchema()).min(1).optional(),
    maxTokenSize: z.int().min(16).max(65_536).optional(),
    optional: z.boolean().optional(),
    forwardToken: z.boolean().optional(),
    maxAge: text().optional(),
    inactiveFor: text().optional(),
    timeout: text().optional(),
    remember: z.int().min(1).max(100_000).optional(),
  });

/** Durations are in milliseconds. */
export interface IntrospectionConfig extends ClaimConfig {
  readonly endpoint: string | Reference;
  readonly clientId: string | Reference;
  readonly clientSecret: Reference;
  readonly issuer?: readonly (string | Reference)[];
  readonly audience?: readonly (string | Reference)[];
  readonly tokenFrom: readonly CredentialPlace[];
  readonly maxTokenSize: number;
  readonly optional: boolean;
  readonly forwardToken: boolean;
  readonly maxAge: number;
  readonly inactiveFor: number;
  readonly timeout: number;
  readonly remember: number;
}

export function compile(options: IntrospectionOptions, context: CompileContext): IntrospectionConfig {
  const { endpoint, issuer, audience } = options;
  if (typeof endpoint === "string" && !providerUrl(endpoint)) {
    context.problem(
      `"${endpoint}" is no address of an introspection endpoint`,
      "write an https URL without user or password; http is for loopback addresses only",
    );
  }
  const one = (given: string | EnvReference) => valuesOf(given, context)[0] as string | Reference;
  const tokenFrom = options.tokenFrom ?? [{ header: "authorization", scheme: "Bearer" }];
  const carriers = tokenFrom.map((place) => ("header" in place ? place.header.toLowerCase() : ""));
  return {
    ...compileClaims(options, context, "introspection", carriers),
    endpoint: one(endpoint),
    clientId: one(options.clientId),
    clientSecret: context.reference(options.clientSecret),
    ...(issuer !== undefined && { issuer: valuesOf(issuer, context) }),
    ...(audience !== undefined && { audience: valuesOf(audience, context) }),
    tokenFrom,
    maxTokenSize: options.maxTokenSize ?? 8_192,
    optional: options.optional ?? false,
    forwardToken: options.forwardToken ?? false,
    maxAge: durationOption(context, "maxAge", options.maxAge, 60_000, 1_000),
    inactiveFor: durationOption(context, "inactiveFor", options.inactiveFor, 10_000),
    timeout: durationOption(context, "timeout", options.timeout, 2_000, 1, MAX_TIMEOUT),
    remember: options.remember ?? 10_000,
  };
}

const ANONYMOUS: Admission = Object.freeze({ headers: [], facts: Object.freeze({ anonymous: true }) });

// A bearer token (RFC 6750, 2.1). Nothing else is worth a question.
const BEARER_TOKEN = /^[\w.~+/-]+=*$/;

export const authenticator: MakeAuthenticator<IntrospectionConfig> = (config, runtime) => {
  const { now } = runtime;
  const places = config.tokenFrom.map(placeOf);
  // By the SHA-256 of tokens: they may be long, and are of no use to who gets to see this memory.
  const answers = new Answers<Admission | TokenReason>(config.remember, now);
  const pause = new Pause(now);
  let ask: ((token: string) => Promise<Answer<Admission | TokenReason>>) | undefined;

  const unavailable = (why: string): Refusal => ({
    refused: "credentials-unavailable",
    extras: { headers: { "retry-after": String(pause.retryAfter) }, facts: { issuer: "failed", why } },
  });

  const judge = async (c: GatewayContext, token: string): Promise<Authentication> => {
    const exchange = c.get("exchange");
    const asking = (ask ??= questioner(config, c.env, runtime));
    try {
      const outcome = await answers.find(exchange, await sha256(token), config.timeout, async () => {
        if (!pause.over) throw new Error("paused");
        const started = now();
        try {
          const answer = await asking(token);
          pause.succeeded();
          return answer;
        } catch (error) {
          if (error instanceof Unusable) pause.suspected(started);
          else pause.failed(started);
          throw error;
        }
      });
      return typeof outcome === "string" ? tokenRefusal(exchange, outcome) : outcome;
    } catch (error) {
      return unavailable(whyFailed(error));
    }
  };

  return {
    authenticate(c: GatewayContext): Authentication | Promise<Authentication> {
      const exchange = c.get("exchange");
      const token = readCredential(places, exchange);
      if (token === undefined) return config.optional ? ANONYMOUS : tokenMissing(exchange);
      if (typeof token === "object") return tokenRefusal(exchange, "conflict");
      if (token.length > config.maxTokenSize) return tokenRefusal(exchange, "size");
      if (!BEARER_TOKEN.test(token)) return tokenRefusal(exchange, "malformed");
      return judge(c, token);
    },
    ...(!config.forwardToken && {
      withhold: (exchange: Exchange) => {
        for (const place of places) place.remove(exchange);
      },
    }),
  };
};

export const run: PolicyRun<IntrospectionConfig> = authenticating("introspection", authenticator);

/** Asks the issuer about a token. The question throws when there is no answer that can be understood. */
function questioner(
  config: IntrospectionConfig,
  env: unknown,
  runtime: Parameters<MakeAuthenticator<unknown>>[1],
): (token: string) => Promise<Answer<Admission | TokenReason>> {
  const { now } = runtime;
  const textOf = (one: string | Reference) => (typeof one === "string" ? one : runtime.text(one, env));
  const endpoint = providerUrl(textOf(config.endpoint));
  if (!endpoint) throw new NotConfigured("the introspection endpoint is no https URL");
  const client = `${formEncoded(textOf(config.clientId))}:${formEncoded(runtime.text(config.clientSecret, env))}`;
  const authorization = `Basic ${btoa(client)}`;
  const issuers = config.issuer?.map(textOf);
  const audiences = config.audience?.map(textOf);

  const admit = (claims: Readonly<Record<string, unknown>>): Admission => {
    const { iss, sub, aud, exp, nbf, username, client_id: clientId } = claims;
    check(iss === undefined || typeof iss === "string", "claim-type");
    check(exp === undefined || typeof exp === "number", "claim-type");
    check(nbf === undefined || typeof nbf === "number", "claim-type");
    if (issuers) check(iss !== undefined && issuers.includes(iss), "issuer");
    if (audiences)
      check(
        [aud].flat().some((one) => audiences.includes(one as string)),
        "audience",
      );
    if (exp !== undefined) check(exp * 1_000 > now(), "expired");
    if (nbf !== undefined) check(nbf * 1_000 <= now() + LEEWAY, "not-yet");
    const issuer = iss ?? new URL(endpoint).origin;
    return admissionByClaims(claims, subjectOf(issuer, sub ?? username ?? clientId), config, runtime, "introspection");
  };

  return async (token) => {
    const asked = now();
    const { status, text } = await askProvider(endpoint, config.timeout, {
      method: "POST",
      headers: { authorization, accept: "application/json" },
      body: new URLSearchParams({ token, token_type_hint: "access_token" }),
    });
    // 401 and 403 are about the gateway itself (RFC 7662, 2.3).
    if (status === 401 || status === 403 || isAway(status)) throw new Error(`status ${status}`);
    if (status !== 200) throw new Unusable(`status ${status}`);
    const claims = parsed(text);
    if (typeof claims?.active !== "boolean") throw new Unusable("no answer");
    const refused = { until: asked + config.inactiveFor };
    if (!claims.active) return { value: "inactive", ...refused };
    try {
      const value = admit(claims as Readonly<Record<string, unknown>>);
      return { value, until: Math.min(asked + config.maxAge, (claims.exp ?? Number.POSITIVE_INFINITY) * 1_000) };
    } catch (error) {
      if (!(error instanceof TokenRefused)) throw error;
      return { value: error.reason, ...refused };
    }
  };
}

/** An answer, but none about the token; perhaps because of the token. */
class Unusable extends Error {}

function parsed(text: string): { active?: unknown; exp?: number } | null {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

// The issuer's clock may be off.
const LEEWAY = 5_000;

/** In few words, none of them the issuer's: it may repeat the token. */
function whyFailed(error: unknown): string {
  const { name, message } = error as Error;
  if (name === "TimeoutError" || name === "AbortError") return "timeout";
  return error instanceof Unusable || /^(?:status \d+|paused)$/.test(message) ? message : name;
}
