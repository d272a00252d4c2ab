/**
 * What must hold of the algorithms with memory when they work together, over many seeds. Where a law holds always, fast-check draws
 * anew on each run and prints the counterexample with its seed; where it holds on average only, the seeds are fixed.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { TablePool } from "../../src/table/table.ts";
import { BREAKER, OUTLIER, RETRY } from "../traffic/defaults.ts";
import {
  type Attempt,
  always,
  exponential,
  type Fault,
  REFUSAL_MS,
  type Scenario,
  Simulation,
  simulate,
} from "./simulator.ts";

const seed = fc.nat();
const times = <T>(count: number, make: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => make(i));
const balanced = (count: number, by: TablePool["levels"][0]["by"]): TablePool => ({
  levels: [{ backends: times(count, (i) => i), by }],
});
const by = fc.constantFrom("round-robin" as const, "least-request" as const, { hash: "subject" as const });

/** Any trouble within the first 20 seconds. */
const fault: fc.Arbitrary<Fault> = fc
  .tuple(
    fc.nat(20_000),
    fc.nat(20_000),
    fc.oneof(
      fc.constant({ kind: "down" as const }),
      fc.record({ kind: fc.constant("slow" as const), factor: fc.integer({ min: 2, max: 50 }) }),
      fc.record({
        kind: fc.constant("errors" as const),
        share: fc.double({ min: 0, max: 1, noNaN: true }),
        status: fc.constantFrom(500, 503),
      }),
    ),
  )
  .map(([a, b, what]) => ({ from: Math.min(a, b), to: Math.max(a, b), ...what }));

describe("ejection", () => {
  it("comes with the fifth failure in a row, ends when its time is over, and does not come to who is well", () => {
    fc.assert(
      fc.property(
        seed,
        by,
        fc.integer({ min: 2, max: 8 }),
        fc.integer({ min: 1_000, max: 8_000 }),
        (seed, by, count, lasts) => {
          const outlier = { ...OUTLIER, baseEjectionTime: 2_000, maxEjectionTime: 6_000 };
          let inARow = 0;
          let isOut = false;
          let everEjected = false;
          let triesAtTheEnd = 0;
          const end = lasts + 1_000 + outlier.maxEjectionTime;
          simulate({
            seed,
            duration: end + 4_000,
            clients: [{ rate: 100 * count, keys: 100 }],
            endpoints: times(count, (i) => ({
              cluster: { outlier },
              latency: exponential(10),
              ...(i === 0 && { faults: [{ kind: "down", from: 1_000, to: 1_000 + lasts }] }),
            })),
            pool: balanced(count, by),
            observer: {
              tryBegins({ endpoint }, now) {
                if (endpoint === 0 && now > end) triesAtTheEnd++;
              },
              tryEnds({ endpoint, outcome }, _, simulation) {
                const ejected = simulation.ejected();
                if (ejected.some((other) => other !== 0)) expect(ejected).toEqual([0]);
                if (endpoint !== 0) return;
                if (outcome !== "connection") inARow = 0;
                else if (ejected.length === 0) expect(++inARow).toBeLessThan(5);
                else {
                  if (!isOut) expect(inARow).toBe(4);
                  everEjected = true;
                  inARow = 0;
                }
                isOut = ejected.length > 0;
              },
            },
          });
          expect(everEjected).toBe(true);
          expect(triesAtTheEnd).toBeGreaterThan(100);
        },
      ),
      { numRuns: 30 },
    );
  });

  it("never takes more out than maxEjectionPercent, but for the one that always may be, whatever goes wrong", () => {
    fc.assert(
      fc.property(
        seed,
        by,
        fc.integer({ min: 0, max: 100 }),
        fc.array(fc.array(fault, { maxLength: 3 }), { minLength: 1, maxLength: 8 }),
        (seed, by, maxEjectionPercent, faults) => {
          const outlier = { ...OUTLIER, maxEjectionPercent, baseEjectionTime: 3_000 };
          const most = Math.max(faults.length > 1 ? 1 : 0, Math.floor((faults.length * maxEjectionPercent) / 100));
          simulate({
            seed,
            duration: 20_000,
            clients: [{ rate: 100, keys: 20 }],
            endpoints: faults.map((faults) => ({ cluster: { outlier }, latency: exponential(20), faults })),
            pool: balanced(faults.length, by),
            retry: RETRY,
            firstByte: 300,
            observer: {
              tryEnds(_, __, simulation) {
                expect(simulation.ejected().length).toBeLessThanOrEqual(most);
              },
            },
          });
        },
      ),
      { numRuns: 50 },
    );
  });

  it("takes out who has become ten times slower than the timeout allows, and lets it back in", () => {
    const triesPerSecond = new Uint32Array(60);
    const slow: Fault = { kind: "slow", factor: 10, from: 10_000, to: 20_000 };
    const { failed } = simulate({
      seed: 1,
      duration: 60_000,
      clients: [{ rate: 300 }],
      endpoints: times(3, (i) => ({
        cluster: { outlier: { ...OUTLIER, baseEjectionTime: 5_000 } },
        latency: always(20),
        ...(i === 0 && { faults: [slow] }),
      })),
      retry: { ...RETRY, on: ["timeout"] },
      firstByte: 100,
      observer: {
        tryBegins({ endpoint }, now) {
          if (endpoint === 0) (triesPerSecond[Math.floor(now / 1_000)] as number)++;
        },
      },
    });
    expect(triesPerSecond[5]).toBeGreaterThan(80);
    // Half a second until the fifth has timed out, and with the next ones as long once more after each ejection.
    expect(triesPerSecond.slice(11, 15).reduce((sum, n) => sum + n)).toBe(0);
    expect(triesPerSecond[50]).toBeGreaterThan(80);
    expect(failed).toBe(0);
  });
});

