/** rateLimit where the script counts: leases, months, costs told by responses. Redis is the model of test/simulation behind `fetch`. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { consumer } from "../../src/config/consumer.ts";
import type { Caller } from "../../src/policies/contract.ts";
import { compile, type Plan, type RateLimitOptions, run, schema } from "../../src/policies/rate-limit.ts";
import type { RouteTable } from "../../src/table/table.ts";
import { LimitModel } from "../simulation/limit-model.ts";
import { compileContext, type PolicyOptions, startPolicy } from "./exchange.ts";

const START = Date.UTC(2026, 10, 23);
const env = { STORE_URL: "https://store.example.com", STORE_TOKEN: "the-store-token" };
const table = {
  gateway: { store: { url: { env: "STORE_URL" }, token: { secret: "STORE_TOKEN" } } },
} as unknown as RouteTable;

type Command = ["evalsha", sha: string, keys: 1, key: string, ...args: (string | number)[]];

/** The store at the other end of `fetch`. */
class Store {
  readonly redis = new LimitModel();
  /** Scripts that ran, by request. */
  readonly requests: Command[][] = [];
  /** Milliseconds of the real clock until the script runs, and then until its reply is there. */
  there = 0;
  back = 0;
  broken = false;

  readonly fetch = async (input: RequestInfo | URL, init?: RequestInit): Promise<Response> => {
    const body = JSON.parse(String(init?.body));
    const commands: Command[] = String(input).endsWith("/pipeline") ? body : [body];
    this.requests.push(commands);
    if (this.broken) throw new Error("Network connection lost.");
    await this.#pass(this.there, init?.signal);
    this.redis.now = Date.now();
    const entries = commands.map(([, , , key, ...args]) => {
      const { granted, room, window, life, wait } = this.redis.run(key, args);
      return { result: [granted, room, window, life, wait] };
    });
    await this.#pass(this.back, init?.signal);
    return Response.json(Array.isArray(body[0]) ? entries : entries[0]);
  };

  async #pass(ms: number, signal: AbortSignal | null | undefined): Promise<void> {
    if (ms === 0) return;
    await Promise.race([
      scheduler.wait(ms),
      new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason))),
    ]);
  }

  get keys(): string[] {
    return this.requests.flat().map(([, , , key]) => key);
  }
}

let store: Store;
beforeEach(() => {
  store = new Store();
  vi.spyOn(globalThis, "fetch").mockImplementation(store.fetch);
  vi.useFakeTimers({ toFake: ["Date"], now: START + 10_000 });
});
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

const plan = (name: string, options: Plan["options"] = {}): Plan => ({ kind: "plan", name, options });

function compiled(options: RateLimitOptions) {
  schema().parse(options);
  const context = compileContext();
  const config = compile(options, context);
  expect(context.problems).toEqual([]);
  return config;
}

function problemsOf(options: unknown): string[] {
  const checked = schema().safeParse(options);
  if (!checked.success) return checked.error.issues.map(({ message, path }) => `${path.join(".")}: ${message}`);
  const context = compileContext();
  compile(options as RateLimitOptions, context);
  return context.problems;
}

/** One isolate. */
function start(options: RateLimitOptions, more: PolicyOptions = {}) {
  const request = startPolicy(run, compiled(options), { table, env, now: () => Date.now(), ...more });
  return async (overrides: Parameters<typeof request>[1] = {}) => {
    const result = await request(new Request("https://api.example.com/v1/orders"), overrides);
    await result.background;
    return result;
  };
}

const LEASED = { limit: 100, window: "1m", algorithm: "fixedWindow", count: "leased" } as const;
const times = <T>(count: number, make: (i: number) => Promise<T>) =>
  Promise.all(Array.from({ length: count }, (_, i) => make(i)));
const passed = (results: readonly { passed: boolean }[]) => results.filter((result) => result.passed).length;
const edits = (exchange: { responseEdits: readonly { name: string; value?: string }[] }) =>
  Object.fromEntries(exchange.responseEdits.map(({ name, value }) => [name, value]));
const caller = (more: Partial<Caller>): Caller => ({ subject: "s", scopes: [], claims: {}, ...more });

