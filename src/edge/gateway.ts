/**
 * One request, from top to bottom: receive, normalise, match, policies, choose a backend, forward, policies on the way out, record.
 * The Worker is a Hono app with this one handler; each policy is a Hono middleware that runs inside of it.
 */
import { Hono, type MiddlewareHandler } from "hono";
import { HTTPException } from "hono/http-exception";
import {
  type DecisionRecord,
  type Exchange,
  editHeader,
  type GatewayContext,
  type GatewayEnv,
  type HeaderEdit,
  NotConfigured,
  receivedHeader,
} from "../policies/contract.ts";
import { BodyLate } from "../policies/held-body.ts";
import type { MatchResult } from "../table/match.ts";
import { type ProblemCode, type ProblemExtras, problemResponse, problems } from "../table/problems.ts";
import type { RedirectAction, TableMirror, TableRoute } from "../table/table.ts";
import type { Choice } from "../traffic/tries.ts";
import { ASSERTION_HEADER } from "./assertion.ts";
import { chooseAction } from "./choose.ts";
import { clientAddress } from "./client.ts";
import { constantTimeEqual } from "./constant-time.ts";
import { Departure } from "./departure.ts";
import { isEndless, limited } from "./endless.ts";
import { headerEdits, textOf } from "./environment.ts";
import { type Answer, type Attempt, forward, type Outcome } from "./forward.ts";
import { endingAt, grpcAnswer, grpcDeadline, grpcStatus, speaksGrpc } from "./grpc-web.ts";
import { type GatewayParts, Isolate } from "./isolate.ts";
import { drawMirrors, fitting, sendMirror } from "./mirror.ts";
import { redirectLocation } from "./redirect.ts";
import { cookieValue, portOf, queryValue, type RequestTarget, readTarget } from "./request-target.ts";
import { combined, rewrittenPath } from "./rewrite.ts";
import { connectionEdits, upstreamHeaders } from "./upstream-headers.ts";
import { relay } from "./websocket.ts";

/** Paths below this are the gateway's own and never match a route. */
const OWN_PATHS = "/.well-known/portcullis/";

export function createGateway(parts: GatewayParts): Hono<GatewayEnv> {
  const isolate = new Isolate(parts);
  // Hono carries the request; which route it takes is decided below, so Hono need not look at the path.
  const app = new Hono<GatewayEnv>({ getPath: () => "/" });
  app.all("*", (c) => {
    const departure = new Departure(c.req.raw.signal);
    const answered = answer(c, isolate, departure);
    // Else the runtime would end the request together with its client, and there would be no record of it.
    departure.whenGone(() => c.executionCtx.waitUntil(answered));
    return answered;
  });
  return app;
}

