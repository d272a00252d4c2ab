/** Asking a cluster: one attempt after the other, each under its deadlines, until one has an answer to give. */
import { connect } from "cloudflare:sockets";
import type { Exchange } from "../policies/contract.ts";
import type { ProblemCode } from "../table/problems.ts";
import type { Timeouts } from "../table/table.ts";
import type { Ingress } from "./environment.ts";
import { type Upload, upload } from "./upload.ts";

/** One place to ask, ready to be asked. */
export interface Attempt {
  readonly backend: string;
  /** The cluster's, for the record. */
  readonly region?: string;
  readonly url: string;
  readonly ingress: Ingress;
  readonly headers: Headers;
}

export type Outcome =
  /** `own`: made here and not by `fetch`, so its headers can be changed in place. A copy costs about a tenth of a bare request. */
  { readonly response: Response; readonly own?: boolean } | { readonly failed: ProblemCode };

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
  // Ends the whole exchange; the reason is the problem's code.
  const whole = new AbortController();
  const end = (why: ProblemCode) => whole.abort(why);
  const sending = upload(exchange, request, maxBody, end);
  if (whole.signal.aborted) return { failed: whole.signal.reason };
  const repeatable = IDEMPOTENT.has(request.method) && sending.sent === undefined;
  // Left running while the body streams; the runtime drops it with the request.
  const totalTimer = timeouts.total > 0 ? setTimeout(end, timeouts.total, "upstream-timeout") : undefined;
  let outcome: Outcome = { failed: "backend-missing" };
  for (const [position, prepare] of attempts.entries()) {
    const attempt = await prepare();
    outcome = await ask(attempt, exchange, request, sending, timeouts, whole.signal);
    if (whole.signal.aborted) return { failed: whole.signal.reason };
    if (request.signal.aborted || position === attempts.length - 1 || !repeatable) break;
    if ("response" in outcome) {
      if (!isGatewayStatus(outcome.response.status)) break;
      await outcome.response.body?.cancel();
    }
  }
  if (totalTimer !== undefined && (!("response" in outcome) || isEndless(outcome.response))) clearTimeout(totalTimer);
  return outcome;
}

async function ask(
  { backend, region, url, ingress, headers }: Attempt,
  exchange: Exchange,
  request: Request,
  { body, sent }: Upload,
  timeouts: Timeouts,
  whole: AbortSignal,
): Promise<Outcome> {
  const started = Date.now();
  const own = new AbortController();
  const timers: ReturnType<typeof setTimeout>[] = [];
  let waiting = true;
  // A cluster cannot answer what it has not heard to the end, and a slow upload is the client's.
  const awaitAnswer = () => {
    if (waiting) timers.push(setTimeout(() => own.abort("upstream-timeout"), timeouts.firstByte));
  };
  if (sent) sent.then(awaitAnswer, () => {});
  else awaitAnswer();
  if (ingress.probe && !answeredLately(ingress, started, timeouts.connect)) {
    timers.push(setTimeout(() => void probeConnection(ingress, timeouts.connect / 2, own), timeouts.connect / 2));
  }
  const disarm = () => {
    waiting = false;
    timers.forEach(clearTimeout);
  };
  const log = (facts: { status: number } | { error: string }) =>
    exchange.record.attempts.push({ backend, ...(region && { region }), ...facts, ms: Date.now() - started });
  try {
    const response = await ingress.fetch(url, {
      method: request.method,
      headers,
      body,
      redirect: "manual",
      // What is encoded passes as it is, also where the body is moved by hand below.
      encodeResponseBody: "manual",
      signal: AbortSignal.any([request.signal, whole, own.signal]),
    });
    disarm();
    lastAnswer.set(ingress, Date.now());
    exchange.record.backend = backend;
    if (isPlatformStatus(response.status)) {
      log({ status: response.status });
      await response.body?.cancel();
      return { failed: TIMED_OUT_STATUS.has(response.status) ? "upstream-timeout" : "upstream-unreachable" };
    }
    const given = timeouts.total > 0 && !isEndless(response) ? await underDeadline(response, whole) : response;
    log(given ? { status: response.status } : { error: "upstream-invalid" });
    return given ? { response: given, own: given !== response } : { failed: "upstream-invalid" };
  } catch {
    // The reason is the signals', not the error's: its text is the platform's own and names addresses.
    const failed: ProblemCode = request.signal.aborted
      ? "client-closed"
      : ([own.signal, whole].find(({ aborted }) => aborted)?.reason ?? "upstream-unreachable");
    log({ error: failed });
    return { failed };
  } finally {
    disarm();
  }
}

// What an origin sends before it waits for the first acknowledgement (RFC 6928, 2): such a body is there with its headers.
const FIRST_FLIGHT = 14_600;

/**
 * `response`, cut where `whole` fires. A body that the runtime moves by itself outlives the request's timers (measured: workerd ends
 * the request's context once nothing but native streams is left), so here the request moves it: a small one is read at once, the
 * others go through a native pipe. Undefined when a small body is torn; throws when it is not there in time.
 */
async function underDeadline(response: Response, whole: AbortSignal): Promise<Response | undefined> {
  if (!response.body) return response;
  const { status, statusText, headers } = response;
  const init = { status, statusText, headers, encodeBody: "manual" } as const;
  const stated = headers.get("content-length") ?? "";
  const length = /^[0-9]{1,15}$/.test(stated) ? Number(stated) : undefined;
  if (length === undefined || length > FIRST_FLIGHT) {
    const pipe = length === undefined ? new IdentityTransformStream() : new FixedLengthStream(length);
    return new Response(response.body.pipeThrough(pipe, { signal: whole }), init);
  }
  try {
    return new Response(await response.arrayBuffer(), init);
  } catch (error) {
    if (whole.aborted) throw error;
    return undefined;
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
  if (opened === "expired") own.abort("upstream-connect-timeout");
  await socket.close().catch(() => {});
}

/** Event streams and upgraded connections are meant to stay open: no total deadline for them. */
const isEndless = (response: Response): boolean =>
  response.status === 101 || (response.headers.get("content-type") ?? "").startsWith("text/event-stream");
