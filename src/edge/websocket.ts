/**
 * An upgraded connection with limits: the gateway stands between its two ends and moves each message by hand, which is the only way to
 * see that none comes. Without limits the cluster's own response is returned untouched, and the runtime moves the bytes.
 */

export interface WebSocketLimits {
  /** Milliseconds without a message in either direction; 0: no limit. */
  readonly idle: number;
  /** Milliseconds in all; 0: no limit. */
  readonly lifetime: number;
}

/** What became of a connection. */
export interface WebSocketEnd {
  readonly why: "client" | "cluster" | "idle" | "lifetime";
  readonly code: number;
  readonly ms: number;
  /** By who sent them. Bytes of text are counted in UTF-16 units: to know more would mean to encode each message again. */
  readonly client: Traffic;
  readonly cluster: Traffic;
}

export interface Traffic {
  messages: number;
  bytes: number;
}

/** The response for the client in the place of `upgraded`. `ended` is called once. */
export function relay(upgraded: Response, limits: WebSocketLimits, ended: (end: WebSocketEnd) => void): Response {
  const cluster = upgraded.webSocket as WebSocket;
  const { 0: handed, 1: client } = new WebSocketPair();
  const started = Date.now();
  const traffic = { client: { messages: 0, bytes: 0 }, cluster: { messages: 0, bytes: 0 } };
  let last = started;
  let timer: ReturnType<typeof setTimeout> | null = null;
  let over = false;

  const end = (why: WebSocketEnd["why"], code: number, reason: string) => {
    if (over) return;
    over = true;
    clearTimeout(timer);
    close(client, code, reason);
    close(cluster, code, reason);
    ended({ why, code, ms: Date.now() - started, ...traffic });
  };
  const look = () => {
    const now = Date.now();
    // 1001, "going away": the end has done nothing wrong and may come back (RFC 6455, 7.4.1).
    if (limits.lifetime > 0 && now >= started + limits.lifetime) end("lifetime", 1001, "lifetime");
    else if (limits.idle > 0 && now >= last + limits.idle) end("idle", 1001, "idle");
    else arm(now);
  };
  const arm = (now: number) => {
    const due = Math.min(
      limits.lifetime > 0 ? started + limits.lifetime : Number.POSITIVE_INFINITY,
      limits.idle > 0 ? last + limits.idle : Number.POSITIVE_INFINITY,
    );
    if (due !== Number.POSITIVE_INFINITY) timer = setTimeout(look, due - now);
  };
  const connect = (from: WebSocket, to: WebSocket, who: "client" | "cluster") => {
    from.accept();
    from.addEventListener("message", ({ data }) => {
      last = Date.now();
      traffic[who].messages++;
      traffic[who].bytes += typeof data === "string" ? data.length : (data as ArrayBuffer).byteLength;
      try {
        to.send(data);
      } catch {
        // The other end has gone; its close event says so.
      }
    });
    from.addEventListener("close", ({ code, reason }) => end(who, code, reason));
    from.addEventListener("error", () => end(who, 1011, "connection lost"));
  };
  connect(cluster, client, "cluster");
  connect(client, cluster, "client");
  arm(started);

  const headers = new Headers(upgraded.headers);
  // What each end compresses is between that end and the runtime now.
  headers.delete("sec-websocket-extensions");
  headers.delete("sec-websocket-accept");
  return new Response(null, { status: 101, headers, webSocket: handed });
}

/** 1005, 1006 and 1015 say what happened and are never sent (RFC 6455, 7.4.1). */
function close(socket: WebSocket, code: number, reason: string): void {
  try {
    if (code === 1005 || code === 1006 || code === 1015) socket.close();
    else socket.close(code, reason);
  } catch {
    // Closed already.
  }
}
