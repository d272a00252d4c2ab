/** How far a command is, as a bar on stderr, once it has taken two seconds; nothing where stderr is no terminal. */
export class ProgressBar {
  readonly #total: number | undefined;
  readonly #began = performance.now();
  #done = 0;
  #drawn = 0;

  /** `total` in whatever `add` counts; undefined: nobody knows. */
  constructor(total: number | undefined) {
    this.#total = total;
  }

  add(amount: number, what: () => string): void {
    this.#done += amount;
    const now = performance.now();
    if (!process.stderr.isTTY || now - this.#began < 2_000 || now - this.#drawn < 100) return;
    this.#drawn = now;
    const share = this.#total ? Math.min(1, this.#done / this.#total) : undefined;
    const filled = Math.round(30 * (share ?? 0));
    const bar =
      share === undefined ? "" : `${"█".repeat(filled)}${"░".repeat(30 - filled)} ${Math.floor(share * 100)} % `;
    process.stderr.write(`\r\x1b[K${bar}${what()}`);
  }

  /** Leaves the terminal as it was. */
  end(): void {
    if (process.stderr.isTTY && this.#drawn > 0) process.stderr.write("\r\x1b[K");
  }
}
