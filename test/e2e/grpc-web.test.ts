/** gRPC-Web through the gateway, read as the protocol's documents have clients read it (grpc/doc/PROTOCOL-WEB.md, PROTOCOL-HTTP2.md). */
import { once } from "node:events";
import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import type { Answer, Asking } from "./client.ts";
import { describeWithRealParts, Fixture } from "./fixture.ts";
import { type Arrived, digest } from "./origin.ts";
import { until } from "./process.ts";

const ROUTES = `
import { missing } from "portcullis";
const timeouts = { connect: "300ms", firstByte: "500ms", total: "600ms" };
const brittle = cluster("brittle", { ingress: env("ORIGIN"), breaker: { minimumRequests: 2, open: "1m" } });
const nobody = cluster("nobody", { ingress: env("NOBODY") });
const unset = cluster("unset", { ingress: env("UNSET") });
const limit = (options) => rateLimit({ per: "client", limit: 1, window: "1d", algorithm: "fixedWindow", timeout: "10s", ...options });
export default gateway({ ...settings, policies: [cors({ origins: ["https://shop.example.com"], expose: ["x-total"] })], maxBody: 10_000 }, [
  api("shop", {}, [
    route("orders", { path: "/shop.Orders/*" }, { to: us, timeouts }),
    route("direct", { path: "/shop.Direct/*" }, { to: origin, timeouts }),
    route("bounded", { path: "/shop.Bounded/*" }, { to: origin, timeouts: { connect: "300ms", firstByte: "0s", total: "400ms" } }),
    route("patient", { path: "/shop.Patient/*" }, { to: origin }),
    route("known", { path: "/shop.Known/*" }, { policies: [token], to: origin }),
    route("scoped", { path: "/shop.Scoped/*" }, { policies: [token, scopes("orders:write")], to: origin }),
    route("filtered", { path: "/shop.Filtered/*" }, { policies: [filter({})], to: origin }),
    route("get", { path: "/shop.Get/*", methods: ["GET"] }, { to: origin }),
    route("limited", { path: "/shop.Limited/*" }, { policies: [limit({})], to: origin }),
    route("missing", { path: "/shop.Missing/*" }, { to: missing("the Service is gone") }),
    route("nobody", { path: "/shop.Nobody/*" }, { to: nobody }),
    route("unset", { path: "/shop.Unset/*" }, { to: unset }),
    route("brittle", { path: "/shop.Brittle/*" }, { to: brittle }),
    route("retried", { path: "/shop.Retried/*" }, { to: origin,
      timeouts: { connect: "200ms", firstByte: "200ms", total: "2s" }, retry: { attempts: 3, on: ["timeout"], methods: "any" } }),
  ]),
]);`;

const OK = 0;
const CANCELLED = 1;
const DEADLINE_EXCEEDED = 4;
const PERMISSION_DENIED = 7;
const RESOURCE_EXHAUSTED = 8;
const UNIMPLEMENTED = 12;
const INTERNAL = 13;
const UNAVAILABLE = 14;
const UNAUTHENTICATED = 16;

/** One length-prefixed message, or with `TRAILERS` a block of trailers. */
function frame(payload: string | Buffer, flags = 0): Buffer {
  const bytes = Buffer.from(payload);
  const head = Buffer.alloc(5);
  head.writeUInt8(flags);
  head.writeUInt32BE(bytes.length, 1);
  return Buffer.concat([head, bytes]);
}
const TRAILERS = 0x80;

interface Call {
  readonly messages: string[];
  readonly status: number;
  readonly message: string;
}

/** What a client library makes of an answer: of its headers where it has no body, else of the trailers that end the body. */
function read({ status, headers, body }: Pick<Answer, "status" | "headers" | "body">): Call {
  if (status !== 200) throw new Error(`no gRPC answer: ${status} ${body}`);
  const text = headers["content-type"]?.startsWith("application/grpc-web-text");
  if (!text && !headers["content-type"]?.startsWith("application/grpc")) throw new Error("an unknown content type");
  // Each part of a text stream is base64 with padding of its own.
  const bytes = text
    ? Buffer.concat((String(body).match(/[^=]+=*/g) ?? []).map((part) => Buffer.from(part, "base64")))
    : body;
  const messages: string[] = [];
  let trailers = new Map(["grpc-status", "grpc-message"].map((name) => [name, headers[name] as string | undefined]));
  for (let at = 0; at < bytes.length; ) {
    const end = at + 5 + bytes.readUInt32BE(at + 1);
    const payload = String(bytes.subarray(at + 5, end));
    if (bytes[at] === TRAILERS) {
      const lines = payload.trimEnd().split("\r\n");
      trailers = new Map(
        lines.map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).trim()]),
      );
    } else messages.push(payload);
    at = end;
  }
  const code = trailers.get("grpc-status");
  if (!/^(?:0|[1-9][0-9]?)$/.test(code ?? "")) throw new Error(`no grpc-status: ${code}`);
  return { messages, status: Number(code), message: decodeURIComponent(trailers.get("grpc-message") ?? "") };
}

