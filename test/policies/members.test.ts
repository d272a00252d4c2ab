/** anyOf and allOf over real policies: tokens signed with a shared secret, keys in a stubbed store. */
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { consumer } from "../../src/config/consumer.ts";
import type { PolicyDeclaration } from "../../src/config/policy.ts";
import { secret } from "../../src/config/values.ts";
import * as allOf from "../../src/policies/all-of.ts";
import * as anonymous from "../../src/policies/anonymous.ts";
import * as anyOf from "../../src/policies/any-of.ts";
import * as apiKey from "../../src/policies/api-key.ts";
import { makeKey, recordKey, sha256 } from "../../src/policies/api-key-format.ts";
import type { CompileContext } from "../../src/policies/contract.ts";
import * as jwt from "../../src/policies/jwt.ts";
import type { PolicyName, RouteTable } from "../../src/table/table.ts";
import { compileContext, type PolicyResult, startPolicy } from "./exchange.ts";
import { AUDIENCE, ISSUER, NOW, sign } from "./issuer.ts";
import { type StubbedStore, storeEnv, stubStore, tableWithStore } from "./stubbed-store.ts";

const KEY = "0123456789abcdef0123456789abcdef";
const OTHER_KEY = "fedcba9876543210fedcba9876543210";
const policies: Partial<Record<PolicyName, { compile: (options: never, context: CompileContext) => unknown }>> = {
  allOf,
  anonymous,
  anyOf,
  apiKey,
  jwt,
};
const authenticators = {
  allOf: allOf.authenticator,
  anonymous: anonymous.authenticator,
  anyOf: anyOf.authenticator,
  apiKey: apiKey.authenticator,
  jwt: jwt.authenticator,
};

const partner = consumer("partner", { claims: { azp: "partner" } });
const token = jwt.jwt({ issuer: ISSUER, audience: AUDIENCE, secret: secret("KEY"), consumers: [partner] });
const otherToken = jwt.jwt({ issuer: "https://other.example.com", secret: secret("OTHER_KEY") });
const key = apiKey.apiKey({});
const guest = consumer("guest");

function compileOf(declared: PolicyDeclaration) {
  const context = compileContext((policy, options) => policies[policy]?.compile(options as never, context));
  const config = policies[declared.policy]?.compile(declared.options as never, context);
  return { config: config as never, problems: context.problems };
}

let store: StubbedStore;
beforeEach(() => {
  store = stubStore();
});
afterEach(() => {
  vi.restoreAllMocks();
});

function start(declared: PolicyDeclaration, consumers: RouteTable["consumers"] = {}) {
  const { config, problems } = compileOf(declared);
  expect(problems).toEqual([]);
  const run = declared.policy === "anyOf" ? anyOf.run : allOf.run;
  const send = startPolicy(run, config, {
    env: { ...storeEnv, KEY, OTHER_KEY },
    table: tableWithStore(consumers),
    now: NOW * 1_000,
    authenticators,
  });
  return (headers: Record<string, string> = {}) => send(new Request("https://api.example.com/v1/orders", { headers }));
}

const signed = (claims: Record<string, unknown> = {}, secret = KEY) =>
  sign({ alg: "HS256", kid: "k", privateKey: new TextEncoder().encode(secret) }, claims);
const bearer = async (claims: Record<string, unknown> = {}, secret = KEY) => ({
  authorization: `Bearer ${await signed(claims, secret)}`,
});
async function issue(who: string, scopes: string[] = []): Promise<{ "x-api-key": string }> {
  const text = makeKey("key");
  store.values.set(recordKey(await sha256(text)), JSON.stringify({ id: "id-1", consumer: who, created: 0, scopes }));
  return { "x-api-key": text };
}
const verdict = ({ exchange }: PolicyResult) => exchange.record.policies[0];

