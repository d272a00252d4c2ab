/** Asking a cluster: one try after the other, each under its deadlines, until one has an answer to give. */
import { type Exchange, receivedHeader } from "../policies/contract.ts";
import { canHold, hold } from "../policies/held-body.ts";
import type { ProblemCode } from "../table/problems.ts";
import type { TableRetry, Timeouts } from "../table/table.ts";
import { parseRetryAfter } from "../traffic/backoff.ts";
import type { Outcome as Result } from "../traffic/outcome.ts";
import type { Refusal } from "../traffic/pool.ts";
import { type Retrying, Series } from "../traffic/series.ts";
import type { Choice, Tries } from "../traffic/tries.ts";
import { certificateRefused, isTlsFailure } from "./certificate.ts";
import type { Departure } from "./departure.ts";
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

export interface Course {
  readonly tries: Tries;
  /** Makes a choice ready to be asked. */
  readonly prepare: (choice: Choice) => Attempt | Promise<Attempt>;
  readonly timeouts: Timeouts;
  readonly departure: Departure;
  /** The total is the client's own wish, and its end tells nothing about who was asked. */
  readonly impatient?: boolean;
  /** Largest request body, in bytes. */
  readonly maxBody: number;
  /** Largest body of which a copy is made for mirrors; 0: none is. */
  readonly copied: number;
  /**
   * `cut`: when there is no time for the try that would be next, the answer is 504, as the Gateway API has it (GEP-1742: the request
   * timeout covers the whole series); else it is what the last try brought.
   */
  readonly retry?: (Retrying & { readonly cut: boolean }) | undefined;
}

export interface Outcome {
  readonly answer: Answer;
  /** Who gave it, or was asked last. */
  readonly choice?: Choice;
  /** The body for mirrors. Undefined: there is nothing to copy, since no cluster was asked or the client did not mean it. */
  readonly copy: Upload["copy"];
}

export type Answer =
  /** `own`: made here and not by `fetch`, so its headers can be changed in place. A copy costs about a tenth of a bare request. */
  | { readonly response: Response; readonly own?: boolean }
  /** `retryAfter` in milliseconds. */
  | { readonly failed: ProblemCode; readonly retryAfter?: number };

// What Cloudflare answers in the origin's place (520 to 530), by what went wrong there: 522 and 524 are timeouts, 525 and 526 the
// handshake and the certificate.
const PLATFORM: Readonly<Record<number, ProblemCode>> = {
  522: "upstream-timeout",
  524: "upstream-timeout",
  525: "upstream-tls",
  526: "upstream-tls",
};
const isPlatformStatus = (status: number) => status >= 520 && status <= 530;

/**
 * Asks until an answer is good, or nobody may be asked any more (traffic/series.ts). The last answer of a cluster is given as it is,
 * also a 503; only what no cluster said becomes a problem.
 */
export async function forward(exchange: Exchange, request: Request, course: Course): Promise<Outcome> {
  const { tries, timeouts, departure, maxBody, retry } = course;
  const deadlines = new Deadlines(timeouts.total);
  departure.whenGone(() => deadlines.end("client-closed"));
  if (retry) await holdForRetry(exchange, request, retry.rules, deadlines);
  if (deadlines.ended) {
    // Nobody has been asked yet, so that all of the time was the client's.
    const failed = deadlines.ended === "upstream-timeout" ? "request-timeout" : deadlines.ended;
    return { answer: { failed }, copy: undefined };
  }
  const sending = upload(exchange, request, maxBody, (why) => deadlines.end(why), course.copied);
  const replayable = sending.sent === undefined;
  // While the client still sends, the time is also its own: it could have any cluster ejected by sending nothing.
  let clientsTime = course.impatient || !replayable;
  sending.sent?.then(
    () => {
      clientsTime = course.impatient ?? false;
    },
    () => {},
  );
  const series = new Series(tries, request.method, replayable, retry, Math.random);
  let choice: Choice | undefined;
  let answer: Answer | undefined;
  series.began();
  try {
    while (!deadlines.ended) {
      const next = series.choose(Date.now());
      // Nobody else may be asked, so what the last one said is the answer.
      if ("none" in next) {
        answer ??= refusedBy(next);
        break;
      }
      if (answer && "response" in answer) await answer.response.body?.cancel();
      choice = next;
      answer = await tryOnce(choice, series.tries, series.isLast);
      if (deadlines.ended) break;
      const now = Date.now();
      const { after, notRetried } = series.ended(
        resultOf(answer),
        now,
        deadlines.total - now,
        retryAfterOf(answer, now),
      );
      const attempt = exchange.record.attempts.at(-1);
      if (notRetried && attempt) attempt.notRetried = notRetried;
      if (notRetried === "time" && retry?.cut) deadlines.end("upstream-timeout");
      if (after === undefined) break;
      if (after >= 1) await deadlines.pause(after);
    }
  } finally {
    series.over();
  }
  if (deadlines.ended === "upstream-timeout" && (await sending.stalled?.())) {
    deadlines.ended = "request-timeout";
    const attempt = exchange.record.attempts.at(-1);
    if (attempt?.error) attempt.error = deadlines.ended;
  }
  if (deadlines.ended || !answer) answer = { failed: deadlines.ended ?? "backend-missing" };
  if (!("response" in answer) || !deadlines.cutsBody) deadlines.disarm();
  const meant = choice && !("failed" in answer && OF_THE_CLIENT.has(answer.failed));
  return { answer, copy: meant ? sending.copy : undefined, ...(choice && { choice }) };

  async function tryOnce(choice: Choice, asked: number, last: boolean): Promise<Answer> {
    const started = Date.now();
    // From the moment at which it is chosen, or others would be chosen for the same place.
    choice.endpoint?.started();
    let result: Result = "cancelled";
    try {
      const attempt = numbered(await course.prepare(choice), asked);
      const answer = await ask(attempt, exchange, request, sending, timeouts, deadlines, last);
      result = deadlines.ended && clientsTime ? "cancelled" : resultOf(answer);
      return answer;
    } finally {
      choice.endpoint?.finished(result, started, Date.now());
    }
  }
}

