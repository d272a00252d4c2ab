/** What passes between client and cluster, and what happens when one of them is slow, silent or gone. */
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import type { Asking } from "./client.ts";
import { type DeafServer, startDeafServer } from "./deaf-server.ts";
import { describeWithRealParts, Fixture } from "./fixture.ts";
import { type Arrived, digest } from "./origin.ts";
import { until } from "./process.ts";

const ROUTES = `
import { mirror } from "portcullis";
const deaf = cluster("deaf", { ingress: env("DEAF") });
const nobody = cluster("nobody", { ingress: env("NOBODY") });
export default gateway(settings, [
  api("shop", {}, [
    route("edited", { path: "/edited/*" }, { policies: [headers({ response: { set: { "x-edited": "yes" } } })], to: origin }),
    route("bare", { path: "/bare/*" }, { policies: [without("requestId")], to: origin }),
    route("filtered", { path: "/filtered/*" }, { policies: [filter({})], to: origin }),
    route("nginx", { path: "/nginx/*" }, { to: us }),
    route("hasty", { path: "/hasty/*" }, { to: origin, timeouts: { connect: "300ms", firstByte: "500ms", total: "1s" } }),
    route("upload", { path: "/slow-upload/*" }, { to: origin, timeouts: { firstByte: "300ms", total: "5s" } }),
    route("deaf", { path: "/deaf/*" }, { to: deaf, timeouts: { connect: "600ms", firstByte: "10s", total: "10s" } }),
    route("rescued", { path: "/rescued/*" }, { to: deaf.or(origin), timeouts: { connect: "400ms", firstByte: "10s", total: "10s" } }),
    route("nobody", { path: "/nobody/*" }, { to: nobody }),
    route("repeated", { path: "/repeated/*" }, { to: origin, retry: { methods: "any", on: ["connection", 503] },
      mirrors: [mirror(us, { methods: "any" })] }),
    route("get", { path: "/get/*", methods: ["GET"] }, { to: origin }),
  ]),
]);`;

