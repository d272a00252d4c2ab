/**
 * A regex that only a backtracking engine can run, as it looks around or refers back: V8 runs it, but sees no more than a window of
 * the value at a time, so that what is quadratic or cubic there stays linear in the value's length. A match that is longer than half
 * a window may be missed.
 */
export class WindowedRegex {
  readonly #source: string;
  readonly #flags: string;
  readonly #window: number;
  readonly #groups: readonly number[];
  #regex: RegExp | undefined;

  /** @param groups by the pattern's group, V8's number for it; the whole match first */
  constructor(source: string, flags: string, window: number, groups: readonly number[]) {
    this.#source = source;
    this.#flags = `${flags}g`;
    this.#window = window;
    this.#groups = groups;
  }

  test(value: string): boolean {
    return this.#find(value) !== undefined;
  }

  exec(value: string): (string | undefined)[] | undefined {
    const match = this.#find(value);
    return match && this.#groups.map((group) => match[group]);
  }

  #find(value: string): RegExpExecArray | undefined {
    const regex = (this.#regex ??= new RegExp(this.#source, this.#flags));
    if (this.#window === 0 || value.length <= this.#window) return this.#within(regex, value, 0);
    const step = this.#window >> 1;
    for (let from = 0; ; from += step) {
      // With the character before, so that ^ and \b see that the value goes on there; one that ends the window might not end the value.
      const begun = from > 0 ? 1 : 0;
      const part = value.slice(from - begun, from + this.#window);
      const match = this.#within(regex, part, begun);
      const last = from + this.#window >= value.length;
      if (match && (last || match.index + match[0].length < part.length)) return match;
      if (last) return undefined;
    }
  }

  #within(regex: RegExp, value: string, from: number): RegExpExecArray | undefined {
    regex.lastIndex = from;
    return regex.exec(value) ?? undefined;
  }
}
