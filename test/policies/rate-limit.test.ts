import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { consumer } from "../../src/config/consumer.ts";
import type { Caller } from "../../src/policies/contract.ts";
import { LocalCounter } from "../../src/policies/limit-store.ts";
import { compile, type RateLimitOptions, rateLimit, run, schema } from "../../src/policies/rate-limit.ts";
import type { RouteTable } from "../../src/table/table.ts";
import { compileContext, type PolicyOptions, startPolicy } from "./exchange.ts";

const STORE = "https://store.example.com";
const TOKEN = "the-store-token";
const START = Date.UTC(2026, 10, 23);
const env = { STORE_URL: STORE, STORE_TOKEN: TOKEN };
const table = {
  gateway: { store: { url: { env: "STORE_URL" }, token: { secret: "STORE_TOKEN" } } },
} as unknown as RouteTable;

type Command = [name: string, script: string, keys: number, ...rest: (string | number)[]];
type Reply = unknown;

const keysOf = ([, , count, ...rest]: Command) => rest.slice(0, count).map(String);
const argumentsOf = ([, , count, ...rest]: Command) => rest.slice(count).map(Number);

/**
 * The store at the other end of `fetch`: what a script replies is up to the test, since Redis itself does not run in here. The
 * algorithms are tested on a real one in test/dev/rate-limit-store.test.ts.
 */
class Store {
  readonly requests: { url: string; headers: Headers; commands: Command[]; signal: AbortSignal }[] = [];
  /** Of one script. An Error is the store's own error. */
  reply: (command: Command) => Reply = (command) => admitted(command);
  /** In place of an answer. */
  broken: ((signal: AbortSignal) => Response | Promise<Response>) | undefined;

  readonly fetch = async (input: RequestInfo | URL, init?: RequestInit): Promise<Response> => {
    const request = { url: String(input), headers: new Headers(init?.headers), signal: init?.signal as AbortSignal };
    const body = JSON.parse(String(init?.body));
    const pipeline = request.url.endsWith("/pipeline");
    this.requests.push({ ...request, commands: pipeline ? body : [body] });
    if (this.broken) return this.broken(request.signal);
    const entry = (command: Command) => {
      const reply = this.reply(command);
      return reply instanceof Error ? { error: reply.message } : { result: reply };
    };
    if (pipeline) return Response.json(body.map(entry));
    const single = entry(body);
    return Response.json(single, { status: "error" in single ? 400 : 200 });
  };

  get commands(): Command[] {
    return this.requests.flatMap(({ commands }) => commands);
  }

  get keys(): string[] {
    return this.commands.map((command) => keysOf(command)[0] as string);
  }
}

/** The reply of the library's script to a request that fits, with `left` tokens after it. */
function admitted(command: Command, left?: number): number[] {
  const [tokens = 0, , , now = 0] = argumentsOf(command);
  const kind = keysOf(command).length === 2 ? "sliding" : argumentsOf(command).length === 5 ? "bucket" : "fixed";
  const remaining = left ?? tokens - 1;
  if (kind === "bucket") return [remaining, now + (argumentsOf(command)[1] ?? 0), tokens];
  return [kind === "fixed" ? tokens - remaining : remaining, tokens];
}

function refused(command: Command): number[] {
  const [tokens = 0, interval = 0, , now = 0] = argumentsOf(command);
  if (argumentsOf(command).length === 5) return [-1, now + interval, tokens];
  return [keysOf(command).length === 2 ? -1 : tokens + 1, tokens];
}

let store: Store;

beforeEach(() => {
  store = new Store();
  vi.spyOn(globalThis, "fetch").mockImplementation(store.fetch);
  // The library's algorithms read the clock themselves.
  vi.useFakeTimers({ toFake: ["Date"], now: START + 10_000 });
});

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

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

const start = (options: RateLimitOptions, more: PolicyOptions = {}) =>
  startPolicy(run, compiled(options), { table, env, now: () => Date.now(), ...more });

const get = (headers: Record<string, string> = {}) => new Request("https://api.example.com/v1/orders", { headers });

const caller = (more: Partial<Caller> = {}): Caller => ({
  subject: "https://id.example.com|ann",
  scopes: [],
  claims: {},
  ...more,
});

const edits = (exchange: { responseEdits: readonly { name: string; value?: string }[] }) =>
  Object.fromEntries(exchange.responseEdits.map(({ name, value }) => [name, value]));

