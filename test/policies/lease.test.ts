import { describe, expect, it } from "vitest";
import { Lease, Leases } from "../../src/policies/lease.ts";
import type { Grant, UnitRule } from "../../src/policies/limit-script.ts";

const START = Date.UTC(2026, 10, 23);
const MINUTE: UnitRule = { algorithm: "fixedWindow", quota: 1_000, window: 60_000 };
const BUCKET: UnitRule = { algorithm: "tokenBucket", quota: 600, window: 60_000 };
const PATIENCE = 500;

/** The store's answer: 100 units of the window that ends in 30 s, unless told otherwise. */
const grant = (more: Partial<Grant> = {}): Grant => ({
  granted: 100,
  room: 900,
  window: START,
  life: 30_000,
  wait: 0,
  ...more,
});

/** A lease that has got `grant` by a call from `now` on that took `latency`. */
function leased(rule: UnitRule, more: Partial<Grant> = {}, now = START, latency = 0): Lease {
  const lease = new Lease("key", rule, now);
  lease.settle(lease.ask(1, now, PATIENCE), grant(more), now + latency);
  return lease;
}

describe("a unit", () => {
  it("may be spent for as long as the store said, counted from before the call, less a thousandth", () => {
    const lease = leased(MINUTE, { life: 30_000 }, START, 400);
    // One of the hundred is for the request that asked.
    expect(lease.available(START + 400)).toBe(99);
    expect(lease.available(START + 29_969)).toBe(99);
    expect(lease.available(START + 29_970)).toBe(0);
  });

  it("is nobody's any more when it goes back", () => {
    const lease = leased(MINUTE);
    const errand = lease.ask(500, START + 1, PATIENCE);
    expect(errand).toMatchObject({ back: 99, window: START, need: 500 });
    expect(lease.available(START + 1)).toBe(0);
    lease.fail(errand);
    expect(lease.available(START + 1)).toBe(0);
  });

  it("of a window that is over is none of the next one", () => {
    const lease = leased(MINUTE);
    const late = lease.ask(200, START + 100, PATIENCE);
    const next = START + 60_000;
    const errand = lease.ask(1, next, PATIENCE);
    expect(lease.settle(errand, grant({ window: next, granted: 5 }), next)).toBe(true);
    // The answer to the first call comes only now: what it needed is granted, what is left of it is late.
    expect(lease.settle(late, grant({ granted: 300 }), next + 1)).toBe(true);
    expect(lease.available(next + 1)).toBe(4);
    lease.unused(7, START, next + 1);
    expect(lease.available(next + 1)).toBe(4);
    lease.unused(7, next, next + 1);
    expect(lease.available(next + 1)).toBe(11);
  });

  it("of a bucket lives as long as its own block", () => {
    const lease = leased(BUCKET, { granted: 11, life: 2_000 });
    const later = START + 1_000;
    lease.settle(lease.ask(1, later, PATIENCE), grant({ granted: 6, life: 2_000 }), later);
    expect(lease.available(later)).toBe(15);
    lease.spend(12);
    expect(lease.available(later)).toBe(3);
    expect(lease.available(START + 2_000)).toBe(3);
    expect(lease.available(later + 2_000)).toBe(0);
    const two = leased(BUCKET, { granted: 11, life: 2_000 });
    two.settle(two.ask(1, later, PATIENCE), grant({ granted: 6, life: 2_000 }), later);
    expect(two.available(START + 1_999)).toBe(5);
  });

  it("of a bucket that was not used goes back to the store, where it counts no longer as under way", () => {
    const lease = leased(BUCKET);
    lease.unused(3, 0, START);
    expect(lease.available(START)).toBe(99);
    expect(lease.tend(START, PATIENCE)).toMatchObject({ need: 0, want: 0, charge: 0, back: 3 });
  });
});

