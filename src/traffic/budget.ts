import type { TableRetry } from "../table/table.ts";

// What is kept beside one for each request under way: twice the failures in a row by which an endpoint is ejected by default. Without
// it, a route whose requests take a millisecond has none under way, and loses some of these.
const RESERVE = 10;

// The balance is in hundredths of a retry, so that percentages add up exactly.
const ONE = 100;

/**
 * How many of a route's tries may be retries, so that a failing cluster does not get its load multiplied. Each request puts
 * `percent` of a retry in, each retry takes one out; `minimum` retries may be under way in any case, for routes with few requests.
 * What quiet times leave over is kept up to one retry for each request under way, and ten: when an endpoint dies, each request that it
 * took along can be tried again. Beyond that there are no more retries than `percent` of the requests, however long a failure lasts.
 *
 * The numbers are Envoy's (RetryBudget: 20 %, 3). Envoy holds them against the requests under way at the moment, by which retries that
 * fail faster than first tries are many, and one of three endpoints that died cost 1 to 40 requests (simulated, 10 or 50 under way, or
 * 1,000 per second; counted over time: none). Over time is also how the Gateway API (GEP-3388), Finagle and Linkerd count.
 */
export class RetryBudget {
  readonly #percent: number;
  readonly #minimum: number;
  #balance = 0;
  #requests = 0;
  #retries = 0;

  constructor({ percent, minimum }: TableRetry["budget"]) {
    this.#percent = percent;
    this.#minimum = minimum;
  }

  /** A request of the route begins. */
  began(): void {
    this.#requests++;
    this.#balance = Math.min(this.#balance + this.#percent, (this.#requests + RESERVE) * ONE);
  }

  /** It has its answer, whatever the number of tries. */
  ended(): void {
    this.#requests--;
  }

  /** Whether there may be one more retry. If so it is under way, its backoff included, until `release`. */
  take(): boolean {
    if (this.#retries >= this.#minimum && this.#balance < ONE) return false;
    this.#retries++;
    // The minimum's retries count as well, but what a quiet night has used of them is not held against the morning.
    this.#balance = Math.max(this.#balance - ONE, -this.#requests * ONE);
    return true;
  }

  release(): void {
    this.#retries--;
  }
}
