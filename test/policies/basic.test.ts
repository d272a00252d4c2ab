import { afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { consumer } from "../../src/config/consumer.ts";
import { secret } from "../../src/config/values.ts";
import { type BasicOptions, compile, run, schema, userKey } from "../../src/policies/basic.ts";
import { checkPassword, hashPassword, parseHash } from "../../src/policies/password.ts";
import { compileContext, type PolicyResult, startPolicy } from "./exchange.ts";
import { storeEnv, stubStore, tableWithStore } from "./stubbed-store.ts";

const NOW = Date.UTC(2026, 10, 23, 12);
let hash: string;
let other: string;
beforeAll(async () => {
  [hash, other] = await Promise.all([hashPassword("pa:ss wörd"), hashPassword("other")]);
});
afterEach(() => {
  vi.restoreAllMocks();
});

const users = [{ name: "reports", password: secret("HASH"), consumer: consumer("reporting"), scopes: ["read"] }];

function start(options: Partial<BasicOptions> = {}, env: Record<string, string> = {}) {
  const context = compileContext();
  const config = compile({ users, ...options }, context);
  expect(context.problems).toEqual([]);
  const store = stubStore();
  const clock = { now: NOW };
  const table = tableWithStore({ reporting: { name: "reporting", groups: ["staff"] } });
  const send = startPolicy(run, config, { env: { ...storeEnv, HASH: hash, ...env }, table, now: () => clock.now });
  const derive = vi.spyOn(crypto.subtle, "deriveBits");
  const ask = (authorization?: string) =>
    send(new Request("https://api.example.com/", { headers: authorization ? { authorization } : {} }));
  return {
    store,
    clock,
    ask,
    /** How many passwords were hashed so far. */
    hashed: () => derive.mock.calls.length,
    login: (name: string, password: string) =>
      ask(`Basic ${btoa(String.fromCharCode(...new TextEncoder().encode(`${name}:${password}`)))}`),
  };
}

async function expectRefused(result: PolicyResult, why: string) {
  expect([result.response.status, result.passed, result.exchange.record.policies[0]?.facts]).toEqual([
    401,
    false,
    { why },
  ]);
  expect(result.response.headers.get("www-authenticate")).toBe('Basic realm="orders", charset="UTF-8"');
  expect(await result.response.json()).toMatchObject({ code: "credentials-invalid" });
}

describe("a hash", () => {
  test("fits its password alone, each time with another salt", async () => {
    expect(hash).toMatch(/^\$pbkdf2-sha256\$i=100000\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$/);
    expect(await hashPassword("other")).not.toBe(other);
    const parsed = parseHash(hash);
    if (!parsed) throw new Error("it cannot be read");
    // The second is the same text in another normal form.
    expect(
      await Promise.all(["pa:ss wörd", "pa:ss wo\u0308rd", "pa:ss word", ""].map((one) => checkPassword(one, parsed))),
    ).toEqual([true, true, false, false]);
  });

  test("is PBKDF2 as others compute it", async () => {
    // hashlib.pbkdf2_hmac("sha256", b"password", b"0123456789abcdef", 100000)
    const parsed = parseHash(
      "$pbkdf2-sha256$i=100000$MDEyMzQ1Njc4OWFiY2RlZg$p1GQp5LNWdbZyMOmOxHCdq1EmXK3iG4cLYGcKGBTNm8",
    );
    expect(parsed && (await checkPassword("password", parsed))).toBe(true);
  });

  test.each([
    "",
    "password",
    "$pbkdf2-sha256$i=1000$AAAAAAAAAAAAAAAAAAAAAA$x",
    "$2b$10$abcdefghijklmnopqrstuv",
    "$pbkdf2-sha1$i=100000$AAAAAAAAAAAAAAAAAAAAAA$AAAA",
  ])("%j is none", (text) => {
    expect(parseHash(text)).toBeUndefined();
  });
});

describe("a login", () => {
  test("passes with name and password, is hashed once, and stays in the gateway", async () => {
    const { login, hashed } = start();
    for (let warm = 0; warm < 3; warm++) {
      const { exchange, passed } = await login("reports", "pa:ss wörd");
      expect(passed).toBe(true);
      expect(exchange.caller).toEqual({
        consumer: "reporting",
        groups: ["staff"],
        subject: "user:reports",
        scopes: ["read"],
        claims: {},
        credential: { kind: "basic", id: "reports" },
      });
      expect(Object.fromEntries(exchange.upstream)).toEqual({
        "x-consumer-name": "reporting",
        "x-consumer-groups": "staff",
        "x-consumer-scopes": "read",
        "x-consumer-subject": "reports",
      });
      expect(JSON.stringify(exchange.record)).not.toContain("wörd");
    }
    expect(hashed()).toBe(1);
  });

  test("at once by 20 requests is hashed once", async () => {
    const { login, hashed } = start();
    const results = await Promise.all(Array.from({ length: 20 }, () => login("reports", "pa:ss wörd")));
    expect([results.every(({ passed }) => passed), hashed()]).toEqual([true, 1]);
  });

  test("is hashed again after maxAge, so that a new password counts", async () => {
    const { login, clock, hashed } = start();
    await login("reports", "pa:ss wörd");
    clock.now += 299_999;
    await login("reports", "pa:ss wörd");
    expect(hashed()).toBe(1);
    clock.now += 1;
    await login("reports", "pa:ss wörd");
    expect(hashed()).toBe(2);
  });

  test("with a wrong password, or name, is refused alike, after the same work", async () => {
    const { login, hashed } = start();
    for (const [name, password] of [
      ["reports", "wrong"],
      ["nobody", "pa:ss wörd"],
      ["constructor", "x"],
      ["", ""],
    ] as const) {
      const before = hashed();
      await expectRefused(await login(name, password), "wrong");
      expect(hashed() - before).toBe(1);
    }
  });

  test("that is wrong costs no work again for ten seconds", async () => {
    const { login, clock, hashed } = start();
    await login("reports", "wrong");
    clock.now += 9_999;
    await expectRefused(await login("reports", "wrong"), "wrong");
    expect(hashed()).toBe(1);
    clock.now += 1;
    await expectRefused(await login("reports", "wrong"), "wrong");
    expect(hashed()).toBe(2);
    expect((await login("reports", "pa:ss wörd")).passed).toBe(true);
  });

  test.each([
    "Basic",
    "Basic ",
    "Basic !",
    "Basic YQ==",
    "Basic /w==",
    `Basic ${btoa("a:".padEnd(2_000, "x"))}`,
    "Basic YTpi, Basic YTpj",
    "Bearer x, Basic YTpi",
    "Basic\tYTpi",
  ])("written as %j is malformed, also where none is needed, and stays in the gateway", async (authorization) => {
    const { ask, hashed } = start({ optional: true });
    const result = await ask(authorization);
    expect(result.exchange.upstream.get("authorization")).toBeNull();
    await expectRefused(result, "malformed");
    expect(hashed()).toBe(0);
  });

  test("is asked for where there is none, or only of another scheme", async () => {
    const { ask } = start({ forwardPassword: false });
    for (const authorization of [undefined, "Bearer x", "Basically x"]) {
      const { response, exchange } = await ask(authorization);
      expect([response.status, await response.json()]).toEqual([
        401,
        expect.objectContaining({ code: "credentials-missing" }),
      ]);
      expect(exchange.upstream.get("authorization")).toBe(authorization ?? null);
    }
    expect((await start({ optional: true }).ask("Bearer x")).passed).toBe(true);
  });

  test("against a secret that is no hash: 503", async () => {
    const { login } = start({}, { HASH: "pa:ss wörd" });
    const { response } = await login("reports", "pa:ss wörd");
    expect([response.status, await response.json()]).toEqual([
      503,
      expect.objectContaining({ code: "not-configured" }),
    ]);
  });
});

describe("users in the store", () => {
  test("are known beside the declared ones", async () => {
    const { login, store } = start({ store: true });
    store.values.set(userKey("guest"), JSON.stringify({ password: other, consumer: "walk-in", scopes: ["a"] }));
    expect((await login("guest", "other")).exchange.caller).toMatchObject({
      consumer: "walk-in",
      scopes: ["a"],
      subject: "user:guest",
    });
    await expectRefused(await login("guest", "wrong"), "wrong");
    await expectRefused(await login("nobody", "other"), "wrong");
    expect((await login("reports", "pa:ss wörd")).exchange.caller?.consumer).toBe("reporting");
    store.values.set(userKey("reports"), JSON.stringify({ password: other }));
    await expectRefused(await login("reports", "other"), "wrong");
  });

  test("are not known while it is away: 503; declared ones are", async () => {
    const { login, store } = start({ store: true });
    store.answer = () => Promise.reject(new TypeError("down"));
    const { response } = await login("guest", "other");
    expect([response.status, response.headers.get("retry-after")]).toEqual([503, "1"]);
    expect((await login("reports", "pa:ss wörd")).passed).toBe(true);
  });

  test("at once by 20 requests are 503 for all of them while it is away, and 401 for none", async () => {
    const { login, store } = start({ store: true });
    store.answer = async () => {
      await new Promise((resolve) => setTimeout(resolve, 20));
      throw new TypeError("down");
    };
    const results = await Promise.all(Array.from({ length: 20 }, () => login("guest", "other")));
    expect(new Set(results.map(({ response }) => response.status))).toEqual(new Set([503]));
  });
});

describe("the build", () => {
  test.each<[RegExp, BasicOptions]>([
    [/basic knows nobody/, {}],
    [/two users "reports"/, { users: [...users, ...users] }],
    [/maxAge "0s" is no duration from 1s/, { users, maxAge: "0s" }],
  ])("reports %s", (expected, options) => {
    const context = compileContext();
    compile(options, context);
    expect(context.problems).toEqual([expect.stringMatching(expected)]);
  });

  test("knows the shape of its options", () => {
    expect(schema().safeParse({ users, store: true, maxAge: "1m" }).success).toBe(true);
    for (const bad of [
      { users: [{ name: "a:b", password: secret("A") }] },
      { users: [{ name: "a", password: "b" }] },
      { x: 1 },
    ])
      expect([bad, schema().safeParse(bad).success]).toEqual([bad, false]);
  });
});