it("panic: below the threshold all are asked, else those that are healthy", () => {
  fc.assert(
    fc.property(
      seed,
      fc.integer({ min: 1, max: 100 }),
      fc.array(fc.boolean(), { minLength: 1, maxLength: 10 }),
      (seed, panicThreshold, healthy) => {
        const simulation = new Simulation({
          seed,
          duration: 10_000,
          clients: [{ rate: 100 }],
          endpoints: healthy.map(() => ({ cluster: { outlier: { ...OUTLIER, panicThreshold } }, latency: always(5) })),
        });
        healthy.forEach((is, i) => {
          simulation.setHealth(i, is);
        });
        const share = (healthy.filter(Boolean).length * 100) / healthy.length;
        const all = share < panicThreshold;
        expect(simulation.run().tries.map((tries) => tries > 0)).toEqual(healthy.map((is) => is || all));
      },
    ),
  );
});

describe("retries", () => {
  it("never go to who has just failed while another is in", () => {
    fc.assert(
      fc.property(
        seed,
        by,
        fc.array(fc.array(fault, { maxLength: 3 }), { minLength: 1, maxLength: 5 }),
        fc.boolean(),
        (seed, by, faults, inLevels) => {
          const last = new Map<number, number>();
          const chain = { levels: faults.map((_, i) => ({ backends: [i], by: "round-robin" as const })) };
          simulate({
            seed,
            duration: 20_000,
            clients: [{ rate: 50, keys: 20 }],
            endpoints: faults.map((faults) => ({
              cluster: { outlier: { ...OUTLIER, maxEjectionPercent: 50 } },
              latency: exponential(20),
              faults,
            })),
            pool: inLevels ? chain : balanced(faults.length, by),
            retry: { ...RETRY, attempts: 4, on: ["connection", "timeout", 500, 503] },
            firstByte: 300,
            observer: {
              tryBegins({ request, endpoint, tries }, _, simulation) {
                const before = last.get(request);
                last.set(request, endpoint);
                if (tries === 1 || before !== endpoint) return;
                const out = simulation.ejected();
                expect(faults.flatMap((_, i) => (i === endpoint || out.includes(i) ? [] : i))).toEqual([]);
              },
            },
          });
        },
      ),
      { numRuns: 50 },
    );
  });

  it("of a storm reach the endpoints as 1.2 times the requests, and some that are no more however long it lasts", () => {
    let alone = 0;
    fc.assert(
      fc.property(
        fc.oneof(fc.integer({ min: 1, max: 10 }), fc.integer({ min: 11, max: 150 })),
        fc.integer({ min: 1, max: 300 }),
        fc.constantFrom<Fault>(
          { kind: "down", from: 3_000, to: 20_000 },
          { kind: "errors", share: 1, status: 503, from: 3_000, to: 20_000 },
          { kind: "slow", factor: 100, from: 3_000, to: 20_000 },
        ),
        fc.integer({ min: 5_000, max: 12_000 }),
        (concurrency, latency, fault, duration) => {
          let [requests, tries] = [0, 0];
          simulate({
            seed: 1,
            duration,
            clients: [{ concurrency }],
            endpoints: times(3, () => ({ latency: exponential(latency), faults: [fault] })),
            retry: { ...RETRY, attempts: 5, on: ["connection", "timeout", 503] },
            firstByte: 2 * latency,
            observer: {
              tryBegins(attempt, now) {
                if (now < 3_000) return;
                tries++;
                if (attempt.tries === 1) requests++;
              },
            },
          });
          // What was saved when it began, the retries whose wait had begun, and the minimum, which counts only where the share is less.
          const once = concurrency + 10 + concurrency + 2 * RETRY.budget.minimum;
          expect(tries).toBeLessThanOrEqual(1.2 * requests + once);
          if (concurrency === 1) alone++;
        },
      ),
      { seed: 1, numRuns: 40, examples: [[1, 1, { kind: "down", from: 3_000, to: 20_000 }, 12_000]] },
    );
    expect(alone).toBeGreaterThan(1);
  });

  it("of a storm of few requests are one in five as well, and 3, counted from the beginning", () => {
    for (const rate of [5, 50]) {
      const { requests, retries } = simulate({
        seed: 1,
        duration: 600_000,
        clients: [{ rate }],
        endpoints: [{ latency: always(5), faults: [{ kind: "errors", share: 1, status: 503, from: 0, to: 600_000 }] }],
        retry: { ...RETRY, attempts: 5 },
      });
      expect(retries).toBeLessThanOrEqual(0.2 * requests + 3);
      expect(retries).toBeGreaterThan(0.18 * requests);
    }
  });

  it("lose no request to one of three that dies under load", () => {
    fc.assert(
      fc.property(
        seed,
        fc.constantFrom("round-robin" as const, "least-request" as const),
        fc.integer({ min: 1, max: 200 }),
        fc.integer({ min: 1, max: 100 }),
        (seed, by, concurrency, latency) => {
          const { failed, tries } = simulate({
            seed,
            duration: 8_000,
            clients: [{ concurrency }],
            endpoints: times(3, (i) => ({
              cluster: { outlier: OUTLIER },
              latency: exponential(latency),
              ...(i === 0 && { faults: [{ kind: "down", from: 4_000, to: 60_000 }] }),
            })),
            pool: balanced(3, by),
            retry: RETRY,
          });
          expect(tries.every((count) => count > 0)).toBe(true);
          expect(failed).toBe(0);
        },
      ),
      { seed: 1, numRuns: 25 },
    );
  });
});

