/** Requests as they go to the gateway under test, and its answers. */
import { Agent, type IncomingMessage, request as send } from "node:http";
import type { Case } from "./cases.ts";

/** Stands for the gateway's address where a case names no host (RFC 5737, TEST-NET-1). */
export const GATEWAY_ADDRESS = "192.0.2.10";

export interface WireRequest {
  readonly method: string;
  readonly scheme: "http" | "https";
  /** The Host header, with the listener's port unless that is the scheme's default. */
  readonly host: string;
  /** Path and query, as they are sent. */
  readonly target: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: Buffer;
}

export interface Answer {
  readonly status: number;
  /** By name in lower case, one value for each line. */
  readonly headers: ReadonlyMap<string, readonly string[]>;
  readonly body: Buffer;
}

/**
 * The suite dials the listener's port and sends the Host that the case names. Here all listeners are behind one address, and the gateway
 * knows the port by the Host header alone, so that carries it: as a browser's would.
 */
export function wireRequest({ request, gateway, scheme, backendSetResponseHeaders }: Case): WireRequest {
  const secure = scheme ? /^(?:https|wss)$/.test(scheme) : gateway.protocol === "HTTPS";
  const host = request.host ?? request.authority ?? GATEWAY_ADDRESS;
  const asked = Object.entries(backendSetResponseHeaders ?? {}).map(([name, value]) => `${name}:${value}`);
  return {
    method: request.method,
    scheme: secure ? "https" : "http",
    host: /:[0-9]+$/.test(host) || gateway.port === (secure ? 443 : 80) ? host : `${host}:${gateway.port}`,
    target: request.path,
    headers: { ...request.headers, ...(asked.length > 0 && { "X-Echo-Set-Header": asked.join(",") }) },
    ...(request.body && { body: Buffer.from(request.body) }),
  };
}

/** In which the gateway under test is told the scheme, as by the TLS terminator in front of it. */
export const SCHEME_HEADER = "X-Forwarded-Proto";

const PATIENCE_MS = 10_000;
const agent = new Agent({ keepAlive: true, maxSockets: 64 });

/** Sends it to a gateway on that port of this machine. Rejects when no answer comes, or not the whole of it. */
export function exchange(port: number, { method, scheme, host, target, headers, body }: WireRequest): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = send({
      host: "127.0.0.1",
      port,
      agent,
      method,
      path: target,
      setHost: false,
      headers: { Host: host, [SCHEME_HEADER]: scheme, ...headers, ...(body && { "Content-Length": body.length }) },
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    sent.on("error", reject);
    sent.on("response", (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () =>
        resolve({ status: response.statusCode ?? 0, headers: linesOf(response), body: Buffer.concat(chunks) }),
      );
    });
    sent.end(body);
  });
}

function linesOf({ rawHeaders }: IncomingMessage): Map<string, string[]> {
  const lines = new Map<string, string[]>();
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = (rawHeaders[i] as string).toLowerCase();
    lines.set(name, [...(lines.get(name) ?? []), rawHeaders[i + 1] as string]);
  }
  return lines;
}
