/** Rate limits with a real Redis behind them: exact under concurrency, and as configured when Redis goes away. */
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Answer } from "./client.ts";
import { describeWithRealParts, Fixture, secrets } from "./fixture.ts";
import { until } from "./process.ts";

// Windows of a day, so that none turns while a test runs. Stores have time where the count matters, and none where their failure does.
const ROUTES = `
const limit = (options) => rateLimit({ per: { header: "x-key" }, limit: 20, window: "1d", timeout: "10s", ...options });
const lost = (onStoreFailure, limit = 1000) =>
  rateLimit({ per: { header: "x-key" }, limit, window: "1d", algorithm: "fixedWindow", onStoreFailure });
const to = origin;
export default gateway(settings, [
  api("limits", {}, [
    route("fixed", { path: "/fixed" }, { policies: [limit({ algorithm: "fixedWindow" })], to }),
    route("sliding", { path: "/sliding" }, { policies: [limit({ algorithm: "slidingWindow" })], to }),
    route("bucket", { path: "/bucket" }, { policies: [limit({ algorithm: "tokenBucket" })], to }),
    route("costly", { path: "/costly" }, { policies: [limit({ cost: 5, algorithm: "tokenBucket" })], to }),
    route("two", { path: "/two" }, { policies: [rateLimit({ per: { header: "x-key" }, timeout: "10s",
      windows: [{ limit: 10, window: "1h" }, { limit: 15, window: "1d" }] })], to }),
    route("person", { path: "/person" }, { policies: [token, rateLimit({ per: "consumer", limit: 3, window: "1d", timeout: "10s" })], to }),
    route("report", { path: "/report" }, { policies: [limit({ limit: 1, mode: "report" })], to }),
    route("open", { path: "/open" }, { policies: [lost("open")], to }),
    route("closed", { path: "/closed" }, { policies: [lost("closed")], to }),
    route("local", { path: "/local" }, { policies: [lost("local", 5)], to }),
  ]),
]);`;

