/**
 * Where limits are counted: in Redis, by the algorithms and Lua scripts of @upstash/ratelimit, and in the isolate while Redis is
 * away.
 *
 * Only the algorithms of @upstash/ratelimit 2.2.0 are used, not the class that it wraps around them. That class turns a timeout
 * into `success: true` with zeros for numbers, remembers refusals by id whatever the next request costs, and needs one HTTP
 * request per window. Its `resetUsedTokens`, which takes ids for glob patterns, is never called.
 */
import { Ratelimit } from "@upstash/ratelimit";
import { errors, Redis } from "@upstash/redis/cloudflare";
import { hash32 } from "../table/split.ts";
import { type GatewayRuntime, NotConfigured } from "./contract.ts";

/** How long a store that failed is left alone: twice as long after each further failure. */
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 30_000;

/** Some 2 MB for each length of window in use, of an isolate's 128 MB. */
const MAX_LOCAL_KEYS = 10_000;
const SHARED_SLOTS = 1_024;

export type Algorithm = ReturnType<ReturnType<typeof Ratelimit.slidingWindow>>;

/** Milliseconds. `tokens` is the most that one key may hold; `refill` is a token bucket's, in place of the window. */
export interface Rule {
  readonly algorithm: "fixedWindow" | "slidingWindow" | "tokenBucket";
  readonly tokens: number;
  readonly window: number;
  readonly refill?: { readonly tokens: number; readonly interval: number };
}

export function algorithmOf({ algorithm, tokens, window, refill }: Rule): Algorithm {
  if (refill) return Ratelimit.tokenBucket(refill.tokens, `${refill.interval} ms`, tokens)();
  return Ratelimit[algorithm === "fixedWindow" ? "fixedWindow" : "slidingWindow"](tokens, `${window} ms`)();
}

export interface Counter {
  readonly rule: Rule;
  readonly algorithm: Algorithm;
}

/** Milliseconds since the epoch for `reset`. */
export interface Count {
  readonly success: boolean;
  readonly remaining: number;
  readonly reset: number;
}

export interface Taken {
  readonly counts: readonly Count[];
  /** Returns what was taken from the counters at these positions, to the very windows that it was taken from. */
  giveBack(positions: readonly number[]): Promise<unknown>;
}

const stores = new WeakMap<GatewayRuntime, LimitStore>();

/** The isolate's store. Throws NotConfigured where the gateway or the environment has none. */
export function limitStore(runtime: GatewayRuntime, env: unknown): LimitStore {
  let store = stores.get(runtime);
  if (!store) {
    const reference = runtime.table.gateway.store;
    if (!reference) throw new NotConfigured("the gateway has no store to count rate limits in");
    store = new LimitStore(runtime.text(reference.url, env), runtime.text(reference.token, env), () => runtime.now());
    stores.set(runtime, store);
  }
  return store;
}

/**
 * One Redis and what this isolate knows of its health. After a failure it is left alone for 1 s; then one request tries it, while
 * all others go on without, and each further failure doubles the pause, up to 30 s. So a dead store costs one timeout per pause
 * (and one for each request that was under way when it died), not one per request.
 */
export class LimitStore {
  readonly #url: string;
  readonly #token: string;
  readonly #now: () => number;
  readonly #clients = new Map<number, Redis>();
  readonly #local = new Map<number, LocalCounter>();
  #pause = 0;
  #pausedUntil = 0;
  #failedAt = Number.NEGATIVE_INFINITY;

  constructor(url: string, token: string, now: () => number) {
    this.#url = url;
    this.#token = token;
    this.#now = now;
  }

