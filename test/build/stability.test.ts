/**
 * The order in which things are declared means nothing: any order of APIs, routes, matches, hosts, policies, arms and object keys
 * gives the same table, byte for byte. Only middleware has an order, among itself, and fallbacks (`a.or(b)`).
 */
import fc from "fast-check";
import type { MiddlewareHandler } from "hono";
import { expect, it } from "vitest";
import { checkConfiguration } from "../../src/build/check.ts";
import { planTable } from "../../src/build/plan.ts";
import { Problems } from "../../src/build/problem.ts";
import type { GatewayDeclaration, Match, PolicyEntry, RouteDeclaration } from "../../src/config/api.ts";
import type { Backend, Target } from "../../src/config/cluster.ts";
import * as portcullis from "../../src/index.ts";
import { indexMatches } from "../../src/table/match.ts";

const { api, balance, binding, cluster, consumer, env, gateway, listener, mirror } = portcullis;
const { redirect, route, secret, split } = portcullis;

/** Puts a list in another order, and an object's keys. `keepOrder` is the first of all orders: as declared. */
type Shuffle = <Item>(items: readonly Item[]) => Item[];
const keepOrder: Shuffle = (items) => [...items];

/** Fisher and Yates' shuffle, by numbers that fast-check can shrink. */
const shuffledBy =
  (numbers: readonly number[]): Shuffle =>
  (items) => {
    const rest = [...items];
    return items.map((_, at) => rest.splice((numbers[at % numbers.length] as number) % rest.length, 1)[0] as never);
  };

/** `value` with the keys of every plain object in it in another order. Lists stay: some have an order that means something. */
function rekeyed<Value>(value: Value, shuffle: Shuffle): Value {
  if (Array.isArray(value)) return value.map((item) => rekeyed(item, shuffle)) as Value;
  if (typeof value !== "object" || value === null || value instanceof RegExp || "declaredAt" in value) return value;
  const entries = Object.entries(value).map(([name, member]) => [name, rekeyed(member, shuffle)] as const);
  return Object.fromEntries(shuffle(entries)) as Value;
}

// What a configuration is made of, as data: a policy is a builder's name and options.
type PolicySpec = readonly [builder: keyof typeof POLICIES, options: object];
interface RouteSpec {
  readonly matches: readonly Match[];
  readonly policies: readonly PolicySpec[];
  readonly middleware: number;
  readonly to: readonly ["forward" | "pool" | "split" | "redirect", ...string[]];
}
interface Spec {
  readonly policies: readonly PolicySpec[];
  readonly middleware: number;
  readonly apis: readonly {
    hosts: string[];
    policies: readonly PolicySpec[];
    middleware: number;
    routes: RouteSpec[];
  }[];
}

const POLICIES = {
  requestId: portcullis.requestId,
  securityHeaders: portcullis.securityHeaders,
  cors: portcullis.cors,
  ipFilter: portcullis.ipFilter,
  scopes: portcullis.scopes,
  headers: portcullis.headers,
  rateLimit: portcullis.rateLimit,
  filter: portcullis.filter,
} as const;

const replacing: fc.Arbitrary<PolicySpec> = fc.constantFrom<PolicySpec>(
  ["requestId", { header: "X-Trace", accept: true }],
  ["securityHeaders", { hsts: 60, referrerPolicy: "origin", remove: ["Server"] }],
  ["cors", { maxAge: 60, origins: ["https://a.example.com"], expose: ["x-a"], credentials: true }],
  ["filter", {}],
);
const adding: fc.Arbitrary<PolicySpec> = fc.oneof(
  fc
    .record({ allow: fc.subarray(["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"], { minLength: 1 }) })
    .map((options) => ["ipFilter", options] as const),
  fc.record({ all: fc.subarray(["a", "b", "c"], { minLength: 1 }) }).map((options) => ["scopes", options] as const),
  fc
    .dictionary(fc.constantFrom("x-a", "X-B", "x-c"), fc.constantFrom("1", "2"), { minKeys: 1 })
    .map((set) => ["headers", { request: { set }, response: { add: set, remove: ["x-d"] } }] as const),
  fc
    .record({ limit: fc.integer({ min: 1, max: 9 }), window: fc.constantFrom("1s", "1m") })
    .map((options) => ["rateLimit", { ...options, name: `l${options.limit}${options.window}`, per: "route" }] as const),
);
const policies = fc
  .tuple(fc.uniqueArray(replacing, { selector: ([name]) => name }), fc.array(adding, { maxLength: 3 }))
  .map(([replace, add]) => [...replace, ...add]);

const conditions = fc.dictionary(
  fc.constantFrom("X-One", "two", "Three"),
  fc.constantFrom<string | RegExp | true>("exact", /v[0-9]+/i, true),
);
const services = fc.uniqueArray(fc.constantFrom("orders", "search", "web", "feed"), { minLength: 1, maxLength: 4 });
const routes = fc.array(
  fc.record<RouteSpec>({
    matches: fc.array(
      fc.record<Match>({
        methods: fc.subarray(["GET", "POST", "PUT"], { minLength: 1 }),
        headers: conditions,
        query: conditions,
        cookies: conditions,
      }),
      { minLength: 1, maxLength: 3 },
    ),
    policies,
    middleware: fc.nat({ max: 2 }),
    to: fc
      .tuple(fc.constantFrom("forward", "pool", "split", "redirect"), services)
      .map(([kind, names]) => [kind, ...names]),
  }),
  { minLength: 1, maxLength: 4 },
);
const specs: fc.Arbitrary<Spec> = fc.record({
  policies,
  middleware: fc.nat({ max: 2 }),
  apis: fc.array(
    fc.record({
      hosts: fc.subarray(["a.example.com", "b.example.com", "*.example.com"], { minLength: 1 }),
      policies,
      middleware: fc.nat({ max: 2 }),
      routes,
    }),
    { minLength: 1, maxLength: 3 },
  ),
});

