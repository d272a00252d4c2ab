/**
 * A gateway between clients and endpoints in virtual time: the code of src/traffic as it runs in the Worker, with simulated requests
 * in the place of real ones. The seed decides everything; the same scenario gives the same run, to the last number.
 */
import type { RouteTable, TableBackend, TableCluster, TablePool, TableRetry } from "../../src/table/table.ts";
import { RetryBudget } from "../../src/traffic/budget.ts";
import { type Endpoint, Endpoints } from "../../src/traffic/endpoint.ts";
import type { Location } from "../../src/traffic/locality.ts";
import { isFailure, type Outcome } from "../../src/traffic/outcome.ts";
import { Pool, type Refusal, type RequestFacts } from "../../src/traffic/pool.ts";
import { decideRetry, type RetryVerdict } from "../../src/traffic/retry.ts";
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
  /** Default: none, each request is tried once. */
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
  retries: number;
  /** Why failed tries were not followed by another. */
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
  readonly #budget: RetryBudget | undefined;
  readonly #table: Pick<RouteTable, "backends" | "clusters">;
  readonly #registry: Endpoints;
  readonly endpoints: readonly Endpoint[];
  /** Under way, by slot. */
  readonly #requests: Request[] = [];
  readonly #free: number[] = [];
  readonly #callers: Caller[] = [];
  readonly #facts: RequestFacts & { of: Request | undefined };
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
    this.#budget = scenario.retry && new RetryBudget(scenario.retry.budget);
    this.report.tries = scenario.endpoints.map(() => 0);
    this.#facts = {
      of: undefined,
      location: scenario.location,
      hashKey() {
        return `key ${this.of?.key}`;
      },
      cookie(name) {
        return this.of?.jar.get(name);
      },
    };
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
    const slot = this.#free.pop() ?? this.#requests.push(new Request()) - 1;
    const request = this.#requests[slot] as Request;
    request.request = this.report.requests++;
    request.caller = caller;
    request.key = jars.length === 1 ? 0 : Math.floor(this.#world() * jars.length);
    request.jar = jars[request.key] as Map<string, string>;
    request.begunAt = now;
    request.tries = 0;
    request.tried.length = 0;
    this.#budget?.began();
    this.#try(slot);
  }

  #try(slot: number): void {
    const { now } = this.#queue;
    const request = this.#requests[slot] as Request;
    this.#facts.of = request;
    const member = this.#pool.pick(this.#facts, request.tried, this.#clock(), this.#gateway);
    const isRetry = request.tries > 0;
    if ("none" in member) {
      if (isRetry) this.#budget?.release();
      // What a try before has brought is the better answer.
      this.#answer(slot, isRetry ? request.outcome : member);
      return;
    }
    if (isRetry) this.report.retries++;
    if (member.affinity) request.jar.set(member.affinity.cookie, member.affinity.value);
    request.tries++;
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
    const { firstByte = 15_000 } = this.#scenario;
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
      if (fault.kind !== "down" || fault.from <= now || fault.from >= now + Math.min(takes, firstByte)) continue;
      request.outcome = "connection";
      return fault.from;
    }
    if (takes >= firstByte) request.outcome = "timeout";
    return now + Math.min(takes, firstByte);
  }

  #tryEnds(slot: number): void {
    const { now } = this.#queue;
    const { retry, observer } = this.#scenario;
    const request = this.#requests[slot] as Request;
    const endpoint = this.endpoints[request.endpoint] as Endpoint;
    endpoint.finished(request.outcome, EPOCH + request.tryAt, this.#clock());
    observer?.tryEnds?.(request, now, this);
    if (request.tries > 1) this.#budget?.release();
    const verdict =
      retry && this.#budget && isFailure(request.outcome) && this.#decideRetry(request, retry, this.#budget);
    if (verdict && "after" in verdict) {
      request.tried.push(endpoint);
      this.#queue.at(now + verdict.after, RETRY_DUE | slot);
    } else this.#answer(slot, request.outcome);
  }

  #decideRetry({ tries, outcome, begunAt }: Request, retry: TableRetry, budget: RetryBudget): RetryVerdict {
    const remaining = (this.#scenario.total ?? 60_000) - (this.#queue.now - begunAt);
    const verdict = decideRetry(
      retry,
      { method: "GET", replayable: true, tries, outcome, remaining },
      budget,
      this.#gateway,
    );
    if ("not" in verdict) this.report.notRetried[verdict.not] = (this.report.notRetried[verdict.not] ?? 0) + 1;
    return verdict;
  }

  #answer(slot: number, outcome: Outcome | Refusal): void {
    const { report } = this;
    const request = this.#requests[slot] as Request;
    this.#budget?.ended();
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

class Request implements Attempt {
  request = 0;
  caller = 0;
  key = 0;
  jar: Map<string, string> = NO_COOKIES;
  begunAt = 0;
  tryAt = 0;
  tries = 0;
  endpoint = 0;
  outcome: Outcome = 200;
  readonly tried: Endpoint[] = [];
}

const NO_FAULTS: readonly Fault[] = [];
const NO_COOKIES = new Map<string, string>();
const PLAIN_CLUSTER: TableCluster = { name: "", ingress: { env: "INGRESS" }, scheme: "https", assertion: false };