describe("the next priority", () => {
  it("without a retry: is asked in the place of one that fails, each once, and no request is lost while one is well", () => {
    fc.assert(
      fc.property(
        seed,
        fc.array(fc.array(fault, { maxLength: 2 }), { minLength: 1, maxLength: 3 }),
        fc.boolean(),
        (seed, faults, watched) => {
          const wrong: unknown[] = [];
          const asked = new Map<number, number[]>();
          const endpoints = [...faults, []].map((faults) => ({
            ...(watched && { cluster: { outlier: OUTLIER } }),
            latency: always(20),
            // A 500 is an answer of somebody behind it, and is given as it is.
            faults: faults.map((fault) => ("status" in fault ? { ...fault, status: 503 } : fault)),
          }));
          const { failed, requests, succeeded } = simulate({
            seed,
            duration: 20_000,
            clients: [{ rate: 50 }],
            endpoints,
            pool: { levels: endpoints.map((_, i) => ({ backends: [i], by: "round-robin" as const })) },
            firstByte: 300,
            observer: {
              tryBegins({ request, endpoint }) {
                const before = asked.get(request) ?? [];
                if (before.includes(endpoint)) wrong.push([request, endpoint]);
                asked.set(request, [...before, endpoint]);
              },
            },
          });
          expect({ wrong, failed, succeeded }).toEqual({ wrong: [], failed: 0, succeeded: requests });
        },
      ),
      { numRuns: 30 },
    );
  });
});

