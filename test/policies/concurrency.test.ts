/** What concurrency makes of its options and of a store's replies; what is under way, over real parts: test/e2e/concurrency.test.ts. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { consumer } from "../../src/config/consumer.ts";
import { type ConcurrencyOptions, compile, concurrency, run, schema } from "../../src/policies/concurrency.ts";
import type { RouteTable } from "../../src/table/table.ts";
import { compileContext, type PolicyOptions, startPolicy } from "./exchange.ts";

const env = { STORE_URL: "https://store.example.com", STORE_TOKEN: "the-store-token" };
const table = {
  gateway: { store: { url: { env: "STORE_URL" }, token: { secret: "STORE_TOKEN" } } },
} as unknown as RouteTable;
const gold = { kind: "plan", name: "gold", options: {} } as const;
const shop = consumer("shop", { claims: { client_id: "shop" } });

/** What the store replies to a script, by what it was given. */
let reply: (keys: string[], args: (string | number)[]) => unknown;
let asked: { key: string; args: (string | number)[] }[];

beforeEach(() => {
  asked = [];
  reply = () => 1;
  vi.spyOn(globalThis, "fetch").mockImplementation(async (_, init) => {
    const [, , , key, ...args] = JSON.parse(String(init?.body));
    asked.push({ key, args });
    const result = reply([key], args);
    if (result instanceof Error) throw result;
    return Response.json({ result });
  });
});
afterEach(() => vi.restoreAllMocks());

function start(options: ConcurrencyOptions, more: PolicyOptions = {}) {
  schema().parse(options);
  const context = compileContext();
  const config = compile(options, context);
  expect(context.problems).toEqual([]);
  return startPolicy(run, config, { table, env, ...more });
}
const get = () => new Request("https://api.example.com/v1/reports");

function problemsOf(options: unknown): string[] {
  const checked = schema().safeParse(options);
  if (!checked.success) return checked.error.issues.map(({ message, path }) => `${path.join(".")}: ${message}`);
  const context = compileContext();
  compile(options as ConcurrencyOptions, context);
  return context.problems;
}

describe("options", () => {
  it("are those of a policy, with defaults", () => {
    expect(concurrency({ limit: 5 })).toMatchObject({ kind: "policy", policy: "concurrency" });
    expect(compile({ limit: 5, consumers: [[shop, 9]], plans: [[gold, 7]] }, compileContext())).toEqual({
      limit: 5,
      per: ["client"],
      consumers: { shop: 9 },
      plans: { gold: 7 },
      name: "default",
      until: "body",
      expiry: 60_000,
      onStoreFailure: "local",
      timeout: 500,
    });
  });

  it.each<[string, unknown, RegExp]>([
    ["a limit of 0", { limit: 0 }, /limit: /],
    ["another end", { limit: 1, until: "trailers" }, /until: /],
    ["an expiry that is none", { limit: 1, expiry: "soon" }, /expiry "soon" is no duration; fix: write it as/],
    [
      "a consumer twice",
      {
        limit: 1,
        consumers: [
          [shop, 1],
          [shop, 2],
        ],
      },
      /consumer "shop" has two limits/,
    ],
    [
      "a plan twice",
      {
        limit: 1,
        plans: [
          [gold, 1],
          [gold, 2],
        ],
      },
      /plan "gold" has two limits/,
    ],
    ["an unknown option", { limit: 1, window: "1s" }, /Unrecognized key/],
  ])("refuse %s", (_name, options, problem) => {
    expect(problemsOf(options).join("\n")).toMatch(problem);
  });
});

