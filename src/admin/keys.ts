/** API keys in the store: made, listed, revoked, rotated. What the gateway reads of them is told in policies/api-key-format.ts. */
import type { Redis } from "@upstash/redis";
import {
  type IndexedKey,
  KEY_INDEX,
  type KeyRecord,
  makeKey,
  randomText,
  recordKey,
  sha256,
} from "../policies/api-key-format.ts";

/** What a new key is for. Times in milliseconds since the epoch. */
export type KeyWishes = Omit<KeyRecord, "id" | "created">;

export interface MadeKey {
  readonly record: KeyRecord;
  /** Nothing keeps it: this is the only time that it is seen. */
  readonly key: string;
}

export type KeyState = "live" | "expired" | "revoked";

// Of what has ended, so long is told; then the index forgets it.
const REMEMBERED_MS = 90 * 86_400_000;

export async function createKey(redis: Redis, prefix: string, wishes: KeyWishes, now = Date.now()): Promise<MadeKey> {
  const key = makeKey(prefix);
  const record: KeyRecord = { id: randomText(10), created: now, ...wishes };
  const hash = await sha256(key);
  const write = redis.multi();
  write.set(recordKey(hash), JSON.stringify(record), lifetimeOf(record));
  write.hset(KEY_INDEX, { [record.id]: JSON.stringify({ ...record, hash }) });
  const forgotten = (await listKeys(redis)).filter((one) => (endOf(one) ?? now) < now - REMEMBERED_MS);
  if (forgotten.length > 0) write.hdel(KEY_INDEX, ...forgotten.map(({ id }) => id));
  await write.exec();
  return { record, key };
}

/** All that were made and are not forgotten, the oldest first. */
export async function listKeys(redis: Redis): Promise<IndexedKey[]> {
  const stored = (await redis.hvals(KEY_INDEX)) as string[];
  return stored
    .map((json) => JSON.parse(json) as IndexedKey)
    .sort((a, b) => a.created - b.created || (a.id < b.id ? -1 : 1));
}

export function stateOf({ revoked, expires }: IndexedKey, now = Date.now()): KeyState {
  if (revoked !== undefined) return "revoked";
  return expires !== undefined && expires <= now ? "expired" : "live";
}

/** The key with this id. Throws when there is none. */
export async function findKey(redis: Redis, id: string): Promise<IndexedKey> {
  const json = await redis.hget<string>(KEY_INDEX, id);
  if (json === null) throw new Error(`there is no key ${id}; gateway keys list --all tells the ids`);
  return JSON.parse(json);
}

/** The id of a key that somebody has. Throws when the store does not know it. */
export async function idOfKey(redis: Redis, key: string): Promise<string> {
  const hash = await sha256(key);
  const found = (await listKeys(redis)).find((one) => one.hash === hash);
  if (!found) throw new Error("there is no such key; is it of another gateway, or did it end more than 90 days ago?");
  return found.id;
}

/** From now on the store does not know the key; isolates that do forget it within the policy's `maxAge`. */
export async function revokeKey(redis: Redis, id: string, now = Date.now()): Promise<IndexedKey> {
  const found = await findKey(redis, id);
  const revoked = { ...found, revoked: found.revoked ?? now };
  const write = redis.multi();
  write.del(recordKey(found.hash));
  write.hset(KEY_INDEX, { [id]: JSON.stringify(revoked) });
  await write.exec();
  return revoked;
}

/**
 * A new key for whom the old one was for. The old one goes on for `overlap` ms, or until it would have expired anyway. Throws when the
 * old one is not live, or was rotated before: what is left of its life is the overlap, which a new key must not inherit.
 */
export async function rotateKey(
  redis: Redis,
  prefix: string,
  id: string,
  { overlap, lifetime }: { readonly overlap: number; readonly lifetime?: number },
  now = Date.now(),
): Promise<MadeKey & { readonly old: IndexedKey }> {
  const found = await findKey(redis, id);
  const state = stateOf(found, now);
  if (state !== "live") throw new Error(`the key ${id} is ${state}; make a new one with gateway keys create`);
  if (found.rotated !== undefined) throw new Error(`the key ${id} was rotated to ${found.rotated}; rotate that one`);
  const { consumer, scopes, groups, plan, created, expires } = found;
  const again = lifetime ?? (expires === undefined ? undefined : expires - created);
  const made = await createKey(
    redis,
    prefix,
    {
      consumer,
      ...(scopes && { scopes }),
      ...(groups && { groups }),
      ...(plan !== undefined && { plan }),
      ...(again !== undefined && { expires: now + again }),
    },
    now,
  );
  if (overlap === 0) return { ...made, old: await revokeKey(redis, id, now) };
  const until = Math.min(expires ?? Number.POSITIVE_INFINITY, now + overlap);
  const old: IndexedKey = { ...found, expires: until, rotated: made.record.id };
  const { hash, rotated: _, ...record } = old;
  const lived = await redis.eval<string[], number>(
    SHORTEN,
    [recordKey(hash), KEY_INDEX],
    [JSON.stringify(record), String(until), id, JSON.stringify(old)],
  );
  if (lived === 1) return { ...made, old };
  await revokeKey(redis, made.record.id, now);
  throw new Error(
    `the key ${id} was revoked meanwhile, and so its successor is; make a new one with gateway keys create`,
  );
}

// A key that somebody revokes at the same time stays revoked, in its record and in the index.
const SHORTEN = `
if redis.call("EXISTS", KEYS[1]) == 0 then return 0 end
redis.call("SET", KEYS[1], ARGV[1], "PXAT", ARGV[2])
redis.call("HSET", KEYS[2], ARGV[3], ARGV[4])
return 1`;

const lifetimeOf = ({ expires }: KeyRecord): { pxat: number } | undefined =>
  expires === undefined ? undefined : { pxat: expires };

const endOf = ({ revoked, expires }: IndexedKey): number | undefined => revoked ?? expires;
