/** A service in a cluster: a Node server that tells what reached it, and does on some paths what a test wants. */
import { createHash } from "node:crypto";
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { WebSocketServer } from "ws";

/** A request as it arrived. */
export interface Arrived {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  /** As on the wire, in order. */
  readonly lines: readonly (readonly [name: string, value: string])[];
  /** The connection that it came over, by the other end's port. */
  readonly connection: number;
  /** Set when the connection closed before the answer was finished. */
  aborted: boolean;
}

/** What an origin answers where a test says nothing else. */
export interface Echo {
  readonly servedBy: string;
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  readonly lines: readonly (readonly [name: string, value: string])[];
  readonly body: { readonly bytes: number; readonly sha256: string };
}

export type Handler = (request: IncomingMessage, response: ServerResponse, arrived: Arrived) => unknown;

export class Origin {
  readonly name: string;
  /** Everything that reached it, in order. */
  readonly arrived: Arrived[] = [];
  /** Answers upgrades, and compresses messages where the URL ends in `?compressed`. What is said is the tests' to say. */
  readonly sockets = new WebSocketServer({ noServer: true });
  readonly #compressing = new WebSocketServer({ noServer: true, perMessageDeflate: true });
  readonly #handlers = new Map<string, Handler>();
  readonly #server = createServer({ maxHeaderSize: 256 * 1024 }, (request, response) =>
    this.#answer(request, response),
  );

  private constructor(name: string) {
    this.name = name;
    this.#server.on("upgrade", (request, socket, head) => {
      this.#note(request);
      const server = request.url?.endsWith("?compressed") ? this.#compressing : this.sockets;
      server.handleUpgrade(request, socket, head, (client) => this.sockets.emit("connection", client, request));
    });
  }

  static async start(name: string): Promise<Origin> {
    const origin = new Origin(name);
    await new Promise<void>((resolve) => origin.#server.listen(0, "127.0.0.1", resolve));
    return origin;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** From now on `handler` answers on exactly this path. */
  on(path: string, handler: Handler): void {
    this.#handlers.set(path, handler);
  }

  /** It echoes there again. */
  off(path: string): void {
    this.#handlers.delete(path);
  }

  /** The requests whose URL holds `text`. */
  arrivedAt(text: string): Arrived[] {
    return this.arrived.filter(({ url }) => url.includes(text));
  }

  async close(): Promise<void> {
    for (const client of [...this.sockets.clients, ...this.#compressing.clients]) client.terminate();
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #note(request: IncomingMessage): Arrived {
    const { method = "", url = "", headers, rawHeaders } = request;
    const lines = rawHeaders.flatMap((name, i) => (i % 2 === 0 ? [[name, rawHeaders[i + 1] as string] as const] : []));
    const connection = request.socket.remotePort ?? 0;
    const arrived: Arrived = { method, url, headers, lines, connection, aborted: false };
    this.arrived.push(arrived);
    return arrived;
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const arrived = this.#note(request);
    response.on("close", () => {
      arrived.aborted = !response.writableFinished;
    });
    // A client that goes away in the middle of an upload is for the tests to see, not for this server to fail on.
    request.on("error", () => {});
    const handler =
      this.#handlers.get((request.url ?? "").split("?", 1)[0] as string) ?? ((...all) => this.#echo(...all));
    Promise.resolve(handler(request, response, arrived)).catch(() => response.destroy());
  }

  async #echo(request: IncomingMessage, response: ServerResponse, arrived: Arrived): Promise<void> {
    const { bytes, sha256 } = await digest(request);
    const { method, url, headers, lines } = arrived;
    const echo: Echo = { servedBy: this.name, method, url, headers, lines, body: { bytes, sha256 } };
    const text = JSON.stringify(echo);
    response.writeHead(200, {
      "content-type": "application/json",
      "content-length": Buffer.byteLength(text),
      server: "origin/1.0",
    });
    response.end(text);
  }
}

/** Reads a body without keeping it. */
export async function digest(body: AsyncIterable<Uint8Array>): Promise<{ bytes: number; sha256: string }> {
  const hash = createHash("sha256");
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.byteLength;
    hash.update(chunk);
  }
  return { bytes, sha256: hash.digest("hex") };
}
