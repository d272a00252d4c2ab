/** The builders: what they return is data, and knows where it was declared. */
import type { MiddlewareHandler } from "hono";
import { describe, expect, it } from "vitest";
import type { Backend } from "../../src/config/cluster.ts";
import { gatewayOf, middlewareByPlace, placedEntries, policyLists } from "../../src/config/entries.ts";
import * as portcullis from "../../src/index.ts";

const {
  api,
  balance,
  binding,
  cluster,
  consumer,
  env,
  gateway,
  listener,
  middleware,
  mirror,
  missing,
  nearest,
  redirect,
  requestId,
  route,
  secret,
  split,
  without,
} = portcullis;

const eu = cluster("eu", { ingress: env("EU"), services: { path: "/{service}" } });
const us = cluster("us", { ingress: binding("US") });

describe("where", () => {
  it.each<[string, () => { declaredAt?: { stack?: string } }]>([
    ["gateway", () => gateway({}, [])],
    ["api", () => api("a", {}, [])],
    ["route", () => route("a", {}, { to: eu })],
    ["cluster", () => cluster("a", { ingress: env("A") }).declaration],
    ["consumer", () => consumer("a", { claims: { sub: "a" } })],
    ["split", () => split({ a: eu.weight(1) })],
    ["redirect", () => redirect({ port: 1 })],
    ["redirect with a weight", () => redirect({ port: 1 }).weight(2)],
    ["listener", () => listener("a", { port: 80, protocol: "http" })],
    ["mirror", () => mirror(eu)],
    ["missing", () => missing("a")],
    ["missing with a weight", () => missing("a").weight(2)],
    ["without", () => without("jwt")],
    ["env", () => env("A")],
    ["secret", () => secret("A")],
    ["binding", () => binding("A")],
    ["requestId", () => requestId({})],
    ["scopes", () => portcullis.scopes("a")],
  ])("%s was called", (_, declared) => {
    const first = declared()
      .declaredAt?.stack?.split("\n")
      .find((line) => line.trimStart().startsWith("at "));
    expect(first).toContain("language.test.ts");
  });

  it("costs nothing in JSON", () => {
    expect(JSON.stringify(env("A"))).toBe('{"kind":"env","name":"A","declaredAt":{}}');
    expect(JSON.stringify(env("A", ""))).toBe('{"kind":"env","name":"A","otherwise":"","declaredAt":{}}');
  });
});

