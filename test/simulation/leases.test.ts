/**
 * The laws of leased counting (docs/limits.md) over a fleet in virtual time. fast-check draws new seeds on each run, and prints the
 * one of a counterexample.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Algorithm } from "../../src/policies/limit-script.ts";
import { excess, type FleetScenario, simulateFleet, utilisation } from "./leases.ts";

const algorithms = ["fixedWindow", "slidingWindow", "tokenBucket"] as const;
const algorithm = fc.constantFrom<Algorithm>(...algorithms);

/** What the fleet has to live with. */
const TROUBLE = { clockSkew: 250, drift: 0.0002, dying: 0.05, latency: [2, 8], lost: 0.005 } as const;

describe("the fleet never admits more than the limit", () => {
  it("whatever the limit, the load, the clocks and the network", { timeout: 120_000 }, async () => {
    const scenario: fc.Arbitrary<FleetScenario> = fc
      .record({
        seed: fc.nat(),
        algorithm,
        quota: fc.oneof(fc.integer({ min: 3, max: 30 }), fc.integer({ min: 3, max: 3_000 })),
        seconds: fc.integer({ min: 1, max: 30 }),
        windows: fc.integer({ min: 2, max: 6 }),
        isolates: fc.integer({ min: 1, max: 40 }),
        keys: fc.integer({ min: 1, max: 5 }),
        /** Requests, as a multiple of what one key is allowed. */
        load: fc.double({ min: 0.3, max: 6, noNaN: true }),
        burst: fc.record({
          every: fc.double({ min: 0.1, max: 3, noNaN: true }),
          last: fc.double({ min: 0.01, max: 0.3, noNaN: true }),
          factor: fc.constantFrom(1, 3, 30),
        }),
        skew: fc.double({ min: 0, max: 2, noNaN: true }),
        cost: fc.constantFrom(1, 1, 2, 3),
        clockSkew: fc.constantFrom(0, 250, 100_000),
        drift: fc.constantFrom(0, 0.0002, 0.0009),
        dying: fc.constantFrom(0, 0.05, 0.5),
        latency: fc.constantFrom([0, 1], [2, 8], [30, 90], [1, 300]),
        lost: fc.constantFrom(0, 0.005, 0.1),
        timeout: fc.constantFrom(100, 500, 5_000),
      })
      .map(({ quota, seconds, windows, load, latency, burst, ...given }) => ({
        ...given,
        bursts: {
          every: burst.every * seconds * 1_000,
          last: burst.every * burst.last * seconds * 1_000,
          factor: burst.factor,
        },
        rule: { algorithm: given.algorithm, quota, window: seconds * 1_000 },
        duration: windows * seconds * 1_000,
        rate: Math.min(
          (load * quota) / seconds / given.cost,
          2_500 / (windows * seconds) / (1 + burst.last * burst.factor),
        ),
        latency: latency as [number, number],
      }));
    await fc.assert(
      fc.asyncProperty(scenario, async (scenario) => {
        expect(excess(await simulateFleet(scenario), scenario)).toBeLessThanOrEqual(0);
      }),
      { numRuns: 60 },
    );
  });

  it.each(algorithms)("with 500 isolates, and admits 97 % of it at steady load: %s", async (algorithm) => {
    await fc.assert(
      fc.asyncProperty(fc.nat(), async (seed) => {
        const rule = { algorithm, quota: 1_000, window: 10_000 };
        const scenario = { ...TROUBLE, seed, rule, duration: 30_000, isolates: 500, rate: 2_000, keys: 100, skew: 1 };
        const report = await simulateFleet(scenario);
        expect(report.requests).toBeGreaterThan(50_000);
        expect(excess(report, scenario)).toBeLessThanOrEqual(0);
        const { all, limited } = utilisation(report, scenario);
        expect(Math.min(all, limited)).toBeGreaterThan(0.97);
        expect(Math.max(all, limited)).toBeLessThan(1.01);
      }),
      { numRuns: 2 },
    );
  });
});

describe("a hot key", () => {
  // Four isolates, a hundred requests a second each: of 40,000 a minute, all or a tenth or a hundredth may pass.
  it.each(algorithms.flatMap((algorithm) => [50_000, 4_000, 400].map((quota) => [algorithm, quota] as const)))(
    "costs less than a call per 20 requests: %s of %i a minute",
    async (algorithm, quota) => {
      const rule = { algorithm, quota, window: 60_000 };
      const scenario = { ...TROUBLE, seed: 7, rule, duration: 120_000, isolates: 4, rate: 400, keys: 1, skew: 0 };
      const report = await simulateFleet({ ...scenario, dying: 0 });
      expect(excess(report, scenario)).toBeLessThanOrEqual(0);
      expect(utilisation(report, scenario).all).toBeGreaterThan(0.97);
      expect(report.calls[0]).toBeLessThan(report.requests / 20);
    },
  );

  it.each(algorithms)(
    "adds nothing to the latency of 99 %% at 1,000 requests a second, once it is warm: %s",
    async (algorithm) => {
      const rule = { algorithm, quota: 100_000, window: 60_000 };
      const scenario = { ...TROUBLE, seed: 7, rule, duration: 90_000, isolates: 1, rate: 1_000, keys: 1, skew: 0 };
      const { waits, requests } = await simulateFleet({ ...scenario, dying: 0 });
      const warm = waits.filter(({ at }) => at > 1_000);
      expect(warm.length).toBeLessThan(requests / 100);
      // Those are at the turn of the minute, or wait for a reply that was lost.
      expect(waits.length).toBeLessThan(requests / 100);
      for (const { ms } of waits) expect(ms).toBeLessThanOrEqual(501);
    },
  );
});

describe("a key that is asked for now and then", () => {
  it.each(algorithms)("costs a call per request, and strands nothing: %s", async (algorithm) => {
    const rule = { algorithm, quota: 1_000, window: 60_000 };
    // Each of 500 isolates has a request every 25 s; all together have 1,200 a minute.
    const scenario = { seed: 7, rule, duration: 120_000, isolates: 500, rate: 20, keys: 1, skew: 0 };
    const report = await simulateFleet(scenario);
    expect(report.calls[0]).toBeLessThanOrEqual(report.requests);
    expect(utilisation(report, scenario).all).toBeGreaterThan(0.99);
    expect(excess(report, scenario)).toBeLessThanOrEqual(0);
  });
});

it("the seed decides everything", async () => {
  const rule = { algorithm: "slidingWindow", quota: 100, window: 1_000 } as const;
  const run = (seed: number) =>
    simulateFleet({ ...TROUBLE, seed, rule, duration: 3_000, isolates: 20, rate: 500, keys: 3, skew: 1 });
  expect(await run(7)).toEqual(await run(7));
  expect(await run(8)).not.toEqual(await run(7));
});
