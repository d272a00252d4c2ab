import type { Next } from "hono";
import {
  errors,
  type JWSAlgorithm,
  type JWSHeaderParameters,
  type JWTPayload,
  type JWTVerifyOptions,
  jwtVerify,
} from "jose";
import { z } from "zod";
import type { Duration } from "../config/api.ts";
import type { ConsumerDeclaration } from "../config/consumer.ts";
import { parseDuration } from "../config/duration.ts";
import { type Deciding, policyBuilder } from "../config/policy.ts";
import type { EnvReference, SecretReference } from "../config/values.ts";
import type { Reference } from "../table/table.ts";
import {
  type Caller,
  type CompileContext,
  claimAt,
  type Exchange,
  type GatewayContext,
  type GatewayRuntime,
  NotConfigured,
  type PolicyRun,
  type PolicyVerdict,
  pass,
  refuse,
  removeCookie,
} from "./contract.ts";
import { KeySet, type KeySetConfig, KeysUnavailable, keySetUrl } from "./jwks.ts";

/** Where a request may carry its token. With a `scheme` the header's value is `<scheme> <token>`, else the token alone. */
export type TokenPlace =
  | { readonly header: string; readonly scheme?: string }
  | { readonly cookie: string }
  | { readonly query: string };

export interface JwtOptions extends Deciding {
  /** Accepted values of `iss`, compared character by character: `https://a` and `https://a/` are two issuers. */
  readonly issuer: string | EnvReference | readonly (string | EnvReference)[];
  /** The token's `aud` must have one of these. Without it a token that the issuer made for another API passes. */
  readonly audience?: string | EnvReference | readonly (string | EnvReference)[];
  /** Where the issuer publishes its keys: an https URL; plain http for loopback addresses only. Either this or `secret`. */
  readonly jwks?: string | EnvReference;
  /** A key shared with the issuer, for HS256; its text must have 32 bytes, for HS384 48 and for HS512 64 (RFC 7518, 3.2). */
  readonly secret?: SecretReference;
  /** Narrows what is accepted. Default: whatever fits the key; the token's own `alg` never chooses the kind of key. */
  readonly algorithms?: readonly string[];
  /** The header's `typ`, such as `at+jwt` (RFC 9068, 2.1), with or without `application/`. Default: any. */
  readonly typ?: string;
  /** Claims that must be present. `iss` and `exp` always must, and `aud` where `audience` is given. */
  readonly requiredClaims?: readonly string[];
  /** How far the issuer's clock may be off, at most `60s`. Default: `5s`. */
  readonly leeway?: Duration;
  /** Longest time from `iat`, which is then required, to `exp`. Default: any. */
  readonly maxLifetime?: Duration;
  /** In bytes. Default: 8192. */
  readonly maxTokenSize?: number;
  /** Default: `[{ header: "authorization", scheme: "Bearer" }]`. Different tokens in one request are refused. */
  readonly tokenFrom?: readonly TokenPlace[];
  /** Requests without a token pass, with no caller; a token that is there must be valid. Default: false. */
  readonly optional?: boolean;
  /** The first one whose claims the token has is the caller's consumer. */
  readonly consumers?: readonly ConsumerDeclaration[];
  /** Refuse tokens of none of the `consumers`. Default: false. */
  readonly requireConsumer?: boolean;
  /**
   * Request headers for the origin by claim, e.g. `{ email: "x-user-email", "org.id": "x-org" }`; dots lead into objects, unless
   * a claim has that very name. What clients send in these headers is removed on all routes.
   */
  readonly claimsToHeaders?: Readonly<Record<string, string>>;
  /** Whether the origin gets the token too. Default: true. */
  readonly forwardToken?: boolean;
  /** How many verified tokens an isolate remembers; 0: none. Default: 1000. */
  readonly remember?: number;
  readonly keySet?: {
    /** For fetching the key set, at most `25s`. Default: `5s`. */
    readonly timeout?: Duration;
    /** After that it is refreshed in the background: how long a key that the issuer removed still counts. Default: `10m`. */
    readonly maxAge?: Duration;
    /** Least time between two fetches because of unknown keys. Default: `30s`. */
    readonly coolDown?: Duration;
    /** How long after `maxAge` the last good set serves while the issuer is down. Default: until it is back. */
    readonly maxStale?: Duration;
  };
}