describe("options", () => {
  it("say who counts, and the label keeps the counts of script and library apart", () => {
    expect(compiled(LEASED)).toMatchObject({
      count: "leased",
      limits: [{ name: "default", label: "units-fixed-100/1m", quota: 100, window: 60_000, algorithm: "fixedWindow" }],
    });
    expect(compiled(LEASED).limits[0]).not.toHaveProperty("rule");
    const bucket = compiled({ ...LEASED, algorithm: "tokenBucket", burst: 300 });
    expect(bucket.limits).toMatchObject([{ label: "units-bucket-100/1m+300", quota: 300, window: 180_000 }]);
    expect(compiled({ ...LEASED, cost: 5 }).limits).toMatchObject([{ label: "units-fixed-100/1m", quota: 100 }]);
    expect(compiled({ limit: 5, window: "1m", cost: { header: "X-Cost" } })).toMatchObject({
      cost: 1,
      costHeader: "x-cost",
      limits: [{ label: "units-5/1m", algorithm: "slidingWindow" }],
    });
  });

  it("take days and months of the calendar, beside windows of any kind", () => {
    const windows = [
      { limit: 5, window: "1s" },
      { limit: 10, window: "day" },
      { limit: 20, window: "month" },
    ] as const;
    expect(compiled({ windows: windows.slice(0, 2), algorithm: "tokenBucket" }).limits).toMatchObject([
      { name: "1s", rule: { algorithm: "tokenBucket" } },
      { name: "day", label: "fixed-10/day", rule: { algorithm: "fixedWindow", tokens: 10, window: 86_400_000 } },
    ]);
    // The library does not count months; what holds together is counted by one of the two.
    expect(compiled({ windows }).limits).toMatchObject([
      { name: "1s", label: "units-5/1s", algorithm: "slidingWindow" },
      { name: "day", label: "units-fixed-10/day", algorithm: "fixedWindow" },
      { name: "month", label: "units-fixed-20/month", algorithm: "fixedWindow", calendar: "month" },
    ]);
  });

  it.each<[string, unknown, RegExp]>([
    ["another way to count", { ...LEASED, count: "roughly" }, /count: /],
    ["a header that is none", { limit: 5, window: "1s", cost: { header: "x cost" } }, /cost/],
    ["a burst of a month", { limit: 5, window: "month", algorithm: "tokenBucket", burst: 9 }, /`burst` is for token/],
    ["a week", { limit: 5, window: "week" }, /"week" is no window .*"day" or "month"/],
    ["more before than the limit", { limit: 5, window: "1s", cost: { header: "x", before: 6 } }, /cost of 6, 5 lets/],
    ["a plan without limits", { limit: 5, window: "1s", plans: [plan("free")] }, /plan "free" has no limits; fix: /],
    [
      "a plan twice",
      { limit: 5, window: "1s", plans: [[plan("free"), 1], plan("free", { limits: [{ limit: 1, window: "1s" }] })] },
      /plan "free" has two limits/,
    ],
    [
      "a bare number where there are several windows",
      { windows: [{ limit: 5, window: "1s" }], plans: [[plan("free"), 7]] },
      /7 for the plan "free" has no window/,
    ],
  ])("refuse %s", (_name, options, problem) => {
    expect(problemsOf(options).join("\n")).toMatch(problem);
  });
});