  /** Milliseconds until the store is asked again. */
  get pausedFor(): number {
    return Math.max(0, this.#pausedUntil - this.#now());
  }

  /**
   * Takes `amount` from each counter, at its key, in one HTTP request of at most `timeout` ms. When there is no answer, or no
   * sensible one, it says why.
   */
  async take(
    counters: readonly Counter[],
    keys: readonly string[],
    amount: number,
    timeout: number,
  ): Promise<Taken | { readonly failure: string }> {
    const started = this.#now();
    if (started < this.#pausedUntil) return { failure: "paused" };
    const scripts = new ScriptBatch(this.#client(timeout), counters.length);
    this.#pausedUntil = started + this.#pause;
    try {
      const context = { redis: scripts as unknown as Redis, prefix: "" };
      const counts = await Promise.all(
        counters.map(({ algorithm }, i) => algorithm.limit(context, keys[i] as string, amount)),
      );
      // The scripts repeat the limit. Something else that answers in their place must not be taken for a count.
      if (counts.some(({ limit }, i) => limit !== counters[i]?.rule.tokens)) throw new TypeError("no count");
      this.#pause = 0;
      this.#pausedUntil = 0;
      return { counts, giveBack: (positions) => scripts.giveBack(positions) };
    } catch (error) {
      // A request that was under way when another one failed tells nothing new.
      if (started > this.#failedAt) {
        this.#failedAt = this.#now();
        this.#pause = Math.min(this.#pause * 2 || FIRST_PAUSE_MS, LONGEST_PAUSE_MS);
        this.#pausedUntil = this.#failedAt + this.#pause;
      }
      return { failure: describe(error) };
    }
  }

  /** The stand-in for all limits with windows of this length. */
  local(window: number): LocalCounter {
    let counter = this.#local.get(window);
    if (!counter) {
      counter = new LocalCounter(window);
      this.#local.set(window, counter);
    }
    return counter;
  }

  /** Clients hold no I/O, so requests may share them; making one takes some 20 µs (250 methods as closures). */
  #client(timeout: number): Redis {
    let client = this.#clients.get(timeout);
    if (client) return client;
    try {
      client = new Redis({
        url: this.#url,
        token: this.#token,
        // A function, because of a plain signal that fires the client makes an answer with status 200 (1.39.0).
        signal: () => AbortSignal.timeout(timeout),
        // `retry: false` still tries twice (1.39.0).
        retry: { retries: 0 },
        // A pipeline of several requests would make one await another's I/O, which Workers forbid.
        enableAutoPipelining: false,
        enableTelemetry: false,
        readYourWrites: false,
        // Counts are plain JSON numbers.
        responseEncoding: false,
        automaticDeserialization: false,
      });
    } catch {
      throw new NotConfigured("the address of the gateway's store is no http(s) URL");
    }
    this.#clients.set(timeout, client);
    return client;
  }
}

interface ScriptCall {
  readonly command: "evalsha" | "eval";
  readonly script: string;
  readonly keys: string[];
  readonly args: unknown[];
}

interface PendingCall extends ScriptCall {
  resolve(reply: unknown): void;
  reject(error: unknown): void;
}

/** Stands in for one request's Redis: what the algorithms call in one turn goes out as one HTTP request. */
class ScriptBatch {
  readonly #redis: Redis;
  #size: number;
  readonly #called: ScriptCall[] = [];
  #pending: PendingCall[] = [];

  /** `size`: how many scripts may be called in one turn. */
  constructor(redis: Redis, size: number) {
    this.#redis = redis;
    this.#size = size;
  }

  evalsha(script: string, keys: string[], args: unknown[]): Promise<unknown> {
    const call: ScriptCall = { command: "evalsha", script, keys, args };
    this.#called.push(call);
    return this.#add(call);
  }

  /** What the library falls back to after NOSCRIPT: on the first use of a script, and after a restart of Redis. */
  eval(script: string, keys: string[], args: unknown[]): Promise<unknown> {
    return this.#add({ command: "eval", script, keys, args });
  }

  giveBack(positions: readonly number[]): Promise<unknown> {
    // The same calls with the amount, always the last argument, negated. `limit(key, -amount)` would look at the clock again and
    // could credit a window that has begun meanwhile.
    const calls = positions.map((position) => this.#called[position] as ScriptCall);
    this.#size = calls.length;
    return Promise.all(
      calls.map((call) => this.#add({ ...call, args: [...call.args.slice(0, -1), -Number(call.args.at(-1))] })),
    );
  }

  #add(call: ScriptCall): Promise<unknown> {
    if (this.#size === 1) return this.#redis[call.command](call.script, call.keys, call.args);
    return new Promise((resolve, reject) => {
      this.#pending.push({ ...call, resolve, reject });
      if (this.#pending.length === 1) queueMicrotask(() => this.#send());
    });
  }

  async #send(): Promise<void> {
    const calls = this.#pending;
    this.#pending = [];
    try {
      const pipeline = this.#redis.pipeline();
      for (const { command, script, keys, args } of calls) pipeline[command](script, keys, args);
      const replies = await pipeline.exec({ keepErrors: true });
      calls.forEach((call, i) => {
        const reply = replies[i];
        if (!reply || reply.error !== undefined) call.reject(new errors.UpstashError(reply?.error ?? "no reply"));
        else call.resolve(reply.result);
      });
    } catch (error) {
      for (const call of calls) call.reject(error);
    }
  }
}

/**
 * Why the store failed, in few words. Only what the store itself said is repeated, without the command, which has keys in it;
 * other errors may quote what they failed on, such as a malformed token.
 */
function describe(error: unknown): string {
  const { name, message } = error as Error;
  if (name === "TimeoutError" || name === "AbortError") return "timeout";
  return name === "UpstashError" ? message.replace(/, command was: .*$/s, "").slice(0, 120) : name;
}

/**
 * Counts in fixed windows in the isolate's memory. Exact for the first 10,000 keys of a window; further ones share 1,024 slots,
 * chosen by hash. So memory is bounded, and a flood of keys can make the limit stricter for some, but never admits more.
 */
export class LocalCounter {
  readonly #window: number;
  readonly #used = new Map<string, number>();
  #index = Number.NEGATIVE_INFINITY;

  constructor(window: number) {
    this.#window = window;
  }

  get size(): number {
    return this.#used.size;
  }

  /** What `key` has used of the window at `now`, and when that window ends. */
  look(key: string, now: number): { readonly used: number; readonly reset: number } {
    const index = Math.floor(now / this.#window);
    // A clock that was set back must not hand out a new window.
    if (index > this.#index) {
      this.#index = index;
      this.#used.clear();
    }
    return { used: this.#used.get(this.#slot(key)) ?? 0, reset: (this.#index + 1) * this.#window };
  }

  add(key: string, amount: number): void {
    const slot = this.#slot(key);
    this.#used.set(slot, (this.#used.get(slot) ?? 0) + amount);
  }

  #slot(key: string): string {
    if (this.#used.has(key) || this.#used.size < MAX_LOCAL_KEYS) return key;
    return `#${hash32(key) % SHARED_SLOTS}`;
  }
}
