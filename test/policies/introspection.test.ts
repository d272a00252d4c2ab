import { afterEach, describe, expect, test, vi } from "vitest";
import { consumer } from "../../src/config/consumer.ts";
import { env, secret } from "../../src/config/values.ts";
import { compile, type IntrospectionOptions, run, schema } from "../../src/policies/introspection.ts";
import type { PolicyMode } from "../../src/table/table.ts";
import { compileContext, type PolicyResult, startPolicy } from "./exchange.ts";

const ENDPOINT = "https://login.example.com/introspect";
const NOW = Date.UTC(2026, 10, 23, 12);
const active = { active: true, sub: "user-1", client_id: "shop", scope: "read write", exp: NOW / 1_000 + 600 };
const base = { endpoint: ENDPOINT, clientId: "gate way", clientSecret: secret("SECRET") };

afterEach(() => {
  vi.restoreAllMocks();
});

/** The policy before an issuer that answers as `answer` says. */
function start(options: Partial<IntrospectionOptions> = {}, mode: PolicyMode = "enforce") {
  const issuer = {
    asked: [] as { authorization: string | null; body: string }[],
    answer: (_: string): unknown => active,
  };
  vi.spyOn(globalThis, "fetch").mockImplementation(async (input, init) => {
    expect([String(input), init?.method, init?.redirect]).toEqual([ENDPOINT, "POST", "manual"]);
    const request = new Request(input as string, { ...init, signal: null });
    const body = await request.text();
    issuer.asked.push({ authorization: request.headers.get("authorization"), body });
    const answer = await issuer.answer(new URLSearchParams(body).get("token") ?? "");
    return answer instanceof Response ? answer : Response.json(answer);
  });
  const context = compileContext();
  const config = compile({ ...base, ...options }, context);
  expect(context.problems).toEqual([]);
  const clock = { now: NOW };
  const send = startPolicy(run, config, { mode, env: { SECRET: "s:cr&t" }, now: () => clock.now });
  const bearer = (token: string) =>
    send(new Request("https://api.example.com/", { headers: { authorization: `Bearer ${token}` } }));
  return { issuer, clock, send, bearer };
}

const facts = ({ exchange }: PolicyResult) => exchange.record.policies[0]?.facts;
async function expectRefused(result: PolicyResult, why: string) {
  expect([result.response.status, result.passed, facts(result)]).toEqual([401, false, { why }]);
  expect(result.response.headers.get("www-authenticate")).toMatch(/^Bearer realm="orders", error="invalid_token"/);
}

test("an active token passes, and tells whose it is; the issuer is asked as RFC 7662 has it", async () => {
  const { bearer, issuer } = start({
    consumers: [consumer("storefront", { claims: { client_id: "shop" } })],
    claimsToHeaders: { username: "x-user" },
  });
  issuer.answer = () => ({ ...active, username: "Zoë" });
  const { exchange } = await bearer("mF_9.B5f-4.1JqM");
  expect(exchange.caller).toMatchObject({
    consumer: "storefront",
    subject: "https://login.example.com|user-1",
    scopes: ["read", "write"],
    credential: { kind: "introspection" },
  });
  expect(Object.fromEntries(exchange.upstream)).toEqual({
    "x-consumer-name": "storefront",
    "x-consumer-scopes": "read write",
    "x-consumer-subject": "user-1",
    "x-user": "Zo%C3%AB",
  });
  expect(issuer.asked).toEqual([
    // RFC 6749, 2.3.1: id and secret are form-encoded before they are joined.
    {
      authorization: `Basic ${btoa("gate+way:s%3Acr%26t")}`,
      body: "token=mF_9.B5f-4.1JqM&token_type_hint=access_token",
    },
  ]);
});

