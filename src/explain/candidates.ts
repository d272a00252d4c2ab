/** Why a route was not the one: what a request lacks for each that its host and path fit, and for those that it nearly fits. */
import { editDistance } from "../offline/spelling.ts";
import { candidatesFor } from "../table/candidates.ts";
import { commonHost } from "../table/listener.ts";
import { type Candidate, isParameter, type Matcher, type MatchRequest, segmentsOf } from "../table/match.ts";
import type { RouteTable, TableMatch, TableRoute, ValueMatch } from "../table/table.ts";

export interface NearRoute {
  readonly route: string;
  /** As it is declared: `GET /v1/orders/{id}`. */
  readonly match: string;
  /** What the request would need to be its; empty: nothing, and another one goes before it. */
  readonly lacks: readonly string[];
  /** Why another one that fits as well goes before it. */
  readonly behind?: string;
}

export interface Candidates {
  /** That would have gone before the one that answers, had the request had what they want. */
  readonly lost: readonly NearRoute[];
  /** That would have answered if it were not there. */
  readonly behind: readonly NearRoute[];
  /** Where no route answers: the nearest ones, best first. */
  readonly nearest: readonly NearRoute[];
}

const MOST_BEHIND = 3;
const MOST_NEAREST = 3;

/** `winner`: the route that answers, and its match; undefined: none does. `listener`: the position of the one that the request belongs to. */
export function candidatesOf(
  table: RouteTable,
  matcher: Matcher,
  request: MatchRequest,
  winner: Candidate | undefined,
  listener?: number,
): Candidates {
  const exactly = table.gateway.semantics === "gateway-api";
  const all = candidatesFor(matcher, request).flat();
  // A route for two hosts that both fit comes once for each; the narrower one goes first.
  const fitting = [...new Map(all.map((candidate) => [candidate.join(), candidate])).values()];
  const near = (candidate: Candidate): NearRoute => {
    const { route, match } = declared(table, candidate);
    return { route: route.id, match: matchText(match), lacks: lacks(match, request, exactly) };
  };
  if (!winner) {
    const nearest = fitting.length > 0 ? fitting.map(near) : nearly(table, request, exactly);
    return { lost: [], behind: [], nearest: nearest.slice(0, MOST_NEAREST) };
  }
  const at = fitting.findIndex(([route, match]) => route === winner[0] && match === winner[1]);
  const best = declared(table, winner);
  const hostOf = ({ hosts }: TableRoute) => nearestHost(hosts, request.host, table.listeners?.[listener ?? -1]?.host);
  const lost = fitting.slice(0, Math.max(0, at)).map((candidate) => {
    const one = near(candidate);
    if (one.lacks.length > 0) return one;
    return { ...one, behind: "it answers HEAD by GET alone, and an equally specific path has a route for HEAD" };
  });
  const behind = fitting
    .slice(at + 1)
    .map((candidate) => {
      const { route, match } = declared(table, candidate);
      const host = hostOf(route);
      const wider = host !== hostOf(best.route);
      return { ...near(candidate), behind: wider ? `its host ${host} is less specific` : why(best.match, match) };
    })
    .filter((one) => one.lacks.length === 0 && one.route !== table.routes[winner[0]]?.id)
    .slice(0, MOST_BEHIND);
  return { lost, behind, nearest: [] };
}

/** The narrowest of the hosts that fit, as far as the listener leaves it. */
const nearestHost = (hosts: readonly string[], host: string, listened = "*"): string =>
  hosts
    .flatMap((one) => commonHost(one, listened) ?? [])
    .filter((one) => fitsHost(one, host))
    .reduce((narrow, one) => commonHost(narrow, one) ?? narrow, "*");

const declared = ({ routes }: RouteTable, [at, matchAt]: Candidate) => {
  const route = routes[at] as TableRoute;
  return { route, match: route.matches[matchAt] as TableMatch };
};

/** What keeps a request whose host and path fit from being the match's. */
export function lacks(match: TableMatch, request: MatchRequest, exactly = false): string[] {
  const missing: string[] = [];
  const { methods } = match;
  const byGet = request.method === "HEAD" && !exactly && methods?.includes("GET");
  if (methods && !methods.includes(request.method) && !byGet)
    missing.push(`method is ${request.method}, wants ${methods.join(" or ")}`);
  const conditions = (kind: string, wanted: readonly ValueMatch[] = [], value: (name: string) => string | null) => {
    for (const one of wanted) {
      const fault = faultOf(kind, one, value(one.name));
      if (fault !== undefined) missing.push(`${kind} ${one.name} ${fault}`);
    }
  };
  conditions("header", match.headers, request.header);
  conditions("query", match.query, request.query);
  conditions("cookie", match.cookies, request.cookie);
  return missing;
}

