import fc from "fast-check";
import { expect, it } from "vitest";
import { RetryBudget } from "../../src/traffic/budget.ts";

const budget = (percent: number, minimum: number, requests = 0) => {
  const made = new RetryBudget({ percent, minimum });
  for (let i = 0; i < requests; i++) made.began();
  return made;
};
const takeAll = (from: RetryBudget, atMost = 1_000) => {
  let taken = 0;
  while (taken < atMost && from.take()) taken++;
  return taken;
};

it.each([
  ["the minimum, when there are few requests", 20, 3, 1, 3],
  ["a share of the requests, when there are more", 20, 3, 50, 10],
  ["all of them at 100 %", 100, 0, 50, 50],
  ["none at 0", 0, 0, 50, 0],
])("gives out %s", (_, percent, minimum, requests, expected) => {
  expect(takeAll(budget(percent, minimum, requests))).toBe(expected);
});

it("has the minimum again as soon as retries end", () => {
  const quiet = budget(20, 3, 1);
  for (let i = 0; i < 100; i++) {
    expect(takeAll(quiet)).toBe(3);
    for (let j = 0; j < 3; j++) quiet.release();
  }
});

it("counts the minimum's retries, too: more than those there are when the share has paid for them", () => {
  const used = budget(20, 3, 30);
  for (let i = 0; i < 20; i++) {
    expect(used.take()).toBe(true);
    used.release();
  }
  for (const [requests, expected] of [
    [70, 3],
    [15, 3],
    [45, 6],
  ] as const) {
    for (let i = 0; i < requests; i++) used.began();
    for (let i = 0; i < requests; i++) used.ended();
    const taken = takeAll(used);
    expect(taken).toBe(expected);
    for (let i = 0; i < taken; i++) used.release();
  }
});

it("keeps of quiet times one retry for each request under way, and ten", () => {
  const used = budget(20, 3, 40);
  for (let i = 0; i < 10_000; i++) {
    used.began();
    used.ended();
  }
  expect(takeAll(used)).toBe(41 + 10);
});

it("never gives out more than the share, what is under way, ten, and the minimum at each moment", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 100 }),
      fc.integer({ min: 0, max: 5 }),
      fc.array(fc.constantFrom("began", "ended", "take", "release"), { maxLength: 400 }),
      (percent, minimum, steps) => {
        const made = new RetryBudget({ percent, minimum });
        let [requests, underWay, mostUnderWay, retries, byMinimum, retrying] = [0, 0, 0, 0, 0, 0];
        for (const step of steps) {
          if (step === "began") {
            made.began();
            requests++;
            mostUnderWay = Math.max(mostUnderWay, ++underWay);
          } else if (step === "ended" && underWay > 0) {
            made.ended();
            underWay--;
          } else if (step === "release" && retrying > 0) {
            made.release();
            retrying--;
          } else if (step === "take" && made.take()) {
            retries++;
            if (retrying < minimum) byMinimum++;
            retrying++;
          }
        }
        expect(retries).toBeLessThanOrEqual((requests * percent) / 100 + byMinimum + mostUnderWay + 10 + 1e-9);
        if (minimum > 0) expect(made.take() || retrying >= minimum).toBe(true);
      },
    ),
  );
});
