/**
 * Passwords as hashes: `$pbkdf2-sha256$i=100000$<salt>$<hash>`, the PHC string format with base64 without padding. PBKDF2 because it is
 * what WebCrypto has; 100,000 rounds because Workers refuse more.
 */

export interface PasswordHash {
  readonly salt: Uint8Array<ArrayBuffer>;
  readonly hash: Uint8Array;
}

// Always as many, so that checking tells nothing about whose password it is.
const ITERATIONS = 100_000;
const FORM = /^\$pbkdf2-sha256\$i=100000\$([A-Za-z0-9+/]{22})\$([A-Za-z0-9+/]{43})$/;

/** Undefined for what is no such hash. */
export function parseHash(text: string): PasswordHash | undefined {
  const [, salt, hash] = FORM.exec(text) ?? [];
  return salt && hash ? { salt: fromBase64(salt), hash: fromBase64(hash) } : undefined;
}

/** Takes some 20 ms of CPU time. */
export async function hashPassword(password: string): Promise<string> {
  const salt = crypto.getRandomValues(new Uint8Array(16));
  const hash = await derive(password, salt);
  return `$pbkdf2-sha256$i=${ITERATIONS}$${toBase64(salt)}$${toBase64(hash)}`;
}

/** Takes as long for a wrong password as for the right one, wherever they differ. */
export async function checkPassword(password: string, { salt, hash }: PasswordHash): Promise<boolean> {
  const derived = await derive(password, salt);
  let difference = derived.length ^ hash.length;
  for (let i = 0; i < derived.length; i++) difference |= (derived[i] as number) ^ (hash[i] ?? 0);
  return difference === 0;
}

/** What a password is checked against where there is no such user, so that this takes as long. No password is known that fits. */
export const NOBODY: PasswordHash = {
  salt: new Uint8Array(16),
  hash: new Uint8Array(32),
};

async function derive(password: string, salt: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  // One spelling for what looks the same (RFC 8265, 4.2.2).
  const bytes = new TextEncoder().encode(password.normalize("NFC"));
  const key = await crypto.subtle.importKey("raw", bytes, "PBKDF2", false, ["deriveBits"]);
  const parameters = { name: "PBKDF2", hash: "SHA-256", salt, iterations: ITERATIONS };
  return new Uint8Array(await crypto.subtle.deriveBits(parameters, key, 256));
}

const toBase64 = (bytes: Uint8Array): string => btoa(String.fromCharCode(...bytes)).replace(/=+$/, "");
const fromBase64 = (text: string): Uint8Array<ArrayBuffer> =>
  Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
