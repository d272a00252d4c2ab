/** Asking a cluster: one attempt after the other, each under its deadlines, until one has an answer to give. */
import { connect } from "cloudflare:sockets";
import type { Exchange } from "../policies/contract.ts";
import type { ProblemCode } from "../table/problems.ts";
import type { Timeouts } from "../table/table.ts";
import { isEndless } from "./endless.ts";
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
  attempts: readonly (() => Attempt | Promise<Attempt>)[],
  exchange: Exchange,
  request: Request,
  timeouts: Timeouts,
  maxBody: number,
): Promise<Outcome> {
  const deadlines = new Deadlines(timeouts.total);
  request.signal.addEventListener("abort", () => deadlines.end("client-closed"));
  const sending = upload(exchange, request, maxBody, (why) => deadlines.end(why));
  const repeatable = IDEMPOTENT.has(request.method) && sending.sent === undefined;
  let outcome: Outcome = { failed: "backend-missing" };
  for (const [position, prepare] of attempts.entries()) {
    if (deadlines.ended) break;
    const attempt = await prepare();
    const last = position === attempts.length - 1 || !repeatable;
    outcome = await ask(attempt, exchange, request, sending, timeouts, deadlines, last);
    if (last) break;
    if ("response" in outcome) {
      if (!isGatewayStatus(outcome.response.status)) break;
      await outcome.response.body?.cancel();
    }
  }
  if (deadlines.ended) outcome = { failed: deadlines.ended };
  if (!("response" in outcome) || !deadlines.cutsBody) deadlines.disarm();
  return outcome;
}

/** `last`: nobody is asked after this one, so what it leaves behind ends with the exchange. */
async function ask(
  { backend, region, url, ingress, headers }: Attempt,
  exchange: Exchange,
  request: Request,
  { body, sent }: Upload,
  timeouts: Timeouts,
  deadlines: Deadlines,
  last: boolean,
): Promise<Outcome> {
  const started = Date.now();
  const late = deadlines.await();
  // A cluster cannot answer what it has not heard to the end, and a slow upload is the client's.
  if (sent)
    sent.then(
      () => deadlines.answerWithin(timeouts.firstByte),
      () => {},
    );
  else deadlines.answerWithin(timeouts.firstByte);
  if (ingress.probe && !answeredLately(ingress, started, timeouts.connect)) {
    deadlines.probeAfter(timeouts.connect / 2, (giveUp) => void probeConnection(ingress, timeouts.connect / 2, giveUp));
  }
  const log = (facts: { status: number } | { error: string }) =>
    exchange.record.attempts.push({ backend, ...(region && { region }), ...facts, ms: Date.now() - started });
  // Where the exchange ends with this attempt, the runtime drops its connection then; else the attempt alone must be ended.
  const own = last && !sent ? undefined : deadlines.controller();
  const asked = ingress.fetch(url, {
    method: request.method,
    headers,
    body,
    redirect: "manual",
    // What is encoded passes as it is, also where the body is moved by hand below.
    encodeResponseBody: "manual",
    ...(own && { signal: own.signal }),
  });
  try {
    const response = await Promise.race([asked, late]);
    if (typeof response === "string") {
      own?.abort();
      asked.then(({ body }) => body?.cancel()).catch(() => {});
      log({ error: response });
      return { failed: response };
    }
    lastAnswer.set(ingress, Date.now());
    exchange.record.backend = backend;
    if (isPlatformStatus(response.status)) {
      log({ status: response.status });
      await response.body?.cancel();
      return { failed: TIMED_OUT_STATUS.has(response.status) ? "upstream-timeout" : "upstream-unreachable" };
    }
    deadlines.answered();
    const given =
      timeouts.total > 0 && !isEndless(response) ? await underDeadline(response, deadlines, late) : response;
    if (typeof given === "string") {
      log({ error: given });
      return { failed: given };
    }
    log({ status: response.status });
    return { response: given, own: given !== response };
  } catch {
    // Not the error's own text, which is the platform's and names addresses.
    const failed: ProblemCode = deadlines.ended ?? "upstream-unreachable";
    log({ error: failed });
    return { failed };
  } finally {
    deadlines.answered();
  }
}

/**
 * Until when what of one exchange has to be there. One timer serves all of it, and nothing is aborted by a signal that ends with the
 * exchange anyway: three timers, two controllers and AbortSignal.any took 0.4 of a bare request (a timer alone 0.1).
 */
class Deadlines {
  /** Why the exchange has ended before it was done. */
  ended: ProblemCode | undefined;
  /** Whether a body is moved that has to end in time. */
  cutsBody = false;
  readonly #total: number;
  #answer = Number.POSITIVE_INFINITY;
  #probe = Number.POSITIVE_INFINITY;
  #startProbe: ((giveUp: (why: ProblemCode) => void) => void) | undefined;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #rings = Number.POSITIVE_INFINITY;
  #late: ((why: ProblemCode) => void) | undefined;
  #controllers: AbortController[] | undefined;

