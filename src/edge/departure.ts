/**
 * The client's going away before it has its answer.
 *
 * The runtime keeps what listens to a request's signal, and all that this refers to, until V8 collects the whole heap. A listener that
 * saw the exchange had every request outlive the young generation, and moving them took several times as long as collecting the rest
 * (V8's --trace-gc). So what listens refers to this object alone, and this lets go of what it was to call.
 */
export class Departure {
  #calls: (() => void)[] = [];
  #gone = false;

  constructor(signal: AbortSignal) {
    signal.addEventListener("abort", () => this.#left());
  }

  /** Calls it when the client leaves, or now where it has left. */
  whenGone(call: () => void): void {
    if (this.#gone) call();
    else this.#calls.push(call);
  }

  /** The exchange is over: nothing is called any more. */
  forget(): void {
    this.#calls = [];
  }

  #left(): void {
    this.#gone = true;
    for (const call of this.#calls) call();
  }
}
