/**
 * An upgraded connection with limits: the gateway stands between its two ends and moves each message by hand, which is the only way to
 * see that none comes. Without limits the cluster's own response is returned untouched, and the runtime moves the bytes.
 *
 * The runtime moves them at the pace of the slower end; `send` here queues whatever the other end does not take, and tells nobody how
 * much that is (its types have bufferedAmount, workerd 1.20261023.1 does not; measured: 300 MB for a client that does not read). docs/protocols.md says so.
 */

export interface WebSocketLimits {
  /** Milliseconds without a message in either direction; 0: no limit. */
  readonly idle: number;
  /** Milliseconds in all; 0: no limit. */
  readonly lifetime: number;
}

/** What became of a connection, when the first of its ends closed it or a limit did. */
export interface WebSocketEnd {
  readonly why: "client" | "cluster" | "idle" | "lifetime";
  /** What the end sent that closed first (1005: nothing, 1006: it is gone without a close), or what both are sent for a limit. */
  readonly code: number;
  readonly ms: number;
  /** By who sent them. */
  readonly client: Traffic;
  readonly cluster: Traffic;
}

export interface Traffic {
  messages: number;
  /** Of payload, without frames and before compression; text as UTF-8. */
  bytes: number;
}

// RFC 6455, 7.4.1. "Going away": nobody has done anything wrong, and the client may come back. The other two are what an end is told
// that got no code, or no close at all, and are never sent.
const GOING_AWAY = 1001;
const NO_STATUS = 1005;
const ABNORMAL = 1006;
// What the end that is left hears when the other is gone without a close. 1014 is "Bad Gateway" in IANA's registry of close codes: what
// 502 is to a request.
const LOST = { client: GOING_AWAY, cluster: 1014 } as const;

const encoder = new TextEncoder();

/** The response for the client in the place of `upgraded`. `ended` is called once. */
export function relay(upgraded: Response, limits: WebSocketLimits, ended: (end: WebSocketEnd) => void): Response {
  const cluster = upgraded.webSocket as WebSocket;
  const { 0: handed, 1: client } = new WebSocketPair();
  const started = Date.now();
  const traffic = { client: { messages: 0, bytes: 0 }, cluster: { messages: 0, bytes: 0 } };
  let last = started;
  let timer: ReturnType<typeof setTimeout> | null = null;
  let open = 2;
  let told = false;

  const tell = (why: WebSocketEnd["why"], code: number) => {
    if (told) return;
    told = true;
    ended({ why, code, ms: Date.now() - started, ...traffic });
  };
  const expire = (why: "idle" | "lifetime") => {
    tell(why, GOING_AWAY);
    close(client, GOING_AWAY, why);
    close(cluster, GOING_AWAY, why);
  };
  const watch = () => {
    const now = Date.now();
    const dies = limits.lifetime > 0 ? started + limits.lifetime : Number.POSITIVE_INFINITY;
    const idles = limits.idle > 0 ? last + limits.idle : Number.POSITIVE_INFINITY;
    if (now >= dies) expire("lifetime");
    else if (now >= idles) expire("idle");
    else timer = setTimeout(watch, Math.min(dies, idles) - now);
  };
  const closed = () => {
    if (--open === 0) clearTimeout(timer);
  };
  const connect = (from: WebSocket, to: WebSocket, who: "client" | "cluster") => {
    // Else a Blob, whose bytes would have to be waited for.
    from.binaryType = "arraybuffer";
    // Half open: an end that has said goodbye still gets what the other was saying, and the other's own answer to the close.
    from.accept({ allowHalfOpen: true });
    from.addEventListener("message", ({ data }) => {
      last = Date.now();
      traffic[who].messages++;
      traffic[who].bytes +=
        typeof data === "string" ? encoder.encode(data).byteLength : (data as ArrayBuffer).byteLength;
      try {
        to.send(data);
      } catch {
        // The other end has gone, or has been told goodbye: then what comes is from an end that does not heed its own.
      }
    });
    from.addEventListener("close", ({ code, reason }) => {
      closed();
      tell(who, code);
      if (code === ABNORMAL) close(to, LOST[who], `${who} gone`);
      else close(to, code, reason);
    });
    // No WebSocket any more what comes from there: the runtime has ended it, and no close event follows (measured).
    from.addEventListener("error", () => {
      closed();
      tell(who, ABNORMAL);
      close(to, LOST[who], `${who} failed`);
    });
  };
  connect(cluster, client, "cluster");
  connect(client, cluster, "client");
  watch();

  const headers = new Headers(upgraded.headers);
  // What each end compresses is between that end and the runtime now.
  headers.delete("sec-websocket-extensions");
  headers.delete("sec-websocket-accept");
  return new Response(null, { status: 101, headers, webSocket: handed });
}

function close(socket: WebSocket, code: number, reason: string): void {
  try {
    if (code === NO_STATUS) socket.close();
    else socket.close(code, reason);
  } catch {
    // Closed already.
  }
}
