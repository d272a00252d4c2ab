import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { Ratelimit } from "@upstash/ratelimit";
import { Redis } from "@upstash/redis";
import fc from "fast-check";
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from "vitest";
import { type RunningRedis, redisServerAvailable, startEmbeddedRedis, startRedisServer } from "../../src/dev/redis.ts";
import { createReplyParser, type Reply, startUpstashBridge } from "../../src/dev/upstash-bridge.ts";
import { isThere } from "../real-parts.ts";

const TOKEN = "a token for tests";
type Bridge = Awaited<ReturnType<typeof startUpstashBridge>>;

/** A raw request, to see what the client hides: `body` goes out as JSON unless it is bytes or text already. */
async function ask(bridge: Bridge, path: string, body?: unknown, init: RequestInit & { encoding?: string } = {}) {
  const { encoding, ...rest } = init;
  const raw = typeof body === "string" || body instanceof Uint8Array ? body : JSON.stringify(body);
  const response = await fetch(bridge.url + path, {
    method: "POST",
    headers: { authorization: `Bearer ${TOKEN}`, ...(encoding ? { "upstash-encoding": encoding } : {}) },
    ...(body === undefined ? {} : { body: raw as BodyInit }),
    ...rest,
  });
  expect(response.headers.get("content-type")).toBe("application/json");
  return { status: response.status, json: await response.json().catch(() => undefined) };
}

/** `autoPipelining: false` sends each command to `/` by itself; the client's default gathers them for `/pipeline`. */
function clientOf(bridge: Bridge, autoPipelining = true): Redis {
  return new Redis({
    url: bridge.url,
    token: TOKEN,
    enableAutoPipelining: autoPipelining,
    enableTelemetry: false,
    retry: false,
  });
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  for (const deadline = Date.now() + 10_000; !(await condition()); await sleep(20)) {
    if (Date.now() > deadline) throw new Error("it did not happen within 10 s");
  }
}

const sha1 = (text: string) => createHash("sha1").update(text).digest("hex");

const BACKENDS = [
  { name: "redis-server", start: startRedisServer, available: isThere("redis-server", redisServerAvailable()) },
  { name: "js-redis-server", start: startEmbeddedRedis, available: true },
];

