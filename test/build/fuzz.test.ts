/** Whatever a routes module exports, the build gives a table or says what is wrong with it: no other exception, and no hang. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { checkConfiguration } from "../../src/build/check.ts";
import { planTable } from "../../src/build/plan.ts";
import { type Problem, Problems } from "../../src/build/problem.ts";
import type { GatewayDeclaration } from "../../src/config/api.ts";
import { gatewayOf } from "../../src/config/entries.ts";
import * as portcullis from "../../src/index.ts";
import { indexMatches } from "../../src/table/match.ts";
import type { RouteTable } from "../../src/table/table.ts";
import { PRELUDE, problemsOf } from "./module.ts";

const { api, balance, binding, cluster, consumer, env, gateway, listener, mirror, missing, nearest } = portcullis;
const { redirect, route, secret, split, without } = portcullis;

/** A configuration with something of everything in it, each time a new one. */
function sound(): GatewayDeclaration {
  const eu = cluster("eu", {
    ingress: env("EU", "https://eu.example.com"),
    certificate: binding("CERT"),
    region: "weur",
    services: { path: "/{service}" },
    outlier: { interval: "5s", maxEjectionPercent: 50 },
    breaker: { window: "5s" },
    concurrency: 5,
    health: { path: "/up", expect: [200] },
  });
  const us = cluster("us", { ingress: binding("US"), services: { host: "{service}.us" }, region: "enam" });
  const edge = listener("edge", { port: 443, protocol: "https", host: "*.example.com" });
  const copies = mirror(us, { fraction: [1, 3], methods: ["GET"], maxBody: 5 });
  const balanced = balance([eu.service("a").weight(2), us.service("a")], {
    by: { hash: { cookie: "c" } },
    affinity: { cookie: "at", maxAge: 5 },
  });
  const partner = consumer("partner", { claims: { client_id: "partner" } });
  const token = portcullis.jwt({
    issuer: ["https://login.example.com", env("ISSUER")],
    jwks: env("KEYS"),
    consumers: [partner],
    claimsToHeaders: { sub: "x-user" },
    tokenFrom: [{ header: "authorization", scheme: "Bearer" }, { cookie: "session" }],
    keySet: { timeout: "2s" },
  });
  const canary = split(
    { stable: eu.service("orders").or(us.service("orders")).weight(95), canary: eu.service("next", { weight: 5 }) },
    { sticky: { cookie: "arm", maxAge: 60 }, override: { header: "x-canary", secret: secret("CANARY") }, salt: "s" },
  );
  return gateway(
    {
      policies: [
        portcullis.requestId({}),
        portcullis.filter({}),
        portcullis.securityHeaders({ hsts: 5, remove: ["server"] }),
      ],
      store: { url: env("REDIS"), token: secret("TOKEN") },
      debug: secret("DEBUG"),
      assertion: { key: secret("KEY"), issuer: "https://api.example.com", lifetime: "60s" },
      listeners: [edge, listener("plain", { port: 80, protocol: "http" })],
      trustedProxies: ["10.0.0.0/8"],
      maxUrl: 4_096,
      timeouts: { connect: "1s", firstByte: "5s", total: "30s" },
    },
    [
      api("orders", { hosts: ["api.example.com", "*.example.com"], policies: [token], timeouts: { total: "20s" } }, [
        route(
          "list",
          [
            {
              path: "/v1/orders/{id}",
              methods: ["GET"],
              headers: { "x-v": /v[0-9]+/, accept: "a" },
              query: { q: true },
            },
            { path: /\/v[0-9]+\/.*/i, cookies: { beta: "1" } },
          ],
          {
            policies: [
              portcullis.scopes("read"),
              portcullis.headers({ request: { set: { "x-a": "1", "x-r": env("R") }, remove: ["x-b"] } }),
              portcullis.rateLimit({
                per: ["consumer", { header: "x-a" }],
                limit: 5,
                window: "1m",
                consumers: [[partner, 9]],
              }),
              portcullis.ipFilter({ allow: ["10.0.0.0/8"], mode: "report" }),
              portcullis.cors({ origins: ["https://a.example.com"], maxAge: 5 }),
              portcullis.middleware({ handler: async (_, next) => next(), name: "own" }),
              async (_, next) => next(),
            ],
            to: canary,
            timeouts: { total: "10s" },
            websocket: true,
          },
        ),
        route(
          "moved",
          { path: "/old/*" },
          { policies: [without("jwt")], to: redirect({ status: 308, path: { prefix: "/v1" } }) },
        ),
      ]),
      api("web", { listeners: [edge] }, [
        route("all", { path: "/*" }, { to: us, websocket: { idle: "1m" } }),
        route(
          "pool",
          { path: "/pool" },
          {
            to: balanced.or(nearest(us, eu)),
            retry: { on: ["5xx", 429], methods: "any", backoff: { base: "5ms" }, budget: { percent: 5 } },
            mirrors: [copies],
            rewrite: { host: "a.org", path: { full: "/" } },
            timeouts: { idle: "5s" },
          },
        ),
        route(
          "arms",
          { path: "/arms" },
          {
            to: split(
              {
                a: us
                  .with({
                    headers: { request: { set: { "x-a": env("A") } } },
                    rewrite: { host: "b.org" },
                    mirrors: [copies],
                  })
                  .weight(1),
                b: redirect({ port: 8443 }).weight(1),
                c: missing("gone").weight(0),
              },
              { sticky: "request" },
            ),
          },
        ),
      ]),
    ],
  );
}

