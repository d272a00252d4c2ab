import { hash32 } from "../table/split.ts";
import type { RouteTable, TableBackend, TableHashKey, TableLevel, TablePool } from "../table/table.ts";
import { atRandom, byHash, byLeastRequests, type Candidate, inTurn } from "./balance.ts";
import type { Endpoint, EndpointPlace, Endpoints } from "./endpoint.ts";
import { byDistance, type Degrees, type Location, whereabouts } from "./locality.ts";

/** What choosing an endpoint may ask of a request; only what the pool's configuration needs is asked. */
export interface RequestFacts {
  /** `request.cf`. */
  readonly location: Location | undefined;
  /** Undefined: the request does not have it. */
  hashKey(key: TableHashKey): string | undefined;
  cookie(name: string): string | undefined;
}

/** One backend of a pool. Made once, so that choosing one makes nothing. */
export interface PoolMember extends Candidate {
  /** Position in the table's backends. */
  readonly backend: number;
  readonly endpoint: Endpoint;
  /** All endpoints of its priority; the same array for each of them. */
  readonly peers: readonly Endpoint[];
  /** The cookie that keeps the client here; to be set where the request does not hold it with this value. */
  readonly affinity?: { readonly cookie: string; readonly value: string; readonly maxAge: number };
}

/**
 * Why there is no endpoint. `breaker-open`: there are some, but breakers hold back requests; `overloaded`: all that may be asked
 * have their `concurrency` under way; `no-healthy`: none is in, and the panic threshold is 0.
 */
export type Refusal =
  | { readonly none: "breaker-open"; readonly retryAfterMs: number }
  | { readonly none: "overloaded" | "no-healthy" };

// Envoy's healthy_panic_threshold, for clusters that are watched by health checks alone.
const PANIC_THRESHOLD = 50;

/** A chain of backends (`a.or(b)` in a forward action) as the pool that it is: each a priority of its own. */
export const chain = (backends: readonly number[]): TablePool => ({
  levels: backends.map((backend) => ({ backends: [backend], by: "round-robin" })),
});

/**
 * The endpoints of a pool, by priority, and which of them gets a request.
 *
 * A level is asked while enough of its endpoints are in: neither ejected nor unhealthy. Below its panic threshold it counts as failed
 * and the next level is asked; when all have failed, the first is asked with all of its endpoints, since by then it is more likely
 * that the verdicts are wrong than that nobody is there (Envoy's panic mode; like there, it does not come before another priority
 * that is well). Breakers and concurrency hold in panic, too: they protect the endpoints, whatever is known of their health.
 *
 *     const member = pool.pick(facts, tried, now, random);
 *     if ("none" in member) ...                       // 503
 *     member.endpoint.started();
 *     member.endpoint.finished(outcome, startedAt, now);
 *     tried.push(member.endpoint);                    // before the next pick of the same request
 */
export class Pool {
  /** How many priorities it has. */
  readonly levels: number;
  readonly #levels: readonly Level[];
  readonly #places = new Map<Endpoint, EndpointPlace>();
  readonly #hasBreakers: boolean;
  readonly #nearest: boolean;
  /** The levels as they are near to the last request. An isolate stands in one data centre, so that is mostly the next one's order. */
  #orderedFor: Degrees | undefined;
  #ordered: readonly Level[] = [];
  /** Of the choice that is being made: who may get the request, and what kept the others from it. */
  readonly #candidates: Member[] = [];
  #count = 0;
  #breakerWait = 0;
  #overloaded = false;

  constructor(pool: TablePool, table: Pick<RouteTable, "backends">, endpoints: Endpoints, random: () => number) {
    this.#levels = pool.levels.map(
      (level) => new Level(level, table, endpoints, (endpoint) => this.#place(endpoint), random),
    );
    this.levels = pool.levels.length;
    this.#hasBreakers = [...this.#places.keys()].some(({ breaker }) => breaker);
    this.#nearest = pool.nearest ?? false;
  }

