/** WebSockets through the gateway: between a client and a service in a cluster, with nginx between them or not. */
import { once } from "node:events";
import { afterAll, beforeAll, expect, it, onTestFinished } from "vitest";
import { WebSocket } from "ws";
import { describeWithRealParts, Fixture } from "./fixture.ts";
import type { Origin } from "./origin.ts";

const ROUTES = `
const options = { websocket: true, timeouts: { connect: "300ms", firstByte: "500ms", total: "600ms" } };
export default gateway({ ...settings, policies: [requestId({}), securityHeaders({})] }, [
  api("feed", {}, [
    route("open", { path: "/open" }, { to: origin, ...options }),
    route("nginx", { path: "/orders/feed" }, { to: us, ...options }),
    route("fallback", { path: "/fallback" }, { to: cluster("nobody", { ingress: env("NOBODY") }).or(origin), ...options }),
    route("known", { path: "/known" }, { policies: [token], to: origin, ...options }),
    route("plain", { path: "/plain" }, { to: origin }),
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

  const message = async (socket: WebSocket) => {
    const [data, isBinary] = (await once(socket, "message")) as [Buffer, boolean];
    return isBinary ? data : data.toString();
  };

  it.each([
    ["/open", () => on.origin],
    ["/orders/feed", () => on.origins["us/orders"]],
    ["/fallback", () => on.origin],
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
    await new Promise((resolve) => setTimeout(resolve, 900));
    const arriving = message(client);
    service.send("still there");
    expect(await arriving).toBe("still there");
    expect(Date.now() - quietSince).toBeGreaterThan(600);
  });

  it("closes with the code and reason of the end that closes it", async () => {
    for (const [from, to] of [
      ["client", "service"],
      ["service", "client"],
    ] as const) {
      const both = await connected("/open");
      const closing = once(both[to], "close");
      both[from].close(4001, "the shop closes");
      const [code, reason] = (await closing) as [number, Buffer];
      expect([code, reason.toString()]).toEqual([4001, "the shop closes"]);
    }
  });

  it("closes at one end when the other is gone without a word", async () => {
    for (const [from, to] of [
      ["client", "service"],
      ["service", "client"],
    ] as const) {
      const both = await connected("/open");
      const closing = once(both[to], "close");
      both[from].terminate();
      expect((await closing)[0]).toBe(1006);
    }
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