const refusedBy = (refusal: Refusal): Answer => {
  if (refusal.none === "breaker-open") return { failed: "breaker-open", retryAfter: refusal.retryAfterMs };
  return { failed: refusal.none === "overloaded" ? "backend-overloaded" : "no-healthy-backend" };
};

/** Tells the cluster that it is not the first; the headers themselves are also those of other tries and of mirrors. */
function numbered(attempt: Attempt, asked: number): Attempt {
  if (asked === 1) return attempt;
  const headers = new Headers(attempt.headers);
  headers.set("x-portcullis-attempt", String(asked));
  return { ...attempt, headers };
}

const retryAfterOf = (answer: Answer, now: number): number | undefined =>
  "response" in answer && answer.response.status >= 400
    ? parseRetryAfter(answer.response.headers.get("retry-after"), now)
    : undefined;

/** What the answer says about the place that gave it. A connection that does not stand in time is none, as with Envoy. */
function resultOf(answer: Answer): Result {
  if ("response" in answer) return answer.response.status;
  if (answer.failed === "upstream-timeout") return "timeout";
  return OF_THE_CLIENT.has(answer.failed) ? "cancelled" : "connection";
}

const OF_THE_CLIENT = new Set<ProblemCode>(["client-closed", "bad-request", "request-timeout", "body-too-large"]);

/** A body that can be sent again is in memory before it is sent at all: while it streams, there is no telling how much came through. */
async function holdForRetry(
  exchange: Exchange,
  request: Request,
  { methods, maxBody }: TableRetry,
  deadlines: Deadlines,
): Promise<void> {
  const body = exchange.body === undefined ? request.body : exchange.body;
  if (!(body instanceof ReadableStream) || (methods && !methods.includes(request.method))) return;
  if (!canHold(body, request.body)) return;
  const stated = receivedHeader(exchange, "content-length");
  if (stated === "0" || Number(stated ?? 0) > maxBody) return;
  deadlines.begin();
  const holding = hold(body, maxBody, stated).catch(() => deadlines.end("bad-request"));
  const held = await Promise.race([holding, deadlines.await()]);
  if (typeof held === "object") exchange.body = held.body;
}

/**
 * `last`: nobody is asked after this one when it is late, so that what it leaves behind ends with the exchange. A signal by which to end
 * it takes 3 % of a request (measured).
 */
