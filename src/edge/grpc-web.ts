/**
 * Answers that the gateway itself gives to gRPC-Web clients, which read grpc-status and nothing else: a problem document would be
 * "unknown" to them. A response without messages carries the status in its headers (gRPC over HTTP/2, "Trailers-Only"; gRPC-Web
 * keeps that).
 */
import { type ProblemCode, problems } from "../table/problems.ts";

/** `application/grpc-web`, `-text`, and native `application/grpc` with any suffix. */
export const speaksGrpc = (request: Request): boolean =>
  /^application\/grpc(?:-web(?:-text)?)?(?:\+[a-z0-9.-]+)?(?:;|$)/i.test(request.headers.get("content-type") ?? "");

/** `problem` as a gRPC status. The title is for people; codes stay findable by it and by the request's id. */
export function grpcAnswer(request: Request, problem: Response, code: ProblemCode): Response {
  const headers = new Headers(problem.headers);
  headers.delete("content-length");
  headers.set("content-type", request.headers.get("content-type") as string);
  headers.set("grpc-status", String(statusFor(problem.status, code)));
  headers.set("grpc-message", percentEncoded(`${problems[code][1]} (${code})`));
  headers.append("access-control-expose-headers", "grpc-status, grpc-message");
  return new Response(null, { status: 200, headers });
}

// gRPC's own table for HTTP statuses (grpc/doc/http-grpc-status-mapping.md), which knows these six; the rest is UNKNOWN there.
const BY_STATUS: Readonly<Record<number, number>> = {
  400: 13,
  401: 16,
  403: 7,
  404: 12,
  429: 14,
  502: 14,
  503: 14,
  504: 14,
};

// Where the gateway knows better than a status can tell.
const BY_CODE: Partial<Record<ProblemCode, number>> = {
  "client-closed": 1,
  "upstream-timeout": 4,
  "upstream-connect-timeout": 14,
  "rate-limited": 8,
  "concurrency-limited": 8,
  "body-too-large": 8,
  "method-not-allowed": 12,
  internal: 13,
};

const statusFor = (status: number, code: ProblemCode): number => BY_CODE[code] ?? BY_STATUS[status] ?? 2;

/** gRPC over HTTP/2, "Status-Message": percent-encoded outside of visible ASCII. */
const percentEncoded = (text: string): string => text.replace(/[^\x20-\x24\x26-\x7e]/gu, encodeURIComponent);
