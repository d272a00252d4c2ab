import { hash32 } from "../table/split.ts";
import type { RouteTable, TableBackend, TableCluster } from "../table/table.ts";
import { CircuitBreaker } from "./breaker.ts";
import type { Outcome } from "./outcome.ts";
import { OutlierDetector } from "./outlier.ts";

/**
 * Milliseconds for which a finding of the health checks holds, in the store from when it was written and in an isolate from when it was
 * last read: where there are no news any more, all count as healthy.
 */
export const HEALTH_LIFETIME = 600_000;

/**
 * One address that requests are sent to, with all that is remembered of it. Backends that differ only in what is done to the
 * request (headers, rewrites, mirrors) are the same endpoint, and share its state, also between pools.
 */
export class Endpoint {
  readonly key: string;
  /** What an affinity cookie holds: tells endpoints apart without telling their names. */
  readonly id: string;
  readonly hash: number;
  readonly region: string | undefined;
  /** Requests that may be under way; Infinity: any number. */
  readonly concurrency: number;
  readonly outlier: OutlierDetector | undefined;
  readonly breaker: CircuitBreaker | undefined;
  readonly maxEjectionPercent: number;
  readonly panicThreshold: number | undefined;
  /** Until when the finding of a health check holds that it is unhealthy; 0: there is none. */
  unhealthyUntil = 0;
  /** Requests under way. */
  active = 0;
  /** Its places in pools, each of which decides for itself whether an ejection holds there. */
  readonly places: EndpointPlace[] = [];

  constructor(key: string, { region, concurrency, outlier, breaker }: TableCluster) {
    this.key = key;
    this.hash = hash32(key);
    this.id = this.hash.toString(36);
    this.region = region;
    this.concurrency = concurrency ?? Number.POSITIVE_INFINITY;
    this.outlier = outlier && new OutlierDetector(outlier);
    this.breaker = breaker && new CircuitBreaker(breaker);
    this.maxEjectionPercent = outlier?.maxEjectionPercent ?? 0;
    this.panicThreshold = outlier?.panicThreshold;
  }

  /** A try begins. To be followed by one `finished`, whatever happens. */
  started(): void {
    this.active++;
  }

  /** What became of the try that began at `startedAt`: called when its answer's headers are there, or will not come. */
  finished(outcome: Outcome, startedAt: number, now: number): void {
    this.active--;
    this.breaker?.record(outcome, startedAt, now);
    if (this.outlier?.record(outcome, now)) this.#eject(this.outlier, now);
  }

  #eject(outlier: OutlierDetector, now: number): void {
    let until = 0;
    for (const place of this.places) {
      const holds = place.mayEject(now);
      if (holds && until === 0) until = outlier.eject(now);
      place.ejectedUntil = holds ? until : 0;
    }
  }
}

/** Where an endpoint is in one pool. */
export interface EndpointPlace {
  /** Until when this pool passes it over, as long as the endpoint itself counts as ejected; 0: it does not. */
  ejectedUntil: number;
  mayEject(now: number): boolean;
}

/** What two backends have in common that are the same address: cluster, Host and the path in front. */
export const endpointKey = ({ cluster, host, path }: TableBackend): string =>
  `${cluster}\n${host ?? ""}\n${path ?? ""}`;

/** All endpoints of a table, as one isolate knows them. */
export class Endpoints {
  readonly #clusters: RouteTable["clusters"];
  readonly #byKey = new Map<string, Endpoint>();

  constructor(clusters: RouteTable["clusters"]) {
    this.#clusters = clusters;
  }

  of(backend: TableBackend): Endpoint {
    const key = endpointKey(backend);
    let endpoint = this.#byKey.get(key);
    if (!endpoint) {
      endpoint = new Endpoint(key, this.#clusters[backend.cluster] as TableCluster);
      this.#byKey.set(key, endpoint);
    }
    return endpoint;
  }

  /**
   * What active health checks found, as often as it is read. Becoming healthy also ends an ejection; still being healthy does not,
   * since the same finding is read many times over.
   */
  setHealth(backend: TableBackend, healthy: boolean, now: number): void {
    const endpoint = this.of(backend);
    if (healthy && endpoint.unhealthyUntil > 0) endpoint.outlier?.pardon(now);
    endpoint.unhealthyUntil = healthy ? 0 : now + HEALTH_LIFETIME;
  }
}