describe("what the issuer said", () => {
  test("of an active token holds for maxAge", async () => {
    const { bearer, issuer, clock } = start();
    for (const [later, asked] of [
      [0, 1],
      [59_999, 1],
      [1, 2],
      [59_999, 2],
      [1, 3],
    ] as const) {
      clock.now += later;
      expect((await bearer("token")).passed).toBe(true);
      expect(issuer.asked).toHaveLength(asked);
    }
  });

  test("holds no longer than the token", async () => {
    const { bearer, issuer, clock } = start();
    issuer.answer = () => ({ ...active, exp: NOW / 1_000 + 5 });
    await bearer("token");
    clock.now += 4_999;
    expect((await bearer("token")).passed).toBe(true);
    clock.now += 1;
    await expectRefused(await bearer("token"), "expired");
  });

  test("of an inactive one holds for less", async () => {
    const { bearer, issuer, clock } = start();
    issuer.answer = () => ({ active: false });
    await expectRefused(await bearer("token"), "inactive");
    issuer.answer = () => active;
    clock.now += 9_999;
    await expectRefused(await bearer("token"), "inactive");
    expect(issuer.asked).toHaveLength(1);
    clock.now += 1;
    expect((await bearer("token")).passed).toBe(true);
  });

  test("is asked for once by 20 requests at once, and each token by itself", async () => {
    const { bearer, issuer } = start();
    const held = Promise.withResolvers<void>();
    issuer.answer = async (token) => {
      if (token === "slow") await held.promise;
      return active;
    };
    const waiting = Array.from({ length: 20 }, () => bearer("slow"));
    expect((await bearer("quick")).passed).toBe(true);
    held.resolve();
    const results = await Promise.all(waiting);
    expect(results.every(({ passed }) => passed)).toBe(true);
    expect(issuer.asked).toHaveLength(2);
  });

  test.each<[Record<string, unknown>, Partial<IntrospectionOptions>, string]>([
    [{ exp: NOW / 1_000 }, {}, "expired"],
    [{ nbf: NOW / 1_000 + 6 }, {}, "not-yet"],
    [{ exp: "soon" }, {}, "claim-type"],
    [{ sub: 5 }, {}, "claim-type"],
    [{ scope: ["a"] }, {}, "claim-type"],
    [{ aud: "https://other" }, { audience: "https://api.example.com" }, "audience"],
    [{}, { audience: "https://api.example.com" }, "audience"],
    [{ iss: "https://other" }, { issuer: "https://login.example.com/" }, "issuer"],
    [{}, { issuer: "https://login.example.com/" }, "issuer"],
    [{}, { consumers: [consumer("a", { claims: { client_id: "a" } })], requireConsumer: true }, "consumer"],
  ])("%j refuses the token with %j: %s", async (claims, options, why) => {
    const { bearer, issuer } = start(options);
    issuer.answer = () => ({ ...active, ...claims });
    await expectRefused(await bearer("token"), why);
  });

  test("passes with the audience and the issuer that are wanted", async () => {
    const { bearer, issuer } = start({ audience: "https://api.example.com", issuer: ["https://a", "https://b"] });
    issuer.answer = () => ({ ...active, aud: ["x", "https://api.example.com"], iss: "https://b" });
    expect((await bearer("token")).exchange.caller?.subject).toBe("https://b|user-1");
  });
});

