/** What a change of one policy's options says about the requests that it holds back. */
import { describe, expect, it } from "vitest";
import { planRoutes } from "../../src/build/compile.ts";
import { policyOrder } from "../../src/policies/order.ts";
import type { WafConfig } from "../../src/policies/waf.ts";
import { policiesOf } from "../../src/prove/callers.ts";
import { isCompared, weakenings } from "../../src/prove/weakening.ts";
import type { TablePolicy } from "../../src/table/table.ts";
import { folderOf, PRELUDE } from "../build/module.ts";

// Every policy list of every case in one module: to compile one takes as long as to compile all.
const jwt = (more = "") => `jwt({ issuer: "https://a", jwks: "https://a/k", audience: "shop", ${more} })`;
const CASES: readonly (readonly [name: string, old: string, now: string, ...told: string[]])[] = [
  ["the same", jwt(), jwt()],
  ["a policy more", jwt(), `${jwt()}, scopes("a")`],
  ["jwt gone", jwt(), "", "jwt: jwt is gone: nothing says who is calling"],
  ["jwt optional", jwt(), jwt("optional: true"), "jwt: requests without a credential get through"],
  ["jwt reporting", jwt(), jwt('mode: "report"'), "jwt: jwt only reports"],
  ["jwt switched off", jwt(), jwt('mode: "off"'), "jwt: jwt is gone: nothing says who is calling"],
  ["jwt enforced", jwt('mode: "report"'), jwt()],
  [
    "another issuer beside",
    jwt(),
    `jwt({ issuer: ["https://a", "https://b"], jwks: "https://a/k", audience: "shop" })`,
    "jwt: jwt has more issuer: https://b",
  ],
  ["any audience", jwt(), `jwt({ issuer: "https://a", jwks: "https://a/k" })`, "jwt: jwt takes any audience"],
  ["an audience at last", `jwt({ issuer: "https://a", jwks: "https://a/k" })`, jwt()],
  [
    "a longer leeway",
    jwt(),
    jwt('leeway: "50s"'),
    expect.stringMatching(/^jwt: jwt has a higher leeway/) as unknown as string,
  ],
  ["either of two", jwt(), `anyOf(${jwt()}, apiKey({}))`, "anyOf: accepts apiKey now"],
  ["both of two", jwt(), `allOf(${jwt()}, apiKey({}))`],
  ["one of both", `allOf(${jwt()}, apiKey({}))`, jwt(), "jwt: no longer asks for apiKey, too"],
  ["keys of anybody", "apiKey({ consumers: [shop] })", "apiKey({})", "apiKey: apiKey takes any consumers"],
  ["a scope dropped", `${jwt()}, scopes("a", "b")`, `${jwt()}, scopes("a")`, "scopes: no longer asks for the scope b"],
  ["one scope of two", `${jwt()}, scopes({ any: ["a", "b"] })`, `${jwt()}, scopes("b")`],
  ["addresses narrowed", 'ipFilter({ allow: ["10.0.0.0/8"] })', 'ipFilter({ allow: ["10.1.0.0/16"] })'],
  [
    "addresses widened",
    'ipFilter({ allow: ["10.1.0.0/16"] })',
    'ipFilter({ allow: ["10.0.0.0/8"] })',
    "ipFilter: lets addresses through that it refused, such as 10.0.0.0",
  ],
  [
    "a limit raised",
    "rateLimit({ limit: 5, window: '1m' })",
    "rateLimit({ limit: 9, window: '1m' })",
    "rateLimit: lets 9 in 60 s through instead of 5 in 60 s",
  ],
  ["a limit lowered", "rateLimit({ limit: 5, window: '1m' })", "rateLimit({ limit: 4, window: '1m' })"],
  [
    "a limit for others",
    "rateLimit({ limit: 5, window: '1m' })",
    "rateLimit({ limit: 5, window: '1m', per: 'route' })",
    "rateLimit: no longer limits to 5 in 60 s",
  ],
  [
    "a window dropped",
    "rateLimit({ windows: [{ limit: 5, window: '1s' }, { limit: 9, window: '1m' }] })",
    "rateLimit({ limit: 5, window: '1s' })",
    "rateLimit: no longer limits to 9 in 60 s",
  ],
  [
    "a sliding window that is fixed now",
    "rateLimit({ limit: 5, window: '1m' })",
    "rateLimit({ limit: 5, window: '1m', algorithm: 'fixedWindow' })",
    "rateLimit: counts 5 in 60 s in fixed windows instead of a sliding window, so that up to 10 pass around the turn of one",
  ],
  [
    "a sliding window that is a bucket now",
    "rateLimit({ limit: 5, window: '1m' })",
    "rateLimit({ limit: 5, window: '1m', algorithm: 'tokenBucket' })",
    "rateLimit: counts 5 in 60 s in a token bucket instead of a sliding window, so that up to 10 pass within 60 s",
  ],
  [
    "a day of the calendar instead of any 24 hours",
    "rateLimit({ limit: 5, window: '1d' })",
    "rateLimit({ limit: 5, window: 'day' })",
    "rateLimit: counts 5 in 86400 s in fixed windows instead of a sliding window, so that up to 10 pass around the turn of one",
  ],
  [
    "a bucket that is a fixed window now",
    "rateLimit({ limit: 5, window: '1m', algorithm: 'tokenBucket' })",
    "rateLimit({ limit: 5, window: '1m', algorithm: 'fixedWindow' })",
    "rateLimit: counts 5 in 60 s in fixed windows instead of a token bucket, so that up to 10 pass around the turn of one",
  ],
  [
    "a fixed window of half as many",
    "rateLimit({ limit: 10, window: '1m' })",
    "rateLimit({ limit: 5, window: '1m', algorithm: 'fixedWindow' })",
  ],
  [
    "a fixed window that slides now",
    "rateLimit({ limit: 5, window: '1m', algorithm: 'fixedWindow' })",
    "rateLimit({ limit: 5, window: '1m' })",
  ],
  [
    "a bucket that fills faster",
    "rateLimit({ limit: 60, window: '1m', burst: 10, algorithm: 'tokenBucket' })",
    "rateLimit({ limit: 600, window: '1m', burst: 10, algorithm: 'tokenBucket' })",
    "rateLimit: lets 10 in 1 s through instead of 10 in 10 s",
  ],
  ["as many in shorter windows", "rateLimit({ limit: 300, window: '1h' })", "rateLimit({ limit: 5, window: '1m' })"],
  [
    "leases of a minute's limit",
    "rateLimit({ limit: 5, window: '1m' })",
    "rateLimit({ limit: 5, window: '1m', count: 'leased' })",
  ],
  [
    "leases of a day's limit",
    "rateLimit({ limit: 5, window: 'day' })",
    "rateLimit({ limit: 5, window: 'day', count: 'leased' })",
    "rateLimit: counts 5 in 86400 s anew, as another counter does it: what has been used is forgotten",
  ],
  [
    "leases of a month's limit, which the same script counts",
    "rateLimit({ limit: 5, window: 'month' })",
    "rateLimit({ limit: 5, window: 'month', count: 'leased' })",
  ],
  [
    "a consumer's own limit that is fixed now",
    `${jwt("consumers: [shop]")}, rateLimit({ limit: 5, window: 'day', consumers: [[shop, { limit: 9, window: '1m' }]] })`,
    `${jwt("consumers: [shop]")}, rateLimit({ limit: 5, window: 'day', consumers: [[shop, { limit: 9, window: '1m' }]], algorithm: 'fixedWindow' })`,
    "rateLimit: of the consumer shop counts 9 in 60 s in fixed windows instead of a sliding window, so that up to 18 pass around the turn of one",
  ],
  [
    "a plan's own limit lowered",
    `${jwt("consumers: [shop]")}, rateLimit({ limit: 5, window: '1m', plans: [[free, 2]] })`,
    `${jwt("consumers: [shop]")}, rateLimit({ limit: 5, window: '1m', plans: [[free, 1]] })`,
  ],
  [
    "a cap until the headers, and for a shorter time",
    "concurrency({ limit: 5 })",
    "concurrency({ limit: 5, until: 'headers', expiry: '10s' })",
    "concurrency: counts a request until its headers, not its end",
    "concurrency: forgets a request after 10 s instead of 60 s",
  ],
  [
    "open where closed",
    "rateLimit({ limit: 5, window: '1m', onStoreFailure: 'closed' })",
    "rateLimit({ limit: 5, window: '1m', onStoreFailure: 'open' })",
    "rateLimit: is open instead of closed when the store fails",
  ],
  [
    "a consumer's own limit",
    `${jwt("consumers: [shop]")}, rateLimit({ limit: 5, window: '1m' })`,
    `${jwt("consumers: [shop]")}, rateLimit({ limit: 5, window: '1m', consumers: [[shop, 50]] })`,
    "rateLimit: lets the consumer shop have 50 in 60 s instead of 5 in 60 s",
  ],
  [
    "a consumer's own limit gone, which was lower",
    `${jwt("consumers: [shop]")}, rateLimit({ limit: 5, window: '1m', consumers: [[shop, 2]] })`,
    `${jwt("consumers: [shop]")}, rateLimit({ limit: 5, window: '1m' })`,
    "rateLimit: lets the consumer shop have 5 in 60 s instead of 2 in 60 s",
  ],
  [
    "a consumer's own limit gone, which was higher",
    `${jwt("consumers: [shop]")}, rateLimit({ limit: 5, window: '1m', consumers: [[shop, 50]] })`,
    `${jwt("consumers: [shop]")}, rateLimit({ limit: 5, window: '1m' })`,
  ],
  [
    "a plan's own limit gone",
    `${jwt("consumers: [shop]")}, rateLimit({ limit: 5, window: '1m', plans: [[free, 2]] })`,
    `${jwt("consumers: [shop]")}, rateLimit({ limit: 5, window: '1m' })`,
    "rateLimit: has higher limits for the plan free",
  ],
  [
    "a cost that only the response tells, gone",
    "rateLimit({ limit: 5, window: '1m', cost: { header: 'x-cost' } })",
    "rateLimit({ limit: 5, window: '1m' })",
    "rateLimit: no longer takes what the response says in x-cost",
  ],
  [
    "a consumer's own cap gone, which was lower",
    `${jwt("consumers: [shop]")}, concurrency({ limit: 5, consumers: [[shop, 2]], plans: [[free, 1]] })`,
    `${jwt("consumers: [shop]")}, concurrency({ limit: 5 })`,
    "concurrency: lets the consumer shop have 5 under way",
    "concurrency: lets the plan free have 5 under way",
  ],
  [
    "a user's scope more",
    `basic({ users: [{ name: "ann", password: secret("P"), scopes: ["read"] }] })`,
    `basic({ users: [{ name: "ann", password: secret("P"), scopes: ["admin", "read"] }] })`,
    "basic: basic gives ann more scopes: admin",
  ],
  [
    "a user who is another consumer, by another password",
    `basic({ users: [{ name: "ann", password: secret("P"), consumer: shop }] })`,
    `basic({ users: [{ name: "ann", password: secret("Q"), consumer: other }] })`,
    "basic: basic takes ann for other instead of shop",
    "basic: basic knows ann by another secret, which may be a weaker one",
  ],
  [
    "signatures for any purpose, by another key",
    `hmac({ tag: "shop", keys: [{ id: "k", key: secret("P"), consumer: shop }] })`,
    `hmac({ keys: [{ id: "k", key: secret("Q"), consumer: shop }] })`,
    "hmac: hmac takes any tag",
    "hmac: hmac knows k by another secret, which may be a weaker one",
  ],
  [
    "signatures for a purpose at last",
    `hmac({ keys: [{ id: "k", key: secret("P"), consumer: shop }] })`,
    `hmac({ tag: "shop", keys: [{ id: "k", key: secret("P"), consumer: shop }] })`,
  ],
  [
    "groups by a claim",
    jwt(),
    jwt('groupsFrom: "roles"'),
    "jwt: jwt has another groupsFrom, which may be a weaker one",
  ],
  [
    "scopes by a service's word",
    'forwardAuth({ url: "https://a/check" })',
    'forwardAuth({ url: "https://a/check", scopesFrom: "x-scopes" })',
    "forwardAuth: forwardAuth has another scopesFrom, which may be a weaker one",
  ],
  [
    "more consumers where one of them has a limit of its own",
    `${jwt("consumers: [shop]")}, rateLimit({ limit: 5, window: "1m", consumers: [[other, 500]] })`,
    `${jwt("consumers: [shop, other]")}, rateLimit({ limit: 5, window: "1m", consumers: [[other, 500]] })`,
    "jwt: jwt has more consumers: other",
  ],
  ["more consumers where none is asked for", jwt("consumers: [shop]"), jwt("consumers: [shop, other]")],
  [
    "one consumer more of those that are required",
    jwt("requireConsumer: true, consumers: [shop]"),
    jwt("requireConsumer: true, consumers: [shop, other]"),
    "jwt: jwt has more consumers: other",
  ],
  [
    "a cap raised",
    "concurrency({ limit: 5 })",
    "concurrency({ limit: 6 })",
    "concurrency: lets 6 be under way instead of 5",
  ],
  [
    "a rule excluded",
    "filter({})",
    'filter({ exclude: [{ rule: "sqli-union", target: "query:q" }] })',
    "filter: excludes query:q from the rule sqli-union",
  ],
  [
    "a threshold raised",
    "filter({})",
    "filter({ threshold: 10 })",
    "filter: filter has a higher threshold: 10 instead of 5",
  ],
  ["no bodies", "filter({})", "filter({ body: false })", "filter: no longer looks at bodies"],
  ["a filter that reports", "filter({})", 'filter({ mode: "report" })', "filter: filter only reports"],
  [
    "an origin more",
    'cors({ origins: ["https://a"] })',
    'cors({ origins: ["https://a", "https://b"], credentials: true })',
    "cors: lets scripts of https://b read its answers",
    "cors: lets scripts send cookies along",
  ],
  ["no CORS", 'cors({ origins: ["https://a"] })', ""],
  [
    "a security header less",
    "securityHeaders({})",
    "securityHeaders({ hsts: 0 })",
    "securityHeaders: no longer sets strict-transport-security",
  ],
  [
    "an allowing rule",
    'authorize(allow("a", request.method.is("GET")))',
    'authorize(allow("a", request.method.is("GET")), allow("b", request.method.is("PUT")))',
    'authorize: also allows: "b"',
  ],
  [
    "a denying rule dropped",
    'authorize(allow("a", request.method.is("GET")), deny("b", request.path.is("/b")))',
    'authorize(allow("a", request.method.is("GET")))',
    'authorize: no longer denies: "b"',
  ],
  [
    "a box for more",
    "penaltyBox({})",
    "penaltyBox({ failures: 20 })",
    "penaltyBox: penaltyBox has a higher failures: 20 instead of 10",
  ],
];

