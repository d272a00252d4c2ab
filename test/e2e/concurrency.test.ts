/** Requests under way at a time, over several gateways with a real Redis behind them. */
import { randomUUID } from "node:crypto";
import type { ServerResponse } from "node:http";
import { gunzipSync, gzipSync } from "node:zlib";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type Answer, ask, open } from "./client.ts";
import { describeWithRealParts, Fixture } from "./fixture.ts";
import type { Gateway } from "./gateway.ts";
import { until } from "./process.ts";

const ROUTES = `
const cap = (options) => concurrency({ per: { header: "x-key" }, limit: 3, timeout: "10s", ...options });
const to = origin;
export default gateway(settings, [
  api("caps", {}, [
    route("body", { path: "/body" }, { policies: [cap({})], to }),
    route("headers", { path: "/headers" }, { policies: [cap({ until: "headers" })], to }),
    route("expiry", { path: "/expiry" }, { policies: [cap({ limit: 1, expiry: "1s" })], to }),
    route("lost", { path: "/lost" }, { policies: [cap({ limit: 2, timeout: "300ms" })], to }),
    route("one", { path: "/one" }, { policies: [cap({ shared: "both" })], to }),
    route("other", { path: "/other" }, { policies: [cap({ shared: "both" })], to }),
    route("report", { path: "/report" }, { policies: [cap({ mode: "report", limit: 1 })], to }),
  ]),
]);`;

