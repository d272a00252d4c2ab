import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  allow,
  request as asked,
  type Condition,
  caller,
  client,
  clock,
  deny,
  either,
  not,
  when,
} from "../../src/config/condition.ts";
import { consumer, plan } from "../../src/config/consumer.ts";
import { type AuthorizeOptions, authorize, compile, run, schema } from "../../src/policies/authorize.ts";
import { type Quantifier, testOf } from "../../src/policies/condition.ts";
import type { Caller, Exchange } from "../../src/policies/contract.ts";
import type { PolicyMode } from "../../src/table/table.ts";
import { compileContext, exchangeFor, type PolicyResult, runPolicy } from "./exchange.ts";

const NOW = Date.UTC(2026, 10, 23, 12, 30);
const who: Caller = {
  consumer: "partner",
  subject: "https://login.example.com|alice",
  scopes: ["orders:read"],
  groups: ["staff", "berlin"],
  plan: "gold",
  metadata: { tier: 2, contract: { region: "eu" } },
  claims: { sub: "alice", org: { id: "o-1" }, roles: ["admin", "user"], age: 42, verified: true },
  credential: { kind: "jwt" },
};

interface World {
  readonly url?: string;
  readonly init?: RequestInit;
  readonly cf?: Record<string, unknown>;
  readonly caller?: Caller | null;
  /** What the route declares; null: no route. */
  readonly path?: string | null;
  readonly clientAddress?: string;
  readonly now?: number;
}

function situation({ url = "https://api.example.com/v1/orders/7?page=2", init, cf, now = NOW, ...rest }: World = {}) {
  const request = new Request(url, init);
  if (cf) Object.defineProperty(request, "cf", { value: cf });
  const { caller = who, path = "/v1/orders/{id}", clientAddress = "192.0.2.1" } = rest;
  const match = path !== null && { match: { path: { kind: "exact", value: path } } };
  const overrides = { clientAddress, ...match, ...(caller && { caller }) } as Partial<Exchange>;
  return { exchange: exchangeFor(request, overrides), request, now };
}

/** What passes between routes/ and the edge is data. */
const holds = (condition: Condition, world?: World, quantifier: Quantifier = "every") =>
  testOf(JSON.parse(JSON.stringify(condition)), quantifier)(situation(world));

