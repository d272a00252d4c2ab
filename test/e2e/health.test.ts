/**
 * Active health checks: one process whose cron trigger is pulled by hand, others that serve requests and learn from Redis alone what it
 * has found, and two ingresses that come and go.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type RunningRedis, startRedisServer } from "../../src/dev/redis.ts";
import { startUpstashBridge } from "../../src/dev/upstash-bridge.ts";
import { type RunningWorker, startWorker } from "../../src/dev/worker.ts";
import { ask } from "./client.ts";
import { describeWithRealParts } from "./fixture.ts";
import { buildWorker, Gateway } from "./gateway.ts";
import { Ingress } from "./ingress.ts";
import { Origin } from "./origin.ts";
import { until } from "./process.ts";

const ROUTES = `
import { api, balance, cluster, env, gateway, requestId, route, secret } from "portcullis";
const health = { path: "/healthz/ready", timeout: "300ms", unhealthy: 2, healthy: 2 };
const eu = cluster("eu", { ingress: env("EU_INGRESS"), health });
const us = cluster("us", { ingress: env("US_INGRESS"), health: { ...health, expect: [204] } });
const timeouts = { connect: "300ms", firstByte: "500ms", total: "5s" };
const store = { url: env("REDIS_URL"), token: secret("REDIS_TOKEN") };
export default gateway({ policies: [requestId({})], store, timeouts }, [
  api("shop", {}, [
    route("orders", { path: "/orders/*" }, { to: eu.or(us) }),
    route("stock", { path: "/stock/*" }, { to: balance([eu, us]) }),
  ]),
]);`;
const TOKEN = "the-token-of-the-redis-bridge";

// Every isolate looks into the store that often (edge/tries.ts).
const READ_EVERY = 10_000;

describeWithRealParts("health checks", () => {
  let origins: Record<"eu" | "us", Origin>;
  let ingresses: Record<"eu" | "us", Ingress>;
  let redis: RunningRedis;
  /** Of the trigger and of most gateways. */
  let bridge: Awaited<ReturnType<typeof startUpstashBridge>>;
  let trigger: RunningWorker;
  /** What the trigger's process has printed. */
  const printed: string[] = [];
  const gateways: Gateway[] = [];
  const folder = mkdtempSync(join(tmpdir(), "portcullis-health-"));

  beforeAll(async () => {
    const [eu, us] = (await Promise.all(["eu", "us"].map((name) => Origin.start(name)))) as [Origin, Origin];
    origins = { eu, us };
    us.on("/healthz/ready", (_, response) => response.writeHead(204).end());
    const paths = (origin: Origin) => ({ healthz: origin.port, orders: origin.port, stock: origin.port });
    const [euIngress, usIngress] = await Promise.all([
      Ingress.start("eu", { paths: paths(eu) }),
      Ingress.start("us", { paths: paths(us) }),
    ]);
    ingresses = { eu: euIngress, us: usIngress };
    redis = await startRedisServer();
    bridge = await startUpstashBridge({ redis, token: TOKEN });
    trigger = await startWorker({
      source: readFileSync(await buildWorker(ROUTES, folder), "utf8"),
      environment: Object.fromEntries(Object.entries(texts()).map(([name, text]) => [name, { text }])),
      compatibilityDate: "2026-10-20",
      compatibilityFlags: ["enable_request_signal"],
      onLog: ({ message }) => printed.push(message),
    });
  });
  afterAll(async () => {
    await Promise.all([trigger, ...gateways].map((process) => process?.close()));
    await bridge?.close();
    await redis?.close();
    await Promise.all([...Object.values(ingresses ?? {}), ...Object.values(origins ?? {})].map((part) => part.close()));
    rmSync(folder, { recursive: true });
  });

  const texts = (store = bridge.url) => ({
    EU_INGRESS: ingresses.eu.url,
    US_INGRESS: ingresses.us.url,
    REDIS_URL: store,
    REDIS_TOKEN: TOKEN,
  });

  /** Another process, and with it another isolate. */
  async function another(store?: string): Promise<Gateway> {
    const gateway = await Gateway.start({ routes: ROUTES, texts: texts(store) });
    gateways.push(gateway);
    return gateway;
  }

  /** The backends that a request of this gateway was sent to. */
  async function asked(gateway: Gateway, path = "/orders/x"): Promise<string[]> {
    const answer = await ask(gateway.port, path);
    expect(answer.status).toBe(200);
    return (await gateway.recordOf(answer)).attempts.map(({ backend }) => backend);
  }

  const isAsked = (gateway: Gateway, backends: readonly string[], milliseconds?: number) =>
    until(
      `requests go to ${backends}`,
      async () => (await asked(gateway)).join() === backends.join(),
      milliseconds ?? 3_000,
    );

  const changes = () =>
    printed.flatMap((text) => {
      const { v, event, backend, healthy } = text.startsWith("{") ? JSON.parse(text) : {};
      return event === "health" ? [{ v, backend, healthy }] : [];
    });

  async function inStore(...command: (string | number)[]): Promise<unknown> {
    const headers = { authorization: `Bearer ${TOKEN}` };
    const response = await fetch(bridge.url, { method: "POST", headers, body: JSON.stringify(command) });
    return ((await response.json()) as { result: unknown }).result;
  }

  it("let everything pass as long as nothing is found", async () => {
    const first = await another();
    expect(await asked(first)).toEqual(["eu"]);
    expect(await trigger.scheduled()).toBe(true);
    expect(changes()).toEqual([]);
    const [request] = origins.eu.arrivedAt("/healthz/ready");
    expect(request).toMatchObject({ method: "GET", headers: { "user-agent": "Portcullis-Health" } });
    // Both addresses once, though each is behind two routes.
    expect(origins.us.arrivedAt("/healthz/ready")).toHaveLength(1);
  });

  it("pass over an ingress that is down, in every process, after as many findings as it takes", async () => {
    await ingresses.eu.kill();
    expect(await trigger.scheduled()).toBe(true);
    const early = await another();
    expect(await asked(early)).toEqual(["eu", "us"]);
    expect(changes()).toEqual([]);
    expect(await trigger.scheduled()).toBe(true);
    expect(changes()).toEqual([{ v: 1, backend: "eu", healthy: false }]);
    // What a process knows before it has read is nothing, so its first request may still try.
    const second = await another();
    await asked(second);
    await isAsked(second, ["us"]);
    for (let n = 0; n < 6; n++) expect(await asked(second, "/stock/x")).toEqual(["us"]);
    // One more finding of the same is no news.
    expect(await trigger.scheduled()).toBe(true);
    expect(changes()).toHaveLength(1);
  });

  it("expire, so that a trigger that runs no more does not bind for ever", async () => {
    const [key] = (await inStore("KEYS", "portcullis:health:*")) as string[];
    const seconds = (await inStore("TTL", key as string)) as number;
    expect(seconds).toBeGreaterThan(500);
    expect(seconds).toBeLessThanOrEqual(600);
    await inStore("RENAME", key as string, "elsewhere");
    const forgetful = await another();
    await asked(forgetful);
    await until("it has read", async () => (await asked(forgetful)).length === 2);
    await inStore("RENAME", "elsewhere", key as string);
  });

  it("of another environment, with other addresses, are not taken for one's own", async () => {
    const elsewhere = await Gateway.start({ routes: ROUTES, texts: { ...texts(), EU_INGRESS: ingresses.us.url } });
    gateways.push(elsewhere);
    for (let n = 0; n < 5; n++) expect(await asked(elsewhere)).toEqual(["eu"]);
  });

  it("hold while Redis is away, without a request noticing", async () => {
    const lost = await startUpstashBridge({ redis, token: TOKEN });
    const process = await another(lost.url);
    await asked(process);
    await isAsked(process, ["us"]);
    await lost.close();
    const started = Date.now();
    // Those that began without a finding have read again by now or will; this one fails to.
    const [first] = gateways as [Gateway];
    await Promise.all([
      until(
        "it has tried",
        async () => asked(process).then(() => process.log().includes("health-unread")),
        READ_EVERY * 1.5,
      ),
      isAsked(first, ["us"], READ_EVERY * 1.5),
    ]);
    expect(Date.now() - started).toBeLessThan(READ_EVERY * 1.5);
    expect(await asked(process)).toEqual(["us"]);
    expect(process.log()).toMatch(/\{"v":1,"time":"[^"]+","event":"health-unread","error":"\w+"\}/);
  });

  it("that cannot be kept leave what was found, and show as a trigger that failed", async () => {
    const { port } = bridge;
    await bridge.close();
    expect(await trigger.scheduled()).toBe(false);
    bridge = await startUpstashBridge({ redis, token: TOKEN, port });
    expect(changes()).toHaveLength(1);
    const fresh = await another();
    await asked(fresh);
    await isAsked(fresh, ["us"]);
  });

  it("let an ingress in again after as many findings as it takes", async () => {
    await ingresses.eu.start();
    expect(await trigger.scheduled()).toBe(true);
    expect(changes()).toHaveLength(1);
    expect(await trigger.scheduled()).toBe(true);
    expect(changes()[1]).toEqual({ v: 1, backend: "eu", healthy: true });
    const process = await another();
    for (let n = 0; n < 5; n++) expect(await asked(process)).toEqual(["eu"]);
  });

  it("count findings in a row only, and by what is expected", async () => {
    const before = changes().length;
    const answers = [500, 200, 503, 200, 302];
    for (const status of answers) {
      origins.eu.on("/healthz/ready", (_, response) => response.writeHead(status, { location: "/" }).end());
      // 200 is not the 204 that is expected there.
      origins.us.on("/healthz/ready", (_, response) => response.writeHead(status === 302 ? 200 : 204).end());
      await trigger.scheduled();
    }
    expect(changes()).toHaveLength(before);
    origins.eu.on("/healthz/ready", () => {});
    await trigger.scheduled();
    expect(changes().slice(before)).toEqual(
      expect.arrayContaining([
        { v: 1, backend: "eu", healthy: false },
        { v: 1, backend: "us", healthy: false },
      ]),
    );
  });

  it("leave no secret in the log", () => {
    expect(printed.length).toBeGreaterThan(2);
    for (const text of [...printed, ...gateways.map((gateway) => gateway.log())]) expect(text).not.toContain(TOKEN);
  });
});
