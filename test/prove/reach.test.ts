import { describe, expect, it } from "vitest";
import { TableRequests } from "../../src/prove/answers.ts";
import { costOf } from "../../src/prove/cost.ts";
import { proveTable } from "../../src/prove/prove.ts";
import { shownRequest } from "../../src/prove/request-set.ts";
import type { TableMatch, TablePolicy, TableRoute, ValueMatch } from "../../src/table/table.ts";
import { tableOf } from "./tables.ts";

const exact = (value: string, more: Partial<TableMatch> = {}): TableMatch => ({
  path: { kind: "exact", value },
  ...more,
});
const prefix = (value: string, more: Partial<TableMatch> = {}): TableMatch => ({
  path: { kind: "prefix", value },
  ...more,
});
const regex = (value: string, more: Partial<TableMatch> = {}): TableMatch => ({
  path: { kind: "regex", value },
  ...more,
});
const route = (id: string, matches: TableMatch[], more: Partial<TableRoute> = {}) => ({
  id: `t/${id}`,
  matches,
  ...more,
});

function found(routes: ReturnType<typeof route>[], more: Parameters<typeof tableOf>[1] = {}, notes = false) {
  return proveTable(tableOf(routes, more), { notes }).map(
    ({ kind, severity, route, winner, example }) =>
      `${severity} ${kind} ${route}${winner ? ` by ${winner}` : ""}${example ? `: ${shownRequest(example)}` : ""}`,
  );
}