describe("a condition", () => {
  test.each<[string, Condition, boolean | undefined]>([
    ["method", asked.method.is("GET", "HEAD"), true],
    ["another method", asked.method.is("POST"), false],
    ["path", asked.path.is("/v1/orders/7"), true],
    ["beginning of the path", asked.path.startsWith("/v2/", "/v1/"), true],
    ["pattern", asked.path.fits("/v1/{*}/7"), true],
    ["pattern with too few segments", asked.path.fits("/v1/{*}"), false],
    ["pattern with a rest", asked.path.fits("/v1/{**}"), true],
    ["pattern with a rest that is nothing", asked.path.fits("/v1/orders/7/{**}"), true],
    ["pattern that is no regex", asked.path.fits("/v1/order./7"), false],
    ["host", asked.host.endsWith(".example.com"), true],
    ["scheme", asked.scheme.is("https"), true],
    ["header", asked.header("X-Tenant").is("t"), undefined],
    ["query", asked.query("page").is("2"), true],
    ["cookie", asked.cookie("a").exists(), false],
    ["parameter", asked.param("id").is("7"), true],
    ["parameter that there is not", asked.param("constructor").exists(), false],
    ["consumer by value", caller.consumer.is(consumer("partner"), "other"), true],
    ["plan by value", caller.plan.is(plan("free")), false],
    ["subject", caller.subject.endsWith("|alice"), true],
    ["scope", caller.scopes.has("orders:write"), false],
    ["group", caller.groups.has("ops", "berlin"), true],
    ["credential", caller.credential.is("jwt"), true],
    ["claim", caller.claim("org.id").is("o-1"), true],
    ["claim that lists", caller.claim("roles").has("admin"), true],
    ["claim as a number", caller.claim("age").atLeast(42), true],
    ["claim as a number above", caller.claim("age").atMost(41), false],
    ["claim as a truth", caller.claim("verified").is(true), true],
    ["claim of another kind", caller.claim("roles").startsWith("admin"), undefined],
    ["claim as text where it is a number", caller.claim("age").is("42"), false],
    ["claim from Object.prototype", caller.claim("constructor").exists(), false],
    ["claim that is the parameter", caller.claim("org.id").is(asked.param("id")), false],
    ["metadata", caller.metadata("contract.region").is("eu"), true],
    ["address", client.address.within("192.0.2.0/24", "2001:db8::/32"), true],
    ["another address", client.address.within("10.0.0.0/8"), false],
    ["country that nobody tells", client.country.is("DE"), undefined],
    ["opposite of what nobody tells", not(client.country.is("DE")), undefined],
    ["opposite", not(asked.method.is("POST")), true],
    ["all", when(asked.method.is("GET"), asked.path.startsWith("/v1")), true],
    ["all, one of which does not hold and one cannot be told", when(client.asn.is(1), asked.method.is("PUT")), false],
    ["all, one of which cannot be told", when(client.asn.is(1), asked.method.is("GET")), undefined],
    ["either", either(asked.method.is("PUT"), asked.path.startsWith("/v1")), true],
    ["either, one of which cannot be told", either(client.asn.is(1), asked.method.is("PUT")), undefined],
  ])("on %s", (_, condition, expected) => {
    expect(holds(condition)).toBe(expected);
  });

  test("compares two values of a request", () => {
    const own = caller.claim("sub").is(asked.param("id"), asked.header("x-on-behalf-of"));
    expect(holds(own, { url: "https://api.example.com/v1/orders/alice" })).toBe(true);
    expect(holds(own, { url: "https://api.example.com/v1/orders/bob" })).toBe(false);
    expect(holds(own, { path: null, init: { headers: { "X-On-Behalf-Of": "alice" } } })).toBe(true);
  });

  describe("on what is there twice", () => {
    const url = "https://api.example.com/?user=alice&user=bob&debug=0&debug=1&same=a&same=a";
    const twice = new Headers({ cookie: "user=alice; user=bob", "x-user": "alice" });
    twice.append("x-user", "bob");
    const world: World = { url, init: { headers: twice } };
    const cases: [string, Condition, pass: boolean | undefined, refuse: boolean | undefined][] = [
      ["query", asked.query("user").is("alice"), false, true],
      ["query, the last", asked.query("user").is("bob"), false, true],
      ["query, the same twice", asked.query("same").is("a"), true, true],
      ["query, none of them", asked.query("user").is("carol"), false, false],
      ["query, each of another", asked.query("user").is("alice", "bob"), true, true],
      ["query as the other side", caller.claim("sub").is(asked.query("user")), false, true],
      ["query, the opposite", not(asked.query("debug").is("1")), false, true],
      ["cookie", asked.cookie("user").is("alice"), false, true],
      ["header", asked.header("x-user").is("bob"), false, true],
      ["header, beginning", asked.header("x-user").startsWith("bo"), false, true],
      ["header, the opposite", not(asked.header("x-user").is("bob")), false, true],
    ];
    test.each(cases)(
      "%s: what lets pass must hold for all of it, what refuses for any",
      (_, condition, pass, refuse) => {
        expect([holds(condition, world), holds(condition, world, "some")]).toEqual([pass, refuse]);
      },
    );

    test("an allow is not bought and a deny not escaped by saying it twice", async () => {
      const rules = [
        allow("owner", caller.claim("sub").is(asked.query("user"))),
        deny("debugging", asked.query("debug").is("1")),
      ];
      const status = async (search: string) => {
        const request = new Request(`https://api.example.com/${search}`);
        return (await runPolicy(run, compile({ rules }, compileContext()), request, { exchange: { caller: who } }))
          .response.status;
      };
      expect(await status("?user=alice")).toBe(200);
      for (const search of ["?user=alice&user=bob", "?user=bob&user=alice", "?user=alice&debug=0&debug=1"])
        expect([search, await status(search)]).toEqual([search, 403]);
    });
  });

  test("goes by what Cloudflare tells", () => {
    const cf = {
      country: "DE",
      continent: "EU",
      regionCode: "BE",
      asn: 64_496,
      botManagement: { score: 12 },
    };
    for (const condition of [
      client.country.is("AT", "DE"),
      client.continent.is("EU"),
      client.region.is("BE"),
      client.asn.is(64_496),
      client.botScore.atMost(30),
      not(client.botScore.atLeast(30)),
    ]) {
      expect([condition, holds(condition, { cf }), holds(condition)]).toEqual([condition, true, undefined]);
    }
  });

  test("of nobody's groups and scopes cannot be told, and of a caller without any can", () => {
    const { groups: _, ...plain } = who;
    expect(holds(caller.groups.has("a"), { caller: null })).toBeUndefined();
    expect(holds(not(caller.groups.has("a")), { caller: plain })).toBe(true);
    expect(holds(not(caller.scopes.has("a")), { caller: null })).toBeUndefined();
    expect(holds(caller.consumer.exists(), { caller: null })).toBe(false);
  });

  test("of an address that cannot be read cannot be told", () => {
    expect(holds(not(client.address.within("10.0.0.0/8")), { clientAddress: "" })).toBeUndefined();
    expect(holds(not(client.address.within("10.0.0.0/8")), { clientAddress: "what" })).toBeUndefined();
  });

  // 23 November 2026 is a Monday.
  test.each<[string, Condition, number, boolean]>([
    ["within", clock.between("08:00", "18:00"), NOW, true],
    ["before", clock.between("13:00", "18:00"), NOW, false],
    ["at the end, which is outside", clock.between("08:00", "12:30"), NOW, false],
    ["at the beginning", clock.between("12:30", "12:31"), NOW, true],
    ["on the day", clock.between("08:00", "18:00", { days: ["mon"] }), NOW, true],
    ["on another day", clock.between("08:00", "18:00", { days: ["sun", "tue"] }), NOW, false],
    ["in another zone", clock.between("21:00", "22:00", { zone: "Asia/Tokyo" }), NOW, true],
    [
      "in another zone, where it is another day",
      clock.between("00:00", "06:00", { zone: "Asia/Tokyo", days: ["tue"] }),
      Date.UTC(2026, 10, 23, 16),
      true,
    ],
    ["in summer time", clock.between("14:00", "15:00", { zone: "Europe/Berlin" }), Date.UTC(2026, 6, 1, 12, 30), true],
    ["over midnight, before it", clock.between("22:00", "06:00", { days: ["mon"] }), Date.UTC(2026, 10, 23, 23), true],
    [
      "over midnight, after it",
      clock.between("22:00", "06:00", { days: ["mon"] }),
      Date.UTC(2026, 10, 24, 5, 59),
      true,
    ],
    [
      "over midnight, that of the day before",
      clock.between("22:00", "06:00", { days: ["mon"] }),
      Date.UTC(2026, 10, 23, 5),
      false,
    ],
    ["until midnight", clock.between("18:00", "24:00"), Date.UTC(2026, 10, 23, 23, 59), true],
  ])("on the time %s", (_, condition, now, expected) => {
    expect(holds(condition, { now })).toBe(expected);
  });

  test("and its opposite never both hold, and De Morgan is right", () => {
    const leaves = [
      asked.method.is("GET"),
      asked.method.is("PUT"),
      client.country.is("DE"),
      caller.groups.has("staff"),
    ];
    const { condition } = fc.letrec<{ condition: Condition }>((tie) => ({
      condition: fc.oneof(
        { maxDepth: 4 },
        fc.constantFrom(...leaves),
        fc.array(tie("condition"), { minLength: 1, maxLength: 3 }).map((all) => ({ all })),
        fc.array(tie("condition"), { minLength: 1, maxLength: 3 }).map((any) => ({ any })),
        tie("condition").map((one) => not(one)),
      ),
    }));
    fc.assert(
      fc.property(condition, condition, (a, b) => {
        const [holdsA, opposite] = [holds(a), holds(not(a))];
        expect(opposite).toBe(holdsA === undefined ? undefined : !holdsA);
        expect(holds(not({ all: [a, b] }))).toBe(holds(either(not(a), not(b))));
        expect(holds(not(either(a, b)))).toBe(holds({ all: [not(a), not(b)] }));
      }),
    );
  });
});

