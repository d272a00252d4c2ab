import fc from "fast-check";
import { expect, it } from "vitest";
import { chooseArm } from "../../src/table/split.ts";

it("a rollout in steps moves each caller once, from stable to canary, and a rollback moves them back in the reverse order", () => {
  const weights = fc.uniqueArray(fc.integer({ min: 0, max: 100 }), { minLength: 2, maxLength: 12 });
  fc.assert(
    fc.property(
      fc.string(),
      weights,
      fc.array(fc.string(), { minLength: 1, maxLength: 30 }),
      (salt, steps, callers) => {
        const canaryAt = (weight: number, caller: string) => {
          const arms = [
            { name: "stable", weight: 100 - weight },
            { name: "canary", weight },
          ];
          return chooseArm(arms, salt, caller).name === "canary";
        };
        for (const caller of callers) {
          const rollout = steps.toSorted((a, b) => a - b).map((weight) => canaryAt(weight, caller));
          expect(rollout).toEqual(rollout.toSorted((a, b) => Number(a) - Number(b)));
          expect(steps.toSorted((a, b) => b - a).map((weight) => canaryAt(weight, caller))).toEqual(
            rollout.toReversed(),
          );
        }
      },
    ),
  );
});