describe("options", () => {
  it("become the table's configuration", () => {
    expect(compiled({ limit: 100, window: "60s" })).toEqual({
      per: ["client"],
      cost: 1,
      unit: 1,
      limits: [
        {
          name: "default",
          label: "100/1m",
          quota: 100,
          window: 60_000,
          rule: { algorithm: "slidingWindow", tokens: 100, window: 60_000 },
        },
      ],
      consumers: {},
      onStoreFailure: "local",
      timeout: 500,
      headers: true,
    });
  });

  it("name each of several windows", () => {
    const windows = [
      { limit: 10, window: "1s" },
      { limit: 1_000, window: "1h" },
    ];
    expect(compiled({ windows }).limits.map(({ name }) => name)).toEqual(["1s", "1h"]);
    expect(compiled({ windows, name: "api" }).limits.map(({ name }) => name)).toEqual(["api-1s", "api-1h"]);
  });

  it.each<[string, unknown, RegExp]>([
    ["neither form", { per: "client" }, /either `limit` and `window`, or `windows`/],
    ["a limit without a window", { limit: 1 }, /either/],
    ["both forms", { limit: 1, window: "1s", windows: [{ limit: 1, window: "1s" }] }, /either/],
    ["consumers for several windows", { windows: [{ limit: 1, window: "1s" }], consumers: [] }, /either/],
    ["no window's text", { limit: 1, window: "soon" }, /"soon" is no window/],
    ["a window of nothing", { limit: 1, window: "0s" }, /"0s" is no window/],
    ["a window of part of a second", { limit: 1, window: "1500ms" }, /whole seconds/],
    ["a limit of 0", { limit: 0, window: "1s" }, /limit: /],
    ["a limit that is no integer", { limit: 1.5, window: "1s" }, /limit: /],
    ["a cost above the limit", { limit: 5, window: "1s", cost: 6 }, /at a cost of 6, 5 lets no request pass/],
    [
      "a cost above the burst",
      { limit: 50, window: "1s", cost: 6, algorithm: "tokenBucket", burst: 5 },
      /at a cost of 6, 5/,
    ],
    ["a burst without a bucket", { limit: 5, window: "1s", burst: 6 }, /`burst` is for token buckets/],
    [
      "windows of one length",
      {
        windows: [
          { limit: 5, window: "60s" },
          { limit: 6, window: "1m" },
        ],
      },
      /two windows of the same length/,
    ],
    [
      "a shared sliding window with a cost",
      { limit: 5, window: "1s", cost: 2, shared: "all" },
      /cannot be shared at a cost above 1/,
    ],
    ["a timeout of nothing", { limit: 5, window: "1s", timeout: "0ms" }, /timeout "0ms" is no duration/],
    ["a name with a quote", { limit: 5, window: "1s", name: 'a"b' }, /name: must be/],
    ["a shared name with a pattern", { limit: 5, window: "1s", shared: "a*" }, /shared: must be/],
    ["an unknown key", { limit: 5, window: "1s", per: "user" }, /per: /],
    ["an unknown option", { limit: 5, window: "1s", limits: [] }, /Unrecognized key/],
  ])("refuse %s", (_name, options, problem) => {
    expect(problemsOf(options).join("\n")).toMatch(problem);
  });

  it("refuse two limits for one consumer, and one that lets nothing pass", () => {
    const shop = consumer("shop", { claims: { client_id: "shop" } });
    const options = {
      limit: 10,
      window: "1s",
      cost: 2,
      consumers: [
        [shop, 20],
        [shop, { limit: 1, window: "1m" }],
      ],
    };
    expect(problemsOf(options)).toHaveLength(2);
  });

  it("are those of a policy", () => {
    expect(rateLimit({ limit: 1, window: "1s" })).toMatchObject({ kind: "policy", policy: "rateLimit" });
  });

  it("let a token bucket's tokens flow evenly, never faster than asked and less than 1 % slower", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 1_000_000_000 }),
        fc.integer({ min: 1, max: 40 * 86_400 }),
        (limit, length) => {
          const { refill } = compiled({ limit, window: `${length}s`, algorithm: "tokenBucket" }).limits[0]?.rule ?? {};
          const { tokens, interval } = refill as { tokens: number; interval: number };
          const rate = tokens / interval / (limit / (length * 1_000));
          expect(rate).toBeLessThanOrEqual(1 + 1e-12);
          expect(rate).toBeGreaterThan(0.99);
          expect(interval).toBeGreaterThanOrEqual(100);
          // One token at a time, or steps of no more than 0.2 s.
          if (tokens > 1) expect(interval).toBeLessThanOrEqual(200);
        },
      ),
    );
  });
});

