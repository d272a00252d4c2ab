/**
 * What stands at the gateway's address while the Workers behind it come and go. Miniflare's setOptions kills workerd and starts
 * another, which cuts the connections that are open and refuses new ones for a while (measured: 25 to 440 ms). So a new version is
 * started beside the old one, and each request goes to the version that is current when it comes in. What an older version has
 * begun, it ends: answers, streams, WebSockets.
 */
import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from "node:http";
import { connect } from "node:net";
import { type Duplex, Transform } from "node:stream";
import { problems } from "../table/problems.ts";
import { close as closeServer, listen } from "./loopback.ts";

/** A gateway that runs somewhere on loopback, and is told the whole URL in the request line (RFC 9112, 3.2.2). */
export interface Version {
  readonly port: number;
  close(): Promise<void>;
}

export interface Front {
  readonly port: number;
  /** From now on requests go to `version`; the one before is closed when it has nothing left to do. */
  serve(version: Version): void;
  /** Drops all connections and closes all versions. */
  close(): Promise<void>;
}

/** Older versions that may live on for the sake of what they have begun; a WebSocket may stay for ever, memory does not. */
const KEPT = 3;

/** Time for the last decision records to come out of a version that has nothing left to do, in milliseconds. */
const LAST_WORDS = 200;

/** As much as Cloudflare lets through to a Worker: 128 KB of headers and 16 KB of URL. The gateway's own limits come behind. */
const MAX_HEADERS = 144 * 1024;

/** Written to send the headers at once; flushHeaders() would send those that are not ASCII in another encoding than they came. */
const NOTHING = Buffer.alloc(0);

/** A whole answer on the wire. */
function problemText(code: "bad-request" | "headers-too-large" | "method-not-allowed"): string {
  const [status, title] = code === "headers-too-large" ? [431, "The headers are too large"] : problems[code];
  const body = `${JSON.stringify({ type: `urn:portcullis:problem:${code}`, title, status, code })}\n`;
  const head = ["content-type: application/problem+json", `content-length: ${body.length}`, "connection: close"];
  return `HTTP/1.1 ${status} ${title}\r\n${head.join("\r\n")}\r\n\r\n${body}`;
}

interface Generation {
  readonly version: Version;
  open: number;
  closing?: Promise<void>;
}

