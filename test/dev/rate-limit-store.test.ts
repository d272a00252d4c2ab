// The rate limiter against a real Redis behind the bridge: what only the library's Lua scripts can show.
import { createServer, request as httpRequest } from "node:http";
import type { AddressInfo } from "node:net";
import { Redis } from "@upstash/redis";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { consumer } from "../../src/config/consumer.ts";
import { type RunningRedis, redisServerAvailable, startEmbeddedRedis, startRedisServer } from "../../src/dev/redis.ts";
import { startUpstashBridge } from "../../src/dev/upstash-bridge.ts";
import type { Caller } from "../../src/policies/contract.ts";
import { compile, type RateLimitOptions, run } from "../../src/policies/rate-limit.ts";
import type { RouteTable } from "../../src/table/table.ts";
import { compileContext, type PolicyResult, startPolicy } from "../policies/exchange.ts";
import { isThere } from "../real-parts.ts";

const TOKEN = "a token for tests";
const HOUR = 3_600_000;
const table = { gateway: { store: { url: { env: "URL" }, token: { secret: "TOKEN" } } } } as unknown as RouteTable;
type Bridge = Awaited<ReturnType<typeof startUpstashBridge>>;

const ALGORITHMS = ["fixedWindow", "slidingWindow", "tokenBucket"] as const;
const BACKENDS = [
  { name: "redis-server", start: startRedisServer, available: isThere("redis-server", redisServerAvailable()) },
  { name: "js-redis-server", start: startEmbeddedRedis, available: true },
];

/** One policy in one isolate. `later` moves the isolate's own clock, not the one that the library reads. */
function limiter(url: string, options: RateLimitOptions, token = TOKEN) {
  const context = compileContext();
  // A machine that is busy with other tests is no outage.
  const config = compile({ timeout: "10s", ...options }, context);
  expect(context.problems).toEqual([]);
  let skew = 0;
  const policy = startPolicy(run, config, { table, env: { URL: url, TOKEN: token }, now: () => Date.now() + skew });
  const take = (caller?: Partial<Caller>): Promise<PolicyResult> =>
    policy(new Request("https://api.example.com/"), {
      ...(caller && { caller: { subject: "", scopes: [], claims: {}, ...caller } }),
    });
  return { take, later: (ms: number) => void (skew += ms) };
}

type Limiter = ReturnType<typeof limiter>;

const settled = async (results: readonly PolicyResult[]) => {
  await Promise.all(results.map(({ background }) => background));
  return results;
};
const burst = async (limit: Limiter, count = 50) =>
  settled(await Promise.all(Array.from({ length: count }, () => limit.take())));
const inTurn = async (limit: Limiter, count: number) => {
  const results: PolicyResult[] = [];
  for (let i = 0; i < count; i++) results.push(...(await settled([await limit.take()])));
  return results;
};
const statuses = (results: readonly PolicyResult[]) => results.map(({ response }) => response.status);
const admitted = (results: readonly PolicyResult[]) => results.filter(({ passed }) => passed).length;
const edit = ({ exchange }: PolicyResult, name: string) =>
  exchange.responseEdits.find((candidate) => candidate.name === name)?.value;
const facts = ({ exchange }: PolicyResult) => exchange.record.policies[0]?.facts;

beforeEach(() => {
  // Well within an hour and a day, so that no test runs into the end of its window.
  vi.useFakeTimers({ toFake: ["Date"], now: Date.UTC(2026, 10, 23, 6, 15) });
});
afterEach(() => {
  vi.useRealTimers();
});

