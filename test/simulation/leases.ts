/**
 * A fleet of isolates that count leased limits, in virtual time: the code of the edge and the very script that Redis runs, between a
 * network that is slow and loses replies, clocks that differ, and isolates that die. Everything follows from the seed.
 */
import { countWithLeases, type LeaseHost } from "../../src/policies/count-leased.ts";
import { Leases } from "../../src/policies/lease.ts";
import { argumentsOf, type UnitRule } from "../../src/policies/limit-script.ts";
import type { Counted, Failure } from "../../src/policies/limit-store.ts";
import { EventQueue } from "./event-queue.ts";
import { LimitModel } from "./limit-model.ts";
import { seededRandom } from "./random.ts";

export interface FleetScenario {
  readonly seed: number;
  readonly rule: UnitRule;
  /** Milliseconds. */
  readonly duration: number;
  readonly isolates: number;
  /** Requests per second, of all keys. */
  readonly rate: number;
  /** Times at which there are so many times more requests, in milliseconds. */
  readonly bursts?: { readonly every: number; readonly last: number; readonly factor: number };
  readonly keys: number;
  /** Exponent of the keys' popularity: 0 for all alike, 1 for Zipf's law. */
  readonly skew: number;
  /** Of each request. */
  readonly cost?: number;
  /** How many isolates a key's requests come to; default: all of them. */
  readonly spread?: number;
  /** Clocks are wrong by up to that, in milliseconds, and run wrong by up to `drift`, a share. */
  readonly clockSkew?: number;
  readonly drift?: number;
  /** Share of isolates that die in the course of it, each at some time; a new one takes its place. */
  readonly dying?: number;
  /** Milliseconds, one way: the least and the mean. */
  readonly latency?: readonly [number, number];
  /** Share of calls whose request, and of those whose reply is lost. */
  readonly lost?: number;
  /** Milliseconds after which a call counts as lost. */
  readonly timeout?: number;
}

/** One request that was let through. Times are the store's. */
export interface Admission {
  readonly key: number;
  /** When its units were granted to it by a call of its own, or else when it spent them. */
  readonly at: number;
}

export interface FleetReport {
  readonly requests: number;
  readonly admissions: readonly Admission[];
  /** Arrivals, by key. */
  readonly arrivals: readonly Admission[];
  /** Scripts that ran, by key. */
  readonly calls: readonly number[];
  /** Calls without a reply. */
  readonly failures: number;
  /** How long requests had to wait in milliseconds, and when they came. */
  readonly waits: readonly { readonly at: number; readonly ms: number }[];
  /** When the simulation began, by the store's clock. */
  readonly start: number;
  /** Leases that the isolates hold in the end, all together. */
  readonly leases: number;
}

interface Isolate {
  readonly host: LeaseHost;
  alive: boolean;
}

const START = Date.UTC(2026, 10, 23);