/**
 * Lets requests through by a signed token (RFC 7519, RFC 9068) and tells the origin whose it is. 401 `token-missing`,
 * `token-invalid`, `token-expired` or `token-conflict`; 503 `keys-unavailable` when the issuer's keys could never be fetched.
 */
export const jwt = policyBuilder<JwtOptions>("jwt");

export const schema = () => {
  const reference = <Kind extends string>(kind: Kind) => z.looseObject({ kind: z.literal(kind), name: z.string() });
  const text = z.string().min(1);
  const value = z.union([text, reference("env")]);
  const values = z.union([value, z.array(value).min(1)]);
  return z.strictObject({
    mode: z.enum(["enforce", "report", "off"]).optional(),
    issuer: values,
    audience: values.optional(),
    jwks: value.optional(),
    secret: reference("secret").optional(),
    algorithms: z.array(text).min(1).optional(),
    typ: text.optional(),
    requiredClaims: z.array(text).optional(),
    leeway: text.optional(),
    maxLifetime: text.optional(),
    maxTokenSize: z.int().min(256).max(65_536).optional(),
    tokenFrom: z
      .array(
        z.union([
          z.strictObject({
            header: z.string().regex(NAME),
            scheme: z
              .string()
              .regex(/^[A-Za-z0-9-]+$/)
              .optional(),
          }),
          z.strictObject({ cookie: z.string().regex(NAME) }),
          z.strictObject({ query: text }),
        ]),
      )
      .min(1)
      .optional(),
    optional: z.boolean().optional(),
    consumers: z
      .array(
        z.looseObject({
          kind: z.literal("consumer"),
          name: text,
          options: z.looseObject({ claims: z.record(text, z.string()) }),
        }),
      )
      .optional(),
    requireConsumer: z.boolean().optional(),
    claimsToHeaders: z.record(text, z.string()).optional(),
    forwardToken: z.boolean().optional(),
    remember: z.int().min(0).max(100_000).optional(),
    keySet: z
      .strictObject({
        timeout: text.optional(),
        maxAge: text.optional(),
        coolDown: text.optional(),
        maxStale: text.optional(),
      })
      .optional(),
  });
};

/** Durations are in milliseconds. */
export interface JwtConfig {
  readonly issuer: readonly (string | Reference)[];
  readonly audience?: readonly (string | Reference)[];
  readonly keys: { readonly jwks: string | Reference; readonly keySet: KeySetConfig } | { readonly secret: Reference };
  readonly algorithms: readonly string[];
  readonly typ?: string;
  readonly requiredClaims: readonly string[];
  readonly leeway: number;
  readonly maxLifetime?: number;
  readonly maxTokenSize: number;
  readonly tokenFrom: readonly TokenPlace[];
  readonly optional: boolean;
  readonly consumers: readonly { readonly name: string; readonly claims: Readonly<Record<string, string>> }[];
  readonly requireConsumer: boolean;
  readonly claimsToHeaders: readonly (readonly [claim: string, header: string])[];
  readonly forwardToken: boolean;
  readonly remember: number;
}

// The token of RFC 9110, 5.6.2: header names, authentication schemes and cookie names.
const NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
// Claimed headers are removed from what clients send, so HTTP's own cannot be claimed. No underscores: to CGI-like origins
// `x_user` and `x-user` are one header.
const CLAIMABLE =
  /^(?!(?:host|connection|te|trailer|upgrade|expect|date|via|range|origin|referer|forwarded|authorization|cookie|user-agent)$)(?!(?:keep-alive|transfer-|proxy-|content-|accept|access-control-|if-|sec-|cf-|cdn-|x-forwarded-|x-real-ip|x-consumer-|x-portcullis-))[a-z0-9-]+$/;

