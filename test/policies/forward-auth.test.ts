import { afterEach, describe, expect, test, vi } from "vitest";
import { consumer } from "../../src/config/consumer.ts";
import { env } from "../../src/config/values.ts";
import { compile, type ForwardAuthOptions, run, schema } from "../../src/policies/forward-auth.ts";
import type { PolicyMode } from "../../src/table/table.ts";
import { compileContext, startPolicy } from "./exchange.ts";

const SERVICE = "https://auth.example.com/check";
afterEach(() => {
  vi.restoreAllMocks();
});

/** The policy before a service that answers as `answer` says. */
function start(options: Partial<ForwardAuthOptions> = {}, mode: PolicyMode = "enforce") {
  const service = {
    asked: [] as Record<string, string>[],
    answer: (): Response | Promise<Response> => new Response("fine"),
  };
  vi.spyOn(globalThis, "fetch").mockImplementation(async (input, init) => {
    expect([String(input), init?.method, init?.redirect, init?.body]).toEqual([
      SERVICE,
      undefined,
      "manual",
      undefined,
    ]);
    service.asked.push(Object.fromEntries(init?.headers as Headers));
    return service.answer();
  });
  const context = compileContext();
  const config = compile({ url: SERVICE, ...options }, context);
  expect(context.problems).toEqual([]);
  const clock = { now: 1_000_000 };
  const send = startPolicy(run, config, { mode, now: () => clock.now });
  const ask = (headers: Record<string, string> = { authorization: "Bearer x" }, init: RequestInit = {}) =>
    send(new Request("https://api.example.com/v1/orders?a=1", { ...init, headers }));
  return { service, clock, ask, claimed: context.claimed };
}

describe("a yes", () => {
  test("lets the request in; the service is told what it is, without its body", async () => {
    const { ask, service } = start();
    const headers = { authorization: "Bearer x", cookie: "a=1", accept: "text/html", "x-other": "y" };
    const { passed, exchange, response } = await ask(headers, { method: "POST", body: "secret" });
    expect([passed, exchange.caller, await response.text()]).toEqual([true, undefined, "origin"]);
    expect(service.asked).toEqual([
      {
        accept: "text/html",
        authorization: "Bearer x",
        cookie: "a=1",
        "user-agent": "portcullis",
        "x-forwarded-for": "192.0.2.1",
        "x-forwarded-host": "api.example.com",
        "x-forwarded-method": "POST",
        "x-forwarded-proto": "https",
        "x-forwarded-uri": "/v1/orders?a=1",
        "x-request-id": "test",
      },
    ]);
    expect([exchange.upstream.get("authorization"), exchange.upstream.get("cookie")]).toEqual([null, "a=1"]);
  });

  test("may say who is calling, and give headers to the origin", async () => {
    const { ask, service, claimed } = start({
      requestHeaders: ["X-Session"],
      responseHeaders: ["X-User-Id", "x-absent"],
      subjectFrom: "x-user-id",
      consumerFrom: "x-auth-consumer",
      consumers: [consumer("shop")],
      scopesFrom: "x-auth-scopes",
      forwardCredentials: true,
    });
    const says = (consumer: string) => () =>
      new Response(null, {
        status: 204,
        headers: {
          "x-user-id": "u-1",
          "x-auth-consumer": consumer,
          "x-auth-scopes": 'read  wr"ite write',
          "x-more": "z",
        },
      });
    service.answer = says("shop");
    const { exchange } = await ask({ "x-session": "s", authorization: "Bearer x" });
    expect(service.asked[0]).not.toHaveProperty("authorization");
    expect(exchange.caller).toEqual({
      consumer: "shop",
      subject: "forwardAuth:u-1",
      scopes: ["read", "write"],
      claims: {},
      credential: { kind: "forwardAuth" },
    });
    expect(Object.fromEntries(exchange.upstream)).toEqual({
      authorization: "Bearer x",
      "x-session": "s",
      "x-user-id": "u-1",
      "x-consumer-name": "shop",
      "x-consumer-scopes": "read write",
      "x-consumer-subject": "u-1",
    });
    expect(claimed).toEqual(["x-absent", "x-user-id"]);
    service.answer = says("unheard-of");
    expect((await ask({ "x-session": "s" })).exchange.caller).not.toHaveProperty("consumer");
  });
});