describe("a change of policies", async () => {
  const lists = CASES.flatMap(
    ([, old, now], i) =>
      [
        [`old${i}`, old],
        [`now${i}`, now],
      ] as const,
  );
  const text = `${PRELUDE.replace("import {", "import { allOf, basic, deny, forwardAuth, hmac, penaltyBox, plan,")}
const other = consumer("other", { claims: { sub: "other" } });
const free = plan("free", { limits: [] });
const shop = consumer("shop", { claims: { sub: "shop" } });
export default gateway({ store: { url: env("U"), token: secret("T") } }, [api("t", {}, [${lists
    .map(([name, list]) => `route("${name}", { path: "/${name}" }, { policies: [${list}], to: eu })`)
    .join(",\n")}])]);`;
  const policies = new Map<string, TablePolicy[]>();
  it("can be compiled", async () => {
    const { table } = await planRoutes(await folderOf({ "index.ts": text }));
    for (const route of table.routes) policies.set(route.id, policiesOf(table, route));
  });

  it.each(CASES.map(([name, , , ...told], i) => ({ name, told, i })))("$name", ({ told, i }) => {
    const found = weakenings(policies.get(`t/old${i}`) ?? [], policies.get(`t/now${i}`) ?? []);
    expect(found.map(({ policy, message }) => `${policy}: ${message}`)).toEqual(told);
  });

  it("is told of a waf, whose rules are compared by the pack that they are compiled to", () => {
    const waf = (config: Partial<WafConfig>): TablePolicy[] => [
      { policy: "waf", mode: "enforce", config: { pack: "p", exclusions: [], sample: 100, ...config } },
    ];
    const told = (old: Partial<WafConfig>, now: Partial<WafConfig>) =>
      weakenings(waf(old), waf(now)).map(({ message }) => message);
    expect(told({}, { body: { tooLarge: "pass" } })).toEqual([]);
    expect(
      told({ body: { tooLarge: "refuse" }, response: 5 }, { pack: "q", sample: 50, body: { tooLarge: "pass" } }),
    ).toEqual([
      "waf has another pack, which may be a weaker one",
      "looks at 50 of 100 requests instead of 100",
      "no longer looks at answers",
      "lets longer bodies pass unseen",
    ]);
  });

  it("is told of every policy that holds something back", () => {
    const others = policyOrder.map(({ policy }) => policy).filter((policy) => !isCompared(policy));
    // These make requests known or change what is forwarded.
    expect(others).toEqual(["requestId", "anonymous", "upstreamToken", "headers"]);
  });
});
