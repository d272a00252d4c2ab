import fc from "fast-check";
import { expect, it } from "vitest";
import { RollingCounts } from "../../src/traffic/rolling-counts.ts";

it("counts what lies between nine tenths of the window and all of it", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 10, max: 60_000 }),
      fc.array(fc.tuple(fc.integer({ min: 0, max: 20_000 }), fc.boolean()), { minLength: 1, maxLength: 200 }),
      (length, steps) => {
        const counts = new RollingCounts(length);
        const seen: { at: number; failed: boolean }[] = [];
        let now = 1_800_000_000_000;
        for (const [later, failed] of steps) {
          now += later;
          seen.push({ at: now, failed });
          counts.add(failed, now);
          const within = (share: number) => seen.filter(({ at }) => at > now - length * share);
          expect(counts.all).toBeGreaterThanOrEqual(within(0.9).length);
          expect(counts.all).toBeLessThanOrEqual(within(1).length);
          expect(counts.failed).toBeGreaterThanOrEqual(within(0.9).filter(({ failed }) => failed).length);
          expect(counts.failed).toBeLessThanOrEqual(within(1).filter(({ failed }) => failed).length);
        }
      },
    ),
  );
});

it("takes a clock that goes back for one that stands still", () => {
  const counts = new RollingCounts(1_000);
  counts.add(true, 50_000);
  counts.add(false, 20_000);
  expect([counts.all, counts.failed]).toEqual([2, 1]);
});
