/** Answers without an end: event streams and newline-delimited JSON, with and without an idle limit, with nginx in between or not. */
import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { gunzipSync, gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import type { Asking } from "./client.ts";
import { describeWithRealParts, Fixture } from "./fixture.ts";
import { type Arrived, digest } from "./origin.ts";
import { until } from "./process.ts";

const ROUTES = `
const timeouts = { connect: "300ms", firstByte: "500ms", total: "600ms" };
const idle = { ...timeouts, idle: "400ms" };
const edited = { policies: [headers({ response: { set: { "x-edited": "yes" } } })] };
const bare = { policies: [without("requestId")] };
export default gateway(settings, [
  api("stream", {}, [
    route("free", { path: "/free/*" }, { ...edited, to: us, timeouts }),
    route("idle", { path: "/idle/*" }, { ...edited, to: us, timeouts: idle }),
    route("bare", { path: "/bare/*" }, { ...bare, to: origin, timeouts: idle }),
  ]),
]);`;

const EVENTS = "text/event-stream; charset=utf-8";
const IDLE = 400;

describeWithRealParts("a stream", () => {
  let on: Fixture;
  beforeAll(async () => {
    on = await Fixture.start({ routes: ROUTES });
  });
  afterAll(() => on?.close());

  const originOf = (path: string) => (path.startsWith("/bare") ? on.origin : on.origins["us/orders"]);

  interface Stream {
    readonly reading: IncomingMessage;
    readonly writing: ServerResponse;
    readonly arrived: Arrived;
    /** Cuts the client off, as if it were switched off. */
    leave(): void;
  }

  /** Both ends of an answer at `path` that has begun with `first`. */
  async function begin(path: string, type: string, first: string | Buffer, asking: Asking = {}): Promise<Stream> {
    const atOrigin = new Promise<{ writing: ServerResponse; arrived: Arrived }>((resolve) => {
      originOf(path).on(path, (_, writing, arrived) => resolve({ writing, arrived }));
    });
    const { sent, response } = on.open(path, asking);
    sent.on("error", () => {});
    onTestFinished(() => void sent.destroy());
    sent.end();
    const { writing, arrived } = await atOrigin;
    onTestFinished(() => void writing.destroy());
    writing.writeHead(200, { "content-type": type }).write(first);
    const reading = await response;
    return { reading, writing, arrived, leave: () => sent.socket?.resetAndDestroy() };
  }

  const next = async ({ reading }: Stream) => String((await once(reading, "data"))[0]);
  // biome-ignore lint/suspicious/noExplicitAny: lines of the log, each with facts of its own
  const endings = () => (on.gateway.records as unknown as any[]).filter(({ event }) => event === "stream-closed");

  describe.each(["/free", "/idle", "/bare"])("at %s", (at) => {
    it("passes each part as it is sent, for longer than ordinary answers may take", async () => {
      const types = [EVENTS, "application/x-ndjson", "application/jsonl"];
      await Promise.all(
        types.map(async (type, i) => {
          const stream = await begin(`${at}/parts-${i}`, type, "0\n\n");
          expect(stream.reading.headers).toMatchObject({ "content-type": type });
          if (at !== "/bare") expect(stream.reading.headers["x-edited"]).toBe("yes");
          expect(await next(stream)).toBe("0\n\n");
          for (let n = 1; n <= 8; n++) {
            await sleep(100);
            stream.writing.write(`${n}\n\n`);
            expect(await next(stream)).toBe(`${n}\n\n`);
          }
          stream.writing.end();
          await once(stream.reading.resume(), "end");
          expect(stream.reading.complete).toBe(true);
        }),
      );
    });

    it("that is compressed stays as it is", async () => {
      const text = "data: to be or not to be\n\n".repeat(1_000);
      const bytes = gzipSync(text);
      const path = `${at}/gzip`;
      originOf(path).on(path, (_, response) => {
        response.writeHead(200, { "content-type": EVENTS, "content-encoding": "gzip" });
        response.end(bytes);
      });
      const answer = await on.ask(path, { headers: { "accept-encoding": "gzip" } });
      expect(answer.headers["content-encoding"]).toBe("gzip");
      expect(answer.body.equals(bytes)).toBe(true);
      expect(gunzipSync(answer.body).toString()).toBe(text);
    });

    it("ends in the cluster when the client goes away", async () => {
      const stream = await begin(`${at}/left`, EVENTS, "data: 0\n\n");
      await next(stream);
      const before = endings().length;
      stream.leave();
      await until("the origin sees it", () => stream.arrived.aborted);
      // Not for having been idle.
      expect(endings().length).toBe(before);
    });

    it("ends in the cluster when the client of a POST goes away", async () => {
      const stream = await begin(`${at}/asked`, EVENTS, "data: 0\n\n", {
        method: "POST",
        headers: { "content-length": 0 },
      });
      await next(stream);
      const before = endings().length;
      stream.leave();
      await until("the origin sees it", () => stream.arrived.aborted);
      // Not for having been idle.
      expect(endings().length).toBe(before);
    });

    it("that breaks off in the cluster breaks off for the client", async () => {
      const stream = await begin(`${at}/torn`, EVENTS, "data: 0\n\n");
      await next(stream);
      stream.writing.destroy();
      await expect(stream.reading.toArray()).rejects.toThrow("aborted");
    });

    it("without a body is an answer like any other", async () => {
      const path = `${at}/nothing`;
      originOf(path).on(path, (_, response) => response.writeHead(204, { "content-type": EVENTS }).end());
      expect((await on.ask(path)).status).toBe(204);
      originOf(path).on(path, (_, response) => response.writeHead(200, { "content-type": EVENTS }).end());
      expect((await on.ask(path)).body).toHaveLength(0);
      expect((await on.ask(path, { method: "HEAD" })).status).toBe(200);
    });
  });

  it.each(["/idle", "/bare"])(
    "of 50 MB to a slow client does not pile up in the gateway, nor count as idle, at %s",
    async (at) => {
      const size = 50_000_000;
      const piece = Buffer.alloc(500_000, "x");
      const stream = await begin(`${at}/large`, "application/x-ndjson", piece);
      const before = on.gateway.memory();
      let written = piece.length;
      const writing = (async () => {
        for (; written < size; written += piece.length)
          if (!stream.writing.write(piece)) await once(stream.writing, "drain");
        stream.writing.end();
      })();
      await until("the origin is held up", async () => {
        const before = written;
        await sleep(100);
        return before === written;
      });
      await sleep(IDLE * 2);
      expect(written).toBeLessThan(size);
      expect(on.gateway.memory() - before).toBeLessThan(24_000_000);
      expect((await digest(stream.reading)).bytes).toBe(size);
      await writing;
    },
  );

  it.each(["/idle/silent", "/bare/silent"])(
    "in which nothing comes for too long breaks off at both ends, at %s",
    async (path) => {
      const before = endings().length;
      const stream = await begin(path, EVENTS, "data: 0\n\n");
      await next(stream);
      await sleep(IDLE / 2);
      stream.writing.write("data: 1\n\n");
      const last = Date.now();
      await next(stream);
      await expect(stream.reading.toArray()).rejects.toThrow("aborted");
      expect(Date.now() - last).toBeGreaterThanOrEqual(IDLE - 10);
      expect(Date.now() - last).toBeLessThan(2_000);
      await until("the origin sees it", () => stream.arrived.aborted);
      const line = await until("a line in the log", () => endings()[before]);
      const record = await on.gateway.record("of the stream", ({ id, route }) => id === line.id && route !== undefined);
      expect(line).toMatchObject({ v: 1, why: "idle", route: record.route });
      expect(record).toMatchObject({ path, status: 200 });
      expect(line.ms).toBeGreaterThanOrEqual(IDLE);
    },
  );

  it("without an idle limit may be silent", async () => {
    const stream = await begin("/free/silent", EVENTS, "data: 0\n\n");
    await next(stream);
    await sleep(IDLE * 3);
    stream.writing.write("data: 1\n\n");
    expect(await next(stream)).toBe("data: 1\n\n");
  });
});
