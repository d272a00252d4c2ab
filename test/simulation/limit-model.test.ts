import fc from "fast-check";
import { expect, it } from "vitest";
import { argumentsOf, grantOf, lifeOf, limitScript, type UnitRule } from "../../src/policies/limit-script.ts";
import type { Admission } from "./leases.ts";
import { excess } from "./leases.ts";
import { LimitModel } from "./limit-model.ts";
import { LuaRedis } from "./lua-redis.ts";

const rule: fc.Arbitrary<UnitRule> = fc.record({
  algorithm: fc.constantFrom("fixedWindow" as const, "slidingWindow" as const, "tokenBucket" as const),
  quota: fc.oneof(fc.integer({ min: 1, max: 10 }), fc.integer({ min: 1, max: 1_000_000 })),
  window: fc.integer({ min: 1, max: 100 }).map((seconds) => seconds * 1_000),
});
const units = fc.oneof(fc.constant(0), fc.nat(5), fc.nat(100_000));
const step = fc.record({
  need: units,
  more: units,
  charge: fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, units),
  back: fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, units),
  /** To which of the windows seen so far it goes back. */
  to: fc.nat(3),
  // Also back, as after a failover, and by fractions of a millisecond.
  ms: fc.oneof(fc.nat(50), fc.integer({ min: -500, max: 150_000 }), fc.double({ min: 0, max: 3, noNaN: true })),
});

it("the model does what the script does", async () => {
  const redis = await LuaRedis.create();
  fc.assert(
    fc.property(
      rule,
      fc.boolean(),
      fc.nat(100_000_000),
      fc.array(step, { maxLength: 30 }),
      (given, monthly, start, steps) => {
        const rule: UnitRule = monthly && given.algorithm === "fixedWindow" ? { ...given, calendar: "month" } : given;
        const model = new LimitModel();
        redis.forget();
        let now = Date.UTC(2026, 10, 30) + start;
        const windows = [0];
        for (const { need, more, charge, back, to, ms } of steps) {
          now += ms;
          model.now = redis.now = now;
          const ask = {
            need: Math.min(need, rule.quota),
            want: need + more,
            charge,
            back,
            window: windows.at(-1 - to) ?? 0,
          };
          const args = argumentsOf(rule, ask, now);
          const grant = grantOf(redis.eval(limitScript.text, "key", args));
          expect(model.run("key", args)).toEqual(grant);
          windows.push(grant.window);
        }
      },
    ),
    { numRuns: 300 },
  );
});

it("grants no more than the limit, whenever who is granted units spends or returns them", () => {
  const grab = fc.record({
    /** Since the grab before, in lives of a bucket's units. */
    gap: fc.oneof(fc.double({ min: 0, max: 1.5, noNaN: true }), fc.double({ min: 0, max: 40, noNaN: true })),
    need: fc.oneof(fc.constant(0), fc.nat(3), fc.nat(200)),
    more: fc.oneof(fc.constant(0), fc.nat(3), fc.nat(300)),
    /** When the rest is spent, as a share of its life. */
    spent: fc.oneof(fc.constant(1), fc.double({ min: 0, max: 1, noNaN: true })),
    /** What is returned of the rest, and with which of the next calls. */
    returned: fc.nat(20),
    after: fc.integer({ min: 1, max: 3 }),
  });
  fc.assert(
    fc.property(
      fc.record({
        algorithm: fc.constantFrom("fixedWindow" as const, "slidingWindow" as const, "tokenBucket" as const),
        quota: fc.integer({ min: 3, max: 400 }),
        window: fc.integer({ min: 1, max: 20 }).map((seconds) => seconds * 1_000),
      }),
      fc.array(grab, { minLength: 1, maxLength: 80 }),
      (rule, grabs) => {
        const model = new LimitModel();
        model.now = Date.UTC(2026, 10, 30);
        const admissions: Admission[] = [];
        const returns = new Map<number, { back: number; window: number }>();
        for (const [i, { gap, need, more, spent, returned, after }] of grabs.entries()) {
          model.now += gap * lifeOf(rule);
          const ask = { need, want: need + more, charge: 0, back: 0, window: 0, ...returns.get(i) };
          const { granted, window, life } = model.run("key", argumentsOf(rule, ask, model.now));
          const own = Math.min(need, granted);
          const back =
            rule.algorithm === "tokenBucket" || returns.has(i + after) ? 0 : Math.min(returned, granted - own);
          if (back > 0) returns.set(i + after, { back, window });
          const late = model.now + Math.max(0, Math.ceil(spent * life) - 1);
          for (let unit = 0; unit < granted - back; unit++) {
            admissions.push({ key: 0, at: unit < own ? model.now : late });
          }
        }
        expect(excess({ admissions }, { rule })).toBeLessThanOrEqual(0);
      },
    ),
    { numRuns: 1_000 },
  );
});

it("a bucket does not fill up while what it gave out may still be spent", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 100, max: 10_000 }),
      fc.integer({ min: 5, max: 600 }),
      fc.nat(100_000),
      fc.integer({ min: 1, max: 10 }),
      (quota, seconds, phase, looks) => {
        const rule = { algorithm: "tokenBucket", quota, window: seconds * 1_000 } as const;
        const model = new LimitModel();
        const began = Date.UTC(2026, 10, 30) + phase;
        const last = began + lifeOf(rule) - 1;
        const admissions: Admission[] = [];
        /** Takes all that is there, a block at a time. */
        const takeAll = (now: number, spentAt: number) => {
          model.now = now;
          for (;;) {
            const ask = { need: 0, want: 1_000_000, charge: 0, back: 0, window: 0 };
            const { granted } = model.run("key", argumentsOf(rule, ask, now));
            if (granted === 0) return;
            for (let unit = 0; unit < granted; unit++) admissions.push({ key: 0, at: spentAt });
          }
        };
        takeAll(began, last);
        for (let look = 1; look <= looks; look++) takeAll(began + ((last - began) * look) / looks, last);
        takeAll(last + 2, last + 2);
        expect(admissions.length).toBeGreaterThanOrEqual(quota);
        expect(excess({ admissions }, { rule })).toBeLessThanOrEqual(0);
      },
    ),
  );
});