/** Listens on loopback. Requests that come before the first version wait for it. Rejects when `port` is taken; 0 is a free one. */
export async function startFront(port: number): Promise<Front> {
  let current: Generation | undefined;
  const first = Promise.withResolvers<void>();
  const generations = new Set<Generation>();
  const upgraded = new Set<Duplex>();

  async function enter(): Promise<{ generation: Generation; leave(): void }> {
    if (!current) await first.promise;
    const generation = current as Generation;
    generation.open++;
    let inside = true;
    return {
      generation,
      leave() {
        if (!inside) return;
        inside = false;
        generation.open--;
        retire();
      },
    };
  }

  function retire(): void {
    const older = [...generations].filter((generation) => generation !== current);
    older.forEach((generation, age) => {
      const tooMany = older.length - age > KEPT;
      if (generation.open === 0 || tooMany) void closeGeneration(generation, tooMany ? 0 : LAST_WORDS);
    });
  }

  function closeGeneration(generation: Generation, after: number): Promise<void> {
    generation.closing ??= new Promise((resolve) => setTimeout(resolve, after))
      .then(() => generation.version.close())
      .finally(() => generations.delete(generation));
    return generation.closing;
  }

  async function pass(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const { generation, leave } = await enter();
    response.once("close", leave);
    if (response.destroyed) return leave();
    // Node's own headers would be taken for the gateway's.
    response.sendDate = false;
    const headers = requestHeaders(incoming);
    const hasBody = "content-length" in incoming.headers || "transfer-encoding" in incoming.headers;
    if (!hasBody && !/^(?:GET|HEAD|DELETE|OPTIONS|TRACE)$/.test(incoming.method ?? "")) {
      // Otherwise Node sends an empty body in chunks, where the client sent none.
      headers.push("Content-Length", "0");
    }
    const outgoing = httpRequest({
      host: "127.0.0.1",
      port: generation.version.port,
      method: incoming.method as string,
      path: urlOf(incoming),
      headers,
      // A connection for each request: none is closed by one side just when the other uses it again.
      agent: false,
    });
    outgoing.write(NOTHING);
    outgoing.on("response", (answer) => {
      response.writeHead(answer.statusCode as number, answer.statusMessage, responseHeaders(answer.rawHeaders));
      response.write(NOTHING);
      answer.pipe(response);
      answer.on("error", () => response.destroy());
    });
    outgoing.on("error", () => {
      if (response.headersSent) return;
      response.writeHead(502, { "content-type": "text/plain" }).end("The gateway's process is gone.\n");
    });
    response.on("close", () => {
      // What is left of a body when its answer is over is read and forgotten, for the sake of the connection's next request.
      incoming.unpipe(body).resume();
      outgoing.destroy();
    });
    const body = pacedBody();
    incoming.pipe(body).pipe(outgoing);
  }

  /** From the upgrade on, bytes. */
  async function tunnel(incoming: IncomingMessage, client: Duplex, head: Buffer): Promise<void> {
    client.on("error", () => client.destroy());
    const { generation, leave } = await enter();
    if (client.destroyed) return leave();
    const gateway = connect(generation.version.port, "127.0.0.1");
    upgraded.add(client);
    client.on("close", () => {
      upgraded.delete(client);
      leave();
      gateway.destroy();
    });
    gateway.on("error", () => client.destroy());
    gateway.on("close", () => client.destroy());
    const headers = requestHeaders(incoming);
    let text = `${incoming.method} ${urlOf(incoming)} HTTP/1.1\r\n`;
    for (let i = 0; i < headers.length; i += 2) text += `${headers[i]}: ${headers[i + 1]}\r\n`;
    gateway.write(`${text}\r\n`, "latin1");
    gateway.write(head);
    gateway.pipe(client).pipe(gateway);
  }

  const server = createServer({ maxHeaderSize: MAX_HEADERS, requestTimeout: 0 }, (incoming, response) => {
    void pass(incoming, response);
  });
  server.on("upgrade", (incoming, client, head) => void tunnel(incoming, client, head));
  // What is no HTTP reaches no Worker, here or on Cloudflare; who tries it by hand still gets a problem document.
  server.on("clientError", (error: NodeJS.ErrnoException, client) => {
    if (!client.writable) return client.destroy();
    client.end(problemText(error.code === "HPE_HEADER_OVERFLOW" ? "headers-too-large" : "bad-request"));
  });
  server.on("connect", (_, client) => client.end(problemText("method-not-allowed")));
  const actual = await listen(server, port);

  return {
    port: actual,
    serve(version) {
      current = { version, open: 0 };
      generations.add(current);
      first.resolve();
      retire();
    },
    async close() {
      for (const client of upgraded) client.destroy();
      await closeServer(server);
      await Promise.all([...generations].map((generation) => closeGeneration(generation, 0)));
    },
  };
}

/**
 * A large body waits for a moment after its first part, and then goes on in small steps. workerd refuses an upload by answering and,
 * once 64 KB more have come, resetting the connection; Node drops an answer that it has not read when a write fails (measured with
 * 413 for 150 MB: lost in 16 of 30 cases). In the pauses it is read.
 */
function pacedBody(): Transform {
  let bytes = 0;
  let pause = 50;
  return new Transform({
    transform(piece: Buffer, _, done) {
      bytes += piece.length;
      if (bytes <= 32 * 1024) return done(null, piece);
      setTimeout(done, pause, null, piece);
      pause = 1;
    },
  });
}

/**
 * The whole URL, as it came. Who speaks to loopback may say that TLS has ended in front of it, as it has in front of a Worker: so the
 * routes behind listeners for https can be reached.
 */
function urlOf({ url, headers }: IncomingMessage): string {
  const scheme = headers["x-forwarded-proto"] === "https" ? "https" : "http";
  return `${scheme}://${headers.host ?? ""}${url}`;
}

/** As they came, and with what Cloudflare adds: the address of who connected. Whoever reaches loopback may say another. */
function requestHeaders(incoming: IncomingMessage): string[] {
  const address = incoming.socket.remoteAddress;
  const named = "cf-connecting-ip" in incoming.headers || !address;
  return [...incoming.rawHeaders, ...(named ? [] : ["CF-Connecting-IP", address])];
}

/** Connection is between the front and the gateway; everything else is the gateway's answer. */
function responseHeaders(raw: readonly string[]): string[] {
  const kept: string[] = [];
  for (let i = 0; i < raw.length; i += 2) {
    if (!/^(?:connection|keep-alive)$/i.test(raw[i] as string)) kept.push(raw[i] as string, raw[i + 1] as string);
  }
  return kept;
}
