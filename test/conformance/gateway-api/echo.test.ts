/** The echo origins, asked over TCP, against what the README says that backends must do. */
import { connect } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { type Echo, EchoOrigin } from "./echo.ts";
import { type Answer, exchange, type WireRequest } from "./exchange.ts";
import { CONTENT_TYPE, emptyRequest, readResult } from "./grpc-web.ts";
import { echoOf } from "./judge.ts";

let origin: EchoOrigin;
beforeAll(async () => {
  origin = await EchoOrigin.start({
    namespace: "infra",
    service: "headless",
    port: 8080,
    targetPort: 3000,
    backend: "infra-backend-v1",
  });
});
afterAll(() => origin.close());

const ask = (target: string, parts: Partial<WireRequest> = {}): Promise<Answer> =>
  exchange(origin.port, { method: "GET", scheme: "http", host: "a.example:8080", target, headers: {}, ...parts });

describe("an echo", () => {
  it("is the request as it was on the wire, and who answers", async () => {
    const headers = { "x-one-two": "a", "X-FORWARDED-proto": "https" };
    const answer = await ask("/a//b/%7e?x=%20&x", { method: "PUT", headers, body: Buffer.from("body") });
    expect(answer.status).toBe(200);
    expect(answer.headers.get("content-type")).toEqual(["application/json"]);
    const { pod, headers: seen, ...echo } = echoOf(answer) as Echo;
    expect(echo).toEqual({
      path: "/a//b/%7e?x=%20&x",
      host: "a.example:8080",
      method: "PUT",
      proto: "HTTP/1.1",
      httpPort: "3000",
      namespace: "infra",
      ingress: "",
      service: "headless",
    });
    expect(pod).toMatch(/^infra-backend-v1-[0-9a-f]+-[0-9a-f]+$/);
    expect(seen).toMatchObject({ "X-One-Two": ["a"], "Content-Length": ["4"] });
    expect(seen).not.toHaveProperty("Host");
  });

  it("has a value for each line of a header", async () => {
    const lines = await raw("GET /lines HTTP/1.1\r\nHost: a\r\nX-Many: 1\r\nx-many: 2, 3\r\nConnection: close\r\n\r\n");
    expect(
      JSON.parse(
        lines
          .split("\r\n\r\n")
          .at(-1)
          ?.match(/\{.*\}/s)?.[0] ?? "",
      ).headers["X-Many"],
    ).toEqual(["1", "2, 3"]);
  });

  it("waits as long as it is asked to", async () => {
    const started = performance.now();
    expect((await ask("/slow?delay=30ms")).status).toBe(200);
    expect(performance.now() - started).toBeGreaterThan(29);
    expect((await ask("/slow?delay=soon")).status).toBe(500);
  });

  it("has the headers that it is asked for, values of the same name joined", async () => {
    const headers = { "X-Echo-Set-Header": "X-One:a:b, X-Two: c,X-One:d" };
    const answer = await ask("/", { headers });
    expect([answer.headers.get("x-one"), answer.headers.get("x-two")]).toEqual([["a:b,d"], ["c"]]);
  });

  it("is counted by its target", async () => {
    await Promise.all([ask("/counted?id=1"), ask("/counted?id=1"), ask("/counted?id=2")]);
    expect(["/counted?id=1", "/counted?id=2", "/counted"].map((target) => origin.arrivals(target))).toEqual([2, 1, 0]);
  });
});

it("answers with a status", async () => {
  expect((await ask("/status/418")).status).toBe(418);
  expect((await ask("/status/nan")).status).toBe(400);
  expect((await ask("/status/200?x")).status).toBe(400);
});

