/** Answers that have no end by design: they get no total deadline, and each part is passed on as it comes. */

// Event streams (WHATWG HTML, 9.2), newline-delimited JSON and JSON sequences (RFC 7464), and gRPC-Web, whose streams look no
// different from single answers.
const ENDLESS = /^(?:text\/event-stream|application\/(?:x-ndjson|ndjson|jsonl|json-seq|grpc-web))/i;

/** Also of upgraded connections. */
export const isEndless = (response: Response): boolean =>
  response.status === 101 || ENDLESS.test(response.headers.get("content-type") ?? "");

/**
 * `response`, ended when nothing has come for `idle` milliseconds. Its parts are moved by hand, since the runtime does not tell when
 * it moves one; whoever reads sets the pace. The client sees the stream break off, which an EventSource answers by connecting again.
 */
export function withIdleLimit(response: Response, idle: number, ended: () => void): Response {
  const source = response.body?.getReader();
  if (!source) return response;
  const { readable, writable } = new IdentityTransformStream();
  const sink = writable.getWriter();
  let last = Date.now();
  let timer = setTimeout(look, idle);
  function look() {
    const left = last + idle - Date.now();
    if (left > 0) timer = setTimeout(look, left);
    else {
      ended();
      stop(new Error("nothing has come for too long"));
    }
  }
  function stop(reason: unknown) {
    clearTimeout(timer);
    source?.cancel(reason).catch(() => {});
    sink.abort(reason).catch(() => {});
  }
  const pump = async () => {
    for (;;) {
      const { done, value } = await source.read();
      if (done) break;
      last = Date.now();
      await sink.write(value);
      // A slow client is not a silent cluster.
      last = Date.now();
    }
    clearTimeout(timer);
    await sink.close();
  };
  pump().catch(stop);
  return new Response(readable, response);
}
