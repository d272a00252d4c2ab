import { once } from "node:events";
import { Agent, createServer, type RequestListener, request, type Server } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { text } from "node:stream/consumers";
import { setTimeout as wait } from "node:timers/promises";
import { afterEach, describe, expect, it } from "vitest";
import { type Front, startFront, type Version } from "../../src/dev/front.ts";

let front: Front;
const servers: Server[] = [];

afterEach(async () => {
  await front.close();
  for (const server of servers.splice(0)) server.close().closeAllConnections();
});

interface Probe extends Version {
  readonly server: Server;
  closed: boolean;
}

async function version(listener: RequestListener): Promise<Probe> {
  const server = createServer(listener).listen(0, "127.0.0.1");
  servers.push(server);
  await once(server, "listening");
  const probe: Probe = {
    server,
    port: (server.address() as AddressInfo).port,
    closed: false,
    async close() {
      probe.closed = true;
      server.close().closeAllConnections();
    },
  };
  return probe;
}

const says =
  (word: string): RequestListener =>
  (_, response) =>
    response.end(word);

const agent = new Agent({ keepAlive: true, maxSockets: 1 });

async function ask(options: { method?: string; headers?: Record<string, string>; body?: string } = {}) {
  const outgoing = request({ host: "127.0.0.1", port: front.port, path: "/x?y=%zz", agent, ...options });
  outgoing.end(options.body);
  const [response] = await once(outgoing, "response");
  return { status: response.statusCode as number, raw: response.rawHeaders as string[], body: await text(response) };
}

/** Writes `bytes` on a connection of its own, and resolves with what has come back once that holds `last`. */
async function exchange(bytes: string, last: string): Promise<string> {
  const socket = connect(front.port, "127.0.0.1");
  socket.write(bytes);
  let answer = "";
  for await (const chunk of socket.setEncoding("latin1")) {
    answer += chunk;
    if (answer.includes(last)) break;
  }
  return answer;
}

