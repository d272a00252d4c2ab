/**
 * What the gateway would do with one request, and why: by the edge's own code over the compiled table, in this process and without
 * asking anybody. What only others know is assumed, and told.
 */

import type { MiddlewareHandler } from "hono";
import { filterPack } from "../build/filter-pack.ts";
import { cookieValue, portOf, queryValue, readTarget } from "../edge/request-target.ts";
import type { AssumedCaller } from "../offline/callers.ts";
import { Clock } from "../offline/clock.ts";
import { withShortStandIns } from "../offline/environment.ts";
import { type ClusterRequest, OfflineGateway, type Passage } from "../offline/gateway.ts";
import { Issuer } from "../offline/issuer.ts";
import type { DecisionRecord, HeaderEdit } from "../policies/contract.ts";
import { FILTER_PACK } from "../policies/filter-inspection.ts";
import { indexMatches, Matcher, type MatchIndex } from "../table/match.ts";
import { problems } from "../table/problems.ts";
import type { ArmAction, PolicyMode, RouteTable, TableAction, TableRoute } from "../table/table.ts";
import type { EncodedPack } from "../waf/pack-encoding.ts";
import { candidatesOf, isSensitive, matchText, type NearRoute } from "./candidates.ts";
import { freshStore } from "./fresh-store.ts";
import { inputsOf } from "./inputs.ts";

export interface Subject {
  readonly table: RouteTable;
  /** Default: it is made. */
  readonly index?: MatchIndex;
  /** `file:line` by `route orders/list`; empty: unknown. */
  readonly sources: Readonly<Record<string, string>>;
  /** Variables, as wrangler's configuration has them. */
  readonly texts: Readonly<Record<string, unknown>>;
  readonly middleware?: Readonly<Record<string, MiddlewareHandler>>;
  /** Rules of the table's wafs, by id. */
  readonly packs?: ReadonlyMap<string, EncodedPack>;
}

export interface AskedRequest {
  readonly method: string;
  /** Absolute. */
  readonly url: string;
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly body?: string | undefined;
  readonly client: string;
  readonly cf: Readonly<Record<string, unknown>>;
  readonly as?: AssumedCaller | undefined;
  /** Asks issuers for their keys, as the edge would. Default: tokens are taken to be signed well. */
  readonly online?: boolean;
}

export interface ExplainedPolicy {
  readonly policy: string;
  readonly mode: PolicyMode;
  /** `applies`: it decides nothing, it does something. `skipped`: another one had answered before. */
  readonly verdict: "pass" | "deny" | "would-deny" | "error" | "applies" | "answers" | "skipped";
  readonly reason?: string;
  readonly inputs: readonly string[];
  readonly facts?: Readonly<Record<string, unknown>>;
  readonly limits?: readonly { readonly name: string; readonly key: string; readonly remaining: number }[];
  /** What it changed in the headers for the cluster. */
  readonly upstream?: readonly string[];
  readonly response?: readonly string[];
}

export interface ExplainedRequest {
  readonly backend: string;
  readonly method: string;
  readonly url: string;
  /** The binding by which it goes out. */
  readonly binding?: string;
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly bytes: number;
}

export interface Explanation {
  readonly request: {
    readonly method: string;
    readonly url: string;
    readonly host: string;
    readonly path: string;
    readonly client: string;
    readonly as?: AssumedCaller;
  };
  readonly table: string;
  readonly listener?: string;
  readonly route?: {
    readonly id: string;
    readonly source?: string;
    readonly match: string;
    readonly hosts: readonly string[];
  };
  readonly lost: readonly (NearRoute & { readonly source?: string })[];
  readonly behind: readonly (NearRoute & { readonly source?: string })[];
  readonly nearest: readonly (NearRoute & { readonly source?: string })[];
  readonly policies: readonly ExplainedPolicy[];
  /** `shares` in percent, by arm: of all who draw. */
  readonly arm?: { readonly name: string; readonly by: string; readonly shares: Readonly<Record<string, number>> };
  /** Who may be asked, in the order of priorities; empty: nobody. */
  readonly backends: readonly string[];
  readonly upstream: readonly ExplainedRequest[];
  readonly mirrors: readonly ExplainedRequest[];
  readonly answer: {
    readonly status: number;
    /** The gateway's own answer, by its code; absent: the cluster's, which is taken to be 200. */
    readonly reason?: string;
    readonly title?: string;
    readonly detail?: string;
    readonly location?: string;
    readonly headers: readonly (readonly [name: string, value: string])[];
  };
  readonly assumptions: readonly string[];
  readonly record: DecisionRecord;
}