for (const backend of BACKENDS) {
  describe.skipIf(!backend.available)(`the bridge in front of ${backend.name}`, () => {
    let server: RunningRedis;
    let bridge: Bridge;
    let redis: Redis;

    beforeAll(async () => {
      server = await backend.start();
      bridge = await startUpstashBridge({ redis: server, token: TOKEN });
      redis = clientOf(bridge);
    });
    afterAll(async () => {
      await bridge?.close();
      await server?.close();
    });
    beforeEach(async () => {
      await redis.flushall();
    });

    describe.each([true, false])("@upstash/redis, auto-pipelining %s", (autoPipelining) => {
      let redis: Redis;
      beforeAll(() => {
        redis = clientOf(bridge, autoPipelining);
      });

      it("carries values there and back", async () => {
        expect(await redis.ping()).toBe("PONG");
        expect(await redis.set("text", "žluťoučký 🐎\r\n$5\r\n\0")).toBe("OK");
        expect(await redis.get("text")).toBe("žluťoučký 🐎\r\n$5\r\n\0");
        expect(await redis.set("object", { a: [1, null, "x"] }, { ex: 100 })).toBe("OK");
        expect(await redis.get("object")).toEqual({ a: [1, null, "x"] });
        expect(await redis.set("status", "OK")).toBe("OK");
        expect(await redis.get("status")).toBe("OK");
        expect(await redis.set("empty", "")).toBe("OK");
        expect(await redis.get("empty")).toBe("");
        expect(await redis.get("absent")).toBeNull();
        expect(await redis.incrby("number", 41)).toBe(41);
        expect(await redis.incrbyfloat("number", 0.5)).toBe(41.5);
        expect(await redis.lpop("absent", 2)).toBeNull();
      });

      it("carries nested replies", async () => {
        await redis.hset("hash", { name: "OK", count: 7, list: [1, 2] });
        expect(await redis.hgetall("hash")).toEqual({ name: "OK", count: 7, list: [1, 2] });
        expect(await redis.hmget("hash", "name", "absent")).toEqual({ name: "OK", absent: null });
        await redis.zadd("sorted", { score: 1.5, member: "a" }, { score: 2, member: "b" });
        expect(await redis.zrange("sorted", 0, -1, { withScores: true })).toEqual(["a", 1.5, "b", 2]);
        expect(await redis.scan(0, { match: "h*", count: 100 })).toEqual(["0", ["hash"]]);
        await redis.xadd("stream", "1-1", { field: "value", other: "OK" });
        expect(await redis.xrange("stream", "-", "+")).toEqual({ "1-1": { field: "value", other: "OK" } });
        expect(await redis.smembers("absent")).toEqual([]);
        const nested =
          "return {1, 'two', false, {}, {'OK', {redis.status_reply('OK'), {'deep'}}}, redis.status_reply('OK')}";
        expect(await redis.eval(nested, [], [])).toEqual([1, "two", null, [], ["OK", ["OK", ["deep"]]], "OK"]);
      });

      it("carries errors", async () => {
        await redis.set("text", "x");
        await expect(redis.lpush("text", "y")).rejects.toThrow("WRONGTYPE");
        await expect(redis.incr("text")).rejects.toThrow("ERR value is not an integer");
        await expect(redis.eval("return redis.error_reply('MINE of my own')", [], [])).rejects.toThrow(
          "MINE of my own",
        );
        expect(await redis.get("text")).toBe("x");
      });
    });

    it("gives every caller its own answer", async () => {
      const keys = Array.from({ length: 300 }, (_, index) => `key ${index}`);
      const direct = clientOf(bridge, false);
      const answers = await Promise.all(
        keys.map(async (key, index) => {
          const client = index % 2 === 0 ? redis : direct;
          await client.set(key, `of ${key}`);
          return client.get(key);
        }),
      );
      expect(answers).toEqual(keys.map((key) => `of ${key}`));
    });

    it("encodes every string but a status OK as base64 when asked to, and none otherwise", async () => {
      const script = ["EVAL", "return {'OK', 'ü', 3, {'OK'}}", 0];
      expect(await ask(bridge, "/", script)).toEqual({ status: 200, json: { result: ["OK", "ü", 3, ["OK"]] } });
      const encoded = { result: ["T0s=", "w7w=", 3, ["T0s="]] };
      expect(await ask(bridge, "/", script, { encoding: "base64" })).toEqual({ status: 200, json: encoded });
      expect((await ask(bridge, "/", ["SET", "k", "OK"], { encoding: "base64" })).json).toEqual({ result: "OK" });
      expect((await ask(bridge, "/", ["GET", "k"], { encoding: "base64" })).json).toEqual({ result: "T0s=" });
      expect((await ask(bridge, "/", ["PING"], { encoding: "base64" })).json).toEqual({ result: "UE9ORw==" });
      expect((await ask(bridge, "/pipeline", [["PING"], ["SET", "k", 1]], { encoding: "base64" })).json).toEqual([
        { result: "UE9ORw==" },
        { result: "OK" },
      ]);
    });

    it("is binary safe, both ways", async () => {
      const bytes = Uint8Array.from({ length: 1024 }, (_, index) => index % 256);
      expect(await ask(bridge, "/set/bytes", bytes)).toEqual({ status: 200, json: { result: "OK" } });
      expect((await ask(bridge, "/strlen/bytes")).json).toEqual({ result: 1024 });
      const { json } = await ask(bridge, "/get/bytes", undefined, { encoding: "base64" });
      expect(json).toEqual({ result: Buffer.from(bytes).toString("base64") });
      await ask(bridge, "/append/invalid", Buffer.from([0x61, 0xff]));
      expect((await ask(bridge, "/get/invalid")).json).toEqual({ result: "a\ufffd" });
    });

    it("takes commands in the path", async () => {
      expect((await ask(bridge, "/set/a%2Fb/x%20y?EX=100&NX", undefined, { method: "GET" })).json).toEqual({
        result: "OK",
      });
      expect((await ask(bridge, "/get/a%2Fb", undefined, { method: "GET" })).json).toEqual({ result: "x y" });
      expect((await ask(bridge, "/ttl/a%2Fb")).json).toEqual({ result: 100 });
      expect((await ask(bridge, "/set/a%2Fb/z?NX")).json).toEqual({ result: null });
      expect((await ask(bridge, "/set/body?EX=50", "from the body")).json).toEqual({ result: "OK" });
      expect((await ask(bridge, "/get/body")).json).toEqual({ result: "from the body" });
      expect(await ask(bridge, "/get/%E0%A4%A")).toEqual({
        status: 400,
        json: { error: expect.stringContaining("percent") },
      });
      expect(await ask(bridge, "/get")).toEqual({
        status: 400,
        json: { error: expect.stringMatching(/^ERR wrong number/) },
      });
    });

    it("carries a value of megabytes, and a pipeline of thousands", async () => {
      const large = "x".repeat(7_000_000);
      await redis.set("large", large);
      expect(await redis.get("large")).toBe(large);
      const pipeline = redis.pipeline();
      for (let index = 0; index < 5_000; index += 1) pipeline.incr("counter");
      expect((await pipeline.exec()).at(-1)).toBe(5_000);
    });

    it("answers 400 to an error of a single command, and goes on", async () => {
      const { status, json } = await ask(bridge, "/", ["NOSUCHCOMMAND", "x"]);
      expect({ status, json }).toEqual({ status: 400, json: { error: expect.stringMatching(/^ERR unknown command/) } });
      expect(await ask(bridge, "/", ["GET"])).toMatchObject({ status: 400 });
      expect(await redis.ping()).toBe("PONG");
    });

    it("answers per entry in a pipeline", async () => {
      const commands = [
        ["SET", "a", "x"],
        ["INCR", "a"],
        ["SUBSCRIBE", "channel"],
        ["GET", "a"],
        ["LPUSH", "b", 1, true],
      ];
      expect(await ask(bridge, "/pipeline", commands)).toEqual({
        status: 200,
        json: [
          { result: "OK" },
          { error: "ERR value is not an integer or out of range" },
          { error: "ERR Command is not available: 'SUBSCRIBE'" },
          { result: "x" },
          { result: 2 },
        ],
      });
      expect(await ask(bridge, "/pipeline", [["MONITOR"]])).toMatchObject({
        status: 200,
        json: [{ error: expect.stringContaining("MONITOR") }],
      });
    });

    it("refuses what would disturb the connection that all requests share", async () => {
      const commands = [
        ["subscribe", "c"],
        ["MULTI"],
        ["BLPOP", "k", 0],
        ["CLIENT", "REPLY", "OFF"],
        ["QUIT"],
        ["SELECT", 1],
      ];
      for (const command of [...commands, ["XREAD", "COUNT", 1, "BLOCK", 0, "STREAMS", "s", "$"]]) {
        const { status, json } = await ask(bridge, "/", command);
        expect({ status, json }).toEqual({ status: 400, json: { error: expect.stringContaining("not available") } });
      }
      await redis.xadd("block", "1-1", { a: 1 });
      expect((await ask(bridge, "/", ["XREAD", "STREAMS", "block", "0"])).json.result).toHaveLength(1);
    });

    it("runs a transaction as a whole", async () => {
      const commands = [
        ["SET", "a", "x"],
        ["INCR", "a"],
        ["GET", "a"],
      ];
      const executed = [{ result: "OK" }, { error: "ERR value is not an integer or out of range" }, { result: "x" }];
      expect(await ask(bridge, "/multi-exec", commands)).toEqual({ status: 200, json: executed });
      expect(await redis.multi().set("n", 1).incr("n").hset("h", { f: "OK" }).hgetall("h").exec()).toEqual([
        "OK",
        2,
        1,
        { f: "OK" },
      ]);
      for (const bad of [["NOSUCHCOMMAND"], ["GET"], ["SUBSCRIBE", "c"], ["EXEC"]]) {
        const { status, json } = await ask(bridge, "/multi-exec", [["SET", "a", "changed"], bad]);
        expect({ status, json }).toEqual({ status: 400, json: { error: expect.stringMatching(/^EXECABORT .*: ERR/) } });
      }
      expect(await redis.get("a")).toBe("x");
    });

    it("lets nobody in between a transaction's commands", async () => {
      const transactions = Array.from({ length: 40 }, () =>
        redis.multi().incr("n").incr("n").incr("n").incr("n").exec<number[]>(),
      );
      const others = Array.from({ length: 40 }, () => redis.incr("n"));
      for (const [first = 0, ...rest] of await Promise.all(transactions)) {
        expect(rest).toEqual([first + 1, first + 2, first + 3]);
      }
      await Promise.all(others);
      expect(await redis.get("n")).toBe(200);
    });

    it("wants the token on every path, and does nothing without it", async () => {
      const requests: [string, unknown][] = [
        ["/", ["SET", "stolen", 1]],
        ["/pipeline", [["SET", "stolen", 1]]],
        ["/multi-exec", [["SET", "stolen", 1]]],
        ["/set/stolen/1", undefined],
        ["/set/stolen/1?_token=a%20token%20for%20tests", undefined],
        ["/nothing/here", "not JSON"],
      ];
      const headers = [
        {},
        { authorization: "Bearer" },
        { authorization: "Bearer " },
        { authorization: `Bearer ${TOKEN}x` },
        { authorization: `Bearer ${TOKEN.slice(0, -1)}` },
        { authorization: TOKEN },
        { authorization: `Basic ${TOKEN}` },
      ];
      for (const [path, body] of requests) {
        for (const given of headers) {
          const { status, json } = await ask(bridge, path, body, { headers: given });
          expect({ status, json }).toEqual({ status: 401, json: { error: "WRONGPASS invalid or missing auth token" } });
        }
      }
      expect(await redis.get("stolen")).toBeNull();
      await expect(new Redis({ url: bridge.url, token: "wrong", retry: false }).ping()).rejects.toThrow("WRONGPASS");
    });

    it("answers 400 to what is not a command", async () => {
      const bodies = [
        "",
        "{",
        "null",
        "7",
        '"PING"',
        "{}",
        "[]",
        "[null]",
        '["GET", {"a": 1}]',
        '["GET", ["a"]]',
        "\xff",
      ];
      for (const path of ["/", "/pipeline", "/multi-exec"]) {
        for (const body of [...bodies, ...bodies.map((inner) => `[["PING"], ${inner}]`)]) {
          const { status, json } = await ask(bridge, path, body);
          expect({ path, body, status, json }).toEqual({
            path,
            body,
            status: 400,
            json: { error: expect.stringMatching(/^ERR/) },
          });
        }
      }
      expect(await ask(bridge, "/", Array(1024 * 1024 + 1).fill(1))).toMatchObject({ status: 400 });
      expect(await ask(bridge, "/", undefined, { method: "GET" })).toMatchObject({ status: 400 });
      expect(await ask(bridge, "/", ["PING"], { method: "DELETE" })).toMatchObject({ status: 405 });
      expect(await redis.ping()).toBe("PONG");
    });

    it("answers 413 to a body over 10 MiB", async () => {
      const { status, json } = await ask(bridge, "/set/large", new Uint8Array(10 * 1024 * 1024 + 1));
      expect({ status, json }).toEqual({
        status: 413,
        json: { error: expect.stringContaining("Limit: 10485760 bytes") },
      });
      expect(await redis.get("large")).toBeNull();
    });

    it("never answers 500, whatever JSON it gets", async () => {
      await fc.assert(
        fc.asyncProperty(
          fc.constantFrom("/", "/pipeline", "/multi-exec"),
          fc.json({ maxDepth: 3 }),
          async (path, body) => {
            expect([200, 400]).toContain((await ask(bridge, path, body)).status);
          },
        ),
        { numRuns: 150 },
      );
    });

    describe("scripts", () => {
      const script =
        "#!lua flags=allow-key-locking\nlocal n = redis.call('INCRBY', KEYS[1], ARGV[1])\nreturn {n, 'OK'}";

      beforeEach(async () => {
        await redis.scriptFlush();
      });

      it("lose the line that only Upstash knows, and keep the client's SHA", async () => {
        await expect(redis.evalsha(sha1(script), ["k"], [1])).rejects.toThrow("NOSCRIPT");
        expect(await redis.scriptLoad(script)).toBe(sha1(script));
        expect(await redis.scriptExists(sha1(script), sha1("absent"))).toEqual([1, 0]);
        expect(await redis.evalsha(sha1(script), ["k"], [2])).toEqual([2, "OK"]);
        expect(await redis.evalsha(sha1(script).toUpperCase(), ["k"], [2])).toEqual([4, "OK"]);
        await redis.scriptFlush();
        await expect(redis.evalsha(sha1(script), ["k"], [1])).rejects.toThrow("NOSCRIPT");
        expect(await redis.eval(script, ["k"], [3])).toEqual([7, "OK"]);
        expect(await redis.evalsha(sha1(script), ["k"], [4])).toEqual([11, "OK"]);
        expect(await redis.createScript(script).exec(["k"], ["5"])).toEqual([16, "OK"]);
      });

      it("work in pipelines and transactions", async () => {
        const batch = [
          ["SCRIPT", "LOAD", script],
          ["EVAL", script, 1, "k", 1],
          ["EVALSHA", sha1(script), 1, "k", 1],
        ];
        for (const [path, first] of [
          ["/pipeline", 1],
          ["/multi-exec", 3],
        ] as const) {
          const results = [{ result: sha1(script) }, { result: [first, "OK"] }, { result: [first + 1, "OK"] }];
          expect(await ask(bridge, path, batch)).toEqual({ status: 200, json: results });
        }
      });

      it("without that line go through untouched", async () => {
        const plain = "return {KEYS[1], ARGV[1], '#!lua flags=allow-key-locking'}";
        expect(await redis.scriptLoad(plain)).toBe(sha1(plain));
        const result = ["k", "v", "#!lua flags=allow-key-locking"];
        expect(await redis.evalsha(sha1(plain), ["k"], ["v"])).toEqual(result);
        expect(await redis.eval(plain, ["k"], ["v"])).toEqual(result);
        await expect(redis.eval("not lua", [], [])).rejects.toThrow("ERR");
        expect(await ask(bridge, "/", ["EVAL"])).toMatchObject({ status: 400 });
        expect(await ask(bridge, "/", ["SCRIPT", "LOAD"])).toMatchObject({ status: 400 });
        expect(await ask(bridge, "/", ["SCRIPT"])).toMatchObject({ status: 400 });
      });
    });

    // The windows are days long, so that no test sees one end.
    const LIMITERS = {
      fixedWindow: Ratelimit.fixedWindow(10, "30 d"),
      slidingWindow: Ratelimit.slidingWindow(10, "30 d"),
      tokenBucket: Ratelimit.tokenBucket(10, "30 d", 10),
    };

    describe.each(Object.entries(LIMITERS))("@upstash/ratelimit, %s", (prefix, limiter) => {
      it.each([true, false])("admits exactly 10 of 50 at once, auto-pipelining %s", async (autoPipelining) => {
        const client = clientOf(bridge, autoPipelining);
        const ratelimit = new Ratelimit({ redis: client, limiter, prefix, ephemeralCache: false });
        const answers = await Promise.all(Array.from({ length: 50 }, () => ratelimit.limit("somebody")));
        const admitted = answers.filter((answer) => answer.success);
        expect(admitted.map((answer) => answer.remaining).sort((a, b) => a - b)).toEqual([
          0, 1, 2, 3, 4, 5, 6, 7, 8, 9,
        ]);
        expect(answers.every((answer) => answer.reason !== "timeout")).toBe(true);
        expect((await ratelimit.limit("somebody else")).remaining).toBe(9);
        expect((await ratelimit.getRemaining("somebody")).remaining).toBe(0);
        await ratelimit.resetUsedTokens("somebody");
        expect(await ratelimit.limit("somebody")).toMatchObject({ success: true, remaining: 9 });
      });
    });

    describe("when Redis goes away", () => {
      /** A Redis and a bridge of this test's own; `restart` brings Redis back on the port it had. */
      async function ownPair() {
        let current = await backend.start();
        const { port } = current;
        const own = await startUpstashBridge({ redis: current, token: TOKEN });
        onTestFinished(async () => {
          await own.close();
          await current.close();
        });
        const restart = async () => {
          current = await backend.start({ port });
        };
        return { bridge: own, kill: () => current.close(), restart };
      }
      const works = async (own: Bridge) => (await ask(own, "/", ["PING"])).status === 200;

      it("fails fast with 503, and works again once it is back, scripts included", async () => {
        const own = await ownPair();
        const limiter = Ratelimit.fixedWindow(10, "30 d");
        const ratelimit = new Ratelimit({ redis: clientOf(own.bridge), limiter, ephemeralCache: false });
        const knownScript = "#!lua flags=allow-key-locking\nreturn 'still here'";
        for (const generation of [1, 2]) {
          expect((await ratelimit.limit("somebody")).remaining).toBe(9);
          expect((await ratelimit.limit("somebody")).remaining).toBe(8);
          const load = await ask(own.bridge, "/", ["SCRIPT", "LOAD", knownScript]);
          expect({ generation, ...load }).toEqual({ generation, status: 200, json: { result: sha1(knownScript) } });

          await own.kill();
          await until(async () => !(await works(own.bridge)));
          for (const [path, body] of [
            ["/", ["PING"]],
            ["/pipeline", [["PING"]]],
            ["/multi-exec", [["PING"]]],
            ["/ping"],
          ] as const) {
            const asked = performance.now();
            const { status, json } = await ask(own.bridge, path, body);
            expect({ status, json }).toEqual({
              status: 503,
              json: { error: expect.stringMatching(/^ERR Redis at .* is away/) },
            });
            expect(performance.now() - asked).toBeLessThan(1_000);
          }
          await expect(ratelimit.limit("somebody")).rejects.toThrow("is away");

          await own.restart();
          await until(() => works(own.bridge));
          const missing = await ask(own.bridge, "/", ["EVALSHA", sha1(knownScript), 0]);
          expect(missing).toEqual({ status: 400, json: { error: expect.stringMatching(/^NOSCRIPT/) } });
          await ask(own.bridge, "/", ["EVAL", knownScript, 0]);
          expect((await ask(own.bridge, "/", ["EVALSHA", sha1(knownScript), 0])).json).toEqual({
            result: "still here",
          });
        }
      });

      it("answers 503 to the commands that were under way", async () => {
        const own = await ownPair();
        // Many scripts rather than an endless one: js-redis-server ends a script that takes too many steps.
        const slow = ["EVAL", "for i = 1, 1e6 do end", 0];
        const running = ask(own.bridge, "/pipeline", Array(1_000).fill(slow));
        const behind = ask(own.bridge, "/", ["PING"]);
        await sleep(200);
        await own.kill();
        for (const answer of [await running, await behind]) {
          expect(answer).toEqual({ status: 503, json: { error: expect.stringContaining("the outcome unknown") } });
        }
        await own.restart();
        await until(() => works(own.bridge));
      });

      it("may be away when the bridge starts", async () => {
        const probe = await backend.start();
        await probe.close();
        const own = await startUpstashBridge({ redis: probe, token: TOKEN });
        onTestFinished(() => own.close());
        expect(await ask(own, "/", ["PING"])).toEqual({
          status: 503,
          json: { error: expect.stringContaining("ECONNREFUSED") },
        });
        const late = await backend.start({ port: probe.port });
        onTestFinished(() => late.close());
        await until(() => works(own));
      });
    });
  });
}

