/**
 * Where limits are counted: in Redis, by the algorithms and Lua scripts of @upstash/ratelimit or by scripts of our own, and in the
 * isolate while Redis is away.
 *
 * Only the algorithms of @upstash/ratelimit 2.2.0 are used, not the class that it wraps around them. That class turns a timeout
 * into `success: true` with zeros for numbers, remembers refusals by id whatever the next request costs, and needs one HTTP
 * request per window. Its `resetUsedTokens`, which takes ids for glob patterns, is never called.
 */
import { Ratelimit } from "@upstash/ratelimit";
import { errors, type Redis } from "@upstash/redis/cloudflare";
import { hash32 } from "../table/split.ts";
import { type GatewayRuntime, NotConfigured } from "./contract.ts";
import { Leases } from "./lease.ts";
import { Pause } from "./pause.ts";
import { describeFailure, storeClient, storeHealth } from "./store.ts";

/** Some 2 MB for each length of window in use, of an isolate's 128 MB. */
const MAX_LOCAL_KEYS = 10_000;
const SHARED_SLOTS = 1_024;

export type LibraryAlgorithm = ReturnType<ReturnType<typeof Ratelimit.slidingWindow>>;

/** Milliseconds. `tokens` is the most that one key may hold; `refill` is a token bucket's, in place of the window. */
export interface Rule {
  readonly algorithm: "fixedWindow" | "slidingWindow" | "tokenBucket";
  readonly tokens: number;
  readonly window: number;
  readonly refill?: { readonly tokens: number; readonly interval: number };
}

export function algorithmOf({ algorithm, tokens, window, refill }: Rule): LibraryAlgorithm {
  if (refill) return Ratelimit.tokenBucket(refill.tokens, `${refill.interval} ms`, tokens)();
  return Ratelimit[algorithm === "fixedWindow" ? "fixedWindow" : "slidingWindow"](tokens, `${window} ms`)();
}

export interface Counter {
  readonly rule: Rule;
  readonly algorithm: LibraryAlgorithm;
}

/** Milliseconds since the epoch for `reset`. */
export interface Count {
  readonly success: boolean;
  readonly remaining: number;
  readonly reset: number;
}

/** Why there is no answer, in few words; `paused`: the store was not asked. */
export interface Failure {
  readonly failure: string;
}

const PAUSED: Failure = { failure: "paused" };

/** For work that goes on after the response. */
export type WaitUntil = (work: Promise<unknown>) => void;

/** A Lua script, by the SHA-1 that Redis knows it by, once that was needed. */
export interface Script {
  readonly text: string;
  sha?: string;
}

export interface ScriptArguments {
  readonly key: string;
  readonly args: (string | number)[];
}

/** How a request stands with each of its limits. It is let through when all of them have success. */
export interface Counted {
  readonly counts: readonly Count[];
  /** Charges what the request turned out to cost more than was taken, whether it is there or not; gives back where negative. */
  charge(units: number): void;
}

/** Counts one request at these keys; no promise where no store needs to be asked. */
export type Counting<Store = LimitStore> = (
  store: Store,
  keys: readonly string[],
  waitUntil: WaitUntil,
) => Counted | Promise<Counted | Failure>;

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
    const [url, token] = [runtime.text(reference.url, env), runtime.text(reference.token, env)];
    store = new LimitStore(url, token, () => runtime.now(), storeHealth(runtime));
    stores.set(runtime, store);
  }
  return store;
}

/**
 * One Redis and what this isolate knows of its health. After a failure it is left alone for 1 s; then one call tries it, while all
 * requests go on without, the one that made the call included; each further failure doubles the pause, up to 30 s. So a dead store
 * costs the requests that were under way when it died one timeout, and no later one waits for it. When nobody has asked for half a
 * minute after a pause, nothing is known any more, and the next one waits.
 */
export class LimitStore {
  readonly leases = new Leases();
  readonly #url: string;
  readonly #token: string;
  readonly #now: () => number;
  readonly #local = new Map<number, LocalCounter>();
  #redis: Redis | undefined;
  /** When the request that is being sent is called off. */
  #deadline = 0;
  readonly #pause: Pause;

  constructor(url: string, token: string, now: () => number, health: Pause = new Pause(now)) {
    this.#url = url;
    this.#token = token;
    this.#now = now;
    this.#pause = health;
  }

  now(): number {
    return this.#now();
  }

  sleep(ms: number): Promise<undefined> {
    return new Promise((resolve) => setTimeout(resolve, ms));
  }