export async function explain(subject: Subject, asked: AskedRequest): Promise<Explanation> {
  const { table, sources } = subject;
  const index = subject.index ?? indexMatches(table.routes, table.listeners);
  const assumptions: string[] = [];
  const issuer = new Issuer();
  const headers = asked.online || asked.as ? asked.headers : withSignedTokens(asked.headers, issuer, assumptions);
  const gateway = new OfflineGateway({
    table,
    index,
    texts: subject.texts,
    clock: new Clock(Date.now()),
    ...(subject.middleware && { middleware: subject.middleware }),
    packs: subject.packs ?? ownRules(table),
    cluster: () => new Response("", { status: 200 }),
    store: freshStore,
    provider: (request) => (asked.online ? fetch(request) : provided(request, issuer)),
  });
  const passage = await gateway.fetch({ ...asked, headers });
  const answer = await answerOf(passage);
  // What goes on after it asks nobody outside of this process, but for --online.
  await passage.settled();
  const { record } = passage;

  const route = table.routes.find(({ id }) => id === record.route);
  const candidates = candidatesAround(table, index, asked, record, route, passage);
  const placed = (near: NearRoute) => ({ ...near, ...sourceOf(sources, near.route) });
  assumptions.push(...assumed(table, asked, passage, subject));
  const upstream = passage.asked.map((request, i) => shownRequest(request, record.attempts[i]?.backend ?? ""));
  const { mirrors = [] } = record;
  const sent = record.attempts.length;
  return {
    request: {
      method: asked.method,
      url: asked.url,
      host: record.host,
      path: record.path,
      client: record.client,
      ...(asked.as && { as: asked.as }),
    },
    table: table.id,
    ...(record.listener !== undefined && { listener: record.listener }),
    ...(route && {
      route: {
        id: route.id,
        ...sourceOf(sources, route.id),
        match: passage.match ? matchText(passage.match) : "",
        hosts: route.hosts,
      },
    }),
    lost: candidates.lost.map(placed),
    behind: candidates.behind.map(placed),
    nearest: candidates.nearest.map(placed),
    policies: policiesOf(table, route, passage, asked),
    ...(record.arm !== undefined && {
      arm: { name: record.arm, by: record.armBy ?? "", shares: sharesOf(route?.action) },
    }),
    backends: route && !record.reason ? backendsOf(table, route, record) : [],
    upstream: upstream.slice(0, sent),
    mirrors: upstream.slice(sent).map((request, i) => ({ ...request, backend: mirrors[i] ?? "" })),
    answer,
    assumptions,
    record,
  };
}

const sourceOf = (sources: Subject["sources"], route: string): { readonly source?: string } => {
  const source = sources[`route ${route}`];
  return source === undefined ? {} : { source };
};

function candidatesAround(
  table: RouteTable,
  index: MatchIndex,
  { method, headers: given, url }: AskedRequest,
  record: DecisionRecord,
  route: TableRoute | undefined,
  { match }: Passage,
) {
  const target = readTarget(url, table.gateway.maxUrl, table.gateway);
  if ("refused" in target || (!route && record.reason !== "not-found" && record.reason !== "method-not-allowed"))
    return { lost: [], behind: [], nearest: [] };
  const headers = new Headers(given.map(([name, value]): [string, string] => [name, value]));
  const preflight = record.reason === "preflight" ? headers.get("access-control-request-method") : null;
  const view = {
    scheme: target.scheme,
    port: portOf(target),
    host: target.host,
    path: target.path,
    method: preflight ?? method,
    header: (name: string) => headers.get(name),
    query: (name: string) => queryValue(target.search, name),
    cookie: (name: string) => cookieValue(headers.get("cookie"), name),
  };
  const matcher = new Matcher(table.routes, index, table.gateway.semantics);
  const found = matcher.match(view);
  const at = route ? table.routes.indexOf(route) : -1;
  // A route without policies leaves no trace of which of its matches it was.
  const matchAt = match ? (route?.matches.indexOf(match) ?? 0) : found.kind === "route" ? found.match : 0;
  return candidatesOf(table, matcher, view, route ? [at, matchAt] : undefined, found.listener);
}

