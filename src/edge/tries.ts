/**
 * Whom a request is sent to, try by try. A route whose clusters have nothing that must be remembered (no outlier detection, breaker,
 * health checks or cap) has its list of backends and that is all; the others ask the pool, whose state is the isolate's.
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
import { type Endpoint, Endpoints } from "../traffic/endpoint.ts";
import { chain, Pool, type PoolMember, type Refusal } from "../traffic/pool.ts";
import { cookieValue, queryValue } from "./request-target.ts";

/** One place to send the request to. */
export interface Choice {
  /** Position in the table's backends. */
  readonly backend: number;
  /** What is remembered of it, where anything is. */
  readonly endpoint?: Endpoint;
  readonly affinity?: PoolMember["affinity"];
}

export interface Tries {
  /** Whether a priority is left that has not been asked: without a retry being configured, one place of each may be. */
  readonly further: boolean;
  /**
   * `onward`: of another priority than those that have been asked, while anyone there may be, and nobody who has been asked before:
   * that would be a retry.
   */
  next(now: number, onward: boolean): Choice | Refusal;
}

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
    const levels = "levels" in declared ? declared.levels.length : declared.backends.length;
    return new PoolTries(pool, levels, exchange, request);
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

class ListTries implements Tries {
  readonly #backends: readonly number[];
  #tried = 0;

  constructor(backends: readonly number[]) {
    this.#backends = backends;
  }

  get further(): boolean {
    return this.#tried < this.#backends.length;
  }

  /** After the last one comes the first again: with one backend alone, a retry has nowhere else to go. */
  next(): Choice {
    return { backend: this.#backends[this.#tried++ % this.#backends.length] as number };
  }
}

class PoolTries implements Tries {
  readonly #pool: Pool;
  readonly #levels: number;
  readonly #exchange: Exchange;
  readonly #request: Request;
  /** To be passed over, the last one asked last. */
  #tried: Endpoint[] = [];
  readonly #sent: Endpoint[] = [];
  /** The priorities that have been asked, by their endpoints; one twice where nobody further on could be asked in its place. */
  readonly #asked: (readonly Endpoint[])[] = [];

  constructor(pool: Pool, levels: number, exchange: Exchange, request: Request) {
    this.#pool = pool;
    this.#levels = levels;
    this.#exchange = exchange;
    this.#request = request;
  }

  get further(): boolean {
    return this.#asked.length < this.#levels;
  }

  next(now: number, onward: boolean): Choice | Refusal {
    if (onward) this.#tried = [...this.#asked.flat(), ...this.#tried];
    const choice = this.#pool.pick(this, this.#tried, now, Math.random);
    if ("none" in choice) return choice;
    if (onward && this.#sent.includes(choice.endpoint)) return { none: "no-healthy" };
    this.#tried.push(choice.endpoint);
    this.#sent.push(choice.endpoint);
    if (onward || !this.#asked.includes(choice.peers)) this.#asked.push(choice.peers);
    return choice;
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