describe("a refusal", () => {
  it("is remembered for as long as the store said, for what does not fit", () => {
    const lease = leased(MINUTE, { granted: 0, room: 3, wait: 30_000 });
    expect([lease.refuses(4, START + 29_999), lease.refuses(3, START), lease.refuses(4, START + 30_000)]).toEqual([
      true,
      false,
      false,
    ]);
    expect(lease.moreAt(START)).toBe(START + 30_000);
  });

  it("of a hot key lasts for some twenty requests where more flows in, and of another one not", () => {
    const asked = (algorithm: UnitRule["algorithm"], requests: number) => {
      const lease = new Lease("key", { algorithm, quota: 600, window: 60_000 }, START);
      for (let i = 0; i < requests; i++) lease.wanted(1, START + i);
      const now = START + 100;
      lease.settle(lease.ask(1, now, PATIENCE), grant({ granted: 0, room: 0, wait: 10, life: 2_000 }), now);
      return lease.moreAt(now) - now;
    };
    expect(asked("tokenBucket", 100)).toBeGreaterThan(100);
    expect(asked("tokenBucket", 100)).toBeLessThan(1_000);
    expect(asked("slidingWindow", 300)).toBeGreaterThan(100);
    expect(asked("tokenBucket", 2)).toBe(10);
    expect(asked("fixedWindow", 300)).toBe(10);
  });

  it("of a fixed window is looked into after twenty more and a second: something may have come back", () => {
    const lease = leased(MINUTE, { granted: 0, room: 0, wait: 30_000 });
    for (let i = 0; i < 20; i++) {
      expect(lease.tend(START + 5_000, PATIENCE)).toBeUndefined();
      lease.refused();
    }
    expect(lease.tend(START + 500, PATIENCE)).toBeUndefined();
    const errand = lease.tend(START + 5_000, PATIENCE);
    expect(errand).toMatchObject({ need: 0 });
    lease.settle(errand as never, grant({ granted: 7, room: 0, wait: 25_000 }), START + 5_010);
    expect(lease.available(START + 5_010)).toBe(7);
  });
});

describe("blocks", () => {
  /** Asks at a steady rate for some time, and gives what is granted, as much as is wanted. */
  function steady(rule: UnitRule, rate: number, milliseconds: number) {
    const lease = new Lease("key", rule, START);
    const asked: number[] = [];
    for (let i = 0; i < (rate * milliseconds) / 1_000; i++) {
      const now = START + Math.floor((i * 1_000) / rate);
      const life = rule.algorithm === "tokenBucket" ? 2_000 : rule.window - (now % rule.window);
      const serve = (errand: ReturnType<Lease["tend"]>) => {
        if (!errand) return;
        asked.push(errand.want);
        lease.settle(errand, grant({ granted: errand.want, life, window: START }), now);
      };
      lease.wanted(1, now);
      if (lease.available(now) < 1) serve(lease.ask(1, now, PATIENCE));
      else lease.spend(1);
      serve(lease.tend(now, PATIENCE));
    }
    return { lease, asked };
  }

  it("of a key that is asked for now and then are what it needs", () => {
    expect(new Set(steady(MINUTE, 0.1, 50_000).asked)).toEqual(new Set([1]));
  });

  it.each([MINUTE, BUCKET])("of a hot key grow to what is spent within the horizon: %o", (rule) => {
    const { asked } = steady(rule, 100, 20_000);
    expect(asked.slice(0, 4).every((want) => want < 10)).toBe(true);
    expect(asked.at(-1)).toBeGreaterThan(40);
    expect(asked.at(-1)).toBeLessThan(150);
    expect(asked.length).toBeLessThan(2_000 / 25);
  });

  it("are no larger than what can be spent before the window ends", () => {
    const { asked } = steady(MINUTE, 100, 59_990);
    expect(asked.at(-1)).toBeLessThan(30);
  });

  it("are refilled before they are empty", () => {
    const { lease } = steady(MINUTE, 100, 20_000);
    const now = START + 20_000;
    lease.spend(lease.available(now) - 5);
    expect(lease.awaits(now)).toBe(false);
    expect(lease.tend(now, PATIENCE)).toMatchObject({ need: 0 });
    // One call at a time.
    expect(lease.awaits(now)).toBe(true);
    expect(lease.tend(now, PATIENCE)).toBeUndefined();
    expect(lease.awaits(now + PATIENCE)).toBe(false);
  });

  it("that are hardly used any more go back but for what is", () => {
    const { lease } = steady({ ...MINUTE, window: 3_600_000 }, 100, 20_000);
    const held = lease.available(START + 20_000);
    expect(held).toBeGreaterThan(100);
    expect(lease.tend(START + 50_000, PATIENCE)).toBeUndefined();
    const errand = lease.tend(START + 70_000, PATIENCE);
    expect(errand).toMatchObject({ need: 0, want: 0, window: START });
    expect(errand?.back).toBe(held - lease.available(START + 70_000));
    expect(errand?.back).toBeGreaterThan(held / 2);
  });

  it("make room for requests that wait", () => {
    const lease = new Lease("key", MINUTE, START);
    lease.joined(60);
    lease.left(11);
    expect(lease.ask(1, START, PATIENCE).want).toBe(50);
    // Those may have been cancelled meanwhile: who still waits says so again.
    lease.left(5);
    expect(lease.ask(1, START, PATIENCE).want).toBe(1);
  });
});

