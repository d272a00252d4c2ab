/**
 * Which route answers a request: the index that the build makes of all matches, and the look-up in it. The edge and `explain`
 * run the same look-up.
 *
 * Order of precedence, over all matches of all routes, never by declaration order (Gateway API, HTTPRouteRule.matches; what the
 * Gateway API does not know stands in brackets):
 * 1. host: exact, then the longer wildcard, then any; a host whose routes do not match falls through to the next
 * 2. path: exact [a literal segment before a parameter, from the left], then [regex: most literal leading segments, then the
 *    longest pattern], then the longest prefix
 * 3. a method before none, 4. more headers, 5. more query parameters, [6. more cookies], 7. the route's id in alphabetical order
 *
 * The look-up walks the path's segments once, so its cost does not depend on how many routes there are; only regexes that share
 * their literal leading segments are tried one after the other.
 */
import type { RouteTable, TableMatch, ValueMatch } from "./table.ts";

export interface MatchIndex {
  /** By host: `api.example.com`, `*.example.com`, or `*` for any. */
  readonly hosts: Readonly<Record<string, MatchNode>>;
}

/** Keys are short, since 10,000 routes make 10,000 of them in the bundle. */
export interface MatchNode {
  /** Children by literal segment. Keys begin with the slash, so none of them can name a property of Object.prototype. */
  s?: Record<string, MatchNode>;
  /** The child that any one non-empty segment reaches. */
  p?: MatchNode;
  /** Matches whose path ends here, best first. */
  e?: Candidate[];
  /** Prefix matches that end here, best first. */
  x?: Candidate[];
  /** Regex matches whose literal leading segments end here, best first. */
  r?: Candidate[];
}

/** A position in the table's routes, and one in that route's matches. */
export type Candidate = readonly [route: number, match: number];

/** What of a request decides its route. `host` is in lower case and without port, `path` is normal (path.ts). */
export interface MatchRequest {
  readonly host: string;
  readonly path: string;
  readonly method: string;
  readonly header: (name: string) => string | null;
  /** The parameter's first value, decoded. */
  readonly query: (name: string) => string | null;
  readonly cookie: (name: string) => string | null;
}

export type MatchResult =
  | { readonly kind: "route"; readonly route: number; readonly match: number }
  /** The path exists with other methods: those, sorted. */
  | { readonly kind: "method-not-allowed"; readonly allow: readonly string[] }
  | { readonly kind: "not-found" };

/** The index over all matches of `routes`, whose positions it holds. */
export function indexMatches(routes: RouteTable["routes"]): MatchIndex {
  const hosts: Record<string, MatchNode> = {};
  routes.forEach((route, routeAt) => {
    for (const host of route.hosts) {
      const root = (hosts[host] ??= {});
      route.matches.forEach((match, matchAt) => {
        const kind = match.path.kind;
        const literal = kind === "regex" ? literalPrefix(match.path.value) : match.path.value;
        let node = root;
        for (const segment of segmentsOf(kind === "exact" ? literal : literal.replace(/\/$/, ""))) {
          if (isParameter(segment)) node = node.p ??= {};
          else node = (node.s ??= {})[segment] ??= {};
        }
        (node[kind === "exact" ? "e" : kind === "prefix" ? "x" : "r"] ??= []).push([routeAt, matchAt]);
      });
    }
  });
  const byPrecedence = (a: Candidate, b: Candidate) =>
    compareMatches(matchOf(routes, a), matchOf(routes, b)) || a[0] - b[0] || a[1] - b[1];
  const sort = (node: MatchNode) => {
    for (const list of [node.e, node.x, node.r]) list?.sort(byPrecedence);
    for (const child of Object.values(node.s ?? {})) sort(child);
    if (node.p) sort(node.p);
  };
  for (const root of Object.values(hosts)) sort(root);
  return { hosts };
}

