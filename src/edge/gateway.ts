/**
 * One request, from top to bottom: receive, normalise, match, policies, choose a backend, forward, policies on the way out, record.
 * The Worker is a Hono app with this one handler; each policy is a Hono middleware that runs inside of it.
 */
import { Hono, type MiddlewareHandler } from "hono";
import { HTTPException } from "hono/http-exception";
import {
  type DecisionRecord,
  type Exchange,
  type GatewayContext,
  type GatewayEnv,
  type HeaderEdit,
  NotConfigured,
} from "../policies/contract.ts";
import { type MatchResult, parametersOf } from "../table/match.ts";
import { type ProblemCode, type ProblemExtras, problemResponse, problems } from "../table/problems.ts";
import type { RedirectAction, TableMirror, TableRoute } from "../table/table.ts";
import { ASSERTION_HEADER } from "./assertion.ts";
import { chooseAction } from "./choose.ts";
import { clientAddress } from "./client.ts";
import { constantTimeEqual } from "./constant-time.ts";
import { isEndless, withIdleLimit } from "./endless.ts";
import { textOf } from "./environment.ts";
import { type Answer, type Attempt, forward, type Outcome } from "./forward.ts";
import { grpcAnswer, speaksGrpc } from "./grpc-web.ts";
import { type GatewayParts, Isolate } from "./isolate.ts";
import { drawMirrors, sendMirror } from "./mirror.ts";
import { redirectLocation } from "./redirect.ts";
import { cookieValue, queryValue, type RequestTarget, readTarget } from "./request-target.ts";
import type { Choice } from "./tries.ts";
import { connectionEdits, upstreamHeaders } from "./upstream-headers.ts";
import { relay } from "./websocket.ts";

/** Paths below this are the gateway's own and never match a route. */
const OWN_PATHS = "/.well-known/portcullis/";

export function createGateway(parts: GatewayParts): Hono<GatewayEnv> {
  const isolate = new Isolate(parts);
  // Hono carries the request; which route it takes is decided below, so Hono need not look at the path.
  const app = new Hono<GatewayEnv>({ getPath: () => "/" });
  app.all("*", (c) => {
    const answered = answer(c, isolate);
    // Else the runtime would end the request together with its client, and there would be no record of it.
    c.executionCtx.waitUntil(answered);
    return answered;
  });
  return app;
}

