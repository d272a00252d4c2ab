import { beforeEach, describe, expect, it } from "vitest";
import type { RouteTable, TableBackend, TableCluster, TableLevel, TablePool } from "../../src/table/table.ts";
import { type Endpoint, Endpoints, HEALTH_LIFETIME } from "../../src/traffic/endpoint.ts";
import type { Location } from "../../src/traffic/locality.ts";
import type { Outcome } from "../../src/traffic/outcome.ts";
import { chain, Pool, type RequestFacts } from "../../src/traffic/pool.ts";
import { BREAKER, OUTLIER } from "./defaults.ts";

const NOTHING: RequestFacts = { location: undefined, hashKey: () => undefined, cookie: () => undefined };

/** Endpoints a, b, c, ... each a cluster of its own, and pools over them. */
class Stand {
  now = 1_800_000_000_000;
  readonly table: Pick<RouteTable, "backends" | "clusters">;
  readonly endpoints: Endpoints;

  constructor(clusters: Record<string, Partial<TableCluster>>) {
    const names = Object.keys(clusters);
    this.table = {
      clusters: Object.fromEntries(
        names.map((name) => [
          name,
          { name, ingress: { env: "INGRESS" }, scheme: "https", assertion: false, ...clusters[name] },
        ]),
      ),
      backends: names.map((name) => ({ name, cluster: name })),
    };
    this.endpoints = new Endpoints(this.table.clusters);
  }

  pool(pool: TablePool): Pool {
    return new Pool(pool, this.table, this.endpoints, () => 0);
  }

