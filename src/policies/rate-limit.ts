import { z } from "zod";
import type { Duration } from "../config/api.ts";
import type { ConsumerDeclaration } from "../config/consumer.ts";
import { parseDuration } from "../config/duration.ts";
import { type Deciding, policyBuilder } from "../config/policy.ts";
import { type CompileContext, type PolicyRun, pass, refuse } from "./contract.ts";
import { countWithLibrary, countWithScript } from "./count-exact.ts";
import { countWithLeases } from "./count-leased.ts";
import { callerKey, HEADER_NAME, type LimitKey, limitKeySchema, limitKeys, plain } from "./limit-key.ts";
import type { UnitRule } from "./limit-script.ts";
import { type Count, type Counted, type Counting, type LimitStore, limitStore, type Rule } from "./limit-store.ts";

export type { LimitKey } from "./limit-key.ts";

export interface LimitWindow {
  /** Requests, or with `cost` units of it. */
  readonly limit: number;
  /** Whole seconds: `10s`, `1m`, `1h`; or a `day` or `month` of the calendar in UTC, a fixed window whatever the algorithm. */
  readonly window: Duration | "day" | "month";
}

/** A plan, with the limits that it declares or with others for this policy. */
export type PlanEntry = Plan | readonly [Plan, number | LimitWindow | readonly LimitWindow[]];

/** What plan() gives. */
export interface Plan {
  readonly kind: "plan";
  readonly name: string;
  readonly options: { readonly limits?: readonly LimitWindow[] };
}

interface OneWindow extends LimitWindow {
  /** Most that a token bucket holds. Default: `limit`. */
  readonly burst?: number;
  /** Other limits for declared consumers, whatever `per` is, with a window of their own where one is given; without `burst`. */
  readonly consumers?: readonly (readonly [ConsumerDeclaration, number | LimitWindow])[];
  readonly windows?: never;
}

interface SeveralWindows {
  /** All of them must have room. What a refused request took from the others is given back right after the answer. */
  readonly windows: readonly LimitWindow[];
  readonly limit?: never;
  readonly window?: never;
  readonly burst?: never;
  readonly consumers?: never;
}

export interface ResponseCost {
  /** The response header that tells it: a number from 0, rounded up. Without one, or with anything else, it stays at `before`. */
  readonly header: string;
  /** What must be left for a request to be let through, and what it takes until the answer tells. Default: 1. */
  readonly before?: number;
}

export type RateLimitOptions = Deciding &
  (OneWindow | SeveralWindows) & {
    /** Several together are one composite key. Default: `client`. */
    readonly per?: LimitKey | readonly LimitKey[];
    /**
     * `fixedWindow`: windows that begin for all keys at once; up to twice the limit around the turn of a window. `slidingWindow`:
     * the same, with the window before counted in by the share of it that is still in sight; an estimate. `tokenBucket`: `limit`
     * tokens per `window` flow in evenly, in steps of 100 ms or more, up to `burst`. Default: `slidingWindow`.
     */
    readonly algorithm?: "fixedWindow" | "slidingWindow" | "tokenBucket";
    /**
     * `exact`: one call of the store for each request. `leased`: an isolate takes blocks of units and spends them by itself; the
     * fleet admits no more than the limit and, where many isolates share what is left, a little less (docs/limits.md). Default: `exact`.
     */
    readonly count?: "exact" | "leased";
    /**
     * What one request takes of the limit. One that only its response tells is charged then, also beyond what is left; so requests
     * under way at the same time may together use more than the limit, and those after them pay for it. Default: 1.
     */
    readonly cost?: number | ResponseCost;
    /** Limits of consumers by their plan; those with an entry in `consumers` go by that, those without a plan by the limit above. */
    readonly plans?: readonly PlanEntry[];
    /** In headers and keys; limits on one route need different ones. Default: `default`, and for several windows `1m`, `1h`, … */
    readonly name?: string;
    /**
     * A bucket of that name for all routes that use it, in place of one bucket per route. Policies share it when their windows,
     * algorithm and `per` agree; each goes by its own limit.
     */
    readonly shared?: string;
    /**
     * When the store fails or is late. `open`: pass, uncounted. `closed`: 503 `limiter-unavailable`. `local`: count in fixed
     * windows in the memory of the isolate, of which Cloudflare runs many. Default: `local`, since an outage of the limiter then
     * neither takes the API down nor leaves it open to one busy caller, who mostly meets the same few isolates.
     */
    readonly onStoreFailure?: "open" | "closed" | "local";
    /** For one call of the store, after which it counts as failed. A far one takes longer to connect to. Default: `500ms`. */
    readonly timeout?: Duration;
    /** Whether answers carry `RateLimit` and `RateLimit-Policy`; in report mode they never do. Default: true. */
    readonly headers?: boolean;
  };