/** Where in `value` something can be put in the place of what is there. */
type Place = readonly [holder: Record<PropertyKey, unknown>, key: PropertyKey];
function placesIn(value: unknown, seen = new Set<unknown>()): Place[] {
  if (typeof value !== "object" || value === null || seen.has(value)) return [];
  seen.add(value);
  return Object.keys(value)
    .filter((key) => key !== "declaredAt")
    .flatMap((key): Place[] => {
      const holder = value as Record<PropertyKey, unknown>;
      return [[holder, key], ...placesIn(holder[key], seen)];
    });
}

class Instance {
  kind = "cluster";
  readonly #secret = 1;
  get name(): number {
    return this.#secret;
  }
}

const cyclic = (): unknown => {
  const circle: Record<string, unknown> = { kind: "policy", policy: "cors", name: "a" };
  circle.options = circle;
  circle.endpoints = [circle];
  circle.levels = [circle];
  circle.to = circle;
  circle.mirrors = [circle];
  circle.routes = [circle, [circle]];
  return circle;
};
const withPrototypeKey = (value: unknown): unknown =>
  JSON.parse('{"__proto__": 1}', (key, old) => (key === "__proto__" ? value : old));

const NAMES = [
  "",
  "__proto__",
  "constructor",
  "toString",
  "a\nb\u001b[31m",
  "é",
  "\ud800",
  "x".repeat(10_000),
  "*",
  "{}",
];
const KINDS = [
  "gateway",
  "api",
  "route",
  "policy",
  "without",
  "backend",
  "split",
  "redirect",
  "missing",
  "mirror",
  "listener",
  "cluster",
  "env",
  "secret",
  "consumer",
];
const garbage: fc.Arbitrary<unknown> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.anything({
      withBigInt: true,
      withDate: true,
      withMap: true,
      withNullPrototype: true,
      withSparseArray: true,
    }),
  },
  fc.constantFrom<unknown>(null, undefined, Number.NaN, -0, Number.POSITIVE_INFINITY, Symbol("s"), 10n, true, [], {}),
  fc.constantFrom(...NAMES),
  fc.constantFrom<unknown>(
    () => null,
    async () => {},
    class {},
    new Instance(),
    /(a+)+$/,
    /\//gy,
    new Proxy({}, {}),
    cyclic(),
  ),
  fc.constantFrom(...NAMES).map((name) => withPrototypeKey(name)),
  // Nearly right: a kind of declaration without what belongs to it.
  fc.record({
    kind: fc.constantFrom(...KINDS),
    name: fc.oneof(fc.constantFrom(...NAMES), fc.anything()),
    policy: fc.oneof(fc.constantFrom(...NAMES, "jwt", "scopes"), fc.anything()),
    options: fc.anything(),
    policies: fc.anything(),
    endpoints: fc.anything(),
    levels: fc.oneof(fc.anything(), fc.array(fc.record({ endpoints: fc.array(fc.anything()) }))),
    to: fc.anything(),
    arms: fc.dictionary(fc.constantFrom(...NAMES), fc.anything()),
    declaredAt: fc.constantFrom<unknown>(undefined, null, 5, { stack: 5 }, { stack: "at x:1:1" }),
  }),
  fc.array(fc.constantFrom<unknown>(cyclic(), null, "a", 5), { maxLength: 3 }),
);

function compile(exported: unknown): { table: RouteTable; problems: readonly Problem[] } {
  const problems = new Problems(() => undefined);
  const { table } = planTable(checkConfiguration(gatewayOf(exported), problems), problems);
  return { table, problems: problems.list };
}

/** A member without a value is one that is not there, in JSON as in the language; in a list it would become null. */
const isJson = (value: unknown, holder: unknown): boolean =>
  value === null ||
  ["string", "boolean", "object"].includes(typeof value) ||
  Number.isFinite(value) ||
  (value === undefined && !Array.isArray(holder));

function expectVerdict(exported: unknown): void {
  const { table, problems } = compile(exported);
  for (const { subject, message, fix } of problems) {
    for (const text of [subject, message, fix]) {
      expect(text).not.toBe("");
      expect(text.length).toBeLessThan(600);
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they would write over the terminal
      expect(text).not.toMatch(/[\x00-\x1f]/);
    }
  }
  if (problems.length > 0) return;
  const marked = JSON.stringify(table, function (_, value) {
    return isJson(value, this) ? value : "lost";
  });
  expect(marked).toBe(JSON.stringify(table));
  indexMatches(table.routes, table.listeners);
}