describe("a leased limit", () => {
  it("asks the store once for a key that is cold", async () => {
    const { passed, exchange } = await start(LEASED)();
    expect(passed).toBe(true);
    expect(store.requests).toHaveLength(1);
    expect(store.keys).toEqual(["limit:orders/list:default:units-fixed-100/1m:client=192.0.2.1"]);
    expect(edits(exchange)).toEqual({ "ratelimit-policy": '"default";q=100;w=60', ratelimit: '"default";r=99;t=50' });
    expect(exchange.record.limits).toMatchObject([{ name: "default", key: store.keys[0], remaining: 99 }]);
  });

  it("shares the calls between requests that wait for the same units", async () => {
    store.there = 20;
    const request = start({ ...LEASED, limit: 1_000 });
    expect(passed(await times(50, () => request()))).toBe(50);
    expect(store.requests.length).toBeLessThanOrEqual(3);
    expect(passed(await times(50, () => request()))).toBe(50);
  });

  it("counts down without the store, refuses with Retry-After, and begins anew", async () => {
    const request = start(LEASED);
    const all = [];
    for (let i = 0; i < 130; i++) {
      vi.setSystemTime(START + 10_000 + i * 10);
      all.push(await request());
    }
    expect(passed(all)).toBe(100);
    expect(store.requests.length).toBeLessThan(130 / 6);
    const left = all.map(({ exchange }) => Number(/r=(\d+)/.exec(edits(exchange).ratelimit ?? "")?.[1]));
    expect(left.slice(0, 100)).toEqual(Array.from({ length: 100 }, (_, i) => 99 - i));
    const last = all.at(-1);
    expect([last?.response.status, last?.response.headers.get("retry-after")]).toEqual([429, "49"]);
    expect(await last?.response.json()).toMatchObject({ code: "rate-limited", "violated-policies": ["default"] });
    const before = store.requests.length;
    await times(200, () => request());
    expect(store.requests.length).toBe(before);
    vi.setSystemTime(START + 60_001);
    expect((await request()).passed).toBe(true);
  });

  it("never admits more than the limit, with all that several isolates hold", async () => {
    const isolates = Array.from({ length: 5 }, () => start(LEASED));
    const all = [];
    for (let i = 0; i < 60; i++) {
      vi.setSystemTime(START + 10_000 + i * 20);
      all.push(...(await times(5, (isolate) => (isolates[isolate] as (typeof isolates)[0])())));
    }
    expect(passed(all)).toBeLessThanOrEqual(100);
    expect(passed(all)).toBeGreaterThanOrEqual(95);
  });

  it("takes costs, whichever a request has", async () => {
    const options = { ...LEASED, limit: 10, shared: "all" } as const;
    const [cheap, dear] = [start(options), start({ ...options, cost: 6 })];
    const statuses = [];
    for (const request of [dear, dear, cheap, cheap, cheap, cheap, cheap])
      statuses.push((await request()).response.status);
    expect(statuses).toEqual([200, 429, 200, 200, 200, 200, 429]);
    expect(new Set(store.keys)).toEqual(new Set(["limit:shared:all:units-fixed-1m:client=192.0.2.1"]));
  });

  it("holds several windows together: what one refuses costs the others nothing", async () => {
    const request = start({
      count: "leased",
      windows: [
        { limit: 2, window: "1s" },
        { limit: 5, window: "day" },
      ],
    });
    const at = async (ms: number, count: number) => {
      vi.setSystemTime(START + ms);
      const results = [];
      for (let i = 0; i < count; i++) results.push(await request());
      return results;
    };
    expect(passed(await at(10_000, 4))).toBe(2);
    expect(passed(await at(20_000, 4))).toBe(2);
    const third = await at(30_000, 3);
    expect(passed(third)).toBe(1);
    expect(await third[2]?.response.json()).toMatchObject({ "violated-policies": ["day"] });
    expect(third[0]?.exchange.record.limits?.map(({ remaining }) => remaining)).toEqual([1, 0]);
  });

  it("gives back what one window granted before another one refused", async () => {
    const options = {
      count: "leased",
      windows: [
        { limit: 5, window: "1s" },
        { limit: 1, window: "day" },
      ],
    } as const;
    const [first, second] = [start(options), start(options)];
    expect((await first()).passed).toBe(true);
    vi.setSystemTime(START + 20_000);
    const { passed, exchange } = await second();
    expect([passed, exchange.record.limits?.map(({ remaining }) => remaining)]).toEqual([false, [5, 0]]);
  });

  it("in report mode counts and refuses nothing", async () => {
    const request = start({ ...LEASED, limit: 1 }, { mode: "report" });
    const results = [await request(), await request()];
    expect(results.map(({ exchange }) => exchange.record.policies[0]?.verdict)).toEqual(["pass", "would-deny"]);
    expect(passed(results)).toBe(2);
    expect(results[1]?.exchange.responseEdits).toEqual([]);
  });

  it("says of a month when it ends, and not how long it is", async () => {
    vi.setSystemTime(Date.UTC(2026, 11, 31, 23, 59, 50));
    const request = start({ limit: 1, window: "month", count: "leased" });
    const first = await request();
    expect(edits(first.exchange)).toEqual({ "ratelimit-policy": '"default";q=1', ratelimit: '"default";r=0;t=10' });
    expect((await request()).response.headers.get("retry-after")).toBe("10");
    vi.setSystemTime(Date.UTC(2027, 0, 1) - 1);
    expect((await request()).passed).toBe(false);
    vi.setSystemTime(Date.UTC(2027, 0, 1));
    expect((await request()).passed).toBe(true);
    vi.setSystemTime(Date.UTC(2027, 0, 31, 23));
    expect((await request()).passed).toBe(false);
  });
});

