/** Leased counting at the edge: the waits, calls and background work around the leases, which decide (lease.ts). */
import type { Errand, Lease } from "./lease.ts";
import { argumentsOf, type Grant, grantOf, limitScript, type UnitRule } from "./limit-script.ts";
import type { Count, Counted, Counting, Failure, LimitStore, WaitUntil } from "./limit-store.ts";

/** What the leases of an isolate stand on: its store, clock and timers. */
export type LeaseHost = Pick<LimitStore, "leases" | "now" | "sleep" | "pausedFor" | "ask" | "run">;

/**
 * Who waits for what another request fetches looks for it after another eighth of the time that it has waited, so that waiting takes
 * hardly longer and a store that hangs does not have thousands look all the time. In milliseconds, the least and the most.
 */
const NEXT_LOOK = [1, 100] as const;
/** Milliseconds after a call's timeout, when its request must have been cancelled. */
const GRACE = 1_000;
/** Leases that are returned with one call. */
const RETURNED_AT_ONCE = 100;

/** `cost` units of each, within `timeout` ms where the store has to be asked. */
export function countWithLeases(rules: readonly UnitRule[], cost: number, timeout: number): Counting<LeaseHost> {
  return (store, keys, waitUntil) => {
    const now = store.now();
    const leases = keys.map((key, i) => store.leases.of(key, rules[i] as UnitRule, now));
    for (const lease of leases) lease.wanted(cost, now);
    const counting = new LeasedCounting(leases, cost, timeout, store, waitUntil);
    // No promise where the units are here already, which is what most requests find.
    return counting.decide(now) ?? counting.wait();
  };
}

type Call = readonly [lease: Lease, errand: Errand];

/** One request's. */
class LeasedCounting {
  readonly #leases: readonly Lease[];
  readonly #cost: number;
  readonly #timeout: number;
  readonly #store: LeaseHost;
  readonly #waitUntil: WaitUntil;
  /** Leases of which a call of this request has been granted what it needs, with the window that this belongs to. */
  readonly #own = new Map<Lease, number>();

  constructor(leases: readonly Lease[], cost: number, timeout: number, store: LeaseHost, waitUntil: WaitUntil) {
    this.#leases = leases;
    this.#cost = cost;
    this.#timeout = timeout;
    this.#store = store;
    this.#waitUntil = waitUntil;
  }

  /** All of the limits or none; undefined: that is up to the store. */
  decide(now: number): Counted | undefined {
    const cost = this.#cost;
    const short = this.#short(now);
    const refusing = short.filter((lease) => lease.refuses(cost, now));
    if (short.length > 0 && refusing.length === 0) return undefined;
    if (refusing.length > 0) this.#returnOwn(now);
    const windows: number[] = [];
    const counts = this.#leases.map((lease): Count => {
      const success = !refusing.includes(lease);
      windows.push(this.#own.get(lease) ?? lease.window);
      if (!success) lease.refused();
      else if (short.length === 0 && !this.#own.has(lease)) lease.spend(cost);
      return { success, remaining: lease.remaining(now), reset: lease.moreAt(now) };
    });
    this.#tend(now);
    return {
      counts,
      charge: (units) => {
        const at = this.#store.now();
        this.#leases.forEach((lease, i) => {
          if (units < 0) lease.unused(-units, windows[i] as number, at);
          else lease.charge(units, at);
        });
        this.#tend(at);
      },
    };
  }

  async wait(): Promise<Counted | Failure> {
    const outcome = await this.#decided();
    if ("failure" in outcome) this.#returnOwn(this.#store.now());
    return outcome;
  }

  async #decided(): Promise<Counted | Failure> {
    const store = this.#store;
    const started = store.now();
    const deadline = started + this.#timeout;
    for (;;) {
      const now = store.now();
      const decided = this.decide(now);
      if (decided) return decided;
      if (store.pausedFor > 0) return { failure: "paused" };
      if (now >= deadline) return { failure: "timeout" };
      const short = this.#short(now);
      if (short.some((lease) => lease.awaits(now))) {
        // The promise of another request's call must not be awaited here (docs/design.md), so this one looks again and again.
        for (const lease of short) lease.joined(this.#cost);
        const pause = Math.min(Math.max((now - started) / 8, NEXT_LOOK[0]), NEXT_LOOK[1]);
        await store.sleep(Math.min(pause, deadline - now));
        for (const lease of short) lease.left(this.#cost);
        continue;
      }
      const asked = store.ask(
        () => this.#run(short.map((lease) => [lease, lease.ask(this.#cost, now, this.#patience)])),
        this.#waitUntil,
      );
      // Others may wait for these units, too: they must not be lost when this client goes away, or its time is over first.
      this.#waitUntil(asked.catch(() => {}));
      const said = await (now + this.#timeout <= deadline ? asked : Promise.race([asked, store.sleep(deadline - now)]));
      if (!said) return { failure: "timeout" };
      if ("failure" in said) return said;
      for (const [lease, window] of said) this.#own.set(lease, window);
    }
  }

  /** The leases that do not hold enough. */
  #short(now: number): Lease[] {
    return this.#leases.filter((lease) => lease.available(now) < this.#cost && !this.#own.has(lease));
  }

  #returnOwn(now: number): void {
    for (const [lease, window] of this.#own) lease.unused(this.#cost, window, now);
    this.#own.clear();
  }

  get #patience(): number {
    return this.#timeout + GRACE;
  }

  /** Does what is due, in the background. */
  #tend(now: number): void {
    if (this.#store.pausedFor > 0) return;
    const calls: Call[] = [];
    for (const lease of this.#leases) {
      const errand = lease.tend(now, this.#patience);
      if (errand) calls.push([lease, errand]);
    }
    for (const lease of this.#store.leases.dropped(RETURNED_AT_ONCE)) {
      calls.push([lease, lease.surrender(now, this.#patience)]);
    }
    if (calls.length > 0) this.#waitUntil(this.#run(calls).catch(() => {}));
  }

  /** Resolves to the leases of which the errand's need was granted, with the window that this belongs to. */
  async #run(calls: readonly Call[]): Promise<Map<Lease, number> | Failure> {
    const scripts = calls.map(([{ key, rule }, errand]) => ({ key, args: argumentsOf(rule, errand, errand.sentAt) }));
    const failed = () => {
      for (const [lease, errand] of calls) lease.fail(errand);
    };
    const grants = await this.#store.run(limitScript, scripts, grantOf, this.#timeout).catch((error) => {
      failed();
      throw error;
    });
    if ("failure" in grants) {
      failed();
      return grants;
    }
    const now = this.#store.now();
    const own = new Map<Lease, number>();
    for (const [i, [lease, errand]] of calls.entries()) {
      const grant = grants[i] as Grant;
      if (lease.settle(errand, grant, now)) own.set(lease, grant.window);
    }
    return own;
  }
}
