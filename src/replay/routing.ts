/**
 * Which routes two tables have for a request of which not everything is known. Conditions on what the log does not tell are taken both
 * ways, the same way for both tables, as far as that agrees with the route that the log says has answered.
 */
import { portOf, type RequestTarget, readTarget } from "../edge/request-target.ts";
import { candidatesFor } from "../table/candidates.ts";
import { type Candidate, indexMatches, Matcher } from "../table/match.ts";
import { askedMethod, knowsCors } from "../table/preflight.ts";
import type { RouteTable, TableMatch, TableRoute, ValueMatch } from "../table/table.ts";
import type { Known, LoggedRequest } from "./logged.ts";

/** A route, or why there is none: `404`, `405`, or the code of a refusal. */
export type Routed = TableRoute | string;

export interface RoutedBoth {
  readonly old: Routed;
  readonly new: Routed;
  /** False: whether it is so depends on what the log does not tell. */
  readonly certain: boolean;
}

/** More unknown conditions than these at one request are not taken apart. */
const MOST_UNKNOWN = 6;

export class Router {
  readonly table: RouteTable;
  readonly #matcher: Matcher;
  readonly #exactly: boolean;

  constructor(table: RouteTable) {
    this.table = table;
    this.#matcher = new Matcher(table.routes, indexMatches(table.routes, table.listeners));
    this.#exactly = table.gateway.semantics === "gateway-api";
  }

  /** Whether the other one makes the same of every URL. */
  spells({ table: { gateway } }: Router): boolean {
    return gateway.maxUrl === this.table.gateway.maxUrl && gateway.escapedSlashes === this.table.gateway.escapedSlashes;
  }

  target({ url, record }: LoggedRequest): RequestTarget | string {
    // Of a record path and host are normal already; a path that was refused is told as it came.
    const target = readTarget(url, this.table.gateway.maxUrl, this.table.gateway);
    if ("refused" in target) return record?.reason ?? target.refused;
    return target;
  }