  /**
   * The endpoint for the next try of a request. `tried` are those that it has been sent to, the last one last: they are passed over
   * while another may be asked, the last one the longest.
   */
  pick(facts: RequestFacts, tried: readonly Endpoint[], now: number, random: () => number): PoolMember | Refusal {
    const levels = this.#nearest ? this.#byDistance(facts.location) : this.#levels;
    // One draw for all breakers: where several recover, the share of requests that pass is still the ramp's.
    const draw = this.#hasBreakers ? random() : 0;
    this.#breakerWait = Number.POSITIVE_INFINITY;
    this.#overloaded = false;
    let member = this.#pickFrom(levels, facts, tried, now, draw, random);
    if (!member && tried.length > 1) member = this.#pickFrom(levels, facts, tried.slice(-1), now, draw, random);
    if (!member && tried.length > 0) member = this.#pickFrom(levels, facts, [], now, draw, random);
    if (member) return member;
    if (this.#breakerWait < Number.POSITIVE_INFINITY) return { none: "breaker-open", retryAfterMs: this.#breakerWait };
    return { none: this.#overloaded ? "overloaded" : "no-healthy" };
  }

  #pickFrom(
    levels: readonly Level[],
    facts: RequestFacts,
    avoid: readonly Endpoint[],
    now: number,
    draw: number,
    random: () => number,
  ): Member | undefined {
    let anyFailed = false;
    for (const level of levels) {
      if (level.hasFailed(now)) anyFailed = true;
      else if (this.#gather(level, false, avoid, now, draw)) return this.#balance(level, facts, random);
    }
    if (!anyFailed) return undefined;
    for (const level of levels) {
      if (level.panicThreshold === 0 || !level.hasFailed(now)) continue;
      if (this.#gather(level, true, avoid, now, draw)) return this.#balance(level, facts, random);
    }
    return undefined;
  }

  /** Puts together who of a level may be asked, in panic also those that are out; whether there is anyone. */
  #gather({ members }: Level, panic: boolean, avoid: readonly Endpoint[], now: number, draw: number): boolean {
    this.#count = 0;
    for (const member of members) {
      const { endpoint } = member;
      if ((!panic && !isIn(member, now)) || (avoid.length > 0 && avoid.includes(endpoint))) continue;
      if (endpoint.active >= endpoint.concurrency) {
        this.#overloaded = true;
        continue;
      }
      const wait = endpoint.breaker ? endpoint.breaker.admit(now, draw) : 0;
      if (wait === 0) this.#candidates[this.#count++] = member;
      else if (wait < this.#breakerWait) this.#breakerWait = wait;
    }
    return this.#count > 0;
  }

  #balance({ by, affinity }: Level, facts: RequestFacts, random: () => number): Member {
    const candidates = this.#candidates;
    const count = this.#count;
    const id = affinity === undefined ? undefined : facts.cookie(affinity);
    if (id !== undefined) {
      for (let i = 0; i < count; i++) if (candidates[i]?.endpoint.id === id) return candidates[i] as Member;
    }
    if (count === 1) return candidates[0] as Member;
    if (by === "round-robin") return inTurn(candidates, count);
    if (by === "least-request") return byLeastRequests(candidates, count, random);
    const key = facts.hashKey(by.hash);
    return key === undefined ? atRandom(candidates, count, random) : byHash(candidates, count, hash32(key));
  }

  #byDistance(location: Location | undefined): readonly Level[] {
    const from = location && whereabouts(location);
    if (from === undefined) return this.#levels;
    if (from !== this.#orderedFor) {
      this.#orderedFor = from;
      const regions = this.#levels.map(({ members }) => members[0]?.endpoint.region);
      this.#ordered = byDistance(regions, from).map((place) => this.#levels[place] as Level);
    }
    return this.#ordered;
  }

  #place(endpoint: Endpoint): EndpointPlace {
    let place = this.#places.get(endpoint);
    if (!place) {
      place = { ejectedUntil: 0, mayEject: (now) => this.#mayEject(endpoint, now) };
      this.#places.set(endpoint, place);
      endpoint.places.push(place);
    }
    return place;
  }

  /**
   * At most `maxEjectionPercent` of the pool, over all of its levels; of several endpoints one may always be ejected (Envoy's
   * `always_eject_one_host`), since with its default of 10 % fewer than ten endpoints would have no outlier detection at all. A single
   * endpoint is ejected at 100 % only: there is no other to ask.
   */
  #mayEject({ maxEjectionPercent }: Endpoint, now: number): boolean {
    let out = 1;
    for (const [endpoint, place] of this.#places) if (isEjected(endpoint, place, now)) out++;
    const { size } = this.#places;
    return out * 100 <= maxEjectionPercent * size || (out === 1 && size > 1);
  }
}

interface Member extends PoolMember {
  readonly place: EndpointPlace;
}

const isEjected = ({ outlier }: Endpoint, { ejectedUntil }: EndpointPlace, now: number): boolean =>
  ejectedUntil > now && outlier !== undefined && outlier.ejected(now);

const isIn = ({ endpoint, place }: Member, now: number): boolean =>
  endpoint.unhealthyUntil <= now && !isEjected(endpoint, place, now);

class Level {
  readonly members: readonly Member[];
  readonly panicThreshold: number;
  readonly by: TableLevel["by"];
  /** Name of the cookie. */
  readonly affinity: string | undefined;

  constructor(
    { backends, weights, by, affinity }: TableLevel,
    table: Pick<RouteTable, "backends">,
    endpoints: Endpoints,
    place: (endpoint: Endpoint) => EndpointPlace,
    random: () => number,
  ) {
    this.by = by;
    this.affinity = affinity?.cookie;
    const peers: Endpoint[] = [];
    this.members = backends.flatMap((backend, i): Member[] => {
      const weight = weights?.[i] ?? 1;
      // Never, not even when nobody else is there (BackendRef.weight of the Gateway API).
      if (weight === 0) return [];
      const endpoint = endpoints.of(table.backends[backend] as TableBackend);
      const cookie = affinity && { affinity: { ...affinity, value: endpoint.id } };
      peers.push(endpoint);
      return [{ backend, endpoint, peers, place: place(endpoint), weight, credit: 0, ...cookie }];
    });
    const thresholds = this.members.flatMap(({ endpoint }) => endpoint.panicThreshold ?? []);
    this.panicThreshold = thresholds.length > 0 ? Math.max(...thresholds) : PANIC_THRESHOLD;
    if (by === "round-robin") this.#enterCycle(random);
  }

  /** Else every isolate would begin with the same endpoint, and most isolates see few requests. */
  #enterCycle(random: () => number): void {
    const { members } = this;
    if (members.length < 2) return;
    const cycle = members.reduce((sum, { weight }) => sum + weight, 0);
    for (let steps = random() * Math.min(cycle, 1_000); steps >= 1; steps--) inTurn(members, members.length);
  }

  hasFailed(now: number): boolean {
    let inside = 0;
    for (const member of this.members) if (isIn(member, now)) inside++;
    return inside * 100 < this.panicThreshold * this.members.length;
  }
}
