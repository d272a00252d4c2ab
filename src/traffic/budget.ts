import type { TableRetry } from "../table/table.ts";
import { RollingCounts } from "./rolling-counts.ts";

// What is kept beside one for each request under way: twice the failures in a row by which an endpoint is ejected by default. Without
// it, a route whose requests take a millisecond has none under way, and loses some of these.
const RESERVE = 10;

/** Milliseconds for which `minimum` retries are free, and for which Finagle and Linkerd keep what is not used as well. */
export const MINIMUM_PER = 10_000;

// The balance is in hundredths of a retry, so that percentages add up exactly.
const ONE = 100;

/**
 * How many of a route's tries may be retries, so that a failing cluster does not get its load multiplied. Each request puts
 * `percent` of a retry in, each retry takes one out; where nothing is in, there may be `minimum` retries in ten seconds all the same,
 * for routes with few requests. What quiet times leave over is kept up to one retry for each request under way, and ten: when an
 * endpoint dies, each request that it took along can be tried again. Since the isolate began there are no more retries than `percent` of
 * its requests, and `minimum`, however few callers there are (unless a time with fewer requests than that is within it).
 *
 * The numbers are Envoy's (RetryBudget: 20 %, 3). Envoy holds them against what is under way at the moment, by which
 * - retries that fail faster than first tries are many, and one of three endpoints that died cost 1 to 40 requests (simulated, 10 or 50
 *   under way, or 1,000 per second; counted over time: none);
 * - up to three callers, one after the other, can make as many retries as `attempts` says, always: 4 times the load with 3 attempts.
 * Over time is also how the Gateway API (GEP-3388: budget and minRetryRate), Finagle and Linkerd (minRetriesPerSec) count. Their minimum
 * comes on top of the share; here it is within it, so that 20 % are 20 %.
 */
export class RetryBudget {
  readonly #percent: number;
  readonly #minimum: number;
  readonly #recent = new RollingCounts(MINIMUM_PER);
  #balance: number;
  #requests = 0;

  constructor({ percent, minimum }: TableRetry["budget"]) {
    this.#percent = percent;
    this.#minimum = minimum;
    this.#balance = minimum * ONE;
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

  /** Whether there may be one more retry. If so it is counted. */
  take(now: number): boolean {
    if (this.#balance < ONE && this.#recent.at(now) >= this.#minimum) return false;
    this.#recent.add(false, now);
    // The minimum's retries count as well, but what a quiet night has used of them is not held against the morning.
    this.#balance = Math.max(this.#balance - ONE, -this.#requests * ONE);
    return true;
  }
}