async function ask(
  { backend, region, url, ingress, headers }: Attempt,
  exchange: Exchange,
  request: Request,
  { body, sent }: Upload,
  timeouts: Timeouts,
  deadlines: Deadlines,
  last: boolean,
): Promise<Answer> {
  const started = Date.now();
  const late = deadlines.await();
  // A cluster cannot answer what it has not heard to the end, and a slow upload is the client's.
  let waiting = true;
  const { firstByte } = timeouts;
  const heard = () => waiting && (firstByte > 0 ? deadlines.answerWithin(firstByte) : deadlines.begin());
  if (sent) {
    deadlines.begin();
    sent.then(heard, () => {});
  } else heard();
  const { probe } = ingress;
  if (probe && !answeredLately(ingress, started, timeouts.connect)) {
    deadlines.probeAfter(timeouts.connect / 2, (giveUp) => void probeConnection(probe, timeouts.connect / 2, giveUp));
  }
  const log = (facts: { status: number } | { error: string }) =>
    exchange.record.attempts.push({ backend, ...facts, ms: Date.now() - started, ...(region && { region }) });
  const fail = (failed: ProblemCode): Answer => {
    log({ error: failed });
    return { failed };
  };
  // The runtime drops the connection when the exchange ends; what goes on without this try must end it.
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
      return fail(response);
    }
    lastAnswer.set(ingress, Date.now());
    exchange.record.backend = backend;
    if (isPlatformStatus(response.status)) {
      log({ status: response.status });
      await response.body?.cancel();
      return { failed: PLATFORM[response.status] ?? "upstream-unreachable" };
    }
    // What looks like a page that refuses it is read, and may never come to its end.
    const refused = ingress.certificate && (await Promise.race([certificateRefused(response), late]));
    if (typeof refused === "string") own?.abort();
    if (refused) return fail(refused === true ? "upstream-certificate" : refused);
    deadlines.answered();
    const given =
      timeouts.total > 0 && !isEndless(response) ? await underDeadline(response, deadlines, late) : response;
    if (typeof given === "string") return fail(given);
    log({ status: response.status });
    return { response: given, own: given !== response };
  } catch (error) {
    // Not the error's own text, which is the platform's and names addresses.
    return fail(deadlines.ended ?? (isTlsFailure(error, url) ? "upstream-tls" : "upstream-unreachable"));
  } finally {
    waiting = false;
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
  /** In milliseconds since the epoch; Infinity: there is none. */
  readonly total: number;
  #answer = Number.POSITIVE_INFINITY;
  #probe = Number.POSITIVE_INFINITY;
  #startProbe: ((giveUp: (why: ProblemCode) => void) => void) | undefined;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #rings = Number.POSITIVE_INFINITY;
  #late: ((why: ProblemCode) => void) | undefined;
  #controllers: AbortController[] | undefined;

  /** `total` in milliseconds from now; 0: none. */
  constructor(total: number) {
    this.total = total > 0 ? Date.now() + total : Number.POSITIVE_INFINITY;
  }

  /** From now on the total counts, also while no answer is waited for. */
  begin(): void {
    this.#arm();
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

  /** Resolves after so many milliseconds, or when the exchange ends. */
  async pause(milliseconds: number): Promise<void> {
    await Promise.race([scheduler.wait(milliseconds), this.await()]);
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
    const next = Math.min(this.total, this.#answer, this.#probe);
    if (this.#rings <= next || next === Number.POSITIVE_INFINITY || this.ended) return;
    clearTimeout(this.#timer);
    this.#rings = next;
    this.#timer = setTimeout(() => this.#ring(), next - Date.now());
  }

  #ring(): void {
    this.#rings = Number.POSITIVE_INFINITY;
    const now = Date.now();
    if (now >= this.total) {
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
  const { status, statusText, headers } = response;
  const init = { status, statusText, headers, encodeBody: "manual" } as const;
  const stated = headers.get("content-length") ?? "";
  const length = /^[0-9]{1,15}$/.test(stated) ? Number(stated) : undefined;
  if (length === undefined || length > FIRST_FLIGHT) {
    if (!response.body) return response;
    const pipe = length === undefined ? new IdentityTransformStream() : new FixedLengthStream(length);
    deadlines.cutsBody = true;
    return new Response(response.body.pipeThrough(pipe, { signal: deadlines.controller().signal }), init);
  }
  if (length === 0) return response;
  const read = response.arrayBuffer().catch(() => "upstream-invalid" as const);
  const body = await Promise.race([read, late]);
  if (typeof body === "string") return body;
  // Nothing of a length is the answer to HEAD, or a 304.
  return body.byteLength === 0 ? response : new Response(body, init);
}

// When each ingress last answered; while that is fresh, a slow answer is no sign of a dead connection.
const lastAnswer = new WeakMap<Ingress, number>();
const answeredLately = (ingress: Ingress, now: number, within: number) => now - (lastAnswer.get(ingress) ?? 0) < within;

/**
 * The connect deadline. `fetch` does not tell when its connection stands, so when half the time has passed without an answer, a
 * connection of our own is tried: if it does not open in the other half, neither did the first. An error that comes at once (the
 * platform refuses to connect to its own addresses) tells nothing, and the wait goes on.
 */
async function probeConnection(
  probe: Ingress["probe"] & object,
  within: number,
  giveUp: (why: ProblemCode) => void,
): Promise<void> {
  // Not at the top, and no failure where there is none: offline/ runs this file in Node.
  const sockets = await import("cloudflare:sockets").catch(() => {});
  if (!sockets) return;
  const socket = sockets.connect(probe);
  const expired = new Promise<"expired">((resolve) => setTimeout(() => resolve("expired"), within));
  const opened = await Promise.race([
    socket.opened.then(() => "open" as const).catch(() => "unknown" as const),
    expired,
  ]);
  if (opened === "expired") giveUp("upstream-connect-timeout");
  await socket.close().catch(() => {});
}