describe("a request", () => {
  it("passes with one call of the store, and its answer tells what is left", async () => {
    store.reply = (command) => admitted(command, 57);
    const { passed, response, exchange } = await start({ limit: 100, window: "1m" })(get());
    expect([passed, response.status]).toEqual([true, 200]);
    expect(exchange.responseEdits).toEqual([
      { action: "set", name: "ratelimit-policy", value: '"default";q=100;w=60' },
      { action: "set", name: "ratelimit", value: '"default";r=57;t=50' },
    ]);
    expect(exchange.record.limits).toEqual([
      {
        name: "default",
        key: "limit:orders/list:default:100/1m:client=192.0.2.1",
        remaining: 57,
        reset: START + 60_000,
      },
    ]);
    expect(exchange.record.policies).toEqual([{ policy: "rateLimit", verdict: "pass" }]);
    expect(store.requests).toHaveLength(1);
    const [request] = store.requests;
    expect([...(request?.headers.keys() ?? [])].sort()).toEqual(["authorization", "content-type"]);
    expect(request?.headers.get("authorization")).toBe(`Bearer ${TOKEN}`);
    expect(argumentsOf(store.commands[0] as Command)).toEqual([100, START + 10_000, 60_000, 1]);
  });

  it("is refused with a problem document, and told when to come back", async () => {
    store.reply = refused;
    const { passed, response, exchange } = await start({ limit: 100, window: "1m" })(get());
    expect(passed).toBe(false);
    expect(response.status).toBe(429);
    expect(response.headers.get("retry-after")).toBe("51");
    expect(await response.json()).toMatchObject({ code: "rate-limited", "violated-policies": ["default"] });
    expect(edits(exchange)).toEqual({ "ratelimit-policy": '"default";q=100;w=60', ratelimit: '"default";r=0;t=51' });
    expect(exchange.record).toMatchObject({ reason: "rate-limited", limits: [{ remaining: 0 }] });
    expect(exchange.record.policies).toEqual([{ policy: "rateLimit", verdict: "deny", reason: "rate-limited" }]);
    expect(store.requests).toHaveLength(1);
  });

  it.each([1, 999, 1_000, 1_001])("waits whole seconds, at least one (%i ms before the turn)", async (before) => {
    vi.setSystemTime(START + 60_000 - before);
    store.reply = refused;
    const { response } = await start({ limit: 1, window: "1m", algorithm: "fixedWindow" })(get());
    expect(response.headers.get("retry-after")).toBe(before > 1_000 ? "2" : "1");
  });

  it("is not told to come back at once when the window has ended meanwhile", async () => {
    store.reply = (command) => {
      vi.setSystemTime(START + 60_100);
      return refused(command);
    };
    const { response, exchange } = await start({ limit: 1, window: "1m" })(get());
    expect(response.headers.get("retry-after")).toBe("1");
    expect(edits(exchange).ratelimit).toBe('"default";r=0;t=1');
  });

  it("can go without the headers", async () => {
    store.reply = refused;
    const { response, exchange } = await start({ limit: 100, window: "1m", headers: false })(get());
    expect(response.headers.get("retry-after")).toBe("51");
    expect(exchange.responseEdits).toEqual([]);
  });

  it("passes in report mode, recorded as one that would not have, without a word to the client", async () => {
    store.reply = refused;
    const { passed, response, exchange } = await start({ limit: 100, window: "1m" }, { mode: "report" })(get());
    expect([passed, response.status]).toEqual([true, 200]);
    expect(exchange.responseEdits).toEqual([]);
    expect(exchange.record.policies).toEqual([{ policy: "rateLimit", verdict: "would-deny", reason: "rate-limited" }]);
    expect(exchange.record.reason).toBeUndefined();
  });

  it("is counted by each of a route's limits, whose headers add up", async () => {
    const { exchange } = await start({ limit: 100, window: "1m" })(get());
    await start({ limit: 5, window: "1s", name: "burst" })(get(), exchange);
    expect(exchange.responseEdits).toEqual([
      { action: "set", name: "ratelimit-policy", value: '"default";q=100;w=60' },
      { action: "set", name: "ratelimit", value: '"default";r=99;t=50' },
      { action: "add", name: "ratelimit-policy", value: '"burst";q=5;w=1' },
      { action: "add", name: "ratelimit", value: '"burst";r=4;t=1' },
    ]);
    expect(exchange.record.limits?.map(({ name }) => name)).toEqual(["default", "burst"]);
  });

  it("sends a script's text only to a store that does not know it", async () => {
    store.reply = (command) =>
      command[0] === "evalsha" ? new Error("NOSCRIPT No matching script.") : admitted(command);
    const { passed } = await start({ limit: 100, window: "1m" })(get());
    expect(passed).toBe(true);
    expect(store.commands.map(([name]) => name)).toEqual(["evalsha", "eval"]);
  });

  it("takes its cost, counted in requests where all cost the same", async () => {
    store.reply = (command) => admitted(command, 2);
    const { exchange } = await start({ limit: 100, window: "1m", cost: 30 })(get());
    expect(argumentsOf(store.commands[0] as Command)).toEqual([3, START + 10_000, 60_000, 1]);
    expect(edits(exchange)).toEqual({ "ratelimit-policy": '"default";q=100;w=60', ratelimit: '"default";r=70;t=50' });
  });

  it("takes its cost in tokens from a bucket, whose rate and burst are told as one quota", async () => {
    store.reply = (command) => admitted(command, 150);
    const bucket = { limit: 100, window: "1m", algorithm: "tokenBucket", burst: 200, cost: 50 } as const;
    const { exchange } = await start(bucket)(get());
    expect(argumentsOf(store.commands[0] as Command)).toEqual([200, 600, 1, START + 10_000, 50]);
    expect(edits(exchange)).toEqual({ "ratelimit-policy": '"default";q=200;w=120', ratelimit: '"default";r=150;t=1' });
    store.reply = refused;
    const { response } = await start(bucket)(get());
    // 50 steps of 0.6 s until an empty bucket holds the cost.
    expect(response.headers.get("retry-after")).toBe("30");
  });
});

