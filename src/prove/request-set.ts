/**
 * Sets of requests, in the terms in which a table matches them: where they come in, host, path, method, headers, query and cookies.
 * A set is a union of terms, each of them what is in all of some boxes and in none of others; so intersection and difference are
 * bookkeeping, and the work is to find a request that is in a set, or that there is none.
 *
 * The answer is exact where it is `empty` or a request, and else a doubt: a regex is beyond automata, or the search too long.
 */
import { commonHost } from "../table/listener.ts";
import type { MatchRequest } from "../table/match.ts";
import type { GatewaySettings, PathMatch } from "../table/table.ts";
import type { Doubt } from "./doubt.ts";
import { hasPath, pathIn } from "./path-set.ts";
import { type Condition, hasValue, type Part, valueIn } from "./value-set.ts";

/** Requests that have all that is given; what is absent may be anything. */
export interface Box {
  /** A place of the listener index (table/listener.ts), such as `https` or `http:8080`. */
  readonly place?: string;
  /** A name, `*.` and a name for one or more labels in front of it, or `*`. */
  readonly host?: string;
  readonly path?: PathMatch;
  readonly methods?: readonly string[];
  readonly conditions?: readonly Condition[];
}

/** What is in every box of `all` and in no box of `none`. */
export interface Term {
  readonly all: readonly Box[];
  readonly none: readonly Box[];
}

/** The union of its terms. */
export type RequestSet = readonly Term[];

/** What there is to choose from, where that is finite. */
export interface Universe {
  readonly methods: readonly string[];
  /** Without listeners there is one place, `https`. */
  readonly places: readonly string[];
  readonly escapedSlashes: GatewaySettings["escapedSlashes"];
}

/** A request, as far as routes tell requests apart. */
export interface ExampleRequest {
  readonly place: string;
  readonly host: string;
  readonly path: string;
  readonly method: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly query: Readonly<Record<string, string>>;
  readonly cookies: Readonly<Record<string, string>>;
}

export type Found = ExampleRequest | "empty" | Doubt;

export const setOf = (...boxes: readonly Box[]): RequestSet => boxes.map((box) => ({ all: [box], none: [] }));

export const intersection = (a: RequestSet, b: RequestSet): RequestSet =>
  a
    .flatMap((one) => b.map((other) => ({ all: [...one.all, ...other.all], none: [...one.none, ...other.none] })))
    .filter((term) => !isPlainlyEmpty(term));

/** By place and host alone: else a difference of sets behind many listeners would have more terms than there is memory. */
function isPlainlyEmpty({ all, none }: Term): boolean {
  const places = new Set(all.flatMap(({ place }) => place ?? []));
  if (places.size > 1) return true;
  let narrowest = "*";
  for (const { host } of all) {
    const common = host === undefined ? narrowest : commonHost(narrowest, host);
    if (common === undefined) return true;
    narrowest = common;
  }
  return none.some(
    ({ place, host, path, methods, conditions }) =>
      !path &&
      !methods &&
      !conditions &&
      (place === undefined || places.has(place)) &&
      (host === undefined || commonHost(narrowest, host) === narrowest),
  );
}

export function difference(a: RequestSet, b: RequestSet): RequestSet {
  let left = a;
  for (const { all, none } of b) {
    // Of what is in all boxes but none of the others, outside is: out of one of the former, or in one of the latter.
    const outside = [...all.map((box) => ({ all: [], none: [box] })), ...none.map((box) => ({ all: [box], none: [] }))];
    left = intersection(left, outside);
  }
  return left;
}

/** A request of the set. */
export function exampleOf(set: RequestSet, universe: Universe): Found {
  let doubt: Doubt | undefined;
  for (const term of set) {
    const found = inTerm(term, universe);
    if (typeof found === "object") return found;
    if (found !== "empty") doubt ??= found;
  }
  return doubt ?? "empty";
}

export const has = (set: RequestSet, request: ExampleRequest): boolean =>
  set.some(({ all, none }) => all.every((box) => inBox(box, request)) && !none.some((box) => inBox(box, request)));

export function inBox({ place, host, path, methods, conditions = [] }: Box, request: ExampleRequest): boolean {
  return (
    (place === undefined || place === request.place) &&
    (host === undefined || commonHost(request.host, host) === request.host) &&
    (methods === undefined || methods.includes(request.method)) &&
    (path === undefined || hasPath(path, request.path)) &&
    conditions.every((one) => hasValue(one, sentValue(request, one.of, one.name)))
  );
}

