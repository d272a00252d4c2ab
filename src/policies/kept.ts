/**
 * A document of an issuer's, fetched when first needed and held by the isolate: refreshed in the background when it is old, and kept
 * while the issuer cannot be asked.
 *
 * The number of fetches does not depend on what clients send: there is one at a time, the next one waits for `coolDown` after a
 * success and for 1 s, 2 s, 4 s … up to `coolDown` after failures. Only the regular refresh, after `maxAge`, comes on top.
 */
import type { Exchange } from "./contract.ts";
import { Flight } from "./flight.ts";

/** In milliseconds. */
export interface KeptConfig {
  /** For one fetch, from its start to the last byte. */
  readonly timeout: number;
  /** From then on the document is refreshed, while it goes on serving. */
  readonly maxAge: number;
  /** Between two fetches that clients cause. */
  readonly coolDown: number;
  /** From then on a document that could not be refreshed serves no more; absent: it serves until the issuer is back. */
  readonly maxStale?: number;
}

const FIRST_RETRY = 1_000;

export interface KeptOptions<Value> {
  /** Throws when it is not to be had. Takes `timeout` ms, once or for each of its `requests`. */
  readonly load: () => Promise<Value>;
  readonly requests?: number;
  /** Whether a new one says nothing new: then the old one stays. */
  readonly same?: (old: Value, fresh: Value) => boolean;
  /** Called when there is another one than before, or none any more. */
  readonly changed?: () => void;
}

export class Kept<Value> {
  readonly #config: KeptConfig;
  readonly #options: KeptOptions<Value>;
  readonly #now: () => number;
  readonly #flight: Flight;
  #value: Value | undefined;
  #fetchedAt = 0;
  #failures = 0;
  #retryAt = 0;

  constructor(config: KeptConfig, options: KeptOptions<Value>, now: () => number) {
    this.#config = config;
    this.#options = options;
    this.#now = now;
    this.#flight = new Flight(now);
  }

  get value(): Value | undefined {
    return this.#value;
  }

  /** Whether the last attempt to refresh it failed. */
  get stale(): boolean {
    return this.#failures > 0;
  }

  /** Whole seconds until the next attempt; at least 1. */
  get retryAfter(): number {
    return Math.max(1, Math.ceil((this.#retryAt - this.#now()) / 1_000));
  }

  /** Keeps it fresh, in the background; costs a comparison when it is. For every request, also those that do not need it. */
  tend(exchange: Exchange): void {
    if (this.#value === undefined) return;
    const { maxAge, maxStale } = this.#config;
    const now = this.#now();
    const age = now - this.#fetchedAt;
    if (age < maxAge) return;
    if (maxStale !== undefined && age >= maxAge + maxStale) {
      this.#value = undefined;
      this.#options.changed?.();
    } else if (!this.#flight.underway && (now >= this.#retryAt || this.#failures === 0)) {
      exchange.waitUntil(this.#fetch());
    }
  }

  /** Fetches it, or waits for who does so already, or does nothing when it is too early. */
  async update(exchange: Exchange): Promise<void> {
    if (this.#flight.underway) await this.#flight.over();
    else if (this.#now() >= this.#retryAt) {
      const work = this.#fetch();
      // The outcome is for all requests, so it must not end with a client that goes away.
      exchange.waitUntil(work);
      await work;
    }
  }

  /** Never rejects. */
  #fetch(): Promise<void> {
    const { timeout, coolDown } = this.#config;
    const { load, requests = 1, same, changed } = this.#options;
    return this.#flight.begin(timeout * requests, async (isCurrent) => {
      // What went wrong is of no use to a client; that something did is told by `stale` and by there being no value.
      const fresh = await load().catch(() => undefined);
      if (!isCurrent()) return;
      const now = this.#now();
      if (fresh === undefined) {
        this.#retryAt = now + Math.min(coolDown, FIRST_RETRY * 2 ** this.#failures++);
        return;
      }
      this.#failures = 0;
      this.#retryAt = now + coolDown;
      this.#fetchedAt = now;
      const old = this.#value;
      if (old !== undefined && same?.(old, fresh)) return;
      this.#value = fresh;
      if (old !== undefined) changed?.();
    });
  }
}