function policiesOf(
  table: RouteTable,
  route: TableRoute | undefined,
  { steps, record, caller }: Passage,
  { method, headers: given, as }: AskedRequest,
): ExplainedPolicy[] {
  const headers = new Headers(given.map(([name, value]): [string, string] => [name, value]));
  const situation = { header: (name: string) => headers.get(name), method, client: record.client, caller, as };
  const explained = steps.map((step): ExplainedPolicy => {
    const verdict = step.verdicts.at(-1);
    const upstream = step.upstream.map(({ name, value }) => headerChange(name, value));
    const response = step.response.map(editText);
    return {
      policy: step.policy,
      mode: step.mode,
      verdict: verdict?.verdict ?? (step.answered ? "answers" : "applies"),
      ...(verdict?.reason !== undefined && { reason: verdict.reason }),
      inputs: inputsOf(step, situation),
      ...(verdict?.facts && { facts: verdict.facts }),
      ...(step.limits.length > 0 && {
        limits: step.limits.map(({ name, key, remaining }) => ({ name, key, remaining })),
      }),
      ...(upstream.length > 0 && { upstream }),
      ...(response.length > 0 && { response }),
    };
  });
  const listed = route?.policies ?? (steps.length > 0 ? table.unmatched : []);
  for (const position of listed.slice(steps.length)) {
    const declared = table.policies[position];
    if (declared) explained.push({ policy: declared.policy, mode: declared.mode, verdict: "skipped", inputs: [] });
  }
  return explained;
}

const editText = ({ action, name, value }: HeaderEdit): string => {
  if (action === "remove") return `- ${name}`;
  return `${action === "add" ? "+ " : ""}${name}: ${shownValue(name, value ?? "")}`;
};

const headerChange = (name: string, value: string | undefined): string =>
  value === undefined ? `- ${name}` : `${name}: ${shownValue(name, value)}`;

