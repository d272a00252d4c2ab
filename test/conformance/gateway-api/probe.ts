/** One case put to a gateway: as often and in the way that its kind wants. */
import { randomUUID } from "node:crypto";
import type { Case } from "./cases.ts";
import { type Answer, type WireRequest, wireRequest } from "./exchange.ts";
import { CONTENT_TYPE, emptyRequest, type GrpcResult, readResult } from "./grpc-web.ts";
import { backendOf, echoOf, type Fault, judge, judgeGrpc } from "./judge.ts";

/** A gateway with origins behind it. */
export interface Subject {
  send(request: WireRequest): Promise<Answer>;
  /** Opens a WebSocket, sends the messages one after the other and gives what came back for each. Rejects when it closes before. */
  converse(request: WireRequest, messages: readonly (string | Buffer)[]): Promise<(string | Buffer)[]>;
  /** How many requests with this target the Service has got, on all of its ports. */
  arrivals(namespace: string, service: string, target: string): number;
  pause(milliseconds: number): Promise<void>;
}

export interface Outcome {
  readonly fault: Fault;
  /** How often it was tried, for a kind that may be: a statistic, or something that must be in time. */
  readonly tries: number;
}

/** A case passes when it does so this often in a row. */
const SERIES = 3;

/**
 * How often a series may be begun. What must be answered within 200 ms is late on a machine that does something else just then; the
 * suite begins anew for 30 s, whatever a case is about (AwaitConvergence).
 */
const TIMED_TRIES = 3;

/** Requests under way at once in a case that counts, as in the suite. */
const CONCURRENCY = 10;

type Probe = (tested: Case, subject: Subject) => Promise<Outcome>;

const answered = series(ask);

const PROBES: Readonly<Record<string, Probe>> = {
  http: answered,
  cors: answered,
  timeout: series(ask, TIMED_TRIES),
  retry: series((tested, subject) => ask(filledIn(tested), subject), TIMED_TRIES),
  grpc: series(async (tested, subject) => judgeGrpc(tested, await call(tested, subject))),
  websocket: series(converse),
  mirror: series(mirror),
  weight,
  "percentage-mirror": percentageMirror,
  "backend-header-weights": backendHeaders,
};

/** Kinds for which it matters that the machine has nothing else to do. */
export const isTimed = ({ kind }: Case): boolean => kind === "timeout" || kind === "retry";

/** Never rejects: that no answer came is a fault like others. */
export async function probe(tested: Case, subject: Subject): Promise<Outcome> {
  const run = PROBES[tested.kind];
  if (!run) return { fault: `no such kind of case is known: ${tested.kind}`, tries: 0 };
  if (tested.request.protocol && !/^HTTPS?$/.test(tested.request.protocol))
    return { fault: `the client speaks HTTP/1.1, not ${tested.request.protocol}`, tries: 0 };
  return run(tested, subject);
}

function series(once: (tested: Case, subject: Subject) => Promise<Fault>, tries = 1): Probe {
  return tryFor(tries, async (tested, subject) => {
    for (let passed = 0; passed < SERIES; passed++) {
      const fault = await once(tested, subject);
      if (fault !== undefined) return passed === 0 ? fault : `${fault} (after it had passed ${passed} times)`;
    }
    return undefined;
  });
}

function tryFor(most: number, once: (tested: Case, subject: Subject) => Promise<Fault>): Probe {
  return async (tested, subject) => {
    for (let tries = 1; ; tries++) {
      const fault = await once(tested, subject).catch((error: Error) => messageOf(error));
      if (fault === undefined || tries >= most) return { fault, tries };
    }
  };
}

async function ask(tested: Case, subject: Subject): Promise<Fault> {
  return judge(tested, await subject.send(wireRequest(tested)));
}

async function call(tested: Case, subject: Subject, metadata = tested.request.metadata): Promise<GrpcResult> {
  const { service, method } = tested.request;
  const answer = await subject.send({
    ...wireRequest(tested),
    method: "POST",
    target: `/${service}/${method}`,
    headers: { ...metadata, "Content-Type": CONTENT_TYPE, Accept: CONTENT_TYPE, "X-Grpc-Web": "1" },
    body: emptyRequest(),
  });
  return readResult(answer.status, (name) => answer.headers.get(name)?.join(), answer.body);
}

async function converse(tested: Case, subject: Subject): Promise<Fault> {
  const sent = wireRequest(tested);
  const { origin } = tested.request;
  const messages = (tested.steps ?? []).map(({ data }) => (typeof data === "string" ? data : Buffer.from(data)));
  if (messages.length === 0) throw new Error("the case does not say what to send");
  const came = await subject.converse(
    { ...sent, headers: { ...sent.headers, ...(origin && { Origin: origin }) } },
    messages,
  );
  const wrong = messages.findIndex((message, i) => said(message) !== said(came[i]));
  return wrong === -1 ? undefined : `message ${wrong + 1} came back as ${said(came[wrong])}`;
}

const said = (message: string | Buffer | undefined): string =>
  `${typeof message === "string" ? "text" : "bytes"} ${JSON.stringify(String(message))}`;

async function mirror(tested: Case, subject: Subject): Promise<Fault> {
  const marked = withRequestId(tested);
  const fault = await ask(marked, subject);
  if (fault !== undefined) return fault;
  for (const { namespace, name } of mirrorsOf(tested)) {
    const count = await settled(
      () => subject.arrivals(namespace, name, marked.request.path),
      subject,
      (n) => n > 0,
    );
    if (count !== 1) return `${name} got ${count} copies of a request, expected one`;
  }
  return undefined;
}

