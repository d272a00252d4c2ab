import { expect, it } from "vitest";
import type { TableRetry } from "../../src/table/table.ts";
import { RetryBudget } from "../../src/traffic/budget.ts";
import { decideRetry, LONGEST_RETRY_AFTER, type TryFacts } from "../../src/traffic/retry.ts";
import { RETRY } from "./defaults.ts";

const FACTS: TryFacts = { method: "GET", replayable: true, tries: 1, outcome: 503, remaining: 60_000, now: 0 };
const decide = (facts: Partial<TryFacts>, retry: Partial<TableRetry> = {}, budget = new RetryBudget(RETRY.budget)) =>
  decideRetry({ ...RETRY, ...retry }, { ...FACTS, ...facts }, budget, () => 0.5);
const { methods: _, ...ANY_METHOD } = RETRY;

it.each<[string, Partial<TryFacts>, ReturnType<typeof decide>]>([
  ["a 503", {}, { after: 12.5 }],
  ["no answer", { outcome: "connection" }, { after: 12.5 }],
  ["the second retry, after twice the time", { tries: 2 }, { after: 25 }],
  ["no third one", { tries: 3 }, { not: "attempts" }],
  ["a success", { outcome: 200 }, { not: "outcome" }],
  ["a status that is not in the list", { outcome: 500 }, { not: "outcome" }],
  ["a timeout, which is not in the list", { outcome: "timeout" }, { not: "outcome" }],
  ["a client that went away", { outcome: "cancelled" }, { not: "outcome" }],
  ["a POST", { method: "POST" }, { not: "method" }],
  ["a body that has been streamed", { replayable: false }, { not: "body" }],
  ["a Retry-After, which is waited for", { retryAfter: 2_000 }, { after: 2_000 }],
  ["one that is shorter than the backoff", { retryAfter: 0 }, { after: 12.5 }],
  ["one that is too long to wait", { retryAfter: LONGEST_RETRY_AFTER + 1 }, { not: "retry-after" }],
  ["no time left", { remaining: 12.5 }, { not: "time" }],
  ["no time left after the Retry-After", { remaining: 1_500, retryAfter: 2_000 }, { not: "time" }],
  ["no total timeout", { remaining: Number.POSITIVE_INFINITY }, { after: 12.5 }],
])("%s", (_, facts, verdict) => {
  expect(decide(facts)).toEqual(verdict);
});

it("any method, where none are named", () => {
  expect(decideRetry(ANY_METHOD, { ...FACTS, method: "POST" }, new RetryBudget(RETRY.budget), () => 0)).toEqual({
    after: 0,
  });
});

it("takes from the budget when it says yes, and only then", () => {
  const budget = new RetryBudget({ percent: 0, minimum: 1 });
  decide({ method: "POST" }, {}, budget);
  decide({ remaining: 1 }, {}, budget);
  expect(decide({}, {}, budget)).toEqual({ after: 12.5 });
  expect(decide({}, {}, budget)).toEqual({ not: "budget" });
});