describe("anyOf", () => {
  test("lets in by each of its members, and tells the origin none of the credentials", async () => {
    const ask = start(anyOf.anyOf(token, key));
    for (let warm = 0; warm < 2; warm++) {
      const byToken = await ask(await bearer());
      expect(byToken.exchange.caller?.credential).toEqual({ kind: "jwt" });
      expect(verdict(byToken)).toEqual({ policy: "anyOf", verdict: "pass", facts: { by: "jwt", kid: "k" } });
    }
    const byKey = await ask(await issue("shop"));
    expect(byKey.exchange.caller).toMatchObject({ consumer: "shop", credential: { kind: "apiKey" } });
    const both = await ask({ ...(await bearer()), ...(await issue("shop")) });
    expect(both.exchange.caller?.credential?.kind).toBe("jwt");
    for (const { exchange } of [byKey, both]) {
      expect([...exchange.upstream.keys()].filter((name) => !name.startsWith("x-consumer-"))).toEqual([]);
    }
  });

  test("asks in the order of the list, and not further than needed", async () => {
    const ask = start(anyOf.anyOf(key, token));
    const { exchange } = await ask({ ...(await bearer()), ...(await issue("shop")) });
    expect(exchange.caller?.credential?.kind).toBe("apiKey");
    store.asked.length = 0;
    await start(anyOf.anyOf(token, key))({ ...(await bearer()), ...(await issue("shop")) });
    expect(store.asked).toEqual([]);
  });

  test("takes the good one of two credentials, whichever is bad", async () => {
    const ask = start(anyOf.anyOf(token, key));
    expect((await ask({ authorization: "Bearer x", ...(await issue("shop")) })).passed).toBe(true);
    expect((await ask({ ...(await bearer()), "x-api-key": "x" })).passed).toBe(true);
  });

  test("without any credential asks for all that there are", async () => {
    const { response, exchange } = await start(anyOf.anyOf(token, key, otherToken))();
    expect(response.status).toBe(401);
    expect(response.headers.get("www-authenticate")).toBe('Bearer realm="orders", ApiKey realm="orders"');
    expect(await response.json()).toMatchObject({ code: "credentials-missing" });
    expect(exchange.record.reason).toBe("credentials-missing");
  });

  test("tells why each credential that was there is not good", async () => {
    const ask = start(anyOf.anyOf(token, key));
    const result = await ask({ authorization: "Bearer x", "x-api-key": "y" });
    expect(result.response.status).toBe(401);
    expect(await result.response.json()).toMatchObject({ code: "token-invalid", detail: "the token is malformed" });
    expect(result.response.headers.get("www-authenticate")).toMatch(/^Bearer .*error="invalid_token".*, ApiKey realm/);
    expect(verdict(result)).toEqual({
      policy: "anyOf",
      verdict: "deny",
      reason: "token-invalid",
      facts: {
        refused: [
          { by: "jwt", reason: "token-invalid", why: "malformed" },
          { by: "apiKey", reason: "credentials-invalid", why: "malformed" },
        ],
      },
    });
  });

  test("finds the policy that a token is for, and says that it has expired where it was for that one", async () => {
    const ask = start(anyOf.anyOf(token, otherToken));
    const other = { iss: "https://other.example.com", aud: undefined };
    expect((await ask(await bearer(other, OTHER_KEY))).exchange.caller?.subject).toBe(
      "https://other.example.com|user-1",
    );
    const { response } = await ask(await bearer({ ...other, exp: NOW - 60 }, OTHER_KEY));
    expect(await response.json()).toMatchObject({ code: "token-expired" });
  });

  test("says 503 while one that could be good cannot be checked", async () => {
    const ask = start(anyOf.anyOf(token, key, anonymous.anonymous(guest)));
    const shown = await issue("shop");
    store.answer = () => Promise.reject(new TypeError("down"));
    const { response } = await ask({ authorization: "Bearer x", ...shown });
    expect([response.status, response.headers.get("retry-after")]).toEqual([503, "1"]);
    expect(response.headers.has("www-authenticate")).toBe(false);
  });

  test("with anonymous lets in who shows nothing, as that consumer, and refuses who shows something bad", async () => {
    const ask = start(anyOf.anyOf(anonymous.anonymous(guest), token, key), {
      guest: { name: "guest", groups: ["public"], plan: "free" },
    });
    const { exchange, passed } = await ask();
    expect([passed, exchange.record.consumer, exchange.challenge]).toEqual([
      true,
      "guest",
      'Bearer realm="orders", ApiKey realm="orders"',
    ]);
    expect(exchange.caller).toEqual({
      consumer: "guest",
      groups: ["public"],
      plan: "free",
      subject: "consumer:guest",
      scopes: [],
      claims: {},
    });
    expect(Object.fromEntries(exchange.upstream)).toEqual({
      "x-consumer-name": "guest",
      "x-consumer-groups": "public",
      "x-consumer-plan": "free",
    });
    expect(exchange.record).not.toHaveProperty("credential");
    for (const bad of [{ authorization: "Bearer x" }, { "x-api-key": "x" }]) {
      const refused = await ask(bad);
      expect([refused.response.status, refused.exchange.caller]).toEqual([401, undefined]);
    }
    expect((await ask(await issue("shop"))).exchange.caller?.consumer).toBe("shop");
  });

  test("of an anyOf is one list, in which anonymous is last", async () => {
    const ask = start(anyOf.anyOf(anyOf.anyOf(token, anonymous.anonymous()), key));
    expect((await ask()).exchange.caller?.consumer).toBe("anonymous");
    expect((await ask({ "x-api-key": "x" })).response.status).toBe(401);
  });
});

