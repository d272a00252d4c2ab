/**
 * An issuer of tokens with real keys. Its key set is served through a stub of `fetch`: the issuer stands outside of the gateway,
 * and a stub can count, fail and hang at will. test/e2e asks a real one over HTTP.
 */
import { base64url, CompactSign, type CryptoKey, exportJWK, generateKeyPair, type JWK } from "jose";
import { vi } from "vitest";

export const ISSUER = "https://login.example.com/";
export const AUDIENCE = "https://api.example.com";
export const JWKS = "https://login.example.com/.well-known/jwks.json";
/** Seconds since the epoch at which tests begin. */
export const NOW = Date.UTC(2026, 10, 23, 12) / 1_000;

export interface Key {
  readonly alg: string;
  readonly kid: string;
  readonly privateKey: CryptoKey;
  readonly publicKey: CryptoKey;
  /** The public key, with `kid`, `alg` and `use`. */
  readonly jwk: JWK;
}

export async function makeKey(kid: string, alg = "ES256"): Promise<Key> {
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true });
  return { alg, kid, privateKey, publicKey, jwk: { ...(await exportJWK(publicKey)), kid, alg, use: "sig" } };
}

/** Claims that the tests' policy accepts. */
export const goodClaims = { iss: ISSUER, aud: AUDIENCE, sub: "user-1", iat: NOW, exp: NOW + 300 };

/** A token of `key`. `claims` are those of `goodClaims`, changed; undefined takes one away. A text is the payload as it is. */
export function sign(
  key: Pick<Key, "alg" | "kid"> & { privateKey: CryptoKey | Uint8Array },
  claims: Record<string, unknown> | string = {},
  header: Record<string, unknown> = {},
): Promise<string> {
  const payload = typeof claims === "string" ? claims : JSON.stringify({ ...goodClaims, ...claims });
  return new CompactSign(new TextEncoder().encode(payload))
    .setProtectedHeader(JSON.parse(JSON.stringify({ alg: key.alg, kid: key.kid, ...header })))
    .sign(key.privateKey);
}

/** A compact token of any header and payload; without a signature of its own, one that means nothing. */
export const forge = (header: unknown, payload: unknown, signature = "AAAA"): string =>
  `${base64url.encode(JSON.stringify(header))}.${base64url.encode(JSON.stringify(payload))}.${signature}`;

/** A token that an ES256 key really signed, with a header that no library would sign. */
export async function signAnyway(key: Key, header: unknown, payload: unknown = goodClaims): Promise<string> {
  const input = forge(header, payload, "");
  const signature = await crypto.subtle.sign(
    { name: "ECDSA", hash: "SHA-256" },
    key.privateKey,
    new TextEncoder().encode(input.slice(0, -1)),
  );
  return input + base64url.encode(new Uint8Array(signature));
}

export interface StubbedIssuer {
  keys: JWK[];
  /** What was asked for, in order. */
  readonly asked: string[];
  /** Answers instead of the key set. */
  answer: (() => Response | Promise<Response>) | undefined;
}

/** Stubs `fetch` with an issuer that serves `keys`; vi.restoreAllMocks() takes it away. */
export function stubIssuer(...keys: Key[]): StubbedIssuer {
  const issuer: StubbedIssuer = { keys: keys.map(({ jwk }) => jwk), asked: [], answer: undefined };
  vi.spyOn(globalThis, "fetch").mockImplementation(async (input) => {
    issuer.asked.push(String(input));
    return issuer.answer?.() ?? Response.json({ keys: issuer.keys });
  });
  return issuer;
}