/**
 * Lets as many requests through as the limit says, counted in the gateway's store; 429 `rate-limited` with Retry-After for the
 * others. Limits of one policy cost one call of the store, however many windows; two policies on a route cost two.
 */
export const rateLimit = policyBuilder<RateLimitOptions>("rateLimit");

const MAX_AMOUNT = 1_000_000_000;

export const schema = () => {
  const amount = z.int().min(1).max(MAX_AMOUNT);
  const word = z.string().regex(/^[\w.-]{1,64}$/, "must be 1 to 64 letters, digits, `_`, `.` or `-`");
  const text = z.string().min(1);
  const header = z.string().regex(HEADER_NAME);
  const window = z.strictObject({ limit: amount, window: text });
  const key = limitKeySchema();
  const plan = z.looseObject({
    kind: z.literal("plan"),
    name: text,
    options: z.looseObject({ limits: z.array(window).optional() }),
  });
  return z.strictObject({
    mode: z.enum(["enforce", "report", "off"]).optional(),
    limit: amount.optional(),
    window: text.optional(),
    windows: z.array(window).min(1).optional(),
    burst: amount.optional(),
    per: z.union([key, z.array(key).min(1)]).optional(),
    algorithm: z.enum(["fixedWindow", "slidingWindow", "tokenBucket"]).optional(),
    count: z.enum(["exact", "leased"]).optional(),
    cost: z.union([amount, z.strictObject({ header, before: amount.optional() })]).optional(),
    name: word.optional(),
    shared: word.optional(),
    consumers: z
      .array(z.tuple([z.looseObject({ kind: z.literal("consumer"), name: text }), z.union([amount, window])]))
      .optional(),
    plans: z.array(z.union([plan, z.tuple([plan, z.union([amount, window, z.array(window).min(1)])])])).optional(),
    onStoreFailure: z.enum(["open", "closed", "local"]).optional(),
    timeout: text.optional(),
    headers: z.boolean().optional(),
  });
};

interface NamedLimit {
  /** In headers and records. */
  readonly name: string;
  /** In keys: what keeps this window's counts apart from others of the route or of the shared bucket. */
  readonly label: string;
  /** Units that come back within `window`, in milliseconds. */
  readonly quota: number;
  readonly window: number;
}

/** One window of the policy. With a `rule` the library counts it, else the script of leases. */
export type Limit = NamedLimit & ({ readonly rule: Rule } | (UnitRule & { readonly rule?: never }));

export interface RateLimitConfig {
  readonly per: readonly LimitKey[];
  /** Absent: exact. */
  readonly count?: "leased";
  /** Before the response, where that tells the cost. */
  readonly cost: number;
  readonly costHeader?: string;
  /** Units in one of the library's tokens. */
  readonly unit: number;
  readonly shared?: string;
  readonly limits: readonly Limit[];
  /** By consumer. */
  readonly consumers: Readonly<Record<string, Limit>>;
  /** By plan; absent: none. */
  readonly plans?: Readonly<Record<string, readonly Limit[]>>;
  readonly onStoreFailure: "open" | "closed" | "local";
  readonly timeout: number;
  readonly headers: boolean;
}