describe("the policy", () => {
  const rules = [
    allow("staff", caller.groups.has("staff")),
    allow("readers", when(asked.method.is("GET"), caller.scopes.has("orders:read"))),
    deny("abroad", client.country.is("XX")),
  ];
  async function ask(world: World = {}, mode: PolicyMode = "enforce", given = rules): Promise<PolicyResult> {
    const context = compileContext();
    const config = compile({ rules: given }, context);
    expect(context.problems).toEqual([]);
    const { exchange, request } = situation(world);
    return runPolicy(run, config, request, { mode, now: NOW, exchange: { ...exchange } });
  }
  const verdict = ({ exchange }: PolicyResult) => exchange.record.policies[0];

  test("lets pass what a rule allows, and says which", async () => {
    const result = await ask();
    expect([result.passed, verdict(result)]).toEqual([
      true,
      { policy: "authorize", verdict: "pass", facts: { rule: "readers" } },
    ]);
  });

  test("refuses what no rule allows", async () => {
    const { groups: _, ...plain } = who;
    const result = await ask({ caller: plain, init: { method: "POST" } });
    expect([result.response.status, verdict(result)?.facts]).toEqual([403, { rule: "none" }]);
    expect(await result.response.json()).toMatchObject({ code: "access-denied" });
  });

  test("refuses what a rule denies, wherever it stands in the list", async () => {
    for (const given of [rules, [...rules].reverse()]) {
      const result = await ask({ cf: { country: "XX" } }, "enforce", given);
      expect([result.response.status, verdict(result)?.facts]).toEqual([403, { rule: "abroad" }]);
    }
    expect((await ask({ cf: { country: "DE" } })).passed).toBe(true);
  });

  test("asks who is calling where nobody is known, and only where rules go by that", async () => {
    const { response } = await ask({ caller: null });
    expect([response.status, response.headers.get("www-authenticate")]).toEqual([401, 'Bearer realm="orders"']);
    const geo = [allow("home", client.country.is("DE"))];
    expect((await ask({ caller: null, cf: { country: "DE" } }, "enforce", geo)).passed).toBe(true);
    expect((await ask({ caller: null }, "enforce", geo)).response.status).toBe(403);
    expect((await ask({ caller: null, cf: { country: "XX" } })).response.status).toBe(403);
  });

  test("reports what it would have refused", async () => {
    const result = await ask({ cf: { country: "XX" } }, "report");
    expect([result.passed, verdict(result)]).toEqual([
      true,
      { policy: "authorize", verdict: "would-deny", reason: "access-denied", facts: { rule: "abroad" } },
    ]);
  });
});

