/**
 * The echo origins: a real HTTP server for each port of each Service, which behaves as the conformance suite's echo-basic image does.
 * They are in this process; a gateway reaches them over TCP.
 */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { WebSocketServer } from "ws";
import { parseDuration } from "../../../src/config/duration.ts";
import { CONTENT_TYPE, responseBody } from "./grpc-web.ts";

export interface ServicePort {
  readonly namespace: string;
  readonly service: string;
  readonly port: number;
  readonly targetPort: number;
  /** The Deployment behind it, with which the names of its pods begin. */
  readonly backend: string;
}

/** What an origin answers: the request as it arrived, and who answers. */
export interface Echo {
  /** The request target, as it was on the wire. */
  readonly path: string;
  readonly host: string;
  readonly method: string;
  readonly proto: string;
  /** By canonical name (`X-Header-Set`), one value for each line; without Host. */
  readonly headers: Readonly<Record<string, readonly string[]>>;
  /** The Service's targetPort. */
  readonly httpPort: string;
  readonly namespace: string;
  readonly ingress: string;
  readonly service: string;
  readonly pod: string;
}

const GRPC_SERVICE = "/gateway_api_conformance.echo_basic.grpcecho.GrpcEcho/";
/** EchoThree is in the service and intentionally not implemented. */
const GRPC_METHODS = new Set(["Echo", "EchoTwo"].map((method) => GRPC_SERVICE + method));

export class EchoOrigin {
  readonly served: ServicePort;
  readonly pod: string;
  readonly #server: Server;
  readonly #sockets = new WebSocketServer({ noServer: true });
  readonly #arrivals = new Map<string, number>();
  /** By uuid: how many tries have failed so far. */
  readonly #failed = new Map<string, number>();