export function compile(options: RateLimitOptions, context: CompileContext): RateLimitConfig {
  const { algorithm = "slidingWindow", shared, burst, consumers = [], plans = [], timeout = "500ms" } = options;
  const leased = options.count === "leased";
  const costHeader = typeof options.cost === "object" ? options.cost.header.toLowerCase() : undefined;
  const cost = typeof options.cost === "object" ? (options.cost.before ?? 1) : (options.cost ?? 1);
  const windows: readonly LimitWindow[] =
    options.windows ??
    (options.limit !== undefined && options.window !== undefined
      ? [{ limit: options.limit, window: options.window }]
      : []);
  const one = [options.limit, options.window, burst, options.consumers].some((option) => option !== undefined);
  if (windows.length === 0 || (options.windows && one)) {
    context.problem(
      "rateLimit takes either `limit` and `window`, or `windows`",
      'write limit: 100, window: "1m", or windows: [{ limit: 10, window: "1s" }, { limit: 100, window: "1m" }]',
    );
  }
  if (burst !== undefined && (algorithm !== "tokenBucket" || isCalendar(options.window))) {
    context.problem("`burst` is for token buckets", 'add algorithm: "tokenBucket", or leave `burst` out');
  }
  // A denied call with an amount above 1 may or may not have been counted by the library's sliding window (2.2.0), and its reply
  // does not tell. Requests of one cost are counted as requests instead; in a shared bucket costs may differ.
  const unit = leased || costHeader !== undefined || algorithm === "tokenBucket" || shared !== undefined ? 1 : cost;
  if (shared !== undefined && cost > 1 && algorithm === "slidingWindow" && !leased && costHeader === undefined) {
    context.problem(
      "a sliding window cannot be shared at a cost above 1",
      'use count: "leased", or algorithm: "tokenBucket" or "fixedWindow", on all routes that share the bucket',
    );
  }

  /** Windows that hold together, of everybody or of a consumer or plan. */
  const limitsOf = (group: readonly (LimitWindow & { burst?: number | undefined })[], override = false): Limit[] => {
    // The library knows no months, and charges nothing after the fact. The windows of a group are counted by one of the two.
    const byLibrary = !leased && costHeader === undefined && group.every(({ window }) => window !== "month");
    const limits = group.map((given): Limit => {
      const length = isCalendar(given.window) ? CALENDAR[given.window] : wholeSeconds(given.window);
      const text = isCalendar(given.window) ? given.window : durationText(length);
      const kind = isCalendar(given.window) ? "fixedWindow" : algorithm;
      const quota = given.burst ?? given.limit;
      if (quota < cost) {
        context.problem(`at a cost of ${cost}, ${quota} lets no request pass`, "raise the limit or lower the cost");
      }
      const label = [
        byLibrary ? "" : "units-",
        { fixedWindow: "fixed-", slidingWindow: "", tokenBucket: "bucket-" }[kind],
        shared === undefined || override ? `${given.limit}/` : "",
        text,
        given.burst === undefined ? "" : `+${given.burst}`,
        unit === 1 || !byLibrary ? "" : `/${unit}`,
      ].join("");
      const base = options.name ?? (group.length > 1 ? "" : "default");
      const name = [base, group.length > 1 ? text : ""].filter((part) => part !== "").join("-");
      const named = { name, label, quota, window: Math.ceil((length * quota) / given.limit) };
      if (!byLibrary) return { ...named, algorithm: kind, ...(given.window === "month" && { calendar: "month" }) };
      const refill = kind === "tokenBucket" && { refill: refillOf(given.limit, length) };
      return { ...named, rule: { algorithm: kind, tokens: Math.floor(quota / unit), window: length, ...refill } };
    });
    if (new Set(limits.map((limit) => limit.name)).size < limits.length) {
      context.problem("rateLimit has two windows of the same length", "keep the one with the smaller limit");
    }
    return limits;
  };

  const wholeSeconds = (text: string): number => {
    const window = parseDuration(text);
    if (window && window % 1_000 === 0) return window;
    context.problem(
      `"${text}" is no window of whole seconds`,
      'write it as "10s", "1m" or "1h30m", or as "day" or "month"',
    );
    return 1_000;
  };

  const named = new Map<string, Limit>();
  for (const [consumer, given] of consumers) {
    if (named.has(consumer.name)) context.problem(`the consumer "${consumer.name}" has two limits`, "keep one of them");
    const window = typeof given === "number" ? { limit: given, window: options.window ?? "1s" } : given;
    named.set(consumer.name, limitsOf([window], true)[0] as Limit);
  }
  const planned = new Map<string, Limit[]>();
  for (const entry of plans) {
    const [plan, given = plan.options.limits ?? []] = "kind" in entry ? [entry] : entry;
    if (planned.has(plan.name)) context.problem(`the plan "${plan.name}" has two limits`, "keep one of them");
    if (typeof given === "number" && options.window === undefined) {
      context.problem(`${given} for the plan "${plan.name}" has no window`, `write { limit: ${given}, window: "1m" }`);
    }
    const group = typeof given === "number" ? [{ limit: given, window: options.window ?? "1s" }] : [given].flat();
    if (group.length === 0) {
      const fix = `write plan("${plan.name}", { limits: [...] }), or [${plan.name}, 1000] here`;
      context.problem(`the plan "${plan.name}" has no limits`, fix);
    }
    planned.set(plan.name, limitsOf(group, true));
  }
  const patience = parseDuration(timeout);
  if (!patience) context.problem(`timeout "${timeout}" is no duration`, 'write it as "250ms" or "1s"');

  return {
    per: limitKeys(options.per),
    ...(leased && { count: "leased" }),
    cost,
    ...(costHeader !== undefined && { costHeader }),
    unit,
    ...(shared !== undefined && { shared }),
    limits: limitsOf(windows.length === 1 ? windows.map((window) => ({ ...window, burst })) : windows),
    consumers: sorted(named),
    ...(planned.size > 0 && { plans: sorted(planned) }),
    onStoreFailure: options.onStoreFailure ?? "local",
    timeout: patience || 500,
    headers: options.headers ?? true,
  };
}

