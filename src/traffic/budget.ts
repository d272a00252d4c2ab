import type { TableRetry } from "../table/table.ts";

/**
 * How many of a route's tries may be retries, so that a failing cluster does not get its load multiplied. Each request puts
 * `percent` of a retry in, each retry takes one out; `minimum` retries may be under way in any case, for routes with few requests.
 * What quiet times leave over is kept up to one retry for each request under way: when an endpoint dies, each request that it took
 * along can be tried again, and however long a failure lasts, there are no more retries than `percent` of the requests beyond that.
 *
 * The numbers are Envoy's (RetryBudget: 20 %, 3). Envoy holds them against the requests under way at the moment; that lets through
 * any number of retries when they fail faster than first tries, and too few when a third of the endpoints dies at once. Counting
 * over time is what the Gateway API (GEP-3388), Finagle, Linkerd and Envoy's newer `budget_interval` do.
 */
export class RetryBudget {
  readonly #deposit: number;
  readonly #minimum: number;
  #balance = 0;
  #requests = 0;
  #retries = 0;

  constructor({ percent, minimum }: TableRetry["budget"]) {
    this.#deposit = percent / 100;
    this.#minimum = minimum;
  }

  /** A request of the route begins. */
  began(): void {
    this.#requests++;
    this.#balance = Math.min(this.#balance + this.#deposit, Math.max(this.#requests, 1));
  }

  /** It has its answer, whatever the number of tries. */
  ended(): void {
    this.#requests--;
  }

  /** Whether there may be one more retry. If so it is under way, its backoff included, until `release`. */
  take(): boolean {
    if (this.#retries >= this.#minimum && this.#balance < 1) return false;
    this.#retries++;
    // Below zero the minimum's retries count as well, but a debt that no traffic could pay back would only be held against the next hour.
    this.#balance = Math.max(this.#balance - 1, -this.#requests);
    return true;
  }

  release(): void {
    this.#retries--;
  }
}
