/**
 * An issuer's public keys (RFC 7517, 5), fetched when first needed and held by the isolate.
 *
 * On Workers an I/O object, and so the promise of a fetch, belongs to the request that made it, and another request that awaits it
 * is cancelled or hangs. So requests share the outcome and never the promise: one of them fetches, those that need that outcome
 * look for it in memory between timers of their own.
 *
 * The number of fetches does not depend on what clients send: there is one at a time, the next one waits for `coolDown` after a
 * success and for 1 s, 2 s, 4 s … up to `coolDown` after failures. Only the regular refresh, after `maxAge`, comes on top.
 */
import { createLocalJWKSet, errors, type JWSHeaderParameters, type LocalJWKSet } from "jose";
import type { Exchange } from "./contract.ts";

/** In milliseconds. */
export interface KeySetConfig {
  /** For one fetch, from its start to the last byte. */
  readonly timeout: number;
  /** From then on the set is refreshed, while it goes on serving. */
  readonly maxAge: number;
  /** Between two fetches that clients cause. */
  readonly coolDown: number;
  /** From then on a set that could not be refreshed serves no more; absent: it serves until the issuer is back. */
  readonly maxStale?: number;
}

/** There are no keys, and none to be had now. */
export class KeysUnavailable extends Error {
  override readonly name = "KeysUnavailable";
  /** Whole seconds until the next attempt. */
  readonly retryAfter: number;

  constructor(retryAfter: number) {
    super("the key set could not be fetched");
    this.retryAfter = retryAfter;
  }
}

/** `text` as the address of a key set: https, or http on a loopback address; undefined when it is neither. */
export function keySetUrl(text: string): string | undefined {
  const url = URL.parse(text);
  if (!url || url.username || url.password) return undefined;
  const loopback = /^(?:localhost|127(?:\.\d+){3}|\[::1\])$/.test(url.hostname);
  return url.protocol === "https:" || (url.protocol === "http:" && loopback) ? url.href : undefined;
}

// An RSA key with its certificate chain takes some 5 KB; the largest public sets hold some dozens of keys.
const MAX_BYTES = 256 * 1024;
const FIRST_RETRY = 1_000;
// How often a request looks for what another one fetches. It does so only at a cold start and after a rotation.
const POLL = 10;
// A fetch whose request was cancelled never reports; past its timeout and this margin, another one may start.
const GRACE = 1_000;

export class KeySet {
  readonly #url: string;
  readonly #config: KeySetConfig;
  readonly #now: () => number;
  readonly #changed: () => void;
  #find: LocalJWKSet | undefined;
  #content = "";
  #fetchedAt = 0;
  #failures = 0;
  #retryAt = 0;
  #flight: { readonly until: number } | undefined;

  /** `changed` is called whenever what was verified with the keys may no longer hold. */
  constructor(url: string, config: KeySetConfig, now: () => number, changed: () => void) {
    this.#url = url;
    this.#config = config;
    this.#now = now;
    this.#changed = changed;
  }

  /** Whether the last attempt to refresh the set failed. */
  get stale(): boolean {
    return this.#failures > 0;
  }

  /** Keeps the set fresh, in the background; costs a comparison when it is. For every request, also those that need no key. */
  tend(exchange: Exchange): void {
    if (!this.#find) return;
    const { maxAge, maxStale } = this.#config;
    const now = this.#now();
    const age = now - this.#fetchedAt;
    if (age < maxAge) return;
    if (maxStale !== undefined && age >= maxAge + maxStale) {
      this.#find = undefined;
      this.#changed();
    } else if (!this.#flying(now) && (now >= this.#retryAt || this.#failures === 0)) {
      exchange.waitUntil(this.#fetch());
    }
  }

  /**
   * The key for a token with this header. Throws what jose's local key set throws (JWKSNoMatchingKey, JWKSMultipleMatchingKeys),
   * and KeysUnavailable when there is no set.
   */
  async key(header: JWSHeaderParameters, exchange: Exchange): ReturnType<LocalJWKSet> {
    this.tend(exchange);
    if (!this.#find) await this.#update(exchange);
    const find = this.#find;
    if (!find) throw new KeysUnavailable(Math.max(1, Math.ceil((this.#retryAt - this.#now()) / 1_000)));
    try {
      return await find(header);
    } catch (error) {
      if (!(error instanceof errors.JWKSNoMatchingKey)) throw error;
      await this.#update(exchange);
      if (!this.#find || this.#find === find) throw error;
      return await this.#find(header);
    }
  }

  /** Fetches the set, or waits for who does so already, or does nothing when it is too early. */
  async #update(exchange: Exchange): Promise<void> {
    const flight = this.#flight;
    if (this.#flying(this.#now())) {
      while (this.#flight === flight && this.#flying(this.#now())) {
        await new Promise((resolve) => setTimeout(resolve, POLL));
      }
    } else if (this.#now() >= this.#retryAt) {
      const work = this.#fetch();
      // The outcome is for all requests, so it must not end with a client that goes away.
      exchange.waitUntil(work);
      await work;
    }
  }

  #flying(now: number): boolean {
    return this.#flight !== undefined && now < this.#flight.until;
  }

  /** Never rejects. */
  async #fetch(): Promise<void> {
    const { timeout, coolDown } = this.#config;
    const flight = { until: this.#now() + timeout + GRACE };
    this.#flight = flight;
    let set: { keys: object[] } | undefined;
    let find: LocalJWKSet | undefined;
    try {
      set = JSON.parse(await download(this.#url, timeout));
      // jose refuses what is not a set.
      find = createLocalJWKSet(set as Parameters<typeof createLocalJWKSet>[0]);
    } catch {
      // What went wrong is of no use to a client; `stale` and KeysUnavailable say that it did.
    }
    if (this.#flight !== flight) return;
    this.#flight = undefined;
    const now = this.#now();
    if (!set || !find) {
      this.#retryAt = now + Math.min(coolDown, FIRST_RETRY * 2 ** this.#failures++);
      return;
    }
    this.#failures = 0;
    this.#retryAt = now + coolDown;
    this.#fetchedAt = now;
    // Some issuers list their keys in a new order each time.
    const content = set.keys
      .map((key) => JSON.stringify(key))
      .sort()
      .join();
    const replaced = this.#find !== undefined;
    if (replaced && content === this.#content) return;
    this.#find = find;
    this.#content = content;
    if (replaced) this.#changed();
  }
}

async function download(url: string, timeout: number): Promise<string> {
  const response = await fetch(url, {
    headers: { accept: "application/jwk-set+json, application/json", "user-agent": "portcullis" },
    // Keys come from where the operator said, and from nowhere that answer points to.
    redirect: "manual",
    signal: AbortSignal.timeout(timeout),
  });
  if (response.status !== 200 || !response.body) {
    await response.body?.cancel();
    throw new Error(`status ${response.status}`);
  }
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: false });
  let text = "";
  let size = 0;
  for await (const chunk of response.body as ReadableStream<Uint8Array>) {
    size += chunk.byteLength;
    if (size > MAX_BYTES) throw new Error("too large");
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}