/** Milliseconds; of months the longest. */
const CALENDAR = { day: 86_400_000, month: 31 * 86_400_000 } as const;

const isCalendar = (window: string | undefined): window is keyof typeof CALENDAR =>
  window !== undefined && Object.hasOwn(CALENDAR, window);

const sorted = <Value>(map: ReadonlyMap<string, Value>): Record<string, Value> =>
  Object.fromEntries([...map].sort(([a], [b]) => (a < b ? -1 : 1)));

/**
 * The library adds its refill at once at the end of each interval. Many small steps make it the even flow that a token bucket
 * stands for: at least 100 ms apart, so that rounding to whole milliseconds makes the flow less than 1 % slower, and never faster.
 */
function refillOf(limit: number, window: number): { tokens: number; interval: number } {
  const tokens = Math.ceil((limit * 100) / window);
  return { tokens, interval: Math.ceil((window * tokens) / limit) };
}

function durationText(ms: number): string {
  for (const [unit, length] of [
    ["d", 86_400_000],
    ["h", 3_600_000],
    ["m", 60_000],
  ] as const) {
    if (ms % length === 0) return `${ms / length}${unit}`;
  }
  return `${ms / 1_000}s`;
}

/** Limits that hold together, ready to count. */
interface Group {
  readonly limits: readonly Limit[];
  readonly counting: Counting;
  /** The header RateLimit-Policy. */
  readonly policy: string;
  /** What the keys begin with, by route. */
  readonly prefixes: Map<string, readonly string[]>;
}

function groupOf(limits: readonly Limit[], { count, cost, unit, timeout }: RateLimitConfig): Group {
  const library = limits.filter((limit) => limit.rule !== undefined);
  const rules = limits.filter((limit) => limit.rule === undefined);
  const counting =
    library.length > 0
      ? countWithLibrary(library, cost, unit, timeout)
      : (count === "leased" ? countWithLeases : countWithScript)(rules, cost, timeout);
  // Months differ in length, so there is no `w` to tell.
  const lengthOf = (limit: Limit) =>
    "calendar" in limit && limit.calendar ? "" : `;w=${Math.ceil(limit.window / 1_000)}`;
  const policy = limits.map((limit) => `"${limit.name}";q=${limit.quota}${lengthOf(limit)}`).join(", ");
  return { limits, counting, policy, prefixes: new Map() };
}