describe("the bridge by itself", () => {
  /** A bridge in front of a TCP server that answers whatever `onData` writes. */
  async function inFrontOf(onData: (socket: Socket, data: Buffer) => void) {
    const sockets = new Set<Socket>();
    const server = createServer((socket) => {
      sockets.add(socket.on("error", () => {}).on("data", (data) => onData(socket, data as Buffer)));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    const bridge = await startUpstashBridge({ redis: { host: "127.0.0.1", port }, token: TOKEN });
    onTestFinished(async () => {
      await bridge.close();
      for (const socket of sockets) socket.destroy();
      server.close();
    });
    return { bridge, sockets };
  }

  it("puts replies together that come byte by byte", async () => {
    const { bridge } = await inFrontOf(async (socket) => {
      for (const byte of Buffer.from("*3\r\n$4\r\n\r\n\r\n\r\n:-7\r\n*1\r\n$-1\r\n")) {
        socket.write(Buffer.of(byte));
        await sleep(1);
      }
    });
    expect(await ask(bridge, "/", ["X"])).toEqual({ status: 200, json: { result: ["\r\n\r\n", -7, [null]] } });
  });

  it("survives a server that does not speak RESP, and connects anew", async () => {
    const answers = ["HTTP/1.1 400 Bad Request\r\n\r\n", "$-7\r\n", "*x\r\n"];
    const { bridge } = await inFrontOf((socket) => socket.write(answers.shift() ?? "+PONG\r\n"));
    await until(async () => {
      const { status, json } = await ask(bridge, "/", ["PING"]);
      if (status === 503) expect(json.error).toContain("not a RESP2 reply");
      return status === 200;
    });
    expect(answers).toEqual([]);
  });

  it("gives up on a server that holds the connection but does not answer", async () => {
    vi.useFakeTimers({ toFake: ["setInterval", "Date"] });
    onTestFinished(() => {
      vi.useRealTimers();
    });
    const { bridge, sockets } = await inFrontOf(() => {});
    const silent = ask(bridge, "/", ["PING"]);
    await vi.waitFor(() => expect([...sockets].some((socket) => socket.bytesRead > 0)).toBe(true));
    vi.advanceTimersByTime(12_000);
    expect(await silent).toEqual({ status: 503, json: { error: expect.stringContaining("no reply in 10000 ms") } });
  });

  it("does not start without a token, nor on a taken port", async () => {
    const redis = { host: "127.0.0.1", port: 1 };
    await expect(startUpstashBridge({ redis, token: "" })).rejects.toThrow("needs a token");
    const first = await startUpstashBridge({ redis, token: TOKEN });
    onTestFinished(() => first.close());
    await expect(startUpstashBridge({ redis, token: TOKEN, port: first.port })).rejects.toThrow("EADDRINUSE");
  });
});

describe("the RESP2 parser", () => {
  const CRLF = Buffer.from("\r\n");

  function encode(reply: Reply): Buffer {
    if (reply === null) return Buffer.from("$-1\r\n");
    if (typeof reply === "string") return Buffer.from(`+${reply}\r\n`);
    if (typeof reply === "number") return Buffer.from(`:${reply}\r\n`);
    if (Buffer.isBuffer(reply)) return Buffer.concat([Buffer.from(`$${reply.length}\r\n`), reply, CRLF]);
    if (Array.isArray(reply)) return Buffer.concat([Buffer.from(`*${reply.length}\r\n`), ...reply.map(encode)]);
    return Buffer.from(`-${reply.error}\r\n`);
  }

  function parse(chunks: Buffer[]): Reply[] {
    const replies: Reply[] = [];
    const read = createReplyParser((reply) => replies.push(reply));
    for (const chunk of chunks) read(chunk);
    return replies;
  }

  function cut(bytes: Buffer, at: number[]): Buffer[] {
    const places = [...new Set(at.map((place) => place % (bytes.length + 1)))].sort((a, b) => a - b);
    return [0, ...places].map((place, index) => bytes.subarray(place, places[index] ?? bytes.length));
  }

  const line = fc.string({ unit: "grapheme" }).filter((text) => !/[\r\n]/.test(text));
  // Bulk strings with many line ends, markers and digits: what would confuse a parser that looks into them.
  const bulk = fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    fc.string({ unit: fc.constantFrom("\r", "\n", "$", "*", "1", "-") }).map((text) => Buffer.from(text)),
  );
  const { reply } = fc.letrec<{ reply: Reply }>((tie) => ({
    reply: fc.oneof(
      { maxDepth: 5, withCrossShrink: true },
      fc.oneof(
        fc.constant(null),
        fc.maxSafeInteger().map((number) => number + 0), // -0 has no place in RESP
        line,
        line.map((error) => ({ error })),
        bulk.map((bytes) => Buffer.from(bytes)),
      ),
      fc.array(tie("reply"), { maxLength: 6 }),
    ),
  }));

  it("reads any replies, wherever the chunks are cut", () => {
    fc.assert(
      fc.property(fc.array(reply, { maxLength: 8 }), fc.array(fc.nat(), { maxLength: 40 }), (replies, places) => {
        const bytes = Buffer.concat(replies.map(encode));
        expect(parse(cut(bytes, places))).toEqual(replies);
      }),
      { numRuns: 1_000 },
    );
  });

  it("reads any replies byte by byte, each as soon as its last byte is there", () => {
    fc.assert(
      fc.property(fc.array(reply, { maxLength: 4 }), (replies) => {
        let seen = 0;
        const read = createReplyParser(() => {
          seen += 1;
        });
        for (const [index, bytes] of replies.map(encode).entries()) {
          for (const byte of bytes) {
            expect(seen).toBe(index);
            read(Buffer.of(byte));
          }
        }
        expect(seen).toBe(replies.length);
      }),
      { numRuns: 100 },
    );
  });

  it("takes a reply or throws an Error, whatever bytes it gets", () => {
    const resplike = fc.string({ unit: fc.constantFrom("\r\n", "$", "*", ":", "+", "-", "0", "1", "2", "9", "x") });
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array(),
          resplike.map((text) => Buffer.from(text)),
        ),
        fc.array(fc.nat()),
        (bytes, places) => {
          try {
            parse(cut(Buffer.from(bytes), places));
          } catch (error) {
            expect((error as Error).message).toMatch(/not a RESP2 reply|not as long as it says/);
          }
        },
      ),
      { numRuns: 1_000 },
    );
  });

  it.each([
    "hello\r\n",
    "$-2\r\n",
    "*-2\r\n",
    "$\r\n",
    ":\r\n",
    ":1.5\r\n",
    "*1e3\r\n",
    "$3\r\nabcd\r\n",
    "%1\r\n",
    "\r\n",
  ])("refuses %j", (text) => {
    expect(() => parse([Buffer.from(text)])).toThrow();
  });

  it("takes a large bulk string in small chunks in linear time", () => {
    const value = Buffer.alloc(64 * 1024 * 1024, "x");
    const bytes = encode(value);
    const chunks = Array.from({ length: Math.ceil(bytes.length / 4096) }, (_, index) =>
      bytes.subarray(index * 4096, index * 4096 + 4096),
    );
    const started = performance.now();
    expect((parse(chunks)[0] as Buffer).equals(value)).toBe(true);
    expect(performance.now() - started).toBeLessThan(3_000); // 16 384 chunks; joined anew at each, it would be 500 GB to copy
  });
});