function faultOf(kind: string, { name, exact, regex }: ValueMatch, value: string | null): string | undefined {
  const wants = exact !== undefined ? `, wants "${exact}"` : regex !== undefined ? `, wants /${regex}/` : "";
  if (value === null) return `is absent${wants}`;
  const holds = exact !== undefined ? value === exact : regex === undefined || new RegExp(`^(?:${regex})$`).test(value);
  if (holds) return undefined;
  return `is ${kind !== "query" && isSensitive(name) ? "another" : `"${value}"`}${wants}`;
}

/** Names of headers and cookies whose values let somebody in. */
export const isSensitive = (name: string): boolean =>
  /auth|cookie|key|token|secret|password|session|signature|assertion|debug/i.test(name);

/** `GET /v1/orders/{id} [header x-api-key]` */
export function matchText({ path, methods, headers = [], query = [], cookies = [] }: TableMatch): string {
  const conditions = [
    ...headers.map((one) => `header ${conditionText(one)}`),
    ...query.map((one) => `query ${conditionText(one)}`),
    ...cookies.map((one) => `cookie ${conditionText(one)}`),
  ];
  const where = conditions.length > 0 ? ` [${conditions.join(", ")}]` : "";
  return `${methods?.join("|") ?? "any"} ${pathText(path)}${where}`;
}

const pathText = ({ kind, value }: TableMatch["path"]): string =>
  kind === "prefix" ? `${value.replace(/\/$/, "")}/*` : kind === "regex" ? `/${value}/` : value;

const conditionText = ({ name, exact, regex }: ValueMatch): string =>
  exact !== undefined ? `${name}="${exact}"` : regex !== undefined ? `${name}=/${regex}/` : name;

/** Why the first goes before the second, of two that both fit (match.ts has the order). */
function why(first: TableMatch, second: TableMatch): string {
  if (first.path.kind !== second.path.kind || first.path.value !== second.path.value)
    return `its path ${pathText(second.path)} is less specific`;
  if (first.methods && !second.methods) return "it names no method";
  for (const kind of ["headers", "query", "cookies"] as const) {
    if ((first[kind]?.length ?? 0) > (second[kind]?.length ?? 0))
      return `it asks for fewer ${kind === "query" ? "query parameters" : kind}`;
  }
  return "nothing parts them but their order, or else their ids";
}

/** Matches of the request's host that its path comes near to; then of other hosts, those that it fits. */
function nearly(table: RouteTable, request: MatchRequest, exactly: boolean): NearRoute[] {
  const found: { near: NearRoute; distance: number }[] = [];
  for (const route of table.routes) {
    const host = route.hosts.some((one) => fitsHost(one, request.host));
    for (const match of route.matches) {
      const [fault, distance] = pathFault(match.path, request.path);
      if (fault === undefined ? host : !host) continue;
      const others = lacks(match, request, exactly);
      const hostFault = host ? [] : [`host is ${request.host}, wants ${route.hosts.join(" or ")}`];
      const near = {
        route: route.id,
        match: matchText(match),
        lacks: [...hostFault, ...(fault ? [fault] : []), ...others],
      };
      found.push({ near, distance: distance + others.length + (host ? 0 : 2) });
    }
  }
  return found
    .sort((a, b) => a.distance - b.distance)
    .slice(0, MOST_NEAREST)
    .map(({ near }) => near);
}

export const fitsHost = (declared: string, host: string): boolean =>
  declared === "*" || declared === host || (declared.startsWith("*.") && host.endsWith(declared.slice(1)));

/** What of the path does not fit, and how much; undefined and 0: nothing. */
function pathFault({ kind, value }: TableMatch["path"], path: string): [fault: string | undefined, distance: number] {
  if (kind === "regex")
    return new RegExp(`^(?:${value})$`).test(path) ? [undefined, 0] : [`path does not fit /${value}/`, 3];
  const wanted = segmentsOf(kind === "prefix" ? value.replace(/\/$/, "") : value);
  const there = segmentsOf(path);
  for (const [i, segment] of wanted.entries()) {
    const own = there[i];
    const rest = wanted.length - i;
    if (own === undefined) return [`path ends where ${segment} is wanted`, rest];
    if (isParameter(segment) ? own.length > 1 : own === segment) continue;
    const close = editDistance(own, segment) <= 2 ? 0.5 : 1;
    return [`path has ${own} where ${segment} is wanted`, rest - 1 + close * 2 + (i === 0 ? 1 : 0)];
  }
  if (kind === "exact" && there.length > wanted.length)
    return [`path goes on with ${there.slice(wanted.length).join("")}`, there.length - wanted.length];
  return [undefined, 0];
}
