/** The beginning of a body in memory, for those who must have seen it before the origin does, and all of it for the origin. */
export interface Held {
  /** What has been read: all, or `limit` and one more. */
  readonly begun: Uint8Array;
  readonly more: boolean;
  /** All of the body, for the origin. */
  readonly body: Uint8Array | ReadableStream<Uint8Array>;
}

// What workerd has beyond the types that build/ checks this file with.
declare const IdentityTransformStream: new () => TransformStream<Uint8Array, Uint8Array>;
declare const FixedLengthStream: new (length: number) => TransformStream<Uint8Array, Uint8Array>;
interface ByteReader {
  read(view: Uint8Array, options: { min: number }): Promise<{ value?: Uint8Array | undefined }>;
  releaseLock(): void;
}

interface Begun {
  readonly begun: Uint8Array;
  readonly source: ReadableStream<Uint8Array>;
}

// What the streams made here begin with and go on with. Such a stream cannot be held by reading it: a pipe from one TransformStream
// into another neither moves anything nor fails (measured; workerd logs that it is not implemented).
const resumed = new WeakMap<ReadableStream<Uint8Array>, Begun>();

/** Whether the runtime can move the rest of it, once a part is held: it is the client's own body, or has been held before. */
export const canHold = (body: ReadableStream<Uint8Array>, clients: ReadableStream<Uint8Array> | null): boolean =>
  body === clients || resumed.has(body);

/** The client has not sent in time what somebody must have seen of its body. Becomes 408 `request-timeout`. */
export class BodyLate extends Error {
  override readonly name = "BodyLate";
}

/**
 * Reads the first `limit` bytes of `source`, in one read that waits for all of them: a default reader gets 4 KB at a time (measured).
 * What was held before may be held again, with another limit. Throws BodyLate when `within` milliseconds have passed; 0: never.
 */
export async function hold(
  source: ReadableStream<Uint8Array>,
  limit: number,
  contentLength: string | null,
  within = 0,
): Promise<Held> {
  const length = /^[0-9]{1,15}$/.test(contentLength ?? "") ? Number(contentLength) : undefined;
  const room = Math.min(limit, length ?? limit) + 1;
  const before = resumed.get(source);
  if (before && before.begun.length >= room) return { begun: before.begun.subarray(0, room), more: true, body: source };
  const beginning = begin(before?.source ?? source, room, before?.begun);
  const begun = within > 0 ? await inTime(beginning, within) : await beginning;
  if (begun.length < room) return { begun, more: false, body: begun };
  return { begun, more: true, body: resume({ begun, source: before?.source ?? source }, length) };
}

async function inTime<T>(work: Promise<T>, within: number): Promise<T> {
  let disarm = () => {};
  const late = new Promise<never>((_, reject) => {
    const timer = setTimeout(() => reject(new BodyLate()), within);
    disarm = () => clearTimeout(timer);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    disarm();
  }
}

/** `known`, what was read of it before, and as much more as makes `room` bytes of both. */
async function begin(
  source: ReadableStream<Uint8Array>,
  room: number,
  known: Uint8Array = new Uint8Array(),
): Promise<Uint8Array> {
  const reader = source.getReader({ mode: "byob" }) as ByteReader;
  const wanted = room - known.length;
  const { value: read = new Uint8Array() } = await reader.read(new Uint8Array(wanted), { min: wanted });
  reader.releaseLock();
  if (known.length === 0) return read;
  const begun = new Uint8Array(known.length + read.length);
  begun.set(known);
  begun.set(read, known.length);
  return begun;
}

/**
 * A stream of what has begun and then of the rest. The runtime's own pipe moves the rest, at the pace of its reader and without a
 * turn through JavaScript per chunk; with a known length the origin still gets a Content-Length.
 */
function resume(parts: Begun, length: number | undefined): ReadableStream<Uint8Array> {
  const { begun, source } = parts;
  const { readable, writable } = length === undefined ? new IdentityTransformStream() : new FixedLengthStream(length);
  resumed.set(readable, parts);
  const pump = async () => {
    const writer = writable.getWriter();
    // Until somebody reads. When it is held again nobody ever does, and the rest is for the stream that is made then.
    await writer.write(begun);
    writer.releaseLock();
    await source.pipeTo(writable);
  };
  // pipeTo tells either end of the other's failure; before it runs, only the reader can have gone.
  pump().catch((reason) => source.cancel(reason).catch(() => {}));
  return readable;
}
