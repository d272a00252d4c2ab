/**
 * Work that all requests of an isolate want the outcome of, and one of them does.
 *
 * On Workers an I/O object, and so the promise of a fetch, belongs to the request that made it, and another request that awaits it
 * is cancelled or hangs. So requests share the outcome and never the promise: those that need it look for the end of the work between
 * timers of their own.
 */

// How often a request looks for what another one does. It does so at a cold start and after a rotation, and rarely else.
const POLL = 10;
// Work whose request was cancelled never ends; past its limit and this margin, it counts as over.
const GRACE = 1_000;

export class Flight {
  readonly #now: () => number;
  #current: { readonly until: number } | undefined;

  constructor(now: () => number) {
    this.#now = now;
  }

  get underway(): boolean {
    return this.#current !== undefined && this.#now() < this.#current.until;
  }

  /**
   * Begins `work`, which takes at most `limit` ms. Where it has taken longer and another one has begun, `isCurrent` tells that its
   * outcome counts no more.
   */
  async begin(limit: number, work: (isCurrent: () => boolean) => Promise<void>): Promise<void> {
    const flight = { until: this.#now() + limit + GRACE };
    this.#current = flight;
    try {
      await work(() => this.#current === flight);
    } finally {
      if (this.#current === flight) this.#current = undefined;
    }
  }

  /** Waits until the work that is under way is over. */
  async over(): Promise<void> {
    const flight = this.#current;
    while (this.#current === flight && this.underway) await new Promise((resolve) => setTimeout(resolve, POLL));
  }
}
