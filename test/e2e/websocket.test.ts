/** WebSockets through the gateway: between a client and a service in a cluster, with nginx between them or not. */
import { once } from "node:events";
import type { Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { WebSocket } from "ws";
import { describeWithRealParts, Fixture } from "./fixture.ts";
import type { Origin } from "./origin.ts";
import { until } from "./process.ts";

const ROUTES = `
const options = { websocket: true, timeouts: { connect: "300ms", firstByte: "500ms", total: "600ms" } };
export default gateway({ ...settings, policies: [requestId({}), securityHeaders({})] }, [
  api("feed", {}, [
    route("open", { path: "/open" }, { to: origin, ...options }),
    route("nginx", { path: "/orders/feed" }, { to: us, ...options }),
    route("fallback", { path: "/fallback" }, { to: cluster("nobody", { ingress: env("NOBODY") }).or(origin), ...options }),
    route("known", { path: "/known" }, { policies: [token], to: origin, ...options }),
    route("plain", { path: "/plain" }, { to: origin }),
    // With limits that no test reaches.
    route("watched", { path: "/watched" }, { to: us, ...options, websocket: { idle: "1m", lifetime: "1h" } }),
    route("idle", { path: "/idle" }, { to: us, ...options, websocket: { idle: "400ms" } }),
    route("lifetime", { path: "/lifetime" }, { to: us, ...options, websocket: { lifetime: "600ms" } }),
    route("both", { path: "/both" }, { policies: [token], to: us, ...options, websocket: { idle: "400ms", lifetime: "900ms" } }),
  ]),
]);`;

describeWithRealParts("a WebSocket", () => {
  let on: Fixture;
  beforeAll(async () => {
    on = await Fixture.start({ routes: ROUTES, texts: { NOBODY: "http://127.0.0.1:1" } });
  });
  afterAll(() => on?.close());

  interface Both {
    readonly client: WebSocket;
    readonly service: WebSocket;
  }

  function dial(path: string, headers: Record<string, string> = {}, protocols: string[] = []): WebSocket {
    const client = new WebSocket(`ws://127.0.0.1:${on.gateway.port}${path}`, protocols, {
      headers: { host: "api.example.com", ...headers },
    });
    client.on("error", () => {});
    onTestFinished(() => client.terminate());
    return client;
  }

  /** Connects, and gives both ends. */
  async function connected(path: string, origin: Origin = on.origin, ...rest: [Record<string, string>?, string[]?]) {
    const arriving = once(origin.sockets, "connection");
    const client = dial(path, ...rest);
    const [[service]] = (await Promise.all([arriving, once(client, "open")])) as [[WebSocket], unknown];
    return { client, service } satisfies Both;
  }

  const closeOf = async (socket: WebSocket) => {
    const [code, reason] = (await once(socket, "close")) as [number, Buffer];
    return [code, reason.toString()];
  };

  const message = async (socket: WebSocket) => {
    const [data, isBinary] = (await once(socket, "message")) as [Buffer, boolean];
    return isBinary ? data : data.toString();
  };

  it.each([
    ["/open", () => on.origin],
    ["/orders/feed", () => on.origins["us/orders"]],
    ["/fallback", () => on.origin],
    ["/watched", () => on.origins["us/orders"]],
  ] as const)("carries text and bytes both ways, at %s", async (path, origin) => {
    const { client, service } = await connected(path, origin());
    for (const [from, to] of [
      [client, service],
      [service, client],
    ] as const) {
      for (const sent of ["", "Žluťoučký 🐎", Buffer.from([0, 255, 128]), Buffer.alloc(1_000_000, 7)]) {
        const arriving = message(to);
        from.send(sent);
        const came = await arriving;
        expect(typeof sent === "string" ? came : sent.equals(came as Buffer)).toEqual(
          typeof sent === "string" ? sent : true,
        );
      }
    }
  });

  it("stays open beyond the deadlines for ordinary answers", async () => {
    const { client, service } = await connected("/open");
    const quietSince = Date.now();
    await sleep(900);
    const arriving = message(client);
    service.send("still there");
    expect(await arriving).toBe("still there");
    expect(Date.now() - quietSince).toBeGreaterThan(600);
  });

  // Through nginx, without limits and with.
  describe.each(["/orders/feed", "/watched"])("at %s", (path) => {
    const join = () => connected(path, on.origins["us/orders"]);

    it.each([
      ["client", "service"],
      ["service", "client"],
    ] as const)("closes with the code and reason of the %s", async (from, to) => {
      const both = await join();
      const closing = Promise.all([closeOf(both[to]), closeOf(both[from])]);
      both[from].close(4001, "Žluťoučký kůň");
      const goodbye = [4001, "Žluťoučký kůň"];
      expect(await closing).toEqual([goodbye, goodbye]);
    });

    it.each([
      ["client", "service"],
      ["service", "client"],
    ] as const)("closes without a code when the %s gives none", async (from, to) => {
      const both = await join();
      const closing = once(both[to], "close");
      both[from].close();
      expect((await closing)[0]).toBe(1005);
    });

    it("delivers what the service was saying when the client said goodbye", async () => {
      const { client, service } = await join();
      let received = 0;
      client.on("message", (data: Buffer) => {
        received += data.length;
      });
      const greeting = once(client, "message");
      for (let i = 0; i < 20; i++) service.send(Buffer.alloc(100_000));
      await greeting;
      const closing = once(client, "close");
      client.close(1000);
      expect((await closing)[0]).toBe(1000);
      expect(received).toBe(2_000_000);
    });

    it("keeps several connections apart", async () => {
      const all = [];
      for (let n = 0; n < 20; n++) all.push(await join());
      const received = all.map(({ client }) => message(client));
      for (const [n, { service }] of all.entries()) service.send(`to ${n}`);
      expect(await Promise.all(received)).toEqual(all.map((_, n) => `to ${n}`));
      all[3]?.client.terminate();
      const answers = all.slice(4).map(({ service }) => message(service));
      for (const [n, { client }] of all.slice(4).entries()) client.send(`from ${n}`);
      expect(await Promise.all(answers)).toEqual(all.slice(4).map((_, n) => `from ${n}`));
    });

    it("has pings answered by the service, or by the gateway where it stands between", async () => {
      const { client, service } = await join();
      let pinged = false;
      service.on("ping", () => {
        pinged = true;
      });
      const ponged = once(client, "pong");
      client.ping("there?");
      expect(String((await ponged)[0])).toBe("there?");
      expect(pinged).toBe(path === "/orders/feed");
    });

    it("carries compressed messages", async () => {
      const { client, service } = await connected(`${path}?compressed`, on.origins["us/orders"]);
      expect([client.extensions, service.extensions]).toEqual(["permessage-deflate", "permessage-deflate"]);
      for (const [from, to] of [
        [client, service],
        [service, client],
      ] as const) {
        const arriving = message(to);
        from.send("to be or not to be ".repeat(10_000));
        expect(await arriving).toBe("to be or not to be ".repeat(10_000));
      }
    });
  });

  it.each([
    ["client", "service"],
    ["service", "client"],
  ] as const)("without limits breaks off at one end when the %s is gone without a word", async (from, to) => {
    const both = await connected("/open");
    const closing = once(both[to], "close");
    both[from].terminate();
    expect((await closing)[0]).toBe(1006);
  });

  describe("with limits", () => {
    const at = (path: string, ...rest: [Record<string, string>?, string[]?]) =>
      connected(path, on.origins["us/orders"], ...rest);

    /** The line that the gateway logs when a connection of `route` is over. */
    const ended = (route: string, seen = new Set<unknown>()) =>
      until(`the end of a connection of ${route}`, () => {
        const line = events().find(
          (event) => event.event === "websocket-closed" && event.route === route && !seen.has(event.id),
        );
        return line;
      });
    // biome-ignore lint/suspicious/noExplicitAny: lines of the log, each with facts of its own
    const events = () => on.gateway.records as unknown as any[];
    const known = (route: string) =>
      new Set(events().flatMap(({ event, route: of, id }) => (event && of === route ? [id] : [])));

    it.each([
      ["client", "service", 1001],
      ["service", "client", 1014],
    ] as const)("says to one end that the %s is gone without a word", async (from, to, code) => {
      const seen = known("feed/watched");
      const both = await at("/watched");
      const closing = once(both[to], "close");
      both[from].terminate();
      expect((await closing)[0]).toBe(code);
      expect(await ended("feed/watched", seen)).toMatchObject({
        why: from === "client" ? "client" : "cluster",
        code: 1006,
      });
    });

    it("ends a connection on which nobody says anything, at both ends", async () => {
      const started = Date.now();
      const both = await at("/idle");
      const closing = Promise.all([closeOf(both.client), closeOf(both.service)]);
      expect(await closing).toEqual([
        [1001, "idle"],
        [1001, "idle"],
      ]);
      expect(Date.now() - started).toBeGreaterThanOrEqual(390);
      expect(Date.now() - started).toBeLessThan(2_000);
    });

    it("keeps one on which either end says something", async () => {
      const both = await at("/idle");
      let closed = false;
      both.client.on("close", () => {
        closed = true;
      });
      for (const who of ["client", "service", "client", "client", "service", "service"] as const) {
        await sleep(120);
        both[who].send("still there");
      }
      expect(closed).toBe(false);
      expect(await closeOf(both.client)).toEqual([1001, "idle"]);
    });

    it("ends one that has lived long enough, whatever is said", async () => {
      const started = Date.now();
      const { client, service } = await at("/lifetime");
      const talking = setInterval(() => client.send("and another thing"), 50);
      client.once("close", () => clearInterval(talking));
      expect(await closeOf(service)).toEqual([1001, "lifetime"]);
      expect(Date.now() - started).toBeGreaterThanOrEqual(590);
      expect(Date.now() - started).toBeLessThan(2_000);
    });

    it("passes nothing on between ends that do not heed the close", async () => {
      const seen = known("feed/lifetime");
      const { client, service } = await at("/lifetime");
      client.close = service.close = () => {};
      let messages = 0;
      service.on("message", () => messages++);
      const talking = setInterval(() => client.send("and another thing"), 20);
      onTestFinished(() => clearInterval(talking));
      await ended("feed/lifetime", seen);
      await sleep(50);
      const before = messages;
      expect(before).toBeGreaterThan(5);
      await sleep(200);
      expect(messages).toBe(before);
      service.terminate();
    });

    it("logs what went through, under the request's id", async () => {
      const headers = await on.issuer.bearer({ sub: "user-1" });
      const seen = known("feed/both");
      const { client, service } = await at("/both", headers, ["stock.v1"]);
      expect(client.protocol).toBe("stock.v1");
      for (const text of ["šest", "šest"]) {
        const arriving = message(service);
        client.send(text);
        await arriving;
      }
      const arriving = message(client);
      service.send(Buffer.alloc(1_000));
      await arriving;
      await once(client, "close");
      const line = await ended("feed/both", seen);
      expect(line).toMatchObject({
        v: 1,
        why: "idle",
        code: 1001,
        client: { messages: 2, bytes: 10 },
        cluster: { messages: 1, bytes: 1_000 },
      });
      expect(line.ms).toBeGreaterThanOrEqual(390);
      const record = await on.gateway.record("of the upgrade", ({ id, status }) => id === line.id && status === 101);
      expect(record).toMatchObject({ route: "feed/both", backend: "us" });
    });

    it("counts until the end that closes first, and says which one that was", async () => {
      for (const [who, why] of [
        ["client", "client"],
        ["service", "cluster"],
      ] as const) {
        const seen = known("feed/watched");
        const both = await at("/watched");
        const arriving = message(both.service);
        both.client.send("x".repeat(10));
        await arriving;
        both[who].close(4321);
        expect(await ended("feed/watched", seen)).toMatchObject({
          why,
          code: 4321,
          client: { messages: 1, bytes: 10 },
          cluster: { messages: 0, bytes: 0 },
        });
      }
    });

    it("ends at one end when the other speaks no WebSocket any more", async () => {
      const { client, service } = await at("/watched");
      const closing = once(service, "close");
      // Reserved bits that no extension has been agreed on for (RFC 6455, 5.2).
      (client as unknown as { _socket: Socket })._socket.write(Buffer.from([0xff, 0x80, 0, 0, 0, 0]));
      expect((await once(client, "close"))[0]).toBe(1002);
      expect([1001, 1006]).toContain((await closing)[0]);
    });

    it("is refused before the upgrade as well", async () => {
      const [, response] = await once(dial("/both"), "unexpected-response");
      expect(response.statusCode).toBe(401);
    });
  });

  it("agrees on a subprotocol with the service, which learns who the client is", async () => {
    const headers = {
      ...(await on.issuer.bearer({ sub: "user-1" })),
      "x-user-id": "root",
      origin: "https://shop.example.com",
    };
    const { client } = await connected("/known", on.origin, headers, ["stock.v2", "stock.v1"]);
    expect(client.protocol).toBe("stock.v2");
    expect(on.origin.arrived.at(-1)?.headers).toMatchObject({
      "sec-websocket-protocol": "stock.v2,stock.v1",
      "sec-websocket-version": "13",
      origin: "https://shop.example.com",
      "x-user-id": "user-1",
      "x-forwarded-host": "api.example.com",
      "x-portcullis-assertion": expect.stringMatching(/^ey/),
    });
    const record = await on.gateway.record(
      "of the upgrade",
      ({ route, status }) => route === "feed/known" && status === 101,
    );
    expect(record).toMatchObject({ backend: "origin", attempts: [{ backend: "origin", status: 101 }] });
    expect(record).not.toHaveProperty("reason");
  });

  it("is refused before the upgrade, as any other request", async () => {
    const before = on.origin.arrived.length;
    const [, response] = await once(dial("/known"), "unexpected-response");
    expect(response.statusCode).toBe(401);
    expect(response.headers["content-type"]).toBe("application/problem+json");
    expect(on.origin.arrived.length).toBe(before);
  });

  it("is not to be had on a route that does not say so", async () => {
    const [, response] = await once(dial("/plain"), "unexpected-response");
    expect(response.statusCode).toBe(200);
    const came = on.origin.arrived.at(-1)?.headers;
    expect(came).not.toHaveProperty("upgrade");
    expect(came?.connection ?? "").not.toMatch(/upgrade/i);
  });

  it("leaves a route that knows it open to plain requests", async () => {
    const answer = await on.ask("/open");
    expect([answer.status, answer.headers["x-content-type-options"]]).toEqual([200, "nosniff"]);
  });

  it("leaves no secret in the log", () => {
    expect(on.gateway.records.length).toBeGreaterThan(8);
    expect(on.leaked()).toEqual([]);
  });
});
