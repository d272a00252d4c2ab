/**
 * How an API key is written, `<prefix>_<32 random characters>_<checksum>`, and what the store holds of it. The prefix and the shape let
 * secret scanners find keys in places where they should not be; the checksum tells a typo and a made-up key from a real one without
 * asking anybody. It proves nothing: who knows this page can write one.
 */

/** Of an operator's choice: `shop`, `shop_live`. */
export const PREFIX = /^[a-z][a-z0-9]{0,15}(?:_[a-z0-9]{1,16})?$/;

const BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
// 190 bits: guessing is hopeless, so a plain SHA-256 is as good as a slow hash (those are for what people think up).
const RANDOM_LENGTH = 32;
// 62^6 > 2^32, all that a CRC-32 can be.
const CHECKSUM_LENGTH = 6;

/** A new key; `random` is its part of RANDOM_LENGTH characters. */
export function makeKey(prefix: string, random = randomText(RANDOM_LENGTH)): string {
  const body = `${prefix}_${random}`;
  return `${body}_${checksumOf(body)}`;
}

/** Characters of base62, each as likely as any other. */
export function randomText(length: number): string {
  let text = "";
  while (text.length < length) {
    for (const byte of crypto.getRandomValues(new Uint8Array(length * 2))) {
      // 248 is the largest multiple of 62 in a byte; without this the first characters would be likelier.
      if (byte < 248 && text.length < length) text += BASE62[byte % 62];
    }
  }
  return text;
}

/** Whether `text` is written as keys with this prefix are, checksum included. */
export function isKey(text: string, prefix: string): boolean {
  const length = prefix.length + RANDOM_LENGTH + CHECKSUM_LENGTH + 2;
  if (text.length !== length || !text.startsWith(`${prefix}_`)) return false;
  const body = text.slice(0, -CHECKSUM_LENGTH - 1);
  return (
    /^[0-9A-Za-z]{32}_[0-9A-Za-z]{6}$/.test(text.slice(prefix.length + 1)) && text === `${body}_${checksumOf(body)}`
  );
}

function checksumOf(text: string): string {
  let rest = crc32(text);
  let checksum = "";
  for (let i = 0; i < CHECKSUM_LENGTH; i++) {
    checksum = BASE62[rest % 62] + checksum;
    rest = Math.floor(rest / 62);
  }
  return checksum;
}

/** CRC-32 as in ISO 3309 and zlib, of ASCII. Bit by bit: keys are short, and only unknown ones come here. */
function crc32(text: string): number {
  let crc = 0xffffffff;
  for (let i = 0; i < text.length; i++) {
    crc ^= text.charCodeAt(i);
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}

/** In hexadecimal. */
export async function sha256(text: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** What the store holds under `recordKey(hash)`, as JSON. Times in milliseconds since the epoch. */
export interface KeyRecord {
  /** By which commands and records name the key. It says nothing about the key. */
  readonly id: string;
  readonly consumer: string;
  readonly created: number;
  readonly expires?: number;
  readonly scopes?: readonly string[];
  /** Of a consumer that the routes do not declare; of one that they do, the declaration counts. */
  readonly groups?: readonly string[];
  readonly plan?: string;
}

/** Where the store has the record of the key with this SHA-256. Gone with the key's revocation or expiry. */
export const recordKey = (hash: string): string => `apikey:${hash}`;

/** Redis hash of all keys that were made, `id` to an IndexedKey as JSON. Only the command line reads it. */
export const KEY_INDEX = "apikeys";

export interface IndexedKey extends KeyRecord {
  readonly hash: string;
  readonly revoked?: number;
  /** Id of the key that takes its place. */
  readonly rotated?: string;
}

/** Undefined for what is no record. */
export function parseRecord(json: string): KeyRecord | undefined {
  try {
    const record = JSON.parse(json) as Partial<KeyRecord>;
    const { id, consumer, expires, scopes = [], groups = [], plan } = record;
    const sound =
      typeof id === "string" &&
      typeof consumer === "string" &&
      (expires === undefined || typeof expires === "number") &&
      [scopes, groups].every((list) => Array.isArray(list) && list.every((item) => typeof item === "string")) &&
      (plan === undefined || typeof plan === "string");
    return sound ? (record as KeyRecord) : undefined;
  } catch {
    return undefined;
  }
}
