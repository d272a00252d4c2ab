/** The scripts of leased limits, months and caps on what is under way, in real Redis servers. */
import fc from "fast-check";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type RunningRedis, redisServerAvailable, startEmbeddedRedis, startRedisServer } from "../../src/dev/redis.ts";
import { startUpstashBridge } from "../../src/dev/upstash-bridge.ts";
import * as concurrency from "../../src/policies/concurrency.ts";
import {
  type Ask,
  argumentsOf,
  type Grant,
  grantOf,
  limitScript,
  type UnitRule,
} from "../../src/policies/limit-script.ts";
import { LimitStore } from "../../src/policies/limit-store.ts";
import * as rateLimit from "../../src/policies/rate-limit.ts";
import type { RouteTable } from "../../src/table/table.ts";
import { compileContext, type PolicyResult, startPolicy } from "../policies/exchange.ts";
import { isThere } from "../real-parts.ts";
import { LimitModel } from "../simulation/limit-model.ts";

const TOKEN = "a token for tests";
const DAY = 86_400_000;
const table = { gateway: { store: { url: { env: "URL" }, token: { secret: "TOKEN" } } } } as unknown as RouteTable;
const ALGORITHMS = ["fixedWindow", "slidingWindow", "tokenBucket"] as const;
const BACKENDS = [
  { name: "redis-server", start: startRedisServer, available: isThere("redis-server", redisServerAvailable()) },
  { name: "js-redis-server", start: startEmbeddedRedis, available: true },
];
const NOTHING: Ask = { need: 0, want: 0, charge: 0, back: 0, window: 0 };