/** What may be told of a header's value: of one that lets somebody in, that it is there. */
export function shownValue(name: string, value: string): string {
  const short = withShortStandIns(value);
  if (short !== value || /^\[secret /.test(value)) return short;
  if (!isSensitive(name) || name === "www-authenticate") return value;
  const scheme = /^(Bearer|Basic|DPoP) /i.exec(value)?.[0] ?? "";
  return `${scheme}(${value.length - scheme.length} characters)`;
}

function shownRequest({ method, url, binding, headers, body }: ClusterRequest, backend: string): ExplainedRequest {
  return {
    backend,
    method,
    url: withShortStandIns(url),
    ...(binding !== undefined && { binding }),
    headers: headers.map(([name, value]) => [name, shownValue(name, value)] as const),
    bytes: body.byteLength,
  };
}

function sharesOf(action: TableAction | undefined): Record<string, number> {
  if (action?.kind !== "split") return {};
  const total = action.arms.reduce((sum, { weight }) => sum + weight, 0) || 1;
  return Object.fromEntries(action.arms.map(({ name, weight }) => [name, Math.round((weight / total) * 1_000) / 10]));
}

/** Of the arm that was chosen, where there is one. */
function backendsOf(table: RouteTable, { action }: TableRoute, { arm }: DecisionRecord): string[] {
  const chosen: ArmAction | undefined =
    action.kind === "split" ? action.arms.find(({ name }) => name === arm)?.action : action;
  const named = (positions: readonly number[]) => positions.map((position) => table.backends[position]?.name ?? "");
  if (chosen?.kind === "forward") return named(chosen.backends);
  if (chosen?.kind === "pool")
    return (table.pools[chosen.pool]?.levels ?? []).flatMap(({ backends }) => named(backends));
  return [];
}

async function answerOf({ response, record }: Passage): Promise<Explanation["answer"]> {
  const { reason, status } = record;
  const text = await response.text();
  const known = reason !== undefined && Object.hasOwn(problems, reason);
  const document =
    known && text.startsWith("{") ? (JSON.parse(text) as { title?: string; detail?: string }) : undefined;
  const location = response.headers.get("location");
  return {
    status,
    ...(reason !== undefined && { reason }),
    ...(document?.title !== undefined && { title: document.title }),
    ...(document?.detail !== undefined && { detail: document.detail }),
    ...(location !== null && { location }),
    headers: [...response.headers].map(([name, value]) => [name, shownValue(name, value)] as const),
  };
}

/** Whoever a policy asks: a token endpoint gives a token, an issuer its keys; nobody else is there. */
async function provided(request: Request, issuer: Issuer): Promise<Response> {
  const text = request.method === "POST" ? await request.text() : "";
  if (text.includes("grant_type=client_credentials"))
    return Response.json({ access_token: "[secret upstream token]", token_type: "Bearer", expires_in: 3_600 });
  return issuer.answer(request) ?? new Response("", { status: 503 });
}

/** Bearer tokens signed anew, so that the policy's own code reads them: all but the signature is checked. */
function withSignedTokens(
  headers: AskedRequest["headers"],
  issuer: Issuer,
  assumptions: string[],
): AskedRequest["headers"] {
  return headers.map(([name, value]) => {
    const [, scheme = "", head = "", payload = ""] = /^(Bearer )?(ey[\w-]+)\.(ey[\w-]+)\.[\w-]+$/.exec(value) ?? [];
    if (payload === "") return [name, value];
    try {
      const [header, claims] = [head, payload].map((part) => JSON.parse(Buffer.from(part, "base64url").toString()));
      assumptions.push(`the signature of the token in ${name} is good (--online asks the issuer for its keys)`);
      return [name, `${scheme}${issuer.token(claims, header)}`];
    } catch {
      return [name, value];
    }
  });
}

/** A table that comes without rules still has those of filter, which are always the same. */
const ownRules = ({ policies }: RouteTable): ReadonlyMap<string, EncodedPack> =>
  new Map(policies.some(({ policy }) => policy === "filter") ? [[FILTER_PACK, filterPack()]] : []);

function assumed(
  table: RouteTable,
  { as, online }: AskedRequest,
  { record, steps }: Passage,
  subject: Subject,
): string[] {
  const texts: string[] = [];
  const used = (...names: string[]) => steps.some(({ policy }) => names.includes(policy));
  if (as) texts.push(`a good credential of ${as.consumer ?? as.subject ?? "somebody"}`);
  if (used("rateLimit", "concurrency", "penaltyBox"))
    texts.push("nothing has been counted yet: the caller is the first");
  if (!as && used("apiKey", "basic"))
    texts.push("the store holds no keys and no users (--as NAME takes one for granted)");
  if (!as && !online && used("introspection", "forwardAuth"))
    texts.push("whoever else is asked about credentials does not answer");
  if (used("middleware") && !subject.middleware)
    texts.push("middleware lets the request pass: its code is not in the table");
  if (used("waf") && !subject.packs) texts.push("waf lets the request pass: its rules are not in the table");
  if (record.armBy === "request") texts.push("the arm was drawn; another request may get another one");
  if (record.armBy === "new-cookie") texts.push("the arm was drawn, and a cookie keeps the client on it");
  if (record.armBy === "client") texts.push("the arm goes by the client's address and User-Agent");
  if (record.attempts.length > 0) texts.push("every backend is healthy, and the first answers 200");
  const unknown = table.environment.vars.filter((name) => subject.texts[name] === undefined);
  if (unknown.length > 0) texts.push(`${unknown.join(", ")}: not known here, so an address that is none`);
  return texts;
}