describe("several windows", () => {
  const windows = [
    { limit: 100, window: "1m" },
    { limit: 5, window: "1s" },
    { limit: 1_000, window: "1h" },
  ];
  const windowOf = (command: Command) => argumentsOf(command)[2];

  it("are asked in one request and listed in the headers", async () => {
    const { passed, exchange } = await start({ windows })(get());
    expect(passed).toBe(true);
    expect(store.requests.map(({ url }) => url)).toEqual([`${STORE}/pipeline`]);
    expect(edits(exchange)).toEqual({
      "ratelimit-policy": '"1m";q=100;w=60, "1s";q=5;w=1, "1h";q=1000;w=3600',
      ratelimit: '"1m";r=99;t=50, "1s";r=4;t=1, "1h";r=999;t=3590',
    });
    expect(new Set(store.keys).size).toBe(3);
  });

  it("refuse together; the longest wait counts, and the others get back what was taken", async () => {
    store.reply = (command) => (windowOf(command) === 3_600_000 ? admitted(command) : refused(command));
    const background: Promise<unknown>[] = [];
    const waitUntil = (work: Promise<unknown>) => void background.push(work);
    const { response, exchange } = await start({ windows })(get(), { waitUntil });
    expect(response.status).toBe(429);
    expect(response.headers.get("retry-after")).toBe("51");
    expect(await response.json()).toMatchObject({ "violated-policies": ["1m", "1s"] });
    expect(edits(exchange).ratelimit).toBe('"1m";r=0;t=51, "1s";r=0;t=2, "1h";r=999;t=3590');
    // However late the work in the background comes, the credit is for the window that was charged.
    vi.setSystemTime(START + 7_200_000);
    expect(background).toHaveLength(1);
    await background[0];
    const [, , charged, credited] = store.commands as [Command, Command, Command, Command];
    expect(store.requests).toHaveLength(2);
    expect(keysOf(credited)).toEqual(keysOf(charged));
    expect(argumentsOf(credited)).toEqual([...argumentsOf(charged).slice(0, -1), -1]);
  });

  it("send unknown scripts together as well", async () => {
    store.reply = (command) =>
      command[0] === "evalsha" ? new Error("NOSCRIPT No matching script.") : admitted(command);
    expect((await start({ windows })(get())).passed).toBe(true);
    expect(store.requests.map(({ commands }) => commands.length)).toEqual([3, 3]);
  });

  it("fail together when the store fails for one", async () => {
    store.reply = (command) => (windowOf(command) === 60_000 ? new Error("ERR out of memory") : admitted(command));
    const { exchange } = await start({ windows, onStoreFailure: "open" })(get());
    expect(exchange.record.policies[0]?.facts).toEqual({ store: "failed", why: "ERR out of memory", fallback: "open" });
  });

  it("fail when the store leaves one out", async () => {
    store.broken = () => Response.json([{ result: [4, 5] }]);
    const { response } = await start({ windows, onStoreFailure: "closed" })(get());
    expect(response.status).toBe(503);
  });
});