describe("a no", () => {
  test.each([401, 403, 302, 429, 400])("of %i is the service's own answer", async (status) => {
    const { ask, service } = start();
    service.answer = () => {
      const headers = new Headers({
        "content-type": "text/html",
        "www-authenticate": 'Bearer realm="them"',
        location: "https://login.example.com/",
        "x-internal": "hidden",
      });
      headers.append("set-cookie", "a=1; Path=/");
      headers.append("set-cookie", "b=2");
      return new Response("<p>no</p>", { status, headers });
    };
    const { response, passed, exchange } = await ask();
    expect([response.status, passed, await response.text()]).toEqual([status, false, "<p>no</p>"]);
    expect(Object.fromEntries(response.headers)).toMatchObject({
      "content-type": "text/html",
      "www-authenticate": 'Bearer realm="them"',
      location: "https://login.example.com/",
      "cache-control": "no-store",
    });
    expect(response.headers.getSetCookie()).toEqual(["a=1; Path=/", "b=2"]);
    expect(response.headers.has("x-internal")).toBe(false);
    expect(exchange.record.reason).toBe(status === 403 ? "access-denied" : "credentials-invalid");
    expect(exchange.record.policies[0]?.facts).toEqual({ service: status });
  });

  test("is recorded and lets the request pass in report mode", async () => {
    const { ask, service } = start({}, "report");
    service.answer = () => new Response("no", { status: 403 });
    const { passed, exchange } = await ask();
    expect([passed, exchange.record.policies[0]?.verdict]).toEqual([true, "would-deny"]);
  });
});

describe("no answer", () => {
  test.each<[string, () => Response | Promise<Response>]>([
    ["TypeError", () => Promise.reject(new TypeError("connection refused"))],
    ["status 503", () => new Response("oops", { status: 503 })],
    ["timeout", () => Promise.reject(new DOMException("late", "TimeoutError"))],
  ])("%s: 503, and the service is left alone for a while", async (why, answer) => {
    const { ask, service, clock } = start();
    service.answer = answer;
    const { response, exchange } = await ask();
    expect([response.status, response.headers.get("retry-after")]).toEqual([503, "1"]);
    expect(await response.json()).toMatchObject({ code: "credentials-unavailable" });
    expect(exchange.record.policies[0]?.facts).toEqual({ service: "failed", why });
    service.answer = () => new Response("fine");
    expect((await ask()).response.status).toBe(503);
    expect(service.asked).toHaveLength(1);
    clock.now += 1_000;
    expect((await ask()).passed).toBe(true);
  });
});

describe("an answer that one request may provoke", () => {
  test("of 500 is 503 for that request alone, until there are five in a row", async () => {
    const { ask, service } = start();
    const answering = (status: number) => () => new Response("oops", { status });
    for (let attack = 0; attack < 20; attack++) {
      service.answer = answering(500);
      expect((await ask()).response.status).toBe(503);
      service.answer = answering(200);
      expect((await ask()).passed).toBe(true);
    }
    service.answer = answering(500);
    for (let failure = 0; failure < 5; failure++) await ask();
    const asked = service.asked.length;
    const { exchange } = await ask();
    expect(exchange.record.policies[0]?.facts).toEqual({ service: "failed", why: "paused" });
    expect(service.asked).toHaveLength(asked);
  });

  test("of bytes that are no text reaches the client as it is, and one without end as a problem document", async () => {
    const { ask, service } = start();
    const bytes = new Uint8Array([0x6e, 0xe9, 0xff]);
    service.answer = () =>
      new Response(bytes, { status: 401, headers: { "content-type": "text/plain; charset=latin1" } });
    const refused = await ask();
    expect(refused.response.status).toBe(401);
    expect(new Uint8Array(await refused.response.arrayBuffer())).toEqual(bytes);
    service.answer = () => new Response("x".repeat(300_000), { status: 403 });
    const long = await ask();
    expect([long.response.status, (await long.response.json()) as object]).toMatchObject([
      403,
      { code: "access-denied" },
    ]);
    service.answer = () => new Response("x".repeat(300_000));
    expect((await ask()).passed).toBe(true);
  });
});

describe("the build", () => {
  test.each<[RegExp, Partial<ForwardAuthOptions>]>([
    [/"http:\/\/auth.example.com\/" is no address/, { url: "http://auth.example.com/" }],
    [/`consumerFrom` and `consumers` go together/, { consumerFrom: "x-a" }],
    [/`consumerFrom` and `consumers` go together/, { consumers: [consumer("a")] }],
    [/header "authorization" cannot come from forwardAuth/, { responseHeaders: ["Authorization"] }],
    [/timeout "1m" is no duration up to 25s/, { timeout: "1m" }],
  ])("reports %s", (expected, options) => {
    const context = compileContext();
    compile({ url: SERVICE, ...options }, context);
    expect(context.problems).toEqual([expect.stringMatching(expected)]);
  });

  test("knows the shape of its options", () => {
    expect(schema().safeParse({ url: env("AUTH"), requestHeaders: [], responseHeaders: ["x-a"] }).success).toBe(true);
    for (const bad of [{}, { url: 5 }, { url: SERVICE, requestHeaders: ["a b"] }, { url: SERVICE, x: 1 }])
      expect([bad, schema().safeParse(bad).success]).toEqual([bad, false]);
  });
});
