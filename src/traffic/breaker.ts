import type { TableBreaker } from "../table/table.ts";
import { isFailure, type Outcome } from "./outcome.ts";
import { RollingCounts } from "./rolling-counts.ts";

/**
 * A circuit breaker for one endpoint. Closed: everything passes, and answers are counted over a rolling window. Open: nothing
 * passes for `open`. Recovering (half-open): from the first request after that, the share that passes rises evenly to all within
 * `recovery`, as with Traefik's `recoveryDuration`; a single probe would let everything in at once on the word of one request.
 *
 * While it recovers it opens again without `minimumRequests`: the first failure of few is what the probing is for.
 */
export class CircuitBreaker {
  readonly #options: TableBreaker;
  readonly #answers: RollingCounts;
  #state: "closed" | "open" | "recovering" = "closed";
  /** When it entered `open` or `recovering`; closed again, it stays at the beginning of the recovery. */
  #since = 0;

  constructor(options: TableBreaker) {
    this.#options = options;
    this.#answers = new RollingCounts(options.window);
  }

  /**
   * 0: the request may pass. Else the milliseconds after which it surely may, if nothing fails until then. `draw` is a random
   * number in [0, 1). Nothing is counted here, so a request that may pass need not be sent.
   */
  admit(now: number, draw: number): number {
    if (this.#state === "closed") return 0;
    const { open, recovery } = this.#options;
    if (this.#state === "open") {
      const left = this.#since + open - now;
      if (left > 0) return left;
      this.#state = "recovering";
      this.#since = now;
      return 0;
    }
    const elapsed = now - this.#since;
    if (elapsed >= recovery) {
      this.#state = "closed";
      return 0;
    }
    return draw * recovery < elapsed ? 0 : recovery - elapsed;
  }

  record(outcome: Outcome, startedAt: number, now: number): void {
    // What was sent before it opened and ends late, such as a timeout, says nothing about how the endpoint is now.
    if (outcome === "cancelled" || this.#state === "open" || startedAt < this.#since) return;
    const failed = isFailure(outcome);
    this.#answers.add(failed, now);
    if (!failed) return;
    const { errorPercent, minimumRequests, recovery } = this.#options;
    const probing = this.#state === "recovering" && now < this.#since + recovery;
    if (!probing && this.#answers.all < minimumRequests) return;
    if (this.#answers.failed * 100 < errorPercent * this.#answers.all) return;
    this.#state = "open";
    this.#since = now;
    this.#answers.clear();
  }
}
