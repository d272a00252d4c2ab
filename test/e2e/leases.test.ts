/** Leased limits: several gateways, each a process with an isolate of its own, in front of one Redis. */
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Answer, ask } from "./client.ts";
import { describeWithRealParts, Fixture, secrets } from "./fixture.ts";
import type { Gateway } from "./gateway.ts";
import { until } from "./process.ts";

const LIMIT = 500;
// Windows of a day and a month, so that none turns while a test runs, and that little flows into a bucket.
const ROUTES = `
const leased = (options) => rateLimit({ per: { header: "x-key" }, limit: ${LIMIT}, window: "1d", timeout: "10s", count: "leased", ...options });
const lost = (onStoreFailure) => leased({ limit: 50, timeout: "400ms", onStoreFailure });
const to = origin;
export default gateway(settings, [
  api("limits", {}, [
    route("fixed", { path: "/fixed" }, { policies: [leased({ algorithm: "fixedWindow" })], to }),
    route("sliding", { path: "/sliding" }, { policies: [leased({ algorithm: "slidingWindow" })], to }),
    route("bucket", { path: "/bucket" }, { policies: [leased({ algorithm: "tokenBucket" })], to }),
    route("month", { path: "/month" }, { policies: [leased({ window: "month" })], to }),
    route("two", { path: "/two" }, { policies: [rateLimit({ per: { header: "x-key" }, count: "leased", timeout: "10s",
      windows: [{ limit: 100, window: "day" }, { limit: 150, window: "month" }] })], to }),
    route("seconds", { path: "/seconds" }, { policies: [leased({ algorithm: "fixedWindow", window: "1s", limit: 100 })], to }),
    route("costs", { path: "/costs" }, { policies: [leased({ limit: 100, cost: { header: "x-cost" } })], to }),
    route("exact-costs", { path: "/exact-costs" }, { policies: [leased({ limit: 100, cost: { header: "x-cost" }, count: "exact" })], to }),
    route("open", { path: "/open" }, { policies: [lost("open")], to }),
    route("closed", { path: "/closed" }, { policies: [lost("closed")], to }),
    route("local", { path: "/local" }, { policies: [lost("local")], to }),
  ]),
]);`;