describe("a Redis of our own", () => {
  it.each(BACKENDS.filter((backend) => backend.available))(
    "$name says why it does not start on a taken port",
    async ({ start }) => {
      const first = await start();
      onTestFinished(() => first.close());
      await expect(start({ port: first.port })).rejects.toThrow(/address already in use/i);
      await first.close();
      await first.close();
    },
  );

  it.each(BACKENDS.filter((backend) => backend.available))(
    "$name dies with the process that started it",
    async ({ start }) => {
      const module = new URL("../../src/dev/redis.ts", import.meta.url).href;
      const code = `import { ${start.name} } from "${module}"; console.log((await ${start.name}()).port);`;
      const parent = spawn(process.execPath, ["--input-type=module", "-e", code], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      onTestFinished(() => void parent.kill("SIGKILL"));
      const [port] = await once(parent.stdout, "data");
      const bridge = await startUpstashBridge({ redis: { host: "127.0.0.1", port: Number(port) }, token: TOKEN });
      onTestFinished(() => bridge.close());
      expect(await ask(bridge, "/", ["PING"])).toMatchObject({ status: 200 });
      parent.kill("SIGKILL");
      await until(async () => (await ask(bridge, "/", ["PING"])).json.error?.includes("ECONNREFUSED"));
    },
  );
});
