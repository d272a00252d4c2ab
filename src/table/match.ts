/**
 * Which route answers a request: the index that the build makes of all matches, and the look-up in it. The edge and `explain`
 * run the same look-up.
 *
 * Order of precedence, over all matches of all routes (Gateway API, HTTPRouteRule.matches; what the Gateway API does not know stands
 * in brackets):
 * 1. host: exact, then the longer wildcard, then any; a host whose routes do not match falls through to the next
 * 2. path: exact [a literal segment before a parameter, from the left], then [regex: most literal leading segments, then the
 *    longest pattern], then the longest prefix
 * 3. a method before none, 4. more headers, 5. more query parameters, [6. more cookies], 7. the route's `order` [or else its id in
 *    alphabetical order, never the order of declaration]
 * Where there are listeners, all of this is among the routes of the one listener that the request belongs to (listener.ts).
 *
 * The look-up walks the path's segments once, so its cost does not depend on how many routes there are; only regexes that share
 * their literal leading segments are tried one after the other.
 */
import { commonHost, indexListeners, type ListenerIndex, listenersFor, widerHost } from "./listener.ts";
import type {
  GatewaySettings,
  Routes,
  RouteTable,
  TableListener,
  TableMatch,
  TableRoute,
  ValueMatch,
} from "./table.ts";

export interface MatchIndex {
  /** Distinct trees of paths; hosts with the same routes share one. */
  readonly paths: readonly MatchNode[];
  /** Positions in `paths` by host: `api.example.com`, `*.example.com`, or `*` for any. One such map for each set of listeners. */
  readonly hosts: readonly Readonly<Record<string, number>>[];
  /** Absent: no listeners, and one map of hosts. */
  readonly listeners?: ListenerIndex;
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
  readonly scheme: string;
  /** Of the Host header; undefined: it has none. */
  readonly port?: number | undefined;
  readonly host: string;
  readonly path: string;
  readonly method: string;
  readonly header: (name: string) => string | null;
  /** The parameter's first value, decoded. */
  readonly query: (name: string) => string | null;
  readonly cookie: (name: string) => string | null;
}

/** `listener` is the one that the request belongs to, by its position in the table; absent: the table has none, or none for this host. */
export type MatchResult = (
  | { readonly kind: "route"; readonly route: number; readonly match: number }
  /** The path exists with other methods: those, sorted. */
  | { readonly kind: "method-not-allowed"; readonly allow: readonly string[] }
  | { readonly kind: "not-found" }
) & { readonly listener?: number | undefined };

/** The index over all matches of `routes`, whose positions it holds. */
export function indexMatches(routes: RouteTable["routes"], listeners?: readonly TableListener[]): MatchIndex {
  const paths: MatchNode[] = [];
  const numbers = new Map<string, number>();
  /** By host the tree of the routes among `attached`, where a listener for `host` leaves something of theirs. */
  const treesFor = (attached: (route: TableRoute) => boolean, host: string): Record<string, number> => {
    const byHost = new Map<string, Set<number>>();
    routes.forEach((route, position) => {
      if (!attached(route)) return;
      for (const name of route.hosts) {
        const common = commonHost(name, host);
        if (common === undefined) continue;
        const positions = byHost.get(common);
        if (positions) positions.add(position);
        else byHost.set(common, new Set([position]));
      }
    });
    const numbered = [...byHost].map(([name, positions]) => {
      const key = [...positions].join();
      if (!numbers.has(key)) numbers.set(key, paths.push(treeOf(routes, [...positions])) - 1);
      return [name, numbers.get(key) as number] as const;
    });
    return Object.fromEntries(numbered);
  };
  if (!listeners) return { hosts: [treesFor(() => true, "*")], paths };
  const index = indexListeners(listeners);
  const hosts = index.sets.map((set) => {
    const attached = (route: TableRoute) => !route.listeners || set.some((one) => route.listeners?.includes(one));
    return treesFor(attached, listeners[set[0] as number]?.host ?? "*");
  });
  return { hosts, paths, listeners: index };
}

