import fc from "fast-check";
import { expect, it } from "vitest";
import { OUTLIER, RETRY } from "../traffic/defaults.ts";
import { EventQueue } from "./event-queue.ts";
import { always, exponential, type Scenario, simulate } from "./simulator.ts";

const scenario = (seed: number, trace?: unknown[]): Scenario => ({
  seed,
  duration: 5_000,
  clients: [{ rate: 200, keys: 10 }, { concurrency: 5 }],
  endpoints: [
    { cluster: { outlier: OUTLIER }, latency: exponential(20), faults: [{ kind: "down", from: 1_000, to: 3_000 }] },
    { latency: exponential(30), faults: [{ kind: "errors", from: 0, to: 2_000, share: 0.2, status: 503 }] },
  ],
  pool: { levels: [{ backends: [0, 1], by: "least-request" }] },
  retry: RETRY,
  ...(trace && { observer: { tryBegins: ({ request, endpoint }, now) => trace.push([now, request, endpoint]) } }),
});

it("the seed decides everything", () => {
  const run = (seed: number) => {
    const trace: unknown[] = [];
    return { report: simulate(scenario(seed, trace)), trace };
  };
  expect(run(7)).toEqual(run(7));
  expect(run(8)).not.toEqual(run(7));
});

it("loses no request", () => {
  fc.assert(
    fc.property(fc.nat(), (seed) => {
      const { requests, succeeded, failed, refused, retries, tries } = simulate(scenario(seed));
      const nowhere = refused["breaker-open"] + refused.overloaded + refused["no-healthy"];
      expect(succeeded + failed + nowhere).toBe(requests);
      expect(tries.reduce((sum, count) => sum + count, 0)).toBe(requests - nowhere + retries);
    }),
    { numRuns: 20 },
  );
});

it("events come in the order of their times", () => {
  fc.assert(
    fc.property(fc.array(fc.double({ min: 0, max: 1e6, noNaN: true }), { maxLength: 3_000 }), (times) => {
      const queue = new EventQueue();
      times.forEach((time, i) => {
        queue.at(time, i);
      });
      const order = times.map(() => {
        const event = queue.next();
        expect(queue.now).toBe(times[event]);
        return queue.now;
      });
      expect(queue.next()).toBe(-1);
      expect(order).toEqual(times.toSorted((a, b) => a - b));
    }),
  );
});

it("clients send at their rate, and callers wait for their answers", () => {
  const endpoints = [{ latency: always(99) }];
  const open = simulate({ seed: 1, duration: 100_000, clients: [{ rate: 100 }], endpoints });
  expect(Math.abs(open.requests - 10_000)).toBeLessThan(4 * Math.sqrt(10_000));
  const closed = simulate({ seed: 1, duration: 100_000, clients: [{ concurrency: 3 }], endpoints });
  expect(closed.requests).toBe(3 * 1_000);
});

it("half a million requests take seconds at most, not minutes", () => {
  const began = performance.now();
  simulate({ ...scenario(1), duration: 100_000, clients: [{ rate: 5_000 }] });
  expect(performance.now() - began).toBeLessThan(10_000);
});
