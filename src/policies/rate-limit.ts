import { z } from "zod";
import type { Duration } from "../config/api.ts";
import type { ConsumerDeclaration } from "../config/consumer.ts";
import { parseDuration } from "../config/duration.ts";
import { type Deciding, policyBuilder } from "../config/policy.ts";
import { subscriberOf } from "../table/cidr.ts";
import { type CompileContext, claimAt, type Exchange, type PolicyRun, pass, refuse } from "./contract.ts";
import { algorithmOf, type Count, type LimitStore, limitStore, type Rule } from "./limit-store.ts";

/**
 * Whose requests are counted together. `consumer`: the declared consumer, or else the token's subject; `client`: the trusted
 * address, an IPv6 one by its /64; `route`: all callers. A request without the consumer, header or claim counts by its client.
 * A header is whatever the caller sends: by itself it bounds nobody who wants to get around it.
 */
export type LimitKey = "consumer" | "client" | "route" | { readonly header: string } | { readonly claim: string };

export interface LimitWindow {
  /** Requests, or with `cost` units of it. */
  readonly limit: number;
  /** Whole seconds: `10s`, `1m`, `1d`. */
  readonly window: Duration;
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
    /** What one request takes of the limit. Default: 1. */
    readonly cost?: number;
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

export const schema = () => {
  const amount = z.int().min(1).max(1_000_000_000);
  const word = z.string().regex(/^[\w.-]{1,64}$/, "must be 1 to 64 letters, digits, `_`, `.` or `-`");
  const text = z.string().min(1);
  const window = z.strictObject({ limit: amount, window: text });
  const key = z.union([
    z.enum(["consumer", "client", "route"]),
    z.strictObject({ header: z.string().regex(/^[A-Za-z0-9-_]+$/) }),
    z.strictObject({ claim: text }),
  ]);
  return z.strictObject({
    mode: z.enum(["enforce", "report", "off"]).optional(),
    limit: amount.optional(),
    window: text.optional(),
    windows: z.array(window).min(1).optional(),
    burst: amount.optional(),
    per: z.union([key, z.array(key).min(1)]).optional(),
    algorithm: z.enum(["fixedWindow", "slidingWindow", "tokenBucket"]).optional(),
    cost: amount.optional(),
    name: word.optional(),
    shared: word.optional(),
    consumers: z
      .array(z.tuple([z.looseObject({ kind: z.literal("consumer"), name: text }), z.union([amount, window])]))
      .optional(),
    onStoreFailure: z.enum(["open", "closed", "local"]).optional(),
    timeout: text.optional(),
    headers: z.boolean().optional(),
  });
};

/** One window of the policy. Durations are in milliseconds. */
export interface Limit {
  /** In headers and records. */
  readonly name: string;
  /** In keys: what keeps this window's counts apart from others of the route or of the shared bucket. */
  readonly label: string;
  /** Units that come back within `window`. */
  readonly quota: number;
  readonly window: number;
  /** How the library counts the same. */
  readonly rule: Rule;
}

export interface RateLimitConfig {
  readonly per: readonly LimitKey[];
  readonly cost: number;
  /** Units in one of the library's tokens. */
  readonly unit: number;
  readonly shared?: string;
  readonly limits: readonly Limit[];
  /** By consumer. */
  readonly consumers: Readonly<Record<string, Limit>>;
  readonly onStoreFailure: "open" | "closed" | "local";
  readonly timeout: number;
  readonly headers: boolean;
}

export function compile(options: RateLimitOptions, context: CompileContext): RateLimitConfig {
  const { algorithm = "slidingWindow", cost = 1, shared, burst, consumers = [], timeout = "500ms" } = options;
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
  if (burst !== undefined && algorithm !== "tokenBucket") {
    context.problem("`burst` is for token buckets", 'add algorithm: "tokenBucket", or leave `burst` out');
  }
  // A denied call with an amount above 1 may or may not have been counted by the library's sliding window (2.2.0), and its reply
  // does not tell. Requests of one cost are counted as requests instead; in a shared bucket costs may differ.
  const unit = algorithm === "tokenBucket" || shared !== undefined ? 1 : cost;
  if (shared !== undefined && cost > 1 && algorithm === "slidingWindow") {
    context.problem(
      "a sliding window cannot be shared at a cost above 1",
      'use algorithm: "tokenBucket" or "fixedWindow" on all routes that share the bucket',
    );
  }

  const limitOf = (given: LimitWindow & { burst?: number | undefined }, name: string, override = false): Limit => {
    let window = parseDuration(given.window);
    if (!window || window % 1_000 !== 0) {
      context.problem(`"${given.window}" is no window of whole seconds`, 'write it as "10s", "1m" or "1h30m"');
      window = 1_000;
    }
    const quota = given.burst ?? given.limit;
    if (quota < cost) {
      context.problem(`at a cost of ${cost}, ${quota} lets no request pass`, "raise the limit or lower the cost");
    }
    const label = [
      { fixedWindow: "fixed-", slidingWindow: "", tokenBucket: "bucket-" }[algorithm],
      shared === undefined || override ? `${given.limit}/` : "",
      durationText(window),
      given.burst === undefined ? "" : `+${given.burst}`,
      unit === 1 ? "" : `/${unit}`,
    ].join("");
    const rule: Rule = {
      algorithm,
      tokens: Math.floor(quota / unit),
      window,
      ...(algorithm === "tokenBucket" && { refill: refillOf(given.limit, window) }),
    };
    return { name, label, quota, window: Math.ceil((window * quota) / given.limit), rule };
  };
  const name = options.name ?? "default";
  const limits = windows.map((window) => {
    if (windows.length === 1) return limitOf({ ...window, burst }, name);
    const length = durationText(parseDuration(window.window) ?? 0);
    return limitOf(window, options.name === undefined ? length : `${name}-${length}`);
  });
  if (new Set(limits.map((limit) => limit.name)).size < limits.length) {
    context.problem("rateLimit has two windows of the same length", "keep the one with the smaller limit");
  }

  const named = new Map<string, Limit>();
  for (const [consumer, given] of consumers) {
    if (named.has(consumer.name)) context.problem(`the consumer "${consumer.name}" has two limits`, "keep one of them");
    const window = typeof given === "number" ? { limit: given, window: options.window ?? "1s" } : given;
    named.set(consumer.name, limitOf(window, name, true));
  }
  const patience = parseDuration(timeout);
  if (!patience) context.problem(`timeout "${timeout}" is no duration`, 'write it as "250ms" or "1s"');

  const per = ([options.per ?? "client"].flat() as LimitKey[]).map((key) =>
    typeof key === "object" && "header" in key ? { header: key.header.toLowerCase() } : key,
  );
  return {
    per,
    cost,
    unit,
    ...(shared !== undefined && { shared }),
    limits,
    consumers: Object.fromEntries([...named].sort(([a], [b]) => (a < b ? -1 : 1))),
    onStoreFailure: options.onStoreFailure ?? "local",
    timeout: patience || 500,
    headers: options.headers ?? true,
  };
}

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

export const run: PolicyRun<RateLimitConfig> = (config, runtime, mode) => {
  const { cost, unit, onStoreFailure } = config;
  const prepare = (limits: readonly Limit[]) => ({
    limits: limits.map((limit) => ({ ...limit, algorithm: algorithmOf(limit.rule) })),
    policy: limits.map(({ name, quota, window }) => `"${name}";q=${quota};w=${Math.ceil(window / 1_000)}`).join(", "),
  });
  const general = prepare(config.limits);
  const named = new Map(Object.entries(config.consumers).map(([name, limit]) => [name, prepare([limit])]));

  return async (c, next) => {
    const exchange = c.get("exchange");
    const store = limitStore(runtime, c.env);
    const { limits, policy } = named.get(exchange.caller?.consumer ?? "") ?? general;
    const keys = await keysOf(limits, config, exchange, c.req.raw.headers);
    const taken = await store.take(limits, keys, cost / unit, config.timeout);

    const facts = "failure" in taken ? { store: "failed", why: taken.failure, fallback: onStoreFailure } : undefined;
    if (facts && onStoreFailure === "open") {
      pass(exchange, "rateLimit", facts);
      return next();
    }
    if (facts && onStoreFailure === "closed") {
      const headers = { "retry-after": String(seconds(store.pausedFor)) };
      return refuse(exchange, "rateLimit", mode, "limiter-unavailable", { headers, facts }) ?? next();
    }

    const now = runtime.now();
    const counts =
      "failure" in taken
        ? countLocally(store, limits, keys, cost, now)
        : taken.counts.map((count, i) => inUnits(count, limits[i] as Limit, unit, cost));
    exchange.record.limits ??= [];
    const state: string[] = [];
    const violated: string[] = [];
    let wait = 0;
    for (const [i, { success, remaining, reset }] of counts.entries()) {
      const { name } = limits[i] as Limit;
      exchange.record.limits.push({ name, key: keys[i] as string, remaining, reset });
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
        { action, name: "ratelimit-policy", value: policy },
        { action, name: "ratelimit", value: state.join(", ") },
      );
    }
    if (violated.length === 0) {
      pass(exchange, "rateLimit", facts);
      return next();
    }
    if (!("failure" in taken)) {
      // A fixed window counts what it refuses, too. That matters only where another request might still fit: a cheaper one or, with
      // several windows, one that comes after others were given back what they took.
      const refusalsCount = limits.length > 1 || cost > unit;
      const charged = limits.flatMap(({ rule }, i) =>
        counts[i]?.success || (refusalsCount && rule.algorithm === "fixedWindow") ? [i] : [],
      );
      if (charged.length > 0) exchange.waitUntil(taken.giveBack(charged).catch(() => {}));
    }
    const answer = refuse(exchange, "rateLimit", mode, "rate-limited", {
      // The member that draft-ietf-httpapi-ratelimit-headers-11, section 5 has for it.
      members: { "violated-policies": violated },
      headers: { "retry-after": String(seconds(wait)) },
      ...(facts && { facts }),
    });
    return answer ?? next();
  };
};