describe("/retry/", () => {
  it("fails the first tries of a uuid with a status, late if asked to", async () => {
    const started = performance.now();
    const target = "/retry/a?uuid=1&succeedAfter=2&responseCode=503&delayRetry=20ms";
    const statuses = [await ask(target), await ask(target), await ask(target), await ask(target)].map(
      ({ status }) => status,
    );
    expect(statuses).toEqual([503, 503, 200, 200]);
    expect(performance.now() - started).toBeGreaterThan(39);
    expect((await ask(target.replace("uuid=1", "uuid=2"))).status).toBe(503);
  });

  it("resets the connection where there is no status", async () => {
    const target = "/retry/a?uuid=3&succeedAfter=1";
    await expect(raw(`GET ${target} HTTP/1.1\r\nHost: a\r\n\r\n`)).rejects.toThrow("read ECONNRESET");
    expect(echoOf(await ask(target))?.path).toBe(target);
  });

  it.each(["/retry/a", "/retry/a?uuid=4", "/retry/a?uuid=4&succeedAfter=x"])("refuses %s", async (target) => {
    expect((await ask(target)).status).toBe(400);
  });
});

it("echoes WebSocket messages on /ws, and only there", async () => {
  const socket = new WebSocket(`ws://127.0.0.1:${origin.port}/ws?x`);
  const came = new Promise((resolve) => {
    const messages: unknown[] = [];
    socket.on("message", (data, binary) => {
      messages.push(binary ? data : String(data));
      if (messages.length === 2) resolve(messages);
    });
  });
  socket.on("open", () => {
    socket.send("text");
    socket.send(Buffer.from([0, 255]));
  });
  expect(await came).toEqual(["text", Buffer.from([0, 255])]);
  socket.terminate();

  const status = await new Promise((resolve) => {
    const elsewhere = new WebSocket(`ws://127.0.0.1:${origin.port}/other`);
    elsewhere.on("error", () => {});
    elsewhere.on("unexpected-response", (_, response) => {
      resolve(response.statusCode);
      elsewhere.terminate();
    });
  });
  expect(status).toBe(200);
});

describe("gRPC-Web", () => {
  const SERVICE = "/gateway_api_conformance.echo_basic.grpcecho.GrpcEcho";
  const call = async (target: string) => {
    const headers = { "Content-Type": CONTENT_TYPE, "X-Meta": "a".repeat(200) };
    const answer = await ask(target, { method: "POST", headers, body: emptyRequest() });
    expect([answer.status, answer.headers.get("content-type")]).toEqual([200, [CONTENT_TYPE]]);
    return readResult(answer.status, (name) => answer.headers.get(name)?.join(), answer.body);
  };

  it("answers Echo and EchoTwo with what it got", async () => {
    for (const method of ["Echo", "EchoTwo"]) {
      const { code, assertions } = await call(`${SERVICE}/${method}`);
      expect(code).toBe("OK");
      expect(assertions).toMatchObject({
        fullyQualifiedMethod: `${SERVICE}/${method}`,
        authority: "a.example:8080",
        namespace: "infra",
        pod: origin.pod,
      });
      expect(assertions?.headers).toContainEqual(["x-meta", "a".repeat(200)]);
    }
  });

  it("has no other methods", async () => {
    for (const target of [`${SERVICE}/EchoThree`, "/other.Service/Echo"])
      expect((await call(target)).code).toBe("Unimplemented");
  });

  it("takes a status from headers, and maps one of HTTP", () => {
    const none = Buffer.alloc(0);
    expect(readResult(200, (name) => ({ "grpc-status": "14", "grpc-message": "gone" })[name], none)).toEqual({
      code: "Unavailable",
      message: "gone",
    });
    const codes = [400, 401, 403, 404, 429, 500, 502, 503, 504].map(
      (status) => readResult(status, () => undefined, none).code,
    );
    expect(codes).toEqual([
      "Internal",
      "Unauthenticated",
      "PermissionDenied",
      "Unimplemented",
      "Unavailable",
      "Unknown",
      "Unavailable",
      "Unavailable",
      "Unavailable",
    ]);
    expect(() => readResult(200, () => undefined, none)).toThrow("no trailers");
    expect(() => readResult(200, () => undefined, Buffer.from([0x80, 0, 0, 0, 9, 1]))).toThrow("middle of a frame");
  });
});

/** Sends bytes as they are, and gives everything that comes until the origin closes. */
function raw(bytes: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(origin.port, "127.0.0.1", () => socket.write(bytes));
    let came = "";
    socket.setEncoding("utf8").on("data", (chunk) => (came += chunk));
    socket.on("error", reject);
    socket.on("close", () => resolve(came));
  });
}
