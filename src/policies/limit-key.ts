/** Whom a limit counts, and the part of its Redis key that says so. */
import { z } from "zod";
import { subscriberOf } from "../table/cidr.ts";
import { claimAt, type Exchange } from "./contract.ts";

/**
 * Whose requests are counted together. `consumer`: the declared consumer, or else the token's subject; `client`: the trusted
 * address, an IPv6 one by its /64; `route`: all callers. A request without the consumer, header or claim counts by its client.
 * A header is whatever the caller sends: by itself it bounds nobody who wants to get around it.
 */
export type LimitKey = "consumer" | "client" | "route" | { readonly header: string } | { readonly claim: string };

export const HEADER_NAME = /^[A-Za-z0-9-_]+$/;

export const limitKeySchema = () =>
  z.union([
    z.enum(["consumer", "client", "route"]),
    z.strictObject({ header: z.string().regex(HEADER_NAME) }),
    z.strictObject({ claim: z.string().min(1) }),
  ]);

/** The keys of an option `per`, header names in lower case. Default: the client. */
export const limitKeys = (per: LimitKey | readonly LimitKey[] = "client"): LimitKey[] =>
  ([per].flat() as LimitKey[]).map((key) =>
    typeof key === "object" && "header" in key ? { header: key.header.toLowerCase() } : key,
  );

/** `client=192.0.2.1`, or several parts with commas between. No promise where nothing has to be hashed. */
export function callerKey(keys: readonly LimitKey[], exchange: Exchange, headers: Headers): string | Promise<string> {
  if (keys.length === 1) return partOf(keys[0] as LimitKey, exchange, headers);
  return Promise.all(keys.map((key) => partOf(key, exchange, headers))).then((parts) => parts.join());
}

/** One part of a key: `client=192.0.2.1`, `header.x-api-key=~3f2a…`. */
function partOf(key: LimitKey, exchange: Exchange, headers: Headers): string | Promise<string> {
  const { caller } = exchange;
  if (key === "route") return "all";
  if (key === "consumer" && caller) {
    return caller.consumer === undefined ? readable("subject", caller.subject) : readable("consumer", caller.consumer);
  }
  if (typeof key === "object") {
    const [kind, value] =
      "header" in key
        ? [`header.${key.header}`, headers.get(key.header)]
        : [`claim.${key.claim}`, claimText(caller?.claims, key.claim)];
    // Always hashed: it may be an API key.
    if (value) return hashed(plain(kind), value);
  }
  return readable("client", subscriberOf(exchange.clientAddress) || "unknown");
}

const claimText = (claims: Readonly<Record<string, unknown>> | undefined, path: string): string => {
  const value = claimAt(claims ?? {}, path);
  return typeof value === "object" && value !== null ? JSON.stringify(value) : String(value ?? "");
};

/** Names of the operator's, without characters that Redis takes for a pattern or that part the parts of a key. */
export const plain = (name: string): string =>
  name.replace(/[^\w.:/@|+-]/g, (character) => `%${character.charCodeAt(0).toString(16)}`);

/** What callers sent stays readable where it has no such character either and is short; `~` is for hashes alone. */
const PLAIN = /^[\w.:/@|+-]{1,64}$/;

const readable = (kind: string, value: string): string | Promise<string> =>
  PLAIN.test(value) ? `${kind}=${value}` : hashed(kind, value);

/** Half of a SHA-256: nobody finds two values that share a bucket. */
async function hashed(kind: string, value: string): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(value)));
  return `${kind}=~${Array.from(digest.subarray(0, 16), (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
