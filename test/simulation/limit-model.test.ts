import fc from "fast-check";
import { expect, it } from "vitest";
import { argumentsOf, grantOf, limitScript, type UnitRule } from "../../src/policies/limit-script.ts";
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
