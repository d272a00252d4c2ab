/** Asking a cluster: one attempt after the other, each under its deadlines, until one has an answer to give. */
import { connect } from "cloudflare:sockets";
import type { Exchange } from "../policies/contract.ts";
import type { ProblemCode } from "../table/problems.ts";
import type { Timeouts } from "../table/table.ts";
import type { Ingress } from "./environment.ts";

/** One place to ask, ready to be asked. */
export interface Attempt {
  readonly backend: string;
  readonly url: string;
  readonly ingress: Ingress;
  readonly headers: Headers;
}

export type Outcome = { readonly response: Response } | { readonly failed: ProblemCode };

// Methods that may be repeated without asking (RFC 9110, 9.2.2).
const IDEMPOTENT = new Set(["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"]);

// What Cloudflare answers in the origin's place (520 to 530), by what went wrong there.
const TIMED_OUT_STATUS = new Set([522, 524]);
const isPlatformStatus = (status: number) => status >= 520 && status <= 530;

// Answers of an ingress that has no one to ask: the next backend may.
const isGatewayStatus = (status: number) => (status >= 502 && status <= 504) || isPlatformStatus(status);

/**
 * Asks the attempts in turn. The next one is asked only when the request can be repeated: an idempotent method, and no body or one
 * that is held in memory. The last answer of a cluster is given as it is, also a 503; only what no cluster said becomes a problem.
 */
export async function forward(
  attempts: readonly (() => Promise<Attempt>)[],
  exchange: Exchange,
  request: Request,
  timeouts: Timeouts,
  maxBody: number,
): Promise<Outcome> {
  const stated = request.headers.get("content-length");
  const body = exchange.body !== undefined ? keepLength(exchange.body, stated) : request.body;
  const repeatable = IDEMPOTENT.has(request.method) && !(body instanceof ReadableStream);
  const counted = body instanceof ReadableStream && stated === null ? countedBody(body, maxBody) : undefined;
  const total = new AbortController();
  // Left running while the body streams; the runtime drops it with the request.
  const totalTimer = timeouts.total > 0 ? setTimeout(() => total.abort("total"), timeouts.total) : undefined;
  let outcome: Outcome = { failed: "backend-missing" };
  for (const [position, prepare] of attempts.entries()) {
    const attempt = await prepare();
    outcome = await ask(attempt, exchange, request, counted?.stream ?? body, timeouts, total.signal);
    if (counted?.exceeded()) return { failed: "body-too-large" };
    if (total.signal.aborted || request.signal.aborted || position === attempts.length - 1 || !repeatable) break;
    if ("response" in outcome) {
      if (!isGatewayStatus(outcome.response.status)) break;
      await outcome.response.body?.cancel();
    }
  }
  if (totalTimer !== undefined && (!("response" in outcome) || isEndless(outcome.response))) clearTimeout(totalTimer);
  return outcome;
}

async function ask(
  { backend, url, ingress, headers }: Attempt,
  exchange: Exchange,
  request: Request,
  body: ReadableStream<Uint8Array> | Uint8Array | null,
  timeouts: Timeouts,
  total: AbortSignal,
): Promise<Outcome> {
  const started = Date.now();
  const own = new AbortController();
  const timers = [setTimeout(() => own.abort("first-byte"), timeouts.firstByte)];
  if (ingress.probe && !answeredLately(ingress, started, timeouts.connect)) {
    timers.push(setTimeout(() => void probeConnection(ingress, timeouts.connect / 2, own), timeouts.connect / 2));
  }
  const log = (facts: { status: number } | { error: string }) =>
    exchange.record.attempts.push({ backend, ...facts, ms: Date.now() - started });
  try {
    const response = await ingress.fetch(url, {
      method: request.method,
      headers,
      body,
      redirect: "manual",
      signal: AbortSignal.any([request.signal, total, own.signal]),
    });
    lastAnswer.set(ingress, Date.now());
    log({ status: response.status });
    exchange.record.backend = backend;
    if (!isPlatformStatus(response.status)) return { response };
    await response.body?.cancel();
    return { failed: TIMED_OUT_STATUS.has(response.status) ? "upstream-timeout" : "upstream-unreachable" };
  } catch {
    // The reason is the signals', not the error's: its text is the platform's own and names addresses.
    const failed: ProblemCode = request.signal.aborted
      ? "client-closed"
      : own.signal.reason === "connect"
        ? "upstream-connect-timeout"
        : own.signal.aborted || total.aborted
          ? "upstream-timeout"
          : "upstream-unreachable";
    log({ error: failed });
    return { failed };
  } finally {
    for (const timer of timers) clearTimeout(timer);
  }
}

// When each ingress last answered; while that is fresh, a slow answer is no sign of a dead connection.
const lastAnswer = new WeakMap<Ingress, number>();
const answeredLately = (ingress: Ingress, now: number, within: number) => now - (lastAnswer.get(ingress) ?? 0) < within;

/**
 * The connect deadline. `fetch` does not tell when its connection stands, so when half the time has passed without an answer, a
 * connection of our own is tried: if it does not open in the other half, neither did the first. An error that comes at once (the
 * platform refuses to connect to its own addresses) tells nothing, and the wait goes on.
 */
async function probeConnection(ingress: Ingress, within: number, own: AbortController): Promise<void> {
  if (!ingress.probe) return;
  const socket = connect(ingress.probe);
  const expired = new Promise<"expired">((resolve) => setTimeout(() => resolve("expired"), within));
  const opened = await Promise.race([
    socket.opened.then(() => "open" as const).catch(() => "unknown" as const),
    expired,
  ]);
  if (opened === "expired") own.abort("connect");
  await socket.close().catch(() => {});
}

/** Event streams and upgraded connections are meant to stay open: no total deadline for them. */
const isEndless = (response: Response): boolean =>
  response.status === 101 || (response.headers.get("content-type") ?? "").startsWith("text/event-stream");

/** A stream that a policy has looked into keeps its Content-Length; without, it would be sent chunked, which some origins refuse. */
function keepLength(
  body: NonNullable<Exchange["body"]> | null,
  stated: string | null,
): ReadableStream<Uint8Array> | Uint8Array | null {
  if (!(body instanceof ReadableStream) || stated === null) return body;
  return body.pipeThrough(new FixedLengthStream(Number(stated)));
}

/** A body of unknown length, cut off where it gets larger than `limit` bytes. */
function countedBody(
  body: ReadableStream<Uint8Array>,
  limit: number,
): { stream: ReadableStream<Uint8Array>; exceeded(): boolean } {
  let bytes = 0;
  let exceeded = false;
  const stream = body.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, controller) {
        bytes += chunk.byteLength;
        exceeded ||= bytes > limit;
        if (exceeded) controller.error(new Error("the body is larger than the gateway's limit"));
        else controller.enqueue(chunk);
      },
    }),
  );
  return { stream, exceeded: () => exceeded };
}