/** The least length of a secret, in bytes (RFC 7518, 3.2). */
const HMAC: Readonly<Record<string, number>> = { HS256: 32, HS384: 48, HS512: 64 };
// All that jose's key set resolves and workerd verifies; ML-DSA is not among the latter.
const ASYMMETRIC = "RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA Ed25519".split(" ");

const MAX_LEEWAY = 60_000;
// What was begun for a request may go on for 30 s after its response (Workers' waitUntil).
const MAX_TIMEOUT = 25_000;

export function compile(options: JwtOptions, context: CompileContext): JwtConfig {
  const { jwks, secret, audience, typ, consumers = [], forwardToken = true } = options;
  const tokenFrom = options.tokenFrom ?? [{ header: "authorization", scheme: "Bearer" }];

  const duration = <Absent>(name: string, text: string | undefined, absent: Absent, least = 0, most = Infinity) => {
    const ms = text === undefined ? absent : parseDuration(text);
    if (typeof ms === "number" && ms >= least && ms <= most) return ms;
    if (text !== undefined) {
      context.problem(
        `${name} "${text}" is no duration${most === Infinity ? "" : ` up to ${most / 1_000}s`}`,
        'write it as "5s", "10m" or "1h30m"',
      );
    }
    return absent;
  };
  const values = (given: string | EnvReference | readonly (string | EnvReference)[]) =>
    [given].flat().map((value) => (typeof value === "string" ? value : context.reference(value as EnvReference)));

  if ((jwks === undefined) === (secret === undefined)) {
    context.problem(
      `jwt has ${jwks === undefined ? "neither" : "both"} \`jwks\` ${jwks === undefined ? "nor" : "and"} \`secret\``,
      "give the URL of the issuer's key set, or the secret that is shared with the issuer",
    );
  }
  if (typeof jwks === "string" && !keySetUrl(jwks)) {
    context.problem(
      `"${jwks}" is no address of a key set`,
      "write an https URL without user or password; http is for loopback addresses only",
    );
  }
  const known = secret ? Object.keys(HMAC) : ASYMMETRIC;
  for (const algorithm of options.algorithms ?? []) {
    if (!known.includes(algorithm)) {
      context.problem(
        `the algorithm "${algorithm}" does not go with ${secret ? "a secret" : "a key set"}`,
        `use some of ${known.join(", ")}, or leave \`algorithms\` out`,
      );
    }
  }
  for (const { name, options: consumer } of consumers) {
    if (Object.keys(consumer.claims).length === 0) {
      context.problem(
        `the consumer "${name}" has no claims, so every token is its`,
        "give the claims that tell it apart",
      );
    }
  }
  if (options.requireConsumer && consumers.length === 0) {
    context.problem("jwt requires a consumer and knows none", "list the declared consumers in `consumers`");
  }
  if (!forwardToken && tokenFrom.some((place) => "query" in place)) {
    context.problem(
      "a token in the query cannot be kept from the origin",
      "take it from a header or a cookie, or set forwardToken: true",
    );
  }

  const claimsToHeaders = Object.entries(options.claimsToHeaders ?? {})
    .map(([claim, header]) => [claim, header.toLowerCase()] as const)
    .sort(([, a], [, b]) => (a < b ? -1 : 1));
  const carriers = tokenFrom.map((place) => ("header" in place ? place.header.toLowerCase() : ""));
  claimsToHeaders.forEach(([claim, header], i) => {
    if (!CLAIMABLE.test(header) || carriers.includes(header)) {
      context.problem(
        `the claim "${claim}" cannot go into the header "${header}"`,
        'use a header of its own, of letters, digits and hyphens, such as "x-user-id"',
      );
    } else if (claimsToHeaders[i - 1]?.[1] === header) {
      context.problem(`two claims go into the header "${header}"`, "give each claim a header of its own");
    }
  });
  context.identityHeaders(claimsToHeaders.map(([, header]) => header));

  const { timeout, maxAge, coolDown, maxStale } = options.keySet ?? {};
  const stale = duration("maxStale", maxStale, undefined);
  const lifetime = duration("maxLifetime", options.maxLifetime, undefined, 1);
  return {
    issuer: values(options.issuer),
    ...(audience !== undefined && { audience: values(audience) }),
    keys: secret
      ? { secret: context.reference(secret) }
      : {
          jwks: typeof jwks === "object" ? context.reference(jwks) : (jwks ?? ""),
          keySet: {
            timeout: duration("timeout", timeout, 5_000, 1, MAX_TIMEOUT),
            maxAge: duration("maxAge", maxAge, 600_000, 1_000),
            coolDown: duration("coolDown", coolDown, 30_000, 1_000),
            ...(stale !== undefined && { maxStale: stale }),
          },
        },
    algorithms: options.algorithms ?? known,
    ...(typ !== undefined && { typ }),
    requiredClaims: [...new Set(["iss", "exp", ...(options.requiredClaims ?? [])])],
    leeway: duration("leeway", options.leeway, 5_000, 0, MAX_LEEWAY),
    ...(lifetime !== undefined && { maxLifetime: lifetime }),
    maxTokenSize: options.maxTokenSize ?? 8_192,
    tokenFrom,
    optional: options.optional ?? false,
    consumers: consumers.map(({ name, options: { claims } }) => ({ name, claims })),
    requireConsumer: options.requireConsumer ?? false,
    claimsToHeaders,
    forwardToken,
    remember: options.remember ?? 1_000,
  };
}