describeWithRealParts("a cap on requests under way", () => {
  let on: Fixture;
  let other: Gateway;
  beforeAll(async () => {
    on = await Fixture.start({ routes: ROUTES });
    other = await on.another(ROUTES);
  });
  afterAll(async () => {
    await other?.close();
    await on?.close();
  });

  const askAt = (gateway: Gateway, path: string, key: string) => ask(gateway.port, path, { headers: { "x-key": key } });

  /** Lets requests for the path hang at the origin until `finish`. */
  function hang(path: string) {
    const hanging: ServerResponse[] = [];
    on.origin.on(path, (_, response) => void hanging.push(response));
    const finish = () => {
      on.origin.off(path);
      for (const response of hanging.splice(0)) response.end("done");
    };
    return { hanging, finish };
  }

  it.each(["/body", "/headers", "/one"])(
    "refuses what is more, at %s, and lets in again what comes later",
    async (path) => {
      const key = randomUUID();
      const { hanging, finish } = hang(path);
      const gateways = [on.gateway, other];
      const asked = Array.from({ length: 20 }, (_, i) => askAt(gateways[i % 2] as Gateway, path, key));
      const refused: Answer[] = [];
      for (const one of asked) void one.then((answer) => answer.status === 429 && refused.push(answer));
      await until("seventeen are refused", () => refused.length === 17);
      expect(hanging).toHaveLength(3);
      expect(refused[0]?.json()).toMatchObject({ code: "concurrency-limited", "violated-policies": ["default"] });
      expect(refused[0]?.headers["retry-after"]).toBe("1");
      const record = Promise.any(gateways.map((gateway) => gateway.recordOf(refused[0] as Answer)));
      expect(await record).toMatchObject({
        limits: [{ name: "default", remaining: 0 }],
      });
      // Others are not concerned.
      const free = askAt(on.gateway, path, randomUUID());
      await until("another key gets through", () => hanging.length === 4);
      finish();
      expect((await free).status).toBe(200);
      expect((await Promise.all(asked)).filter(({ status }) => status === 200)).toHaveLength(3);
      await until("there is room again", async () => (await askAt(other, path, key)).status === 200);
    },
  );

  it("is shared by the routes that name it", async () => {
    const key = randomUUID();
    const { hanging, finish } = hang("/one");
    const asked = [1, 2, 3].map(() => askAt(on.gateway, "/one", key));
    await until("three are under way", () => hanging.length === 3);
    expect((await askAt(other, "/other", key)).status).toBe(429);
    finish();
    await Promise.all(asked);
  });

  it("counts a request until its body has been sent, and one whose client has gone no more", async () => {
    const key = randomUUID();
    const streams: ServerResponse[] = [];
    on.origin.on("/body", (_, response) => {
      streams.push(response);
      response.writeHead(200, { "content-type": "text/event-stream" }).write("data: first part\n\n");
    });
    const clients = await Promise.all(
      [1, 2, 3].map(async () => {
        const opened = open(on.gateway.port, "/body", { headers: { "x-key": key } });
        opened.sent.on("error", () => {}).end();
        const response = await opened.response;
        response.on("error", () => {}).resume();
        return opened;
      }),
    );
    expect((await askAt(on.gateway, "/body", key)).status).toBe(429);
    // A reset, since workerd takes a FIN for a client that has nothing more to say.
    clients[0]?.sent.socket?.resetAndDestroy();
    on.origin.on("/body", (_, response) => response.end());
    await until("the one that went away made room", async () => (await askAt(on.gateway, "/body", key)).status === 200);
    for (const stream of streams) stream.end();
  });

  it("leaves answers as they are", async () => {
    const text = "x".repeat(5_000);
    on.origin.on("/body", ({ url, method }, response) => {
      if (method === "HEAD") response.writeHead(200, { "content-length": 5_000 }).end();
      else if (url?.endsWith("gzip"))
        response.writeHead(200, { "content-encoding": "gzip", "x-a": "1" }).end(gzipSync(text));
      else if (url?.endsWith("none"))
        response
          .writeHead(204, [
            ["set-cookie", "a=1"],
            ["set-cookie", "b=2"],
          ] as never)
          .end();
      else response.writeHead(200, { "content-length": text.length }).end(text);
    });
    const get = (query: string, more = {}) =>
      ask(on.gateway.port, `/body${query}`, { headers: { "x-key": randomUUID(), "accept-encoding": "gzip" }, ...more });
    const plain = await get("");
    expect([plain.text(), plain.headers["content-length"]]).toEqual([text, "5000"]);
    const packed = await get("?gzip");
    expect([packed.headers["content-encoding"], packed.headers["x-a"]]).toEqual(["gzip", "1"]);
    expect(gunzipSync(packed.body).toString()).toBe(text);
    const none = await get("?none");
    expect([none.status, none.headers["set-cookie"]]).toEqual([204, ["a=1", "b=2"]]);
    const head = await get("", { method: "HEAD" });
    expect([head.status, head.headers["content-length"]]).toEqual([200, "5000"]);
    on.origin.off("/body");
  });

  it("makes room again where a gateway has died, when its requests have expired", async () => {
    const key = randomUUID();
    const doomed = await on.another(ROUTES);
    const { hanging, finish } = hang("/expiry");
    askAt(doomed, "/expiry", key).catch(() => {});
    await until("it is under way", () => hanging.length === 1);
    await doomed.close();
    expect((await askAt(on.gateway, "/expiry", key)).status).toBe(429);
    finish();
    const started = Date.now();
    await until("there is room", async () => (await askAt(on.gateway, "/expiry", key)).status === 200);
    expect(Date.now() - started).toBeLessThan(3_000);
  });

  it("in report mode refuses nobody", async () => {
    const key = randomUUID();
    const { hanging, finish } = hang("/report");
    const asked = [1, 2].map(() => askAt(on.gateway, "/report", key));
    await until("both are under way", () => hanging.length === 2);
    finish();
    const answers = await Promise.all(asked);
    expect(answers.map(({ status }) => status)).toEqual([200, 200]);
    const verdicts = await Promise.all(answers.map(async (answer) => (await on.gateway.recordOf(answer)).policies[0]));
    expect(verdicts.map((verdict) => verdict?.verdict).sort()).toEqual(["pass", "would-deny"]);
  });

  it("leaves no request behind in Redis", async () => {
    await until("all have left", async () => {
      const { result } = (await on.redisCommand(["KEYS", "concurrency:*"])) as { result: string[] };
      return result.length === 0;
    });
  });

  it("without Redis counts in the isolate", async () => {
    await on.killRedis();
    const key = randomUUID();
    const { hanging, finish } = hang("/lost");
    const first = askAt(on.gateway, "/lost", key);
    await until("the first is under way", () => hanging.length === 1);
    const second = askAt(on.gateway, "/lost", key);
    await until("the second is under way", () => hanging.length === 2);
    const third = await askAt(on.gateway, "/lost", key);
    expect(third.status).toBe(429);
    expect((await on.gateway.recordOf(third)).policies).toMatchObject([
      { policy: "concurrency", verdict: "deny", facts: { store: "failed", fallback: "local" } },
    ]);
    finish();
    await Promise.all([first, second]);
    expect((await askAt(on.gateway, "/lost", key)).status).toBe(200);
    await on.startRedis();
  });
});
