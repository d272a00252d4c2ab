import fc from "fast-check";
import { expect, it } from "vitest";
import { MINIMUM_PER, RetryBudget } from "../../src/traffic/budget.ts";

const NOW = Date.UTC(2026, 0, 1);
const RESERVE = 10;
const budget = (percent: number, minimum: number, requests = 0) => {
  const made = new RetryBudget({ percent, minimum });
  for (let i = 0; i < requests; i++) made.began();
  return made;
};
const takeAll = (from: RetryBudget, now = NOW, atMost = 1_000) => {
  let taken = 0;
  while (taken < atMost && from.take(now)) taken++;
  return taken;
};

it.each([
  ["the minimum, when there are few requests", 20, 3, 1, 3],
  ["a share of the requests as well, when there are more", 20, 3, 50, 3 + 10],
  ["all of them at 100 %", 100, 3, 50, 3 + 50],
  ["the minimum alone at 0 %", 0, 3, 50, 3],
  ["none at 0 % without a minimum", 0, 0, 50, 0],
])("gives out %s", (_, percent, minimum, requests, expected) => {
  expect(takeAll(budget(percent, minimum, requests))).toBe(expected);
});

it("has the minimum again when ten seconds are over, not before", () => {
  const quiet = budget(20, 3, 1);
  takeAll(quiet);
  for (let i = 1; i < 100; i++) {
    expect(takeAll(quiet, NOW + i * MINIMUM_PER - MINIMUM_PER / 5)).toBe(0);
    expect(takeAll(quiet, NOW + i * MINIMUM_PER)).toBe(3);
  }
});

it("has the minimum within the share: what the share has given counts for both", () => {
  const busy = budget(20, 3);
  takeAll(busy);
  let taken = 0;
  for (let i = 1; i <= 1_000; i++) {
    busy.began();
    taken += takeAll(busy, NOW + i * 100);
    busy.ended();
  }
  expect(taken).toBe(200);
});

it("holds nothing of a quiet night against the morning", () => {
  const used = budget(20, 3);
  for (let night = 0; night < 100; night++) {
    used.began();
    takeAll(used, NOW + night * MINIMUM_PER);
    used.ended();
  }
  for (let i = 0; i < 10; i++) used.began();
  expect(takeAll(used, NOW + 100 * MINIMUM_PER)).toBe(3);
  for (let i = 0; i < 50; i++) used.began();
  expect(takeAll(used, NOW + 100 * MINIMUM_PER)).toBeGreaterThanOrEqual(8);
});

it("keeps of quiet times one retry for each request under way, and ten", () => {
  const used = budget(20, 3, 40);
  for (let i = 0; i < 10_000; i++) {
    used.began();
    used.ended();
  }
  expect(takeAll(used)).toBe(41 + RESERVE);
});

it("never gives out more than the share, what was under way, ten, and the minimum in each ten seconds", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 100 }),
      fc.integer({ min: 0, max: 5 }),
      fc.array(fc.constantFrom("began", "ended", "take", "wait"), { maxLength: 400 }),
      (percent, minimum, steps) => {
        const made = new RetryBudget({ percent, minimum });
        let [requests, underWay, mostUnderWay, now] = [0, 0, 0, NOW];
        const retries: number[] = [];
        for (const step of steps) {
          if (step === "began") {
            made.began();
            requests++;
            mostUnderWay = Math.max(mostUnderWay, ++underWay);
          } else if (step === "ended" && underWay > 0) {
            made.ended();
            underWay--;
          } else if (step === "wait") now += MINIMUM_PER / 10;
          else if (step === "take" && made.take(now)) retries.push(now);
        }
        const paid = (requests * percent) / 100 + mostUnderWay + RESERVE;
        // A window is at least nine tenths of its length.
        const windows = Math.ceil((now - NOW + 1) / (MINIMUM_PER * 0.9));
        expect(retries.length).toBeLessThanOrEqual(paid + minimum * windows + 1e-9);
        const recently = retries.filter((at) => at > now - MINIMUM_PER).length;
        if (recently < minimum) expect(made.take(now)).toBe(true);
      },
    ),
  );
});