for (const backend of BACKENDS) {
  describe.skipIf(!backend.available)(`limits counted in ${backend.name}`, () => {
    let server: RunningRedis;
    let bridge: Bridge;
    let redis: Redis;
    const start = (options: RateLimitOptions) => limiter(bridge.url, options);

    beforeAll(async () => {
      server = await backend.start();
      bridge = await startUpstashBridge({ redis: server, token: TOKEN });
      redis = new Redis({ url: bridge.url, token: TOKEN, enableTelemetry: false });
    });
    beforeEach(async () => {
      await redis.flushall();
    });
    afterAll(async () => {
      await bridge?.close();
      await server?.close();
    });

    const stored = async (pattern = "*") => {
      const keys = (await redis.keys(pattern)).sort();
      return Promise.all(keys.map(async (key) => ({ key, value: await redis.get<number>(key) })));
    };

    for (const algorithm of ALGORITHMS) {
      describe(algorithm, () => {
        it("admits exactly N of 50 at once", async () => {
          for (const limit of [1, 7, 20, 49]) {
            const results = await burst(start({ limit, window: "1h", algorithm }));
            expect(statuses(results).sort()).toEqual([
              ...new Array(limit).fill(200),
              ...new Array(50 - limit).fill(429),
            ]);
          }
        });

        it("admits exactly what the cost leaves room for", async () => {
          const results = await burst(start({ limit: 20, window: "1h", algorithm, cost: 6 }));
          expect(admitted(results)).toBe(3);
        });

        it("counts down to zero", async () => {
          const results = await inTurn(start({ limit: 3, window: "1h", algorithm }), 4);
          const left = results.map((result) => edit(result, "ratelimit")?.match(/^"default";r=(\d+);t=\d+$/)?.[1]);
          expect(left).toEqual(["2", "1", "0", "0"]);
          expect(results[3]?.response.headers.get("retry-after")).toBe(
            { fixedWindow: "2700", slidingWindow: "2701", tokenBucket: "1200" }[algorithm],
          );
        });

        it("admits again when Retry-After says so, and not a second before", async () => {
          const limit = start({ limit: 3, window: "1h", algorithm });
          const wait = Number((await inTurn(limit, 4)).at(-1)?.response.headers.get("retry-after")) * 1_000;
          vi.setSystemTime(Date.now() + wait - 1_001);
          expect(admitted(await burst(limit))).toBe(0);
          vi.setSystemTime(Date.now() + 1_001);
          expect(admitted(await burst(limit))).toBe({ fixedWindow: 3, slidingWindow: 1, tokenBucket: 1 }[algorithm]);
        });

        it("leaves nothing in the store for ever", async () => {
          const windows = [
            { limit: 2, window: "1m" },
            { limit: 3, window: "1h" },
          ];
          await burst(start({ windows, algorithm }), 10);
          const keys = await redis.keys("*");
          expect(keys).toHaveLength(2);
          for (const key of keys) {
            expect(key).toMatch(/^limit:orders\/list:1[mh]:/);
            expect(await redis.pttl(key)).toBeGreaterThan(0);
          }
        });

        it("holds several windows at once, and charges none for what another refused", async () => {
          const windows = [
            { limit: 10, window: "1h" },
            { limit: 15, window: "1d" },
          ];
          const limit = start({ windows, algorithm });
          expect(admitted(await burst(limit))).toBe(10);
          const [last] = await inTurn(limit, 1);
          expect(edit(last as PolicyResult, "ratelimit-policy")).toBe('"1h";q=10;w=3600, "1d";q=15;w=86400');
          expect(last?.exchange.record.limits?.map(({ remaining }) => remaining)).toEqual([0, 4]);
          // The next hour, whose ten find five left for the day; a sliding window's hour still counts half of the last one.
          vi.setSystemTime(Date.now() + 1.25 * HOUR);
          expect(admitted(await burst(limit))).toBe(5);
        });
      });
    }

    it("a sliding window counts the last one by its share, and no refusals", async () => {
      const limit = start({ limit: 10, window: "1h", cost: 2 });
      expect(admitted(await inTurn(limit, 20))).toBe(5);
      expect((await stored()).map(({ value }) => value)).toEqual([5]);
      // Half of the last window is still in sight: floor(5 / 2) of its requests.
      vi.setSystemTime(Date.now() + 1.25 * HOUR);
      expect(admitted(await inTurn(limit, 20))).toBe(3);
    });

    it("a token bucket fills evenly, up to its burst", async () => {
      const limit = start({ limit: 60, window: "1m", algorithm: "tokenBucket", burst: 90 });
      expect(admitted(await burst(limit, 100))).toBe(90);
      for (const seconds of [1, 2, 5]) {
        vi.setSystemTime(Date.now() + seconds * 1_000);
        expect(admitted(await burst(limit, 20))).toBe(seconds);
      }
      vi.setSystemTime(Date.now() + HOUR);
      expect(admitted(await burst(limit, 100))).toBe(90);
    });

    it.each(["fixedWindow", "tokenBucket"] as const)("a %s that is shared takes different costs", async (algorithm) => {
      const options = { limit: 10, window: "1h", algorithm, shared: "all" } as const;
      const [cheap, dear] = [start(options), start({ ...options, cost: 6 })];
      expect(statuses(await inTurn(dear, 3))).toEqual([200, 429, 429]);
      // The refused ones took nothing that a cheaper one could use.
      expect(statuses(await inTurn(cheap, 5))).toEqual([200, 200, 200, 200, 429]);
    });

    it("consumers have their own limits, others the general one", async () => {
      const [shop, press] = ["shop", "press"].map((name) => consumer(name, { claims: {} }));
      const limit = start({
        limit: 2,
        window: "1h",
        per: "consumer",
        consumers: [
          [shop as never, 4],
          [press as never, { limit: 1, window: "1d" }],
        ],
      });
      const take = async (caller: Partial<Caller>) => {
        const results = [];
        for (let i = 0; i < 6; i++) results.push(await limit.take(caller));
        return admitted(results);
      };
      expect(await take({ consumer: "shop" })).toBe(4);
      expect(await take({ consumer: "press" })).toBe(1);
      expect(await take({ consumer: "other" })).toBe(2);
      expect(await take({ subject: "ann" })).toBe(2);
      expect(await take({ subject: "bob" })).toBe(2);
    });

    it("a report counts, and refuses nothing", async () => {
      const context = compileContext();
      const config = compile({ limit: 2, window: "1h" }, context);
      const policy = startPolicy(run, config, { table, env: { URL: bridge.url, TOKEN }, mode: "report" });
      const verdicts = [];
      for (let i = 0; i < 3; i++) {
        const { exchange } = await policy(new Request("https://api.example.com/"));
        verdicts.push(exchange.record.policies[0]?.verdict);
      }
      expect(verdicts).toEqual(["pass", "pass", "would-deny"]);
    });

    it("a wrong token is a failure of the store, not a limit", async () => {
      const result = await limiter(bridge.url, { limit: 1, window: "1h", onStoreFailure: "closed" }, "wrong").take();
      expect(result.response.status).toBe(503);
      expect(facts(result)).toMatchObject({ why: "WRONGPASS invalid or missing auth token" });
    });
  });

  describe.skipIf(!backend.available)(`when ${backend.name} goes away`, () => {
    it.each([
      ["open", [200, 200, 200, 200], [200, 200, 429]],
      ["closed", [503, 503, 503, 503], [200, 200, 429]],
      ["local", [200, 200, 429, 429], [200, 200, 429]],
    ] as const)("%s is what happens, until it is back by itself", async (onStoreFailure, away, back) => {
      let server = await backend.start();
      const bridge = await startUpstashBridge({ redis: server, token: TOKEN });
      try {
        const limit = limiter(bridge.url, { limit: 2, window: "1d", onStoreFailure });
        expect(statuses(await inTurn(limit, 3))).toEqual([200, 200, 429]);

        await server.close();
        const during = await inTurn(limit, 4);
        expect(statuses(during)).toEqual(away);
        expect(facts(during[0] as PolicyResult)).toMatchObject({ store: "failed", fallback: onStoreFailure });
        expect(during.slice(1).map((result) => facts(result)?.why)).toEqual(["paused", "paused", "paused"]);

        // A new Redis, as empty as one without persistence is; the scripts are gone as well.
        server = await backend.start({ port: server.port });
        await vi.waitFor(
          async () => {
            limit.later(31_000);
            const [probe] = await inTurn(limiter(bridge.url, { limit: 9, window: "1h", name: "probe" }), 1);
            expect(facts(probe as PolicyResult)).toBeUndefined();
          },
          { timeout: 10_000, interval: 50 },
        );
        const after = await inTurn(limit, 3);
        expect(statuses(after)).toEqual(back);
        expect(after.map(facts)).toEqual([undefined, undefined, undefined]);
      } finally {
        await bridge.close();
        await server.close();
      }
    });
  });
}

