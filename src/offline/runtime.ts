/** Parts of the Workers runtime that Node lacks, or has another way. */

/** Takes a stream for a body without being told that it is one. */
export class LenientRequest extends Request {
  constructor(input: RequestInfo | URL, init?: RequestInit) {
    super(input, init?.body instanceof ReadableStream ? ({ duplex: "half", ...init } as RequestInit) : init);
  }
}

/**
 * Also stands for FixedLengthStream: nothing here is cut into messages, so a length has no meaning. Its readable end is one of bytes,
 * which that of a TransformStream is not.
 */
export class IdentityStream {
  readonly readable: ReadableStream<Uint8Array>;
  readonly writable: WritableStream<Uint8Array>;

  constructor(_length?: number) {
    let source: ReadableByteStreamController;
    let sink: WritableStreamDefaultController;
    let wanted = Promise.withResolvers<void>();
    this.readable = new ReadableStream({
      type: "bytes",
      start: (controller) => void (source = controller),
      pull: () => wanted.resolve(),
      cancel(reason) {
        sink.error(reason);
        wanted.resolve();
      },
    });
    this.writable = new WritableStream({
      start: (controller) => void (sink = controller),
      async write(chunk) {
        await wanted.promise;
        if (sink.signal.aborted || chunk.byteLength === 0) return;
        wanted = Promise.withResolvers();
        // What is enqueued is taken away from whoever wrote it.
        source.enqueue(chunk.slice());
      },
      close() {
        source.close();
        source.byobRequest?.respond(0);
      },
      abort: (reason) => source.error(reason),
    });
  }
}

type Read = ReadableStreamReadResult<Uint8Array<ArrayBuffer>>;

/** Gives `reader` the option `min` of the Streams Standard, which fails in Node when the stream ends before so much is there (26.10.0). */
export function readsAtLeast(reader: ReadableStreamBYOBReader): ReadableStreamBYOBReader {
  const read = reader.read.bind(reader);
  const atLeast = async (view: Uint8Array<ArrayBuffer>, { min = 1 } = {}): Promise<Read> => {
    let { buffer } = view;
    const { byteOffset, byteLength } = view;
    let filled = 0;
    for (;;) {
      const part = (await read(new Uint8Array(buffer, byteOffset + filled, byteLength - filled))) as Read;
      if (part.value === undefined) return part;
      ({ buffer } = part.value);
      filled += part.value.byteLength;
      const done = part.done && filled === 0;
      const value = new Uint8Array(buffer, byteOffset, filled);
      if (done) return { done, value } as unknown as Read;
      if (part.done || filled >= min) return { done: false, value };
    }
  };
  return Object.assign(reader, { read: atLeast }) as ReadableStreamBYOBReader;
}
