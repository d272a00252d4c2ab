/** How far a run is, on stderr: a bar on a terminal, else one line for each thing that begins. */
export class Progress {
  readonly #total: number;
  #done = 0;
  #last = "";

  constructor(total: number) {
    this.#total = total;
  }

  /** One more step is done, a part of `what`. */
  step(what: string): void {
    this.#done++;
    if (process.stderr.isTTY) {
      const filled = Math.round((30 * this.#done) / this.#total);
      process.stderr.write(`\r\x1b[K${"█".repeat(filled)}${"░".repeat(30 - filled)} ${what}`);
    } else if (what !== this.#last) process.stderr.write(`${what}\n`);
    this.#last = what;
  }

  /** Leaves the terminal as it was. */
  end(): void {
    if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");
  }
}