/** Why a token is refused: all that a client is told, so nothing of the token is in it. Characters as in RFC 6750, 3. */
const REASONS = {
  malformed: "the token is malformed",
  size: "the token is too long",
  type: "the type of the token is not accepted",
  algorithm: "the algorithm of the token is not accepted",
  key: "the key of the token is not known",
  signature: "the signature of the token does not verify",
  issuer: "the issuer of the token is not accepted",
  audience: "the token is for another audience",
  "claim-missing": "the token lacks a required claim",
  "claim-type": "a claim of the token has the wrong type",
  "not-yet": "the token is not valid yet",
  expired: "the token has expired",
  lifetime: "the token is valid for too long",
  consumer: "the token belongs to no known consumer",
  conflict: "the request carries different tokens",
} as const;

type Reason = keyof typeof REASONS;

class TokenRefused extends Error {
  override readonly name = "TokenRefused";
  readonly reason: Reason;

  constructor(reason: Reason) {
    super(REASONS[reason]);
    this.reason = reason;
  }
}

/** What a token says, ready to be applied to each request that carries it. Shared between requests, hence frozen. */
interface Verified {
  readonly caller: Caller;
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly facts: PolicyVerdict["facts"];
  /** Milliseconds since the epoch, with the leeway: valid from then on, and until just before then. */
  readonly from: number;
  readonly until: number;
}