export const run: PolicyRun<RateLimitConfig> = (config, runtime, mode) => {
  const { per, cost, costHeader, onStoreFailure } = config;
  const general = groupOf(config.limits, config);
  const named = new Map(Object.entries(config.consumers).map(([name, limit]) => [name, groupOf([limit], config)]));
  const planned = new Map(Object.entries(config.plans ?? {}).map(([name, limits]) => [name, groupOf(limits, config)]));

  return async (c, next) => {
    const exchange = c.get("exchange");
    const { caller, record } = exchange;
    const store = limitStore(runtime, c.env);
    const group = named.get(caller?.consumer ?? "") ?? planned.get(caller?.plan ?? "") ?? general;
    const { limits } = group;
    const who = callerKey(per, exchange, c.req.raw.headers);
    const keys = keysOf(group, config.shared, exchange.route.id, typeof who === "string" ? who : await who);
    const counting = group.counting(store, keys, (work) => exchange.waitUntil(work));
    const outcome = counting instanceof Promise ? await counting : counting;

    const facts =
      "failure" in outcome ? { store: "failed", why: outcome.failure, fallback: onStoreFailure } : undefined;
    if (facts && onStoreFailure === "open") {
      pass(exchange, "rateLimit", facts);
      return next();
    }
    if (facts && onStoreFailure === "closed") {
      const headers = { "retry-after": String(seconds(store.pausedFor)) };
      return refuse(exchange, "rateLimit", mode, "limiter-unavailable", { headers, facts }) ?? next();
    }

    const now = runtime.now();
    const counted = "failure" in outcome ? countLocally(store, limits, keys, cost, now) : outcome;
    record.limits ??= [];
    const state: string[] = [];
    const violated: string[] = [];
    let wait = 0;
    for (const [i, { success, remaining, reset }] of counted.counts.entries()) {
      const { name } = limits[i] as Limit;
      record.limits.push({ name, key: keys[i] as string, remaining, reset });
      state.push(`"${name}";r=${remaining};t=${seconds(reset - now)}`);
      if (success) continue;
      violated.push(name);
      wait = Math.max(wait, reset - now);
    }
    if (config.headers && mode === "enforce") {
      const edits = exchange.responseEdits;
      // The first limit on the route replaces what the origin says of its own; further ones add to the lists.
      const action = edits.some(({ name }) => name === "ratelimit") ? "add" : "set";
      edits.push(
        { action, name: "ratelimit-policy", value: group.policy },
        { action, name: "ratelimit", value: state.join(", ") },
      );
    }
    if (violated.length > 0) {
      const answer = refuse(exchange, "rateLimit", mode, "rate-limited", {
        // The member that draft-ietf-httpapi-ratelimit-headers-11, section 5 has for it.
        members: { "violated-policies": violated },
        headers: { "retry-after": String(seconds(wait)) },
        ...(facts && { facts }),
      });
      return answer ?? next();
    }
    pass(exchange, "rateLimit", facts);
    if (costHeader === undefined) return next();
    await next();
    const more = costIn(c.res.headers.get(costHeader), cost) - cost;
    if (more !== 0) counted.charge(more);
  };
};

/** Units of a cost header. */
function costIn(text: string | null, otherwise: number): number {
  const cost = Math.ceil(Number(text?.trim() || "none"));
  return cost >= 0 ? Math.min(cost, MAX_AMOUNT) : otherwise;
}

function countLocally(
  store: LimitStore,
  limits: readonly Limit[],
  keys: readonly string[],
  cost: number,
  now: number,
): Counted {
  const looks = limits.map(({ window, quota }, i) => {
    const counter = store.local(window);
    const key = keys[i] as string;
    const { used, reset } = counter.look(key, now);
    return { counter, key, left: quota - used, reset };
  });
  const admitted = looks.every(({ left }) => left >= cost);
  const counts = looks.map(({ counter, key, left, reset }): Count => {
    if (admitted) counter.add(key, cost);
    return { success: left >= cost, remaining: Math.max(0, admitted ? left - cost : left), reset };
  });
  return {
    counts,
    charge: (units) => {
      for (const { counter, key } of looks) counter.add(key, units);
    },
  };
}

/** Whole seconds, and never "at once". */
const seconds = (ms: number): number => Math.max(1, Math.ceil(ms / 1_000));

/** `limit:<route>:<policy>:<limit>/<window>:<caller>`, or `limit:shared:<bucket>:<window>:<caller>`. */
function keysOf({ limits, prefixes }: Group, shared: string | undefined, route: string, caller: string): string[] {
  let known = prefixes.get(route);
  if (!known) {
    const place = (name: string) =>
      shared === undefined ? `${plain(route || "unmatched")}:${name}` : `shared:${shared}`;
    known = limits.map(({ name, label }) => `limit:${place(name)}:${label}:`);
    prefixes.set(route, known);
  }
  return known.map((prefix) => prefix + caller);
}
