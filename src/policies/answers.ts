/**
 * What was found out about credentials, with much work or by asking somebody: remembered by a hash of them for as long as the answer
 * holds, and found out once, however many requests show the same at the same time.
 */
import { BoundedMemory } from "./bounded-memory.ts";
import type { Exchange } from "./contract.ts";
import { Flight } from "./flight.ts";

export interface Answer<Value> {
  readonly value: Value;
  /** Milliseconds since the epoch. */
  readonly until: number;
}

/** Somebody else was asking, and was cancelled before there was an answer. */
export class NoAnswer extends Error {
  override readonly name = "NoAnswer";
}

/** Under way. Those who wait for it share its failure as they share an answer: an error is plain data. */
interface Question {
  readonly flight: Flight;
  failure?: unknown;
}

export class Answers<Value> {
  readonly #now: () => number;
  readonly #known: BoundedMemory<Answer<Value>>;
  readonly #questions = new Map<string, Question>();

  /** At most `limit` are remembered. */
  constructor(limit: number, now: () => number) {
    this.#now = now;
    this.#known = new BoundedMemory(limit);
  }

  known(hash: string): Answer<Value> | undefined {
    const answer = this.#known.get(hash);
    return answer && this.#now() < answer.until ? answer : undefined;
  }

  put(hash: string, answer: Answer<Value>): void {
    this.#known.put(hash, answer);
  }

  /** The answer for `hash`, from memory, or by `ask`, which takes at most `limit` ms. Throws what that throws, and NoAnswer. */
  async find(exchange: Exchange, hash: string, limit: number, ask: () => Promise<Answer<Value>>): Promise<Value> {
    const known = this.known(hash);
    if (known) return known.value;
    const others = this.#questions.get(hash);
    if (others?.flight.underway) {
      await others.flight.over();
      const found = this.known(hash);
      if (found) return found.value;
      throw others.failure ?? new NoAnswer();
    }
    const question: Question = { flight: new Flight(this.#now) };
    this.#questions.set(hash, question);
    let found: Answer<Value> | undefined;
    const work = question.flight.begin(limit, async () => {
      try {
        found = await ask();
        this.put(hash, found);
      } catch (error) {
        question.failure = error;
      } finally {
        if (this.#questions.get(hash) === question) this.#questions.delete(hash);
      }
    });
    // The outcome is for all requests, so it must not end with a client that goes away.
    exchange.waitUntil(work);
    await work;
    if (!found) throw question.failure;
    return found.value;
  }
}