async function answer(c: GatewayContext, isolate: Isolate): Promise<Response> {
  const request = c.req.raw;
  const started = isolate.now();
  const { table } = isolate;
  const edits: HeaderEdit[] = [];
  // The cluster's response, where it is a copy of ours already.
  let changeable: Response | undefined;
  const record: DecisionRecord = {
    v: 1,
    time: new Date(started).toISOString(),
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
  const refuse = (code: ProblemCode, extras?: ProblemExtras) => {
    record.reason = code;
    return problemResponse(code, record.id, extras);
  };
  let response: Response;
  try {
    response = await decide();
  } catch (error) {
    if (error instanceof HTTPException) {
      // How Hono's own middleware refuses.
      record.reason = "policy";
      return finish(error.getResponse());
    }
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

    const length = Number(request.headers.get("content-length") ?? 0);
    if (length > table.gateway.maxBody) return refuse("body-too-large");
    if (UNSENT.has(request.method)) return refuse("method-not-allowed", { headers: { allow: SENT } });
    // workerd by itself puts Host into the URL as it came, also what would begin the path or the query there.
    if (/[/?#]/.test(request.headers.get("host") ?? "")) return refuse("host-invalid");
    const carries = length > 0 || request.headers.has("transfer-encoding");
    if (carries && (request.method === "GET" || request.method === "HEAD")) {
      return refuse("bad-request", { detail: "A GET or HEAD request cannot carry a body through this gateway." });
    }

    const found = match(target);
    const route = found.kind === "route" ? (table.routes[found.route] as TableRoute) : isolate.unmatched;
    if (found.kind === "route") record.route = route.id;
    const received: [string, string][] = [];
    // Half of what iterating over them costs (measured).
    request.headers.forEach((value, name) => void received.push([name, value]));
    const upstream = upstreamHeaders(request, received, target, record.client, isolate.isStripped, table);
    if (!upstream) return refuse("bad-request", { detail: "A header has a control character." });
    const exchange: Exchange = {
      route,
      path: target.path,
      search: target.search,
      host: target.host,
      scheme: target.scheme,
      parameters: found.kind === "route" ? parametersFor(route, found.match, target.path) : {},
      clientAddress: record.client,
      received,
      upstream,
      responseEdits: edits,
      record,
      waitUntil: (work) => c.executionCtx.waitUntil(work),
    };
    c.set("exchange", exchange);
    return runPolicies(c, isolate.policiesOf(route), () => act(exchange, target, found));
  }

  function match(target: RequestTarget): MatchResult {
    const { headers } = request;
    const view = {
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
      if (found.kind === "route" && isolate.answersPreflight(table.routes[found.route] as TableRoute)) return found;
    }
    return isolate.matcher.match({ ...view, method: request.method });
  }

  async function act(exchange: Exchange, target: RequestTarget, found: MatchResult): Promise<Response> {
    if (found.kind === "not-found") return refuse("not-found");
    if (found.kind === "method-not-allowed") {
      const allow = found.allow.join(", ");
      if (request.method !== "OPTIONS") return refuse("method-not-allowed", { headers: { allow } });
      record.reason = "options";
      return new Response(null, { status: 204, headers: { allow: `${allow}, OPTIONS` } });
    }
    const { timeouts = table.gateway.timeouts, websocket } = exchange.route;
    const action = chooseAction(exchange.route.action, exchange, request, ({ secret }) => textOf(secret, c.env));
    if (action.kind === "redirect") return redirect(action, target, exchange.route, found.match);
    if (action.kind === "missing") return refuse("backend-missing");
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
    const mirrors = drawMirrors(everywhere, request.method, Math.random);
    traffic.readHealth(exchange, c.env);
    const { answer, choice, copy } = await forward(exchange, request, {
      tries: traffic.triesOf(action, exchange, request),
      prepare: ({ backend }) => prepare(backend, exchange, target),
      timeouts,
      maxBody: table.gateway.maxBody,
      copied: traffic.copiedFor(action, mirrors),
      retry: retry && { rules: retry, budget: traffic.budgetOf(retry) },
    });
    record.upstreamMs = isolate.now() - asked;
    const { mirrors: own = [] } = (choice && table.backends[choice.backend]) ?? {};
    mirrors.push(...drawMirrors(own, request.method, Math.random));
    if (mirrors.length > 0) exchange.waitUntil(sendMirrors(mirrors, copy, exchange, target, timeouts.total));
    if ("failed" in answer) return refuse(answer.failed, laterThan(answer));
    if (answer.own) changeable = answer.response;
    edits.unshift(...connectionEdits(answer.response.headers));
    if (choice?.affinity) keepAt(choice.affinity, exchange);
    if (websocket && answer.response.status === 101) return upgraded(answer.response, websocket);
    if (timeouts.idle && isEndless(answer.response)) {
      return withIdleLimit(answer.response, timeouts.idle, () => note({ event: "idle", ms: isolate.now() - started }));
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
    record.mirrors = mirrors.map(({ backend }) => table.backends[backend]?.name ?? "");
    const body = await copy;
    if (body === undefined) return;
    const fitting = mirrors.filter(({ maxBody }) => (body?.byteLength ?? 0) <= maxBody);
    await Promise.all(
      fitting.map(({ backend }) =>
        sendMirror(() => prepare(backend, exchange, target), request.method, body, total || LONGEST_MIRROR),
      ),
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
    let { upstream: headers } = exchange;
    if (cluster.assertion && table.gateway.assertion && isolate.assertions) {
      headers = new Headers(headers);
      const key = textOf(table.gateway.assertion.key, c.env);
      headers.set(ASSERTION_HEADER, await isolate.assertions.sign(key, cluster.name, exchange.caller, isolate.now()));
    }
    const origin = backend.host
      ? `${ingress.origin ? new URL(ingress.origin).protocol : `${cluster.scheme}:`}//${backend.host}${isolate.portOf(ingress)}`
      : (ingress.origin ?? `${cluster.scheme}://${target.authority}`);
    const search = exchange.upstreamSearch ?? target.search;
    const url = `${origin}${ingress.path}${backend.path ?? ""}${target.path}${search}`;
    return { backend: backend.name, ...(cluster.region && { region: cluster.region }), url, ingress, headers };
  }

  function redirect(action: RedirectAction, target: RequestTarget, route: TableRoute, matched: number): Response {
    record.reason = "redirect";
    const location = redirectLocation(action, target, route.matches[matched]?.path);
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
    const answered =
      reason && reason in problems && speaksGrpc(request) ? grpcAnswer(request, given, reason as ProblemCode) : given;
    record.status = answered.status;
    record.totalMs = isolate.now() - started;
    const asked = table.gateway.debug ? request.headers.get("x-portcullis-debug") : null;
    if (asked !== null && table.gateway.debug && constantTimeEqual(asked, debugSecret())) {
      edits.push({ action: "set", name: "x-portcullis-record", value: headerSafe(JSON.stringify(record)) });
    }
    console.log(JSON.stringify(record));
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

const parametersFor = (route: TableRoute, match: number, path: string): Record<string, string> => {
  const declared = route.matches[match]?.path;
  return declared && declared.kind !== "regex" && declared.value.includes("{")
    ? parametersOf(declared.value, path)
    : {};
};

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
  for (const { action, name, value = "" } of edits) {
    if (action === "remove") headers.delete(name);
    else if (action === "set") headers.set(name, value);
    else headers.append(name, value);
  }
  return copy;
}

/** JSON as a header can carry it: everything outside of ASCII as a JSON escape. */
const headerSafe = (json: string): string =>
  json.replace(/[^\x20-\x7e]/g, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