describeWithRealParts("a leased limit", () => {
  let on: Fixture;
  let gateways: Gateway[];
  beforeAll(async () => {
    on = await Fixture.start({ routes: ROUTES });
    gateways = [on.gateway, ...(await Promise.all([1, 2, 3].map(() => on.another(ROUTES))))];
  });
  afterAll(async () => {
    await Promise.all(gateways?.slice(1).map((gateway) => gateway.close()) ?? []);
    await on?.close();
  });

  const askAt = (gateway: Gateway, path: string, key: string) => ask(gateway.port, path, { headers: { "x-key": key } });

  /** Eight clients at each gateway, each asking that often, one request after the other. */
  async function crowd(path: string, key: string, each: number, at: readonly Gateway[] = gateways): Promise<Answer[]> {
    const answers = at.flatMap((gateway) =>
      Array.from({ length: 8 }, async () => {
        const own: Answer[] = [];
        for (let i = 0; i < each; i++) own.push(await askAt(gateway, path, key));
        return own;
      }),
    );
    return (await Promise.all(answers)).flat();
  }

  const count = (answers: readonly Answer[], status: number) =>
    answers.filter((answer) => answer.status === status).length;

  /** Scripts that Redis has run. */
  async function calls(): Promise<number> {
    const { result } = (await on.redisCommand(["INFO", "commandstats"])) as { result: string };
    return [...result.matchAll(/cmdstat_eval(?:sha)?:calls=(\d+)/g)].reduce((sum, [, ran]) => sum + Number(ran), 0);
  }

  it.each(["/fixed", "/sliding", "/bucket", "/month"])(
    "%s admits no more than it says, nearly all of that, and costs less than a call per 20 requests",
    async (path) => {
      const before = await calls();
      const answers = await crowd(path, randomUUID(), 50);
      const used = (await calls()) - before;
      const admitted = count(answers, 200);
      expect(admitted + count(answers, 429)).toBe(answers.length);
      expect(on.origin.arrivedAt(path)).toHaveLength(admitted);
      expect(admitted).toBeLessThanOrEqual(LIMIT);
      expect(admitted).toBeGreaterThanOrEqual(0.97 * LIMIT);
      expect(used).toBeLessThan(answers.length / 20);
    },
  );

  it("holds all of its windows", async () => {
    const admitted = count(await crowd("/two", randomUUID(), 10), 200);
    expect(admitted).toBeLessThanOrEqual(100);
    expect(admitted).toBeGreaterThanOrEqual(97);
  });

  it("costs a key that is asked for once one call", async () => {
    const before = await calls();
    for (const gateway of gateways) expect((await askAt(gateway, "/fixed", randomUUID())).status).toBe(200);
    expect((await calls()) - before).toBe(gateways.length);
  });

  it("holds window after window, by the clock of Redis", async () => {
    const key = randomUUID();
    let stop = false;
    const clients = gateways.flatMap((gateway) =>
      [1, 2].map(async () => {
        while (!stop) {
          const { status, headers } = await askAt(gateway, "/seconds", key);
          if (status === 429) expect(headers["retry-after"]).toBe("1");
        }
      }),
    );
    const windows = () => {
      const counted = new Map<number, { admitted: number; refused: number }>();
      for (const { time, path, status } of gateways.flatMap(({ records }) => records)) {
        if (path !== "/seconds") continue;
        const window = Math.floor(Date.parse(time) / 1_000);
        const counts = counted.get(window) ?? { admitted: 0, refused: 0 };
        counts[status === 200 ? "admitted" : "refused"]++;
        counted.set(window, counts);
      }
      // A request may begin in one window and be counted in the next.
      return [...counted].sort(([a], [b]) => a - b).slice(1, -1);
    };
    // On a busy machine there are seconds in which fewer ask than may pass.
    const full = () => windows().filter(([, { refused }]) => refused > 8);
    for (let seconds = 0; seconds < 20 && full().length < 2; seconds++) await sleep(1_000);
    stop = true;
    await Promise.all(clients);
    expect(full().length).toBeGreaterThanOrEqual(2);
    for (const [, { admitted }] of windows()) expect(admitted).toBeLessThanOrEqual(100 + 8);
    for (const [, { admitted }] of full()) expect(admitted).toBeGreaterThanOrEqual(97 - 8);
  });

  it("loses what a gateway that dies has taken, and nothing else", async () => {
    const key = randomUUID();
    const doomed = await on.another(ROUTES);
    const at = [on.gateway, gateways[1] as Gateway];
    const first = crowd("/fixed", key, 4, [doomed]);
    const before = count(await first, 200);
    await doomed.close();
    const admitted = before + count(await crowd("/fixed", key, 40, at), 200);
    expect(before).toBe(32);
    expect(admitted).toBeLessThanOrEqual(LIMIT);
    // A block is at most a quarter of what is left.
    expect(admitted).toBeGreaterThanOrEqual(LIMIT - LIMIT / 4);
  });

  it("tells what is left, and when to come again", async () => {
    const key = randomUUID();
    const first = await askAt(on.gateway, "/fixed", key);
    expect(first.headers["ratelimit-policy"]).toBe(`"default";q=${LIMIT};w=86400`);
    expect(first.headers.ratelimit).toMatch(new RegExp(`^"default";r=${LIMIT - 1};t=[1-9][0-9]*$`));
    await crowd("/fixed", key, 80, [on.gateway]);
    const refused = await askAt(on.gateway, "/fixed", key);
    expect([refused.status, refused.json().code]).toEqual([429, "rate-limited"]);
    expect(refused.headers.ratelimit).toMatch(/^"default";r=0;t=[1-9][0-9]*$/);
    expect(Number(refused.headers["retry-after"])).toBeLessThanOrEqual(86_400);
    expect(await on.gateway.recordOf(refused)).toMatchObject({ reason: "rate-limited", limits: [{ remaining: 0 }] });
    const month = await askAt(on.gateway, "/month", key);
    expect(month.headers["ratelimit-policy"]).toBe(`"default";q=${LIMIT}`);
    const now = new Date();
    const end = Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + 1) - now.getTime();
    const t = Number(/t=([0-9]+)$/.exec(String(month.headers.ratelimit))?.[1]);
    expect(Math.abs(t - end / 1_000)).toBeLessThan(10);
  });

  it.each(["/costs", "/exact-costs"])("takes the cost from the response, at %s", async (path) => {
    const key = randomUUID();
    const costing = async (cost: string | undefined) => {
      on.origin.on(path, (_, response) =>
        response.writeHead(200, cost === undefined ? {} : { "x-cost": cost }).end("dear"),
      );
      const answer = await askAt(on.gateway, path, key);
      // What is charged after the answer is charged in the background.
      await sleep(50);
      return answer;
    };
    expect((await costing("40")).headers.ratelimit).toMatch(/r=99;/);
    expect((await costing("0")).headers.ratelimit).toMatch(/r=59;/);
    expect((await costing(undefined)).headers.ratelimit).toMatch(/r=59;/);
    expect((await costing("nonsense")).headers.ratelimit).toMatch(/r=58;/);
    // More than is left: this one passes, and those after it pay.
    expect((await costing("70")).status).toBe(200);
    expect((await costing("1")).status).toBe(429);
    on.origin.off(path);
  });

  describe("without Redis", () => {
    it("spends what it holds, then does what is configured, and no request waits once that is known", async () => {
      const paths = ["/open", "/closed", "/local"] as const;
      const waits: number[] = [];
      const timed = async (path: string, key: string) => {
        const started = performance.now();
        const answer = await askAt(on.gateway, path, key);
        waits.push(performance.now() - started);
        return answer;
      };
      // Keys with blocks, and others.
      const held = randomUUID();
      await crowd("/closed", held, 2, [on.gateway]);
      await on.killRedis();
      expect((await timed("/closed", randomUUID())).status).toBe(503);
      // Some of the fifty are here.
      expect((await timed("/closed", held)).status).toBe(200);
      for (const [i, status] of [200, 503, 200].entries()) {
        expect((await timed(paths[i] as string, randomUUID())).status).toBe(status);
      }
      expect(Math.max(...waits)).toBeLessThan(400 + 600);

      // The breaker is open: for seconds, none waits, also when it is tried again.
      waits.length = 0;
      const started = Date.now();
      while (Date.now() - started < 2_500) {
        const answer = await timed("/closed", randomUUID());
        expect(answer.status).toBe(503);
        expect(answer.headers["retry-after"]).toMatch(/^[1-9]$/);
        expect((await timed("/local", randomUUID())).headers.ratelimit).toMatch(/r=49;/);
        await sleep(5);
      }
      expect(waits.length).toBeGreaterThan(50);
      expect(Math.max(...waits)).toBeLessThan(400);

      await on.startRedis();
      const key = randomUUID();
      await until("Redis is used again", async () => (await askAt(on.gateway, "/closed", key)).status === 200, 20_000);
    });

    it("does not wait for a Redis that holds the connection, either", async () => {
      // Lua holds Redis up for everybody.
      const busy = on.redisCommand([
        "EVAL",
        "local t = redis.call('TIME') local till = t[1] * 1e6 + t[2] + 3e6 repeat t = redis.call('TIME') until t[1] * 1e6 + t[2] > till",
        0,
      ]);
      await sleep(50);
      const waits: number[] = [];
      const timed = async () => {
        const started = performance.now();
        const { status } = await askAt(on.gateway, "/closed", randomUUID());
        waits.push(performance.now() - started);
        return status;
      };
      expect(await Promise.all(Array.from({ length: 20 }, timed))).toEqual(new Array(20).fill(503));
      expect(Math.min(...waits)).toBeGreaterThan(300);
      expect(Math.max(...waits)).toBeLessThan(400 + 1_100);
      waits.length = 0;
      for (let i = 0; i < 100; i++) {
        expect(await timed()).toBe(503);
        await sleep(10);
      }
      expect(Math.max(...waits)).toBeLessThan(400);
      await busy;
      const key = randomUUID();
      await until("Redis is used again", async () => (await askAt(on.gateway, "/closed", key)).status === 200, 20_000);
    });
  });

  it("leaves nothing for ever in Redis, no secret in the log and no header's value in Redis", async () => {
    await askAt(on.gateway, "/bucket", secrets.canary);
    expect(on.leaked()).toEqual([]);
    const { result: keys } = (await on.redisCommand(["KEYS", "*"])) as { result: string[] };
    expect(keys.length).toBeGreaterThan(0);
    expect(keys.join()).not.toContain(secrets.canary);
    for (const key of keys) {
      expect(((await on.redisCommand(["PTTL", key])) as { result: number }).result).toBeGreaterThan(0);
    }
  });
});
