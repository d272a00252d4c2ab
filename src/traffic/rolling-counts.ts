// A bucket leaves the window as a whole, so the window is never shorter than 9/10 of its length nor longer than all of it.
const BUCKETS = 10;

/** How many there were, and how many of them failed, in the last `length` milliseconds. Ten buckets, whatever the traffic. */
export class RollingCounts {
  readonly #width: number;
  readonly #all = new Uint32Array(BUCKETS);
  readonly #failed = new Uint32Array(BUCKETS);
  /** Number of the current bucket since the epoch, and where it is in the arrays. */
  #bucket = 0;
  #slot = 0;
  /** Sums over the window, as of the last `add` or `at`. */
  all = 0;
  failed = 0;

  constructor(length: number) {
    this.#width = length / BUCKETS;
  }

  /** How many there were until `now`. */
  at(now: number): number {
    const bucket = Math.floor(now / this.#width);
    if (bucket > this.#bucket) this.#moveTo(bucket);
    return this.all;
  }

  add(failed: boolean, now: number): void {
    this.at(now);
    this.all++;
    (this.#all[this.#slot] as number)++;
    if (!failed) return;
    this.failed++;
    (this.#failed[this.#slot] as number)++;
  }

  clear(): void {
    this.#all.fill(0);
    this.#failed.fill(0);
    this.all = this.failed = 0;
  }

  #moveTo(bucket: number): void {
    if (bucket - this.#bucket >= BUCKETS) {
      this.clear();
      this.#bucket = bucket;
    }
    for (; this.#bucket < bucket; this.#bucket++) {
      this.#slot = (this.#slot + 1) % BUCKETS;
      this.all -= this.#all[this.#slot] as number;
      this.failed -= this.#failed[this.#slot] as number;
      this.#all[this.#slot] = this.#failed[this.#slot] = 0;
    }
  }
}