describe("keys", () => {
  const key = async (options: Partial<RateLimitOptions>, more: PolicyOptions["exchange"] = {}, headers = {}) => {
    await start({ limit: 100, window: "1m", ...options } as RateLimitOptions, { exchange: more })(get(headers));
    return (store.keys.at(-1) as string).replace(/:\d+$/, "");
  };
  const prefix = "limit:orders/list:default:100/1m:";

  it("are the client's subscription", async () => {
    expect(await key({})).toBe(`${prefix}client=192.0.2.1`);
    const v6 = await key({}, { clientAddress: "2001:db8:1:2:3:4:5:6" });
    expect(v6).toBe(`${prefix}client=2001:db8:1:2::/64`);
    expect(await key({}, { clientAddress: "2001:db8:1:2:ffff::1" })).toBe(v6);
    expect(await key({}, { clientAddress: "::ffff:192.0.2.1" })).toBe(`${prefix}client=192.0.2.1`);
    expect(await key({}, { clientAddress: "" })).toBe(`${prefix}client=unknown`);
  });

  it("are the consumer, else the subject, else the client", async () => {
    const named = caller({ consumer: "shop" });
    expect(await key({ per: "consumer" }, { caller: named })).toBe(`${prefix}consumer=shop`);
    expect(await key({ per: "consumer" }, { caller: caller() })).toBe(`${prefix}subject=https://id.example.com|ann`);
    expect(await key({ per: "consumer" })).toBe(`${prefix}client=192.0.2.1`);
  });

  it("hold no subject that is long or has characters with a meaning", async () => {
    for (const subject of [
      "a*",
      "a,client=192.0.2.1",
      "~0123456789abcdef0123456789abcdef",
      "é",
      "",
      "a\nb",
      "x".repeat(65),
    ]) {
      expect(await key({ per: "consumer" }, { caller: caller({ subject }) })).toMatch(/:subject=~[0-9a-f]{32}$/);
    }
  });

  it("hold headers and claims only as hashes", async () => {
    const secret = "sk-live-1234567890";
    const byHeader = await key({ per: { header: "X-Api-Key" } }, {}, { "x-api-key": secret });
    expect(byHeader).toMatch(/:header\.x-api-key=~[0-9a-f]{32}$/);
    const byClaim = await key({ per: { claim: "tenant" } }, { caller: caller({ claims: { tenant: secret } }) });
    expect(byClaim).toMatch(/:claim\.tenant=~[0-9a-f]{32}$/);
    expect(JSON.stringify(store.requests)).not.toContain("sk-live");
    expect(await key({ per: { header: "x-api-key" } }, {}, { "x-api-key": "another" })).not.toBe(byHeader);
  });

  it("follow claims into objects, tell types apart from absence, and never see Object's own", async () => {
    const claims = { org: { id: 0 }, "https://x.example/t": "t", list: ["a"], none: null, empty: "" };
    const by = (claim: string) => key({ per: { claim } }, { caller: caller({ claims }) });
    for (const claim of ["org.id", "https://x.example/t", "list", "org"]) expect(await by(claim)).toContain("=~");
    for (const claim of ["none", "empty", "absent", "org.name", "constructor", "__proto__", "list.length.x"]) {
      expect(await by(claim)).toBe(`${prefix}client=192.0.2.1`);
    }
  });

  it("fall back to the client where a header or claim is missing", async () => {
    expect(await key({ per: { header: "x-tenant" } })).toBe(`${prefix}client=192.0.2.1`);
    expect(await key({ per: { header: "x-tenant" } }, {}, { "x-tenant": "" })).toBe(`${prefix}client=192.0.2.1`);
    expect(await key({ per: { claim: "tenant" } })).toBe(`${prefix}client=192.0.2.1`);
  });

  it("can be all callers, or several things at once", async () => {
    expect(await key({ per: "route" })).toBe(`${prefix}all`);
    const both = await key({ per: ["consumer", "client"] }, { caller: caller({ consumer: "shop" }) });
    expect(both).toBe(`${prefix}consumer=shop,client=192.0.2.1`);
  });

  it("keep routes and policies apart, unless they share", async () => {
    const route = { id: "orders/*[a]?", api: "orders" } as never;
    expect(await key({}, { route })).toBe("limit:orders/%2a%5ba%5d%3f:default:100/1m:client=192.0.2.1");
    expect(await key({}, { route: { id: "" } as never })).toBe("limit:unmatched:default:100/1m:client=192.0.2.1");
    expect(await key({ shared: "all", name: "x" }, { route })).toBe("limit:shared:all:1m:client=192.0.2.1");
    const of = new Set<string>();
    for (const options of [
      {},
      { limit: 99 },
      { window: "2m" },
      { name: "x" },
      { algorithm: "fixedWindow" },
      { cost: 2 },
    ] as const) {
      of.add(await key(options));
    }
    of.add(await key({ algorithm: "tokenBucket" }));
    of.add(await key({ algorithm: "tokenBucket", burst: 200 }));
    expect(of.size).toBe(8);
  });

  it("keep a consumer's own limit apart", async () => {
    const shop = consumer("shop", { claims: { client_id: "shop" } });
    const press = consumer("press", { claims: { client_id: "press" } });
    const options = {
      consumers: [
        [shop, 500],
        [press, { limit: 20, window: "1h" }],
      ],
    } as const;
    const own = await key(options, { caller: caller({ consumer: "shop" }) });
    expect(own).toBe("limit:orders/list:default:500/1m:client=192.0.2.1");
    expect(argumentsOf(store.commands.at(-1) as Command).slice(0, 3)).toEqual([500, START + 10_000, 60_000]);
    await key(options, { caller: caller({ consumer: "press" }) });
    expect(argumentsOf(store.commands.at(-1) as Command).slice(0, 3)).toEqual([20, START + 10_000, 3_600_000]);
    expect(await key(options, { caller: caller({ consumer: "other" }) })).toBe(`${prefix}client=192.0.2.1`);
    expect(await key({ ...options, shared: "all" }, { caller: caller({ consumer: "shop" }) })).toContain(":500/1m:");
  });
});

