/** Clients of the gateway: a well-behaved one, and one that writes whatever bytes it likes. */
import {
  Agent,
  type ClientRequest,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type OutgoingHttpHeaders,
  request,
} from "node:http";
import { connect } from "node:net";
import type { Echo } from "./origin.ts";

const PATIENCE_MS = 20_000;
const agent = new Agent({ keepAlive: true });

export interface Asking {
  readonly method?: string;
  /** The Host header. */
  readonly host?: string;
  readonly headers?: OutgoingHttpHeaders;
  readonly body?: string | Uint8Array;
  /** The address that the connection comes from, on loopback. */
  readonly from?: string;
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** As on the wire, in order. */
  readonly lines: readonly string[];
  readonly body: Buffer;
  text(): string;
  // biome-ignore lint/suspicious/noExplicitAny: each test knows what it asked for
  json(): any;
  /** The answer of an origin that echoes. */
  echo(): Echo;
}

/** Sends the request and gives it with its response, whose body is still to come. The request's body is the caller's to end. */
export function open(
  port: number,
  path: string,
  { method = "GET", host = "api.example.com", headers = {}, from }: Asking = {},
): { sent: ClientRequest; response: Promise<IncomingMessage> } {
  const sent = request({
    host: "127.0.0.1",
    port,
    path,
    method,
    headers: { host, ...headers },
    ...(from === undefined ? { agent } : { agent: false, localAddress: from }),
    timeout: PATIENCE_MS,
  });
  sent.on("timeout", () => sent.destroy(new Error(`no answer to ${method} ${path} in ${PATIENCE_MS} ms`)));
  const response = new Promise<IncomingMessage>((resolve, reject) =>
    sent.once("response", resolve).once("error", reject),
  );
  return { sent, response };
}

/** Asks and reads the whole answer. */
export async function ask(port: number, path: string, asking: Asking = {}): Promise<Answer> {
  const { sent, response } = open(port, path, asking);
  sent.end(asking.body);
  const came = await response;
  const chunks: Buffer[] = [];
  for await (const chunk of came) chunks.push(chunk as Buffer);
  return answerOf(came.statusCode ?? 0, came.headers, came.rawHeaders, Buffer.concat(chunks));
}

function answerOf(status: number, headers: IncomingHttpHeaders, lines: readonly string[], body: Buffer): Answer {
  const text = () => body.toString();
  const json = () => JSON.parse(text());
  return { status, headers, lines, body, text, json, echo: json };
}

/** One answer off the wire, for requests that no client library would send. */
export interface RawAnswer {
  /** 0: the connection closed without an answer. */
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/**
 * Writes `bytes`, of a string one for each character, and reads what comes back, until the answer is whole or the connection closes.
 * Rejects when neither happens. With `end` the client says that it has nothing more to say.
 */
export function write(port: number, bytes: string | Uint8Array, end = false): Promise<RawAnswer> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: "127.0.0.1", port, allowHalfOpen: true });
    let came = "";
    const finish = (answer: RawAnswer) => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(PATIENCE_MS, () => {
      socket.destroy();
      reject(new Error(`no whole answer in ${PATIENCE_MS} ms; came: ${JSON.stringify(came)}`));
    });
    // latin1: one character for each byte, so that lengths count.
    socket.on("data", (chunk) => {
      came += (chunk as Buffer).toString("latin1");
      const answer = parse(came, false);
      if (answer) finish(answer);
    });
    // A server that has answered may reset the connection on which the rest of a request still arrives.
    socket.on("error", () => {});
    socket.on("end", () => finish(parse(came, true) ?? { status: 0, headers: {}, body: came }));
    socket.on("close", () => finish(parse(came, true) ?? { status: 0, headers: {}, body: came }));
    socket.write(typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes);
    if (end) socket.end();
  });
}

function parse(came: string, closed: boolean): RawAnswer | undefined {
  const end = came.indexOf("\r\n\r\n");
  if (end === -1) return undefined;
  const [first = "", ...lines] = came.slice(0, end).split("\r\n");
  const headers = Object.fromEntries(
    lines.map((line) => [line.slice(0, line.indexOf(":")).toLowerCase(), line.slice(line.indexOf(":") + 1).trim()]),
  );
  const status = Number(first.split(" ")[1]);
  if (status === 100) return parse(came.slice(end + 4), closed);
  const rest = came.slice(end + 4);
  const length = headers["content-length"];
  if (length !== undefined) {
    return closed || rest.length >= Number(length)
      ? { status, headers, body: rest.slice(0, Number(length)) }
      : undefined;
  }
  if (headers["transfer-encoding"] === "chunked") {
    const whole = rest.endsWith("0\r\n\r\n");
    return closed || whole ? { status, headers, body: rest.replace(/(^|\r\n)[0-9a-fA-F]+\r\n/g, "") } : undefined;
  }
  return closed || status === 204 || status === 304 ? { status, headers, body: rest } : undefined;
}