export async function simulateFleet(scenario: FleetScenario): Promise<FleetReport> {
  const { rule, duration, keys, skew, cost = 1, clockSkew = 0, drift = 0, dying = 0, lost = 0 } = scenario;
  const { latency: [least, mean] = [1, 3], timeout = 500, spread = scenario.isolates } = scenario;
  const random = seededRandom(scenario.seed);
  const exponential = (average: number) => -average * Math.log(1 - random());
  const oneWay = () => least + exponential(mean - least);
  const events = new Events();
  const counting = countWithLeases([rule], cost, timeout);
  let failures = 0;
  const waits: FleetReport["waits"][number][] = [];
  /** When the script ran whose reply is being handled, and on which key. */
  let handled: { readonly key: string; readonly ranAt: number } | undefined;
  const redis = new LimitModel();

  function isolate(): Isolate {
    const offset = (2 * random() - 1) * clockSkew;
    const speed = 1 + (2 * random() - 1) * drift;
    // An isolate's clock has whole milliseconds.
    const now = () => Math.floor(START + offset + events.now * speed);
    const born: Isolate = {
      alive: true,
      host: {
        leases: new Leases(),
        now,
        pausedFor: 0,
        sleep: (ms) =>
          new Promise((resolve) =>
            events.at(events.now + ms, () => events.settle(() => born.alive && resolve(undefined))),
          ),
        ask: (work) => work(),
        run: (_script, calls, _read, patience) =>
          new Promise((resolve) => {
            const [there, back] = [oneWay(), oneWay()];
            let answered = false;
            const answer = (reply: Parameters<typeof resolve>[0], of?: typeof handled) => {
              if (answered || !born.alive) return;
              answered = true;
              handled = of;
              events.settle(() => resolve(reply));
            };
            events.at(events.now + patience, () => {
              if (!answered && born.alive) failures += 1;
              answer({ failure: "timeout" });
            });
            if (random() < lost) return;
            events.at(events.now + there, () => {
              const ranAt = START + events.now;
              redis.now = ranAt;
              const replies = calls.map(({ key, args }) => redis.run(key, args) as never);
              if (random() < lost) return;
              events.at(events.now + back, () => answer(replies, { key: calls[0]?.key ?? "", ranAt }));
            });
          }),
      },
    };
    return born;
  }

  const fleet = Array.from({ length: scenario.isolates }, isolate);
  for (let i = 0; i < fleet.length; i++) {
    if (random() >= dying) continue;
    events.at(random() * duration, () => {
      (fleet[i] as Isolate).alive = false;
      fleet[i] = isolate();
    });
  }

  const admissions: Admission[] = [];
  const arrivals: Admission[] = [];
  const pickKey = zipf(keys, skew, random);
  const { every, last, factor } = scenario.bursts ?? { every: duration, last: 0, factor: 1 };
  function arrivalAfter(time: number): number {
    const period = Math.floor(time / every);
    const turns = [(period + 1) * every - last, (period + 1) * every];
    const turn = turns.find((turn) => turn > time) ?? Number.POSITIVE_INFINITY;
    const next = time + exponential(1_000 / (scenario.rate * (turn === turns[1] ? factor : 1)));
    // What was drawn for the time before a turn says nothing of the time after.
    return next <= turn ? next : arrivalAfter(turn);
  }
  function request(): void {
    const key = pickKey();
    const { host } = fleet[(key * 7_919 + Math.floor(random() * spread)) % fleet.length] as Isolate;
    arrivals.push({ key, at: START + events.now });
    const name = `key ${key}`;
    const note = (outcome: Counted | Failure, waited: boolean) => {
      if ("failure" in outcome || !outcome.counts.every(({ success }) => success)) return;
      const own = waited && handled?.key === name ? handled.ranAt : undefined;
      admissions.push({ key, at: own ?? START + events.now });
    };
    const outcome = counting(host, [name], () => {});
    const came = events.now;
    const waited = (counted: Counted | Failure) => {
      waits.push({ at: came, ms: events.now - came });
      note(counted, true);
    };
    if (outcome instanceof Promise) events.settle(() => outcome.then(waited));
    else note(outcome, false);
    const next = arrivalAfter(events.now);
    if (next < duration) events.at(next, request);
  }
  events.at(arrivalAfter(0), request);
  await events.run(() => {
    handled = undefined;
  });
  return {
    requests: arrivals.length,
    admissions,
    arrivals,
    calls: Array.from({ length: keys }, (_, key) => redis.calls.get(`key ${key}`) ?? 0),
    failures,
    waits,
    start: START,
    leases: fleet.reduce((sum, { host }) => sum + host.leases.size, 0),
  };
}