/** Each copy is drawn for itself, so that their number is binomial: within three standard deviations of its mean. */
async function percentageMirror(tested: Case, subject: Subject): Promise<Outcome> {
  const { totalRequests = 500, maxChecks = 5 } = tested;
  const plain = await answered(tested, subject);
  if (plain.fault !== undefined) return plain;
  return tryFor(maxChecks, async () => {
    const marked = withRequestId(tested);
    const faults = await many(totalRequests, () => ask(marked, subject));
    const wrong = faults.find((fault) => fault !== undefined);
    if (wrong !== undefined) return wrong;
    for (const { namespace, name, percent = 100 } of mirrorsOf(tested)) {
      const share = percent / 100;
      const mean = totalRequests * share;
      const margin = 3 * Math.sqrt(totalRequests * share * (1 - share));
      const count = await settled(() => subject.arrivals(namespace, name, marked.request.path), subject);
      if (Math.abs(count - mean) > margin)
        return `${name} got ${count} of ${totalRequests} requests, expected ${mean} ± ${margin.toFixed(1)}`;
    }
    return undefined;
  })(tested, subject);
}

async function weight(tested: Case, subject: Subject): Promise<Outcome> {
  const { totalRequests = 500, tolerance = 0.05, maxRetries = 10, weights = {} } = tested;
  const isGrpc = tested.request.service !== undefined;
  const podOf = async (): Promise<string | undefined> => {
    // As in the suite: a gateway that draws by hashing a request must not see the same one 500 times.
    const jitter = Math.random() < 0.5 ? { "X-Jitter": String(Math.floor(Math.random() * 10_000)) } : {};
    if (isGrpc) return (await call(tested, subject, { ...tested.request.metadata, ...jitter })).assertions?.pod;
    const sent = wireRequest(tested);
    return echoOf(await subject.send({ ...sent, headers: { ...sent.headers, ...jitter } }))?.pod;
  };
  return tryFor(maxRetries, async () => {
    const seen = Map.groupBy(await many(totalRequests, podOf), (pod) => pod && backendOf(pod));
    for (const backend of seen.keys())
      if (backend === undefined || !(backend in weights)) return `${backend ?? "no backend"} answered a request`;
    for (const [backend, expected] of Object.entries(weights)) {
      const share = (seen.get(backend)?.length ?? 0) / totalRequests;
      if (expected === 0 ? share > 0 : Math.abs(share - expected) > Number(tolerance))
        return `${backend} got ${(100 * share).toFixed(1)} % of ${totalRequests} requests, expected ${100 * expected} %`;
    }
    return undefined;
  })(tested, subject);
}

/** A filter of each backend's own names that backend in a header. */
async function backendHeaders(tested: Case, subject: Subject): Promise<Outcome> {
  return tryFor(1, async () => {
    for (let left = tested.totalRequests ?? 100; left > 0; left--) {
      const answer = await subject.send(wireRequest(tested));
      const fault = judge(tested, answer);
      if (fault !== undefined) return fault;
      const { pod = "", headers = {} } = echoOf(answer) ?? {};
      const named = headers.Backend ?? [];
      if (named.length !== 1 || !pod.startsWith(named[0] as string))
        return `${pod} got the Backend header ${JSON.stringify(named)}, expected its own name`;
    }
    return undefined;
  })(tested, subject);
}

/** `{{uuid}}` in the path stands for a new one for each probe, since origins count tries by it. */
function filledIn(tested: Case): Case {
  const uuid = randomUUID();
  return withPath(tested, (path) => path.replaceAll("{{uuid}}", uuid));
}

/** Told apart from all other requests, so that copies of it can be counted; the name is the suite's. */
function withRequestId(tested: Case): Case {
  const id = `gateway-api-conformance-request-id=${randomUUID()}`;
  return withPath(tested, (path) => `${path}${path.includes("?") ? "&" : "?"}${id}`);
}

function withPath(tested: Case, change: (path: string) => string): Case {
  const { request, expect } = tested;
  const { upstreamRequest } = expect;
  const upstream = upstreamRequest && { ...upstreamRequest, path: change(upstreamRequest.path ?? request.path) };
  return {
    ...tested,
    request: { ...request, path: change(request.path) },
    expect: { ...expect, ...(upstream && { upstreamRequest: upstream }) },
  };
}

const mirrorsOf = ({ expect }: Case) => {
  if (!expect.mirroredTo?.length) throw new Error("the case does not say where the mirrors are");
  return expect.mirroredTo;
};

const SETTLE_MS = 50;
const SETTLED_AFTER = 5;
const SETTLE_AT_MOST = 60;

/** What `count` gives once it has not changed for a quarter of a second and `enough` holds; after 3 s in any case. */
async function settled(count: () => number, subject: Subject, enough = (_: number) => true): Promise<number> {
  let last = count();
  for (let unchanged = 0, rounds = 0; unchanged < SETTLED_AFTER && rounds < SETTLE_AT_MOST; rounds++) {
    await subject.pause(SETTLE_MS);
    const now = count();
    unchanged = now === last && enough(now) ? unchanged + 1 : 0;
    last = now;
  }
  return last;
}

async function many<T>(count: number, work: () => Promise<T>): Promise<T[]> {
  const results: T[] = [];
  let left = count;
  const worker = async () => {
    while (left-- > 0) results.push(await work());
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, worker));
  return results;
}

function messageOf({ message, code, name }: Error & { code?: string }): string {
  return code ? `no answer: ${message || code}` : message || name;
}
