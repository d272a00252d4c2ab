import type { TableRetry } from "../table/table.ts";
import { backoffBefore } from "./backoff.ts";
import type { RetryBudget } from "./budget.ts";
import type { Outcome } from "./outcome.ts";

/** What is known after a try. */
export interface TryFacts {
  /** In upper case. */
  readonly method: string;
  /** There is no body, or it is held in memory. */
  readonly replayable: boolean;
  /** Tries so far, the first included. */
  readonly tries: number;
  readonly outcome: Outcome;
  /** What the answer's Retry-After asks for, in milliseconds (backoff.ts). */
  readonly retryAfter?: number | undefined;
  /** Milliseconds until the route's total timeout; Infinity: there is none. */
  readonly remaining: number;
  readonly now: number;
}

/** The condition of a retry that is not met. */
export type NotRetried = "outcome" | "method" | "body" | "attempts" | "retry-after" | "time" | "budget";

/** Again after so many milliseconds; or not, and why. Then the answer at hand is given. */
export type RetryVerdict = { readonly after: number } | { readonly not: NotRetried };

/**
 * A Retry-After beyond this many milliseconds is left to the client, who gets the answer with that header: nobody's request is kept
 * open for longer. Ten seconds is how long a person waits before turning away (Nielsen, "Usability Engineering", chapter 5).
 */
export const LONGEST_RETRY_AFTER = 10_000;

/** Whether to try again. When it says so, one retry has been taken from the budget. */
export function decideRetry(
  retry: TableRetry,
  facts: TryFacts,
  budget: RetryBudget,
  random: () => number,
): RetryVerdict {
  const { outcome, retryAfter = 0 } = facts;
  if (outcome === "cancelled" || !retry.on.includes(outcome)) return { not: "outcome" };
  if (retry.methods && !retry.methods.includes(facts.method)) return { not: "method" };
  if (!facts.replayable) return { not: "body" };
  if (facts.tries > retry.attempts) return { not: "attempts" };
  if (retryAfter > LONGEST_RETRY_AFTER) return { not: "retry-after" };
  const after = Math.max(backoffBefore(facts.tries, retry.backoff, random), retryAfter);
  if (after >= facts.remaining) return { not: "time" };
  // Last, since it is the one that takes.
  return budget.take(facts.now) ? { after } : { not: "budget" };
}