const MEMBERS = { header: "headers", query: "query", cookie: "cookies" } as const;

function sentValue(request: ExampleRequest, of: Part, name: string): string | null {
  const values = request[MEMBERS[of]];
  return Object.hasOwn(values, name) ? (values[name] as string) : null;
}

/** What the matcher is asked for such a request. */
export function matchRequestOf(example: ExampleRequest): MatchRequest {
  const [scheme = "https", port] = example.place.split(":");
  return {
    scheme,
    ...(port !== undefined && { port: Number(port) }),
    host: example.host,
    path: example.path,
    method: example.method,
    header: (name) => sentValue(example, "header", name),
    query: (name) => sentValue(example, "query", name),
    cookie: (name) => sentValue(example, "cookie", name),
  };
}

/** Branches of one search. An ordinary one has fewer than ten. */
const MOST_BRANCHES = 2_000;

/** Each dimension by itself: what must hold, what must not, and a value for which it is so. */
interface Constraint {
  readonly places: readonly string[];
  readonly hosts: Sides<string>;
  readonly paths: Sides<PathMatch>;
  readonly methods: readonly string[];
  readonly values: ReadonlyMap<string, Sides<Condition>>;
  readonly example: ExampleRequest;
}

interface Sides<Value> {
  readonly in: readonly Value[];
  readonly out: readonly Value[];
}

/**
 * Takes a request that is in all boxes of the term; if it is in one that it must not be in, it has to leave that one in some dimension,
 * and the search goes on with each of them.
 */
function inTerm({ all, none }: Term, universe: Universe): Found {
  let branches = 0;
  let doubt: Doubt | undefined;
  const search = (constraint: Constraint | "empty" | Doubt): ExampleRequest | undefined => {
    if (typeof constraint !== "object") {
      if (constraint !== "empty") doubt ??= constraint;
      return undefined;
    }
    if (++branches > MOST_BRANCHES) {
      doubt ??= "search";
      return undefined;
    }
    const box = none.find((one) => inBox(one, constraint.example));
    if (!box) return constraint.example;
    for (const leaving of waysOut(box)) {
      const found = search(leaving(constraint, universe));
      if (found) return found;
      if (branches > MOST_BRANCHES) return undefined;
    }
    return undefined;
  };
  const found = search(constrained(all, universe));
  return found ?? doubt ?? "empty";
}

type Leave = (constraint: Constraint, universe: Universe) => Constraint | "empty" | Doubt;

/** The dimensions in which a request may be outside of the box. */
function waysOut({ place, host, path, methods, conditions = [] }: Box): Leave[] {
  return [
    ...(path ? [(from: Constraint, universe: Universe) => withPath(from, out(from.paths, path), universe)] : []),
    ...(methods
      ? [
          (from: Constraint) =>
            withMethods(
              from,
              from.methods.filter((one) => !methods.includes(one)),
            ),
        ]
      : []),
    ...conditions.map((one) => (from: Constraint) => {
      const key = `${one.of} ${one.name}`;
      return withValue(from, one, out(from.values.get(key) ?? NEITHER, one));
    }),
    ...(host !== undefined && host !== "*" ? [(from: Constraint) => withHost(from, out(from.hosts, host))] : []),
    ...(place !== undefined
      ? [
          (from: Constraint) =>
            withPlaces(
              from,
              from.places.filter((one) => one !== place),
            ),
        ]
      : []),
  ];
}

const NEITHER = { in: [], out: [] } as const;
const out = <Value>(sides: Sides<Value>, value: Value): Sides<Value> => ({ in: sides.in, out: [...sides.out, value] });

const NOTHING: ExampleRequest = { place: "", host: "", path: "", method: "", headers: {}, query: {}, cookies: {} };

