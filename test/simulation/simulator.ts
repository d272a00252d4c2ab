/**
 * A gateway between clients and endpoints in virtual time: the code of src/traffic as it runs in the Worker, from the choice of an
 * endpoint to whether there is another try, with simulated requests in the place of real ones. The seed decides everything; the same scenario gives the same run, to the last number.
 */
import type { RouteTable, TableBackend, TableCluster, TablePool, TableRetry } from "../../src/table/table.ts";
import { RetryBudget } from "../../src/traffic/budget.ts";
import { type Endpoint, Endpoints } from "../../src/traffic/endpoint.ts";
import type { Location } from "../../src/traffic/locality.ts";
import { isFailure, type Outcome } from "../../src/traffic/outcome.ts";
import { Pool, type PoolMember, type Refusal, type RequestFacts } from "../../src/traffic/pool.ts";
import { type Retrying, Series } from "../../src/traffic/series.ts";
import { PoolTries } from "../../src/traffic/tries.ts";
import { EventQueue } from "./event-queue.ts";
import { seededRandom } from "./random.ts";

/** Times are in milliseconds, those of a scenario from its beginning. */
export interface Scenario {
  readonly seed: number;
  /** How long new requests come in; what is under way then still ends. */
  readonly duration: number;
  readonly clients: readonly Client[];
  readonly endpoints: readonly SimulatedEndpoint[];
  /** Over the positions of `endpoints`. Default: all of them in one level, in turn. */
  readonly pool?: TablePool;
  /** Default: none, each request is tried once at each priority. */
  readonly retry?: TableRetry;
  /** For one try. Default: 15,000. */
  readonly firstByte?: number;
  /** For all tries of a request. Default: 60,000. */
  readonly total?: number;
  readonly location?: Location;
  readonly observer?: Observer;
}

/** `rate`: that many requests per second, at random times. `concurrency`: that many callers who each wait for their answer. */
export type Client = ({ readonly rate: number } | { readonly concurrency: number }) & {
  /** How many different hash keys (and cookie jars) the requests have. Default: 1. */
  readonly keys?: number;
};

export interface SimulatedEndpoint {
  /** What the cluster says of it. Default: nothing, so that nothing of it is remembered. */
  readonly cluster?: Partial<TableCluster>;
  readonly latency: Distribution;
  readonly faults?: readonly Fault[];
}

export type Distribution = (random: () => number) => number;

export const always =
  (value: number): Distribution =>
  () =>
    value;
export const exponential =
  (mean: number): Distribution =>
  (random) =>
    -mean * Math.log(1 - random());

/** `down`: refuses at once, and what is under way when it begins breaks off. `errors`: this share is answered with `status`. */
export type Fault = { readonly from: number; readonly to: number } & (
  | { readonly kind: "down" }
  | { readonly kind: "slow"; readonly factor: number }
  | { readonly kind: "errors"; readonly share: number; readonly status: number }
);

/** Called as things happen; `now` is from the scenario's beginning. */
export interface Observer {
  /** Before the endpoint counts it; `tries` from 1. */
  tryBegins?(attempt: Attempt, now: number, simulation: Simulation): void;
  /** When the endpoint has counted it. */
  tryEnds?(attempt: Attempt & { readonly outcome: Outcome }, now: number, simulation: Simulation): void;
  /** What the client gets. */
  answered?(outcome: Outcome | Refusal, now: number): void;
}

export interface Attempt {
  /** Requests are numbered from 0. */
  readonly request: number;
  readonly key: number;
  readonly tries: number;
  readonly endpoint: number;
}

export interface Report {
  requests: number;
  /** Answered by an endpoint below 500. */
  succeeded: number;
  /** Of the others: an endpoint's 5xx, or no answer from it. */
  failed: number;
  /** Not sent anywhere. */
  refused: { "breaker-open": number; overloaded: number; "no-healthy": number };
  /** Tries after a request's first one, those at the next priority among them. */
  retries: number;
  /** Why failed tries were not followed by a retry. */
  notRetried: Record<string, number>;
  /** Tries per endpoint. */
  tries: number[];
  events: number;
}

// The clock that the algorithms see: something that an edge would see, so that nothing rests on it beginning at 0.
const EPOCH = Date.UTC(2026, 0, 1);
/** How long a connection that is refused takes. */
export const REFUSAL_MS = 1;

const ARRIVAL = 0;
const TRY_ENDS = 1 << 24;
const RETRY_DUE = 2 << 24;
const INDEX = (1 << 24) - 1;

