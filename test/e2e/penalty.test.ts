/** Who keeps failing is kept out by all gateways that share a Redis. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { ask } from "./client.ts";
import { describeWithRealParts, Fixture } from "./fixture.ts";
import type { Gateway } from "./gateway.ts";
import { until } from "./process.ts";

const ROUTES = `
import { penaltyBox } from "portcullis";
export default gateway({ ...settings, trustedProxies: ["127.0.0.1"], policies: [requestId({}), penaltyBox({ failures: 5, block: "2s", window: "1h", timeout: "5s" })] }, [
  api("known", { policies: [token] }, [route("all", { path: "/*" }, { to: origin })]),
]);`;

describeWithRealParts("the penalty box", () => {
  let on: Fixture;
  let second: Gateway;
  beforeAll(async () => {
    on = await Fixture.start({ routes: ROUTES });
    second = await on.another(ROUTES);
  });
  afterAll(async () => {
    await second?.close();
    await on?.close();
  });

  const from = (address: string, authorization = `Bearer ${crypto.randomUUID()}`) => ({
    headers: { authorization, "cf-connecting-ip": address },
  });
  const status = async (gateway: Gateway, asking: ReturnType<typeof from>) =>
    (await ask(gateway.port, "/x", asking)).status;
  /** What is counted after the answer has been counted by now. */
  const counted = (failures: number) =>
    until("the store has counted", async () => {
      const { result = [] } = (await on.redisCommand(["KEYS", "penalty:*"])) as { result?: string[] };
      return result.length >= failures;
    });

  it("keeps out who fails too often, with every gateway, for a while, and longer the next time", async () => {
    const bad = "198.51.100.7";
    for (let i = 0; i < 3; i++) expect(await status(on.gateway, from(bad))).toBe(401);
    for (let i = 0; i < 3; i++) expect(await status(second, from(bad))).toBe(401);
    await until("the second knows", async () => (await status(second, from(bad))) === 429);
    // The first has not heard of it, and does with the next failure.
    expect(await status(on.gateway, from(bad))).toBe(401);
    await until("the first knows", async () => (await status(on.gateway, from(bad))) === 429);
    const good = (await on.issuer.bearer()).authorization;
    expect(await status(on.gateway, from(bad, good))).toBe(429);
    expect(await status(on.gateway, from("198.51.100.8", good))).toBe(200);
    await until("it is let in again", async () => (await status(on.gateway, from(bad, good))) === 200);
    for (let i = 0; i < 6; i++) await status(on.gateway, from(bad));
    const again = await until("it is kept out again", async () => {
      const answer = await ask(on.gateway.port, "/x", from(bad));
      return answer.status === 429 && answer;
    });
    expect(Number(again.headers["retry-after"])).toBeGreaterThanOrEqual(3);
  });

  it("keeps out a credential that is tried from everywhere", async () => {
    for (let i = 0; i < 6; i++) await status(on.gateway, from(`203.0.113.${i}`, "Bearer stolen"));
    await counted(2);
    await until("it is known", async () => (await status(on.gateway, from("203.0.113.99", "Bearer stolen"))) === 429);
    expect(await status(on.gateway, from("203.0.113.99"))).toBe(401);
  });

  it("works in each gateway by itself while Redis is away, and holds nobody up", async () => {
    await on.killRedis();
    const bad = "192.0.2.7";
    const started = Date.now();
    for (let i = 0; i < 6; i++) expect(await status(second, from(bad))).toBe(401);
    expect(Date.now() - started).toBeLessThan(2_000);
    await until("it is kept out", async () => (await status(second, from(bad))) === 429);
    await on.startRedis();
  });

  it("writes no address and no credential into the store, and nothing that stays for ever", async () => {
    let client = 0;
    await until("the store has counted", async () => {
      // Redis was away, and is left alone for a while.
      await status(on.gateway, from(`192.0.2.${client++ % 250}`, `Bearer stolen-${client}`));
      const { result: names = [] } = (await on.redisCommand(["KEYS", "penalty:*"])) as { result?: string[] };
      if (names.length < 2) return false;
      for (const name of names) {
        expect(name).toMatch(/^penalty:[0-9a-f]{64}$/);
        const { result: ttl } = (await on.redisCommand(["PTTL", name])) as { result: number };
        expect(ttl).toBeGreaterThan(0);
      }
      return true;
    });
    expect(on.gateway.log()).not.toContain("stolen");
  });
});