describe("declarations", () => {
  it("are sound to begin with", () => {
    expect(compile(sound()).problems).toEqual([]);
  });

  it("with garbage in any place", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(), garbage), { minLength: 1, maxLength: 4 }), (faults) => {
        const exported = sound();
        const places = placesIn(exported);
        for (const [at, value] of faults) {
          const [holder, key] = places[at % places.length] as Place;
          holder[key] = value;
        }
        expectVerdict(exported);
      }),
      { numRuns: 600 },
    );
  });

  it("with any name for a member", () => {
    fc.assert(
      fc.property(fc.nat(), fc.constantFrom(...NAMES), garbage, (at, name, value) => {
        const exported = sound();
        // Not of lists: no literal gives a list a constructor of its own.
        const holders = [...new Set(placesIn(exported).map(([holder]) => holder))].filter((one) => !Array.isArray(one));
        const holder = holders[at % holders.length] as object;
        Object.defineProperty(holder, name, { value, enumerable: true, configurable: true, writable: true });
        expectVerdict(exported);
      }),
      { numRuns: 500 },
    );
  });

  it("that are nothing but garbage", () => {
    fc.assert(fc.property(garbage, expectVerdict), { numRuns: 1_000 });
  });

  it("with getters that throw: the exception is theirs", () => {
    class Trap extends Error {}
    fc.assert(
      fc.property(fc.nat(), (at) => {
        const exported = sound();
        const places = placesIn(exported);
        const [holder, key] = places[at % places.length] as Place;
        Object.defineProperty(holder, key, {
          enumerable: true,
          get() {
            throw new Trap();
          },
        });
        try {
          expectVerdict(exported);
        } catch (error) {
          expect(error).toBeInstanceOf(Trap);
        }
      }),
      { numRuns: 300 },
    );
  });
});

describe("modules", () => {
  const text = `${PRELUDE}
const partner = consumer("partner", { claims: { client_id: "partner" } });
const canary = split({ stable: eu.service("a").weight(9), next: eu.service("b").weight(1) }, { sticky: "client" });
export default gateway({ policies: [requestId({}), filter({})], timeouts: { total: "30s" } }, [
  api("shop", { hosts: ["api.example.com"], policies: [token, cors({ origins: ["https://shop.example.com"] })] }, [
    route("list", { path: "/v1/{id}", methods: ["GET"], headers: { "x-v": /v[0-9]+/ } }, { policies: [scopes("read")], to: canary }),
    route("moved", { path: "/old/*" }, { policies: [without("jwt")], to: redirect({ path: { prefix: "/v1" } }) }),
  ]),
]);
`;

  it("is sound to begin with", async () => {
    expect(await problemsOf({ "index.ts": text })).toEqual([]);
  });

  it("with a piece taken out, put elsewhere or put twice", async () => {
    const piece = fc.tuple(fc.nat(text.length), fc.integer({ min: 1, max: 40 }), fc.nat(text.length), fc.boolean());
    await fc.assert(
      fc.asyncProperty(piece, async ([from, length, to, keep]) => {
        const cut = text.slice(from, from + length);
        const rest = keep ? text : text.slice(0, from) + text.slice(from + length);
        const changed = rest.slice(0, to) + cut + rest.slice(to);
        // Anything but a list of problems is an exception, and fails.
        expect(await problemsOf({ "index.ts": changed })).toBeInstanceOf(Array);
      }),
      { numRuns: 80 },
    );
  });

  it("with an expression in the place of a value", async () => {
    const expressions = [
      "undefined",
      "null",
      "0",
      "-1",
      "1n",
      '""',
      "[]",
      "{}",
      "() => {}",
      "class {}",
      "Symbol()",
      "new Date()",
      "Object.create(null)",
      '{ get kind() { throw new Error("kind") } }',
      "new Proxy({}, { get() { throw new TypeError() } })",
      '"a".repeat(1e6)',
      "(() => { const a = {}; a.a = a; return a; })()",
      "globalThis",
      "process",
      "import.meta",
      "await Promise.reject()",
      "(() => { throw null })()",
    ];
    const values = [
      ...text.matchAll(/"[^"]*"|\{[^{}]*\}|\[[^[\]]*\]|\/v.*?\/(?= )|\b(?:eu|token|canary|partner)\b/g),
    ].filter(({ index }) => index >= PRELUDE.length);
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...values),
        fc.constantFrom(...expressions),
        async ({ 0: old, index }, value) => {
          const changed = text.slice(0, index) + value + text.slice(index + old.length);
          expect(await problemsOf({ "index.ts": changed })).toBeInstanceOf(Array);
        },
      ),
      { numRuns: 120 },
    );
  });
});
