import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { TableBreaker } from "../../src/table/table.ts";
import { CircuitBreaker } from "../../src/traffic/breaker.ts";
import type { Outcome } from "../../src/traffic/outcome.ts";
import { BREAKER } from "./defaults.ts";

const START = 1_800_000_000_000;
const record = (breaker: CircuitBreaker, outcomes: readonly Outcome[], at: number) => {
  for (const outcome of outcomes) breaker.record(outcome, at, at);
};
const times = (count: number, outcome: Outcome): Outcome[] => Array(count).fill(outcome);
const opened = (options: Partial<TableBreaker> = {}) => {
  const breaker = new CircuitBreaker({ ...BREAKER, ...options });
  record(breaker, times(20, 503), START);
  return breaker;
};

describe("closed", () => {
  it.each<[string, Outcome[], boolean]>([
    ["opens at half of 20", [...times(10, 200), ...times(10, 500)], true],
    ["not at fewer than half", [...times(11, 200), ...times(9, 500)], false],
    ["not below the minimum volume", times(19, 500), false],
    ["takes no answer and none in time for failures", [...times(10, "connection"), ...times(10, "timeout")], true],
    ["does not count clients that went away", [...times(19, "cancelled"), 500], false],
    ["does not count what clients did wrong", times(40, 429), false],
  ])("%s", (_, outcomes, opens) => {
    const breaker = new CircuitBreaker(BREAKER);
    record(breaker, outcomes, START);
    expect(breaker.admit(START, 0) > 0).toBe(opens);
  });

  it("forgets what has left the window", () => {
    const breaker = new CircuitBreaker(BREAKER);
    record(breaker, times(19, 500), START);
    record(breaker, times(10, 500), START + BREAKER.window);
    expect(breaker.admit(START + BREAKER.window, 0)).toBe(0);
  });
});

it("open: admits nothing, and says for how long", () => {
  const breaker = opened();
  for (const after of [0, 1, 9_999]) expect(breaker.admit(START + after, 0)).toBe(10_000 - after);
});

it("open: is not prolonged by what ends meanwhile", () => {
  const breaker = opened();
  for (let i = 0; i < 40; i++) breaker.record(500, START, START + 5_000);
  expect(breaker.admit(START + BREAKER.open, 0.999)).toBe(0);
});

it("does not hold against it what it opened for, however long the window is", () => {
  const breaker = opened({ open: 1_000, recovery: 1_000 });
  breaker.admit(START + 1_000, 0);
  record(breaker, [...times(20, 200), 500], START + 2_000);
  expect(breaker.admit(START + 2_000, 0.999)).toBe(0);
});

describe("recovering", () => {
  it("lets the first request pass, then a share that rises evenly to all", () => {
    fc.assert(
      fc.property(
        fc.nat(60_000),
        fc.integer({ min: 0, max: 10_000 }),
        fc.double({ min: 0, max: 0.999 }),
        (idle, elapsed, draw) => {
          const breaker = opened();
          const first = START + BREAKER.open + idle;
          expect(breaker.admit(first, 0.999)).toBe(0);
          const wait = breaker.admit(first + elapsed, draw);
          expect(wait === 0).toBe(draw * BREAKER.recovery < elapsed || elapsed >= BREAKER.recovery);
          if (wait > 0) expect(breaker.admit(first + elapsed + wait, 0.999)).toBe(0);
        },
      ),
    );
  });

  it("opens again when the first fails, without a minimum volume", () => {
    const breaker = opened();
    const first = START + BREAKER.open;
    breaker.admit(first, 0.5);
    breaker.record("timeout", first, first + 40);
    expect(breaker.admit(first + 40, 0)).toBe(BREAKER.open);
  });

  it("survives failures that are fewer than the threshold", () => {
    const breaker = opened();
    const first = START + BREAKER.open;
    breaker.admit(first, 0.5);
    record(breaker, [200, 200, 500, 200, 500], first);
    expect(breaker.admit(first + 1, 0)).toBe(0);
    expect(breaker.admit(first + BREAKER.recovery, 0.999)).toBe(0);
  });

  it("does not go by what was sent before it opened", () => {
    const breaker = opened();
    const first = START + BREAKER.open;
    breaker.admit(first, 0.5);
    breaker.record("timeout", START - 5_000, first + 1);
    expect(breaker.admit(first + BREAKER.recovery, 0.999)).toBe(0);
  });

  it("asks for the minimum volume again once it is over, also if nobody came", () => {
    const breaker = opened();
    const first = START + BREAKER.open;
    breaker.admit(first, 0.5);
    breaker.record(500, first + BREAKER.recovery, first + BREAKER.recovery);
    expect(breaker.admit(first + BREAKER.recovery, 0.999)).toBe(0);
  });
});
