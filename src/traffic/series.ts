import type { TableRetry } from "../table/table.ts";
import type { RetryBudget } from "./budget.ts";
import { isFailure, isGatewayFailure, type Outcome } from "./outcome.ts";
import type { Refusal } from "./pool.ts";
import { decideRetry, type NotRetried } from "./retry.ts";
import type { Choice, Tries } from "./tries.ts";

export interface Retrying {
  readonly rules: TableRetry;
  readonly budget: RetryBudget;
}

/** What follows a try. */
export interface Next {
  /** Another one, after so many milliseconds. Absent: none, and the answer at hand is given. */
  readonly after?: number;
  /** Why there is no retry, where the route has them and the try has failed. */
  readonly notRetried?: NotRetried;
}

const DONE: Next = {};

/**
 * The tries of one request: whether there is one more, when, and who is asked. Without `retry`, only the next priorities are asked, and
 * only when the request can be repeated: an idempotent method, and no body or one that is held in memory.
 *
 *     series.began();
 *     for (;;) {
 *       const choice = series.choose(now);          // a Refusal: what the try before has brought is the answer, if there was one
 *       ...                                         // ask
 *       const next = series.ended(outcome, now, remaining, retryAfter);
 *       if (next.after === undefined) break;        // else wait for as long
 *     }
 *     series.over();                                // also when it is left in between
 */
export class Series<C extends Choice = Choice> {
  /** So far, the one that is under way included. */
  tries = 0;
  readonly #choices: Tries<C>;
  readonly #method: string;
  readonly #replayable: boolean;
  readonly #retry: Retrying | undefined;
  readonly #random: () => number;
  readonly #mayFailOver: boolean;
  #retrying = false;

  /** `replayable`: there is no body, or it is held in memory. `method` in upper case. */
  constructor(
    choices: Tries<C>,
    method: string,
    replayable: boolean,
    retry: Retrying | undefined,
    random: () => number,
  ) {
    this.#choices = choices;
    this.#method = method;
    this.#replayable = replayable;
    this.#retry = retry;
    this.#random = random;
    this.#mayFailOver = replayable && IDEMPOTENT.has(method);
  }

  /** The request comes in. */
  began(): void {
    this.tries = 0;
    this.#retry?.budget.began();
  }

  /** Whom the next try is sent to. */
  choose(now: number): C | Refusal {
    const choice = this.#choices.next(now, this.tries > 0 && !this.#retrying);
    if (!("none" in choice)) this.tries++;
    return choice;
  }

  /** Whether nobody is asked after the try that is under way when that is late. */
  get isLast(): boolean {
    return !this.#mayRetryLate && !(this.#mayFailOver && this.#choices.further);
  }

  /**
   * The try that is under way has ended. `remaining` milliseconds are left of the request's total (Infinity: there is none);
   * `retryAfter`: what the answer asks for, in milliseconds.
   */
  ended(outcome: Outcome, now: number, remaining: number, retryAfter?: number): Next {
    this.#retrying = false;
    let notRetried: NotRetried | undefined;
    if (this.#retry) {
      const { tries } = this;
      const facts = { method: this.#method, replayable: this.#replayable, tries, outcome, retryAfter, remaining, now };
      const verdict = decideRetry(this.#retry.rules, facts, this.#retry.budget, this.#random);
      if ("after" in verdict) {
        this.#retrying = true;
        return verdict;
      }
      if (verdict.not !== "outcome" || isFailure(outcome)) notRetried = verdict.not;
    }
    const why = notRetried && { notRetried };
    const failsOver = this.#mayFailOver && remaining > 0 && isGatewayFailure(outcome) && this.#choices.further;
    return failsOver ? { after: 0, ...why } : (why ?? DONE);
  }

  /** The request has its answer. */
  over(): void {
    this.#retry?.budget.ended();
  }

  get #mayRetryLate(): boolean {
    if (!this.#retry) return false;
    const { on, methods } = this.#retry.rules;
    return on.includes("timeout") && (!methods || methods.includes(this.#method));
  }
}

// Methods that may be repeated without asking (RFC 9110, 9.2.2).
const IDEMPOTENT = new Set(["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"]);
