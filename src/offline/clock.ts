import { AsyncLocalStorage } from "node:async_hooks";

/** Time that stands still until somebody moves it on. */
export class Clock {
  #now: number;
  readonly #timers = new Set<Timer>();

  /** `start` in milliseconds since the epoch. */
  constructor(start: number) {
    this.#now = start;
  }

  now(): number {
    return this.#now;
  }

  setTimeout(callback: () => void, milliseconds: number): Timer {
    // Whoever moves the time on is elsewhere; what rings goes on where it was set.
    const rings = AsyncLocalStorage.bind(callback);
    const timer: Timer = {
      due: this.#now + Math.max(0, milliseconds),
      fire: () => {
        timer.stop();
        rings();
      },
      stop: () => void this.#timers.delete(timer),
    };
    this.#timers.add(timer);
    return timer;
  }

  /**
   * Moves on, and runs what is due by then, each at its own time and with what follows from it, for which `follows` waits. Default:
   * what this process does without waiting for anybody.
   */
  async advance(milliseconds: number, follows: () => Promise<void> = turn): Promise<void> {
    const until = this.#now + milliseconds;
    for (;;) {
      await follows();
      const next = this.#firstBy(until);
      if (!next) break;
      this.#now = Math.max(this.#now, next.due);
      next.fire();
    }
    this.#now = Math.max(this.#now, until);
    await follows();
  }

  /** Who does nothing but wait makes the time pass, as the pause before another try does. */
  wait(milliseconds: number): Promise<void> {
    return milliseconds > 0 ? this.advance(milliseconds) : turn();
  }

  #firstBy(until: number): Timer | undefined {
    let first: Timer | undefined;
    for (const timer of this.#timers) if (timer.due <= until && (!first || timer.due < first.due)) first = timer;
    return first;
  }
}

export interface Timer {
  /** Milliseconds since the epoch. */
  readonly due: number;
  fire(): void;
  stop(): void;
}

/** Until everything that is under way in this process and waits for nobody outside of it has been done. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