  /**
   * Has a request wait for `work`, which calls the store, unless the store is away: then `trial`, which also calls it, finds out in the
   * background whether it is back, or it is too early for that.
   */
  async ask<Answer>(
    work: () => Promise<Answer | Failure>,
    waitUntil: WaitUntil,
    trial: () => Promise<unknown> = work,
  ): Promise<Answer | Failure> {
    if (this.#pause.clear) return work();
    if (this.#pause.left === 0) waitUntil(trial());
    return PAUSED;
  }

  /** Milliseconds until the store is asked again. */
  get pausedFor(): number {
    return this.#pause.left;
  }

  /**
   * Takes `amount` from each counter, at its key, in one HTTP request (two, when Redis does not know the script yet), within
   * `timeout` ms in all. When there is no answer, or no sensible one, it says why.
   */
  take(
    counters: readonly Counter[],
    keys: readonly string[],
    amount: number,
    timeout: number,
  ): Promise<Taken | Failure> {
    return this.#attempt(timeout, async (redis) => {
      const scripts = new ScriptBatch(redis, counters.length);
      const context = { redis: scripts as unknown as Redis, prefix: "" };
      const counts = await Promise.all(
        counters.map(({ algorithm }, i) => algorithm.limit(context, keys[i] as string, amount)),
      );
      // The scripts repeat the limit. Something else that answers in their place must not be taken for a count.
      if (counts.some(({ limit }, i) => limit !== counters[i]?.rule.tokens)) throw new TypeError("no count");
      return {
        counts,
        giveBack: (positions) => scripts.giveBack(positions, this.#clientUntil(this.#now() + timeout)),
      };
    });
  }

  /** Runs the script once for each key, in one HTTP request like `take`. `read` makes sense of a reply, and throws where there is none. */
  run<Reply>(
    script: Script,
    calls: readonly ScriptArguments[],
    read: (reply: unknown) => Reply,
    timeout: number,
  ): Promise<Reply[] | Failure> {
    return this.#attempt(timeout, async (redis) => {
      const sha = (script.sha ??= await sha1(script.text));
      const scripts = new ScriptBatch(redis, calls.length);
      const replies = calls.map(async ({ key, args }) => {
        try {
          return read(await scripts.evalsha(sha, [key], args));
        } catch (error) {
          if (!String(error).includes("NOSCRIPT")) throw error;
          return read(await scripts.eval(script.text, [key], args));
        }
      });
      return Promise.all(replies);
    });
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

  /** Never rejects, but for what is not configured. */
  async #attempt<Answer>(timeout: number, work: (redis: () => Redis) => Promise<Answer>): Promise<Answer | Failure> {
    if (!this.#pause.over) return PAUSED;
    const started = this.#now();
    const redis = this.#clientUntil(started + timeout);
    // Outside of what counts as a failure of the store: an address that is none is told each time.
    redis();
    try {
      const answer = await work(redis);
      this.#pause.succeeded();
      return answer;
    } catch (error) {
      this.#pause.failed(started);
      return { failure: describeFailure(error) };
    }
  }

  /** The client, for a request that is sent in the same turn. */
  #clientUntil(deadline: number): () => Redis {
    return () => {
      this.#deadline = deadline;
      return (this.#redis ??= storeClient(this.#url, this.#token, () => Math.max(1, this.#deadline - this.#now())));
    };
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
  #redis: () => Redis;
  #size: number;
  readonly #called: ScriptCall[] = [];
  #pending: PendingCall[] = [];

  /** `size`: how many scripts may be called in one turn. */
  constructor(redis: () => Redis, size: number) {
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

  giveBack(positions: readonly number[], redis: () => Redis): Promise<unknown> {
    // The same calls with the amount, always the last argument, negated. `limit(key, -amount)` would look at the clock again and
    // could credit a window that has begun meanwhile.
    const calls = positions.map((position) => this.#called[position] as ScriptCall);
    this.#size = calls.length;
    this.#redis = redis;
    return Promise.all(
      calls.map((call) => this.#add({ ...call, args: [...call.args.slice(0, -1), -Number(call.args.at(-1))] })),
    );
  }

  #add(call: ScriptCall): Promise<unknown> {
    if (this.#size === 1) return this.#redis()[call.command](call.script, call.keys, call.args);
    return new Promise((resolve, reject) => {
      this.#pending.push({ ...call, resolve, reject });
      if (this.#pending.length === 1) queueMicrotask(() => this.#send());
    });
  }

  async #send(): Promise<void> {
    const calls = this.#pending;
    this.#pending = [];
    try {
      const pipeline = this.#redis().pipeline();
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

async function sha1(text: string): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-1", new TextEncoder().encode(text)));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
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
