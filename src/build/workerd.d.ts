/**
 * What the `run` of policies uses of the Workers runtime. The build imports their schemas and compilers from the same files, so
 * Node's types must know these names; tsconfig.json checks the files against the real ones.
 */
interface ResponseInit {
  webSocket?: unknown;
  encodeBody?: "automatic" | "manual";
}

interface Response {
  readonly webSocket: unknown;
}

declare class FixedLengthStream extends TransformStream<Uint8Array, Uint8Array> {
  constructor(length: number);
}

declare class IdentityTransformStream extends TransformStream<Uint8Array, Uint8Array> {}