export class Simulation {
  readonly #scenario: Scenario;
  readonly #queue = new EventQueue();
  // The world's luck does not depend on how much of it the gateway uses up: two gateways can be compared in the same world.
  readonly #world: () => number;
  readonly #gateway: () => number;
  readonly #pool: Pool;
  readonly #retrying: Retrying | undefined;
  readonly #table: Pick<RouteTable, "backends" | "clusters">;
  readonly #registry: Endpoints;
  readonly endpoints: readonly Endpoint[];
  /** Under way, by slot. */
  readonly #requests: Request[] = [];
  readonly #free: number[] = [];
  readonly #callers: Caller[] = [];
  readonly report: Report = {
    requests: 0,
    succeeded: 0,
    failed: 0,
    refused: { "breaker-open": 0, overloaded: 0, "no-healthy": 0 },
    retries: 0,
    notRetried: {},
    tries: [],
    events: 0,
  };

  constructor(scenario: Scenario) {
    this.#scenario = scenario;
    this.#world = seededRandom(scenario.seed);
    this.#gateway = seededRandom(scenario.seed + 2 ** 40);
    this.#table = {
      clusters: Object.fromEntries(
        scenario.endpoints.map(({ cluster }, i) => [`e${i}`, { ...PLAIN_CLUSTER, name: `e${i}`, ...cluster }]),
      ),
      backends: scenario.endpoints.map((_, i) => ({ name: `e${i}`, cluster: `e${i}` })),
    };
    this.#registry = new Endpoints(this.#table.clusters);
    this.endpoints = this.#table.backends.map((backend) => this.#registry.of(backend));
    const pool = scenario.pool ?? { levels: [{ backends: [...scenario.endpoints.keys()], by: "round-robin" }] };
    this.#pool = new Pool(pool, this.#table, this.#registry, this.#gateway);
    const { retry } = scenario;
    this.#retrying = retry && { rules: retry, budget: new RetryBudget(retry.budget) };
    this.report.tries = scenario.endpoints.map(() => 0);
    for (const client of scenario.clients) {
      const caller = { client, jars: Array.from({ length: client.keys ?? 1 }, () => new Map<string, string>()) };
      if ("rate" in client) this.#queue.at(this.#untilNext(client.rate), ARRIVAL | (this.#callers.push(caller) - 1));
      else for (let i = 0; i < client.concurrency; i++) this.#queue.at(0, ARRIVAL | (this.#callers.push(caller) - 1));
    }
  }

  /** What health checks found; to be called from an observer, or before the run. */
  setHealth(endpoint: number, healthy: boolean): void {
    this.#registry.setHealth(this.#table.backends[endpoint] as TableBackend, healthy, this.#clock());
  }

  /** Which endpoints the pool passes over at the moment. */
  ejected(): number[] {
    const now = this.#clock();
    return [...this.endpoints.keys()].filter((i) => {
      const { outlier, places } = this.endpoints[i] as Endpoint;
      return outlier?.ejected(now) && places.some(({ ejectedUntil }) => ejectedUntil > now);
    });
  }

  run(): Report {
    for (let event = this.#queue.next(); event !== -1; event = this.#queue.next()) {
      this.report.events++;
      const index = event & INDEX;
      if ((event & TRY_ENDS) !== 0) this.#tryEnds(index);
      else if ((event & RETRY_DUE) !== 0) this.#try(index);
      else this.#arrives(index);
    }
    return this.report;
  }

  #arrives(caller: number): void {
    const { now } = this.#queue;
    const { client, jars } = this.#callers[caller] as Caller;
    if (now >= this.#scenario.duration) return;
    if ("rate" in client) this.#queue.at(now + this.#untilNext(client.rate), ARRIVAL | caller);
    const slot = this.#free.pop() ?? this.#requests.push(this.#newRequest()) - 1;
    const request = this.#requests[slot] as Request;
    request.request = this.report.requests++;
    request.caller = caller;
    request.key = jars.length === 1 ? 0 : Math.floor(this.#world() * jars.length);
    request.jar = jars[request.key] as Map<string, string>;
    request.begunAt = now;
    request.choices.reset();
    request.series.began();
    this.#try(slot);
  }

  #newRequest(): Request {
    return new Request(this.#pool, this.#scenario.location, this.#retrying, this.#gateway);
  }

  #try(slot: number): void {
    const { now } = this.#queue;
    const request = this.#requests[slot] as Request;
    const isFirst = request.series.tries === 0;
    const member = request.series.choose(this.#clock());
    if ("none" in member) {
      // What a try before has brought is the better answer.
      this.#answer(slot, isFirst ? member : request.outcome);
      return;
    }
    if (!isFirst) this.report.retries++;
    if (member.affinity) request.jar.set(member.affinity.cookie, member.affinity.value);
    request.endpoint = member.backend;
    request.tryAt = now;
    this.#scenario.observer?.tryBegins?.(request, now, this);
    member.endpoint.started();
    (this.report.tries[member.backend] as number)++;
    this.#queue.at(this.#decideTry(request), TRY_ENDS | slot);
  }

  /** Decides the try's outcome when it begins, since the scenario knows the future, and returns when it ends. */
  #decideTry(request: Request): number {
    const { now } = this.#queue;
    const { latency, faults = NO_FAULTS } = this.#scenario.endpoints[request.endpoint] as SimulatedEndpoint;
    const { firstByte = 15_000, total = 60_000 } = this.#scenario;
    const atMost = Math.min(firstByte, request.begunAt + total - now);
    let takes = latency(this.#world);
    request.outcome = 200;
    for (const fault of faults) {
      if (now < fault.from || now >= fault.to) continue;
      if (fault.kind === "slow") takes *= fault.factor;
      else if (fault.kind === "errors" && this.#world() < fault.share) request.outcome = fault.status;
      else if (fault.kind === "down") {
        request.outcome = "connection";
        return now + REFUSAL_MS;
      }
    }
    for (const fault of faults) {
      if (fault.kind !== "down" || fault.from <= now || fault.from >= now + Math.min(takes, atMost)) continue;
      request.outcome = "connection";
      return fault.from;
    }
    if (takes >= atMost) request.outcome = "timeout";
    return now + Math.min(takes, atMost);
  }

  #tryEnds(slot: number): void {
    const { now } = this.#queue;
    const { observer, total = 60_000 } = this.#scenario;
    const request = this.#requests[slot] as Request;
    const endpoint = this.endpoints[request.endpoint] as Endpoint;
    endpoint.finished(request.outcome, EPOCH + request.tryAt, this.#clock());
    observer?.tryEnds?.(request, now, this);
    const { after, notRetried } = request.series.ended(request.outcome, this.#clock(), request.begunAt + total - now);
    if (notRetried) this.report.notRetried[notRetried] = (this.report.notRetried[notRetried] ?? 0) + 1;
    if (after === undefined) this.#answer(slot, request.outcome);
    else this.#queue.at(now + after, RETRY_DUE | slot);
  }

  #answer(slot: number, outcome: Outcome | Refusal): void {
    const { report } = this;
    const request = this.#requests[slot] as Request;
    request.series.over();
    if (typeof outcome === "object") report.refused[outcome.none]++;
    else if (isFailure(outcome)) report.failed++;
    else report.succeeded++;
    this.#scenario.observer?.answered?.(outcome, this.#queue.now);
    this.#free.push(slot);
    // A caller who gets no answer at once would else never let time go by.
    const { client } = this.#callers[request.caller] as Caller;
    if ("concurrency" in client) this.#queue.at(this.#queue.now + REFUSAL_MS, ARRIVAL | request.caller);
  }

  #untilNext(rate: number): number {
    return (-Math.log(1 - this.#world()) * 1_000) / rate;
  }

  #clock(): number {
    return EPOCH + this.#queue.now;
  }
}

export const simulate = (scenario: Scenario): Report => new Simulation(scenario).run();

interface Caller {
  readonly client: Client;
  /** Cookies, by key. */
  readonly jars: readonly Map<string, string>[];
}

class Request implements Attempt, RequestFacts {
  request = 0;
  caller = 0;
  key = 0;
  jar: Map<string, string> = NO_COOKIES;
  begunAt = 0;
  tryAt = 0;
  endpoint = 0;
  outcome: Outcome = 200;
  readonly location: Location | undefined;
  readonly choices: PoolTries;
  readonly series: Series<PoolMember>;

  constructor(pool: Pool, location: Location | undefined, retrying: Retrying | undefined, random: () => number) {
    this.location = location;
    this.choices = new PoolTries(pool, this, random);
    this.series = new Series(this.choices, "GET", true, retrying, random);
  }

  get tries(): number {
    return this.series.tries;
  }

  hashKey(): string {
    return `key ${this.key}`;
  }

  cookie(name: string): string | undefined {
    return this.jar.get(name);
  }
}

const NO_FAULTS: readonly Fault[] = [];
const NO_COOKIES = new Map<string, string>();
const PLAIN_CLUSTER: TableCluster = { name: "", ingress: { env: "INGRESS" }, scheme: "https", assertion: false };