async function answer(c: GatewayContext, isolate: Isolate, departure: Departure): Promise<Response> {
  const request = c.req.raw;
  const started = isolate.now();
  const { table } = isolate;
  const edits: HeaderEdit[] = [];
  // The cluster's response, where it is a copy of ours already.
  let changeable: Response | undefined;
  const record: DecisionRecord = {
    v: 1,
    time: timestamp(started),
    id: crypto.randomUUID(),
    table: table.id,
    method: request.method,
    host: "",
    path: "",
    client: clientAddress(request, isolate.trustedProxies),
    policies: [],
    attempts: [],
    status: 0,
    upstreamMs: 0,
    totalMs: 0,
  };
  const refuse = (problem: ProblemCode, extras?: ProblemExtras) => {
    const code = (table.gateway.semantics === "gateway-api" && GATEWAY_API_CODES[problem]) || problem;
    record.reason = code;
    return problemResponse(code, record.id, extras);
  };
  let strayBody = false;
  let response: Response;
  try {
    response = await decide();
  } catch (error) {
    if (error instanceof HTTPException) {
      // How Hono's own middleware refuses.
      record.reason = "policy";
      return finish(error.getResponse());
    }
    if (error instanceof BodyLate) return finish(refuse("request-timeout"));
    if (isBroken(request, error)) return finish(refuse("bad-request", { detail: "The request's body breaks off." }));
    response =
      error instanceof NotConfigured
        ? refuse("not-configured", { detail: "See the gateway's log.", headers: { "retry-after": "30" } })
        : refuse("internal");
    // What went wrong is for the log alone; a stack trace or a name from the environment tells a stranger too much.
    console.error(JSON.stringify({ id: record.id, error: String(error), stack: (error as Error)?.stack }));
  }
  return finish(response);

  async function decide(): Promise<Response> {
    const target = readTarget(request.url, table.gateway.maxUrl, table.gateway);
    if ("refused" in target) {
      // Nothing is known of it but the wire's text: enough of that to find out who sends such requests.
      record.path = (request.url.split("?", 1)[0] as string).slice(0, 256);
      return refuse(target.refused);
    }
    Object.assign(record, { host: target.host, path: target.path });
    if (target.path.startsWith(OWN_PATHS)) return ownAnswer(target.path);

    const received: [string, string][] = [];
    // Half of what iterating over them costs (measured). What is asked of each request is looked up here: a call of Headers takes 0.01 of
    // a bare request, a look at this list next to nothing.
    request.headers.forEach((value, name) => void received.push([name, value]));
    const length = Number(receivedHeader({ received }, "content-length") ?? 0);
    if (length > table.gateway.maxBody) return refuse("body-too-large");
    if (UNSENT.has(request.method)) return refuse("method-not-allowed", { headers: { allow: SENT } });
    // workerd by itself puts Host into the URL as it came, also what would begin the path or the query there.
    if (/[/?#]/.test(receivedHeader({ received }, "host") ?? "")) return refuse("host-invalid");
    if (request.method === "GET" || request.method === "HEAD")
      strayBody = length > 0 || receivedHeader({ received }, "transfer-encoding") !== null;

    const found = match(target);
    const route = found.kind === "route" ? (table.routes.at(found.route) as TableRoute) : isolate.unmatched;
    const matched = found.kind === "route" ? route.matches[found.match] : undefined;
    if (found.kind === "route") record.route = route.id;
    if (found.listener !== undefined) record.listener = table.listeners?.[found.listener]?.name ?? "";
    const upstream = upstreamHeaders(request, received, target, record.client, isolate.isStripped, table);
    if (!upstream) return refuse("bad-request", { detail: "A header has a control character." });
    const exchange: Exchange = {
      route,
      path: target.path,
      search: target.search,
      host: target.host,
      scheme: target.scheme,
      total: (route.timeouts ?? table.gateway.timeouts).total,
      clientAddress: record.client,
      received,
      upstream,
      responseEdits: edits,
      record,
      waitUntil: (work) => c.executionCtx.waitUntil(work),
      // At the end: V8 defines what follows a spread property by property in its runtime (0.01 of a bare request, measured).
      ...(matched && { match: matched }),
    };
    c.set("exchange", exchange);
    return runPolicies(c, isolate.policiesOf(route), () => act(exchange, target, found));
  }

  function match(target: RequestTarget): MatchResult {
    const { headers } = request;
    const view = {
      method: request.method,
      scheme: target.scheme,
      port: portOf(target),
      host: target.host,
      path: target.path,
      header: (name: string) => headers.get(name),
      query: (name: string) => queryValue(target.search, name),
      cookie: (name: string) => cookieValue(headers.get("cookie"), name),
    };
    const asked =
      request.method === "OPTIONS" && headers.has("origin") ? headers.get("access-control-request-method") : null;
    if (asked !== null) {
      // A preflight asks about another request: it is for the route that would answer that one, if that route knows CORS.
      const found = isolate.matcher.match({ ...view, method: asked });
      if (found.kind === "route" && isolate.answersPreflight(table.routes.at(found.route) as TableRoute)) return found;
    }
    return isolate.matcher.match(view);
  }

  async function act(exchange: Exchange, target: RequestTarget, found: MatchResult): Promise<Response> {
    // Not before the policies: what is smuggled in such a body is for them to see, the firewall first of all.
    if (strayBody)
      return refuse("bad-request", { detail: "A GET or HEAD request cannot carry a body through this gateway." });
    if (found.kind === "not-found") return refuse("not-found");
    if (found.kind === "method-not-allowed") {
      const allow = found.allow.join(", ");
      if (request.method !== "OPTIONS") return refuse("method-not-allowed", { headers: { allow } });
      record.reason = "options";
      return new Response(null, { status: 204, headers: { allow: `${allow}, OPTIONS` } });
    }
    const { timeouts: stated = table.gateway.timeouts, websocket } = exchange.route;
    const deadline = grpcDeadline(request, started);
    const timeouts = deadline === undefined ? stated : endingAt(deadline, stated, isolate.now());
    const action = chooseAction(exchange.route.action, exchange, request, ({ secret }) => textOf(secret, c.env));
    if (action.kind === "redirect") return redirect(action, target, exchange, found.listener);
    if (action.kind === "missing") {
      record.detail = action.reason;
      return refuse("backend-missing");
    }
    if (websocket && request.headers.get("upgrade")?.toLowerCase() === "websocket") {
      if (request.method !== "GET" || request.headers.get("sec-websocket-version") !== "13") {
        const detail = "A WebSocket begins with a GET request and speaks version 13 (RFC 6455, 4.1).";
        return refuse("bad-request", { detail, headers: { "sec-websocket-version": "13" } });
      }
      exchange.upstream.set("upgrade", "websocket");
    }
    const asked = isolate.now();
    const { traffic } = isolate;
    const { retry, mirrors: everywhere = [] } = exchange.route;
    // A copy of an upgrade would be a connection of its own, which nobody uses and nobody closes.
    const copies = !exchange.upstream.has("upgrade");
    const mirrors = drawMirrors(copies ? everywhere : [], request, Math.random);
    traffic.readHealth(exchange, c.env);
    const { answer, choice, copy } = await forward(exchange, request, {
      tries: traffic.triesOf(action, exchange, request),
      prepare: ({ backend }) => prepare(backend, exchange, target),
      timeouts,
      impatient: timeouts !== stated,
      departure,
      maxBody: table.gateway.maxBody,
      copied: traffic.copiedFor(action, mirrors),
      retry: retry && {
        rules: retry,
        budget: traffic.budgetOf(retry),
        cut: table.gateway.semantics === "gateway-api",
      },
    });
    record.upstreamMs = isolate.now() - asked;
    const chosen = choice && table.backends[choice.backend];
    mirrors.push(...drawMirrors((copies && chosen?.mirrors) || [], request, Math.random));
    if (mirrors.length > 0 && copy !== undefined)
      exchange.waitUntil(sendMirrors(mirrors, copy, exchange, target, timeouts.total));
    if ("failed" in answer) return refuse(answer.failed, laterThan(answer));
    if (answer.own) changeable = answer.response;
    edits.unshift(...connectionEdits(answer.response.headers));
    if (chosen?.headers) edits.push(...headerEdits(chosen.headers.response, c.env));
    if (choice?.affinity) keepAt(choice.affinity, exchange);
    if (websocket && answer.response.status === 101) return upgraded(answer.response, websocket);
    if ((timeouts.idle || deadline !== undefined) && answer.response.body && isEndless(answer.response)) {
      const limits = { idle: timeouts.idle ?? 0, deadline: deadline ?? Number.POSITIVE_INFINITY };
      const ended = (why: string) =>
        note({ event: "stream-closed", route: record.route, why, ms: isolate.now() - started });
      changeable = limited(answer.response, answer.response.body, limits, ended);
      return changeable;
    }
    return answer.response;
  }

  /** What happens after the record has been written. */
  function note(facts: Record<string, unknown>): void {
    console.log(JSON.stringify({ v: 1, time: new Date(isolate.now()).toISOString(), id: record.id, ...facts }));
  }

  function upgraded(response: Response, websocket: TableRoute["websocket"]): Response {
    if (typeof websocket !== "object" || !response.webSocket) return response;
    return relay(response, websocket, (end) => note({ event: "websocket-closed", route: record.route, ...end }));
  }

  /** Once the body is known, if there is one. */
  async function sendMirrors(
    mirrors: readonly TableMirror[],
    copy: Outcome["copy"],
    exchange: Exchange,
    target: RequestTarget,
    total: number,
  ): Promise<void> {
    const clusterOf = ({ backend }: TableMirror) => table.backends[backend]?.cluster ?? "";
    const { mirrorTraffic } = isolate;
    const named = (copy instanceof Promise ? mirrors : fitting(mirrors, copy ?? null)).filter((mirror) =>
      mirrorTraffic.begin(clusterOf(mirror)),
    );
    if (named.length === 0) return;
    record.mirrors = named.map(({ backend }) => table.backends[backend]?.name ?? "");
    const body = await copy;
    const sent = body === undefined ? [] : fitting(named, body);
    await Promise.all(
      named.map(async (mirror) => {
        const copied = () => prepare(mirror.backend, exchange, target);
        if (body !== undefined && sent.includes(mirror))
          await sendMirror(copied, request.method, body, total || LONGEST_MIRROR);
        mirrorTraffic.ended(clusterOf(mirror));
      }),
    );
  }

  function keepAt({ cookie, value, maxAge }: Choice["affinity"] & object, { scheme }: Exchange): void {
    if (cookieValue(request.headers.get("cookie"), cookie) === value) return;
    const secure = scheme === "https" ? "; Secure" : "";
    const attributes = `; Path=/; Max-Age=${maxAge}; HttpOnly; SameSite=Lax${secure}`;
    edits.push({ action: "add", name: "set-cookie", value: `${cookie}=${value}${attributes}` });
  }

  async function prepare(position: number, exchange: Exchange, target: RequestTarget): Promise<Attempt> {
    const { backend, cluster, ingress } = isolate.backend(position, c.env);
    const signs = cluster.assertion ? table.gateway.assertion : undefined;
    const headers = backend.headers || signs ? new Headers(exchange.upstream) : exchange.upstream;
    for (const edit of headerEdits(backend.headers?.request, c.env)) editHeader(headers, edit);
    if (signs && isolate.assertions) {
      const key = textOf(signs.key, c.env);
      headers.set(ASSERTION_HEADER, await isolate.assertions.sign(key, cluster.name, exchange.caller, isolate.now()));
    }
    const rewrite = combined(exchange.route.rewrite, backend.rewrite);
    const host = rewrite.host ?? backend.host;
    const origin = host
      ? `${ingress.origin ? new URL(ingress.origin).protocol : `${cluster.scheme}:`}//${host}${isolate.portOf(ingress)}`
      : (ingress.origin ?? `${cluster.scheme}://${target.authority}`);
    const path = rewrittenPath(target.path, rewrite.path, exchange.match?.path);
    const search = exchange.upstreamSearch ?? target.search;
    const url = `${origin}${ingress.path}${backend.path ?? ""}${path}${search}`;
    return { backend: backend.name, url, ingress, headers, ...(cluster.region && { region: cluster.region }) };
  }

  function redirect(action: RedirectAction, target: RequestTarget, exchange: Exchange, listener?: number): Response {
    record.reason = "redirect";
    const { protocol, port } = (listener !== undefined && table.listeners?.[listener]) || {};
    // A listener for another protocol stands for one that this request cannot have come to.
    const listenerPort = protocol === target.scheme ? port : undefined;
    const location = redirectLocation(action, target, exchange.match?.path, listenerPort);
    return new Response(null, { status: action.status, headers: { location } });
  }

  async function ownAnswer(path: string): Promise<Response> {
    if (request.method !== "GET" && request.method !== "HEAD") {
      return refuse("method-not-allowed", { headers: { allow: "GET, HEAD" } });
    }
    const { assertion } = table.gateway;
    if (path === `${OWN_PATHS}jwks.json` && assertion && isolate.assertions) {
      const keys = await isolate.assertions.publicKeys(textOf(assertion.key, c.env));
      return Response.json(keys, { headers: { "cache-control": "public, max-age=300" } });
    }
    if (path === `${OWN_PATHS}health`) {
      return Response.json({ status: "ok", table: table.id }, { headers: { "cache-control": "no-store" } });
    }
    return refuse("not-found");
  }

  function finish(given: Response): Response {
    const { reason } = record;
    let answered = given;
    if (reason && reason in problems && speaksGrpc(request)) {
      record.grpcStatus = grpcStatus(given.status, reason as ProblemCode);
      answered = grpcAnswer(request, given, reason as ProblemCode, record.id);
    }
    record.status = answered.status;
    record.totalMs = isolate.now() - started;
    const asked = table.gateway.debug ? request.headers.get("x-portcullis-debug") : null;
    if (asked !== null && table.gateway.debug && constantTimeEqual(asked, debugSecret())) {
      edits.push({ action: "set", name: "x-portcullis-record", value: headerSafe(JSON.stringify(record)) });
    }
    console.log(JSON.stringify(record));
    departure.forget();
    return edited(answered, edits, answered === changeable);
  }

  function debugSecret(): string {
    try {
      return textOf((table.gateway.debug as { secret: { secret: string } }).secret, c.env);
    } catch {
      // Equal to nothing that a header can carry.
      return "\n";
    }
  }
}

// The Gateway API wants 503 where no endpoint can be asked (HTTPRouteRule.backendRefs).
const GATEWAY_API_CODES: Partial<Record<ProblemCode, ProblemCode>> = {
  "upstream-unreachable": "upstream-unavailable",
};

// CONNECT asks for a tunnel and TRACE for an echo of credentials (RFC 9110, 9.3.6 and 9.3.8); `fetch` sends none of these.
const UNSENT = new Set(["CONNECT", "TRACE", "TRACK"]);
const SENT = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/** Whether a policy was reading the request's body when that broke off: chunks that are none, or a client that is gone. */
const isBroken = (request: Request, error: unknown): boolean =>
  request.bodyUsed && error instanceof Error && error.message.startsWith("Network connection lost");

// Seconds after which it may be worth asking again.
const RETRY_LATER: Partial<Record<ProblemCode, number>> = {
  "upstream-unreachable": 5,
  "no-healthy-backend": 5,
  "backend-overloaded": 1,
};

function laterThan({ failed, retryAfter }: Extract<Answer, { failed: unknown }>): ProblemExtras | undefined {
  const seconds = retryAfter === undefined ? RETRY_LATER[failed] : Math.max(1, Math.ceil(retryAfter / 1_000));
  return seconds === undefined ? undefined : { headers: { "retry-after": String(seconds) } };
}

// The platform ends what runs on after the answer then (Workers, waitUntil).
const LONGEST_MIRROR = 30_000;

/** Hono's own way to run middleware (a response before next() answers; c.res after it can be replaced), over one route's list. */
async function runPolicies(
  c: GatewayContext,
  handlers: readonly MiddlewareHandler<GatewayEnv>[],
  last: () => Promise<Response>,
): Promise<Response> {
  const dispatch = async (position: number): Promise<void> => {
    const handler = handlers[position];
    const response = handler ? await handler(c, () => dispatch(position + 1)) : await last();
    if (response && !c.finalized) c.res = response;
  };
  await dispatch(0);
  if (!c.finalized) throw new Error("a middleware has neither answered nor called next()");
  return c.res;
}

/**
 * The answer with all edits made, on one new Response; none, when there is nothing to change, since wrapping costs. An upgraded
 * connection is returned untouched: a new Response would lose its WebSocket.
 */
function edited(response: Response, edits: readonly HeaderEdit[], changeable: boolean): Response {
  if (edits.length === 0 || response.status === 101) return response;
  const copy = changeable ? response : new Response(response.body, response);
  const { headers } = copy;
  for (const edit of edits) editHeader(headers, edit);
  return copy;
}

let second = Number.NaN;
let written = "";

/** RFC 3339, with milliseconds. Most requests come in a second that has been written before. */
function timestamp(now: number): string {
  const milliseconds = now % 1_000;
  if (now - milliseconds !== second) {
    second = now - milliseconds;
    written = new Date(second).toISOString().slice(0, -4);
  }
  return `${written}${String(milliseconds).padStart(3, "0")}Z`;
}

/** JSON as a header can carry it: everything outside of ASCII as a JSON escape. */
const headerSafe = (json: string): string =>
  json.replace(/[^\x20-\x7e]/g, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