function treeOf(routes: RouteTable["routes"], positions: readonly number[]): MatchNode {
  const root: MatchNode = {};
  for (const routeAt of positions) {
    routes[routeAt]?.matches.forEach((match, matchAt) => {
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
  const orderOf = ([route]: Candidate) => routes[route]?.order ?? 0;
  const byPrecedence = (a: Candidate, b: Candidate) =>
    compareMatches(matchOf(routes, a), matchOf(routes, b)) || orderOf(a) - orderOf(b) || a[0] - b[0] || a[1] - b[1];
  const sort = (node: MatchNode) => {
    for (const list of [node.e, node.x, node.r]) list?.sort(byPrecedence);
    for (const child of Object.values(node.s ?? {})) sort(child);
    if (node.p) sort(node.p);
  };
  sort(root);
  return root;
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
  // An alternative may start the path differently; such a pattern is tried for every path of its host. Those in groups come after
  // what is read here, which ends before the first group.
  if (hasAlternatives(source)) return "";
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

/** Whether `a|b` stands outside of all groups and classes. */
function hasAlternatives(source: string): boolean {
  let depth = 0;
  for (const [part] of source.matchAll(/\\.|\[(?:\\.|[^\]\\])*\]|[()|]/gs)) {
    if (part === "(") depth++;
    else if (part === ")") depth--;
    else if (part === "|" && depth === 0) return true;
  }
  return false;
}

/**
 * The look-up over one table. Regexes match the whole value; they are compiled when first needed, and kept. What it does not need for
 * itself stands beside it (candidates.ts), as methods of a class are in the bundle whether they are called or not.
 */
export class Matcher {
  readonly routes: Routes;
  readonly index: MatchIndex;
  readonly regexes = new Map<string, RegExp>();
  readonly #exactly: boolean;

  /** With the semantics of the Gateway API no HEAD is answered by a GET route, and no path is told to exist with other methods. */
  constructor(routes: Routes, index: MatchIndex, semantics?: GatewaySettings["semantics"]) {
    this.routes = routes;
    this.index = index;
    this.#exactly = semantics === "gateway-api";
  }

  match(request: MatchRequest): MatchResult {
    const set = setFor(this, request);
    if (set === undefined) return { kind: "not-found" };
    const trees = treesOf(this, set);
    for (let host = request.host; host !== ""; host = widerHost(host)) {
      const tree = treeFor(this, trees, host);
      const found = tree && this.#find(tree, request);
      if (!found) continue;
      return { kind: "route", route: found[0], match: found[1], listener: this.#listenerOf(set, found[0]) };
    }
    const allow = this.#exactly ? [] : this.#allowed(trees, request);
    const listener = this.#listenerOf(set);
    return allow.length > 0 ? { kind: "method-not-allowed", allow, listener } : { kind: "not-found", listener };
  }

  /** Of the listeners of a set the first that has the route. */
  #listenerOf(set: number, route?: number): number | undefined {
    const { index, routes } = this;
    const listeners = index.listeners?.sets[set];
    if (!listeners || listeners.length === 1 || route === undefined) return listeners?.[0];
    return listeners.find((listener) => routes.at(route)?.listeners?.includes(listener) ?? true);
  }

  /** The methods with which the request would have been answered. */
  #allowed(trees: HostTrees, request: MatchRequest): string[] {
    const allow = new Set<string>();
    for (const list of fittingHosts(this, trees, request.host, request.path))
      for (const candidate of list) {
        const match = matchOf(this.routes, candidate);
        if (this.#conditionsHold(match, request)) for (const method of match.methods ?? []) allow.add(method);
      }
    if (allow.has("GET")) allow.add("HEAD");
    return [...allow].sort();
  }

  #find(root: MatchNode, request: MatchRequest): Candidate | undefined {
    // A GET route answers HEAD (RFC 9110, 9.3.2), unless an equally specific path has a route for HEAD itself.
    const headByGet = request.method === "HEAD" && !this.#exactly;
    for (const list of fitting(this, root, request.path)) {
      let byGet: Candidate | undefined;
      for (const candidate of list) {
        const match = matchOf(this.routes, candidate);
        const has = match.methods === undefined || match.methods.includes(request.method);
        if (!has && !(headByGet && !byGet && match.methods?.includes("GET"))) continue;
        if (!this.#conditionsHold(match, request)) continue;
        if (has) return candidate;
        byGet = candidate;
      }
      if (byGet) return byGet;
    }
    return undefined;
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
    return wanted.regex === undefined || regexFor(this, wanted.regex).test(value);
  }
}

/** By host a position in the index's trees of paths. */
export type HostTrees = Readonly<Record<string, number>>;

/** Position of the listeners that the request belongs to, and of their hosts; undefined: there are none. */
export const setFor = (
  { index: { listeners } }: Matcher,
  request: Pick<MatchRequest, "scheme" | "port" | "host">,
): number | undefined => (listeners ? listenersFor(listeners, request) : 0);

export const treesOf = ({ index }: Matcher, set: number): HostTrees => index.hosts[set] as HostTrees;

const treeFor = ({ index }: Matcher, trees: HostTrees, host: string): MatchNode | undefined =>
  Object.hasOwn(trees, host) ? index.paths[trees[host] as number] : undefined;

/** Every candidate whose host and path fit, best first, in lists of the equally specific. */
export function* fittingHosts(matcher: Matcher, trees: HostTrees, asked: string, path: string): Generator<Candidate[]> {
  for (let host = asked; host !== ""; host = widerHost(host)) {
    const tree = treeFor(matcher, trees, host);
    if (tree) yield* fitting(matcher, tree, path);
  }
}

/** Lists of candidates by path, the most specific path first. */
function fitting(matcher: Matcher, root: MatchNode, path: string): Candidate[][] {
  const walk: Walk = { exact: [], prefix: [] };
  descend(root, path, 0, 0, walk);
  const lists = walk.exact;
  for (const { list } of walk.regex?.sort(deepestFirst) ?? []) {
    // Patterns of one length are equally specific; a longer one without a method goes before a shorter one with a method.
    let length = -1;
    for (const candidate of list) {
      const { value } = matchOf(matcher.routes, candidate).path;
      if (!regexFor(matcher, value).test(path)) continue;
      if (value.length === length) lists.at(-1)?.push(candidate);
      else lists.push([candidate]);
      length = value.length;
    }
  }
  if (walk.prefix.length > 1) walk.prefix.sort(deepestFirst);
  for (const { list } of walk.prefix) lists.push(list);
  return lists;
}

function regexFor({ regexes }: Matcher, source: string): RegExp {
  let regex = regexes.get(source);
  if (!regex) {
    regex = new RegExp(`^(?:${source})$`);
    regexes.set(source, regex);
  }
  return regex;
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
  readonly exact: Candidate[][];
  regex?: { depth: number; list: Candidate[] }[];
  readonly prefix: { depth: number; list: Candidate[] }[];
}

// Stable, so that on one depth the order of descent stays: literal segments before parameters.
const deepestFirst = (a: { depth: number }, b: { depth: number }) => b.depth - a.depth;

function descend(from: MatchNode, path: string, start: number, above: number, walk: Walk): void {
  let node: MatchNode | undefined = from;
  for (let at = start, depth = above; node; depth++) {
    if (node.r) (walk.regex ??= []).push({ depth, list: node.r });
    if (node.x) walk.prefix.push({ depth, list: node.x });
    if (at >= path.length) {
      if (node.e) walk.exact.push(node.e);
      return;
    }
    const next = path.indexOf("/", at + 1);
    const to = next === -1 ? path.length : next;
    const segment = path.slice(at, to);
    const literal: MatchNode | undefined = node.s?.[segment];
    const parameter: MatchNode | undefined = to - at > 1 ? node.p : undefined;
    if (literal && parameter) descend(literal, path, to, depth + 1, walk);
    node = parameter ?? literal;
    at = to;
  }
}

const matchOf = (routes: Routes, [route, match]: Candidate): TableMatch =>
  (routes.at(route) as TableRoute).matches[match] as TableMatch;
