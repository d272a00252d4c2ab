/**
 * The backend that the tests assume, which is albedo: 200 and nothing to everything, and `POST /reflect` answers with the status, headers
 * and body that the request's JSON names. Like Go's server it guesses a Content-Type that is not named, which response rules go by.
 */
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";

export interface BackendAnswer {
  readonly status: number;
  readonly headers: readonly (readonly [name: string, value: string])[];
  /** One character for each byte. */
  readonly body: string;
}

/** `body` has one character for each byte. */
export function answerTo(method: string, path: string, body: string): BackendAnswer {
  const [plain = ""] = path.split("?");
  if (method !== "POST" || !/^\/reflect(?:\/|$)/.test(plain)) return { status: 200, headers: [], body: "" };
  let specified: { status?: number; headers?: Record<string, string>; body?: string; encodedBody?: string };
  try {
    specified = JSON.parse(Buffer.from(body, "latin1").toString("utf8"));
  } catch {
    return { status: 400, headers: [["Content-Type", TEXT]], body: "Invalid JSON in request body" };
  }
  const { status = 200, headers = {}, body: text, encodedBody } = specified;
  const bytes = Buffer.from(text || (encodedBody ?? ""), text ? "utf8" : "base64").toString("latin1");
  const named = Object.entries(headers).map(([name, value]): [string, string] => [name, String(value)]);
  const typed = named.some(([name]) => name.toLowerCase() === "content-type");
  if (!typed && bytes !== "") named.push(["Content-Type", guessedType(bytes)]);
  return { status, headers: named, body: bytes };
}

const TEXT = "text/plain; charset=utf-8";

/** The part of the MIME Sniffing Standard (7.1) that tells text of browsers from other text and from binary data. */
function guessedType(body: string): string {
  const begin = body.slice(0, 512).replace(/^[\t\n\f\r ]+/, "");
  const tag = /^<(?:!doctype html|html|head|script|iframe|h1|div|font|table|a|style|title|b|body|br|p)[ >]|^<!--/i;
  if (tag.test(begin)) return "text/html; charset=utf-8";
  if (begin.startsWith("<?xml")) return "text/xml; charset=utf-8";
  // Control characters that no text has.
  for (let i = 0; i < Math.min(body.length, 512); i++) {
    const code = body.charCodeAt(i);
    if (code <= 0x08 || code === 0x0b || (code >= 0x0e && code <= 0x1a) || (code >= 0x1c && code <= 0x1f))
      return "application/octet-stream";
  }
  return TEXT;
}

export class Backend {
  readonly port: number;
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
    this.port = (server.address() as AddressInfo).port;
  }

  static async start(): Promise<Backend> {
    const server = createServer({ insecureHTTPParser: true, maxHeaderSize: 256 * 1024 }, async (request, response) => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk as Buffer);
      const body = Buffer.concat(chunks).toString("latin1");
      const answer = answerTo(request.method ?? "", request.url ?? "", body);
      response.writeHead(answer.status, answer.headers.flat());
      response.end(Buffer.from(answer.body, "latin1"));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return new Backend(server);
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