export const run: PolicyRun<JwtConfig> = (config, runtime, mode) => {
  const places = config.tokenFrom.map(placeOf);
  const remembered = new RememberedTokens(config.remember);
  // Grows with every change of the keys, so that what is being verified with the old ones meanwhile is not remembered.
  let epoch = 0;
  const keysChanged = () => {
    epoch++;
    remembered.clear();
  };
  // Needs the environment, which comes with the first request.
  let verifier: Verifier | undefined;

  const withhold = (exchange: Exchange) => {
    if (!config.forwardToken) for (const place of places) place.remove(exchange.upstream);
  };
  const admit = (exchange: Exchange, { caller, headers, facts }: Verified) => {
    exchange.caller = caller;
    exchange.record.subject = caller.subject;
    if (caller.consumer !== undefined) exchange.record.consumer = caller.consumer;
    for (const [name, value] of headers) exchange.upstream.set(name, value);
    withhold(exchange);
    pass(exchange, "jwt", verifier?.keysStale ? { ...facts, keys: "stale" } : facts);
  };
  const deny = (exchange: Exchange, reason: Reason, kid?: unknown) => {
    withhold(exchange);
    const code =
      reason === "conflict" ? "token-conflict" : reason === "expired" ? "token-expired" : ("token-invalid" as const);
    // `invalid_request` is what RFC 6750, 3.1 calls a request with more than one token.
    const error = reason === "conflict" ? "invalid_request" : "invalid_token";
    const detail = REASONS[reason];
    return refuse(exchange, "jwt", mode, code, {
      detail,
      headers: { "www-authenticate": challenge(exchange, { error, error_description: detail }) },
      facts: { why: reason, ...kidFact(kid) },
    });
  };

  /** The answer to a token that is not remembered; undefined when the request may pass. */
  const judge = async (exchange: Exchange, verifier: Verifier, token: string): Promise<Response | undefined> => {
    const before = epoch;
    const header: { kid?: unknown } = {};
    let verified: Verified;
    try {
      verified = await verifier.verify(token, exchange, header);
    } catch (error) {
      if (error instanceof NotConfigured) throw error;
      if (!(error instanceof KeysUnavailable)) return deny(exchange, reasonOf(error), header.kid);
      withhold(exchange);
      return refuse(exchange, "jwt", mode, "keys-unavailable", {
        headers: { "retry-after": String(error.retryAfter) },
      });
    }
    if (epoch === before) remembered.put(token, verified);
    admit(exchange, verified);
    return undefined;
  };

  // Not async functions, so that a request with a remembered token awaits nothing here.
  const decide = (c: GatewayContext): Response | undefined | Promise<Response | undefined> => {
    const exchange = c.get("exchange");
    let token: string | undefined;
    for (const place of places) {
      for (const value of place.read(c.req.raw.headers, exchange.search)) {
        if (token !== undefined && token !== value) return deny(exchange, "conflict");
        token = value;
      }
    }
    if (token === undefined) {
      if (!config.optional) {
        return refuse(exchange, "jwt", mode, "token-missing", { headers: { "www-authenticate": challenge(exchange) } });
      }
      pass(exchange, "jwt", { anonymous: true });
      return undefined;
    }
    if (token.length > config.maxTokenSize) return deny(exchange, "size");
    verifier ??= new Verifier(config, runtime, c.env, keysChanged);
    verifier.tend(exchange);
    const verified = remembered.get(token, runtime.now());
    if (!verified) return judge(exchange, verifier, token);
    admit(exchange, verified);
    return undefined;
  };
  const later = async (pending: Promise<Response | undefined>, next: Next) => (await pending) ?? next();
  return (c, next) => {
    const answer = decide(c);
    if (answer === undefined) return next();
    return answer instanceof Response ? Promise.resolve(answer) : later(answer, next);
  };
};

