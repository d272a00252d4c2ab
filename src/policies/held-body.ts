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

/** Reads the first `limit` bytes of `source`, in one read that waits for all of them: a default reader gets 4 KB at a time (measured). */
export async function hold(
  source: ReadableStream<Uint8Array>,
  limit: number,
  contentLength: string | null,
): Promise<Held> {
  const length = /^[0-9]{1,15}$/.test(contentLength ?? "") ? Number(contentLength) : undefined;
  const room = Math.min(limit, length ?? limit) + 1;
  const reader = source.getReader({ mode: "byob" }) as ByteReader;
  const { value: begun = new Uint8Array() } = await reader.read(new Uint8Array(room), { min: room });
  reader.releaseLock();
  if (begun.length < room) return { begun, more: false, body: begun };
  return { begun, more: true, body: resumed(begun, source, length) };
}

/**
 * A stream of `begun` and then of the rest of `source`. The runtime's own pipe moves the rest, at the pace of its reader and without a
 * turn through JavaScript per chunk; with a known length the origin still gets a Content-Length.
 */
function resumed(begun: Uint8Array, source: ReadableStream<Uint8Array>, length: number | undefined) {
  const { readable, writable } = length === undefined ? new IdentityTransformStream() : new FixedLengthStream(length);
  const pump = async () => {
    const writer = writable.getWriter();
    await writer.write(begun);
    writer.releaseLock();
    await source.pipeTo(writable);
  };
  // pipeTo tells either end of the other's failure; before it runs, only the reader can have gone.
  pump().catch((reason) => source.cancel(reason).catch(() => {}));
  return readable;
}
