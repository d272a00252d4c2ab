/** The gateway's Redis, for policies that look something up in it, and what this isolate knows of its health. */
import { Redis } from "@upstash/redis/cloudflare";
import { type GatewayRuntime, NotConfigured } from "./contract.ts";
import { Pause } from "./pause.ts";

/** In few words why there is no answer: `paused` where the store was not asked. */
export interface StoreFailure {
  readonly failure: string;
}

const stores = new WeakMap<GatewayRuntime, Store>();

/** The isolate's store. Throws NotConfigured where the gateway or the environment has none. */
export function storeOf(runtime: GatewayRuntime, env: unknown): Store {
  let store = stores.get(runtime);
  if (!store) {
    const reference = runtime.table.gateway.store;
    if (!reference) throw new NotConfigured("the gateway has no store");
    store = new Store(runtime.text(reference.url, env), runtime.text(reference.token, env), () => runtime.now());
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

  constructor(url: string, token: string, now: () => number) {
    this.#url = url;
    this.#token = token;
    this.#now = now;
    this.#pause = new Pause(now);
  }

  /** Whole seconds until the store is asked again; at least 1. */
  get retryAfter(): number {
    return this.#pause.retryAfter;
  }

  /** What `asking` gets from Redis, whose every request may take `timeout` ms. */
  async ask<Value>(
    timeout: number,
    asking: (redis: Redis) => Promise<Value>,
  ): Promise<{ readonly value: Value } | StoreFailure> {
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