describe("unreachable", () => {
  it.each<[name: string, routes: ReturnType<typeof route>[], told: string[]]>([
    ["nothing of ordinary specificity", [route("a", [exact("/a/b")]), route("b", [prefix("/a")])], []],
    [
      "a condition less on every value that there is",
      [
        route("a", [prefix("/a")]),
        route("b", [prefix("/a", { headers: [{ name: "x", regex: ".*" }] })]),
        route("c", [prefix("/a", { headers: [{ name: "x", exact: "1" }] })]),
      ],
      [
        'error unreachable t/c by t/b: GET https://x.example/a -H "x: 1"',
        'warning tie t/c by t/b: GET https://x.example/a -H "x: 1"',
      ],
    ],
    [
      "a prefix by a regex for all of it",
      [route("a", [prefix("/v1")]), route("b", [regex("/v1(?:/.*)?")])],
      ["error unreachable t/a by t/b: GET https://x.example/v1"],
    ],
    ["not by a regex for nearly all of it", [route("a", [prefix("/v1")]), route("b", [regex("/v1/.*")])], []],
    [
      "a regex by two others together",
      [route("a", [regex("/[ab]")]), route("b", [exact("/a")]), route("c", [exact("/b")])],
      ["error unreachable t/a by t/b: GET https://x.example/a"],
    ],
    [
      "a method that GET answers, by no means",
      [route("a", [prefix("/a", { methods: ["GET"] })]), route("b", [prefix("/a", { methods: ["HEAD"] })])],
      [],
    ],
    [
      "a method that GET answers, where a wider route has it itself",
      [
        route("a", [prefix("/a", { methods: ["GET"], headers: [{ name: "x", exact: "1" }] })]),
        route("b", [prefix("/a", { methods: ["GET"], headers: [{ name: "x" }] })]),
        route("c", [prefix("/a", { methods: ["GET", "HEAD"] })]),
      ],
      ['warning tie t/b by t/a: GET https://x.example/a -H "x: 1"'],
    ],
    ["a method that never comes in", [route("a", [exact("/a", { methods: ["TRACE"] })])], ["error unreachable t/a"]],
    ["a path that is no path", [route("a", [regex("/a//b")])], ["error unreachable t/a"]],
    [
      "one of several matches",
      [route("a", [exact("/a"), prefix("/b")]), route("b", [prefix("/b", { methods: ["GET", "POST"] })])],
      [],
    ],
  ])("%s", (_, routes, told) => {
    expect(found(routes)).toEqual(told);
  });

  it("tells of a match that the route's others make needless, as a note", () => {
    const routes = [route("a", [prefix("/a"), exact("/a/b")])];
    expect(found(routes)).toEqual([]);
    expect(found([route("a", [prefix("/a"), prefix("/a", { methods: ["GET"] })])], {}, true)).toEqual([]);
    const twice = [route("a", [exact("/a/{x}"), regex("/a/[0-9]+")])];
    expect(found(twice, {}, true)).toEqual(["note redundant t/a"]);
  });

  it("knows what is behind which listener", () => {
    const listeners = [
      { name: "all", port: 443, protocol: "https", host: "*.example.com" },
      { name: "api", port: 443, protocol: "https", host: "api.example.com" },
    ] as const;
    const behind = (...own: number[]) => [route("a", [prefix("/")], { hosts: ["api.example.com"], listeners: own })];
    // Requests for that host belong to the other listener.
    expect(found(behind(0), { listeners })).toEqual(["error unreachable t/a"]);
    expect(found(behind(1), { listeners })).toEqual([]);
  });

  it("only warns where the Gateway API accepts it", () => {
    const { gateway } = tableOf([]);
    const routes = [route("a", [exact("/a")], { order: 0 }), route("b", [exact("/a")], { order: 1 })];
    const told = found(routes, { gateway: { ...gateway, semantics: "gateway-api" } });
    expect(told).toEqual(["warning unreachable t/b by t/a: GET https://x.example/a"]);
  });

  it("never takes a preflight for an answer of the route that names it, where another one's CORS answers", () => {
    const cors: TablePolicy = { policy: "cors", mode: "enforce", config: {} };
    const asked = [{ name: "origin" }, { name: "access-control-request-method", exact: "GET" }];
    const named = route("named", [exact("/a", { methods: ["OPTIONS"], headers: asked })]);
    const get = route("get", [exact("/a", { methods: ["GET"] })], { policies: [0] });
    const space = new TableRequests(tableOf([get, named], { policies: [cors] }));
    expect(space.answer(space.positionOf("t/named") as number)).toMatchObject({ kind: "never", taken: [{ route: 0 }] });
    // Where the header may ask about more than GET, or what goes before that route knows no CORS, it answers some.
    const any = route("any", [exact("/a", { methods: ["OPTIONS"], headers: asked.map(({ name }) => ({ name })) })]);
    const more = new TableRequests(tableOf([get, any], { policies: [cors] }));
    expect(more.answer(more.positionOf("t/any") as number)).toMatchObject({ kind: "answers" });
    const before = route("before", [exact("/a", { methods: ["GET"], headers: [{ name: "x-a" }] })]);
    const leaving = new TableRequests(tableOf([before, get, named], { policies: [cors] }));
    expect(leaving.answer(leaving.positionOf("t/named") as number)).toMatchObject({
      kind: "answers",
      example: { headers: { "x-a": "1", "access-control-request-method": "GET" } },
    });
    const without = new TableRequests(tableOf([{ ...get, policies: [] }, named]));
    expect(without.answer(without.positionOf("t/named") as number).kind).toBe("answers");
  });

  it("does not know of regexes that are no automata, and says so", () => {
    const space = new TableRequests(tableOf([route("a", [regex("/(.)\\1")])]));
    expect(space.answer(0)).toEqual({ kind: "unknown", because: "regex" });
    const asks = (headers: readonly ValueMatch[], more = {}) => {
      const own = route("a", [exact("/a", { headers, ...more }), exact("/b", {})]);
      return proveTable(tableOf([own]), { notes: true }).map(({ kind, message, fix }) => `${kind}: ${message}; ${fix}`);
    };
    const told = (because: string, fix: string) => [
      expect.stringMatching(new RegExp(`^unknown: .* could not be decided, since ${because}.*; ${fix}`)),
    ];
    expect(asks([{ name: "x", regex: "(.)\\1" }])).toEqual(told("a regex with lookaround", "write that regex"));
    expect(asks([{ name: "x", exact: "é" }])).toEqual(told("a value with other", "nothing"));
    expect(asks([{ name: "host" }])).toEqual(told("the header host", "give the API `hosts`"));
    const cookies = { cookies: [{ name: "c" }] };
    expect(asks([{ name: "cookie" }], cookies)).toEqual(told("the header cookie", "ask for `cookies`"));
    // But a route that is not in its way has nothing to fear.
    expect(found([route("a", [regex("/(.)\\1")]), route("b", [prefix("/b")])])).toEqual([]);
  });
});

