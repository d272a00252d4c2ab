/**
 * Among whom a request's tries choose (traffic/tries.ts). A route whose clusters have nothing that must be remembered (no outlier
 * detection, breaker, health checks or cap) has its list of backends and that is all; the others ask the pool, whose state is the
 * isolate's.
 */
import type { Exchange } from "../policies/contract.ts";
import { subscriberOf } from "../table/cidr.ts";
import type {
  EdgeTable,
  ForwardAction,
  PoolAction,
  TableHashKey,
  TableMirror,
  TablePool,
  TableRetry,
} from "../table/table.ts";
import { RetryBudget } from "../traffic/budget.ts";
import { Endpoints } from "../traffic/endpoint.ts";
import { chain, Pool, type RequestFacts } from "../traffic/pool.ts";
import { ListTries, PoolTries, type Tries } from "../traffic/tries.ts";
import { cookieValue, queryValue } from "./request-target.ts";

/** Tells `endpoints` what the health checks have found. Never throws. */
export type HealthReader = (table: EdgeTable, env: unknown, endpoints: Endpoints) => Promise<void>;

// The cron trigger runs once a minute, so that a finding is at most that much and this old.
const HEALTH_INTERVAL = 10_000;

/** What one isolate remembers of the places that it sends requests to. */
export class Traffic {
  readonly endpoints: Endpoints;
  readonly #table: EdgeTable;
  readonly #pools = new Map<TablePool | ForwardAction, Pool | undefined>();
  readonly #readHealth: HealthReader | undefined;
  #healthDue = 0;
  readonly #mirrored: boolean;
  readonly #budgets = new Map<TableRetry, RetryBudget>();

  constructor(table: EdgeTable, readHealth?: HealthReader) {
    this.#table = table;
    this.endpoints = new Endpoints(table.clusters);
    this.#readHealth = readHealth;
    this.#mirrored = table.backends.some(({ mirrors }) => mirrors);
  }

  /** Off the path of the request, which goes by what is known; every ten seconds at most. */
  readHealth(exchange: Exchange, env: unknown): void {
    if (!this.#readHealth) return;
    const now = Date.now();
    if (now < this.#healthDue) return;
    this.#healthDue = now + HEALTH_INTERVAL;
    exchange.waitUntil(this.#readHealth(this.#table, env, this.endpoints));
  }

  /** The largest body of which a copy is needed. */
  copiedFor(action: ForwardAction | PoolAction, mirrors: readonly TableMirror[]): number {
    let most = 0;
    for (const { maxBody } of mirrors) most = Math.max(most, maxBody);
    if (!this.#mirrored) return most;
    const levels = action.kind === "pool" ? this.#table.pools[action.pool]?.levels : [action];
    for (const { backends } of levels ?? [])
      for (const backend of backends)
        for (const { maxBody } of this.#table.backends[backend]?.mirrors ?? []) most = Math.max(most, maxBody);
    return most;
  }

  triesOf(action: ForwardAction | PoolAction, exchange: Exchange, request: Request): Tries {
    const declared = action.kind === "pool" ? (this.#table.pools[action.pool] as TablePool) : action;
    const pool = this.#poolOf(declared);
    if (!pool) return new ListTries((declared as ForwardAction).backends);
    return new PoolTries(pool, new EdgeFacts(exchange, request), Math.random);
  }

  budgetOf(retry: TableRetry): RetryBudget {
    let budget = this.#budgets.get(retry);
    if (!budget) {
      budget = new RetryBudget(retry.budget);
      this.#budgets.set(retry, budget);
    }
    return budget;
  }

  #poolOf(declared: TablePool | ForwardAction): Pool | undefined {
    if (this.#pools.has(declared)) return this.#pools.get(declared);
    const pool =
      "levels" in declared
        ? declared
        : declared.backends.some((backend) => this.#isWatched(backend))
          ? chain(declared.backends)
          : undefined;
    const made = pool && new Pool(pool, this.#table, this.endpoints, Math.random);
    this.#pools.set(declared, made);
    return made;
  }

  #isWatched(backend: number): boolean {
    const cluster = this.#table.clusters[this.#table.backends[backend]?.cluster ?? ""];
    return Boolean(cluster?.outlier || cluster?.breaker || cluster?.concurrency || cluster?.health);
  }
}

/** What choosing a place may ask of a request. */
class EdgeFacts implements RequestFacts {
  readonly #exchange: Exchange;
  readonly #request: Request;

  constructor(exchange: Exchange, request: Request) {
    this.#exchange = exchange;
    this.#request = request;
  }

  get location(): Record<string, string> | undefined {
    return this.#request.cf as Record<string, string> | undefined;
  }

  hashKey(key: TableHashKey): string | undefined {
    const { headers } = this.#request;
    const { clientAddress, caller, search } = this.#exchange;
    if (key === "subject") return caller?.credential && caller.subject;
    if (key === "client") return `${subscriberOf(clientAddress)}\n${headers.get("user-agent") ?? ""}`;
    if ("header" in key) return headers.get(key.header) ?? undefined;
    if ("cookie" in key) return this.cookie(key.cookie);
    return queryValue(search, key.query) ?? undefined;
  }

  cookie(name: string): string | undefined {
    return cookieValue(this.#request.headers.get("cookie"), name) ?? undefined;
  }
}