describe("a backend", () => {
  const endpoints = (backend: Backend) =>
    backend.levels.map((level) =>
      level.endpoints.map(({ cluster, service }) => (service ? `${cluster.name}/${service}` : cluster.name)).join(),
    );

  it("is a cluster, or one of its services", () => {
    expect(endpoints(eu)).toEqual(["eu"]);
    expect(endpoints(eu.service("orders"))).toEqual(["eu/orders"]);
  });

  it("falls back in the order of `or`", () => {
    expect(endpoints(eu.service("orders").or(us.service("orders")).or(us))).toEqual(["eu/orders", "us/orders", "us"]);
    expect(endpoints(eu.or(us.or(eu.service("a"))))).toEqual(["eu", "us", "eu/a"]);
  });

  it("shares its level with those that it is balanced with, by their weights", () => {
    const balanced = balance([eu.service("a", { weight: 3 }), us.or(eu)], { by: "least-request" });
    expect(endpoints(balanced)).toEqual(["eu/a,us,eu"]);
    expect(balanced.levels[0]?.endpoints.map(({ weight }) => weight)).toEqual([3, 1, 1]);
    expect(balanced.levels[0]?.balance).toEqual({ by: "least-request" });
    expect(endpoints(balance([balanced.weight(2), us]).or(eu))).toEqual(["eu/a,us,eu,us", "eu"]);
    expect(endpoints(balance([eu]).or(balance([us, eu])))).toEqual(["eu", "us,eu"]);
  });

  it("is nearest to the client by its levels", () => {
    expect(nearest(eu.or(us), us)).toMatchObject({ nearest: true });
    expect(endpoints(nearest(eu.or(us), us))).toEqual(["eu", "us", "us"]);
    expect(nearest(eu, us).weight(5)).toMatchObject({ nearest: true, share: 5 });
  });

  it("has filters of its own at all of its endpoints", () => {
    const rewrite = { host: "a.org" };
    const filtered = eu.service("a").or(us).with({ rewrite });
    expect(filtered.levels.flatMap((level) => level.endpoints.map((one) => one.rewrite))).toEqual([rewrite, rewrite]);
    expect(filtered.or(eu).levels.at(-1)?.endpoints[0]).not.toHaveProperty("rewrite");
    expect(balance([filtered.weight(2)]).levels[0]?.endpoints[0]).toMatchObject({ rewrite, weight: 2 });
  });

  it("has a weight, wherever it is given", () => {
    expect(eu.service("orders", { weight: 5 }).share).toBe(5);
    expect(eu.service("orders").or(us).weight(5).share).toBe(5);
    expect(eu.service("orders").weight(5).or(us.weight(9)).share).toBe(5);
    expect(eu.weight(5).weight(7).share).toBe(7);
    expect(eu.share).toBeUndefined();
  });

  it("is never changed", () => {
    const orders = eu.service("orders");
    orders.or(us).weight(3);
    expect(orders).toMatchObject({ levels: [{ endpoints: [{ service: "orders" }] }] });
    expect(orders.share).toBeUndefined();
  });

  it("of a service has an address of its own where it is given one", () => {
    expect(eu.service("orders", { host: "orders.internal", path: "/v2", weight: 1 }).levels).toEqual([
      { endpoints: [{ cluster: eu.declaration, service: "orders", host: "orders.internal", path: "/v2" }] },
    ]);
  });
});

describe("entries", () => {
  const named = (name: string): MiddlewareHandler =>
    Object.defineProperty<MiddlewareHandler>((_, next) => next(), "name", { value: name });
  const [a, b, c] = [named("a"), named("b"), named("c")] as const;
  const declared = gateway({ policies: [requestId({}), a] }, [
    api("shop", { policies: [b] }, [
      route(
        "list",
        {},
        { policies: [a, requestId({}), middleware({ handler: c, name: "own" }), without("jwt")], to: eu },
      ),
      route("read", {}, { to: eu }),
    ]),
  ]);

  it("are the lists of the gateway, its APIs and their routes", () => {
    expect(policyLists(declared).map(({ place, entries }) => [place, entries.length])).toEqual([
      ["*", 2],
      ["shop", 1],
      ["shop/list", 4],
      ["shop/read", 0],
    ]);
  });

  it("are numbered by functions alone", () => {
    const [, , list] = policyLists(declared);
    expect(placedEntries(list as never).map(({ place }) => place)).toEqual([
      "shop/list#0",
      "shop/list#1",
      "shop/list#1",
      "shop/list#2",
    ]);
  });

  it("give the Worker its functions by place", () => {
    expect(middlewareByPlace(declared)).toEqual({
      "*#0": a,
      "shop#0": b,
      "shop/list#0": a,
      "shop/list#1": c,
    });
  });

  it("of an API that is named like the gateway are its own", () => {
    const same = gateway({ policies: [a] }, [api("gateway", { policies: [b] }, [])]);
    expect(Object.values(middlewareByPlace(same))).toEqual([a, b]);
  });

  it("of a single API, and of a list of them, are those of a gateway without options", () => {
    const [shop] = declared.apis;
    expect(gatewayOf(declared)).toBe(declared);
    expect(gatewayOf(shop)).toEqual({ kind: "gateway", options: {}, apis: [shop], declaredAt: shop?.declaredAt });
    expect(gatewayOf([shop])).toEqual(gatewayOf(shop));
    expect(Object.keys(middlewareByPlace(shop))).toEqual(["shop#0", "shop/list#0", "shop/list#1"]);
  });
});