  at(name: string): Endpoint {
    return this.endpoints.of(this.#backend(name));
  }

  health(name: string, healthy: boolean) {
    this.endpoints.setHealth(this.#backend(name), healthy, this.now);
  }

  /** Sends `count` requests to it, past any pool. */
  send(name: string, outcome: Outcome, count: number) {
    for (let i = 0; i < count; i++) {
      this.at(name).started();
      this.at(name).finished(outcome, this.now, this.now);
    }
  }

  /** Names of who gets the next `count` requests, or why nobody does. */
  picks(pool: Pool, count: number, facts: Partial<RequestFacts> = {}, tried: string[] = []): string {
    const all = Array.from({ length: count }, () => {
      const before = tried.map((name) => this.at(name));
      const member = pool.pick({ ...NOTHING, ...facts }, before, this.now, () => 0.999);
      return "none" in member ? member.none : this.table.backends[member.backend]?.name;
    });
    return [...new Set(all)].sort().join(" ");
  }

  #backend(name: string): TableBackend {
    return this.table.backends.find((backend) => backend.name === name) as TableBackend;
  }
}

const level = (backends: number[], more: Partial<TableLevel> = {}): TableLevel => ({
  backends,
  by: "round-robin",
  ...more,
});
const one = (...backends: number[]): TablePool => ({ levels: [level(backends)] });

describe("priorities", () => {
  let stand: Stand;
  let pool: Pool;
  beforeEach(() => {
    stand = new Stand({ a: { outlier: OUTLIER }, b: { outlier: OUTLIER }, c: {}, d: {} });
    pool = stand.pool({ levels: [level([0, 1]), level([2]), level([3])] });
  });

  it("asks the first level while it is well", () => {
    expect(stand.picks(pool, 10)).toBe("a b");
  });

  it("asks who is left of it while that is enough", () => {
    stand.send("a", 503, 5);
    expect(stand.picks(pool, 10)).toBe("b");
  });

  it("asks the next level when nobody of the first is in, and the first again when somebody is", () => {
    stand.send("a", 503, 5);
    stand.health("b", false);
    expect(stand.picks(pool, 10)).toBe("c");
    stand.now += OUTLIER.baseEjectionTime;
    expect(stand.picks(pool, 10)).toBe("a");
  });

  it("asks the next one within a request, each once before any is asked again, and the last one last", () => {
    expect(stand.picks(pool, 10, {}, ["a"])).toBe("b");
    expect(stand.picks(pool, 10, {}, ["a", "b"])).toBe("c");
    expect(stand.picks(pool, 10, {}, ["a", "b", "c"])).toBe("d");
    expect(stand.picks(pool, 10, {}, ["a", "b", "c", "d"])).toBe("a b");
    expect(stand.picks(pool, 10, {}, ["d", "c", "b", "a"])).toBe("b");
    expect(stand.picks(stand.pool(one(0)), 10, {}, ["a"])).toBe("a");
  });

  it("are what a chain of backends is", () => {
    const chained = stand.pool(chain([2, 0, 3]));
    expect(stand.picks(chained, 5)).toBe("c");
    expect(stand.picks(chained, 5, {}, ["c"])).toBe("a");
    expect(stand.picks(chained, 5, {}, ["c", "a"])).toBe("d");
  });
});

describe("panic", () => {
  const health = { health: { path: "/", timeout: 1_000, unhealthy: 3, healthy: 2 } };
  const stand = (panicThreshold?: number) => {
    const cluster = { ...health, ...(panicThreshold !== undefined && { outlier: { ...OUTLIER, panicThreshold } }) };
    return new Stand({ a: cluster, b: cluster, c: cluster, d: cluster, e: {} });
  };

  it("a finding that is no longer renewed ends after ten minutes", () => {
    const two = new Stand({ a: health, b: health });
    const pool = two.pool(one(0, 1));
    two.health("a", false);
    two.now += HEALTH_LIFETIME - 1;
    expect(two.picks(pool, 4)).toBe("b");
    two.now++;
    expect(two.picks(pool, 4)).toBe("a b");
  });

  it("all are asked when fewer than half are in, also where health checks alone watch", () => {
    const four = stand();
    const pool = four.pool(one(0, 1, 2, 3));
    four.health("a", false);
    four.health("b", false);
    expect(four.picks(pool, 20)).toBe("c d");
    four.health("c", false);
    expect(four.picks(pool, 20)).toBe("a b c d");
  });

  it("does not come before another level that is well", () => {
    const four = stand(50);
    const pool = four.pool({ levels: [level([0, 1, 2, 3]), level([4])] });
    for (const name of ["a", "b", "c"]) four.health(name, false);
    expect(four.picks(pool, 20)).toBe("e");
    expect(four.picks(pool, 20, {}, ["e"])).toBe("a b c d");
  });

  it("at 0 never comes: nobody is asked", () => {
    const four = stand(0);
    const pool = four.pool(one(0, 1, 2, 3));
    for (const name of ["a", "b", "c"]) four.health(name, false);
    expect(four.picks(pool, 20)).toBe("d");
    four.health("d", false);
    expect(four.picks(pool, 20)).toBe("no-healthy");
  });
});

describe("limits that hold in any case", () => {
  it("concurrency: the others are asked, then nobody", () => {
    const stand = new Stand({ a: { concurrency: 2 }, b: { concurrency: 1 } });
    const pool = stand.pool(one(0, 1));
    stand.at("a").started();
    stand.at("a").started();
    expect(stand.picks(pool, 10)).toBe("b");
    stand.at("b").started();
    expect(stand.picks(pool, 10)).toBe("overloaded");
    stand.at("a").finished("cancelled", stand.now, stand.now);
    expect(stand.picks(pool, 10)).toBe("a");
  });

  it("an open breaker: the others are asked, then the next level, then nobody, and for how long", () => {
    const stand = new Stand({ a: { breaker: BREAKER }, b: { breaker: BREAKER }, c: { breaker: BREAKER } });
    const pool = stand.pool({ levels: [level([0, 1]), level([2])] });
    stand.send("a", 500, 20);
    expect(stand.picks(pool, 10)).toBe("b");
    stand.now += 1_000;
    stand.send("b", 500, 20);
    expect(stand.picks(pool, 10)).toBe("c");
    stand.send("c", 500, 20);
    expect(pool.pick(NOTHING, [], stand.now, () => 0)).toEqual({ none: "breaker-open", retryAfterMs: 9_000 });
  });

  it("hold in panic, too", () => {
    const stand = new Stand({ a: { breaker: BREAKER, outlier: { ...OUTLIER, maxEjectionPercent: 100 } } });
    const pool = stand.pool(one(0));
    stand.send("a", 500, 5);
    expect(stand.picks(pool, 10)).toBe("a");
    stand.send("a", 500, 15);
    expect(stand.picks(pool, 10)).toBe("breaker-open");
  });

  it("a weight of 0: never, whoever else is out", () => {
    const stand = new Stand({ a: { concurrency: 1 }, b: {} });
    const pool = stand.pool({ levels: [level([0, 1], { weights: [1, 0] })] });
    stand.at("a").started();
    expect(stand.picks(pool, 10)).toBe("overloaded");
    expect(stand.picks(stand.pool({ levels: [level([1], { weights: [0] })] }), 10)).toBe("no-healthy");
  });
});

describe("ejections", () => {
  const outlier = (maxEjectionPercent: number) => ({ outlier: { ...OUTLIER, maxEjectionPercent, panicThreshold: 0 } });

  it.each([
    [10, "ab", "b"],
    [0, "ab", "b"],
    [50, "abcd", "c d"],
    [49, "abcd", "b c d"],
    [100, "ab", "no-healthy"],
    [10, "a", "a"],
    [99, "a", "a"],
    [100, "a", "no-healthy"],
  ])("at %i %% of %s leave %s", (percent, names, left) => {
    const stand = new Stand(Object.fromEntries([...names].map((name) => [name, outlier(percent)])));
    const pool = stand.pool(one(...[...names].keys()));
    for (const name of names.slice(0, 2)) stand.send(name, 500, 5);
    expect(stand.picks(pool, 20)).toBe(left);
  });

  it("hold in every pool of the endpoint, as far as each one's share allows", () => {
    const stand = new Stand({ a: outlier(10), b: outlier(10), c: outlier(10) });
    const all = stand.pool(one(0, 1, 2));
    const pair = stand.pool(one(1, 2));
    const alone = stand.pool(one(1));
    stand.send("a", 500, 5);
    stand.send("b", 500, 5);
    // There is one out of three already, but none of the two; and the one that is alone has no other.
    expect(stand.picks(all, 20)).toBe("b c");
    expect(stand.picks(pair, 20)).toBe("c");
    expect(stand.picks(alone, 20)).toBe("b");
  });

  it("end when a health check finds the endpoint well again, and not when it finds it well as before", () => {
    const stand = new Stand({ a: outlier(10), b: outlier(10) });
    const pool = stand.pool(one(0, 1));
    stand.health("a", true);
    stand.send("a", 500, 5);
    stand.health("a", true);
    expect(stand.picks(pool, 20)).toBe("b");
    stand.health("a", false);
    expect(stand.picks(pool, 20)).toBe("b");
    stand.health("a", true);
    expect(stand.picks(pool, 20)).toBe("a b");
  });
});

it("backends that are the same address share one endpoint", () => {
  const { endpoints } = new Stand({ a: {} });
  const backend = { name: "a/x", cluster: "a", host: "x.example.com", path: "/x" };
  const headers = { request: [{ action: "set", name: "x-arm", value: "canary" }], response: [] } as const;
  expect(endpoints.of({ ...backend, headers })).toBe(endpoints.of(backend));
  expect(endpoints.of({ ...backend, path: "/y" })).not.toBe(endpoints.of(backend));
  expect(endpoints.of({ ...backend, host: "y.example.com" })).not.toBe(endpoints.of(backend));
});

describe("affinity", () => {
  const affinity = { cookie: "at", maxAge: 3_600 };
  let stand: Stand;
  let pool: Pool;
  beforeEach(() => {
    stand = new Stand({ a: { concurrency: 1 }, b: {}, c: {} });
    pool = stand.pool({ levels: [level([0, 1, 2], { affinity })] });
  });

  it("keeps a client where it is, while that is there", () => {
    const cookie = () => stand.at("a").id;
    expect(stand.picks(pool, 20, { cookie })).toBe("a");
    stand.at("a").started();
    expect(stand.picks(pool, 20, { cookie })).toBe("b c");
  });

  it("says which cookie keeps it there, and is moved by no other", () => {
    const member = pool.pick({ ...NOTHING, cookie: () => "elsewhere" }, [], stand.now, () => 0);
    expect(member).toMatchObject({ affinity: { ...affinity, value: "none" in member ? "" : member.endpoint.id } });
    expect(stand.picks(pool, 20, { cookie: (name) => (name === "other" ? stand.at("a").id : undefined) })).toBe(
      "a b c",
    );
  });
});

it("hashes by the request's key, and draws at random where it has none", () => {
  const stand = new Stand({ a: {}, b: {}, c: {} });
  const pool = stand.pool({ levels: [level([0, 1, 2], { by: { hash: { header: "x-tenant" } } })] });
  const tenant = (value: string) => ({
    hashKey: (key: unknown) => (JSON.stringify(key) === '{"header":"x-tenant"}' ? value : undefined),
  });
  expect(stand.picks(pool, 20, tenant("acme"))).toMatch(/^[abc]$/);
  const tenants = Array.from({ length: 50 }, (_, i) => stand.picks(pool, 1, tenant(`tenant ${i}`)));
  expect([...new Set(tenants)].sort()).toEqual(["a", "b", "c"]);
  expect(stand.picks(pool, 1)).toBe("c");
});

it("asks the nearest first, as far as a place is known", () => {
  const stand = new Stand({ us: { region: "enam" }, eu: { region: "weur" }, sg: { region: "apac" } });
  const pool = stand.pool({ ...chain([0, 1, 2]), nearest: true });
  const from = (location: Location | undefined, tried: string[] = []) => stand.picks(pool, 3, { location }, tried);
  expect(from({ colo: "FRA" })).toBe("eu");
  expect(from({ colo: "FRA" }, ["eu"])).toBe("us");
  expect(from({ colo: "NRT" })).toBe("sg");
  expect(from({ colo: "FRA" })).toBe("eu");
  expect(from({ latitude: "-33.9", longitude: "151.2" })).toBe("sg");
  expect(from({ latitude: "48.9", longitude: "2.4" })).toBe("eu");
  expect(from({})).toBe("us");
  expect(from(undefined)).toBe("us");
});

it("begins each isolate's turn somewhere else", () => {
  const stand = new Stand({ a: {}, b: {}, c: {} });
  const firsts = [0, 0.4, 0.8].map((random) => {
    const pool = new Pool(one(0, 1, 2), stand.table, stand.endpoints, () => random);
    return stand.picks(pool, 1);
  });
  expect(firsts.sort()).toEqual(["a", "b", "c"]);
});