describe("what a request turned out to cost", () => {
  it("is spent here, and what is not here is charged with the next call", () => {
    const lease = leased(MINUTE, { granted: 11 });
    lease.charge(25, START);
    expect(lease.available(START)).toBe(0);
    const errand = lease.tend(START, PATIENCE);
    expect(errand).toMatchObject({ need: 0, charge: 15 });
    // Whether it has been charged is not known: so it is charged again.
    lease.fail(errand as never);
    expect(lease.tend(START, PATIENCE)).toMatchObject({ charge: 15 });
  });
});

describe("the leases of an isolate", () => {
  it("are one for each key and quota", () => {
    const leases = new Leases();
    const lease = leases.of("a", MINUTE, START);
    expect(leases.of("a", MINUTE, START + 1)).toBe(lease);
    expect(leases.of("b", MINUTE, START)).not.toBe(lease);
    expect(leases.of("a", { ...MINUTE, quota: 5 }, START)).not.toBe(lease);
  });

  it("are bounded, however many keys there are, and the ones in use are kept", () => {
    const leases = new Leases();
    const kept = leases.of("kept", MINUTE, START);
    for (let i = 0; i < 100_000; i++) {
      leases.of(`key ${i}`, MINUTE, START);
      if (i % 1_000 === 0) expect(leases.of("kept", MINUTE, START)).toBe(kept);
    }
    expect(leases.size).toBeLessThanOrEqual(2 * 8_192);
  });

  it("are given up when nobody asks for them, with what they hold", () => {
    const leases = new Leases();
    const rule = { ...MINUTE, window: 3_600_000 };
    const idle = leases.of("idle", rule, START);
    idle.settle(idle.ask(1, START, PATIENCE), grant({ life: 3_600_000 }), START);
    leases.of("empty", rule, START);
    for (let at = 0; at <= 60_000; at += 1_000) leases.of("busy", rule, START + at);
    const dropped = leases.dropped(100);
    expect(dropped).toEqual([idle]);
    expect(leases.dropped(100)).toEqual([]);
    expect(idle.surrender(START + 60_000, PATIENCE)).toMatchObject({ back: 99, window: START });
    expect(idle.available(START + 60_000)).toBe(0);
    expect(leases.of("idle", rule, START + 60_000)).not.toBe(idle);
  });

  it("survive a clock that is set back", () => {
    const leases = new Leases();
    const lease = leases.of("a", MINUTE, START);
    expect(leases.of("a", MINUTE, START - 3_600_000)).toBe(lease);
  });
});
