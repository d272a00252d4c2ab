/**
 * The request's body on its way to a cluster. It is moved here and not by `fetch` alone, which tells neither when all of it is sent nor
 * which of the two ends broke off.
 */
import { type Exchange, receivedHeader } from "../policies/contract.ts";
import type { ProblemCode } from "../table/problems.ts";

export interface Upload {
  readonly body: ReadableStream<Uint8Array> | Uint8Array | null;
  /** Resolves when all of a stream is sent, and rejects when either end breaks off. */
  readonly sent?: Promise<void>;
  /** Whether the client is who was waited for; to be asked when the exchange has been ended, which ends the stream. */
  readonly stalled?: () => Promise<boolean>;
  /** What went through, for mirrors; undefined where it broke off or was larger than asked for. */
  readonly copy: Promise<Uint8Array | null | undefined> | Uint8Array | null | undefined;
}

/**
 * `end` is called when the body breaks off or gets larger than `limit` bytes, and must end the exchange. The stream itself does not end
 * then and does not fail: workerd would send the cluster a proper end, and half a body would be taken for a whole one (measured).
 * A body of at most `copied` bytes is copied on its way.
 */
export function upload(
  exchange: Exchange,
  request: Request,
  limit: number,
  end: (why: ProblemCode) => void,
  copied = 0,
): Upload {
  const stated = receivedHeader(exchange, "content-length");
  // An empty body is a stream as well, which could not be sent twice, nor with GET.
  const body = stated === "0" ? null : exchange.body !== undefined ? exchange.body : request.body;
  if (!(body instanceof ReadableStream)) {
    if (body && body.byteLength > limit) end("body-too-large");
    return { body, copy: body && body.byteLength > copied ? undefined : body };
  }
  const { readable, writable } =
    stated === null ? new IdentityTransformStream() : new FixedLengthStream(Number(stated));
  // A stated length has been held against the limit already. The runtime cannot pipe what a policy put together.
  const plain = stated !== null && body === request.body;
  const parts = copied > 0 && Number(stated ?? 0) <= copied ? new Parts(copied) : undefined;
  const waiting: Waiting = { forClient: async () => false };
  const sent = plain && !parts ? pipe(body, writable, end, waiting) : pump(body, writable, limit, end, waiting, parts);
  const copy =
    parts &&
    sent.then(
      () => parts.whole(),
      () => undefined,
    );
  // Who cares listens to it; the others learn from `fetch`.
  sent.catch(() => {});
  const stalled = () => waiting.forClient();
  return { body: readable, sent, stalled, copy };
}

interface Waiting {
  forClient: () => Promise<boolean>;
}

// Milliseconds.
const CLUSTER_FIRST = 50;

async function pipe(
  body: ReadableStream<Uint8Array>,
  writable: WritableStream<Uint8Array>,
  end: (why: ProblemCode) => void,
  waiting: Waiting,
): Promise<void> {
  const piped = body.pipeTo(writable, { preventAbort: true, preventCancel: true });
  const settled = piped.then(
    () => false,
    () => false,
  );
  // What waits for the cluster fails with its request; what waits for the client goes on waiting (measured).
  waiting.forClient = () => Promise.race([settled, scheduler.wait(CLUSTER_FIRST).then(() => true)]);
  try {
    await piped;
  } catch (error) {
    // The runtime says of both ends that it was the source (measured). A cluster that broke off fails `fetch` at once or has answered,
    // so that who still waits then waits for the client.
    body.getReader().closed.catch(() => setTimeout(() => end("bad-request"), CLUSTER_FIRST));
    throw error;
  }
}

/** All of it goes through one buffer. (A TransformStream gets a new array of 4 KB at each turn: 110 MB of garbage for 100 MB.) */
async function pump(
  body: ReadableStream<Uint8Array>,
  writable: WritableStream<Uint8Array>,
  limit: number,
  end: (why: ProblemCode) => void,
  waiting: Waiting,
  parts?: Parts,
): Promise<void> {
  const reader = body.getReader({ mode: "byob" });
  const writer = writable.getWriter();
  let buffer = new ArrayBuffer(64 * 1024);
  let reading = true;
  waiting.forClient = async () => reading;
  for (let bytes = 0; ; ) {
    const part = await reader.read(new Uint8Array(buffer)).catch((error) => {
      end("bad-request");
      throw error;
    });
    if (part.done) {
      reading = false;
      return writer.close();
    }
    bytes += part.value.byteLength;
    if (bytes > limit) {
      end("body-too-large");
      throw new Error("the body is larger than the gateway's limit");
    }
    parts?.add(part.value);
    reading = false;
    await writer.write(part.value);
    reading = true;
    buffer = part.value.buffer as ArrayBuffer;
  }
}

/** Copies of a stream's parts, dropped once they are more than wanted. */
class Parts {
  #parts: Uint8Array[] | undefined = [];
  #bytes = 0;
  readonly #limit: number;

  constructor(limit: number) {
    this.#limit = limit;
  }

  add(part: Uint8Array): void {
    this.#bytes += part.byteLength;
    if (this.#bytes > this.#limit) this.#parts = undefined;
    this.#parts?.push(part.slice());
  }

  whole(): Uint8Array | undefined {
    if (!this.#parts) return undefined;
    const whole = new Uint8Array(this.#bytes);
    let at = 0;
    for (const part of this.#parts) {
      whole.set(part, at);
      at += part.byteLength;
    }
    return whole;
  }
}
