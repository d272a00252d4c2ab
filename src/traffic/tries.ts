/** Whom one request is sent to, try by try. */
import type { Endpoint } from "./endpoint.ts";
import type { Pool, PoolMember, Refusal, RequestFacts } from "./pool.ts";

/** One place to send the request to. */
export interface Choice {
  /** Position in the table's backends. */
  readonly backend: number;
  /** What is remembered of it, where anything is. */
  readonly endpoint?: Endpoint;
  readonly affinity?: PoolMember["affinity"];
}

export interface Tries<C extends Choice = Choice> {
  /** Whether a priority is left that has not been asked: without a retry being configured, one place of each may be. */
  readonly further: boolean;
  /**
   * `onward`: of another priority than those that have been asked, while anyone there may be, and nobody who has been asked before:
   * that would be a retry.
   */
  next(now: number, onward: boolean): C | Refusal;
}

/** For a route of whose backends nothing is remembered: they are asked in their order. */
export class ListTries implements Tries {
  readonly #backends: readonly number[];
  #tried = 0;

  constructor(backends: readonly number[]) {
    this.#backends = backends;
  }

  get further(): boolean {
    return this.#tried < this.#backends.length;
  }

  /** After the last one comes the first again: with one backend alone, a retry has nowhere else to go. */
  next(): Choice {
    return { backend: this.#backends[this.#tried++ % this.#backends.length] as number };
  }
}

export class PoolTries implements Tries<PoolMember> {
  readonly #pool: Pool;
  readonly #facts: RequestFacts;
  readonly #random: () => number;
  #first: PoolMember | undefined;
  /** Most requests need no second try, and no more than `#first`. */
  #history: History | undefined;

  constructor(pool: Pool, facts: RequestFacts, random: () => number) {
    this.#pool = pool;
    this.#facts = facts;
    this.#random = random;
  }

  /** As if made anew, for another request. */
  reset(): void {
    this.#first = this.#history = undefined;
  }

  get further(): boolean {
    return (this.#history ? this.#history.asked.length : this.#first ? 1 : 0) < this.#pool.levels;
  }

  next(now: number, onward: boolean): PoolMember | Refusal {
    if (!this.#first) {
      const choice = this.#pool.pick(this.#facts, NOBODY, now, this.#random);
      if (!("none" in choice)) this.#first = choice;
      return choice;
    }
    const { endpoint, peers } = this.#first;
    const history = (this.#history ??= { tried: [endpoint], sent: [endpoint], asked: [peers] });
    if (onward) history.tried = [...history.asked.flat(), ...history.tried];
    const choice = this.#pool.pick(this.#facts, history.tried, now, this.#random);
    if ("none" in choice) return choice;
    if (onward && history.sent.includes(choice.endpoint)) return { none: "no-healthy" };
    history.tried.push(choice.endpoint);
    history.sent.push(choice.endpoint);
    if (onward || !history.asked.includes(choice.peers)) history.asked.push(choice.peers);
    return choice;
  }
}

const NOBODY: readonly Endpoint[] = [];

interface History {
  /** To be passed over, the last one asked last. */
  tried: Endpoint[];
  readonly sent: Endpoint[];
  /** The priorities that have been asked, by their endpoints; one twice where nobody further on could be asked in its place. */
  readonly asked: (readonly Endpoint[])[];
}