describe("between versions", () => {
  it("lets a request wait for the first version", async () => {
    front = await startFront(0);
    const answer = ask();
    await wait(20);
    front.serve(await version(says("one")));
    expect((await answer).body).toBe("one");
  });

  it("sends the next request of an open connection to the new version, and closes the old one", async () => {
    front = await startFront(0);
    const one = await version(says("one"));
    front.serve(one);
    expect((await ask()).body).toBe("one");
    front.serve(await version(says("two")));
    expect((await ask()).body).toBe("two");
    await expect.poll(() => one.closed).toBe(true);
  });

  it("lets the old version end an answer, and closes it then", async () => {
    front = await startFront(0);
    const finish = Promise.withResolvers<void>();
    const one = await version(async (_, response) => {
      response.write("on");
      await finish.promise;
      response.end("e");
    });
    front.serve(one);
    const answer = ask();
    await once(one.server, "request");
    front.serve(await version(says("two")));
    await wait(300);
    expect(one.closed).toBe(false);
    finish.resolve();
    expect((await answer).body).toBe("one");
    await expect.poll(() => one.closed).toBe(true);
  });

  it("keeps upgraded connections on their version, of the three newest older ones", async () => {
    front = await startFront(0);
    const upgraded: { probe: Probe; socket: Socket }[] = [];
    for (let round = 0; round < 5; round++) {
      const probe = await version(says(""));
      probe.server.on("upgrade", (_, socket) => {
        socket.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
        socket.on("error", () => {}).pipe(socket);
        const { close } = probe;
        probe.close = () => close().then(() => void socket.destroy());
      });
      front.serve(probe);
      const socket = connect(front.port, "127.0.0.1").on("error", () => {});
      socket.write("GET /x HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
      expect(String((await once(socket, "data"))[0])).toMatch(/^HTTP\/1\.1 101 /);
      upgraded.push({ probe, socket });
    }
    await expect.poll(() => upgraded.map(({ probe }) => probe.closed)).toEqual([true, false, false, false, false]);
    await expect.poll(() => upgraded[0]?.socket.closed).toBe(true);
    for (const { socket } of upgraded.slice(1)) {
      socket.write("ping");
      expect(String((await once(socket, "data"))[0])).toBe("ping");
    }
  });
});

describe("a request through the front", () => {
  async function received(
    options: Parameters<typeof ask>[0] = {},
  ): Promise<{ url: string; raw: string[]; body: string }> {
    front = await startFront(0);
    front.serve(
      await version(async (incoming, response) => {
        response.end(JSON.stringify({ url: incoming.url, raw: incoming.rawHeaders, body: await text(incoming) }));
      }),
    );
    return JSON.parse((await ask(options)).body);
  }

  it("arrives as it was sent, with the peer's address where no other is named", async () => {
    const { url, raw } = await received({ headers: { Host: "API.example.com", "X-MiXed": "\u00e9" } });
    expect(url).toBe("http://API.example.com/x?y=%zz");
    expect(raw.slice(0, 4)).toEqual(["Host", "API.example.com", "X-MiXed", "\u00e9"]);
    expect(raw.slice(-2)).toEqual(["CF-Connecting-IP", "127.0.0.1"]);
  });

  it("may say that it came by https", async () => {
    const { url } = await received({ headers: { Host: "API.example.com:443", "X-Forwarded-Proto": "https" } });
    expect(url).toBe("https://API.example.com:443/x?y=%zz");
    expect((await received({ headers: { "X-Forwarded-Proto": "gopher" } })).url).toMatch(/^http:/);
  });

  it("may name another client", async () => {
    const { raw } = await received({ headers: { "cf-connecting-ip": "10.20.1.1" } });
    expect(raw.filter((_, i) => /^cf-connecting-ip$/i.test(raw[i - 1] ?? ""))).toEqual(["10.20.1.1"]);
  });

  it("keeps its body, and stays without one", async () => {
    const chunked = await received({ method: "POST", body: "hello", headers: { "transfer-encoding": "chunked" } });
    expect(chunked.body).toBe("hello");
    const without = await exchange("POST / HTTP/1.1\r\nhost: x\r\n\r\n", '"body":""}');
    expect(without).not.toMatch(/transfer-encoding","/i);
  });

  it("gets the answer's headers as they are, on a connection that stays open", async () => {
    front = await startFront(0);
    front.serve(
      await version((_, response) => {
        response.sendDate = false;
        response.writeHead(418, [
          "Set-Cookie",
          "a=1",
          "Set-Cookie",
          "b=2",
          "Content-Length",
          "0",
          "Connection",
          "close",
        ]);
        response.end();
      }),
    );
    const { status, raw } = await ask();
    expect(status).toBe(418);
    expect(raw.slice(0, 8)).toEqual([
      "Set-Cookie",
      "a=1",
      "Set-Cookie",
      "b=2",
      "Content-Length",
      "0",
      "Connection",
      "keep-alive",
    ]);
  });

  it("gets an answer that comes before its body is over, and the connection serves on", async () => {
    front = await startFront(0);
    front.serve(
      await version((incoming, response) => {
        if (incoming.method === "GET") return response.end("next");
        // Takes a first piece and no more.
        incoming.once("data", () => {
          incoming.pause();
          response.writeHead(413, { "content-length": "8" }).end("too much");
        });
      }),
    );
    const upload = `POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5000000\r\n\r\n${"x".repeat(5_000_000)}`;
    const answers = await exchange(`${upload}GET / HTTP/1.1\r\nhost: x\r\n\r\n`, "next");
    expect(answers.match(/HTTP\/1\.1 \d+/g)).toEqual(["HTTP/1.1 413", "HTTP/1.1 200"]);
  });

  it("is given up when the client goes away", async () => {
    front = await startFront(0);
    const gone = Promise.withResolvers<void>();
    const probe = await version((_, response) => response.on("close", gone.resolve));
    front.serve(probe);
    const outgoing = request({ host: "127.0.0.1", port: front.port, agent: false }).on("error", () => {});
    outgoing.end();
    await once(probe.server, "request");
    outgoing.destroy();
    await gone.promise;
  });

  it("is answered with 502 when the version behind is gone", async () => {
    front = await startFront(0);
    const probe = await version(says("one"));
    front.serve(probe);
    probe.server.close();
    expect((await ask()).status).toBe(502);
  });
});