  candidates(target: RequestTarget, { record }: LoggedRequest): Candidate[][] {
    const { host, path, scheme } = target;
    if (!record) return candidatesFor(this.#matcher, { host, path, scheme, port: portOf(target) });
    // A record tells of scheme and port by the listener alone.
    const listener = this.table.listeners?.find(({ name }) => name === record.listener);
    const entrance = { scheme: listener?.protocol ?? scheme, port: listener?.port };
    return candidatesFor(this.#matcher, { host, path, ...entrance });
  }

  matchOf([route, match]: Candidate): TableMatch {
    return this.table.routes[route]?.matches[match] as TableMatch;
  }

  /** The route that answers a preflight which asks about requests with that method; undefined: none does. */
  preflight(
    lists: readonly Candidate[][],
    method: string,
    holds: (match: TableMatch) => boolean,
  ): TableRoute | undefined {
    const found = this.choose(lists, method, holds);
    return typeof found !== "string" && knowsCors(this.table, found) ? found : undefined;
  }

  /** The matcher's choice among `lists`, by `holds`. */
  choose(lists: readonly Candidate[][], method: string, holds: (match: TableMatch) => boolean): Routed {
    const headByGet = method === "HEAD" && !this.#exactly;
    let otherMethods = false;
    for (const list of lists) {
      let byGet: Candidate | undefined;
      for (const candidate of list) {
        const match = this.matchOf(candidate);
        const has = match.methods === undefined || match.methods.includes(method);
        const get = headByGet && !byGet && match.methods?.includes("GET") === true;
        if (!has && !get) {
          otherMethods ||= !this.#exactly && holds(match);
          continue;
        }
        if (!holds(match)) continue;
        if (has) return this.table.routes[candidate[0]] as TableRoute;
        byGet = candidate;
      }
      if (byGet) return this.table.routes[byGet[0]] as TableRoute;
    }
    return otherMethods ? "405" : "404";
  }
}

export function routeBoth(before: Router, after: Router, request: LoggedRequest): RoutedBoth {
  const old = before.target(request);
  const fresh = before.spells(after) ? old : after.target(request);
  if (typeof old === "string" || typeof fresh === "string") {
    const routed = (router: Router, target: RequestTarget | string) =>
      typeof target === "string" ? target : routeBoth(router, router, request).old;
    return { old: routed(before, old), new: routed(after, fresh), certain: true };
  }
  const [mine, theirs] = [before.candidates(old, request), after.candidates(fresh, request)];
  const unknown = unknownOf(before, mine, request, unknownOf(after, theirs, request, new Map()));
  const decide: Decide = (taken) => {
    const holds = (match: TableMatch) => allHold(match, request, unknown, taken);
    const about = askedMethods(request, before, mine).find(
      (method) => request.record === undefined || before.preflight(mine, method, holds)?.id === request.record.route,
    );
    const routed = (router: Router, lists: readonly Candidate[][]) =>
      (about !== undefined && router.preflight(lists, about, holds)) || router.choose(lists, request.method, holds);
    return { old: routed(before, mine), new: routed(after, theirs), certain: true };
  };
  if (unknown.size === 0) return decide(() => false);
  const recorded = recordedRoute(request);
  if (unknown.size <= MOST_UNKNOWN) return worstOf(unknown.size, decide, recorded);
  const none = decide(() => false);
  if (recorded === undefined || nameOf(none.old) === recorded) return { ...none, certain: false };
  // Too many to take apart: as few of them as agree with what the record says, those of one match at most.
  for (const candidate of mine.flat()) {
    const own = unknownOf(before, [[candidate]], request, new Map());
    const held = new Set([...own.keys()].map((key) => unknown.get(key)));
    const both = decide((number) => held.has(number));
    if (nameOf(both.old) === recorded) return { ...both, certain: false };
  }
  return { ...none, certain: false };
}

/** Who answers where those of the unknown conditions hold that are `taken`, by their numbers. */
type Decide = (taken: (number: number) => boolean) => RoutedBoth;

/**
 * The method that a preflight asks about; several where only the record tells that it was one: any that its route takes may have been
 * asked about. None: the request is no preflight, as far as is known.
 */
function askedMethods(request: LoggedRequest, router: Router, lists: readonly Candidate[][]): readonly string[] {
  const { method, header, record } = request;
  if (record) {
    if (method !== "OPTIONS" || record.reason !== "preflight") return [];
    const named = lists.flat().flatMap((candidate) => router.matchOf(candidate).methods ?? []);
    return [...new Set(["GET", "POST", ...named])];
  }
  const asked = askedMethod({ method, header: (name) => header(name) ?? null });
  return asked === null ? [] : [asked];
}

/** Of all that may be: one that changes the route, if there is any. */
function worstOf(unknown: number, decide: Decide, recorded: string | undefined): RoutedBoth {
  let [changed, same]: (RoutedBoth | undefined)[] = [];
  for (let taken = 0; taken < 2 ** unknown; taken++) {
    const both = decide((number) => (taken & (1 << number)) !== 0);
    if (recorded !== undefined && nameOf(both.old) !== recorded) continue;
    if (nameOf(both.old) === nameOf(both.new)) same ??= both;
    else changed ??= both;
  }
  // The log is of another table than the old one: what it says of the route excludes nothing.
  if (!changed && !same) return worstOf(unknown, decide, undefined);
  return { ...((changed ?? same) as RoutedBoth), certain: !changed || !same };
}

export const nameOf = (routed: Routed): string => (typeof routed === "string" ? routed : routed.id);

function recordedRoute({ record }: LoggedRequest): string | undefined {
  if (!record) return undefined;
  if (record.route !== undefined) return record.route;
  if (record.reason === "not-found") return "404";
  // To OPTIONS the gateway tells the methods.
  return record.reason === "method-not-allowed" || record.reason === "options" ? "405" : undefined;
}

type Kind = "header" | "query" | "cookie";

const KINDS = [
  ["headers", "header"],
  ["query", "query"],
  ["cookies", "cookie"],
] as const;

/** The number of each condition that the log says nothing of. */
function unknownOf(
  router: Router,
  lists: readonly Candidate[][],
  request: LoggedRequest,
  unknown: Map<string, number>,
): Map<string, number> {
  for (const candidate of lists.flat()) {
    const match = router.matchOf(candidate);
    for (const [list, kind] of KINDS)
      for (const wanted of match[list] ?? [])
        if (loggedValue(request, kind, wanted) === undefined) {
          const key = keyOf(kind, wanted);
          if (!unknown.has(key)) unknown.set(key, unknown.size);
        }
  }
  return unknown;
}

function allHold(
  match: TableMatch,
  request: LoggedRequest,
  unknown: ReadonlyMap<string, number>,
  taken: (number: number) => boolean,
): boolean {
  if (!match.headers && !match.query && !match.cookies) return true;
  return KINDS.every(([list, kind]) =>
    (match[list] ?? []).every((wanted) => {
      const value = loggedValue(request, kind, wanted);
      if (value === undefined) return taken(unknown.get(keyOf(kind, wanted)) ?? 0);
      return value !== null && satisfies(wanted, value);
    }),
  );
}

const loggedValue = (request: LoggedRequest, kind: Kind, { name }: ValueMatch): Known => request[kind](name);

const keyOf = (kind: Kind, { name, exact, regex }: ValueMatch): string =>
  `${kind} ${name} ${exact !== undefined ? `= ${exact}` : (regex ?? "")}`;

const regexes = new Map<string, RegExp>();

function satisfies({ exact, regex }: ValueMatch, value: string): boolean {
  if (exact !== undefined) return value === exact;
  if (regex === undefined) return true;
  let made = regexes.get(regex);
  if (!made) regexes.set(regex, (made = new RegExp(`^(?:${regex})$`)));
  return made.test(value);
}