function constrained(boxes: readonly Box[], universe: Universe): Constraint | "empty" | Doubt {
  const places = boxes.flatMap(({ place }) => place ?? []);
  const hosts = boxes.flatMap(({ host }) => host ?? []);
  const paths = boxes.flatMap(({ path }) => path ?? []);
  const methods = boxes.flatMap(({ methods }) => (methods ? [methods] : []));
  const values = Map.groupBy(
    boxes.flatMap(({ conditions = [] }) => conditions),
    ({ of, name }) => `${of} ${name}`,
  );
  // A header and what is read out of it are not free of each other; so much the search does not know.
  if (values.has("header cookie") && [...values.keys()].some((key) => key.startsWith("cookie ")))
    return "cookie-header";
  if (values.has("header host")) return "host-header";
  const start: Constraint = {
    places: [],
    hosts: NEITHER,
    paths: NEITHER,
    methods: [],
    values: new Map(),
    example: NOTHING,
  };
  const steps: ((from: Constraint) => Constraint | "empty" | Doubt)[] = [
    (from) =>
      withPlaces(
        from,
        universe.places.filter((one) => places.every((place) => place === one)),
      ),
    (from) => withHost(from, { in: hosts, out: [] }),
    (from) =>
      withMethods(
        from,
        universe.methods.filter((one) => methods.every((list) => list.includes(one))),
      ),
    (from) => withPath(from, { in: paths, out: [] }, universe),
    ...[...values.values()].map(
      (conditions) => (from: Constraint) => withValue(from, conditions[0] as Condition, { in: conditions, out: [] }),
    ),
  ];
  let constraint = start;
  let doubt: Doubt | undefined;
  for (const step of steps) {
    const next = step(constraint);
    if (next === "empty") return "empty";
    if (typeof next === "string") doubt ??= next;
    else constraint = next;
  }
  return doubt ?? constraint;
}

function withPlaces(from: Constraint, places: readonly string[]): Constraint | "empty" {
  const [place] = places;
  return place === undefined ? "empty" : { ...from, places, example: { ...from.example, place } };
}

function withMethods(from: Constraint, methods: readonly string[]): Constraint | "empty" {
  const [method] = methods;
  return method === undefined ? "empty" : { ...from, methods, example: { ...from.example, method } };
}

function withHost(from: Constraint, hosts: Sides<string>): Constraint | "empty" {
  const host = hostIn(hosts);
  return host === undefined ? "empty" : { ...from, hosts, example: { ...from.example, host } };
}

function withPath(from: Constraint, paths: Sides<PathMatch>, universe: Universe): Constraint | "empty" | Doubt {
  const found = pathIn(paths.in, paths.out, universe.escapedSlashes);
  if (typeof found === "string") return found;
  return { ...from, paths, example: { ...from.example, path: found.found } };
}

function withValue(from: Constraint, { of, name }: Condition, sides: Sides<Condition>): Constraint | "empty" | Doubt {
  const value = valueIn(of, sides.in, sides.out);
  if (typeof value === "string") return value;
  const values = new Map(from.values).set(`${of} ${name}`, sides);
  const member = MEMBERS[of];
  const { [name]: _, ...others } = from.example[member];
  const given = value.found === null ? others : { ...others, [name]: value.found };
  return { ...from, values, example: { ...from.example, [member]: given } };
}

/** Hosts nest or have nothing in common, so all is decided by the narrowest; and no finite number of narrower ones fills a wildcard. */
function hostIn({ in: within, out: without }: Sides<string>): string | undefined {
  let narrowest = "*";
  for (const host of within) {
    const common = commonHost(narrowest, host);
    if (common === undefined) return undefined;
    narrowest = common;
  }
  const isOut = (host: string) => without.some((one) => commonHost(host, one) === host);
  if (isOut(narrowest)) return undefined;
  if (!narrowest.startsWith("*")) return narrowest;
  const behind = narrowest === "*" ? ".example" : narrowest.slice(1);
  for (let i = 0; ; i++) {
    const label = i === 0 ? "x" : `x${i}`;
    const host = narrowest === "*" && i > 0 ? `${label}${behind}${i}` : `${label}${behind}`;
    if (!isOut(host)) return host;
  }
}

/** As one would ask for it by hand: `POST https://api.example.com/v1/orders?a=1 -H "x-beta: 1"`. */
export function shownRequest({ place, host, path, method, headers, query, cookies }: ExampleRequest): string {
  const [scheme, port] = place.split(":");
  const authority = port === undefined ? host : `${host}:${port}`;
  const search = new URLSearchParams(query).toString();
  const cookie = Object.entries(cookies).map(([name, value]) => `${name}=${value}`);
  const lines = [
    ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
    ...(cookie.length > 0 ? [`cookie: ${cookie.join("; ")}`] : []),
  ];
  const url = `${scheme}://${authority}${path}${search && `?${search}`}`;
  return [method, url, ...lines.map((line) => `-H ${JSON.stringify(line)}`)].join(" ");
}
