/** API keys in a real Redis: made by the commands' own functions, checked by the gateway in workerd. */
import { Redis } from "@upstash/redis";
import { afterAll, beforeAll, expect, it } from "vitest";
import { createKey, revokeKey, rotateKey } from "../../src/admin/keys.ts";
import { describeWithRealParts, Fixture, secrets } from "./fixture.ts";
import { until } from "./process.ts";

const ROUTES = `
import { anonymous, anyOf, apiKey, plan } from "portcullis";
const partner = consumer("partner", { groups: ["partners"], plan: plan("gold") });
const key = (options) => apiKey({ maxAge: "1s", unknownFor: "1s", grace: "1h", timeout: "300ms", ...options });
export default gateway(settings, [
  api("keys", {}, [
    route("mine", { path: "/mine" }, { policies: [key({ consumers: [partner] }), scopes("read")], to: origin }),
    route("query", { path: "/query" }, { policies: [key({ keyFrom: [{ query: "key" }] })], to: origin }),
    route("either", { path: "/either" }, { policies: [anyOf(token, key(), anonymous(consumer("guest")))], to: origin }),
    route("patient", { path: "/patient" }, { policies: [key({ timeout: "10s" })], to: origin }),
  ]),
]);`;

describeWithRealParts("API keys", () => {
  let on: Fixture;
  let redis: Redis;
  const made: string[] = [];
  beforeAll(async () => {
    on = await Fixture.start({ routes: ROUTES });
    redis = new Redis({
      url: on.storeUrl,
      token: secrets.store,
      enableTelemetry: false,
      automaticDeserialization: false,
    });
  });
  afterAll(() => on?.close());

  async function issue(wishes: Partial<Parameters<typeof createKey>[2]> = {}) {
    const { key, record } = await createKey(redis, "key", { consumer: "partner", scopes: ["read"], ...wishes });
    made.push(key);
    return { key, id: record.id };
  }
  const ask = (key: string, path = "/mine") => on.ask(path, { headers: { "x-api-key": key } });

  it("let their consumer in, and tell the origin who it is, but not the key", async () => {
    const { key, id } = await issue();
    const answer = await ask(key);
    expect(answer.status).toBe(200);
    const { headers } = answer.echo();
    expect(headers).toMatchObject({
      "x-consumer-name": "partner",
      "x-consumer-groups": "partners",
      "x-consumer-plan": "gold",
      "x-consumer-scopes": "read",
    });
    expect(headers).not.toHaveProperty("x-api-key");
    expect(await on.gateway.recordOf(answer)).toMatchObject({
      consumer: "partner",
      credential: { kind: "apiKey", id },
      policies: [
        { policy: "apiKey", verdict: "pass" },
        { policy: "scopes", verdict: "pass" },
      ],
    });
  });

  it("are taken out of the query, and nothing else is", async () => {
    const { key } = await issue();
    const answer = await on.ask(`/query?a=%20b&key=${key}&c=1`);
    expect([answer.status, answer.echo().url]).toEqual([200, "/query?a=%20b&c=1"]);
  });

  it("with too few scopes are told what is missing; a key of somebody else is refused", async () => {
    const { key } = await issue({ scopes: ["write"] });
    const answer = await ask(key);
    expect([answer.status, answer.json().missing, answer.headers["www-authenticate"]]).toEqual([
      403,
      ["read"],
      undefined,
    ]);
    const stranger = await ask((await issue({ consumer: "other" })).key);
    expect([stranger.status, stranger.json().code]).toEqual([401, "credentials-invalid"]);
  });

  it("may stand beside tokens and the anonymous consumer", async () => {
    const { key } = await issue();
    const who = async (headers: Record<string, string>) => {
      const answer = await on.ask("/either", { headers });
      return answer.status === 200 ? answer.echo().headers["x-consumer-name"] : answer.status;
    };
    expect(await who({ "x-api-key": key })).toBe("partner");
    expect(await who(await on.issuer.bearer({ client_id: "storefront" }))).toBe("storefront");
    expect(await who({})).toBe("guest");
    expect(await who({ "x-api-key": "wrong" })).toBe(401);
    expect(await who({ authorization: "Bearer wrong" })).toBe(401);
  });

  it("that are new to an isolate serve 50 clients at once", async () => {
    const { key } = await issue();
    const answers = await Promise.all(Array.from({ length: 50 }, () => ask(key, "/patient")));
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
  });

  it("that are revoked are refused within maxAge, also when they are used all the time", async () => {
    const { key, id } = await issue();
    expect((await ask(key)).status).toBe(200);
    await revokeKey(redis, id);
    const revoked = Date.now();
    await until("the key is refused", async () => (await ask(key)).status === 401);
    expect(Date.now() - revoked).toBeLessThan(1_500);
  });

  it("that rotate are both good for the overlap, and then only the new one", async () => {
    const { key, id } = await issue();
    const fresh = await rotateKey(redis, "key", id, { overlap: 700 });
    made.push(fresh.key);
    expect([(await ask(key)).status, (await ask(fresh.key)).status]).toEqual([200, 200]);
    expect(fresh.record).toMatchObject({ consumer: "partner", scopes: ["read"] });
    await until("the old key has expired", async () => (await ask(key)).status === 401);
    expect((await ask(fresh.key)).status).toBe(200);
  });

  it("are nowhere in the store, only their hashes", async () => {
    const { result: names } = (await on.redisCommand(["KEYS", "*"])) as { result: string[] };
    const kept = names.map(async (name) => JSON.stringify(await on.redisCommand(["DUMP", name])));
    const index = JSON.stringify(await on.redisCommand(["HGETALL", "apikeys"]));
    const all = [...names, index, ...(await Promise.all(kept))].join("\n");
    expect(all).toContain("partner");
    for (const key of made) expect(all).not.toContain(key.split("_")[1]);
  });

  it("that an isolate knows go on while Redis is away, and no request waits longer than the timeout", async () => {
    const { key } = await issue();
    const { key: unseen } = await issue();
    expect((await ask(key)).status).toBe(200);
    await on.killRedis();
    const slowest = { ms: 0 };
    const timed = async (key: string) => {
      const started = Date.now();
      const answer = await ask(key);
      slowest.ms = Math.max(slowest.ms, Date.now() - started);
      return answer;
    };
    const stale = await until("the record tells of the failure", async () => {
      const answer = await timed(key);
      expect(answer.status).toBe(200);
      const { facts } = (await on.gateway.recordOf(answer)).policies[0] ?? {};
      return facts?.store === "failed" && facts;
    });
    expect(stale.store).toBe("failed");
    const refused = await timed(unseen);
    expect([refused.status, refused.json().code]).toEqual([503, "credentials-unavailable"]);
    expect(refused.headers["retry-after"]).toMatch(/^[1-9]\d*$/);
    expect(slowest.ms).toBeLessThan(1_000);
    await on.startRedis();
    // Redis comes back empty: the key is not known any more.
    await until("the gateway asks Redis again", async () => (await ask(key)).status === 401);
  });

  it("leave no trace in the log", () => {
    const log = on.gateway.log();
    expect(made.length).toBeGreaterThan(8);
    for (const key of made) expect(log).not.toContain(key.split("_")[1]);
    expect(on.leaked()).toEqual([]);
  });
});