/** Negative: `a` comes first. Compares what is left to compare between matches of equally specific hosts and paths. */
export function compareMatches(a: TableMatch, b: TableMatch): number {
  const pattern = a.path.kind === "regex" && b.path.kind === "regex" ? b.path.value.length - a.path.value.length : 0;
  return (
    pattern ||
    Number(b.methods !== undefined) - Number(a.methods !== undefined) ||
    count(b.headers) - count(a.headers) ||
    count(b.query) - count(a.query) ||
    count(b.cookies) - count(a.cookies)
  );
}

const count = (conditions: readonly ValueMatch[] = []): number => conditions.length;

/** `/a/{b}` as `["/a", "/{b}"]`; a trailing slash is a last segment `/`. */
export function segmentsOf(path: string): string[] {
  return path === "" ? [] : (path.match(/\/[^/]*/g) ?? []);
}

/** Whether a declared segment, slash included, is a parameter: `/{name}`. */
export const isParameter = (segment: string): boolean => segment.startsWith("/{") && segment.endsWith("}");

/** The whole segments with which every path that a regex matches begins; "" when there are none. */
export function literalPrefix(pattern: string): string {
  const source = pattern.replace(/^\^/, "");
  // An alternative at any depth may start the path differently; such a pattern is tried for every path of its host.
  if (source.includes("|")) return "";
  let literal = "";
  for (let i = 0; i < source.length; ) {
    const escaped = /^\\([/\-._~])/.exec(source.slice(i, i + 2));
    const plain = /^[A-Za-z0-9/\-_~@!&=:,;%']/.exec(source.slice(i, i + 1));
    const taken = escaped ?? plain;
    if (!taken) break;
    const next = source[i + taken[0].length];
    if (next === "*" || next === "?" || next === "+" || next === "{") break;
    literal += escaped ? escaped[1] : taken[0];
    i += taken[0].length;
  }
  return literal.startsWith("/") ? literal.slice(0, literal.lastIndexOf("/")) : "";
}

/** The look-up over one table. Regexes match the whole value; they are compiled when first needed, and kept. */
export class Matcher {
  readonly #routes: RouteTable["routes"];
  readonly #index: MatchIndex;
  readonly #regexes = new Map<string, RegExp>();

  constructor(routes: RouteTable["routes"], index: MatchIndex) {
    this.#routes = routes;
    this.#index = index;
  }

  match(request: MatchRequest): MatchResult {
    const allow = new Set<string>();
    for (const host of hostsFor(request.host)) {
      const root = Object.hasOwn(this.#index.hosts, host) ? this.#index.hosts[host] : undefined;
      if (root === undefined) continue;
      const found = this.#find(root, request, allow);
      if (found) return { kind: "route", route: found[0], match: found[1] };
    }
    if (allow.size === 0) return { kind: "not-found" };
    if (allow.has("GET")) allow.add("HEAD");
    return { kind: "method-not-allowed", allow: [...allow].sort() };
  }

  /** Every candidate whose host and path fit, best first: what `explain` goes through. */
  candidates(host: string, path: string): Candidate[] {
    const all: Candidate[] = [];
    for (const name of hostsFor(host)) {
      if (!Object.hasOwn(this.#index.hosts, name)) continue;
      for (const list of this.#fitting(this.#index.hosts[name] as MatchNode, path)) all.push(...list);
    }
    return all;
  }

  #find(root: MatchNode, request: MatchRequest, allow: Set<string>): Candidate | undefined {
    for (const list of this.#fitting(root, request.path)) {
      let byGet: Candidate | undefined;
      for (const candidate of list) {
        const match = matchOf(this.#routes, candidate);
        if (!this.#conditionsHold(match, request)) continue;
        if (match.methods === undefined || match.methods.includes(request.method)) return candidate;
        // A GET route answers HEAD (RFC 9110, 9.3.2), unless an equally specific path has a route for HEAD itself.
        if (request.method === "HEAD" && match.methods.includes("GET")) byGet ??= candidate;
        for (const method of match.methods) allow.add(method);
      }
      if (byGet) return byGet;
    }
    return undefined;
  }

  /** Lists of candidates by path, the most specific path first. */
  #fitting(root: MatchNode, path: string): Candidate[][] {
    const walk: Walk = { exact: [], regex: [], prefix: [] };
    descend(root, path, 0, 0, walk);
    walk.regex.sort(deepestFirst);
    walk.prefix.sort(deepestFirst);
    const lists = walk.exact;
    for (const { list } of walk.regex) {
      // Patterns of one length are equally specific; a longer one without a method goes before a shorter one with a method.
      let length = -1;
      for (const candidate of list) {
        const { value } = matchOf(this.#routes, candidate).path;
        if (!this.#regex(value).test(path)) continue;
        if (value.length === length) lists.at(-1)?.push(candidate);
        else lists.push([candidate]);
        length = value.length;
      }
    }
    for (const { list } of walk.prefix) lists.push(list);
    return lists;
  }

  #conditionsHold(match: TableMatch, request: MatchRequest): boolean {
    return (
      this.#allHold(match.headers, request.header) &&
      this.#allHold(match.query, request.query) &&
      this.#allHold(match.cookies, request.cookie)
    );
  }

  #allHold(conditions: readonly ValueMatch[] | undefined, value: (name: string) => string | null): boolean {
    return conditions === undefined || conditions.every((wanted) => this.#holds(wanted, value(wanted.name)));
  }

  #holds(wanted: ValueMatch, value: string | null): boolean {
    if (value === null) return false;
    if (wanted.exact !== undefined) return value === wanted.exact;
    return wanted.regex === undefined || this.#regex(wanted.regex).test(value);
  }

  #regex(source: string): RegExp {
    let regex = this.#regexes.get(source);
    if (!regex) {
      regex = new RegExp(`^(?:${source})$`);
      this.#regexes.set(source, regex);
    }
    return regex;
  }
}

/** The values of the parameters in a declared path, such as `/orders/{id}`, for a path that it matches; percent-decoded. */
export function parametersOf(declared: string, path: string): Record<string, string> {
  const parameters: Record<string, string> = Object.create(null);
  const values = segmentsOf(path);
  segmentsOf(declared).forEach((segment, i) => {
    if (isParameter(segment)) parameters[segment.slice(2, -1)] = decodeURIComponent((values[i] ?? "/").slice(1));
  });
  return parameters;
}

interface Walk {
  exact: Candidate[][];
  regex: { depth: number; list: Candidate[] }[];
  prefix: { depth: number; list: Candidate[] }[];
}

// Stable, so that on one depth the order of descent stays: literal segments before parameters.
const deepestFirst = (a: { depth: number }, b: { depth: number }) => b.depth - a.depth;

function descend(node: MatchNode, path: string, from: number, depth: number, walk: Walk): void {
  if (node.r) walk.regex.push({ depth, list: node.r });
  if (node.x) walk.prefix.push({ depth, list: node.x });
  if (from >= path.length) {
    if (node.e) walk.exact.push(node.e);
    return;
  }
  const next = path.indexOf("/", from + 1);
  const to = next === -1 ? path.length : next;
  const segment = path.slice(from, to);
  const literal = node.s?.[segment];
  if (literal) descend(literal, path, to, depth + 1, walk);
  if (node.p && segment.length > 1) descend(node.p, path, to, depth + 1, walk);
}

const matchOf = (routes: RouteTable["routes"], [route, match]: Candidate): TableMatch =>
  (routes[route] as RouteTable["routes"][number]).matches[match] as TableMatch;

/** `a.b.c`, `*.b.c`, `*.c`, `*`: a wildcard stands for one or more labels (Gateway API, Hostname). */
function* hostsFor(host: string): Generator<string> {
  if (host !== "*" && !host.startsWith("*.")) yield host;
  for (let dot = host.indexOf("."); dot !== -1; dot = host.indexOf(".", dot + 1)) yield `*${host.slice(dot)}`;
  yield "*";
}