describeWithRealParts("forwarding", () => {
  let on: Fixture;
  let deaf: DeafServer;
  beforeAll(async () => {
    deaf = await startDeafServer();
    on = await Fixture.start({
      routes: ROUTES,
      // Port 1 is tcpmux, which nothing listens on.
      texts: { DEAF: `http://127.0.0.1:${deaf.port}`, NOBODY: "http://127.0.0.1:1" },
    });
  });
  afterAll(async () => {
    await on?.close();
    await deaf?.close();
  });

  /** Opens a request whose response is read as it comes, and which is gone after the test. */
  function open(path: string, asking?: Asking) {
    const opened = on.open(path, asking);
    opened.sent.on("error", () => {});
    opened.response.catch(() => {});
    onTestFinished(() => void opened.sent.destroy());
    return opened;
  }

  /** A request that the origin holds: what arrived, and the response to write whenever the test likes. */
  function held(path: string): Promise<{ request: IncomingMessage; response: ServerResponse; arrived: Arrived }> {
    return new Promise((resolve) => {
      on.origin.on(path, (request, response, arrived) => resolve({ request, response, arrived }));
    });
  }

  // With headers to change the response is a new one around the same body, without it is the cluster's own.
  describe.each(["/edited", "/bare"])("a response, at %s", (at) => {
    it("arrives piece by piece, as it is sent", async () => {
      const atOrigin = held(`${at}/trickle`);
      const { sent, response } = open(`${at}/trickle`);
      sent.end();
      const { response: writing } = await atOrigin;
      writing.writeHead(200, { "content-type": "text/plain" });
      writing.write("first");
      const reading = await response;
      expect(String((await once(reading, "data"))[0])).toBe("first");
      writing.write("second");
      expect(String((await once(reading, "data"))[0])).toBe("second");
      writing.end();
      await once(reading.resume(), "end");
      expect(reading.complete).toBe(true);
    });

    it.each(["gzip", "br"])("that is encoded with %s stays as it is", async (encoding) => {
      const text = "to be or not to be ".repeat(500);
      const bytes = encoding === "gzip" ? gzipSync(text) : brotliCompressSync(text);
      on.origin.on(`${at}/${encoding}`, (_, response) => {
        response.writeHead(200, {
          "content-encoding": encoding,
          "content-type": "text/plain",
          "content-length": bytes.length,
        });
        response.end(bytes);
      });
      for (const headers of [{ "accept-encoding": encoding }, {}]) {
        const answer = await on.ask(`${at}/${encoding}`, { headers });
        expect(answer.headers).toMatchObject({ "content-encoding": encoding, "content-length": String(bytes.length) });
        expect(answer.body.equals(bytes)).toBe(true);
      }
    });

    it("that claims gzip and is none passes too", async () => {
      on.origin.on(`${at}/broken-gzip`, (_, response) => {
        response.writeHead(200, { "content-encoding": "gzip" }).end("not gzip at all");
      });
      expect((await on.ask(`${at}/broken-gzip`)).text()).toBe("not gzip at all");
    });

    it("keeps its cookies apart", async () => {
      const cookies = ["a=1; Path=/; Expires=Wed, 21 Oct 2026 07:28:00 GMT", "b=2; HttpOnly", "c=x,y"];
      on.origin.on(`${at}/cookies`, (_, response) => response.writeHead(200, { "set-cookie": cookies }).end());
      expect((await on.ask(`${at}/cookies`)).headers["set-cookie"]).toEqual(cookies);
    });

    it("to HEAD has the headers of GET and no body", async () => {
      on.origin.on(`${at}/head`, (request, response) => {
        response.writeHead(200, { "content-length": 1234, etag: '"v1"', "x-method": request.method as string });
        response.end(request.method === "HEAD" ? undefined : "x".repeat(1234));
      });
      const answer = await on.ask(`${at}/head`, { method: "HEAD" });
      expect(answer.status).toBe(200);
      expect(answer.headers).toMatchObject({ "content-length": "1234", etag: '"v1"', "x-method": "HEAD" });
      expect(answer.body).toHaveLength(0);
      // The connection is still in step.
      expect((await on.ask(`${at}/head`)).body).toHaveLength(1234);
    });

    it.each([204, 304])("with status %i has no body", async (status) => {
      on.origin.on(`${at}/empty`, (_, response) => response.writeHead(status, { etag: '"v1"' }).end());
      const answer = await on.ask(`${at}/empty`);
      expect(answer.status).toBe(status);
      expect(answer.headers.etag).toBe('"v1"');
      expect(answer.body).toHaveLength(0);
      expect(answer.headers).not.toHaveProperty("transfer-encoding");
      if (status === 204) expect(answer.headers).not.toHaveProperty("content-length");
    });

    it.each([301, 302, 303, 307, 308])("that redirects with %i is the client's to follow", async (status) => {
      on.origin.on(`${at}/redirect`, (_, response) =>
        response.writeHead(status, { location: "http://elsewhere.test/?x=1" }).end(),
      );
      const before = on.origin.arrived.length;
      const answer = await on.ask(`${at}/redirect`);
      expect([answer.status, answer.headers.location]).toEqual([status, "http://elsewhere.test/?x=1"]);
      expect(on.origin.arrived.length).toBe(before + 1);
    });

    it.each([400, 401, 404, 418, 429, 500, 501, 502, 503, 504, 511, 599])(
      "of an error with %i is the cluster's own",
      async (status) => {
        on.origin.on(`${at}/error`, (_, response) =>
          response.writeHead(status, { "x-own": "yes" }).end("the cluster says no"),
        );
        const answer = await on.ask(`${at}/error`);
        expect([answer.status, answer.text(), answer.headers["x-own"]]).toEqual([status, "the cluster says no", "yes"]);
      },
    );

    it("keeps headers for one connection to that connection", async () => {
      on.origin.on(`${at}/hop`, (_, response) => {
        response.writeHead(200, {
          connection: "x-hop, close",
          "x-hop": "1",
          "keep-alive": "timeout=7",
          "proxy-authenticate": "Basic",
          "proxy-connection": "keep-alive",
          trailer: "x-checksum",
          upgrade: "h2c",
          "x-end": "1",
        });
        response.end("x");
      });
      const { headers } = await on.ask(`${at}/hop`);
      expect(headers["x-end"]).toBe("1");
      for (const name of ["x-hop", "proxy-authenticate", "proxy-connection", "trailer", "upgrade"])
        expect(headers, name).not.toHaveProperty(name);
      expect(headers["keep-alive"]).not.toBe("timeout=7");
    });

    it("of 50 MB to a slow client does not pile up in the gateway", async () => {
      const size = 50_000_000;
      let written = 0;
      on.origin.on(`${at}/large`, async (_, response) => {
        const piece = Buffer.alloc(500_000, "x");
        for (; written < size; written += piece.length) if (!response.write(piece)) await once(response, "drain");
        response.end();
      });
      const { sent, response } = open(`${at}/large`);
      sent.end();
      const reading = await response;
      const before = on.gateway.memory();
      // Not read until the origin can send no more: the sockets' buffers are full on both sides.
      await until("the origin is held up", async () => {
        const before = written;
        await sleep(100);
        return before > 0 && before === written;
      });
      expect(written).toBeLessThan(size);
      expect(on.gateway.memory() - before).toBeLessThan(16_000_000);
      expect((await digest(reading)).bytes).toBe(size);
      expect(on.gateway.memory() - before).toBeLessThan(32_000_000);
    });
  });

  describe("a request", () => {
    it("reaches the cluster piece by piece, as it is sent", async () => {
      const atOrigin = held("/edited/upload");
      const { sent, response } = open("/edited/upload", { method: "POST" });
      sent.write("first");
      const { request, response: writing } = await atOrigin;
      expect(String((await once(request, "data"))[0])).toBe("first");
      sent.write("second");
      expect(String((await once(request, "data"))[0])).toBe("second");
      sent.end();
      await once(request.resume(), "end");
      writing.end("thanks");
      expect((await response).statusCode).toBe(200);
    });

    it.each([
      ["/bare", {}],
      ["/bare", { "content-length": 100_000_000 }],
      // With retries and mirrors, which keep what is small.
      ["/repeated", {}],
      ["/repeated", { "content-length": 100_000_000 }],
    ])("of 100 MB goes through in bounded memory, at %s with %o", async (at, headers) => {
      const piece = randomBytes(1_000_000);
      const hash = createHash("sha256");
      // So that what workerd keeps for any upload at all is not counted.
      await on.ask(`${at}/warm`, { method: "POST", body: piece });
      const before = on.gateway.memory();
      let most = 0;
      const { sent, response } = open(`${at}/hundred`, { method: "POST", headers });
      for (let i = 0; i < 100; i++) {
        hash.update(piece);
        if (!sent.write(piece)) await once(sent, "drain");
        most = Math.max(most, on.gateway.memory() - before);
      }
      sent.end();
      const reading = await response;
      expect(reading.statusCode).toBe(200);
      const echo = JSON.parse(String(Buffer.concat(await reading.toArray())));
      expect(echo.body).toEqual({ bytes: 100_000_000, sha256: hash.digest("hex") });
      expect(echo.headers).toMatchObject(
        "content-length" in headers ? { "content-length": "100000000" } : { "transfer-encoding": "chunked" },
      );
      expect(most).toBeLessThan(40_000_000);
      expect(on.origins["us/orders"].arrivedAt("/hundred")).toEqual([]);
    });

    it.each(["/edited/bytes", "/filtered/bytes", "/nginx/bytes"])(
      "keeps the bytes of its body, at %s",
      async (path) => {
        const bodies = [
          Buffer.from([0]),
          Buffer.from('{"name":"Žluťoučký 🐎","n":1}'),
          randomBytes(1_000),
          // Just at, and well beyond, what the filter holds.
          randomBytes(65_536),
          randomBytes(300_001),
        ];
        for (const method of ["POST", "PUT", "PATCH", "DELETE"]) {
          for (const type of ["application/json", "application/octet-stream"]) {
            for (const body of bodies) {
              // Random bytes may look like anything to the filter, so they go as what it does not read.
              const headers = { "content-type": body.length < 100 ? type : "application/octet-stream" };
              const answer = await on.ask(path, {
                method,
                headers: { ...headers, "content-length": body.length },
                body,
              });
              expect(answer.status).toBe(200);
              const { method: came, headers: kept, body: read } = answer.echo();
              expect(came).toBe(method);
              expect(kept).toMatchObject({ ...headers, "content-length": String(body.length) });
              expect(read).toEqual(await digest([body] as unknown as AsyncIterable<Uint8Array>));
            }
          }
        }
      },
    );

    it("whose body the filter reads keeps its bytes, with and without a length", async () => {
      const text = Buffer.from(JSON.stringify({ note: "a perfectly ordinary note. ".repeat(20_000) }));
      const wanted = await digest([text] as unknown as AsyncIterable<Uint8Array>);
      for (const size of [40, 65_535, 65_536, 65_537, text.length]) {
        const body = text.subarray(0, size);
        for (const headers of [{ "content-length": size }, { "transfer-encoding": "chunked" }]) {
          const answer = await on.ask("/filtered/json", {
            method: "POST",
            headers: { "content-type": "application/json", ...headers },
            body,
          });
          expect(answer.status).toBe(200);
          expect(answer.echo().body.bytes).toBe(size);
          if (size === text.length) expect(answer.echo().body).toEqual(wanted);
        }
      }
      const attack = await on.ask("/filtered/json", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: '{"q":"1\' UNION SELECT password FROM users--"}',
      });
      expect([attack.status, attack.json().code]).toEqual([403, "request-filtered"]);
    });

    it("with an empty body says so as it did", async () => {
      const empty = await on.ask("/edited/nothing", { method: "POST", headers: { "content-length": 0 } });
      expect(empty.echo().headers).toMatchObject({ "content-length": "0" });
      expect(empty.echo().headers).not.toHaveProperty("transfer-encoding");
      const filtered = await on.ask("/filtered/empty", {
        method: "PUT",
        headers: { "content-length": 0, "content-type": "application/json" },
      });
      expect(filtered.echo().headers).toMatchObject({ "content-length": "0" });
      for (const method of ["GET", "DELETE", "OPTIONS"]) {
        const { headers } = (await on.ask("/edited/none", { method })).echo();
        expect(headers).not.toHaveProperty("transfer-encoding");
        expect(headers["content-length"] ?? "0").toBe("0");
      }
    });

    it("with Expect is served all the same", async () => {
      const answer = await on.write(
        "POST /edited/expect HTTP/1.1\r\nHost: api.example.com\r\nExpect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
      );
      expect(answer.status).toBe(200);
      expect(JSON.parse(answer.body).body.bytes).toBe(5);
    });

    it("keeps its headers, and its own connection's to itself", async () => {
      const answer = await on.write(
        [
          "GET /edited/headers?a=%2F&b=c%20d&e HTTP/1.1",
          "Host: API.example.com:8443",
          "Accept: text/html, */*;q=0.1",
          "Accept-Language: cs",
          "Cookie: a=1; b=2",
          'If-None-Match: "v1"',
          "Range: bytes=0-5",
          "X-Twice: one",
          "X-Twice: two",
          "Connection: keep-alive, TE, X-Hop",
          "X-Hop: 1",
          "TE: trailers",
          "Keep-Alive: timeout=5",
          "Proxy-Authorization: Basic c2VjcmV0",
          "Proxy-Connection: keep-alive",
          "Trailer: X-Checksum",
          "Upgrade: h2c",
          "",
          "",
        ].join("\r\n"),
      );
      const { headers, url } = JSON.parse(answer.body);
      expect(url).toBe("/edited/headers?a=%2F&b=c%20d&e");
      expect(headers).toMatchObject({
        accept: "text/html, */*;q=0.1",
        "accept-language": "cs",
        cookie: "a=1; b=2",
        "if-none-match": '"v1"',
        range: "bytes=0-5",
        "x-twice": "one, two",
        "x-forwarded-host": "API.example.com:8443",
      });
      for (const name of [
        "x-hop",
        "te",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "trailer",
        "upgrade",
      ]) {
        expect(headers, name).not.toHaveProperty(name);
      }
      expect(headers.connection ?? "keep-alive").toBe("keep-alive");
    });

    it("with OPTIONS that is no preflight is the cluster's to answer", async () => {
      expect((await on.ask("/edited/options", { method: "OPTIONS" })).echo()).toMatchObject({ method: "OPTIONS" });
    });

    it("with HEAD finds the route for GET", async () => {
      on.origin.on("/get/x", (request, response) =>
        response.writeHead(200, { "x-method": request.method as string }).end(),
      );
      expect((await on.ask("/get/x", { method: "HEAD" })).headers["x-method"]).toBe("HEAD");
    });
  });

  // A reset, since workerd takes a FIN for a client that has nothing more to say: it notices that one is gone when it next writes.
  describe("a client that goes away", () => {
    it.each(["GET", "POST"])(
      "before the cluster has answered %s ends the request there too, with a record",
      async (method) => {
        const atOrigin = held(`/edited/abandoned-${method}`);
        const { sent } = open(`/edited/abandoned-${method}`, { method });
        if (method === "GET") sent.end();
        else sent.write("first");
        const { arrived } = await atOrigin;
        sent.socket?.resetAndDestroy();
        await until("the origin sees it", () => arrived.aborted);
        const record = await on.gateway.record("of it", ({ path }) => path === `/edited/abandoned-${method}`);
        expect(record).toMatchObject({
          status: 499,
          reason: "client-closed",
          attempts: [{ backend: "origin", error: "client-closed" }],
        });
      },
    );

    it.each(["/edited/half", "/bare/half", "/nginx/half"])(
      "in the middle of the response ends it there too, at %s",
      async (path) => {
        const origin = path.startsWith("/nginx") ? on.origins["us/orders"] : on.origin;
        const atOrigin = new Promise<{ response: ServerResponse; arrived: Arrived }>((resolve) => {
          origin.on(path, (_, response, arrived) => resolve({ response, arrived }));
        });
        const { sent, response } = open(path);
        sent.end();
        const { response: writing, arrived } = await atOrigin;
        writing.write("first");
        await once(await response, "data");
        sent.socket?.resetAndDestroy();
        await until("the origin sees it", () => arrived.aborted);
      },
    );

    it("without a reset is noticed when there is more to write to it", async () => {
      const atOrigin = held("/bare/quiet");
      const { sent, response } = open("/bare/quiet");
      sent.end();
      const { response: writing, arrived } = await atOrigin;
      writing.write("first");
      await once(await response, "data");
      sent.destroy();
      await until("the origin sees it", () => {
        writing.write("more");
        return arrived.aborted;
      });
    });

    it("in the middle of its upload ends it there too", async () => {
      const atOrigin = held("/edited/cut");
      const { sent } = open("/edited/cut", { method: "POST" });
      sent.write("first");
      const { request, arrived } = await atOrigin;
      await once(request, "data");
      sent.socket?.resetAndDestroy();
      await until("the origin sees it", () => arrived.aborted);
    });
  });

  describe("a cluster", () => {
    it("that does not accept the connection in time gets 504 upstream-connect-timeout", async () => {
      const started = Date.now();
      const answer = await on.ask("/deaf/x");
      expect([answer.status, answer.json().code]).toEqual([504, "upstream-connect-timeout"]);
      expect(Date.now() - started).toBeGreaterThanOrEqual(590);
      expect(Date.now() - started).toBeLessThan(3_000);
      expect(await on.gateway.recordOf(answer)).toMatchObject({
        reason: "upstream-connect-timeout",
        attempts: [{ backend: "deaf", error: "upstream-connect-timeout" }],
      });
    });

    it("that does not accept the connection is replaced by the next one", async () => {
      const answer = await on.ask("/rescued/x");
      expect(answer.echo().servedBy).toBe("origin");
      expect((await on.gateway.recordOf(answer)).attempts).toMatchObject([
        { backend: "deaf", error: "upstream-connect-timeout" },
        { backend: "origin", status: 200 },
      ]);
    });

    it("that is silent gets 504 upstream-timeout, and hears that nobody waits any more", async () => {
      const atOrigin = held("/hasty/silent");
      const started = Date.now();
      const answer = await on.ask("/hasty/silent");
      expect([answer.status, answer.json().code]).toEqual([504, "upstream-timeout"]);
      expect(Date.now() - started).toBeGreaterThanOrEqual(490);
      expect(Date.now() - started).toBeLessThan(3_000);
      const { arrived } = await atOrigin;
      await until("the origin sees it", () => arrived.aborted);
    });

    it.each([{}, { "content-length": 15 }])("that waits for the client is not blamed for it: %o", async (headers) => {
      const { sent, response } = open("/slow-upload/x", { method: "POST", headers });
      for (let i = 0; i < 5; i++) {
        sent.write("abc");
        await sleep(120);
      }
      sent.end();
      expect((await response).statusCode).toBe(200);
    });

    it("that answers within the time is not cut for being slow to begin", async () => {
      on.origin.on("/hasty/slow", (_, response) => void setTimeout(() => response.end("slow"), 350));
      expect((await on.ask("/hasty/slow")).text()).toBe("slow");
    });

    it.each([{}, { "content-length": 1_000_000 }])(
      "whose response does not end in time is cut off, at both ends: %o",
      async (headers) => {
        const atOrigin = held("/hasty/endless");
        const started = Date.now();
        const { sent, response } = open("/hasty/endless");
        sent.end();
        const { response: writing, arrived } = await atOrigin;
        writing.writeHead(200, headers);
        const trickle = setInterval(() => writing.write("more"), 50);
        onTestFinished(() => clearInterval(trickle));
        const reading = await response;
        expect(reading.statusCode).toBe(200);
        await expect(reading.toArray()).rejects.toThrow("aborted");
        expect(Date.now() - started).toBeGreaterThanOrEqual(990);
        expect(Date.now() - started).toBeLessThan(3_000);
        await until("the origin sees it", () => arrived.aborted);
      },
    );

    it("whose small response does not end in time gets 504", async () => {
      const atOrigin = held("/hasty/stuck");
      const asked = on.ask("/hasty/stuck");
      const { response: writing, arrived } = await atOrigin;
      writing.writeHead(200, { "content-length": 10 }).write("half");
      const answer = await asked;
      expect([answer.status, answer.json().code]).toEqual([504, "upstream-timeout"]);
      await until("the origin sees it", () => arrived.aborted);
    });

    it("that sends events may do so for longer than the total time, each as it is sent", async () => {
      const atOrigin = held("/hasty/events");
      const { sent, response } = open("/hasty/events", { headers: { accept: "text/event-stream" } });
      sent.end();
      const { response: writing } = await atOrigin;
      const started = Date.now();
      writing.writeHead(200, { "content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache" });
      writing.write("data: 0\n\n");
      const reading = await response;
      expect(reading.headers["content-type"]).toBe("text/event-stream; charset=utf-8");
      expect(String((await once(reading, "data"))[0])).toBe("data: 0\n\n");
      for (let n = 1; n <= 13; n++) {
        await sleep(100);
        writing.write(`data: ${n}\n\n`);
        expect(String((await once(reading, "data"))[0])).toBe(`data: ${n}\n\n`);
      }
      expect(Date.now() - started).toBeGreaterThan(1_200);
    });

    it("that nobody reaches gets 502", async () => {
      const answer = await on.ask("/nobody/x");
      expect([answer.status, answer.json().code, answer.headers["retry-after"]]).toEqual([
        502,
        "upstream-unreachable",
        "5",
      ]);
      expect(await on.gateway.recordOf(answer)).toMatchObject({
        reason: "upstream-unreachable",
        attempts: [{ backend: "nobody", error: "upstream-unreachable" }],
      });
    });

    it.each([
      ["hangs up", "", 502],
      ["hangs up in the middle of the headers", "HTTP/1.1 200 OK\r\ncontent-", 502],
      ["speaks no HTTP", "220 mail.example.com ESMTP\r\n", 502],
      ["answers with two lengths", "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", 502],
    ])("that %s gets 502 and a problem document", async (_, bytes, status) => {
      on.origin.on("/edited/rude", (request) => request.socket.end(bytes));
      const answer = await on.ask("/edited/rude");
      expect(answer.status).toBe(status);
      expect(answer.headers["content-type"]).toBe("application/problem+json");
    });

    it.each([{}, { "content-length": 100_000_000 }])(
      "that hangs up in the middle of an upload gets 502: %o",
      async (headers) => {
        on.origin.on("/edited/refused", (request) => void setTimeout(() => request.socket.resetAndDestroy(), 100));
        const { sent, response } = open("/edited/refused", { method: "POST", headers });
        // More than the buffers on the way take, so that the gateway is writing when the cluster goes.
        for (let i = 0; i < 50; i++) sent.write(Buffer.alloc(1_000_000));
        const answer = await response;
        const problem = JSON.parse(String(Buffer.concat(await answer.toArray())));
        expect([answer.statusCode, problem.code]).toEqual([502, "upstream-unreachable"]);
      },
    );

    it("that hangs up in the middle of the body leaves the client with a response that is not whole", async () => {
      for (const headers of [{ "content-length": 100_000 }, {}]) {
        on.origin.on("/edited/torn", (_, response) => {
          response.writeHead(200, headers);
          response.write("half", () => response.destroy());
        });
        await expect(on.ask("/edited/torn")).rejects.toThrow("aborted");
      }
    });

    it("that hangs up in the middle of a small body gets 502, before the client has seen any of it", async () => {
      on.origin.on("/edited/torn-small", (_, response) => {
        response.writeHead(200, { "content-length": 100 });
        response.write("half", () => response.destroy());
      });
      const answer = await on.ask("/edited/torn-small");
      expect([answer.status, answer.json().code]).toEqual([502, "upstream-invalid"]);
    });

    it.each([
      [520, 502, "upstream-unreachable"],
      [521, 502, "upstream-unreachable"],
      [522, 504, "upstream-timeout"],
      [524, 504, "upstream-timeout"],
      [530, 502, "upstream-unreachable"],
    ])("in whose place Cloudflare answers %i gets %i %s", async (platform, status, code) => {
      on.origin.on("/edited/platform", (_, response) =>
        response.writeHead(platform, { "content-type": "text/html" }).end("<h1>Cloudflare</h1>"),
      );
      const answer = await on.ask("/edited/platform");
      expect([answer.status, answer.json().code]).toEqual([status, code]);
    });
  });

  it("leaves no secret in the log", () => {
    expect(on.gateway.records.length).toBeGreaterThan(50);
    expect(on.leaked()).toEqual([]);
  });
});
