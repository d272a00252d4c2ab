/** What is done for one backend: rewrites, headers, arms; and what the Gateway API's semantics change. */
import { describe, expect, it } from "vitest";
import { chooseAction } from "../../src/edge/choose.ts";
import { textOf } from "../../src/edge/environment.ts";
import type { RouteTable, SplitAction, TableBackend, TableListener, TableRoute } from "../../src/table/table.ts";
import { exchangeFor } from "../policies/exchange.ts";
import { ask, routeOf, tableOf } from "./cluster-stub.ts";

const gatewayApi = (table: RouteTable): RouteTable => ({
  ...table,
  gateway: { ...table.gateway, semantics: "gateway-api" },
});
const code = async (response: Response) => ((await response.json()) as { code: string }).code;

describe("a rewrite", () => {
  const urlFor = async (url: string, route: Partial<TableRoute>, backend: Partial<TableBackend> = {}) => {
    const routes = [routeOf("/", {}), routeOf("/foo", route)];
    const { asked } = await ask(tableOf({ routes, backends: [{ name: "eu", cluster: "eu", ...backend }] }), url);
    return asked[0]?.url;
  };

  it.each<[string, string, Partial<TableRoute>, Partial<TableBackend>, string]>([
    ["nothing", "/foo/bar?q=1", {}, {}, "https://eu.example.com/in/foo/bar?q=1"],
    [
      "the prefix",
      "/foo/bar?q=1",
      { rewrite: { path: { prefix: "/xyz" } } },
      {},
      "https://eu.example.com/in/xyz/bar?q=1",
    ],
    ["the path", "/foo/bar?q=1", { rewrite: { path: { full: "/x" } } }, {}, "https://eu.example.com/in/x?q=1"],
    [
      "behind the service's path",
      "/foo",
      { rewrite: { path: { prefix: "/" } } },
      { path: "/s" },
      "https://eu.example.com/in/s/",
    ],
    ["the host", "/foo", { rewrite: { host: "one.example.org" } }, {}, "https://one.example.org/in/foo"],
    ["a service's host", "/foo", { rewrite: { host: "a.org" } }, { host: "b.org" }, "https://a.org/in/foo"],
    [
      "as the backend has it",
      "/foo/bar",
      {},
      { rewrite: { path: { prefix: "/b" } } },
      "https://eu.example.com/in/b/bar",
    ],
    [
      "as the backend has it, for what both change",
      "/foo/bar",
      { rewrite: { host: "a.org", path: { prefix: "/a" } } },
      { rewrite: { path: { full: "/b" } } },
      "https://a.org/in/b",
    ],
  ])("of %s", async (_, path, route, backend, url) => {
    expect(await urlFor(`https://h${path}`, route, backend)).toBe(url);
  });

  it("replaces the prefix of the match that fits best", async () => {
    const prefix = (value: string) => ({ path: { kind: "prefix" as const, value } });
    const route = { matches: [prefix("/foo"), prefix("/foo/bar")], rewrite: { path: { prefix: "/x" } } };
    expect(await urlFor("https://h/foo/bar/baz", route)).toBe("https://eu.example.com/in/x/baz");
    expect(await urlFor("https://h/foo/baz", route)).toBe("https://eu.example.com/in/x/baz");
  });

  it("leaves what the client asked for in X-Forwarded-Host", async () => {
    const routes = [routeOf("/", { rewrite: { host: "one.example.org" } })];
    const { asked } = await ask(tableOf({ routes }), "https://api.example.com:8443/");
    expect(asked[0]?.headers.get("x-forwarded-host")).toBe("api.example.com:8443");
  });
});