describe("allOf", () => {
  test("wants each of them; the last says who, the first which consumer", async () => {
    const ask = start(allOf.allOf(key, token), { shop: { name: "shop", groups: ["partners"], plan: "gold" } });
    const shown = { ...(await issue("shop", ["key:scope"])), ...(await bearer({ scope: "read" })) };
    for (let warm = 0; warm < 2; warm++) {
      const { exchange, passed } = await ask(shown);
      expect(passed).toBe(true);
      expect(exchange.caller).toMatchObject({
        consumer: "shop",
        groups: ["partners"],
        plan: "gold",
        subject: `${ISSUER}|user-1`,
        scopes: ["read"],
        credential: { kind: "jwt" },
      });
      expect(Object.fromEntries(exchange.upstream)).toEqual({
        "x-consumer-name": "shop",
        "x-consumer-groups": "partners",
        "x-consumer-plan": "gold",
        "x-consumer-scopes": "read",
        "x-consumer-subject": "user-1",
      });
      expect(exchange.record.policies).toEqual([
        { policy: "allOf", verdict: "pass", facts: { by: ["apiKey", "jwt"] } },
      ]);
    }
  });

  test("does not mix up who came together with whom", async () => {
    const ask = start(allOf.allOf(key, token));
    const user = await bearer();
    const [one, two] = [await issue("one"), await issue("two")];
    for (const [shown, who] of [
      [one, "one"],
      [two, "two"],
      [one, "one"],
    ] as const) {
      expect((await ask({ ...shown, ...user })).exchange.caller?.consumer).toBe(who);
    }
  });

  test("refuses credentials of two consumers", async () => {
    const ask = start(allOf.allOf(key, token));
    const { response, exchange } = await ask({ ...(await issue("shop")), ...(await bearer({ azp: "partner" })) });
    expect(response.status).toBe(401);
    expect(exchange.record.policies[0]?.facts).toEqual({ why: "consumers", consumers: ["partner", "shop"] });
    expect((await ask({ ...(await issue("partner")), ...(await bearer({ azp: "partner" })) })).passed).toBe(true);
  });

  test("refuses one without the other, with what the other wants", async () => {
    const ask = start(allOf.allOf(key, token));
    expect(await (await ask(await issue("shop"))).response.json()).toMatchObject({ code: "token-missing" });
    expect(await (await ask(await bearer())).response.json()).toMatchObject({ code: "credentials-missing" });
    expect(await (await ask({ ...(await issue("shop")), authorization: "Bearer x" })).response.json()).toMatchObject({
      code: "token-invalid",
    });
  });

  test("within anyOf: half of it is not nothing", async () => {
    const ask = start(anyOf.anyOf(allOf.allOf(key, token), anonymous.anonymous(guest)));
    expect((await ask()).exchange.caller?.consumer).toBe("guest");
    for (const half of [await issue("shop"), await bearer(), { "x-api-key": "bad" }]) {
      expect([half, (await ask(half)).response.status]).toEqual([half, 401]);
    }
    expect((await ask({ ...(await issue("shop")), ...(await bearer()) })).exchange.caller?.consumer).toBe("shop");
  });
});

describe("the build", () => {
  const optional = jwt.jwt({ issuer: ISSUER, secret: secret("KEY"), optional: true });

  test.each<[string, PolicyDeclaration, RegExp]>([
    ["one member", anyOf.anyOf(token), /anyOf has nothing to choose from/],
    ["two anonymous consumers", anyOf.anyOf(token, anonymous.anonymous(), anonymous.anonymous(guest)), /two anonymous/],
    ["a member that asks for nothing", anyOf.anyOf(optional, key), /asks nobody after jwt.*anonymous\(\)/],
    ["anonymous among all", allOf.allOf(token, anonymous.anonymous()), /what anonymous\(\) does not have/],
  ])("reports %s", (_, declared, expected) => {
    expect(compileOf(declared).problems).toEqual([expect.stringMatching(expected)]);
  });

  test("takes options in place of a list", () => {
    const declared = anyOf.anyOf({ members: [token, key], mode: "report" });
    expect(declared.options).toEqual({ members: [token, key], mode: "report" });
    expect(anyOf.schema().safeParse(declared.options).success).toBe(true);
    for (const bad of [{}, { members: ["jwt"] }, { members: [token], other: 1 }])
      expect(anyOf.schema().safeParse(bad).success).toBe(false);
    expect(declared.declaredAt.stack?.split("\n")[1]).toContain("members.test.ts");
  });
});