/** How much more than the limit was admitted of any key, at worst; at most 0 where it was kept. */
export function excess(
  { admissions }: Pick<FleetReport, "admissions">,
  { rule, cost = 1 }: Pick<FleetScenario, "rule" | "cost">,
): number {
  const sorted = admissions.toSorted((a, b) => a.at - b.at);
  const keys = [...Map.groupBy(sorted, ({ key }) => key).values()];
  return Math.max(
    ...keys.map((of) =>
      excessOf(
        of.map(({ at }) => at),
        rule,
        cost,
      ),
    ),
  );
}

function excessOf(times: readonly number[], { algorithm, quota, window }: UnitRule, cost: number): number {
  let worst = Number.NEGATIVE_INFINITY;
  if (algorithm === "tokenBucket") {
    // No span of time sees more than burst + rate * time: a bucket that leaks at the rate never holds more than the burst.
    let [level, last] = [0, 0];
    for (const at of times) {
      level = Math.max(0, level - ((at - last) * quota) / window) + cost;
      last = at;
      // The store counts in whole milliseconds.
      worst = Math.max(worst, level - quota - (2 * quota) / window);
    }
    return worst;
  }
  const used = new Map<number, number>();
  for (const at of times) {
    const index = Math.floor(at / window);
    const sum = (used.get(index) ?? 0) + cost;
    used.set(index, sum);
    const before = algorithm === "slidingWindow" ? (used.get(index - 1) ?? 0) : 0;
    worst = Math.max(worst, sum + Math.floor(before * (1 - (at / window - index))) - quota);
  }
  return worst;
}

/**
 * What was admitted, as a share of what exact counting admits of the same arrivals, without any way to the store: of all keys, and of
 * those that came to their limit.
 */
export function utilisation({ admissions, arrivals }: FleetReport, { rule, cost = 1 }: FleetScenario) {
  const exact = new LimitModel();
  const keys = new Map<number, { possible: number; admitted: number; limited: boolean }>();
  for (const { key, at } of arrivals) {
    const tally = keys.get(key) ?? { possible: 0, admitted: 0, limited: false };
    keys.set(key, tally);
    exact.now = at;
    const ask = { need: cost, want: cost, charge: 0, back: 0, window: 0 };
    if (exact.run(String(key), argumentsOf(rule, ask, at)).granted > 0) tally.possible += 1;
    else tally.limited = true;
  }
  for (const { key } of admissions) (keys.get(key) as { admitted: number }).admitted += 1;
  const share = (of: readonly { possible: number; admitted: number }[]) =>
    of.reduce((sum, { admitted }) => sum + admitted, 0) / of.reduce((sum, { possible }) => sum + possible, 0);
  const all = [...keys.values()];
  return { all: share(all), limited: share(all.filter(({ limited }) => limited)) };
}

/** Virtual time. */
class Events {
  readonly #queue = new EventQueue();
  readonly #actions = new Map<number, () => void>();
  #next = 0;
  #settling = false;

  get now(): number {
    return this.#queue.now;
  }

  at(time: number, action: () => void): void {
    this.#actions.set(this.#next, action);
    this.#queue.at(time, this.#next++);
  }

  /** For what promises wait for: time goes on when all that follows has been done. */
  settle(action: () => void): void {
    this.#settling = true;
    action();
  }

  async run(afterEach: () => void): Promise<void> {
    for (let id = this.#queue.next(); id !== -1; id = this.#queue.next()) {
      const action = this.#actions.get(id);
      this.#actions.delete(id);
      action?.();
      if (this.#settling) await new Promise((resolve) => setImmediate(resolve));
      this.#settling = false;
      afterEach();
    }
  }
}

/** Draws ranks from 0, the popularity of rank i being 1 / (i + 1) ^ exponent. */
function zipf(count: number, exponent: number, random: () => number): () => number {
  const sums = new Float64Array(count);
  let sum = 0;
  for (let i = 0; i < count; i++) sums[i] = sum += (i + 1) ** -exponent;
  return () => {
    const wanted = random() * sum;
    let [low, high] = [0, count - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((sums[middle] as number) > wanted) high = middle;
      else low = middle + 1;
    }
    return low;
  };
}
