/** What the gateway lets browsers keep for it: encrypted and authenticated (JWE, RFC 7516, `dir` with A256GCM), so that they can neither read nor change it. */
import { base64url, EncryptJWT, jwtDecrypt } from "jose";
import { NotConfigured } from "./contract.ts";

// Browsers keep 4096 bytes of a cookie, name and attributes included (RFC 6265, 6.1).
export const SEALED_COOKIE_LIMIT = 3_800;

const SHORTEST_KEY = 32;

/** The key that a secret stands for. Throws NotConfigured, with the secret's `name`, for what is too short to be one. */
export async function sealingKey(text: string, name: string): Promise<CryptoKey> {
  if (text.length < SHORTEST_KEY) throw new NotConfigured(`${name} is shorter than ${SHORTEST_KEY} characters`);
  // Whatever is random in it, in the length that the cipher wants.
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return crypto.subtle.importKey("raw", digest, { name: "AES-GCM" }, false, ["encrypt", "decrypt"]);
}

/** What is sealed for one of these opens for no other, also under the same key. */
export interface SealedFor {
  readonly purpose: "session" | "login";
  /** Whose it is, such as the provider and the client of a login. */
  readonly audience: string;
}

/** `until` in milliseconds since the epoch. */
export const seal = (
  payload: object,
  { purpose, audience }: SealedFor,
  key: CryptoKey,
  until: number,
): Promise<string> =>
  new EncryptJWT({ ...payload })
    .setProtectedHeader({ alg: "dir", enc: "A256GCM", typ: `portcullis-${purpose}+jwt` })
    .setAudience(audience)
    .setExpirationTime(Math.floor(until / 1_000))
    .encrypt(key);

/** Undefined for what none of the keys has sealed for this, or has expired at `now`. */
export async function openSealed<Payload>(
  sealed: string,
  { purpose, audience }: SealedFor,
  keys: readonly CryptoKey[],
  now: number,
): Promise<{ readonly payload: Payload; readonly until: number } | undefined> {
  const options = {
    typ: `portcullis-${purpose}+jwt`,
    audience,
    currentDate: new Date(now),
    requiredClaims: ["exp"],
    keyManagementAlgorithms: ["dir"],
    contentEncryptionAlgorithms: ["A256GCM"],
  };
  for (const key of keys) {
    try {
      const { payload } = await jwtDecrypt(sealed, key, options);
      return { payload: payload as Payload, until: (payload.exp as number) * 1_000 };
    } catch {
      // Another key may fit; and a browser is not told why none does.
    }
  }
  return undefined;
}

/** 256 random bits, as text for URLs. */
export const randomSecret = (): string => base64url.encode(crypto.getRandomValues(new Uint8Array(32)));