/** The value of WWW-Authenticate (RFC 6750, 3). Attributes must need no escapes in a quoted string. */
export function challenge(exchange: Exchange, attributes: Readonly<Record<string, string>> = {}): string {
  const realm = exchange.route.api.replace(/[^\x20-\x7e]|["\\]/g, "") || "portcullis";
  return `Bearer ${Object.entries({ realm, ...attributes })
    .map(([name, value]) => `${name}="${value}"`)
    .join(", ")}`;
}

interface Place {
  /** What stands in this place; more than one where a cookie or parameter is repeated. */
  read(headers: Headers, search: string): readonly string[];
  /** Takes it out of the origin's headers. */
  remove(upstream: Headers): void;
}

const NOTHING: readonly string[] = [];

function placeOf(place: TokenPlace): Place {
  if ("query" in place) {
    return {
      read: (_, search) =>
        search === "" ? NOTHING : new URLSearchParams(search).getAll(place.query).filter((value) => value !== ""),
      remove: () => {},
    };
  }
  if ("cookie" in place) {
    const isNamed = (pair: string) => pair.split("=", 1)[0]?.trim() === place.cookie;
    const pairs = (headers: Headers) => headers.get("cookie")?.split(";") ?? [];
    return {
      // Browsers drop a cookie by emptying it, so an empty one is none.
      read: (headers) =>
        pairs(headers)
          .filter(isNamed)
          .map((pair) => pair.slice(pair.indexOf("=") + 1).trim())
          .filter((value) => value !== ""),
      remove: (upstream) => removeCookie(upstream, place.cookie),
    };
  }
  const { header, scheme } = place;
  if (scheme === undefined) {
    return {
      read: (headers) => {
        const value = headers.get(header);
        return value ? [value] : NOTHING;
      },
      remove: (upstream) => upstream.delete(header),
    };
  }
  // Schemes are case-insensitive (RFC 9110, 11.1).
  const alone = new RegExp(`^${scheme} +([^ ,]+)$`, "i");
  // Repeated headers arrive joined by commas. Another reader may see a token there, so it must not count as none.
  const anywhere = new RegExp(`(?:^|,)[ \\t]*${scheme}(?:[ \\t,]|$)`, "i");
  const read = (headers: Headers): readonly string[] => {
    const value = headers.get(header);
    if (value === null) return NOTHING;
    const token = alone.exec(value)?.[1];
    if (token !== undefined) return [token];
    return anywhere.test(value) ? [value] : NOTHING;
  };
  return {
    read,
    remove: (upstream) => {
      if (read(upstream).length > 0) upstream.delete(header);
    },
  };
}

/**
 * Verified tokens by their text. Bounded in number and in size, since who can get tokens from the issuer decides how many there
 * are and how long. When there are too many, the oldest that was not used since the last look leaves: nearly the least recently
 * used one, without moving an entry at each use, which takes 1.4 µs in a Map of 1,000.
 */
class RememberedTokens {
  readonly #limit: number;
  readonly #tokens = new Map<string, { readonly verified: Verified; used: boolean }>();
  #size = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get(token: string, now: number): Verified | undefined {
    const entry = this.#tokens.get(token);
    if (!entry) return undefined;
    if (now >= entry.verified.until) {
      this.#delete(token);
      return undefined;
    }
    entry.used = true;
    return now >= entry.verified.from ? entry.verified : undefined;
  }

  put(token: string, verified: Verified): void {
    this.#delete(token);
    if (this.#limit === 0) return;
    for (const [oldest, entry] of this.#tokens) {
      if (this.#tokens.size < this.#limit && this.#size + token.length <= MAX_REMEMBERED_SIZE) break;
      this.#delete(oldest);
      // A Map keeps the order of insertion, so one that was used comes last now, and is met again with its mark taken off.
      if (entry.used) this.#insert(oldest, entry.verified);
    }
    // `join` makes a string of its own; a slice would keep the whole header that it was cut from.
    this.#insert(token.split(".").join("."), verified);
  }

  clear(): void {
    this.#tokens.clear();
    this.#size = 0;
  }

  #insert(token: string, verified: Verified): void {
    this.#tokens.set(token, { verified, used: false });
    this.#size += token.length;
  }

  #delete(token: string): void {
    if (this.#tokens.delete(token)) this.#size -= token.length;
  }
}

// Characters of token text; with the claims read from it a token takes some four times its length, and an isolate has 128 MB.
const MAX_REMEMBERED_SIZE = 4 * 1024 * 1024;

// A compact JWS (RFC 7515, 7.1). A JWE has five parts; and base64 decoders skip white space, so it is excluded here.
const COMPACT = /^[\w-]+\.[\w-]+\.[\w-]+$/;

// Of a token without `kid`, so many keys of the set are tried.
const MAX_KEYS_TRIED = 8;

class Verifier {
  readonly #config: JwtConfig;
  readonly #now: () => number;
  readonly #options: JWTVerifyOptions;
  readonly #keys: KeySet | Uint8Array;

  constructor(config: JwtConfig, runtime: GatewayRuntime, environment: unknown, keysChanged: () => void) {
    const text = (value: string | Reference) => (typeof value === "string" ? value : runtime.text(value, environment));
    let { algorithms } = config;
    if ("secret" in config.keys) {
      const key = new TextEncoder().encode(text(config.keys.secret));
      algorithms = algorithms.filter((algorithm) => key.length >= (HMAC[algorithm] ?? Infinity));
      if (algorithms.length === 0)
        throw new NotConfigured(`${nameOf(config.keys.secret)} is too short for its algorithm`);
      this.#keys = key;
    } else {
      const url = keySetUrl(text(config.keys.jwks));
      if (!url) throw new NotConfigured(`${nameOf(config.keys.jwks)} is no address of a key set`);
      this.#keys = new KeySet(url, config.keys.keySet, runtime.now, keysChanged);
    }
    this.#config = config;
    this.#now = runtime.now;
    this.#options = {
      issuer: config.issuer.map(text),
      ...(config.audience && { audience: config.audience.map(text) }),
      ...(config.typ !== undefined && { typ: config.typ }),
      algorithms: algorithms as JWSAlgorithm[],
      requiredClaims: [...config.requiredClaims],
      clockTolerance: config.leeway / 1_000,
    };
  }

  get keysStale(): boolean {
    return this.#keys instanceof KeySet && this.#keys.stale;
  }

  tend(exchange: Exchange): void {
    if (this.#keys instanceof KeySet) this.#keys.tend(exchange);
  }

  /** Throws KeysUnavailable, or an error with a reason (reasonOf). Puts the token's `kid` into `header`, even if it throws. */
  async verify(token: string, exchange: Exchange, header: { kid?: unknown }): Promise<Verified> {
    if (!COMPACT.test(token)) throw new TokenRefused("malformed");
    const options = { ...this.#options, currentDate: new Date(this.#now()) };
    const keys = this.#keys;
    const key = async (parsed: JWSHeaderParameters) => {
      header.kid = parsed.kid;
      // jose refuses extensions that it does not know. The one that it knows, an unencoded payload (RFC 7797), is not for JWTs,
      // and without `crit` it would be overlooked.
      if (parsed.crit !== undefined || parsed.b64 !== undefined) throw new TokenRefused("malformed");
      return keys instanceof KeySet ? keys.key(parsed, exchange) : keys;
    };
    const { payload, protectedHeader } = await jwtVerify(token, key, options).catch((error) => {
      if (error instanceof errors.JWKSMultipleMatchingKeys) return verifyByAny(error, token, options);
      throw error;
    });
    return this.#read(payload, protectedHeader.kid);
  }

  /** What jose leaves to its caller: the types of the claims, who is calling, and what the origin is told. */
  #read(claims: JWTPayload, kid: string | undefined): Verified {
    const { consumers, claimsToHeaders, leeway, maxLifetime } = this.#config;
    const { iss, sub, aud, exp, nbf, iat } = claims as Record<string, unknown>;
    check(!Object.hasOwn(claims, "__proto__"), "claim-type");
    check(typeof iss === "string" && typeof exp === "number" && Number.isFinite(exp), "claim-type");
    check(sub === undefined || typeof sub === "string", "claim-type");
    check(aud === undefined || [aud].flat().every((value) => typeof value === "string"), "claim-type");
    if (maxLifetime !== undefined) {
      check(iat !== undefined, "claim-missing");
      check(typeof iat === "number", "claim-type");
      // Else a later `iat` would buy a later `exp`.
      check(iat * 1_000 <= this.#now() + leeway, "not-yet");
      check((exp - iat) * 1_000 <= maxLifetime, "lifetime");
    }
    const scopes = scopesOf(claims);
    const consumer = consumers.find((candidate) =>
      Object.entries(candidate.claims).every(([path, value]) => claimAt(claims, path) === value),
    )?.name;
    check(consumer !== undefined || !this.#config.requireConsumer, "consumer");

    const headers: (readonly [string, string])[] = [];
    const tell = (name: string, value: unknown) => {
      const text = headerText(value);
      if (text !== "") headers.push([name, text]);
    };
    tell("x-consumer-subject", sub);
    tell("x-consumer-name", consumer);
    tell("x-consumer-scopes", scopes.join(" "));
    for (const [claim, header] of claimsToHeaders) tell(header, claimAt(claims, claim));

    // `|` is escaped in the issuer only, so no other pair of issuer and subject makes the same text.
    const issuer = iss.replace(/[%|]/g, encodeURIComponent);
    const subject = sub === undefined ? issuer : `${issuer}|${sub}`;
    return deepFreeze({
      caller: { ...(consumer !== undefined && { consumer }), subject, scopes, claims },
      headers,
      facts: kidFact(kid),
      from: typeof nbf === "number" ? nbf * 1_000 - leeway : -Infinity,
      until: exp * 1_000 + leeway,
    });
  }
}

/** With several keys that fit a token without `kid`, the one that verifies it. */
async function verifyByAny(several: errors.JWKSMultipleMatchingKeys, token: string, options: JWTVerifyOptions) {
  let tried = 0;
  for await (const key of several) {
    if (tried++ === MAX_KEYS_TRIED) break;
    try {
      return await jwtVerify(token, key, options);
    } catch (error) {
      if (!(error instanceof errors.JWSSignatureVerificationFailed)) throw error;
    }
  }
  throw new TokenRefused("signature");
}

function check(holds: boolean, reason: Reason): asserts holds {
  if (!holds) throw new TokenRefused(reason);
}

/** `key` also where the fault is not the token's, as with a key that the runtime cannot use: no one passes unverified. */
function reasonOf(error: unknown): Reason {
  if (error instanceof TokenRefused) return error.reason;
  if (error instanceof errors.JWTExpired) return "expired";
  if (error instanceof errors.JWTClaimValidationFailed) {
    if (error.reason === "missing") return "claim-missing";
    if (error.reason === "invalid") return "claim-type";
    return CHECKED[error.claim] ?? "claim-type";
  }
  if (error instanceof errors.JOSEAlgNotAllowed) return "algorithm";
  if (error instanceof errors.JWSSignatureVerificationFailed) return "signature";
  if (error instanceof errors.JWKSNoMatchingKey || error instanceof errors.JWKSInvalid) return "key";
  if (!(error instanceof errors.JOSEError)) return "key";
  return "malformed";
}

const CHECKED: Readonly<Record<string, Reason>> = { typ: "type", iss: "issuer", aud: "audience", nbf: "not-yet" };

/** `scope` (RFC 8693, 4.2), else `scp`, which others call it, also as an array. */
function scopesOf({ scope, scp = [] }: JWTPayload): string[] {
  check(scope === undefined || typeof scope === "string", "claim-type");
  const listed = scope ?? scp;
  const scopes = typeof listed === "string" ? listed.split(" ").filter((item) => item !== "") : listed;
  check(Array.isArray(scopes), "claim-type");
  // A scope with a space in it would be two for the origin.
  check(
    scopes.every((item) => typeof item === "string" && SCOPE_TOKEN.test(item)),
    "claim-type",
  );
  return scopes;
}

/** One scope (RFC 6749, 3.3). */
export const SCOPE_TOKEN = /^[\x21\x23-\x5b\x5d-\x7e]+$/;

/**
 * A claim as the value of a header: visible ASCII and inner spaces as they are, all else and `%` percent-encoded as UTF-8, so
 * that decodeURIComponent gives the text back and no two texts look the same. Arrays are joined by commas, those within items
 * being encoded too. "", which stands for no header, for what is absent, null or empty.
 */
function headerText(value: unknown): string {
  if (value === undefined || value === null) return "";
  if (Array.isArray(value)) return value.map((item) => atomText(item).replaceAll(",", "%2C")).join(",");
  return atomText(value);
}

function atomText(value: unknown): string {
  check(typeof value === "string" || typeof value === "number" || typeof value === "boolean", "claim-type");
  const text = String(value);
  check(text.isWellFormed(), "claim-type");
  // Spaces at the ends would be trimmed on the way.
  return text.replace(/[^\x20-\x24\x26-\x7e]|^ +| +$/gu, encodeURIComponent);
}

/** The key's id as a fact of the record. It is the sender's text, so it is cut and cleaned. */
function kidFact(kid: unknown): { kid: string } | undefined {
  return typeof kid === "string" ? { kid: kid.slice(0, 64).replace(/[^\w.:/+=-]/g, "?") } : undefined;
}

const nameOf = (value: string | Reference): string =>
  typeof value === "string" ? value : String(Object.values(value)[0]);

function deepFreeze<T>(value: T): T {
  if (typeof value === "object" && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const member of Object.values(value)) deepFreeze(member);
  }
  return value;
}