describe("the build", () => {
  const good = allow("a", asked.method.is("GET"));
  test.each<[RegExp, AuthorizeOptions["rules"]]>([
    [/two rules have the same name/, [good, allow("a", asked.method.is("PUT"))]],
    [/authorize allows nothing/, [deny("a", asked.method.is("GET"))]],
    [/rule "b" has no time of day/, [good, allow("b", clock.between("8:00", "18:00"))]],
    [/rule "b" has no time of day/, [good, allow("b", clock.between("08:00", "08:00"))]],
    [
      /rule "b" is in the zone "Mars\/Olympus"/,
      [good, allow("b", not(clock.between("08:00", "18:00", { zone: "Mars/Olympus" })))],
    ],
    [/rule "b": "10.0.0.1\/8" is no address/, [good, allow("b", client.address.within("10.0.0.1/8"))]],
    [/rule "b": "\/v1\/\{id\}" is no pattern/, [good, allow("b", asked.path.fits("/v1/{id}"))]],
    [/rule "b": "\/v1\/\*" is no pattern/, [good, allow("b", either(good.condition, asked.path.fits("/v1/*")))]],
    [/rule "b": "\/\{\*\*\}\/x" is no pattern/, [good, allow("b", asked.path.fits("/{**}/x"))]],
  ])("reports %s", (expected, rules) => {
    const context = compileContext();
    compile({ rules }, context);
    expect(context.problems).toEqual([expect.stringMatching(expected)]);
  });

  test("makes the same JSON of the same rules in another order", () => {
    const rules = [good, allow("b", asked.method.is("PUT")), deny("c", client.country.is("XX"))];
    expect(JSON.stringify(compile({ rules }, compileContext()))).toBe(
      JSON.stringify(compile({ rules: [...rules].reverse() }, compileContext())),
    );
  });

  test("takes rules, or options with rules; and nothing that is none", () => {
    expect(authorize(good).options).toEqual({ rules: [good] });
    const declared = authorize({ rules: [good], mode: "report" });
    expect(declared.options).toEqual({ rules: [good], mode: "report" });
    expect(declared.declaredAt.stack?.split("\n")[1]).toContain("authorize.test.ts");
    expect(schema().safeParse(declared.options).success).toBe(true);
    const full = either(
      not(caller.claim("a").is(1, true, asked.param("b"))),
      when(
        client.asn.atLeast(1),
        client.botScore.atMost(2),
        caller.plan.exists(),
        clock.between("08:00", "18:00", { days: ["mon"] }),
      ),
    );
    expect(schema().safeParse(authorize(allow("full", full)).options).success).toBe(true);
    for (const bad of [
      [],
      [{ ...good, effect: "maybe" }],
      [{ ...good, condition: true }],
      [{ ...good, condition: { value: { of: "nothing" }, exists: true } }],
      [{ ...good, condition: { value: { of: "header" }, exists: true } }],
      [{ ...good, condition: { all: [] } }],
      [{ ...good, condition: { value: { of: "method" }, is: [] } }],
      [asked.method],
    ])
      expect([bad, schema().safeParse({ rules: bad }).success]).toEqual([bad, false]);
  });
});
