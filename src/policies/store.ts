/** The gateway's Redis, for policies that look something up in it, and what this isolate knows of its health. */
import { Redis } from "@upstash/redis/cloudflare";
import { type Exchange, type GatewayRuntime, NotConfigured } from "./contract.ts";
import { Pause } from "./pause.ts";

/** In few words why there is no answer: `paused` where the store was not asked. */
export interface StoreFailure {
  readonly failure: string;
}

export type Answer<Value> = { readonly value: Value } | StoreFailure;

const stores = new WeakMap<GatewayRuntime, Store>();
const healths = new WeakMap<GatewayRuntime, Pause>();

/**
 * What the isolate knows of the store's health: one for all policies, since a request that passes several of them must not find out
 * in each that the store is away.
 */
export function storeHealth(runtime: GatewayRuntime): Pause {
  let health = healths.get(runtime);
  if (!health) {
    health = new Pause(() => runtime.now());
    healths.set(runtime, health);
  }
  return health;
}

/** The isolate's store. Throws NotConfigured where the gateway or the environment has none. */
export function storeOf(runtime: GatewayRuntime, env: unknown): Store {
  let store = stores.get(runtime);
  if (!store) {
    const reference = runtime.table.gateway.store;
    if (!reference) throw new NotConfigured("the gateway has no store");
    store = new Store(runtime, runtime.text(reference.url, env), runtime.text(reference.token, env));
    stores.set(runtime, store);
  }
  return store;
}

export class Store {
  readonly #url: string;
  readonly #token: string;
  readonly #now: () => number;
  readonly #clients = new Map<number, Redis>();
  readonly #pause: Pause;

  constructor(runtime: GatewayRuntime, url: string, token: string) {
    this.#url = url;
    this.#token = token;
    this.#now = () => runtime.now();
    this.#pause = storeHealth(runtime);
  }

  /** Whole seconds until the store is asked again; at least 1. */
  get retryAfter(): number {
    return this.#pause.retryAfter;
  }

  /**
   * What `asking` gets from Redis, for a request that waits for it, `timeout` ms at most. After a failure none waits: when the pause is
   * over, one of them has `trial` find out in the background whether the store is back.
   */
  async ask<Value>(
    exchange: Pick<Exchange, "waitUntil">,
    timeout: number,
    asking: (redis: Redis) => Promise<Value>,
    trial: (redis: Redis) => Promise<unknown> = asking,
  ): Promise<Answer<Value>> {
    if (this.#pause.clear) return this.askInBackground(timeout, asking);
    if (this.#pause.left === 0) exchange.waitUntil(this.askInBackground(timeout, trial));
    return { failure: "paused" };
  }

  /** The same for work that no request waits for, which is a trial itself. Every call that `asking` makes may take `timeout` ms. */
  async askInBackground<Value>(timeout: number, asking: (redis: Redis) => Promise<Value>): Promise<Answer<Value>> {
    if (!this.#pause.over) return { failure: "paused" };
    const started = this.#now();
    const client = this.#client(timeout);
    try {
      const value = await asking(client);
      this.#pause.succeeded();
      return { value };
    } catch (error) {
      this.#pause.failed(started);
      return { failure: describeFailure(error) };
    }
  }

  #client(timeout: number): Redis {
    let client = this.#clients.get(timeout);
    if (!client) {
      client = storeClient(this.#url, this.#token, () => timeout);
      this.#clients.set(timeout, client);
    }
    return client;
  }
}

/**
 * A client that answers or fails once, within `timeout()` ms, which is asked as a request is sent. Clients hold no I/O, so requests may
 * share them; making one takes some 20 µs (250 methods as closures). Throws NotConfigured where `url` is no address.
 */
export function storeClient(url: string, token: string, timeout: () => number): Redis {
  try {
    return new Redis({
      url,
      token,
      // A function, because of a plain signal that fires the client makes an answer with status 200 (1.39.0).
      signal: () => AbortSignal.timeout(timeout()),
      // `retry: false` still tries twice (1.39.0).
      retry: { retries: 0 },
      // A pipeline of several requests would make one await another's I/O, which Workers forbid.
      enableAutoPipelining: false,
      enableTelemetry: false,
      readYourWrites: false,
      // Counts are plain JSON numbers, and JSON carries records as they are. A text of digits is to stay a text.
      responseEncoding: false,
      automaticDeserialization: false,
    });
  } catch {
    throw new NotConfigured("the address of the gateway's store is no http(s) URL");
  }
}

/**
 * Why the store failed, in few words. Only what the store itself said is repeated, without the command, which has keys in it;
 * other errors may quote what they failed on, such as a malformed token.
 */
export function describeFailure(error: unknown): string {
  const { name, message } = error as Error;
  if (name === "TimeoutError" || name === "AbortError") return "timeout";
  return name === "UpstashError" ? message.replace(/, command was: .*$/s, "").slice(0, 120) : name;
}