/** Everything that may come back in place of a count, by what the record says of it. */
const failures: readonly [name: string, answer: () => Response | Promise<Response>, why: string][] = [
  [
    "an error of the store",
    () => Response.json({ error: "ERR max requests limit exceeded" }, { status: 400 }),
    "ERR max requests limit exceeded",
  ],
  [
    "a wrong token",
    () => Response.json({ error: "WRONGPASS invalid or missing auth token" }, { status: 401 }),
    "WRONGPASS invalid or missing auth token",
  ],
  ["500", () => Response.json({ error: "boom" }, { status: 500 }), "boom"],
  ["a gateway's HTML page", () => new Response("<h1>Bad gateway</h1>", { status: 502 }), "UpstashJSONParseError"],
  ["a page with status 200", () => new Response("<h1>Log in to this network</h1>"), "UpstashJSONParseError"],
  ["an empty body", () => new Response(""), "UpstashJSONParseError"],
  ["no result", () => Response.json({}), "TypeError"],
  ["null", () => Response.json({ result: null }), "TypeError"],
  ["text for a result", () => Response.json({ result: "OK" }), "TypeError"],
  ["nulls for numbers", () => Response.json({ result: [null, null] }), "TypeError"],
  ["a count of another limit", () => Response.json({ result: [5, 99] }), "TypeError"],
  ["a connection that is refused", () => Promise.reject(new Error("Network connection lost.")), "Error"],
  [
    "an error that quotes the token",
    () => Promise.reject(new TypeError(`"Bearer ${TOKEN}" is an invalid header value`)),
    "TypeError",
  ],
];

const neverAnswers = (signal: AbortSignal) =>
  new Promise<Response>((_resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason)));

