import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { env, secret } from "../../src/config/values.ts";
import { compile, run, schema, type UpstreamTokenOptions } from "../../src/policies/upstream-token.ts";
import { compileContext, startPolicy } from "./exchange.ts";

const ENDPOINT = "https://login.example.com/token";
const base = { endpoint: ENDPOINT, clientId: "gateway", clientSecret: secret("SECRET") };

let logged: string[];
beforeEach(() => {
  logged = [];
  vi.spyOn(console, "error").mockImplementation((line) => void logged.push(line));
});
afterEach(() => {
  vi.restoreAllMocks();
});

/** The policy before an issuer that hands out `token-1`, `token-2`, … for an hour each, unless `answer` says otherwise. */
function start(options: Partial<UpstreamTokenOptions> = {}) {
  const issuer = {
    asked: [] as { authorization: string | null; body: string }[],
    answer: (): unknown => ({ access_token: `token-${issuer.asked.length}`, token_type: "Bearer", expires_in: 3_600 }),
  };
  vi.spyOn(globalThis, "fetch").mockImplementation(async (input, init) => {
    expect([String(input), init?.method, init?.redirect]).toEqual([ENDPOINT, "POST", "manual"]);
    const request = new Request(input as string, { ...init, signal: null });
    issuer.asked.push({ authorization: request.headers.get("authorization"), body: await request.text() });
    const answer = await issuer.answer();
    return answer instanceof Response ? answer : Response.json(answer);
  });
  const context = compileContext();
  const config = compile({ ...base, ...options }, context);
  expect(context.problems).toEqual([]);
  const clock = { now: 1_000_000_000 };
  let origin = 200;
  const send = startPolicy(run, config, {
    env: { SECRET: "s3cret", API: "https://orders.internal" },
    now: () => clock.now,
    origin: () => new Response("origin", { status: origin }),
  });
  const ask = (headers: Record<string, string> = {}) => send(new Request("https://api.example.com/", { headers }));
  return {
    issuer,
    clock,
    ask,
    claimed: context.claimed,
    /** What the origin gets. */
    sent: async (header = "authorization") => (await ask()).exchange.upstream.get(header),
    answers: (status: number) => {
      origin = status;
    },
  };
}

test("the origin gets a token of the gateway's, in place of what the client sent, and the next request the same", async () => {
  const { ask, sent, issuer } = start({ scope: "orders", resource: env("API"), audience: "aud" });
  const { exchange } = await ask({ authorization: "Bearer the-client's" });
  expect(exchange.upstream.get("authorization")).toBe("Bearer token-1");
  expect(await sent()).toBe("Bearer token-1");
  expect(issuer.asked).toEqual([
    {
      authorization: `Basic ${btoa("gateway:s3cret")}`,
      body: "grant_type=client_credentials&scope=orders&resource=https%3A%2F%2Forders.internal&audience=aud",
    },
  ]);
});

test("it may be another header, which clients then cannot send", async () => {
  const { sent, claimed } = start({ header: "X-Service-Token" });
  expect([await sent("x-service-token"), claimed]).toEqual(["token-1", ["x-service-token"]]);
});

test("50 requests at once ask for one token", async () => {
  const { ask, issuer } = start();
  const held = Promise.withResolvers<void>();
  issuer.answer = () => held.promise.then(() => ({ access_token: "one" }));
  const waiting = Array.from({ length: 50 }, () => ask());
  await vi.waitFor(() => expect(issuer.asked).toHaveLength(1));
  held.resolve();
  const results = await Promise.all(waiting);
  expect(new Set(results.map(({ exchange }) => exchange.upstream.get("authorization")))).toEqual(
    new Set(["Bearer one"]),
  );
  expect(issuer.asked).toHaveLength(1);
});