describe("while the issuer cannot be asked", () => {
  const failures: [string, () => unknown][] = [
    ["TypeError", () => Promise.reject(new TypeError("connection refused"))],
    ["status 500", () => new Response("oops", { status: 500 })],
    ["status 401", () => new Response("who are you?", { status: 401 })],
    ["status 302", () => new Response(null, { status: 302, headers: { location: "https://evil.example" } })],
    ["no answer", () => new Response("<html>")],
    ["no answer", () => ({ active: "true" })],
    ["no answer", () => Response.json(null)],
    ["Error", () => new Response("x".repeat(300_000))],
  ];
  test.each(failures)("%s: 503, never 401", async (why, answer) => {
    const { bearer, issuer } = start();
    issuer.answer = answer;
    const result = await bearer("token");
    expect([result.response.status, result.response.headers.get("retry-after")]).toEqual([503, "1"]);
    expect(await result.response.json()).toMatchObject({ code: "credentials-unavailable" });
    expect(result.response.headers.has("www-authenticate")).toBe(false);
    expect(facts(result)).toEqual({ issuer: "failed", why });
  });

  test("tokens that are known go on, others do not wait, and it is asked once per pause", async () => {
    const { bearer, issuer, clock } = start();
    await bearer("known");
    issuer.answer = () => Promise.reject(new TypeError("down"));
    const statuses = async () => [
      (await bearer("known")).response.status,
      (await bearer("new")).response.status,
      (await bearer("newer")).response.status,
    ];
    expect(await statuses()).toEqual([200, 503, 503]);
    expect(issuer.asked).toHaveLength(2);
    clock.now += 1_000;
    expect(await statuses()).toEqual([200, 503, 503]);
    expect(issuer.asked).toHaveLength(3);
    clock.now += 60_000;
    issuer.answer = () => active;
    expect(await statuses()).toEqual([200, 200, 200]);
  });

  test("a token that it cannot answer for is no reason to leave it alone, five in a row are", async () => {
    const { bearer, issuer } = start();
    for (let attack = 0; attack < 10; attack++) {
      issuer.answer = () => new Response("bad token", { status: 400 });
      expect((await bearer(`odd-${attack}`)).response.status).toBe(503);
      issuer.answer = () => active;
      expect((await bearer(`good-${attack}`)).passed).toBe(true);
    }
    issuer.answer = () => new Response("oops", { status: 500 });
    for (let failure = 0; failure < 5; failure++) await bearer(`odd-${failure}`);
    issuer.answer = () => active;
    expect(facts(await bearer("new"))).toEqual({ issuer: "failed", why: "paused" });
  });

  test("those who wait for another's question get its outcome", async () => {
    const { bearer, issuer } = start();
    const held = Promise.withResolvers<void>();
    issuer.answer = () => held.promise.then(() => Promise.reject(new TypeError("down")));
    const waiting = [bearer("token"), bearer("token"), bearer("token")];
    await vi.waitFor(() => expect(issuer.asked).toHaveLength(1));
    held.resolve();
    expect((await Promise.all(waiting)).map(({ response }) => response.status)).toEqual([503, 503, 503]);
    expect(issuer.asked).toHaveLength(1);
  });
});

test("what is no token costs no question", async () => {
  const { send, bearer, issuer } = start();
  const { response } = await send(new Request("https://api.example.com/"));
  expect([response.status, await response.json()]).toEqual([401, expect.objectContaining({ code: "token-missing" })]);
  await expectRefused(await bearer("a b"), "malformed");
  await expectRefused(await bearer('a"b'), "malformed");
  await expectRefused(await bearer("a".repeat(8_193)), "size");
  expect(issuer.asked).toEqual([]);
});

test("optional, forwardToken and report mode do as with jwt", async () => {
  const optional = start({ optional: true });
  const { passed, exchange } = await optional.send(new Request("https://api.example.com/"));
  expect([passed, exchange.caller]).toEqual([true, undefined]);
  const forwarding = start({ forwardToken: true });
  expect((await forwarding.bearer("token")).exchange.upstream.get("authorization")).toBe("Bearer token");
  const report = start({}, "report");
  report.issuer.answer = () => ({ active: false });
  const reported = await report.bearer("token");
  expect([reported.passed, reported.exchange.caller, reported.exchange.upstream.has("authorization")]).toEqual([
    true,
    undefined,
    false,
  ]);
});

describe("the build", () => {
  test("reports what is no endpoint and what no duration", () => {
    const context = compileContext();
    compile({ ...base, endpoint: "http://login.example.com/", timeout: "1m", maxAge: "0s" }, context);
    expect(context.problems).toEqual([
      expect.stringMatching(/"http:\/\/login.example.com\/" is no address of an introspection endpoint/),
      expect.stringMatching(/maxAge "0s" is no duration from 1s/),
      expect.stringMatching(/timeout "1m" is no duration up to 25s/),
    ]);
    expect(context.references).toEqual(["secret:SECRET"]);
  });

  test("knows the shape of its options", () => {
    expect(schema().safeParse({ ...base, clientId: env("ID"), remember: 5 }).success).toBe(true);
    for (const bad of [{ clientSecret: "literal" }, { endpoint: undefined }, { remember: 0 }, { other: 1 }])
      expect([bad, schema().safeParse({ ...base, ...bad }).success]).toEqual([bad, false]);
  });
});