describe("a store that fails", () => {
  for (const [name, answer, why] of failures) {
    it(`with ${name} is asked once and never taken for a count`, async () => {
      store.broken = answer;
      const open = await start({ limit: 100, window: "1m", onStoreFailure: "open" })(get());
      expect([open.passed, open.response.status]).toEqual([true, 200]);
      expect(open.exchange.record.policies).toEqual([
        { policy: "rateLimit", verdict: "pass", facts: { store: "failed", why, fallback: "open" } },
      ]);
      expect(open.exchange.responseEdits).toEqual([]);
      expect(open.exchange.record.limits).toBeUndefined();
      expect(store.requests).toHaveLength(1);

      const closed = await start({ limit: 100, window: "1m", onStoreFailure: "closed" })(get());
      expect([closed.passed, closed.response.status]).toEqual([false, 503]);
      expect(closed.response.headers.get("retry-after")).toBe("1");
      expect(await closed.response.json()).toMatchObject({ code: "limiter-unavailable" });
      expect(closed.exchange.responseEdits).toEqual([]);
      expect(closed.exchange.record).toMatchObject({ reason: "limiter-unavailable", policies: [{ verdict: "deny" }] });

      const local = await start({ limit: 100, window: "1m" })(get());
      expect(local.passed).toBe(true);
      expect(edits(local.exchange).ratelimit).toBe('"default";r=99;t=50');
      expect(local.exchange.record.policies[0]?.facts).toEqual({ store: "failed", why, fallback: "local" });
      expect(JSON.stringify([open.exchange.record, closed.exchange.record, local.exchange.record])).not.toContain(
        TOKEN,
      );
    });
  }

  it("by its silence costs the timeout, and the call is called off", async () => {
    store.broken = neverAnswers;
    const { exchange } = await start({ limit: 100, window: "1m", timeout: "20ms", onStoreFailure: "open" })(get());
    expect(exchange.record.policies[0]?.facts).toEqual({ store: "failed", why: "timeout", fallback: "open" });
    expect(store.requests.map(({ signal }) => signal.aborted)).toEqual([true]);
  });

  it("would have been a 503 in report mode", async () => {
    store.broken = () => new Response("", { status: 500 });
    const options = { limit: 1, window: "1m", onStoreFailure: "closed" } as const;
    const { passed, exchange } = await start(options, { mode: "report" })(get());
    expect(passed).toBe(true);
    expect(exchange.record.policies[0]).toMatchObject({ verdict: "would-deny", reason: "limiter-unavailable" });
  });

  it("leaves the isolate to count, in all windows or in none", async () => {
    store.broken = () => new Response("", { status: 500 });
    const request = start({
      windows: [
        { limit: 2, window: "10s" },
        { limit: 3, window: "1m" },
      ],
    });
    const statuses = [];
    for (let i = 0; i < 4; i++) statuses.push((await request(get())).response.status);
    expect(statuses).toEqual([200, 200, 429, 429]);
    vi.setSystemTime(START + 20_000);
    const third = await request(get());
    expect(third.response.status).toBe(200);
    expect(edits(third.exchange).ratelimit).toBe('"10s";r=1;t=10, "1m";r=0;t=40');
    const fourth = await request(get());
    expect([fourth.response.status, fourth.response.headers.get("retry-after")]).toEqual([429, "40"]);
    expect(await fourth.response.json()).toMatchObject({ code: "rate-limited", "violated-policies": ["1m"] });
  });

  it("leaves the isolate to count by key and by cost, and shared buckets shared", async () => {
    store.broken = () => new Response("", { status: 500 });
    const options = { limit: 10, window: "1m", cost: 5, shared: "all", algorithm: "fixedWindow" } as const;
    const request = start(options);
    const statusOf = async (clientAddress: string, id: string) =>
      (await request(get(), { clientAddress, route: { id } as never })).response.status;
    expect(await statusOf("192.0.2.1", "a/a")).toBe(200);
    expect(await statusOf("192.0.2.1", "a/b")).toBe(200);
    expect(await statusOf("192.0.2.1", "a/c")).toBe(429);
    expect(await statusOf("192.0.2.2", "a/a")).toBe(200);
  });

  it("is left alone for a second, then tried by one request at a time, at pauses that grow to 30 s", async () => {
    store.broken = () => new Response("", { status: 500 });
    const request = start({ limit: 1_000_000, window: "1d" });
    const asked: number[] = [];
    for (let at = 0; at < 120_000; at += 100) {
      vi.setSystemTime(START + at);
      const before = store.requests.length;
      const results = await Promise.all([request(get()), request(get()), request(get())]);
      await Promise.all(results.map(({ background }) => background));
      if (store.requests.length > before) asked.push(at, store.requests.length - before);
    }
    // Three at first, since all of them were under way when the first failed.
    expect(asked).toEqual([0, 3, 1_000, 1, 3_000, 1, 7_000, 1, 15_000, 1, 31_000, 1, 61_000, 1, 91_000, 1]);
  });

  it("says in a 503 when it will be asked again", async () => {
    store.broken = () => new Response("", { status: 500 });
    const request = start({ limit: 10, window: "1m", onStoreFailure: "closed" });
    await request(get());
    vi.setSystemTime(START + 11_000);
    await (await request(get())).background;
    vi.setSystemTime(START + 11_200);
    const { response, exchange } = await request(get());
    expect(response.headers.get("retry-after")).toBe("2");
    expect(exchange.record.policies[0]?.facts).toMatchObject({ why: "paused" });
    expect(store.requests).toHaveLength(2);
  });

  it("is asked again as soon as a trial succeeds, and forgiven", async () => {
    store.broken = () => new Response("", { status: 500 });
    const request = start({ limit: 10, window: "1m" });
    for (const at of [0, 1_000, 3_000]) {
      vi.setSystemTime(START + at);
      await (await request(get())).background;
    }
    store.broken = undefined;
    vi.setSystemTime(START + 7_000);
    const trial = await request(get());
    expect(trial.exchange.record.policies[0]?.facts).toMatchObject({ why: "paused" });
    await trial.background;
    expect((await request(get())).exchange.record.policies).toEqual([{ policy: "rateLimit", verdict: "pass" }]);
    expect(store.requests).toHaveLength(5);
    store.broken = () => new Response("", { status: 500 });
    await request(get());
    vi.setSystemTime(START + 8_000);
    await request(get());
    expect(store.requests).toHaveLength(7);
  });

  it("holds up nobody while it is tried, not even the request that tries it", async () => {
    store.broken = () => new Response("", { status: 500 });
    const request = start({ limit: 10, window: "1m", timeout: "30ms" });
    await request(get());
    vi.setSystemTime(START + 12_000);
    store.broken = neverAnswers;
    const results = await Promise.all([request(get()), request(get())]);
    for (const { exchange } of results) expect(exchange.record.policies[0]?.facts).toMatchObject({ why: "paused" });
    expect(store.requests.map(({ signal }) => signal.aborted)).toEqual([false, false]);
    await Promise.all(results.map(({ background }) => background));
    expect(store.requests[1]?.signal.aborted).toBe(true);
  });

  it("is waited for again when nobody has asked for half a minute", async () => {
    store.broken = () => new Response("", { status: 500 });
    const request = start({ limit: 10, window: "1m", timeout: "30ms" });
    await request(get());
    store.broken = undefined;
    vi.setSystemTime(START + 10_000 + 31_000);
    expect((await request(get())).exchange.record.policies).toEqual([{ policy: "rateLimit", verdict: "pass" }]);
  });

  it("gets the timeout once, however many calls it takes", async () => {
    const asked: number[] = [];
    const started = performance.now();
    store.broken = (signal) => {
      asked.push(performance.now() - started);
      if (asked.length > 1) return neverAnswers(signal);
      return scheduler.wait(500).then(() => Response.json({ error: "NOSCRIPT No matching script." }, { status: 400 }));
    };
    vi.useRealTimers();
    const options = { limit: 100, window: "1m", timeout: "600ms", onStoreFailure: "open" } as const;
    const { exchange } = await start(options)(get());
    expect(exchange.record.policies[0]?.facts).toMatchObject({ why: "timeout" });
    expect(asked).toHaveLength(2);
    expect(performance.now() - started).toBeLessThan(1_000);
  });

  it("takes no answer away when it fails to take back", async () => {
    store.reply = (command) => (argumentsOf(command)[2] === 1_000 ? refused(command) : admitted(command));
    const windows = [
      { limit: 1, window: "1s" },
      { limit: 5, window: "1m" },
    ];
    const { response, background } = await start({ windows })(get());
    store.broken = () => new Response("", { status: 500 });
    await expect(background).resolves.toBeDefined();
    expect(response.status).toBe(429);
  });
});