describe("a token", () => {
  test("is replaced before it expires, in the background, once", async () => {
    const { ask, sent, issuer, clock } = start();
    await sent();
    clock.now += 3_600_000 - 60_000 - 2_001;
    expect(await sent()).toBe("Bearer token-1");
    expect(issuer.asked).toHaveLength(1);
    clock.now += 1;
    const [first, second] = [await ask(), await ask()];
    expect([first, second].map(({ exchange }) => exchange.upstream.get("authorization"))).toEqual([
      "Bearer token-1",
      "Bearer token-1",
    ]);
    await Promise.all([first.background, second.background]);
    expect([await sent(), issuer.asked.length]).toEqual(["Bearer token-2", 2]);
  });

  test("is not sent when it would arrive too late", async () => {
    const { sent, clock } = start();
    await sent();
    clock.now += 3_600_000 - 2_000;
    expect(await sent()).toBe("Bearer token-2");
  });

  test("of a short life is used for most of it", async () => {
    const { sent, clock, issuer } = start();
    issuer.answer = () => ({ access_token: `token-${issuer.asked.length}`, expires_in: 2 });
    expect(await sent()).toBe("Bearer token-1");
    clock.now += 400;
    expect(await sent()).toBe("Bearer token-1");
    clock.now += 700;
    expect(await sent()).toBe("Bearer token-2");
  });

  test("that the origin refuses is replaced, but not with every request", async () => {
    const { sent, answers, clock } = start();
    answers(401);
    expect([await sent(), await sent(), await sent()]).toEqual(["Bearer token-1", "Bearer token-2", "Bearer token-2"]);
    clock.now += 10_000;
    expect([await sent(), await sent()]).toEqual(["Bearer token-2", "Bearer token-3"]);
    answers(403);
    clock.now += 10_000;
    expect([await sent(), await sent()]).toEqual(["Bearer token-3", "Bearer token-3"]);
  });
});

describe("while there is none to be had", () => {
  test.each<[string, () => unknown]>([
    ["TypeError", () => Promise.reject(new TypeError("refused"))],
    ["status 401", () => Response.json({ error: "invalid_client" }, { status: 401 })],
    ["SyntaxError", () => new Response("<html>")],
    ["no token", () => ({})],
    ["no token", () => ({ access_token: "a b" })],
    ["no bearer token", () => ({ access_token: "a", token_type: "DPoP" })],
  ])("%s: 503, logged without the secret", async (why, answer) => {
    const { ask, issuer } = start();
    issuer.answer = answer;
    const { response, passed } = await ask();
    expect([response.status, passed, response.headers.get("retry-after")]).toEqual([503, false, "1"]);
    expect(await response.json()).toMatchObject({ code: "upstream-token-unavailable" });
    expect(logged).toEqual([`{"event":"upstream-token-failed","error":"${why}"}`]);
  });

  test("a good one goes on, and the issuer is asked once per pause", async () => {
    const { sent, ask, issuer, clock } = start();
    await sent();
    issuer.answer = () => Promise.reject(new TypeError("down"));
    clock.now += 3_540_000;
    for (let i = 0; i < 5; i++) await (await ask()).background;
    expect([await sent(), issuer.asked.length]).toEqual(["Bearer token-1", 2]);
    clock.now += 60_000;
    expect([(await ask()).response.status, issuer.asked.length]).toEqual([503, 3]);
    expect([(await ask()).response.status, issuer.asked.length]).toEqual([503, 3]);
    issuer.answer = () => ({ access_token: "back" });
    clock.now += 2_000;
    expect(await sent()).toBe("Bearer back");
  });
});

describe("the build", () => {
  test.each<[RegExp, Partial<UpstreamTokenOptions>]>([
    [/no address of a token endpoint/, { endpoint: "http://login.example.com/token" }],
    [/cannot get a token in the header "cookie"/, { header: "Cookie" }],
    [/timeout "1m" is no duration up to 25s/, { timeout: "1m" }],
  ])("reports %s", (expected, options) => {
    const context = compileContext();
    compile({ ...base, ...options }, context);
    expect(context.problems).toEqual([expect.stringMatching(expected)]);
  });

  test("knows the shape of its options", () => {
    expect(schema().safeParse({ ...base, scope: "a b", header: "x-a", refreshAhead: "1m" }).success).toBe(true);
    for (const bad of [{ clientSecret: "literal" }, { scope: "" }, { mode: "report" }])
      expect([bad, schema().safeParse({ ...base, ...bad }).success]).toEqual([bad, false]);
  });
});