describe("headers of a backend", () => {
  const backends: TableBackend[] = [
    {
      name: "eu/a",
      cluster: "eu",
      path: "/a",
      headers: {
        request: [
          { action: "remove", name: "x-drop" },
          { action: "set", name: "x-set", value: { env: "REGION" } },
          { action: "add", name: "x-add", value: "a" },
          { action: "add", name: "cookie", value: "b=2" },
        ],
        response: [
          { action: "add", name: "x-from", value: "a" },
          { action: "add", name: "set-cookie", value: "c=3" },
        ],
      },
    },
    { name: "eu/b", cluster: "eu", path: "/b" },
  ];
  const routes = [routeOf("/", { action: { kind: "forward", backends: [0, 1] } })];
  const sent = { headers: { "x-drop": "1", "x-set": "old", "x-add": "client", cookie: "a=1" } };

  it("are its own, and those of who answers", async () => {
    const { asked, response } = await ask(
      tableOf({ routes, backends }),
      "https://h/",
      sent,
      ({ url }) =>
        new Response(null, {
          status: url.includes("/a/") ? 503 : 200,
          headers: { "x-from": "origin", "set-cookie": "d=4" },
        }),
    );
    const seen = asked.map(({ headers }) => ["x-drop", "x-set", "x-add", "cookie"].map((name) => headers.get(name)));
    expect(seen).toEqual([
      [null, "weur", "client,a", "a=1; b=2"],
      ["1", "old", "client", "a=1"],
    ]);
    expect(response.headers.get("x-from")).toBe("origin");
  });

  it("of the response are added to what the cluster says", async () => {
    const { response } = await ask(
      tableOf({ routes, backends }),
      "https://h/",
      {},
      () => new Response(null, { headers: { "x-from": "origin", "set-cookie": "d=4" } }),
    );
    expect(response.headers.get("x-from")).toBe("origin,a");
    expect(response.headers.getSetCookie()).toEqual(["d=4", "c=3"]);
  });

  it("are no part of what the gateway answers itself", async () => {
    const { response } = await ask(tableOf({ routes, backends }), "https://h/", {}, () => {
      throw new TypeError("no connection");
    });
    expect([response.status, response.headers.get("x-from")]).toEqual([502, null]);
  });
});

describe("an arm", () => {
  const split: SplitAction = {
    kind: "split",
    salt: "s",
    arms: [
      { name: "gone", weight: 1, action: { kind: "missing", reason: "Service a/b is not there" } },
      { name: "here", weight: 2, action: { kind: "forward", backends: [0] } },
      { name: "moved", weight: 1, action: { kind: "redirect", status: 302, path: { prefix: "/new" } } },
    ],
    sticky: { by: "request" },
    override: { header: "x-arm", secret: { env: "REGION" } },
  };
  const table = tableOf({ routes: [routeOf("/old", { action: split })], identityHeaders: ["x-arm"] });
  const on = (arm: string) => ask(table, "https://h/old/x", { headers: { "x-arm": `${arm}:weur` } });

  it("that is missing answers 500, and tells the operator alone why", async () => {
    const { response, record, asked } = await on("gone");
    expect([response.status, asked.length]).toEqual([500, 0]);
    expect(record).toMatchObject({ arm: "gone", reason: "backend-missing", detail: "Service a/b is not there" });
    const text = await response.text();
    expect(text).toContain("backend-missing");
    expect(text).not.toContain("a/b");
  });

  it("that redirects asks nobody", async () => {
    const { response, record, asked } = await on("moved");
    expect([response.status, response.headers.get("location"), asked.length]).toEqual([302, "https://h/new/x", 0]);
    expect(record).toMatchObject({ arm: "moved", reason: "redirect" });
  });

  it("is drawn anew for each request, by weight, where nothing is sticky", () => {
    const request = new Request("https://h/");
    const counts: Record<string, number> = {};
    for (let i = 0; i < 4_000; i++) {
      const exchange = exchangeFor(request);
      chooseAction(split, exchange, request, () => "");
      expect(exchange.record.armBy).toBe("request");
      const { arm = "" } = exchange.record;
      counts[arm] = (counts[arm] ?? 0) + 1;
    }
    // Five standard deviations of a binomial share of 1/4 and of 1/2.
    for (const name of ["gone", "moved"]) expect(Math.abs((counts[name] ?? 0) - 1_000)).toBeLessThan(137);
    expect(Math.abs((counts.here ?? 0) - 2_000)).toBeLessThan(159);
  });
});