describe("ties", () => {
  const header = (name: string, exactly?: string) => ({ headers: [{ name, ...(exactly && { exact: exactly }) }] });

  it("are told with a request that both match", () => {
    const routes = [route("a", [prefix("/a", header("x-a"))]), route("b", [prefix("/a", header("x-b"))])];
    expect(found(routes)).toEqual(['warning tie t/b by t/a: GET https://x.example/a -H "x-a: 1" -H "x-b: 1"']);
  });

  it("are none between different values of one thing, however many", () => {
    const tenants = Array.from({ length: 1_000 }, (_, i) => route(`t${i}`, [prefix("/a", header("x-tenant", `${i}`))]));
    expect(found(tenants)).toEqual([]);
  });

  it("are none where a more specific route takes all that both match", () => {
    const both = { headers: [...header("x-a").headers, ...header("x-b").headers] };
    const routes = [
      route("a", [prefix("/a", header("x-a"))]),
      route("b", [prefix("/a", header("x-b"))]),
      route("c", [prefix("/a", both)]),
    ];
    expect(found(routes)).toEqual([]);
  });
});

it("lists what is left to more specific routes, by request and winner", () => {
  const routes = [route("a", [exact("/a/{id}")]), route("b", [prefix("/a")]), route("c", [prefix("/")])];
  expect(found(routes, {}, true)).toEqual([
    "note shadowed t/b by t/a: GET https://x.example/a/x",
    "note shadowed t/c by t/b: GET https://x.example/a",
    "note shadowed t/c by t/a: GET https://x.example/a/x",
  ]);
});

it("lists the hosts at which a route answers nothing", () => {
  const routes = [
    route("a", [prefix("/a")], { hosts: ["a.test", "b.test"] }),
    route("b", [regex("/a(?:/.*)?")], { hosts: ["b.test"] }),
  ];
  expect(found(routes)).toEqual([]);
  expect(found(routes, {}, true)).toContain("note shadowed t/a by t/b: GET https://b.test/a");
});

describe("what a request can cost", () => {
  const backends = Array.from({ length: 8 }, (_, i) => ({ name: `eu/${i}`, cluster: "eu" }));
  const told = (more: Partial<TableRoute>, policies: TablePolicy[] = []) => {
    const action = { kind: "forward", backends: [0, 1] } as const;
    const table = tableOf([{ id: "t/a", action, policies: [...policies.keys()], ...more }], { backends, policies });
    return [
      costOf(table, table.routes[0] as TableRoute),
      proveTable(table).map(({ severity, message }) => `${severity}: ${message}`),
    ];
  };
  const retry = { on: [503], backoff: { base: 25, max: 250 }, budget: { percent: 20, minimum: 3 } };

  it("is what its tries, their probes, mirrors and policies can take together", () => {
    const mirrors = [{ backend: 2, maxBody: 1_000 }];
    const cost = { subrequests: 2 * (2 + 3) + 1, connections: 3, buffered: 70_000, time: 60_000 };
    expect(told({ mirrors, retry: { ...retry, attempts: 3, maxBody: 70_000 } })).toEqual([cost, []]);
    const introspection: TablePolicy = {
      policy: "introspection",
      mode: "enforce",
      config: { timeout: 1_000, consumers: [] },
    };
    const code: TablePolicy = { policy: "middleware", mode: "enforce", config: {} };
    expect(told({}, [introspection, code])[0]).toEqual({
      subrequests: 5,
      connections: 2,
      buffered: 0,
      time: 61_000,
      atLeast: true,
    });
  });

  it("is held against what the platform allows", () => {
    const mirrors = Array.from({ length: 5 }, (_, i) => ({ backend: i + 2, maxBody: 0 }));
    expect(told({ mirrors })[1]).toEqual([
      "warning: may have 7 requests waiting for an answer at once; from the 7th on they queue, and their timeouts run",
    ]);
    expect(told({ retry: { ...retry, attempts: 30, maxBody: 50_000_000 } })[1]).toEqual([
      "warning: may need 64 subrequests for one request; the Free plan allows 50",
      "warning: may hold 50 MB of one request's body; an isolate has 128 MB for all that it serves at once",
    ]);
  });
});