  private constructor(served: ServicePort) {
    this.served = served;
    const hash = createHash("sha256").update(`${served.namespace}/${served.backend}`).digest("hex");
    this.pod = `${served.backend}-${hash.slice(0, 10)}-${hash.slice(10, 15)}`;
    this.#server = createServer(
      { shouldUpgradeCallback: (request) => pathOf(request) === "/ws", keepAliveTimeout: 60_000 },
      (request, response) => {
        this.#answer(request, response).catch((error: Error) => response.writeHead(500).end(error.message));
      },
    );
    this.#server.on("upgrade", (request, socket, head) => {
      this.#note(request);
      this.#sockets.handleUpgrade(request, socket, head, (client) => {
        client.on("message", (data, binary) => client.send(data, { binary }));
      });
    });
  }

  static async start(served: ServicePort): Promise<EchoOrigin> {
    const origin = new EchoOrigin(served);
    await new Promise<void>((resolve) => origin.#server.listen(0, "127.0.0.1", resolve));
    return origin;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** How many requests with this target have come. */
  arrivals(target: string): number {
    return this.#arrivals.get(target) ?? 0;
  }

  async close(): Promise<void> {
    for (const client of this.#sockets.clients) client.terminate();
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #note({ url = "" }: IncomingMessage): void {
    this.#arrivals.set(url, this.arrivals(url) + 1);
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.#note(request);
    request.resume();
    if (request.headers["content-type"]?.startsWith("application/grpc-web")) return this.#callGrpc(request, response);
    const path = pathOf(request);
    if (path.startsWith("/status/")) {
      const status = /^\/status\/([0-9]{3})$/.exec(request.url ?? "")?.[1];
      response.writeHead(Number(status ?? 400)).end();
    } else if (path.startsWith("/retry/")) await this.#simulateFailures(request, response);
    else await this.#echo(request, response);
  }

  /** The first `succeedAfter` tries of a uuid fail: with `responseCode`, or without one by a reset of the connection. */
  async #simulateFailures(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const query = queryOf(request);
    const [uuid, succeedAfter, responseCode] = ["uuid", "succeedAfter", "responseCode"].map((name) => query.get(name));
    if (!uuid) return refuse(response, "uuid is required");
    if (!succeedAfter || !/^[0-9]+$/.test(succeedAfter)) return refuse(response, "succeedAfter is required");
    const failed = this.#failed.get(uuid) ?? 0;
    if (failed >= Number(succeedAfter)) return this.#echo(request, response);
    this.#failed.set(uuid, failed + 1);
    await delay(query.get("delayRetry"));
    if (responseCode) response.writeHead(Number(responseCode)).end();
    else request.socket.resetAndDestroy();
  }

  async #echo(request: IncomingMessage, response: ServerResponse): Promise<void> {
    await delay(queryOf(request).get("delay"));
    for (const [name, value] of wantedHeaders(request)) response.setHeader(name, value);
    response.setHeader("content-type", "application/json");
    response.setHeader("x-content-type-options", "nosniff");
    response.end(JSON.stringify(this.#seen(request)));
  }

  #callGrpc(request: IncomingMessage, response: ServerResponse): void {
    const { namespace, pod, path, host, headers } = this.#seen(request);
    response.writeHead(200, { "content-type": CONTENT_TYPE });
    if (!GRPC_METHODS.has(path)) {
      response.end(responseBody("Unimplemented"));
      return;
    }
    const lines = Object.entries(headers).flatMap(([name, values]) =>
      values.map((value) => [name.toLowerCase(), value] as const),
    );
    response.end(responseBody("OK", { fullyQualifiedMethod: path, headers: lines, authority: host, namespace, pod }));
  }

  #seen(request: IncomingMessage): Echo {
    const { namespace, service, targetPort } = this.served;
    const headers: Record<string, string[]> = {};
    for (const [name, value] of linesOf(request)) {
      if (name.toLowerCase() !== "host") (headers[canonical(name)] ??= []).push(value);
    }
    return {
      path: request.url ?? "",
      host: request.headers.host ?? "",
      method: request.method ?? "",
      proto: `HTTP/${request.httpVersion}`,
      headers,
      httpPort: String(targetPort),
      namespace,
      ingress: "",
      service,
      pod: this.pod,
    };
  }
}

const pathOf = (request: IncomingMessage): string => (request.url ?? "").split("?", 1)[0] as string;

const queryOf = (request: IncomingMessage): URLSearchParams =>
  new URLSearchParams((request.url ?? "").split("?").slice(1).join("?"));

const linesOf = ({ rawHeaders }: IncomingMessage): [name: string, value: string][] =>
  rawHeaders.flatMap((name, i) => (i % 2 === 0 ? [[name, rawHeaders[i + 1] as string] as [string, string]] : []));

/** As Go's net/http, in which the suite is written, spells a field name in its maps. */
const canonical = (name: string): string =>
  name.toLowerCase().replace(/(?:^|-)[a-z]/g, (initial) => initial.toUpperCase());

/** `X-Echo-Set-Header: name:value,name:value`; values of a repeated name are joined by commas. */
function wantedHeaders(request: IncomingMessage): Map<string, string> {
  const wanted = new Map<string, string>();
  for (const [header, list] of linesOf(request)) {
    if (header.toLowerCase() !== "x-echo-set-header") continue;
    for (const pair of list.split(",")) {
      const [name = "", ...rest] = pair.trim().split(":");
      const value = rest.join(":").trim();
      const before = wanted.get(name);
      if (name !== "") wanted.set(name, before === undefined ? value : `${before},${value}`);
    }
  }
  return wanted;
}

async function delay(duration: string | null): Promise<void> {
  if (!duration) return;
  const milliseconds = parseDuration(duration);
  if (milliseconds === undefined) throw new Error(`an origin is asked to wait "${duration}", which is no duration`);
  await sleep(milliseconds);
}

function refuse(response: ServerResponse, why: string): void {
  response.writeHead(400).end(why);
}