/**
 * A count of the library's tokens in the policy's units. `reset` becomes when more is there (the `t` of
 * draft-ietf-httpapi-ratelimit-headers-11, section 4.1.2), and for a refused request when it fits.
 */
function inUnits({ success, remaining, reset }: Count, { quota, rule }: Limit, unit: number, cost: number): Count {
  const { algorithm, tokens, refill } = rule;
  // How many tokens a refused bucket has is not told: as if it had none.
  if (!success && refill) reset += (Math.ceil(cost / refill.tokens) - 1) * refill.interval;
  // In the first instant of the next window all of this one still counts.
  if (!success && algorithm === "slidingWindow") reset += 1;
  return { success, remaining: quota - (tokens - remaining) * unit, reset };
}

function countLocally(
  store: LimitStore,
  limits: readonly Limit[],
  keys: readonly string[],
  cost: number,
  now: number,
): Count[] {
  const looks = limits.map(({ window, quota }, i) => {
    const counter = store.local(window);
    const key = keys[i] as string;
    const { used, reset } = counter.look(key, now);
    return { counter, key, left: quota - used, reset };
  });
  const admitted = looks.every(({ left }) => left >= cost);
  return looks.map(({ counter, key, left, reset }) => {
    if (admitted) counter.add(key, cost);
    return { success: left >= cost, remaining: Math.max(0, admitted ? left - cost : left), reset };
  });
}

/** Whole seconds, and never "at once". */
const seconds = (ms: number): number => Math.max(1, Math.ceil(ms / 1_000));

/** `limit:<route>:<policy>:<limit>/<window>:<caller>`, or `limit:shared:<bucket>:<window>:<caller>`. */
async function keysOf(
  limits: readonly Limit[],
  { per, shared }: RateLimitConfig,
  exchange: Exchange,
  headers: Headers,
): Promise<string[]> {
  const [first, ...more] = per as readonly [LimitKey, ...LimitKey[]];
  let caller = await callerOf(first, exchange, headers);
  for (const key of more) caller += `,${await callerOf(key, exchange, headers)}`;
  const route = plain(exchange.route.id || "unmatched");
  return limits.map(({ name, label }) =>
    shared === undefined ? `limit:${route}:${name}:${label}:${caller}` : `limit:shared:${shared}:${label}:${caller}`,
  );
}

/** One part of a key: `client=192.0.2.1`, `header.x-api-key=~3f2a…`. */
function callerOf(key: LimitKey, exchange: Exchange, headers: Headers): string | Promise<string> {
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
const plain = (name: string): string =>
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