describe("breaker", () => {
  const DOWN_AT = 5_000;
  const scenario = (seed: number, downFor: number, observer: Scenario["observer"]): Scenario => ({
    seed,
    duration: DOWN_AT + downFor + 40_000,
    clients: [{ rate: 400 }],
    endpoints: [
      {
        cluster: { breaker: { ...BREAKER, window: 1_000 } },
        latency: exponential(10),
        faults: [{ kind: "down", from: DOWN_AT, to: DOWN_AT + downFor }],
      },
    ],
    ...(observer && { observer }),
  });

  it("open: lets nothing pass; and of an outage the endpoint sees one request for each time that it was open", () => {
    fc.assert(
      fc.property(seed, fc.integer({ min: 10_000, max: 40_000 }), (seed, downFor) => {
        let refused = 0;
        const probes: number[] = [];
        simulate(
          scenario(seed, downFor, {
            tryBegins(_, now) {
              if (refused > 0 && now < DOWN_AT + downFor) probes.push(now);
            },
            answered(outcome) {
              if (typeof outcome === "object") refused++;
            },
          }),
        );
        expect(refused).toBeGreaterThan(1_000);
        // A second one may pass before the first has failed.
        const gaps = probes.slice(1).map((at, i) => at - (probes[i] as number));
        expect(gaps.filter((gap) => gap > REFUSAL_MS && gap < BREAKER.open)).toEqual([]);
        expect(probes.length).toBeLessThanOrEqual(3 * Math.ceil(downFor / BREAKER.open));
      }),
      { numRuns: 15 },
    );
  });

  it("recovering: lets an evenly growing share pass, up to all", () => {
    const asked = new Array(5).fill(0);
    const passed = new Array(5).fill(0);
    let began = 0;
    let recovered = 0;
    const slice = (now: number) => Math.floor(((now - began) / BREAKER.recovery) * 5);
    simulate(
      scenario(1, 9_000, {
        tryBegins(_, now) {
          if (began === 0 && now > DOWN_AT + 9_000) began = now;
          if (began === 0) return;
          if (slice(now) < 5) {
            asked[slice(now)]++;
            passed[slice(now)]++;
          } else recovered++;
        },
        answered(outcome, now) {
          if (began === 0 || typeof outcome !== "object") return;
          asked[slice(now)]++;
        },
      }),
    );
    passed.forEach((count, i) => {
      const share = (i + 0.5) / 5;
      expect(Math.abs(count / asked[i] - share)).toBeLessThan(4 * Math.sqrt((share * (1 - share)) / asked[i]) + 0.01);
    });
    expect(recovered).toBeGreaterThan(5_000);
  });
});

