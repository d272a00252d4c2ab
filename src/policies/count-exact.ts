/** Exact counting: one call of the store for each request. */
import { type Ask, argumentsOf, type Grant, grantOf, limitScript, type UnitRule } from "./limit-script.ts";
import { algorithmOf, type Count, type Counted, type Counting, type Failure, type Rule } from "./limit-store.ts";

/** A limit as the library counts it. */
export interface LibraryLimit {
  /** In units, where the rule counts tokens of `unit` units each. */
  readonly quota: number;
  readonly rule: Rule;
}

/** By @upstash/ratelimit's scripts, in tokens of `unit` units. */
export function countWithLibrary(
  limits: readonly LibraryLimit[],
  cost: number,
  unit: number,
  timeout: number,
): Counting {
  const counters = limits.map(({ rule }) => ({ rule, algorithm: algorithmOf(rule) }));
  // A fixed window counts what it refuses, too. That matters only where another request might still fit: a cheaper one or, with
  // several windows, one that comes after others were given back what they took.
  const refusalsCount = limits.length > 1 || cost > unit;
  return async (store, keys, waitUntil): Promise<Counted | Failure> => {
    const taken = await store.ask(() => store.take(counters, keys, cost / unit, timeout), waitUntil);
    if ("failure" in taken) return taken;
    const counts = taken.counts.map((count, i) => inUnits(count, limits[i] as LibraryLimit, unit, cost));
    if (counts.some(({ success }) => !success)) {
      const charged = limits.flatMap(({ rule }, i) =>
        counts[i]?.success || (refusalsCount && rule.algorithm === "fixedWindow") ? [i] : [],
      );
      if (charged.length > 0) waitUntil(taken.giveBack(charged).catch(() => {}));
    }
    return { counts, charge: unchangeable };
  };
}

/** The library's sliding windows and buckets charge nothing beyond what is there. What is to be charged later, the script counts. */
function unchangeable(): never {
  throw new Error("this limit takes its cost from no response");
}

/**
 * A count of the library's tokens in the policy's units. `reset` becomes when more is there (the `t` of
 * draft-ietf-httpapi-ratelimit-headers-11, section 4.1.2), and for a refused request when it fits.
 */
function inUnits(
  { success, remaining, reset }: Count,
  { quota, rule }: LibraryLimit,
  unit: number,
  cost: number,
): Count {
  const { algorithm, tokens, refill } = rule;
  // How many tokens a refused bucket has is not told: as if it had none.
  if (!success && refill) reset += (Math.ceil(cost / refill.tokens) - 1) * refill.interval;
  // In the first instant of the next window all of this one still counts.
  if (!success && algorithm === "slidingWindow") reset += 1;
  return { success, remaining: quota - (tokens - remaining) * unit, reset };
}

/** By the script that leases: each request takes what it needs, and nothing lies here. For what the library cannot count. */
export function countWithScript(rules: readonly UnitRule[], cost: number, timeout: number): Counting {
  return async (store, keys, waitUntil): Promise<Counted | Failure> => {
    const run = (asks: readonly (Ask | undefined)[]) => {
      const now = store.now();
      const calls = asks.flatMap((ask, i) =>
        ask ? [{ key: keys[i] as string, args: argumentsOf(rules[i] as UnitRule, ask, now) }] : [],
      );
      return store.run(limitScript, calls, grantOf, timeout);
    };
    const grants = await store.ask(() => run(rules.map(() => ({ ...NOTHING, need: cost, want: cost }))), waitUntil);
    if ("failure" in grants) return grants;
    const now = store.now();
    const counts = grants.map(({ granted, room, life, wait }, i): Count => {
      const reset = now + (wait || ((rules[i] as UnitRule).algorithm === "tokenBucket" ? 1 : life));
      return { success: granted > 0, remaining: room, reset };
    });
    const giveBack = (units: number) =>
      grants.map(({ granted, window }: Grant) => (granted > 0 ? { ...NOTHING, back: units, window } : undefined));
    if (counts.some(({ success }) => !success) && counts.some(({ success }) => success)) waitUntil(run(giveBack(cost)));
    return {
      counts,
      charge: (units) =>
        waitUntil(run(units < 0 ? giveBack(-units) : rules.map(() => ({ ...NOTHING, charge: units })))),
    };
  };
}

const NOTHING: Ask = { need: 0, want: 0, charge: 0, back: 0, window: 0 };