for (const backend of BACKENDS) {
  describe.skipIf(!backend.available)(`in ${backend.name}`, () => {
    let server: RunningRedis;
    let bridge: Awaited<ReturnType<typeof startUpstashBridge>>;
    const command = async (...words: (string | number)[]) => {
      const headers = { authorization: `Bearer ${TOKEN}` };
      const response = await fetch(bridge.url, { method: "POST", headers, body: JSON.stringify(words) });
      return ((await response.json()) as { result: unknown }).result;
    };

    beforeAll(async () => {
      server = await backend.start();
      bridge = await startUpstashBridge({ redis: server, token: TOKEN });
    });
    beforeEach(async () => {
      await command("FLUSHALL");
    });
    afterAll(async () => {
      await bridge?.close();
      await server?.close();
    });

    async function run(rule: UnitRule, asks: readonly Ask[], now = Date.now()) {
      const store = new LimitStore(bridge.url, TOKEN, () => Date.now());
      const calls = asks.map((ask) => ({ key: "key", args: argumentsOf(rule, ask, now) }));
      const grants = await store.run(limitScript, calls, grantOf, 10_000);
      if ("failure" in grants) throw new Error(grants.failure);
      return grants;
    }

    it("the script counts as its model does", async () => {
      const units = fc.oneof(fc.constant(0), fc.nat(5), fc.nat(1_000));
      const steps = fc.array(fc.record({ need: units, more: units, charge: units, back: units }), {
        minLength: 1,
        maxLength: 20,
      });
      await fc.assert(
        fc.asyncProperty(
          fc.constantFrom(...ALGORITHMS),
          fc.integer({ min: 1, max: 2_000 }),
          fc.boolean(),
          steps,
          async (algorithm, quota, monthly, steps) => {
            await command("FLUSHALL");
            // So long that nothing flows in meanwhile.
            const window = algorithm === "tokenBucket" ? 1e12 : DAY;
            const calendar = monthly && algorithm === "fixedWindow" && { calendar: "month" as const };
            const rule: UnitRule = { algorithm, quota, window, ...calendar };
            const model = new LimitModel();
            model.now = Date.now();
            const first = model.run("other", argumentsOf(rule, NOTHING, model.now));
            const asks = steps.map(({ need, more, charge, back }) => ({
              ...{ need: Math.min(need, quota), want: need + more, charge, back, window: first.window },
            }));
            const grants = await run(rule, asks);
            const pure = ({ granted, room }: { granted: number; room: number }) => ({ granted, room });
            expect(grants.map(pure)).toEqual(
              asks.map((ask) => pure(model.run("key", argumentsOf(rule, ask, model.now)))),
            );
          },
        ),
        { numRuns: 40 },
      );
    });

    it("windows turn, buckets fill and keys expire by its own clock", async () => {
      const second = 1_000;
      const started = Date.now();
      for (const algorithm of ALGORITHMS) {
        const rule: UnitRule = { algorithm, quota: 50, window: second };
        const [all] = (await run(rule, [{ ...NOTHING, need: 50, want: 50 }])) as [Grant];
        expect(all.granted).toBe(50);
        expect(all.life).toBeLessThanOrEqual(algorithm === "tokenBucket" ? 100 : second);
        const ttl = Number(await command("PTTL", "key"));
        expect(ttl).toBeGreaterThan(0);
        expect(ttl).toBeLessThanOrEqual(2 * second + 200);
        await command("DEL", "key");
      }
      const fixed: UnitRule = { algorithm: "fixedWindow", quota: 5, window: second };
      const taken: number[] = [];
      while (Date.now() - started < 2_500) {
        const [grant] = (await run(fixed, [{ ...NOTHING, need: 1, want: 1 }], 0)) as [Grant];
        if (grant.granted > 0) taken.push(grant.window);
      }
      for (const window of new Set(taken)) expect(taken.filter((one) => one === window).length).toBeLessThanOrEqual(5);
      expect(new Set(taken).size).toBeGreaterThanOrEqual(2);
    });

    it("refuses to guess a month when clocks are far apart", async () => {
      const rule: UnitRule = { algorithm: "fixedWindow", quota: 5, window: 31 * DAY, calendar: "month" };
      const ask = { ...NOTHING, need: 1, want: 1 };
      await expect(run(rule, [ask], Date.UTC(2001, 0))).rejects.toThrow("more than a month apart");
    });

    function isolate<Options>(
      policy: { compile: (options: Options, context: ReturnType<typeof compileContext>) => unknown; run: unknown },
      options: Options,
      more = {},
    ) {
      const context = compileContext();
      const config = policy.compile(options, context);
      expect(context.problems).toEqual([]);
      const env = { URL: bridge.url, TOKEN };
      const request = startPolicy(policy.run as typeof rateLimit.run, config as rateLimit.RateLimitConfig, {
        table,
        env,
        ...more,
      });
      return async (): Promise<PolicyResult> => {
        const result = await request(new Request("https://api.example.com/"));
        await result.background;
        return result;
      };
    }

    it.each(ALGORITHMS)(
      "leases of several isolates admit no more than the limit, and nearly that: %s",
      async (algorithm) => {
        const options = { limit: 100, window: "1d", algorithm, count: "leased", timeout: "10s" } as const;
        const isolates = [1, 2, 3].map(() => isolate(rateLimit, options));
        const results = await Promise.all(
          isolates.map(async (request) => {
            const own: PolicyResult[] = [];
            for (let i = 0; i < 60; i++) own.push(await request());
            return own;
          }),
        );
        const admitted = results.flat().filter(({ passed }) => passed).length;
        expect(admitted).toBeLessThanOrEqual(100);
        expect(admitted).toBeGreaterThanOrEqual(97);
        const [key] = (await command("KEYS", "*")) as string[];
        expect(key).toMatch(/^limit:orders\/list:default:units-/);
        expect(Number(await command("PTTL", key as string))).toBeGreaterThan(0);
      },
    );

    it("a month is counted exactly, too", async () => {
      const request = isolate(rateLimit, { limit: 3, window: "month", timeout: "10s" });
      const statuses = [];
      for (let i = 0; i < 5; i++) statuses.push((await request()).response.status);
      expect(statuses).toEqual([200, 200, 200, 429, 429]);
    });

    it("a cap counts what is under way, and what has left no more", async () => {
      const options = { limit: 2, until: "headers", expiry: "300ms", timeout: "10s" } as const;
      let letGo = () => {};
      const held = new Promise<void>((resolve) => {
        letGo = resolve;
      });
      const origin = async () => {
        await held;
        return new Response("");
      };
      const slow = isolate(concurrency, options, { origin });
      const quick = isolate(concurrency, options);
      const underWay = [slow(), slow()];
      while (Number(await command("ZCARD", "concurrency:orders/list:default:client=192.0.2.1")) < 2);
      expect((await quick()).response.status).toBe(429);
      // Who never says that it has left counts until the entry expires.
      await new Promise((resolve) => setTimeout(resolve, 350));
      expect((await quick()).response.status).toBe(200);
      letGo();
      await Promise.all(underWay);
      expect(await command("KEYS", "*")).toEqual([]);
    });
  });
}
