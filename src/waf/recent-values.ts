/** What the values of one generation may take: names of some thousand members, or some hundred headers. */
const MOST_CHARACTERS = 1 << 15;
const MOST_VALUES = 2_048;

/**
 * Values that came lately, with what is known of each, in two generations: when the younger one is full it becomes the older one, which
 * is forgotten. What comes again meanwhile stays, so that values which come once, or a client that makes them up, do not drive out the
 * others.
 */
export class RecentValues<Known> {
  readonly #charactersIn: (known: Known) => number;
  #young = new Map<string, Known>();
  #old = new Map<string, Known>();
  #characters = 0;

  /** @param charactersIn how many characters what is known takes, beside the value's own */
  constructor(charactersIn: (known: Known) => number) {
    this.#charactersIn = charactersIn;
  }

  get(value: string): Known | undefined {
    const known = this.#young.get(value);
    if (known !== undefined || this.#old.size === 0) return known;
    const before = this.#old.get(value);
    if (before !== undefined) this.set(value, before);
    return before;
  }

  set(value: string, known: Known): void {
    const characters = value.length + this.#charactersIn(known);
    this.#characters += characters;
    if (this.#characters > MOST_CHARACTERS || this.#young.size >= MOST_VALUES) {
      this.#old = this.#young;
      this.#young = new Map();
      this.#characters = characters;
    }
    this.#young.set(value, known);
  }

  get size(): number {
    return this.#young.size + this.#old.size;
  }

  clear(): void {
    this.#young.clear();
    this.#old.clear();
    this.#characters = 0;
  }
}