const BINARY = "application/grpc-web+proto";
const TEXT = "application/grpc-web-text+proto";

describeWithRealParts("gRPC-Web", () => {
  let on: Fixture;
  beforeAll(async () => {
    on = await Fixture.start({ routes: ROUTES, texts: { NOBODY: "http://127.0.0.1:1" } });
  });
  afterAll(() => on?.close());

  const originOf = (path: string) => (path.startsWith("/shop.Orders/") ? on.origins["us/orders"] : on.origin);

  const asking = (type: string, headers: OutgoingHttpHeaders = {}, message = "hello"): Asking => {
    const bytes = frame(message);
    const body = type === TEXT ? bytes.toString("base64") : bytes;
    return { method: "POST", headers: { "content-type": type, accept: type, "x-grpc-web": "1", ...headers }, body };
  };

  type Service = (
    response: ServerResponse,
    say: (bytes: Buffer) => void,
    arrived: Arrived,
    request: IncomingMessage,
  ) => unknown;

  /** A method of a service. What it says goes out as the caller wants it. */
  function serve(path: string, service: Service): void {
    originOf(path).on(path, (request, response, arrived) => {
      const text = request.headers["content-type"] === TEXT;
      response.setHeader("content-type", request.headers["content-type"] as string);
      return service(response, (bytes) => response.write(text ? bytes.toString("base64") : bytes), arrived, request);
    });
  }

  /** Opens a call whose answer is read as it comes. */
  async function open(path: string, type: string, headers: OutgoingHttpHeaders = {}) {
    const { body, ...rest } = asking(type, headers);
    const { sent, response } = on.open(path, rest);
    sent.on("error", () => {});
    onTestFinished(() => void sent.destroy());
    sent.end(body);
    return response;
  }

  const call = async (path: string, type = BINARY, headers: OutgoingHttpHeaders = {}) =>
    read(await on.ask(path, asking(type, headers)));

  describe.each([
    ["/shop.Orders/Get", TEXT],
    ["/shop.Direct/Get", BINARY],
  ])("at %s as %s", (path, type) => {
    it("carries a call with one answer", async () => {
      serve(path, async (response, say, arrived, request) => {
        const chunks = await request.toArray();
        const bytes = Buffer.concat(chunks as Buffer[]);
        const asked = type === TEXT ? Buffer.from(String(bytes), "base64") : bytes;
        response.setHeader("x-initial", "yes");
        say(frame(`${asked.subarray(5)} to you too: ${arrived.headers["x-grpc-web"]}`));
        say(frame("grpc-status: 0\r\nx-trailing: yes\r\n", TRAILERS));
        response.end();
      });
      const answer = await on.ask(path, asking(type));
      expect(answer.headers).toMatchObject({ "content-type": type, "x-initial": "yes" });
      expect(answer.headers).not.toHaveProperty("grpc-status");
      expect(read(answer)).toEqual({ messages: ["hello to you too: 1"], status: OK, message: "" });
    });

    it("carries a stream of answers, each as it is sent, for longer than ordinary answers may take", async () => {
      let say: (bytes: Buffer) => void = () => {};
      let response: ServerResponse | undefined;
      serve(path, (writing, saying) => {
        [response, say] = [writing, saying];
        say(frame("0"));
      });
      const reading = await open(path, type);
      const came: Buffer[] = [];
      const next = async () => came.push((await once(reading, "data"))[0]);
      await next();
      for (let n = 1; n <= 7; n++) {
        await sleep(100);
        say(frame(String(n)));
        await next();
      }
      say(frame("grpc-status: 0\r\n", TRAILERS));
      await next();
      response?.end();
      await once(reading, "end");
      const body = Buffer.concat(came);
      expect(read({ status: 200, headers: reading.headers, body })).toMatchObject({
        messages: ["0", "1", "2", "3", "4", "5", "6", "7"],
        status: OK,
      });
    });

    it("leaves a service's own errors alone", async () => {
      serve(path, (response, say) => {
        say(frame("half"));
        say(frame("grpc-status: 5\r\ngrpc-message: no such order %F0%9F%90%B4\r\n", TRAILERS));
        response.end();
      });
      expect(await call(path, type)).toEqual({ messages: ["half"], status: 5, message: "no such order 🐴" });
      serve(path, (response) => response.writeHead(200, { "grpc-status": "9", "grpc-message": "not now" }).end());
      expect(await call(path, type)).toEqual({ messages: [], status: 9, message: "not now" });
    });
  });

  describe("when the gateway answers itself", () => {
    let bearer: Record<string, string>;
    beforeAll(async () => {
      bearer = await on.issuer.bearer({ sub: "user-1", scope: "orders:read" });
    });

    /** The problem that the same request without gRPC gets, and what a gRPC client gets. */
    async function both(path: string, asked: Asking) {
      const plain = { ...asked, headers: { ...asked.headers, "content-type": "application/octet-stream" } };
      const [problem, answer] = [await on.ask(path, plain), await on.ask(path, asked)];
      const [, message] = /\(([a-z-]+, request [\w-]+)\)$/.exec(read(answer).message) ?? [];
      const [named, id] = message?.split(", request ") ?? [];
      return { problem, answer, named, record: await on.gateway.record(`of ${id}`, (record) => record.id === id) };
    }

    it.each([
      ["/shop.Known/Get", 401, "token-missing", UNAUTHENTICATED, {}],
      ["/shop.Known/Get", 401, "token-invalid", UNAUTHENTICATED, { headers: { authorization: "Bearer a.b.c" } }],
      ["/shop.Scoped/Get", 403, "scope-missing", PERMISSION_DENIED, { bearer: true }],
      ["/shop.Filtered/Get?q=%3Cscript%3Ealert(1)%3C/script%3E", 403, "request-filtered", PERMISSION_DENIED, {}],
      ["/shop.Nowhere/Get", 404, "not-found", UNIMPLEMENTED, {}],
      ["/shop.Get/Get", 405, "method-not-allowed", UNIMPLEMENTED, {}],
      ["/shop.Direct/Large", 413, "body-too-large", RESOURCE_EXHAUSTED, { message: "x".repeat(10_000) }],
      [
        "/shop.Direct/Chunked",
        413,
        "body-too-large",
        RESOURCE_EXHAUSTED,
        { message: "x".repeat(10_000), chunked: true },
      ],
      ["/shop.Direct/..%2fGet", 400, "path-encoded-slash", INTERNAL, {}],
      ["/shop.Missing/Get", 500, "backend-missing", UNAVAILABLE, {}],
      ["/shop.Nobody/Get", 502, "upstream-unreachable", UNAVAILABLE, {}],
      ["/shop.Unset/Get", 503, "not-configured", UNAVAILABLE, {}],
      ["/shop.Direct/Silent", 504, "upstream-timeout", DEADLINE_EXCEEDED, {}],
    ] as const)("%s: %i %s becomes status %i", async (path, httpStatus, code, status, how) => {
      const {
        headers,
        message,
        chunked,
        bearer: known,
      } = { headers: {}, message: "x", chunked: false, bearer: false, ...how };
      on.origin.on("/shop.Direct/Silent", () => {});
      const asked = asking(
        BINARY,
        {
          ...headers,
          ...(known && bearer),
          ...(chunked && { "transfer-encoding": "chunked" }),
        },
        message,
      );
      const { problem, answer, named, record } = await both(path, asked);
      expect([problem.status, problem.json().code]).toEqual([httpStatus, code]);
      expect(answer.headers["content-type"]).toBe(BINARY);
      expect(answer.body).toHaveLength(0);
      expect(read(answer)).toEqual({ messages: [], status, message: expect.stringMatching(/^[A-Z]/) });
      expect(named).toBe(code);
      expect(record).toMatchObject({ status: 200, grpcStatus: status, reason: code });
    });

    it("tells when to come again, where a limit is used up", async () => {
      expect((await on.ask("/shop.Limited/Get")).status).toBe(200);
      const { problem, answer } = await both("/shop.Limited/Get", asking(BINARY));
      expect(problem.json().code).toBe("rate-limited");
      expect(read(answer)).toMatchObject({
        status: RESOURCE_EXHAUSTED,
        message: expect.stringContaining("rate-limited"),
      });
      expect(answer.headers["retry-after"]).toMatch(/^[0-9]+$/);
    });

    it("tells of an open breaker", async () => {
      on.origin.on("/shop.Brittle/Get", (_, response) => response.writeHead(500).end());
      for (let n = 0; n < 2; n++) expect((await on.ask("/shop.Brittle/Get")).status).toBe(500);
      const { problem, answer } = await both("/shop.Brittle/Get", asking(BINARY));
      expect([problem.status, problem.json().code]).toEqual([503, "breaker-open"]);
      expect(read(answer)).toMatchObject({ status: UNAVAILABLE, message: expect.stringContaining("breaker-open") });
    });

    it.each([TEXT, "application/grpc-web", "application/grpc", "application/grpc+json; charset=utf-8"])(
      "answers %s in kind",
      async (type) => {
        const answer = await on.ask("/shop.Known/Get", asking(type));
        expect(answer.headers["content-type"]).toBe(type);
        expect(read(answer).status).toBe(UNAUTHENTICATED);
      },
    );

    it.each(["application/grpc-websocket", "application/json", "text/plain; x=application/grpc"])(
      "does not take %s for gRPC",
      async (type) => {
        const answer = await on.ask("/shop.Known/Get", asking(type));
        expect([answer.status, answer.headers["content-type"]]).toEqual([401, "application/problem+json"]);
        expect(answer.headers).not.toHaveProperty("grpc-status");
        expect(await on.gateway.recordOf(answer)).not.toHaveProperty("grpcStatus");
      },
    );

    it("records a call that its client gives up", async () => {
      serve("/shop.Patient/GivenUp", () => {});
      const { body, ...rest } = asking(BINARY);
      const { sent, response } = on.open("/shop.Patient/GivenUp", rest);
      sent.on("error", () => {});
      response.catch(() => {});
      sent.end(body);
      await until("it has arrived", () => on.origin.arrivedAt("/GivenUp")[0]);
      sent.socket?.resetAndDestroy();
      const record = await on.gateway.record("of the call", ({ path }) => path === "/shop.Patient/GivenUp");
      expect(record).toMatchObject({ reason: "client-closed", grpcStatus: CANCELLED });
    });
  });

  describe("in a browser", () => {
    const origin = "https://shop.example.com";
    const exposed = "x-total, grpc-status, grpc-message, grpc-status-details-bin";

    it("may read the status of the gateway's answers and the cluster's", async () => {
      const refused = await on.ask("/shop.Known/Get", asking(TEXT, { origin }));
      expect(refused.headers).toMatchObject({
        "grpc-status": String(UNAUTHENTICATED),
        "access-control-allow-origin": origin,
        "access-control-expose-headers": exposed,
      });
      serve("/shop.Direct/Refused", (response) =>
        response.writeHead(200, { "grpc-status": "9", "access-control-expose-headers": "x-secret" }).end(),
      );
      const answered = await on.ask("/shop.Direct/Refused", asking(TEXT, { origin }));
      expect(answered.headers).toMatchObject({ "grpc-status": "9", "access-control-expose-headers": exposed });
      const stranger = await on.ask("/shop.Known/Get", asking(TEXT, { origin: "https://elsewhere.example" }));
      expect(stranger.headers).not.toHaveProperty("access-control-expose-headers");
    });

    it("may ask in the first place", async () => {
      const wanted = "authorization,content-type,grpc-timeout,x-grpc-web,x-user-agent";
      const answer = await on.ask("/shop.Known/Get", {
        method: "OPTIONS",
        headers: { origin, "access-control-request-method": "POST", "access-control-request-headers": wanted },
      });
      expect(answer.status).toBe(204);
      expect(answer.headers).toMatchObject({
        "access-control-allow-methods": "POST",
        "access-control-allow-headers": wanted,
      });
    });
  });

  describe("a deadline", () => {
    const elapsed = async <T>(work: Promise<T>) => {
      const started = Date.now();
      return [await work, Date.now() - started] as const;
    };

    it.each([
      ["200m", 200],
      ["200000u", 200],
      ["00000000n", 0],
    ])("of %s ends a call whose answer does not come, at both ends", async (timeout, milliseconds) => {
      let at: Arrived | undefined;
      serve("/shop.Patient/Silent", (_, __, arrived) => {
        at = arrived;
      });
      const [{ status, message }, ms] = await elapsed(
        call("/shop.Patient/Silent", BINARY, { "grpc-timeout": timeout }),
      );
      expect([status, message]).toEqual([DEADLINE_EXCEEDED, expect.stringContaining("upstream-timeout")]);
      expect(ms).toBeGreaterThanOrEqual(milliseconds - 10);
      expect(ms).toBeLessThan(1_500);
      if (at) await until("the origin sees it", () => at?.aborted);
    });

    it("reaches the service, too", async () => {
      serve("/shop.Patient/Told", (response, say, { headers }) => {
        say(frame(String(headers["grpc-timeout"])));
        say(frame("grpc-status: 0\r\n", TRAILERS));
        response.end();
      });
      expect((await call("/shop.Patient/Told", BINARY, { "grpc-timeout": "5S" })).messages).toEqual(["5S"]);
    });

    it.each(["1H", "99999999H"])("of %s does not outlast the route's own", async (timeout) => {
      serve("/shop.Bounded/Silent", () => {});
      const [{ status }, ms] = await elapsed(call("/shop.Bounded/Silent", BINARY, { "grpc-timeout": timeout }));
      expect(status).toBe(DEADLINE_EXCEEDED);
      expect(ms).toBeLessThan(1_500);
    });

    it("ends a stream of answers at both ends, with a line in the log", async () => {
      let at: Arrived | undefined;
      serve("/shop.Patient/Stream", (_, say, arrived) => {
        at = arrived;
        const talking = setInterval(() => say(frame("more")), 50);
        onTestFinished(() => clearInterval(talking));
      });
      const [came, ms] = await elapsed(
        open("/shop.Patient/Stream", BINARY, { "grpc-timeout": "400m" }).then((reading) =>
          digest(reading).then(
            () => "whole",
            (error: Error) => error.message,
          ),
        ),
      );
      expect(came).toBe("aborted");
      expect(ms).toBeGreaterThanOrEqual(390);
      expect(ms).toBeLessThan(1_500);
      await until("the origin sees it", () => at?.aborted);
      const record = await on.gateway.record("of the call", ({ path }) => path === "/shop.Patient/Stream");
      // biome-ignore lint/suspicious/noExplicitAny: lines of the log, each with facts of its own
      const lines = on.gateway.records as unknown as any[];
      const line = await until("its end", () => lines.find(({ event, id }) => event && id === record.id));
      expect(line).toMatchObject({ event: "stream-closed", route: "shop/patient", why: "deadline" });
    });

    it("bounds all tries of a call", async () => {
      const before = on.origin.arrivedAt("/shop.Retried/").length;
      serve("/shop.Retried/Silent", () => {});
      const [{ status }, ms] = await elapsed(call("/shop.Retried/Silent", BINARY, { "grpc-timeout": "300m" }));
      expect(status).toBe(DEADLINE_EXCEEDED);
      expect(ms).toBeGreaterThanOrEqual(290);
      // Four tries of 200 ms would take 800.
      expect(ms).toBeLessThan(750);
      expect(on.origin.arrivedAt("/shop.Retried/").length - before).toBeLessThanOrEqual(2);
    });

    it.each(["soon", "200", "-1S", "123456789S", "1.5S"])(
      "that is none (%s) is the service's to refuse",
      async (timeout) => {
        serve("/shop.Patient/Slow", async (response, say) => {
          await sleep(250);
          say(frame("grpc-status: 0\r\n", TRAILERS));
          response.end();
        });
        expect((await call("/shop.Patient/Slow", BINARY, { "grpc-timeout": timeout })).status).toBe(OK);
      },
    );

    it("of a request that is no gRPC call is nobody's", async () => {
      on.origin.on("/shop.Patient/Plain", (_, response) => void setTimeout(() => response.end("slow"), 250));
      const headers = { "content-type": "application/json", "grpc-timeout": "100m" };
      expect((await on.ask("/shop.Patient/Plain", { method: "POST", headers, body: "{}" })).text()).toBe("slow");
    });
  });
});
