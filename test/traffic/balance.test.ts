import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { hash32 } from "../../src/table/split.ts";
import { atRandom, byHash, byLeastRequests, type Candidate, inTurn } from "../../src/traffic/balance.ts";
import { seededRandom } from "../simulation/random.ts";

interface Named extends Candidate {
  readonly name: string;
  readonly endpoint: { active: number; hash: number };
}
const candidates = (weights: Record<string, number>): Named[] =>
  Object.entries(weights).map(([name, weight]) => ({
    name,
    weight,
    credit: 0,
    endpoint: { active: 0, hash: hash32(name) },
  }));
const count = (names: readonly string[]) => {
  const counts: Record<string, number> = {};
  for (const name of names) counts[name] = (counts[name] ?? 0) + 1;
  return counts;
};
const repeat = (times: number, choose: (i: number) => Named) => Array.from({ length: times }, (_, i) => choose(i).name);

describe("in turn", () => {
  it("is as even as nginx's: 5, 1, 1", () => {
    const abc = candidates({ a: 5, b: 1, c: 1 });
    expect(repeat(7, () => inTurn(abc, 3)).join("")).toBe("aabacaa");
  });

  it("gives each exactly its weight in every cycle, wherever it begins", () => {
    const weights = fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(weights, fc.nat(200), (list, offset) => {
        const all = candidates(Object.fromEntries(list.map((weight, i) => [`e${i}`, weight])));
        const cycle = list.reduce((sum, weight) => sum + weight, 0);
        for (let i = 0; i < offset; i++) inTurn(all, all.length);
        expect(count(repeat(cycle, () => inTurn(all, all.length)))).toEqual(
          Object.fromEntries(all.map(({ name, weight }) => [name, weight])),
        );
      }),
    );
  });

  it("looks at the first `count` only", () => {
    const abc = candidates({ a: 1, b: 1, c: 100 });
    expect(count(repeat(10, () => inTurn(abc, 2)))).toEqual({ a: 5, b: 5 });
  });
});

describe("by least requests", () => {
  it("keeps to the weights while there is nothing to do", () => {
    const ab = candidates({ a: 3, b: 1 });
    const random = seededRandom(1);
    const { a = 0 } = count(repeat(10_000, () => byLeastRequests(ab, 2, random)));
    expect(Math.abs(a - 7_500)).toBeLessThan(4 * Math.sqrt(10_000 * 0.75 * 0.25));
  });

  it("of two, always takes the one with fewer under way for its weight", () => {
    fc.assert(
      fc.property(
        fc.nat(50),
        fc.nat(50),
        fc.integer({ min: 1, max: 9 }),
        fc.integer({ min: 1, max: 9 }),
        fc.nat(),
        (m, n, v, w, seed) => {
          const ab = candidates({ a: v, b: w });
          (ab[0] as Named).endpoint.active = m;
          (ab[1] as Named).endpoint.active = n;
          const { name } = byLeastRequests(ab, 2, seededRandom(seed));
          if (m / v < n / w) expect(name).toBe("a");
          if (m / v > n / w) expect(name).toBe("b");
        },
      ),
    );
  });

  it("never takes the busiest of three", () => {
    const abc = candidates({ a: 1, b: 1, c: 1 });
    (abc[2] as Named).endpoint.active = 5;
    const random = seededRandom(2);
    expect(Object.keys(count(repeat(2_000, () => byLeastRequests(abc, 3, random)))).sort()).toEqual(["a", "b"]);
  });
});

it("at random: by weight", () => {
  const ab = candidates({ a: 1, b: 9 });
  const random = seededRandom(3);
  const { a = 0 } = count(repeat(10_000, () => atRandom(ab, 2, random)));
  expect(Math.abs(a - 1_000)).toBeLessThan(4 * Math.sqrt(10_000 * 0.1 * 0.9));
});

describe("by hash", () => {
  const keys = (among: Named[], total = 10_000) =>
    repeat(total, (i) => byHash(among, among.length, hash32(`user ${i}`)));

  it("gives each its share of the keys", () => {
    const all = candidates({ a: 1, b: 2, c: 1, d: 4 });
    const counts = count(keys(all));
    for (const { name, weight } of all) {
      const share = weight / 8;
      expect(Math.abs((counts[name] ?? 0) - 10_000 * share)).toBeLessThan(4 * Math.sqrt(10_000 * share * (1 - share)));
    }
  });

  it("moves the keys of the one that leaves, and no others, and all of them back", () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.string(), { minLength: 2, maxLength: 8 }), fc.nat(), (names, pick) => {
        const all = candidates(Object.fromEntries(names.map((name, i) => [`${name}/${i}`, 1 + (i % 3)])));
        const leaving = all[pick % all.length] as Named;
        const before = keys(all, 200);
        const after = keys(
          all.filter((one) => one !== leaving),
          200,
        );
        before.forEach((name, i) => {
          if (name !== leaving.name) expect(after[i]).toBe(name);
          else expect(after[i]).not.toBe(name);
        });
        expect(keys(all, 200)).toEqual(before);
      }),
    );
  });
});