describe("a request", () => {
  it("takes a place before and leaves it after, under its own name", async () => {
    const { passed, exchange, background } = await start({ limit: 5, until: "headers" })(get());
    await background;
    expect(passed).toBe(true);
    expect(asked.map(({ key }) => key)).toEqual(new Array(2).fill("concurrency:orders/list:default:client=192.0.2.1"));
    const [enter, leave] = asked.map(({ args }) => args);
    expect(enter?.slice(0, 2)).toEqual([5, 60_000]);
    expect(leave).toEqual([enter?.[2]]);
    expect(exchange.record).toMatchObject({
      limits: [{ name: "default", remaining: 4 }],
      policies: [{ policy: "concurrency", verdict: "pass" }],
    });
  });

  it("keeps its place until its answer has been read", async () => {
    const { response } = await start({ limit: 5 })(get());
    expect(asked).toHaveLength(1);
    expect(await response.text()).toBe("origin");
    await vi.waitFor(() => expect(asked).toHaveLength(2));
  });

  it("leaves where the rest of the way fails", async () => {
    const request = start({ limit: 5 }, { origin: () => Promise.reject(new Error("broken")) });
    await expect(request(get())).rejects.toThrow("broken");
    expect(asked).toHaveLength(2);
  });

  it.each([
    [{ subject: "s", scopes: [], claims: {}, consumer: "shop", plan: "gold" }, 9],
    [{ subject: "s", scopes: [], claims: {}, consumer: "other", plan: "gold" }, 7],
    [{ subject: "s", scopes: [], claims: {} }, 5],
  ])("has the limit of its consumer or plan: %o", async (caller, limit) => {
    const options = { limit: 5, per: "consumer", consumers: [[shop, 9]], plans: [[gold, 7]] } as const;
    await start(options, { exchange: { caller } })(get());
    expect(asked[0]?.args[0]).toBe(limit);
  });

  it("is refused when there is no place, and leaves none", async () => {
    reply = () => 0;
    const { passed, response, exchange, background } = await start({ limit: 5 })(get());
    await background;
    expect([passed, response.status, response.headers.get("retry-after")]).toEqual([false, 429, "1"]);
    expect(await response.json()).toMatchObject({ code: "concurrency-limited", "violated-policies": ["default"] });
    expect(exchange.record.limits).toMatchObject([{ remaining: 0 }]);
    expect(asked).toHaveLength(1);
  });
});

describe("a store that fails", () => {
  it.each<[string, unknown]>([
    ["with an error", new Error("Network connection lost.")],
    ["with no count", "OK"],
    ["with null", null],
  ])("%s does what is configured", async (_name, answer) => {
    reply = () => answer;
    const open = await start({ limit: 1, onStoreFailure: "open" })(get());
    expect([open.passed, open.exchange.record.limits]).toEqual([true, undefined]);
    const closed = await start({ limit: 1, onStoreFailure: "closed" })(get());
    expect([closed.response.status, closed.response.headers.get("retry-after")]).toEqual([503, "1"]);
    expect(await closed.response.json()).toMatchObject({ code: "limiter-unavailable" });
  });

  it("has the isolate count what is under way, by key", async () => {
    reply = () => new Error("Network connection lost.");
    let finish = () => {};
    const held = new Promise<void>((resolve) => {
      finish = resolve;
    });
    const request = start({ limit: 2, until: "headers" }, { origin: () => held.then(() => new Response("")) });
    const underWay = [request(get()), request(get())];
    await scheduler.wait(20);
    expect((await request(get())).response.status).toBe(429);
    const other = request(get(), { clientAddress: "192.0.2.2" });
    finish();
    expect((await Promise.all([...underWay, other])).map(({ passed }) => passed)).toEqual([true, true, true]);
    expect((await request(get())).passed).toBe(true);
  });

  it("is tried in the background, by a place that is left at once", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: Date.UTC(2026, 10, 23) });
    reply = () => new Error("Network connection lost.");
    const request = start({ limit: 2, onStoreFailure: "closed" }, { now: () => Date.now() });
    await request(get());
    vi.setSystemTime(Date.now() + 1_000);
    reply = () => 1;
    asked = [];
    const trial = await request(get());
    expect(trial.response.status).toBe(503);
    await trial.background;
    expect(asked).toHaveLength(2);
    expect(asked[1]?.args).toEqual([asked[0]?.args[2]]);
    expect((await request(get())).passed).toBe(true);
    vi.useRealTimers();
  });
});
