/** Answers that have no end by design: they get no total deadline, and each part is passed on as it comes. */

// Event streams (WHATWG HTML, 9.2), newline-delimited JSON and JSON sequences (RFC 7464), and gRPC-Web, whose streams look no
// different from single answers.
const ENDLESS = /^(?:text\/event-stream|application\/(?:x-ndjson|ndjson|jsonl|json-seq|grpc-web))/i;

/** Also of upgraded connections. */
export const isEndless = (response: Response): boolean =>
  response.status === 101 || ENDLESS.test(response.headers.get("content-type") ?? "");

export interface StreamLimits {
  /** Milliseconds in which nothing comes; 0: no limit. */
  readonly idle: number;
  /** Milliseconds since the epoch; Infinity: no limit. */
  readonly deadline: number;
}

/**
 * `response` with its `body` broken off at both ends when nothing has come for too long or the deadline is over; `ended` is called
 * then. An EventSource answers by connecting again. The parts are moved by hand, at the reader's pace, since the runtime does not tell
 * when it moves one; that takes four to twenty times the CPU, by the size of the parts (measured).
 */
export function limited(
  response: Response,
  body: ReadableStream<Uint8Array>,
  { idle, deadline }: StreamLimits,
  ended: (why: "idle" | "deadline") => void,
): Response {
  // Into one buffer, since a default reader gets 4 KB at a time (measured).
  const source = body.getReader({ mode: "byob" });
  const { readable, writable } = new IdentityTransformStream();
  const sink = writable.getWriter();
  let timer: ReturnType<typeof setTimeout> | null = null;
  // Since when the cluster is waited for; undefined while the client is: a slow client is no silent cluster.
  let waiting: number | undefined = Date.now();
  const stop = (reason: unknown) => {
    clearTimeout(timer);
    source.cancel(reason).catch(() => {});
    sink.abort(reason).catch(() => {});
  };
  const end = (why: "idle" | "deadline") => {
    ended(why);
    stop(new Error(why));
  };
  const watch = () => {
    const now = Date.now();
    const idles = idle > 0 ? (waiting ?? now) + idle : Number.POSITIVE_INFINITY;
    if (now >= deadline) end("deadline");
    else if (now >= idles) end("idle");
    else timer = setTimeout(watch, Math.min(idles, deadline) - now);
  };
  const pump = async () => {
    for (let buffer = new ArrayBuffer(64 * 1024); ; ) {
      const { done, value } = await source.read(new Uint8Array(buffer));
      if (done) break;
      waiting = undefined;
      await sink.write(value);
      waiting = Date.now();
      buffer = value.buffer;
    }
    clearTimeout(timer);
    await sink.close();
  };
  watch();
  pump().catch(stop);
  return new Response(readable, response);
}