describeWithRealParts("a rate limit", () => {
  let on: Fixture;
  beforeAll(async () => {
    on = await Fixture.start({ routes: ROUTES });
  });
  afterAll(() => on?.close());

  const ask = (path: string, key: string = randomUUID()) => on.ask(path, { headers: { "x-key": key } });

  /** `each` requests one after the other by each of 50 clients at once, all counted under one key. */
  async function crowd(path: string, each: number): Promise<Answer[]> {
    const key = randomUUID();
    const answers = await Promise.all(
      Array.from({ length: 50 }, async () => {
        const own: Answer[] = [];
        for (let i = 0; i < each; i++) own.push(await ask(path, key));
        return own;
      }),
    );
    return answers.flat();
  }

  const count = (answers: readonly Answer[], status: number) =>
    answers.filter((answer) => answer.status === status).length;

  it.each([
    ["/fixed", 20],
    ["/sliding", 20],
    ["/bucket", 20],
    ["/costly", 4],
    ["/two", 10],
  ])("admits exactly as many of 50 clients at once as it says, at %s", async (path, limit) => {
    const before = on.origin.arrivedAt(path).length;
    const answers = await crowd(path, 3);
    expect([count(answers, 200), count(answers, 429)]).toEqual([limit, 150 - limit]);
    expect(on.origin.arrivedAt(path).length - before).toBe(limit);
  });

  it.each([
    ["/fixed", '"default";q=20;w=86400', 86_400],
    ["/sliding", '"default";q=20;w=86400', 2 * 86_400],
    ["/bucket", '"default";q=20;w=86400', 4_320],
    ["/two", '"1h";q=10;w=3600, "1d";q=15;w=86400', 2 * 3_600],
  ])("tells what is left, and when to come again, at %s", async (path, policy, longest) => {
    const key = randomUUID();
    const limit = path === "/two" ? 10 : 20;
    for (let left = limit - 1; left >= 0; left--) {
      const { status, headers } = await ask(path, key);
      expect([status, headers["ratelimit-policy"]]).toEqual([200, policy]);
      expect(headers.ratelimit).toMatch(new RegExp(`^"[\\w]+";r=${left};t=[1-9][0-9]*`));
      expect(headers).not.toHaveProperty("retry-after");
    }
    const refused = await ask(path, key);
    expect([refused.status, refused.json().code]).toEqual([429, "rate-limited"]);
    expect(refused.headers["content-type"]).toBe("application/problem+json");
    expect(refused.headers["ratelimit-policy"]).toBe(policy);
    expect(refused.headers.ratelimit).toMatch(/^"\w+";r=0;t=[1-9][0-9]*/);
    expect(refused.headers["retry-after"]).toMatch(/^[1-9][0-9]*$/);
    expect(Number(refused.headers["retry-after"])).toBeLessThanOrEqual(longest);
    expect(await on.gateway.recordOf(refused)).toMatchObject({
      reason: "rate-limited",
      attempts: [],
      limits: [{ remaining: 0 }, {}].slice(0, path === "/two" ? 2 : 1),
    });
  });

  it("counts each caller, each key and each route by itself", async () => {
    const asking = async (sub: string, client_id?: string) =>
      (await on.ask("/person", { headers: await on.issuer.bearer({ sub, client_id }) })).status;
    for (let i = 0; i < 3; i++) expect(await asking("ann")).toBe(200);
    expect(await asking("ann")).toBe(429);
    expect(await asking("bob")).toBe(200);
    // A declared consumer is one caller, whoever uses it.
    for (const sub of ["ann", "bob", "cid"]) expect(await asking(sub, "storefront")).toBe(200);
    expect(await asking("dan", "storefront")).toBe(429);
  });

  it("in report mode lets everybody through and says whom it would not have", async () => {
    const key = randomUUID();
    const answers = [await ask("/report", key), await ask("/report", key)];
    expect(answers.map(({ status }) => status)).toEqual([200, 200]);
    const record = await on.gateway.recordOf(answers[1] as Answer);
    expect(record.policies).toMatchObject([{ policy: "rateLimit", verdict: "would-deny", reason: "rate-limited" }]);
  });

  describe("without Redis", () => {
    it("does what is configured, from the kill on, and recovers by itself", async () => {
      const spent = randomUUID();
      for (let i = 0; i < 5; i++) expect((await ask("/local", spent)).status).toBe(200);
      const paths = ["/open", "/closed", "/local"] as const;
      const seen = { "/open": [] as Answer[], "/closed": [] as Answer[], "/local": [] as Answer[] };
      let stop = false;
      const clients = paths.map(async (path) => {
        while (!stop) seen[path].push(await ask(path));
      });
      await until("all have answers", () => paths.every((path) => count(seen[path], 200) > 20));

      await on.killRedis();
      await until("closed is closed", () => count(seen["/closed"], 503) > 20);
      const during = await Promise.all([...paths, ...paths].map((path) => ask(path)));
      stop = true;
      await Promise.all(clients);
      // Each client has keys of its own, so nothing but the store can have refused one.
      expect(new Set(seen["/open"].map(({ status }) => status))).toEqual(new Set([200]));
      expect(new Set(seen["/local"].map(({ status }) => status))).toEqual(new Set([200]));
      expect(new Set(seen["/closed"].map(({ status }) => status))).toEqual(new Set([200, 503]));

      const [open, closed, local] = during as [Answer, Answer, Answer];
      expect(open.headers).not.toHaveProperty("ratelimit");
      expect(closed.json()).toMatchObject({ status: 503, code: "limiter-unavailable" });
      expect(closed.headers["retry-after"]).toMatch(/^[1-9][0-9]?$/);
      expect(closed.headers).not.toHaveProperty("ratelimit");
      expect(await on.gateway.recordOf(closed)).toMatchObject({ reason: "limiter-unavailable", attempts: [] });
      expect(local.headers.ratelimit).toMatch(/^"default";r=4;t=/);
      expect((await on.gateway.recordOf(local)).policies).toMatchObject([
        { policy: "rateLimit", verdict: "pass", facts: { store: "failed", fallback: "local" } },
      ]);
      // Local counting begins anew, and then holds as well.
      const key = randomUUID();
      const counted = [];
      for (let i = 0; i < 7; i++) counted.push((await ask("/local", key)).status);
      expect(counted).toEqual([200, 200, 200, 200, 200, 429, 429]);
      expect(await ask("/closed", spent)).toMatchObject({ status: 503 });

      await on.startRedis();
      await until("closed is open again", async () => (await ask("/closed")).status === 200, 20_000);
      // All of them are counted in Redis again: the local counters are not asked any more.
      const again = await ask("/local", key);
      expect([again.status, again.headers.ratelimit]).toEqual([200, expect.stringMatching(/^"default";r=4;t=/)]);
      expect((await ask("/open")).headers.ratelimit).toMatch(/^"default";r=999;t=/);
      const answers = await crowd("/fixed", 3);
      expect([count(answers, 200), count(answers, 429)]).toEqual([20, 130]);
    });

    it("does the same while Redis is late, without waiting for it", async () => {
      await until("Redis is asked again", async () => (await ask("/closed")).headers.ratelimit !== undefined, 20_000);
      // Lua holds Redis up for everybody.
      const busy = on.redisCommand([
        "EVAL",
        "local t = redis.call('TIME') local till = t[1] * 1e6 + t[2] + 2e6 repeat t = redis.call('TIME') until t[1] * 1e6 + t[2] > till",
        0,
      ]);
      let slowest = 0;
      const timed = async (path: string) => {
        const started = Date.now();
        const answer = await ask(path);
        slowest = Math.max(slowest, Date.now() - started);
        return answer;
      };
      const closed = await until("Redis is held up", async () => {
        const answer = await timed("/closed");
        return answer.status === 503 && answer;
      });
      expect([(await timed("/open")).status, (await timed("/local")).status]).toEqual([200, 200]);
      expect(slowest).toBeLessThan(1_000);
      expect(await on.gateway.recordOf(closed)).toMatchObject({
        policies: [{ verdict: "deny", facts: { store: "failed", why: "timeout", fallback: "closed" } }],
      });
      await busy;
      await until("closed is open again", async () => (await ask("/closed")).status === 200, 20_000);
    });
  });

  it("leaves no secret in the log, and no token or header value in Redis", async () => {
    expect(on.gateway.records.length).toBeGreaterThan(500);
    expect(on.leaked()).toEqual([]);
    const key = `${randomUUID()}-${secrets.canary}`;
    await ask("/fixed", key);
    const keys = JSON.stringify(await on.redisCommand(["KEYS", "*"]));
    expect(keys).toContain("limit:");
    expect(keys).not.toContain(secrets.canary);
  });
});
