/** Gives equal values the same position, in order of first use. */
export class Numbered<Value> {
  readonly values: Value[] = [];
  readonly #positions = new Map<string, number>();

  number(value: Value, key = JSON.stringify(value)): number {
    let position = this.#positions.get(key);
    if (position === undefined) {
      position = this.values.push(value) - 1;
      this.#positions.set(key, position);
    }
    return position;
  }
}