const handlers: MiddlewareHandler[] = ["first", "second"].map((name) =>
  Object.defineProperty<MiddlewareHandler>((_, next) => next(), "name", { value: name }),
);

/** The same configuration, declared in the order that `shuffle` gives. */
function declare(spec: Spec, shuffle: Shuffle): GatewayDeclaration {
  const eu = cluster("eu", rekeyed({ ingress: env("EU"), region: "weur", services: { path: "/{service}" } }, shuffle));
  const us = cluster(
    "us",
    rekeyed({ ingress: binding("US"), services: { host: "{service}.us", path: "/x" } }, shuffle),
  );
  const listeners = [
    listener("secure", rekeyed({ port: 443, protocol: "https", host: "*.example.com" }, shuffle)),
    listener("plain", rekeyed({ port: 80, protocol: "http" }, shuffle)),
    listener("other", rekeyed({ port: 8080, protocol: "http" }, shuffle)),
  ];
  const partner = consumer("partner", {
    claims: rekeyed({ client_id: "partner", tier: "gold" }, shuffle),
  });
  const token = portcullis.jwt(
    rekeyed(
      {
        issuer: "https://login.example.com",
        jwks: env("KEYS"),
        consumers: [partner],
        claimsToHeaders: { sub: "x-user", email: "x-mail" },
      },
      shuffle,
    ),
  );
  const listed = (list: readonly PolicySpec[], middleware: number, more: PolicyEntry[] = []): PolicyEntry[] => {
    const declared = list.map(([name, options]) => POLICIES[name](rekeyed(options, shuffle) as never));
    // Middleware keeps its own order, wherever it stands between policies.
    const functions = handlers.slice(0, middleware);
    return shuffle([...declared, ...more, ...functions.map(() => undefined)]).map(
      (entry) => entry ?? (functions.shift() as MiddlewareHandler),
    );
  };
  const target = ([kind, ...names]: RouteSpec["to"]): Target => {
    const backends = names.map((name) => eu.service(name).or(us.service(name)));
    if (kind === "forward") return backends[0] as Backend;
    if (kind === "pool") {
      const weighted = backends.map((backend, at) => backend.weight(at + 1));
      const headers = { request: { set: rekeyed({ "x-a": "1", "x-b": "2" }, shuffle) } };
      return balance(shuffle(weighted), rekeyed({ by: "least-request", affinity: { cookie: "at" } }, shuffle)).with(
        rekeyed({ headers, mirrors: shuffle([mirror(eu), mirror(us)]) }, shuffle),
      );
    }
    if (kind === "redirect")
      return redirect(rekeyed({ status: 307, scheme: "https", port: 8443, path: { full: `/${names[0]}` } }, shuffle));
    const arms = backends.map((backend, at) => [names[at] as string, backend.weight(at + 1)] as const);
    const override = { header: "x-canary", cookie: "canary", secret: secret("CANARY") };
    return split(
      Object.fromEntries(shuffle(arms)),
      rekeyed({ sticky: { maxAge: 60, cookie: "arm" }, override }, shuffle),
    );
  };
  return gateway(
    rekeyed(
      {
        policies: listed(spec.policies, spec.middleware, [token]),
        store: { url: env("REDIS"), token: secret("TOKEN") },
        listeners: shuffle(listeners),
        trustedProxies: shuffle(["10.0.0.0/8", "::1"]),
        timeouts: { total: "40s", connect: "1s" },
      },
      shuffle,
    ),
    shuffle(
      spec.apis.map((one, apiAt) =>
        api(
          `api${apiAt}`,
          rekeyed(
            {
              hosts: shuffle(one.hosts),
              listeners: shuffle(listeners.slice(0, 2)),
              policies: listed(one.policies, one.middleware),
              timeouts: { firstByte: "4s" },
            },
            shuffle,
          ),
          shuffle(
            one.routes.map((each, routeAt): RouteDeclaration => {
              // Paths that no two routes share, so that no two are ambiguous.
              const path = `/${apiAt}/${routeAt}`;
              const matches = each.matches.map((match, at) => ({ ...match, path: `${path}/${at}` }));
              return route(
                `route${routeAt}`,
                shuffle(matches.map((match) => rekeyed({ ...match, methods: shuffle(match.methods ?? []) }, shuffle))),
                rekeyed({ policies: listed(each.policies, each.middleware), to: target(each.to) }, shuffle),
              );
            }),
          ),
        ),
      ),
    ),
  );
}

function tableOf(declared: GatewayDeclaration): string {
  const problems = new Problems(() => undefined);
  const { table } = planTable(checkConfiguration(declared, problems), problems);
  expect(problems.list).toEqual([]);
  return JSON.stringify([table, indexMatches(table.routes, table.listeners)], null, 1);
}

it("does not depend on the order of declarations", () => {
  fc.assert(
    fc.property(specs, fc.array(fc.nat(), { minLength: 1, maxLength: 20 }), (spec, numbers) => {
      expect(tableOf(declare(spec, shuffledBy(numbers)))).toBe(tableOf(declare(spec, keepOrder)));
    }),
    { numRuns: 300 },
  );
});

it("changes its id if and only if the configuration changes", () => {
  fc.assert(
    fc.property(specs, specs, (one, other) => {
      const [a, b] = [one, other].map((spec) => JSON.parse(tableOf(declare(spec, keepOrder)))[0]);
      const same = JSON.stringify({ ...a, id: "" }) === JSON.stringify({ ...b, id: "" });
      expect(a.id === b.id).toBe(same);
    }),
  );
});
