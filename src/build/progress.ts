import type { Step } from "../prove/step.ts";

/** How far a command is, as a bar on stderr, once it has taken two seconds; nothing where stderr is no terminal. */
export class ProgressBar {
  readonly #began = performance.now();
  #total: number | undefined;
  #done = 0;
  #drawn = 0;

  /** `total` in whatever `add` counts; undefined: nobody knows. */
  constructor(total?: number) {
    this.#total = total;
  }

  add(amount: number, what: () => string): void {
    this.#done += amount;
    this.#draw(what);
  }

  /** For works that tell by themselves how far they are. */
  readonly step: Step = (what, done, total) => {
    [this.#done, this.#total] = [done, total];
    this.#draw(() => `${what}, ${done.toLocaleString("en")} of ${total.toLocaleString("en")}`);
  };

  /** Leaves the terminal as it was. */
  end(): void {
    if (process.stderr.isTTY && this.#drawn > 0) process.stderr.write("\r\x1b[K");
  }

  #draw(what: () => string): void {
    const now = performance.now();
    if (!process.stderr.isTTY || now - this.#began < 2_000 || now - this.#drawn < 100) return;
    this.#drawn = now;
    const share = this.#total ? Math.min(1, this.#done / this.#total) : undefined;
    const filled = Math.round(30 * (share ?? 0));
    const bar =
      share === undefined ? "" : `${"█".repeat(filled)}${"░".repeat(30 - filled)} ${Math.floor(share * 100)} % `;
    process.stderr.write(`\r\x1b[K${bar}${what()}`);
  }
}

/** The work with a bar of its own, which is gone when the work is done, or has failed. */
export async function watched<Result>(work: (step: Step) => Promise<Result>): Promise<Result> {
  const bar = new ProgressBar();
  try {
    return await work(bar.step);
  } finally {
    bar.end();
  }
}
