/**
 * What a dead Redis costs those who wait: nobody longer than one timeout, though a request passes four policies that ask the store, and
 * nobody at all once one of them has failed. Redis is stopped first, so that it answers nothing and refuses nothing, and then killed.
 */
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "@upstash/redis";
import { afterAll, beforeAll, expect, it } from "vitest";
import { createKey } from "../../src/admin/keys.ts";
import { describeWithRealParts, Fixture, secrets } from "./fixture.ts";
import { until } from "./process.ts";

const TIMEOUT = 1_000;
// Far from 0 and from TIMEOUT: a busy machine is not to be taken for a wait.
const NO_WAIT = 700;

const ROUTES = `
import { apiKey } from "portcullis";
const store = { timeout: "${TIMEOUT}ms", onStoreFailure: "local" };
const limit = (name, options) => rateLimit({ name, per: { header: "x-key" }, limit: 1000, window: "1d", ...store, ...options });
export default gateway(settings, [
  api("all", { policies: [apiKey({ timeout: "${TIMEOUT}ms", maxAge: "1s", grace: "1h" })] }, [
    route("four", { path: "/four" }, { to: origin, policies: [
      limit("exact"), limit("leased", { count: "leased" }), concurrency({ per: { header: "x-key" }, limit: 100, ...store })] }),
  ]),
]);`;

interface Timed {
  readonly begun: number;
  readonly ms: number;
  readonly status: number;
  /** Why the policies that ask the store say that it failed. */
  readonly why: readonly unknown[];
}

describeWithRealParts("a dead store", () => {
  let on: Fixture;
  beforeAll(async () => {
    on = await Fixture.start({ routes: ROUTES });
  });
  afterAll(() => on?.close());

  async function ask(key: string): Promise<Timed> {
    const begun = performance.now();
    const answer = await on.ask("/four", { headers: { "x-api-key": key, "x-key": randomUUID() } });
    const ms = performance.now() - begun;
    const { policies } = await on.gateway.recordOf(answer);
    const why = policies.flatMap(({ facts }) => (facts?.store === "failed" ? [facts.why] : []));
    return { begun, ms, status: answer.status, why };
  }

  it("costs the requests under way one timeout, and no later one anything", async () => {
    const redis = new Redis({
      url: on.storeUrl,
      token: secrets.store,
      enableTelemetry: false,
      automaticDeserialization: false,
    });
    const { key } = await createKey(redis, "key", { consumer: "partner" });
    await until("all is well", async () => {
      const { status, why } = await ask(key);
      return status === 200 && why.length === 0;
    });

    const { result: info } = (await on.redisCommand(["INFO", "server"])) as { result: string };
    process.kill(Number(/process_id:([0-9]+)/.exec(info)?.[1]), "SIGSTOP");
    const seen: Timed[] = [];
    let stop = false;
    const clients = Array.from({ length: 6 }, async () => {
      while (!stop) {
        seen.push(await ask(key));
        await sleep(20);
      }
    });
    // The first timeout, a pause of 1 s, a trial that times out, and a part of the next pause.
    await sleep(3 * TIMEOUT + 500);
    await on.killRedis();
    await sleep(500);
    stop = true;
    await Promise.all(clients);

    expect(new Set(seen.map(({ status }) => status))).toEqual(new Set([200]));
    expect(seen.length).toBeGreaterThan(100);
    const slow = seen.filter(({ ms }) => ms >= NO_WAIT);
    const waited = seen.filter(({ why }) => why.includes("timeout"));
    expect(waited.length).toBeGreaterThan(0);
    // One timeout in all for who passes four policies, and not one more of them than were under way.
    expect(Math.max(...seen.map(({ ms }) => ms))).toBeLessThan(TIMEOUT + NO_WAIT);
    for (const { why } of waited) expect(why.filter((one) => one === "timeout")).toHaveLength(1);
    expect(waited.length).toBeLessThanOrEqual(clients.length);
    const opened = Math.min(...waited.map(({ begun, ms }) => begun + ms));
    expect(slow.filter(({ begun }) => begun > opened)).toEqual([]);

    await on.startRedis();
    // It comes back empty, so the key is unknown.
    await until("the store is asked again", async () => (await ask(key)).status === 401, 20_000);
  });
});