  /** `total` in milliseconds from now; 0: none. */
  constructor(total: number) {
    this.#total = total > 0 ? Date.now() + total : Number.POSITIVE_INFINITY;
  }

  /** Ends the exchange: the attempt that is waited for, and what has been given a controller. */
  end(why: ProblemCode): void {
    this.ended ??= why;
    this.disarm();
    this.#late?.(why);
    for (const controller of this.#controllers ?? []) controller.abort(why);
  }

  /** Resolves when the attempt that begins is not to be waited for any longer. */
  await(): Promise<ProblemCode> {
    return new Promise((resolve) => {
      this.#late = resolve;
      if (this.ended) resolve(this.ended);
    });
  }

  /** Aborted when the exchange ends. */
  controller(): AbortController {
    const controller = new AbortController();
    (this.#controllers ??= []).push(controller);
    if (this.ended) controller.abort(this.ended);
    return controller;
  }

  answerWithin(milliseconds: number): void {
    this.#answer = Date.now() + milliseconds;
    this.#arm();
  }

  /** `probe` may give up the attempt, as long as that has no answer. */
  probeAfter(milliseconds: number, probe: (giveUp: (why: ProblemCode) => void) => void): void {
    this.#probe = Date.now() + milliseconds;
    this.#startProbe = probe;
    this.#arm();
  }

  /** The attempt has its answer, so only the total counts. */
  answered(): void {
    this.#answer = this.#probe = Number.POSITIVE_INFINITY;
    this.#startProbe = undefined;
  }

  disarm(): void {
    clearTimeout(this.#timer);
    this.#rings = Number.POSITIVE_INFINITY;
  }

  /** A timer that rings too early costs less than to set another. */
  #arm(): void {
    const next = Math.min(this.#total, this.#answer, this.#probe);
    if (this.#rings <= next || next === Number.POSITIVE_INFINITY || this.ended) return;
    clearTimeout(this.#timer);
    this.#rings = next;
    this.#timer = setTimeout(() => this.#ring(), next - Date.now());
  }

  #ring(): void {
    this.#rings = Number.POSITIVE_INFINITY;
    const now = Date.now();
    if (now >= this.#total) {
      this.end("upstream-timeout");
      return;
    }
    if (now >= this.#answer) {
      this.answered();
      this.#late?.("upstream-timeout");
    }
    if (now >= this.#probe) {
      this.#probe = Number.POSITIVE_INFINITY;
      const started = this.#startProbe;
      const late = this.#late;
      started?.((why) => started === this.#startProbe && late?.(why));
    }
    this.#arm();
  }
}

// What an origin sends before it waits for the first acknowledgement (RFC 6928, 2): such a body is there with its headers.
const FIRST_FLIGHT = 14_600;

/**
 * `response`, cut where the exchange ends. A body that the runtime moves by itself outlives the request's timers (measured: workerd
 * ends the request's context once nothing but native streams is left), so here the request moves it: a small one is read at once, the
 * others go through a native pipe. A problem's code when a small body is torn or not there in time.
 */
async function underDeadline(
  response: Response,
  deadlines: Deadlines,
  late: Promise<ProblemCode>,
): Promise<Response | ProblemCode> {
  if (!response.body) return response;
  const { status, statusText, headers } = response;
  const init = { status, statusText, headers, encodeBody: "manual" } as const;
  const stated = headers.get("content-length") ?? "";
  const length = /^[0-9]{1,15}$/.test(stated) ? Number(stated) : undefined;
  if (length === undefined || length > FIRST_FLIGHT) {
    const pipe = length === undefined ? new IdentityTransformStream() : new FixedLengthStream(length);
    deadlines.cutsBody = true;
    return new Response(response.body.pipeThrough(pipe, { signal: deadlines.controller().signal }), init);
  }
  const read = response.arrayBuffer().catch(() => "upstream-invalid" as const);
  const body = await Promise.race([read, late]);
  return typeof body === "string" ? body : new Response(body, init);
}

// When each ingress last answered; while that is fresh, a slow answer is no sign of a dead connection.
const lastAnswer = new WeakMap<Ingress, number>();
const answeredLately = (ingress: Ingress, now: number, within: number) => now - (lastAnswer.get(ingress) ?? 0) < within;

/**
 * The connect deadline. `fetch` does not tell when its connection stands, so when half the time has passed without an answer, a
 * connection of our own is tried: if it does not open in the other half, neither did the first. An error that comes at once (the
 * platform refuses to connect to its own addresses) tells nothing, and the wait goes on.
 */
async function probeConnection(ingress: Ingress, within: number, giveUp: (why: ProblemCode) => void): Promise<void> {
  if (!ingress.probe) return;
  const socket = connect(ingress.probe);
  const expired = new Promise<"expired">((resolve) => setTimeout(() => resolve("expired"), within));
  const opened = await Promise.race([
    socket.opened.then(() => "open" as const).catch(() => "unknown" as const),
    expired,
  ]);
  if (opened === "expired") giveUp("upstream-connect-timeout");
  await socket.close().catch(() => {});
}
