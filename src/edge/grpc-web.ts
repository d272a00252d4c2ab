/**
 * What the gateway owes to gRPC clients: its own answers in their terms, since they read grpc-status and nothing else, and the deadline
 * that they state.
 */
import { isGrpc } from "../table/grpc.ts";
import { type ProblemCode, problems } from "../table/problems.ts";
import type { Timeouts } from "../table/table.ts";

export const speaksGrpc = ({ headers }: Request): boolean => isGrpc(headers.get("content-type"));

/**
 * `problem` as a gRPC answer without messages, whose status stands in its headers (gRPC over HTTP/2, "Trailers-Only"; gRPC-Web keeps
 * that). The message is for people: docs/errors.md explains the code in it, and `id` finds the request's record.
 */
export function grpcAnswer(request: Request, problem: Response, code: ProblemCode, id: string): Response {
  const headers = new Headers(problem.headers);
  headers.set("content-type", request.headers.get("content-type") as string);
  headers.set("grpc-status", String(grpcStatus(problem.status, code)));
  headers.set("grpc-message", percentEncoded(`${problems[code][1]} (${code}, request ${id})`));
  return new Response(null, { status: 200, headers });
}

export const grpcStatus = (status: number, code: ProblemCode): number => BY_CODE[code] ?? BY_STATUS[status] ?? UNKNOWN;

const UNKNOWN = 2;

// What a client makes of an HTTP status without grpc-status (grpc/doc/http-grpc-status-mapping.md); all others are UNKNOWN there.
const BY_STATUS: Readonly<Record<number, number>> = {
  400: 13, // INTERNAL
  401: 16, // UNAUTHENTICATED
  403: 7, // PERMISSION_DENIED
  404: 12, // UNIMPLEMENTED
  429: 14, // UNAVAILABLE
  502: 14,
  503: 14,
  504: 14,
};

// Where the gateway knows better than the status tells.
const BY_CODE: Partial<Record<ProblemCode, number>> = {
  "client-closed": 1, // CANCELLED
  "upstream-timeout": 4, // DEADLINE_EXCEEDED
  "request-timeout": 4,
  "body-too-large": 8, // RESOURCE_EXHAUSTED
  "rate-limited": 8,
  "method-not-allowed": 12, // UNIMPLEMENTED: gRPC calls with POST alone
  internal: 13, // INTERNAL
  "backend-missing": 14, // UNAVAILABLE (Gateway API, GRPCRouteRule.backendRefs)
  "concurrency-limited": 8,
};

/** "Status-Message": percent-encoded outside of visible ASCII. */
const percentEncoded = (text: string): string => text.replace(/[^\x20-\x24\x26-\x7e]/gu, encodeURIComponent);

const MILLISECONDS = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 } as const;

/** When a request that began at `started` must have its whole answer, in milliseconds since the epoch; undefined: its client does not say. */
export function grpcDeadline(request: Request, started: number): number | undefined {
  const stated = request.method === "POST" ? request.headers.get("grpc-timeout") : null;
  // "Timeout" of gRPC over HTTP/2. What is of another form is the service's to refuse.
  const [, amount, unit] = /^([0-9]{1,8})([HMSmun])$/.exec(stated ?? "") ?? [];
  if (unit === undefined || !speaksGrpc(request)) return undefined;
  return started + Math.ceil(Number(amount) * MILLISECONDS[unit as keyof typeof MILLISECONDS]);
}

/** `timeouts` with a total that ends at `deadline`, if that is sooner. */
export function endingAt(deadline: number, timeouts: Timeouts, now: number): Timeouts {
  const left = Math.max(1, deadline - now);
  return timeouts.total > 0 && timeouts.total <= left ? timeouts : { ...timeouts, total: left };
}
