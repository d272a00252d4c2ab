/** Leased limits: several gateways, each a process with an isolate of its own, in front of one Redis. */
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Answer, ask } from "./client.ts";
import { describeWithRealParts, Fixture, secrets } from "./fixture.ts";
import type { Gateway } from "./gateway.ts";
import { until } from "./process.ts";

const LIMIT = 1_000;
// Windows of a day, so that none turns while a test runs, and little flows into a bucket.
const ROUTES = `
const leased = (options) => rateLimit({ per: { header: "x-key" }, limit: ${LIMIT}, window: "1d", timeout: "10s", count: "leased", ...options });
const lost = (onStoreFailure) => leased({ limit: 50, timeout: "500ms", onStoreFailure });
const to = origin;
export default gateway(settings, [
  api("limits", {}, [
    route("fixed", { path: "/fixed" }, { policies: [leased({ algorithm: "fixedWindow" })], to }),
    route("sliding", { path: "/sliding" }, { policies: [leased({ algorithm: "slidingWindow" })], to }),
    route("bucket", { path: "/bucket" }, { policies: [leased({ algorithm: "tokenBucket" })], to }),
    route("month", { path: "/month" }, { policies: [leased({ window: "month" })], to }),
    route("seconds", { path: "/seconds" }, { policies: [leased({ algorithm: "fixedWindow", window: "1s", limit: 200 })], to }),
    route("open", { path: "/open" }, { policies: [lost("open")], to }),
    route("closed", { path: "/closed" }, { policies: [lost("closed")], to }),
    route("local", { path: "/local" }, { policies: [lost("local")], to }),
  ]),
]);`;

describeWithRealParts("a leased limit", () => {
  let on: Fixture;
  const gateways: Gateway[] = [];
  beforeAll(async () => {
    on = await Fixture.start({ routes: ROUTES });
    gateways.push(on.gateway, ...(await Promise.all([1, 2, 3].map(() => on.another(ROUTES)))));
  });
  afterAll(async () => {
    await Promise.all(gateways.slice(1).map((gateway) => gateway.close()));
    await on?.close();
  });

  const askAt = (gateway: Gateway, path: string, key: string) => ask(gateway.port, path, { headers: { "x-key": key } });

  /** Scripts that Redis has run. */
  async function calls(): Promise<number> {
    const { result } = (await on.redisCommand(["INFO", "commandstats"])) as { result: string };
    return [...result.matchAll(/cmdstat_eval(?:sha)?:calls=(\d+)/g)].reduce((sum, [, count]) => sum + Number(count), 0);
  }

  /** Eight clients at each gateway, each asking that often, one after the other. */
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

  const count = (answers: readonly Answer[], status: number) => answers.filter((answer) => answer.status === status).length;

  it.each(["/fixed", "/sliding", "/bucket", "/month"])(
    "admits at most what it says and 97 %% of it, at a twentieth of the calls, at %s",
    async (path) => {
      const before = await calls();
      const arrived = on.origin.arrivedAt(path).length;
      const answers = await crowd(path, randomUUID(), 100);
      const used = (await calls()) - before;
      const admitted = count(answers, 200);
      console.log(path, admitted, used, answers.length);
      expect(admitted + count(answers, 429)).toBe(answers.length);
      expect(on.origin.arrivedAt(path).length - arrived).toBe(admitted);
      expect(admitted).toBeLessThanOrEqual(LIMIT);
      expect(admitted).toBeGreaterThanOrEqual(0.97 * LIMIT);
      expect(used).toBeLessThan(answers.length / 20);
    },
  );
});
