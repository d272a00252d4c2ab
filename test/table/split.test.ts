import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { chooseArm, hash32 } from "../../src/table/split.ts";

const arms = (weights: Record<string, number>) => Object.entries(weights).map(([name, weight]) => ({ name, weight }));
const keys = (count: number, of = "user") => Array.from({ length: count }, (_, i) => `${of}-${i}`);
const shares = (weights: Record<string, number>, among: string[], salt = "orders/list") => {
  const count: Record<string, number> = Object.fromEntries(Object.keys(weights).map((name) => [name, 0]));
  for (const key of among)
    count[chooseArm(arms(weights), salt, key).name] = (count[chooseArm(arms(weights), salt, key).name] ?? 0) + 1;
  return count;
};

describe("chooseArm", () => {
  it.each(["user", "https://login.example.com|", "1000", "a-very-long-key-of-one-and-the-same-beginning-"])(
    "gives 10,000 %s keys at 90/10 within the binomial bound",
    (kind) => {
      const { canary = 0 } = shares({ stable: 90, canary: 10 }, keys(10_000, kind));
      // Four standard deviations of Binomial(10000, 0.1): wrong once in 16,000 draws of honest keys.
      expect(Math.abs(canary - 1_000)).toBeLessThan(4 * Math.sqrt(10_000 * 0.1 * 0.9));
    },
  );

  it("never sends anybody to an arm of weight 0", () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (salt, key) => {
        expect(chooseArm(arms({ off: 0, on: 1, out: 0 }), salt, key).name).toBe("on");
      }),
    );
  });

  it("only ever adds to an arm whose weight is raised, also among three", () => {
    fc.assert(
      fc.property(
        fc.string(),
        fc.tuple(fc.integer({ min: 1, max: 100 }), fc.integer({ min: 0, max: 100 }), fc.integer({ min: 0, max: 100 })),
        fc.integer({ min: 1, max: 50 }),
        (salt, [a, b, c], more) => {
          for (const key of keys(50)) {
            const before = chooseArm(arms({ a, b, c }), salt, key).name;
            const after = chooseArm(arms({ a, b: b + more, c }), salt, key).name;
            if (after !== before) expect(after).toBe("b");
          }
        },
      ),
    );
  });

  it("does not depend on the order of the arms", () => {
    for (const key of keys(500)) {
      expect(chooseArm(arms({ a: 3, b: 2, c: 1 }), "s", key).name).toBe(
        chooseArm(arms({ c: 1, b: 2, a: 3 }), "s", key).name,
      );
    }
  });

  it("draws anew for another salt", () => {
    const both = keys(10_000).filter(
      (key) =>
        chooseArm(arms({ stable: 90, canary: 10 }), "one", key).name === "canary" &&
        chooseArm(arms({ stable: 90, canary: 10 }), "two", key).name === "canary",
    );
    // Independent draws: 1 % are in both.
    expect(both.length).toBeGreaterThan(50);
    expect(both.length).toBeLessThan(160);
  });
});

it("hash32 is spread over all 32 bits", () => {
  const ones = Array.from({ length: 32 }, (_, bit) => keys(4_000).filter((key) => (hash32(key) >>> bit) & 1).length);
  for (const count of ones) expect(Math.abs(count - 2_000)).toBeLessThan(4 * Math.sqrt(1_000));
});
