/**
 * As much of gRPC-Web as an echo and its client need: frames, the status at their end, and the messages of grpcecho.proto of the
 * Gateway API's conformance images, whose fields are all strings and messages.
 */

/** By number; the names are Go's, as the cases have them (google.golang.org/grpc/codes). */
export const CODES = [
  "OK",
  "Canceled",
  "Unknown",
  "InvalidArgument",
  "DeadlineExceeded",
  "NotFound",
  "AlreadyExists",
  "PermissionDenied",
  "ResourceExhausted",
  "FailedPrecondition",
  "Aborted",
  "OutOfRange",
  "Unimplemented",
  "Internal",
  "Unavailable",
  "DataLoss",
  "Unauthenticated",
] as const;

export type Code = (typeof CODES)[number];

// gRPC's HTTP to gRPC status mapping (doc/http-grpc-status-mapping.md), for an answer without a grpc-status.
const CODE_OF_HTTP: Readonly<Record<number, Code>> = {
  400: "Internal",
  401: "Unauthenticated",
  403: "PermissionDenied",
  404: "Unimplemented",
  429: "Unavailable",
  502: "Unavailable",
  503: "Unavailable",
  504: "Unavailable",
};

export const CONTENT_TYPE = "application/grpc-web+proto";

export interface Assertions {
  /** `/package.Service/Method`. */
  readonly fullyQualifiedMethod: string;
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly authority: string;
  readonly namespace: string;
  readonly pod: string;
}

export interface GrpcResult {
  readonly code: Code;
  readonly message: string;
  readonly assertions?: Assertions;
}

const TRAILERS = 0x80;

/** One length-prefixed frame (PROTOCOL-WEB.md). */
function frame(flags: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt8(flags);
  head.writeUInt32BE(payload.length, 1);
  return Buffer.concat([head, payload]);
}

/** The body of a call with the empty EchoRequest. */
export const emptyRequest = (): Buffer => frame(0, Buffer.alloc(0));

/** The body of an answer: an EchoResponse, if there is one, and the status as trailers. */
export function responseBody(code: Code, assertions?: Assertions): Buffer {
  const trailers = frame(TRAILERS, Buffer.from(`grpc-status: ${CODES.indexOf(code)}\r\n`));
  return assertions ? Buffer.concat([frame(0, encode(assertions)), trailers]) : trailers;
}

/** What a client makes of an answer. Throws when the body is no gRPC-Web. */
export function readResult(status: number, header: (name: string) => string | undefined, body: Buffer): GrpcResult {
  const inHeaders = header("grpc-status");
  if (inHeaders !== undefined) return { code: codeOf(inHeaders), message: header("grpc-message") ?? "" };
  if (status !== 200) return { code: CODE_OF_HTTP[status] ?? "Unknown", message: `HTTP ${status}` };
  let message: Buffer | undefined;
  for (let at = 0; at < body.length; ) {
    const end = at + 5 + (at + 5 <= body.length ? body.readUInt32BE(at + 1) : Number.POSITIVE_INFINITY);
    if (end > body.length) throw new Error("the gRPC-Web body ends in the middle of a frame");
    const payload = body.subarray(at + 5, end);
    if ((body[at] as number) & TRAILERS) {
      const trailers = new Map(
        String(payload)
          .split("\r\n")
          .map((line) => [line.split(":", 1)[0]?.trim().toLowerCase() ?? "", line.slice(line.indexOf(":") + 1).trim()]),
      );
      return {
        code: codeOf(trailers.get("grpc-status") ?? ""),
        message: trailers.get("grpc-message") ?? "",
        ...(message && { assertions: decode(message) }),
      };
    }
    message = payload;
    at = end;
  }
  throw new Error("the gRPC-Web body has no trailers");
}

const codeOf = (number: string): Code => CODES[/^[0-9]+$/.test(number) ? Number(number) : -1] ?? "Unknown";

function encode({ fullyQualifiedMethod, headers, authority, namespace, pod }: Assertions): Buffer {
  const context = Buffer.concat([field(1, namespace), field(4, pod)]);
  const assertions = Buffer.concat([
    field(1, fullyQualifiedMethod),
    ...headers.map(([name, value]) => field(2, Buffer.concat([field(1, name), field(2, value)]))),
    field(3, authority),
    field(4, context),
  ]);
  return field(1, assertions);
}

function decode(response: Buffer): Assertions {
  const assertions = fields(first(fields(response), 1));
  const context = fields(first(assertions, 4));
  return {
    fullyQualifiedMethod: String(first(assertions, 1)),
    headers: (assertions.get(2) ?? []).map((header) => {
      const parts = fields(header);
      return [String(first(parts, 1)), String(first(parts, 2))];
    }),
    authority: String(first(assertions, 3)),
    namespace: String(first(context, 1)),
    pod: String(first(context, 4)),
  };
}

const first = (all: ReadonlyMap<number, readonly Buffer[]>, number: number): Buffer =>
  all.get(number)?.[0] ?? Buffer.alloc(0);

/** A length-delimited field (protobuf's wire type 2). */
function field(number: number, value: string | Buffer): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([varint((number << 3) | 2), varint(bytes.length), bytes]);
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  for (; value > 0x7f; value >>>= 7) bytes.push((value & 0x7f) | 0x80);
  return Buffer.from([...bytes, value]);
}

function fields(message: Buffer): Map<number, Buffer[]> {
  const found = new Map<number, Buffer[]>();
  let at = 0;
  const read = () => {
    for (let value = 0, shift = 0; ; shift += 7) {
      const byte = message[at++];
      if (byte === undefined) throw new Error("the message ends in the middle of a number");
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < message.length) {
    const tag = read();
    if ((tag & 7) !== 2) throw new Error(`the message has a field of wire type ${tag & 7}`);
    const length = read();
    if (at + length > message.length) throw new Error("the message ends in the middle of a field");
    found.set(tag >>> 3, [...(found.get(tag >>> 3) ?? []), message.subarray(at, at + length)]);
    at += length;
  }
  return found;
}