describe("a gateway without a store", () => {
  it.each<[string, PolicyOptions]>([
    ["in its table", { table: { gateway: {} } as RouteTable }],
    ["address in its environment", { env: { STORE_TOKEN: TOKEN } }],
    ["token in its environment", { env: { STORE_URL: STORE } }],
    ["address that is a URL", { env: { ...env, STORE_URL: "store.example.com" } }],
  ])("%s answers 503 `not-configured`, whatever an outage would mean", async (_name, options) => {
    const request = start({ limit: 1, window: "1s", onStoreFailure: "open" }, options);
    for (let i = 0; i < 2; i++)
      expect(await (await request(get())).response.json()).toMatchObject({ code: "not-configured" });
    expect(store.requests).toEqual([]);
  });
});

describe("counting in the isolate", () => {
  it("never admits more than the limit per key and window, and counts exactly for the first 10,000 keys", () => {
    const step = fc.record({
      key: fc.integer({ min: 0, max: 5 }),
      cost: fc.integer({ min: 1, max: 4 }),
      ms: fc.integer({ min: -500, max: 900 }),
    });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 12 }), fc.array(step, { maxLength: 200 }), (limit, steps) => {
        const counter = new LocalCounter(1_000);
        const model = new Map<string, number>();
        let now = START;
        let latest = Number.NEGATIVE_INFINITY;
        for (const { key, cost, ms } of steps) {
          now += ms;
          latest = Math.max(latest, now);
          const bucket = `${key} in ${Math.floor(latest / 1_000)}`;
          const { used, reset } = counter.look(String(key), now);
          expect(used).toBe(model.get(bucket) ?? 0);
          expect(reset).toBe((Math.floor(latest / 1_000) + 1) * 1_000);
          if (used + cost > limit) continue;
          counter.add(String(key), cost);
          model.set(bucket, used + cost);
          expect(model.get(bucket)).toBeLessThanOrEqual(limit);
        }
      }),
    );
  });

  it("keeps its memory bounded under a flood of keys, and still admits no key too much", () => {
    const counter = new LocalCounter(60_000);
    const admittedTo = new Map<string, number>();
    const take = (key: string) => {
      if (counter.look(key, START).used >= 2) return;
      counter.add(key, 1);
      admittedTo.set(key, (admittedTo.get(key) ?? 0) + 1);
    };
    for (let round = 0; round < 3; round++) for (let i = 0; i < 50_000; i++) take(`key ${i}`);
    expect(counter.size).toBeLessThanOrEqual(11_024);
    expect(Math.max(...admittedTo.values())).toBe(2);
    for (let i = 0; i < 10_000; i++) expect(admittedTo.get(`key ${i}`)).toBe(2);
    counter.look("next", START + 60_000);
    expect(counter.size).toBe(0);
  });
});
