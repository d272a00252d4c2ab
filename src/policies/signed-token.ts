/** What jwt and oidc have in common: everything but where the issuer's keys come from. */
import { z } from "zod";
import type { Duration } from "../config/api.ts";
import type { Deciding } from "../config/policy.ts";
import type { EnvReference } from "../config/values.ts";
import type { PolicyName } from "../table/table.ts";
import { BoundedMemory } from "./bounded-memory.ts";
import { type ClaimOptions, claimShape, compileClaims } from "./claims.ts";
import {
  type Admission,
  type Authentication,
  type CompileContext,
  type Exchange,
  type GatewayContext,
  type MakeAuthenticator,
  NotConfigured,
} from "./contract.ts";
import { type CredentialPlace, placeOf, placeSchema, readCredential } from "./credential-place.ts";
import { durationOption } from "./durations.ts";
import { type KeySetConfig, KeysUnavailable } from "./jwks.ts";
import { tokenMissing, tokenRefusal } from "./token-refusal.ts";
import { kidFact, reasonOf, type Verified, Verifier, type VerifierConfig } from "./token-verifier.ts";

export interface SignedTokenOptions extends Deciding, ClaimOptions {
  /** The token's `aud` must have one of these. Without it a token that the issuer made for another API passes. */
  readonly audience?: string | EnvReference | readonly (string | EnvReference)[];
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
  readonly tokenFrom?: readonly CredentialPlace[];
  /** Requests without a token pass, with no caller; a token that is there must be valid. Default: false. */
  readonly optional?: boolean;
  /** Whether the origin gets the token too. Default: false. */
  readonly forwardToken?: boolean;
  /** How many verified tokens an isolate remembers; 0: none. Default: 1000. */
  readonly remember?: number;
  readonly keySet?: KeySetOptions;
}

export interface KeySetOptions {
  /** For fetching the key set, at most `25s`. Default: `5s`. */
  readonly timeout?: Duration;
  /** After that it is refreshed in the background: how long a key that the issuer removed still counts. Default: `10m`. */
  readonly maxAge?: Duration;
  /** Least time between two fetches because of unknown keys. Default: `30s`. */
  readonly coolDown?: Duration;
  /** How long after `maxAge` the last good set serves while the issuer is down. Default: until it is back. */
  readonly maxStale?: Duration;
}

export const text = () => z.string().min(1);
export const reference = <Kind extends string>(kind: Kind) =>
  z.looseObject({ kind: z.literal(kind), name: z.string() });
/** A text, or a variable of the environment. */
export const value = () => z.union([text(), reference("env")]);

/** Members for the schema of a policy that takes SignedTokenOptions. */
export const signedTokenShape = () => ({
  mode: z.enum(["enforce", "report", "off"]).optional(),
  ...claimShape(),
  audience: z.union([value(), z.array(value()).min(1)]).optional(),
  algorithms: z.array(text()).min(1).optional(),
  typ: text().optional(),
  requiredClaims: z.array(text()).optional(),
  leeway: text().optional(),
  maxLifetime: text().optional(),
  maxTokenSize: z.int().min(256).max(65_536).optional(),
  tokenFrom: z.array(placeSchema()).min(1).optional(),
  optional: z.boolean().optional(),
  forwardToken: z.boolean().optional(),
  remember: z.int().min(0).max(100_000).optional(),
  keySet: z
    .strictObject({
      timeout: text().optional(),
      maxAge: text().optional(),
      coolDown: text().optional(),
      maxStale: text().optional(),
    })
    .optional(),
});

export interface SignedTokenConfig extends VerifierConfig {
  readonly maxTokenSize: number;
  readonly tokenFrom: readonly CredentialPlace[];
  readonly optional: boolean;
  readonly forwardToken: boolean;
  readonly remember: number;
}

const MAX_LEEWAY = 60_000;
// What was begun for a request may go on for 30 s after its response (Workers' waitUntil).
export const MAX_TIMEOUT = 25_000;