describe("a listener", () => {
  const listeners: TableListener[] = [
    { name: "plain", port: 8080, protocol: "http" },
    { name: "shop", port: 80, protocol: "http", host: "shop.example.com" },
    { name: "tls", port: 443, protocol: "https" },
  ];
  const moved = (options: object, parts: Partial<TableRoute> = {}) =>
    routeOf("/", { action: { kind: "redirect", status: 302, ...options }, ...parts });
  const locationOf = async (url: string, options: object, host?: string) => {
    const headers = host === undefined ? {} : { host };
    const { response } = await ask(tableOf({ listeners, routes: [moved(options)] }), url, { headers });
    return response.headers.get("location");
  };

  it.each([
    ["http://h:8080/", {}, "http://h:8080/"],
    ["http://h:8080/", { host: "a.org" }, "http://a.org:8080/"],
    ["http://h:8080/", { scheme: "https" }, "https://h/"],
    ["http://h:8080/", { scheme: "http" }, "http://h/"],
    ["http://h:8080/", { scheme: "https", port: 8443 }, "https://h:8443/"],
    ["http://h:8080/", { port: 80 }, "http://h/"],
    ["http://shop.example.com/", { path: { full: "/x" } }, "http://shop.example.com/x"],
    ["http://shop.example.com:8787/", { path: { full: "/x" } }, "http://shop.example.com/x"],
    ["https://h:8443/", { path: { full: "/x" } }, "https://h/x"],
    ["https://h/", { scheme: "http", port: 443 }, "http://h:443/"],
  ])("gives redirects its port: %s %j: %s", async (url, options, location) => {
    expect(await locationOf(url, options)).toBe(location);
  });

  it("of another protocol gives none", async () => {
    const table = tableOf({ listeners: listeners.slice(0, 1), routes: [moved({ path: { full: "/x" } })] });
    const { response, record } = await ask(table, "https://h/");
    expect([response.headers.get("location"), record.listener]).toEqual(["https://h/x", "plain"]);
  });

  it("keeps its requests from the routes of others, and is in the record", async () => {
    const routes = [routeOf("/", { listeners: [0, 2] })];
    const refused = await ask(tableOf({ listeners, routes }), "http://shop.example.com/");
    expect(refused.response.status).toBe(404);
    expect(refused.record).toMatchObject({ listener: "shop", reason: "not-found" });
    const answered = await ask(tableOf({ listeners, routes }), "https://shop.example.com/");
    expect(answered.response.status).toBe(200);
    expect(answered.record).toMatchObject({ listener: "tls", route: "test/" });
  });
});

describe("the Gateway API's semantics", () => {
  const routes = [routeOf("/", { matches: [{ path: { kind: "exact", value: "/" }, methods: ["GET"] }] })];

  it("answer 503 where a cluster cannot be reached", async () => {
    const unreachable = () => Promise.reject(new TypeError("no connection"));
    const friendly = await ask(tableOf({ routes }), "https://h/", {}, unreachable);
    expect([friendly.response.status, await code(friendly.response)]).toEqual([502, "upstream-unreachable"]);
    const exact = await ask(gatewayApi(tableOf({ routes })), "https://h/", {}, unreachable);
    expect([exact.response.status, await code(exact.response)]).toEqual([503, "upstream-unavailable"]);
    expect(exact.response.headers.get("retry-after")).toBe("5");
    expect(exact.record.reason).toBe("upstream-unavailable");
  });

  it.each([
    ["HEAD", 200, 404],
    ["POST", 405, 404],
    ["OPTIONS", 204, 404],
  ])("answer %s on a route for GET with 404, not with %i", async (method, friendly, exact) => {
    expect((await ask(tableOf({ routes }), "https://h/", { method })).response.status).toBe(friendly);
    expect((await ask(gatewayApi(tableOf({ routes })), "https://h/", { method })).response.status).toBe(exact);
  });
});

it("a variable is what it is otherwise, where the environment lacks it", () => {
  expect(textOf({ env: "A", otherwise: "b" }, {})).toBe("b");
  expect(textOf({ env: "A", otherwise: "b" }, { A: "" })).toBe("b");
  expect(textOf({ env: "A", otherwise: "b" }, { A: "a" })).toBe("a");
  expect(() => textOf({ env: "A" }, {})).toThrow("no text A");
});
