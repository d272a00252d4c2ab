/** Rate limits in the time of a log: what each would have let through, had it begun to count with the log's first line. */

import type { RateLimitConfig } from "../policies/rate-limit.ts";
import { subscriberOf } from "../table/cidr.ts";
import type { LoggedRequest } from "./logged.ts";

type Limit = RateLimitConfig["limits"][number];

interface Count {
  /** When the window began, or the bucket was last looked at. */
  since: number;
  /** In this window; of a bucket what is missing from a full one. */
  used: number;
  /** In the window before. */
  before: number;
}

/** Some 300 bytes each: more callers than these at one time are forgotten, those first who have not been seen for the longest time. */
const MOST_KEYS = 200_000;

export class Counting {
  readonly #counts = new Map<string, Count>();
  readonly #subscribers = new Map<string, string>();
  #now = 0;

  /** Whether the request is within all of `limits`, which it then uses. Undefined: whom it counts for is not in the log. */
  admits(
    config: RateLimitConfig,
    limits: readonly Limit[],
    place: string,
    request: LoggedRequest,
  ): boolean | undefined {
    const who = callerOf(config, request, (client) => this.#subscriber(client));
    if (who === undefined) return undefined;
    // Logs are written when a request is answered, so that their times go back a little at times.
    this.#now = Math.max(this.#now, request.time);
    const { cost } = config;
    const counts = limits.map((limit) => this.#look(limit, `${place} ${limit.label} ${who}`));
    const admitted = limits.every((limit, i) => usedOf(limit, counts[i] as Count, this.#now) + cost <= limit.quota);
    if (admitted) for (const count of counts) count.used += cost;
    return admitted;
  }

  #subscriber(client: string): string {
    let subscriber = this.#subscribers.get(client);
    if (subscriber === undefined) {
      if (this.#subscribers.size >= 50_000) this.#subscribers.clear();
      this.#subscribers.set(client, (subscriber = subscriberOf(client)));
    }
    return subscriber;
  }

  #look(limit: Limit, key: string): Count {
    const now = this.#now;
    let count = this.#counts.get(key);
    if (!count) {
      count = { since: isBucket(limit) ? now : now - (now % limit.window), used: 0, before: 0 };
      if (this.#counts.size >= MOST_KEYS) this.#counts.delete(this.#counts.keys().next().value as string);
      this.#counts.set(key, count);
    } else if (isBucket(limit)) {
      count.used = Math.max(0, count.used - ((now - count.since) * limit.quota) / limit.window);
      count.since = now;
      this.#last(key, count);
    } else if (now >= count.since + limit.window) {
      const since = now - (now % limit.window);
      count.before = since === count.since + limit.window ? count.used : 0;
      count.since = since;
      count.used = 0;
      this.#last(key, count);
    }
    return count;
  }

  /** Behind those that have not been seen for longer. */
  #last(key: string, count: Count): void {
    this.#counts.delete(key);
    this.#counts.set(key, count);
  }
}

const algorithmOf = (limit: Limit): string =>
  limit.rule ? limit.rule.algorithm : (limit as { algorithm: string }).algorithm;

const isBucket = (limit: Limit): boolean => algorithmOf(limit) === "tokenBucket";

/** A sliding window counts what is left of the one before, as the store's script does. */
function usedOf(limit: Limit, { used, before, since }: Count, now: number): number {
  if (algorithmOf(limit) !== "slidingWindow") return used;
  return used + Math.floor((before * (limit.window - (now - since))) / limit.window);
}

/** As limit-key.ts has it, but for what no log tells. */
function callerOf(
  { per }: RateLimitConfig,
  { client, record, header }: LoggedRequest,
  subscriber: (client: string) => string,
): string | undefined {
  const parts: string[] = [];
  for (const key of per) {
    if (key === "route") parts.push("all");
    else if (key === "consumer" && record?.consumer !== undefined) parts.push(`consumer=${record.consumer}`);
    else if (key === "consumer" && record?.subject !== undefined) parts.push(`subject=${record.subject}`);
    else if (key === "client" || key === "consumer") {
      // Without a record nobody knows who called.
      if (client === "" || (key === "consumer" && !record)) return undefined;
      parts.push(`client=${subscriber(client)}`);
    } else if ("header" in key) {
      const value = header(key.header);
      if (!value) return undefined;
      parts.push(`${key.header}=${value}`);
    } else return undefined;
  }
  return parts.join();
}