/** All but the issuer and its keys. `known` are the algorithms that the keys may have. */
export function compileSignedToken(
  options: SignedTokenOptions,
  context: CompileContext,
  policy: PolicyName,
  known: readonly string[],
): Omit<SignedTokenConfig, "issuer" | "keys"> {
  const { audience, typ } = options;
  const tokenFrom = options.tokenFrom ?? [{ header: "authorization", scheme: "Bearer" }];
  const carriers = tokenFrom.map((place) => ("header" in place ? place.header.toLowerCase() : ""));
  const lifetime = durationOption(context, "maxLifetime", options.maxLifetime, undefined, 1);
  return {
    ...compileClaims(options, context, policy, carriers),
    ...(audience !== undefined && { audience: valuesOf(audience, context) }),
    algorithms: options.algorithms ?? known,
    ...(typ !== undefined && { typ }),
    requiredClaims: [...new Set(["iss", "exp", ...(options.requiredClaims ?? [])])],
    leeway: durationOption(context, "leeway", options.leeway, 5_000, 0, MAX_LEEWAY),
    ...(lifetime !== undefined && { maxLifetime: lifetime }),
    maxTokenSize: options.maxTokenSize ?? 8_192,
    tokenFrom,
    optional: options.optional ?? false,
    forwardToken: options.forwardToken ?? false,
    remember: options.remember ?? 1_000,
  };
}

export const valuesOf = (
  given: string | EnvReference | readonly (string | EnvReference)[],
  context: Pick<CompileContext, "reference">,
) => [given].flat().map((one) => (typeof one === "string" ? one : context.reference(one as EnvReference)));

export function compileKeySet({ timeout, maxAge, coolDown, maxStale }: KeySetOptions = {}, context: CompileContext) {
  const stale = durationOption(context, "maxStale", maxStale, undefined);
  const config: KeySetConfig = {
    timeout: durationOption(context, "timeout", timeout, 5_000, 1, MAX_TIMEOUT),
    maxAge: durationOption(context, "maxAge", maxAge, 600_000, 1_000),
    coolDown: durationOption(context, "coolDown", coolDown, 30_000, 1_000),
    ...(stale !== undefined && { maxStale: stale }),
  };
  return config;
}

const ANONYMOUS: Admission = Object.freeze({ headers: [], facts: Object.freeze({ anonymous: true }) });

/** `policy` is whose authenticator it is. */
export const signedTokenAuthenticator =
  (policy: PolicyName): MakeAuthenticator<SignedTokenConfig> =>
  (config, runtime) => {
    const places = config.tokenFrom.map(placeOf);
    const remembered = new BoundedMemory<Verified>(config.remember);
    // Grows with every change of the keys, so that what is being verified with the old ones meanwhile is not remembered.
    let epoch = 0;
    const keysChanged = () => {
      epoch++;
      remembered.clear();
    };
    // Needs the environment, which comes with the first request.
    let verifier: Verifier | undefined;

    const admissionOf = ({ admission }: Verified): Admission =>
      verifier?.keysStale ? { ...admission, facts: { ...admission.facts, keys: "stale" } } : admission;

    /** Of a token that is not remembered. */
    const judge = async (exchange: Exchange, verifier: Verifier, token: string): Promise<Authentication> => {
      const before = epoch;
      const header: { kid?: unknown } = {};
      try {
        const verified = await verifier.verify(token, exchange, header);
        if (epoch === before) remembered.put(token, verified);
        return admissionOf(verified);
      } catch (error) {
        if (error instanceof NotConfigured) throw error;
        if (!(error instanceof KeysUnavailable)) return tokenRefusal(exchange, reasonOf(error), kidFact(header.kid));
        return {
          refused: "keys-unavailable",
          extras: { headers: { "retry-after": String(error.retryAfter) } },
        };
      }
    };

    return {
      authenticate(c: GatewayContext): Authentication | Promise<Authentication> {
        const exchange = c.get("exchange");
        const token = readCredential(places, exchange);
        if (token === undefined) return config.optional ? ANONYMOUS : tokenMissing(exchange);
        if (typeof token === "object") return tokenRefusal(exchange, "conflict");
        if (token.length > config.maxTokenSize) return tokenRefusal(exchange, "size");
        verifier ??= new Verifier(config, runtime, c.env, policy, keysChanged);
        verifier.tend(exchange);
        const now = runtime.now();
        const verified = remembered.get(token);
        if (verified && now >= verified.until) remembered.delete(token);
        else if (verified && now >= verified.from) return admissionOf(verified);
        return judge(exchange, verifier, token);
      },
      ...(!config.forwardToken && {
        withhold: (exchange: Exchange) => {
          for (const place of places) place.remove(exchange);
        },
      }),
    };
  };