describe("a plan", () => {
  const gold = plan("gold", { limits: [{ limit: 5, window: "1m" }] });
  const options = {
    ...LEASED,
    limit: 1,
    per: "consumer",
    consumers: [[consumer("partner", { claims: {} }), 4]],
    plans: [
      gold,
      [plan("silver"), 3],
      [
        plan("free"),
        [
          { limit: 2, window: "1m" },
          { limit: 9, window: "day" },
        ],
      ],
    ],
  } as const;

  it.each([
    [caller({ consumer: "a", plan: "gold" }), 5],
    [caller({ consumer: "b", plan: "silver" }), 3],
    [caller({ consumer: "c", plan: "free" }), 2],
    [caller({ consumer: "d", plan: "unknown" }), 1],
    [caller({ consumer: "partner", plan: "gold" }), 4],
    [caller({}), 1],
  ])("decides the limit of its consumers, unless they have their own: %o", async (who, limit) => {
    const request = start(options);
    const results = [];
    for (let i = 0; i < 7; i++) results.push(await request({ caller: who }));
    expect(passed(results)).toBe(limit);
  });
});

describe("a cost that the response tells", () => {
  for (const count of ["leased", "exact"] as const) {
    it(`is charged after it, where the count is ${count}`, async () => {
      let cost: string | undefined;
      const origin = () => new Response("", { headers: cost === undefined ? {} : { "x-cost": cost } });
      const options = { limit: 100, window: "1m", count, cost: { header: "x-cost", before: 2 } } as const;
      const request = start(options, { origin });
      const left = async (told: string | undefined) => {
        cost = told;
        const { exchange } = await request();
        return exchange.record.limits?.[0]?.remaining;
      };
      expect(await left("10")).toBe(98);
      expect(await left(" 0.5 ")).toBe(88);
      expect(await left("0")).toBe(87);
      expect(await left(undefined)).toBe(87);
      expect(await left("-4")).toBe(85);
      expect(await left("many")).toBe(83);
      // More than is left; those who come later pay for it.
      expect(await left("500")).toBe(81);
      expect((await request()).response.status).toBe(429);
    });

    it(`is charged to nobody who was refused, where the count is ${count}`, async () => {
      const origin = () => new Response("", { headers: { "x-cost": "50" } });
      const options = { limit: 100, window: "1m", count, cost: { header: "x-cost" } } as const;
      const request = start(options, { origin, mode: "report" });
      for (let i = 0; i < 4; i++) await request();
      const ran = store.requests.flat().reduce((sum, [, , , , ...args]) => sum + Number(args[6]), 0);
      expect(ran).toBe(2 * 49);
    });
  }

  it("is counted in the isolate while the store is away", async () => {
    store.broken = true;
    const origin = () => new Response("", { headers: { "x-cost": "60" } });
    const request = start({ limit: 100, window: "1m", cost: { header: "x-cost" } }, { origin });
    expect([(await request()).passed, (await request()).passed, (await request()).passed]).toEqual([true, true, false]);
  });

  it("of a bucket is charged and given back, too", async () => {
    let cost = "30";
    const origin = () => new Response("", { headers: { "x-cost": cost } });
    const options = {
      limit: 60,
      window: "1m",
      algorithm: "tokenBucket",
      cost: { header: "x-cost", before: 10 },
    } as const;
    for (const count of ["exact", "leased"] as const) {
      cost = "30";
      const request = start({ ...options, count, name: count }, { origin });
      const left = async () => (await request()).exchange.record.limits?.[0]?.remaining;
      expect(await left()).toBe(50);
      cost = "0";
      expect(await left()).toBe(20);
      expect(await left()).toBe(20);
    }
  });
});