describe("dead policies", () => {
  const policy = (
    name: TablePolicy["policy"],
    config: unknown,
    mode: TablePolicy["mode"] = "enforce",
  ): TablePolicy => ({ policy: name, mode, config });
  const told = (...policies: TablePolicy[]) =>
    proveTable(tableOf([{ id: "t/a", policies: [...policies.keys()] }], { policies })).map(
      ({ severity, message }) => `${severity}: ${message}`,
    );
  const limit = (quota: number, window: number, label = "") => ({ name: "default", label, quota, window });
  const limits = (...of: ReturnType<typeof limit>[]) =>
    policy("rateLimit", {
      per: ["client"],
      cost: 1,
      unit: 1,
      limits: of,
      consumers: {},
      onStoreFailure: "local",
      timeout: 500,
      headers: true,
    });

  it("a scope that nobody can have", () => {
    const key = { scopes: ["read"], consumer: "shop", algorithm: "hmac-sha256", key: { secret: "K" } };
    const hmac = policy("hmac", { keys: { a: key }, optional: false, nonce: false });
    expect(told(hmac, policy("scopes", { all: ["read"], any: [] }))).toEqual([]);
    expect(told(hmac, policy("scopes", { all: ["write"], any: [] }))).toEqual([
      "error: asks for the scope write, which nobody whom hmac lets in can have: it refuses every request",
    ]);
    const jwt = policy("jwt", { keys: { secret: { secret: "S" } }, consumers: [], optional: false });
    expect(told(jwt, policy("scopes", { all: ["write"], any: [] }))).toEqual([]);
  });

  it("address filters that have nothing in common", () => {
    const one = policy("ipFilter", { allow: ["10.0.0.0/8", "2001:db8::/32"] });
    expect(told(one, policy("ipFilter", { allow: ["10.1.0.0/16"] }))).toEqual([]);
    expect(told(one, policy("ipFilter", { deny: ["10.0.0.0/8"] }))).toEqual([]);
    expect(told(one, policy("ipFilter", { allow: ["192.0.2.0/24"] }))).toEqual([
      "error: lets no address through: its ipFilters have none in common",
    ]);
  });

  it("a limit that another one always hits first", () => {
    expect(told(limits(limit(10, 10_000), limit(1_000, 60_000)))).toEqual([
      "warning: has a limit of 1000 in 60 s that is never reached: 10 in 10 s always refuses before",
    ]);
    expect(told(limits(limit(10, 10_000), limit(50, 60_000)))).toEqual([]);
    expect(told(limits(limit(100, 10_000, "fixed-10s"), limit(60, 60_000, "fixed-1m")))).toEqual([
      "warning: has a limit of 100 in 10 s that is never reached: 60 in 60 s always refuses before",
    ]);
  });

  it("retries of methods that the route does not answer", () => {
    const retry = {
      attempts: 2,
      on: [503],
      methods: ["GET", "HEAD"],
      backoff: { base: 25, max: 250 },
      maxBody: 0,
      budget: { percent: 20, minimum: 3 },
    };
    const kinds = (methods: string[]) =>
      proveTable(tableOf([{ id: "t/a", matches: [prefix("/", { methods })], retry }])).map(({ kind }) => kind);
    expect(kinds(["POST"])).toEqual(["dead-retry"]);
    expect(kinds(["GET", "POST"])).toEqual([]);
  });
});
