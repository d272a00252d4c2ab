/** Characters, and values, of one generation: names of some thousand members, or some hundred headers. */
const MOST_CHARACTERS = 1 << 15;
const MOST_VALUES = 2_048;

/**
 * Values that came lately, in two generations: when the younger one is full it becomes the older one, which is forgotten. What comes
 * again meanwhile stays, so that values which come once, or a client that makes them up, do not drive out the others.
 */
export class RecentValues {
  #young = new Set<string>();
  #old = new Set<string>();
  #characters = 0;

  has(value: string): boolean {
    if (this.#young.has(value)) return true;
    if (this.#old.size === 0 || !this.#old.has(value)) return false;
    this.add(value);
    return true;
  }

  add(value: string): void {
    this.#characters += value.length;
    if (this.#characters > MOST_CHARACTERS || this.#young.size >= MOST_VALUES) {
      this.#old = this.#young;
      this.#young = new Set();
      this.#characters = value.length;
    }
    this.#young.add(value);
  }

  clear(): void {
    if (this.#characters === 0) return;
    this.#young.clear();
    this.#old.clear();
    this.#characters = 0;
  }
}