describe("a store that fails", () => {
  it("is not needed for units that are here; then onStoreFailure counts", async () => {
    const request = start({ ...LEASED, onStoreFailure: "closed" });
    for (let i = 0; i < 40; i++) {
      vi.setSystemTime(START + 10_000 + i * 10);
      await request();
    }
    store.broken = true;
    const results = [];
    for (let i = 0; i < 70; i++) results.push(await request());
    const served = passed(results);
    expect(served).toBeGreaterThan(3);
    expect(served).toBeLessThanOrEqual(60);
    expect(results.slice(0, served).every((result) => result.passed)).toBe(true);
    expect(results.at(-1)?.response.status).toBe(503);
    expect(results.at(-1)?.exchange.record.policies[0]?.facts).toMatchObject({ store: "failed", fallback: "closed" });
  });

  it.each(["open", "local"] as const)("lets pass, where it is %s", async (onStoreFailure) => {
    store.broken = true;
    const request = start({ ...LEASED, limit: 2, onStoreFailure });
    const results = [await request(), await request(), await request()];
    expect(passed(results)).toBe(onStoreFailure === "open" ? 3 : 2);
  });

  it("by an answer that comes too late loses what it granted: nobody spends that", async () => {
    vi.useRealTimers();
    const request = start({ ...LEASED, limit: 30, window: "day", timeout: "60ms", onStoreFailure: "closed" });
    store.back = 200;
    const late = await request();
    expect(late.response.status).toBe(503);
    expect(late.exchange.record.policies[0]?.facts).toMatchObject({ why: "timeout" });
    store.back = 0;
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 40_000 });
    const results = [];
    for (let i = 0; i < 40; i++) results.push(await request());
    expect(passed(results)).toBe(29);
  });

  it("and has no usable address is not configured, for every request", async () => {
    const request = start(LEASED, { env: { ...env, STORE_URL: "store.example.com" } });
    for (let i = 0; i < 3; i++)
      expect(await (await request()).response.json()).toMatchObject({ code: "not-configured" });
    expect(store.requests).toEqual([]);
  });

  it("keeps no request longer than the timeout, whoever asked", async () => {
    vi.useRealTimers();
    store.there = 10_000;
    const request = start({ ...LEASED, timeout: "400ms", onStoreFailure: "open" });
    const waits = await times(30, async () => {
      const started = performance.now();
      expect((await request()).passed).toBe(true);
      return performance.now() - started;
    });
    expect(Math.max(...waits)).toBeGreaterThan(390);
    expect(Math.max(...waits)).toBeLessThan(1_500);
    expect(store.requests).toHaveLength(1);
    // From then on nobody waits.
    const started = performance.now();
    await times(30, () => request());
    expect(performance.now() - started).toBeLessThan(390);
    expect(store.requests).toHaveLength(1);
  });

  it("keeps no request longer than the timeout, also when it waits for one call after the other", async () => {
    vi.useRealTimers();
    store.there = 280;
    const config = compiled({ ...LEASED, timeout: "400ms", onStoreFailure: "open" });
    const request = startPolicy(run, config, { table, env });
    const results = await times(20, async () => {
      const started = performance.now();
      const { exchange } = await request(new Request("https://api.example.com/"));
      return { ms: performance.now() - started, why: exchange.record.policies[0]?.facts?.why };
    });
    // The first call brings what the first request needs, the second one comes too late for the others.
    expect(results.filter(({ why }) => why === undefined)).toHaveLength(1);
    expect(results.filter(({ why }) => why === "timeout")).toHaveLength(19);
    expect(Math.max(...results.map(({ ms }) => ms))).toBeLessThan(670);
    expect(store.requests).toHaveLength(2);
  });

  it("keeps nobody waiting for a call that is under way, once another one has failed", async () => {
    vi.useRealTimers();
    store.there = 900;
    const request = start({ ...LEASED, timeout: "1200ms", onStoreFailure: "open" });
    const slow = request({ clientAddress: "192.0.2.1" });
    await scheduler.wait(20);
    store.broken = true;
    await request({ clientAddress: "192.0.2.2" });
    const started = performance.now();
    const { exchange } = await request({ clientAddress: "192.0.2.1" });
    expect(exchange.record.policies[0]?.facts).toMatchObject({ why: "paused" });
    expect(performance.now() - started).toBeLessThan(600);
    expect((await slow).passed).toBe(true);
  });
});
