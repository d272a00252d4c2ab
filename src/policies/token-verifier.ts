/** Whether a signed token (RFC 7515, RFC 7519) is to be believed, and for how long. */
import {
  base64url,
  errors,
  type JWSAlgorithm,
  type JWSHeaderParameters,
  type JWTPayload,
  type JWTVerifyOptions,
  jwtVerify,
} from "jose";
import type { PolicyName, Reference } from "../table/table.ts";
import { admissionByClaims, type ClaimConfig } from "./claims.ts";
import { type Admission, type Exchange, type GatewayRuntime, NotConfigured } from "./contract.ts";
import { hasDuplicateMembers } from "./duplicate-members.ts";
import { KeySet, type KeySetConfig, keySetOf } from "./jwks.ts";
import { providerUrl } from "./provider-request.ts";
import { check, type TokenReason, TokenRefused } from "./token-refusal.ts";

/** Durations are in milliseconds. */
export interface VerifierConfig extends ClaimConfig {
  readonly issuer: readonly (string | Reference)[];
  readonly audience?: readonly (string | Reference)[];
  readonly keys:
    | { readonly jwks: string | Reference; readonly keySet: KeySetConfig }
    /** By the metadata of the one issuer that there is. */
    | { readonly discovery: true; readonly keySet: KeySetConfig }
    | { readonly secret: Reference };
  readonly algorithms: readonly string[];
  readonly typ?: string;
  readonly requiredClaims: readonly string[];
  readonly leeway: number;
  readonly maxLifetime?: number;
}

/** What a token says, ready for each request that carries it. */
export interface Verified {
  readonly admission: Admission;
  /** Milliseconds since the epoch, with the leeway: valid from then on, and until just before then. */
  readonly from: number;
  readonly until: number;
}

/** The least length of a secret, in bytes (RFC 7518, 3.2). */
export const HMAC: Readonly<Record<string, number>> = { HS256: 32, HS384: 48, HS512: 64 };
// All that jose's key set resolves and workerd verifies; ML-DSA is not among the latter.
export const ASYMMETRIC = "RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA Ed25519".split(" ");

// A compact JWS (RFC 7515, 7.1). A JWE has five parts; and base64 decoders skip white space, so it is excluded here. So are the bits of
// a last character that belong to no byte, which decoders drop (RFC 4648, 3.5): else one token could be written in sixteen ways.
const PART = String.raw`(?=[\w-])(?:[\w-]{4})*(?:[\w-][AQgw]|[\w-]{2}[AEIMQUYcgkosw048])?`;
const COMPACT = new RegExp(String.raw`^${PART}\.${PART}\.${PART}$`);

// Of a token without `kid`, so many keys of the set are tried.
const MAX_KEYS_TRIED = 8;

export class Verifier {
  readonly #config: VerifierConfig;
  readonly #runtime: GatewayRuntime;
  readonly #kind: PolicyName;
  readonly #options: JWTVerifyOptions;
  readonly #keys: KeySet | Uint8Array;

  /** `kind` is the policy that asks; `keysChanged` is called when what was verified so far may no longer hold. */
  constructor(
    config: VerifierConfig,
    runtime: GatewayRuntime,
    environment: unknown,
    kind: PolicyName,
    keysChanged: () => void,
  ) {
    const text = (value: string | Reference) => (typeof value === "string" ? value : runtime.text(value, environment));
    let { algorithms } = config;
    if ("secret" in config.keys) {
      const key = new TextEncoder().encode(text(config.keys.secret));
      algorithms = algorithms.filter((algorithm) => key.length >= (HMAC[algorithm] ?? Infinity));
      if (algorithms.length === 0)
        throw new NotConfigured(`${nameOf(config.keys.secret)} is too short for its algorithm`);
      this.#keys = key;
    } else {
      const { keySet } = config.keys;
      const discovered = "discovery" in config.keys;
      const named = discovered ? (config.issuer[0] as string | Reference) : config.keys.jwks;
      const address = text(named);
      const url = providerUrl(address);
      if (!url) throw new NotConfigured(`${nameOf(named)} is no address of ${discovered ? "an issuer" : "a key set"}`);
      // An issuer's name is compared character by character, so it is not the URL that it is parsed to.
      const source = discovered ? keySetOf(address, keySet.timeout) : url;
      this.#keys = new KeySet(source, keySet, runtime.now, keysChanged);
    }
    this.#config = config;
    this.#runtime = runtime;
    this.#kind = kind;
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
    const { payload, kid } = await this.claims(token, exchange, header);
    return this.#read(payload, kid);
  }

  /** The claims of a token that is valid now. */
  async claims(
    token: string,
    exchange: Exchange,
    header: { kid?: unknown },
  ): Promise<{ readonly payload: JWTPayload; readonly kid: string | undefined }> {
    if (!COMPACT.test(token)) throw new TokenRefused("malformed");
    const options = { ...this.#options, currentDate: new Date(this.#runtime.now()) };
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
    // Only now: what nobody has signed is not worth reading twice.
    for (const part of token.split(".", 2)) {
      if (hasDuplicateMembers(new TextDecoder().decode(base64url.decode(part)))) throw new TokenRefused("duplicate");
    }
    this.#checkTypes(payload);
    return { payload, kid: protectedHeader.kid };
  }

  /** What jose leaves to its caller: the types of the claims. */
  #checkTypes(claims: JWTPayload): void {
    const { leeway, maxLifetime } = this.#config;
    const { iss, aud, exp, iat } = claims as Record<string, unknown>;
    check(typeof iss === "string" && typeof exp === "number" && Number.isFinite(exp), "claim-type");
    check(aud === undefined || [aud].flat().every((value) => typeof value === "string"), "claim-type");
    if (maxLifetime !== undefined) {
      check(iat !== undefined, "claim-missing");
      check(typeof iat === "number", "claim-type");
      // Else a later `iat` would buy a later `exp`.
      check(iat * 1_000 <= this.#runtime.now() + leeway, "not-yet");
      check((exp - iat) * 1_000 <= maxLifetime, "lifetime");
    }
  }

  #read(claims: JWTPayload, kid: string | undefined): Verified {
    const { leeway } = this.#config;
    const { iss, sub, exp, nbf } = claims as { iss: string; exp: number; sub?: unknown; nbf?: unknown };
    const subject = subjectOf(iss, sub);
    return {
      admission: admissionByClaims(claims, subject, this.#config, this.#runtime, this.#kind, kidFact(kid)),
      from: typeof nbf === "number" ? nbf * 1_000 - leeway : -Infinity,
      until: exp * 1_000 + leeway,
    };
  }
}

/** One text for issuer and subject. `|` is escaped in the issuer only, so no other pair of the two makes the same text. */
export function subjectOf(issuer: string, sub: unknown): string {
  const escaped = issuer.replace(/[%|]/g, encodeURIComponent);
  return sub === undefined ? escaped : `${escaped}|${sub}`;
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

/** `key` also where the fault is not the token's, as with a key that the runtime cannot use: no one passes unverified. */
export function reasonOf(error: unknown): TokenReason {
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

const CHECKED: Readonly<Record<string, TokenReason>> = { typ: "type", iss: "issuer", aud: "audience", nbf: "not-yet" };

/** The key's id as a fact of the record. It is the sender's text, so it is cut and cleaned. */
export function kidFact(kid: unknown): { kid: string } | undefined {
  return typeof kid === "string" ? { kid: kid.slice(0, 64).replace(/[^\w.:/+=-]/g, "?") } : undefined;
}

const nameOf = (value: string | Reference): string =>
  typeof value === "string" ? value : String(Object.values(value)[0]);
