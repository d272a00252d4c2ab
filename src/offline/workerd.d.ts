/**
 * What edge/ uses of the Workers runtime and Node's types lack; runtime.ts makes of it what can be run here. tsconfig.json checks edge/
 * against the real types.
 */
interface Request {
  readonly cf?: unknown;
}

interface Scheduler {
  wait(milliseconds: number): Promise<void>;
}

interface WebSocket {
  accept(options?: unknown): void;
}

declare class WebSocketPair {
  readonly 0: WebSocket;
  readonly 1: WebSocket;
}

declare function clearTimeout(timer: NodeJS.Timeout | null): void;

interface RequestInit {
  encodeResponseBody?: "automatic" | "manual";
}

/** To the DOM's types, whose BodyInit the others cannot widen, bytes are none when their buffer may be shared. */
declare function fetch(
  input: RequestInfo | URL,
  init?: RequestInit | (Omit<RequestInit, "body"> & { body?: ReadableStream<Uint8Array> | Uint8Array | null }),
): Promise<Response>;

declare module "cloudflare:sockets" {
  export function connect(address: { hostname: string; port: number }): {
    readonly opened: Promise<unknown>;
    close(): Promise<void>;
  };
}
