/**
 * How long what failed is left alone: 1 s; then one request tries it, while all others go on without, and each further failure doubles
 * the pause, up to 30 s. So what is dead costs one timeout per pause (and one for each request that was under way when it died), not
 * one per request.
 */
const FIRST_MS = 1_000;
const LONGEST_MS = 30_000;
/** As many answers in a row that make no sense are no longer the fault of who asked. */
const MANY = 5;

export class Pause {
  readonly #now: () => number;
  #length = 0;
  #until = 0;
  #failedAt = Number.NEGATIVE_INFINITY;
  #suspicions = 0;

  constructor(now: () => number) {
    this.#now = now;
  }

  /** Milliseconds until the next try. */
  get left(): number {
    return Math.max(0, this.#until - this.#now());
  }

  /** The same in whole seconds; at least 1. */
  get retryAfter(): number {
    return Math.max(1, Math.ceil(this.left / 1_000));
  }

  /** Whether nothing is held against it: the last try went well, or nobody has tried for half a minute after a pause. */
  get clear(): boolean {
    return this.#length === 0 || this.#now() >= this.#failedAt + this.#length + LONGEST_MS;
  }

  /** Whether to try now. Whoever is told so is the only one for a pause, and says what came of it. */
  get over(): boolean {
    const now = this.#now();
    if (now < this.#until) return false;
    this.#until = now + this.#length;
    return true;
  }

  succeeded(): void {
    this.#suspicions = 0;
    this.#length = 0;
    this.#until = 0;
  }

  /**
   * There was an answer, but none to go by, which may be the doing of whoever asked, such as a 500 for an odd token. One of them is no
   * reason to leave everybody else without; MANY of them without a good answer in between are.
   */
  suspected(started: number): void {
    const suspicions = this.#suspicions + 1;
    this.succeeded();
    if (suspicions >= MANY) this.failed(started);
    else this.#suspicions = suspicions;
  }

  /** `started`: when the try began. One that was under way when another one failed tells nothing new. */
  failed(started: number): void {
    if (started <= this.#failedAt) return;
    this.#failedAt = this.#now();
    this.#length = Math.min(this.#length * 2 || FIRST_MS, LONGEST_MS);
    this.#until = this.#failedAt + this.#length;
  }
}