describe("balance", () => {
  it("in turn: exactly the weights in each cycle", () => {
    fc.assert(
      fc.property(seed, fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 2, maxLength: 6 }), (seed, weights) => {
        fc.pre(weights.some((weight) => weight > 0));
        const chosen: number[] = [];
        simulate({
          seed,
          duration: 1_000,
          clients: [{ rate: 500 }],
          endpoints: weights.map(() => ({ latency: exponential(100) })),
          pool: { levels: [{ backends: [...weights.keys()], weights, by: "round-robin" }] },
          observer: { tryBegins: ({ endpoint }) => chosen.push(endpoint) },
        });
        const cycle = weights.reduce((sum, weight) => sum + weight, 0);
        for (let from = 0; from + cycle <= chosen.length; from++) {
          const counts = weights.map(() => 0);
          for (const endpoint of chosen.slice(from, from + cycle)) (counts[endpoint] as number)++;
          expect(counts).toEqual(weights);
        }
      }),
      { numRuns: 30 },
    );
  });

  it("by hash: only the keys of who is out are elsewhere, and they come back", () => {
    fc.assert(
      fc.property(seed, fc.integer({ min: 2, max: 6 }), (seed, count) => {
        const homes = new Map<number, number>();
        let elsewhere = 0;
        simulate({
          seed,
          duration: 40_000,
          clients: [{ rate: 200, keys: 50 }],
          endpoints: times(count, (i) => ({
            cluster: { outlier: { ...OUTLIER, baseEjectionTime: 5_000 } },
            latency: exponential(5),
            ...(i === 0 && { faults: [{ kind: "down", from: 10_000, to: 12_000 }] }),
          })),
          pool: balanced(count, { hash: "subject" }),
          observer: {
            tryBegins({ key, endpoint }: Attempt, now, simulation) {
              const home = homes.get(key) ?? endpoint;
              if (now < 10_000) homes.set(key, endpoint);
              if (endpoint === home) return;
              elsewhere++;
              expect(home).toBe(0);
              expect(simulation.ejected()).toEqual([0]);
            },
          },
        });
        if ([...homes.values()].includes(0)) expect(elsewhere).toBeGreaterThan(0);
      }),
      { numRuns: 15 },
    );
  });

  it("by least requests: who is ten times slower gets much less, and in turn it does not", () => {
    fc.assert(
      fc.property(seed, fc.integer({ min: 2, max: 6 }), (seed, count) => {
        const share = (by: "least-request" | "round-robin") => {
          const { tries, requests } = simulate({
            seed,
            duration: 20_000,
            clients: [{ concurrency: 10 * count }],
            endpoints: times(count, (i) => ({ latency: exponential(i === 0 ? 200 : 20) })),
            pool: balanced(count, by),
          });
          return ((tries[0] as number) / requests) * count;
        };
        expect(share("round-robin")).toBeCloseTo(1, 1);
        expect(share("least-request")).toBeLessThan(0.5);
      }),
      { seed: 1, numRuns: 10 },
    );
  });

  it("affinity: a client stays where it first was, until that is out", () => {
    const first = new Map<number, number>();
    let moved = 0;
    simulate({
      seed: 1,
      duration: 20_000,
      clients: [{ rate: 200, keys: 40 }],
      endpoints: times(3, (i) => ({
        cluster: { outlier: OUTLIER },
        latency: exponential(5),
        ...(i === 0 && { faults: [{ kind: "down", from: 10_000, to: 20_000 }] }),
      })),
      pool: { levels: [{ backends: [0, 1, 2], by: "round-robin", affinity: { cookie: "at", maxAge: 60 } }] },
      observer: {
        tryBegins({ key, endpoint }, now, simulation) {
          const before = first.get(key);
          if (before === undefined) first.set(key, endpoint);
          else if (before !== endpoint) {
            expect([before, simulation.ejected()]).toEqual([0, [0]]);
            expect(now).toBeGreaterThan(10_000);
            first.set(key, endpoint);
            moved++;
          }
        },
      },
    });
    expect(new Set(first.values())).toEqual(new Set([1, 2]));
    expect(moved).toBeGreaterThan(5);
  });
});
