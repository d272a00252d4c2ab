/** In what limits and caps hold back less than others. */
import type { ConcurrencyConfig } from "../policies/concurrency.ts";
import type { Limit, RateLimitConfig } from "../policies/rate-limit.ts";

const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);

export function weakerLimits(old: readonly RateLimitConfig[], now: readonly RateLimitConfig[]): string[] {
  const changes: string[] = [];
  for (const config of old) {
    const alike = now.filter(({ per, shared }) => same(per, config.per) && shared === config.shared);
    const limits = alike.flatMap((one) => one.limits);
    changes.push(...config.limits.flatMap((limit) => looser(limit, limits)));
    for (const one of alike) {
      // A consumer of its own limit before goes by everybody's where that is gone, and so does a plan.
      for (const name of Object.keys({ ...config.consumers, ...one.consumers })) {
        const [before, limit] = [config.consumers[name] ?? config.limits[0], one.consumers[name] ?? one.limits[0]];
        if (!before || !limit || same([before, limit], [config.limits[0], one.limits[0]])) continue;
        const higher = limit.quota / limit.window > before.quota / before.window;
        changes.push(
          ...(higher
            ? [`lets the consumer ${name} have ${shownLimit(limit)} instead of ${shownLimit(before)}`]
            : looser(before, [limit]).map((phrase) => `of the consumer ${name} ${phrase}`)),
        );
      }
      for (const name of Object.keys({ ...config.plans, ...one.plans })) {
        const [before, group] = [config.plans?.[name] ?? config.limits, one.plans?.[name] ?? one.limits];
        if (
          !same([before, group], [config.limits, one.limits]) &&
          before.some((limit) => looser(limit, group).length > 0)
        )
          changes.push(`has higher limits for the plan ${name}`);
      }
      if (one.cost < config.cost) changes.push(`takes ${one.cost} for a request instead of ${config.cost}`);
      if (config.costHeader !== undefined && one.costHeader !== config.costHeader)
        changes.push(`no longer takes what the response says in ${config.costHeader}`);
      changes.push(...weakerFailure(config.onStoreFailure, one.onStoreFailure));
    }
  }
  return [...new Set(changes)];
}

const DAY = 86_400_000;

/** How more gets through than by `old`: a phrase, or none where one of `now` is as strict. */
function looser(old: Limit, now: readonly Limit[]): string[] {
  const stricter = now.filter((one) => isAsStrict(one, old));
  if (stricter.length > 0) {
    // Leases and the library's counters have other keys (docs/limits.md), so a quota begins anew. Of shorter windows that is nothing.
    const anew = old.window >= DAY && stricter.every(({ rule }) => (rule === undefined) !== (old.rule === undefined));
    return anew ? [`counts ${shownLimit(old)} anew, as another counter does it: what has been used is forgotten`] : [];
  }
  const other = now.find(({ window }) => window === old.window) ?? now.find(({ quota }) => quota === old.quota);
  if (!other) return [`no longer limits to ${shownLimit(old)}`];
  if (other.quota > old.quota || other.window !== old.window)
    return [`lets ${shownLimit(other)} through instead of ${shownLimit(old)}`];
  const [by, before] = [algorithmOf(other), algorithmOf(old)];
  const when = by === "fixedWindow" ? "around the turn of one" : `within ${other.window / 1_000} s`;
  return [
    `counts ${shownLimit(other)} in ${BY[by]} instead of ${BY[before]}, so that up to ${2 * other.quota} pass ${when}`,
  ];
}

const shownLimit = ({ quota, window }: Limit): string => `${quota} in ${window / 1_000} s`;

type Algorithm = "fixedWindow" | "slidingWindow" | "tokenBucket";

const algorithmOf = (limit: Limit): Algorithm => (limit.rule ? limit.rule.algorithm : limit.algorithm);

const BY: Readonly<Record<Algorithm, string>> = {
  fixedWindow: "fixed windows",
  slidingWindow: "a sliding window",
  tokenBucket: "a token bucket",
};

/** Whether it never lets more through: at once, within either's window, and in the long run. */
const isAsStrict = (one: Limit, old: Limit): boolean =>
  one.quota / one.window <= old.quota / old.window &&
  [0, one.window, old.window].every((span) => mostWithin(one, span) <= mostWithin(old, span));

/** What a limit lets through in the worst stretch of so many milliseconds: a fixed window twice its quota, around its turn. */
function mostWithin(limit: Limit, span: number): number {
  const { quota, window } = limit;
  const windows = Math.max(1, Math.ceil(span / window));
  switch (algorithmOf(limit)) {
    case "fixedWindow":
      return quota * (windows + 1);
    case "tokenBucket":
      return quota + (quota * span) / window;
    default:
      return quota * windows;
  }
}

type OnFailure = RateLimitConfig["onStoreFailure"];
const FAILURE: readonly OnFailure[] = ["closed", "local", "open"];
const weakerFailure = (old: OnFailure, now: OnFailure): string[] =>
  FAILURE.indexOf(now) > FAILURE.indexOf(old) ? [`is ${now} instead of ${old} when the store fails`] : [];

export function weakerCaps(old: readonly ConcurrencyConfig[], now: readonly ConcurrencyConfig[]): string[] {
  return old.flatMap((config) => {
    const alike = now.filter(({ per, shared }) => same(per, config.per) && shared === config.shared);
    const [one] = alike.toSorted((a, b) => a.limit - b.limit);
    if (!one) return [`no longer caps ${JSON.stringify(config.per)} at ${config.limit}`];
    const raised = Object.keys({ ...config.consumers, ...one.consumers })
      .map((name) => [name, one.consumers[name] ?? one.limit] as const)
      .filter(([name, limit]) => limit > (config.consumers[name] ?? config.limit));
    const planned = Object.keys({ ...config.plans, ...one.plans })
      .map((name) => [name, one.plans[name] ?? one.limit] as const)
      .filter(([name, limit]) => limit > (config.plans[name] ?? config.limit));
    return [
      ...(one.limit > config.limit ? [`lets ${one.limit} be under way instead of ${config.limit}`] : []),
      ...raised.map(([name, limit]) => `lets the consumer ${name} have ${limit} under way`),
      ...planned.map(([name, limit]) => `lets the plan ${name} have ${limit} under way`),
      ...(config.until === "body" && one.until === "headers"
        ? ["counts a request until its headers, not its end"]
        : []),
      ...(one.expiry < config.expiry
        ? [`forgets a request after ${one.expiry / 1_000} s instead of ${config.expiry / 1_000} s`]
        : []),
      ...weakerFailure(config.onStoreFailure, one.onStoreFailure),
    ];
  });
}