describe("a store that holds the connection and says nothing", () => {
  it("costs one timeout, is called off, and is used again when it answers", async () => {
    const server = await (redisServerAvailable() ? startRedisServer() : startEmbeddedRedis());
    const bridge = await startUpstashBridge({ redis: server, token: TOKEN });
    let silent = false;
    let calledOff = 0;
    let asked = 0;
    const proxy = createServer((request, response) => {
      asked += 1;
      if (silent) response.on("close", () => void (calledOff += 1));
      else {
        const { url, method, headers } = request;
        const onward = httpRequest(new URL(url ?? "/", bridge.url), { method, headers } as never, (answer) => {
          response.writeHead(answer.statusCode ?? 500, answer.headers);
          answer.pipe(response);
        });
        request.pipe(onward);
      }
    });
    await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
    try {
      const url = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
      const limit = limiter(url, { limit: 1_000, window: "1h", timeout: "1s" });
      expect((await inTurn(limit, 1)).map(facts)).toEqual([undefined]);
      asked = 0;
      silent = true;
      const started = performance.now();
      const during = await inTurn(limit, 20);
      expect(performance.now() - started).toBeLessThan(5_000);
      expect(during.map((result) => facts(result)?.why)).toEqual(["timeout", ...new Array(19).fill("paused")]);
      await vi.waitFor(() => expect([asked, calledOff]).toEqual([1, 1]));
      silent = false;
      limit.later(1_000);
      // The first one finds out.
      expect((await inTurn(limit, 2)).map((result) => facts(result)?.why)).toEqual(["paused", undefined]);
    } finally {
      proxy.closeAllConnections();
      proxy.close();
      await bridge.close();
      await server.close();
    }
  });
});
