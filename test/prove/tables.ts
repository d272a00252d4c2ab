/** Random tables over few words, so that routes meet, and every request that could tell them apart. */
import fc from "fast-check";
import { type ExampleRequest, matchRequestOf } from "../../src/prove/request-set.ts";
import { normalisePath } from "../../src/table/path.ts";
import {
  type PathMatch,
  type RouteTable,
  TABLE_VERSION,
  type TableListener,
  type TableMatch,
  type TableRoute,
  type ValueMatch,
} from "../../src/table/table.ts";

export function tableOf(
  routes: readonly (Pick<TableRoute, "id"> & Partial<TableRoute>)[],
  more: Partial<RouteTable> = {},
): RouteTable {
  return {
    version: TABLE_VERSION,
    id: "0000000000000000",
    gateway: {
      escapedSlashes: "refuse",
      forwardedFor: "overwrite",
      trustedProxies: [],
      maxUrl: 8_192,
      maxBody: 100_000_000,
      timeouts: { connect: 5_000, firstByte: 15_000, total: 60_000 },
    },
    environment: { vars: [], secrets: [], bindings: [] },
    clusters: {},
    consumers: {},
    policies: [],
    backends: [],
    pools: [],
    unmatched: [],
    identityHeaders: [],
    overrideCookies: [],
    ...more,
    routes: routes.map(({ id, ...route }) => ({
      id,
      api: id.split("/")[0] as string,
      hosts: ["*"],
      matches: [{ path: { kind: "prefix", value: "/" } }],
      policies: [],
      action: { kind: "forward", backends: [] },
      ...route,
    })),
  };
}

const HOSTS = ["a.test", "*.a.test", "*.test", "*"];
const METHODS = ["GET", "POST", "HEAD"];
const SEGMENTS = ["/a", "/b", "/{p}"];
const REGEXES = [
  "/a/[ab]+",
  "/[ab]",
  "/a/b|/b",
  "/a/.*",
  "/(?:a|b)/a",
  "(?i:/A/b)",
  "/a/b/?",
  "/.*",
  "/a(?:/.*)?",
  "/[ab]/.*",
];

const path: fc.Arbitrary<PathMatch> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc
      .tuple(fc.array(fc.constantFrom(...SEGMENTS), { minLength: 1, maxLength: 3 }), fc.boolean())
      .map(([segments, slash]) => ({ kind: "exact" as const, value: segments.join("") + (slash ? "/" : "") })),
  },
  {
    weight: 4,
    arbitrary: fc
      .array(fc.constantFrom(...SEGMENTS), { maxLength: 2 })
      .map((segments) => ({ kind: "prefix" as const, value: segments.join("") || "/" })),
  },
  { weight: 2, arbitrary: fc.constantFrom(...REGEXES).map((value) => ({ kind: "regex" as const, value })) },
);

const condition = (name: string): fc.Arbitrary<ValueMatch[]> =>
  fc.oneof(
    { weight: 8, arbitrary: fc.constant<ValueMatch[]>([]) },
    {
      weight: 1,
      arbitrary: fc
        .constantFrom<Omit<ValueMatch, "name">>({}, { exact: "1" }, { exact: "2" }, { regex: "[12]" }, { regex: "2+" })
        .map((value) => [{ name, ...value }]),
    },
  );

const match: fc.Arbitrary<TableMatch> = fc
  .record({
    path,
    methods: fc.option(fc.subarray(METHODS, { minLength: 1 }), { nil: undefined, freq: 2 }),
    headers: condition("x-h"),
    query: condition("q"),
    cookies: condition("c"),
  })
  .map(({ path, methods, headers, query, cookies }) => ({
    path,
    ...(methods && { methods: methods.toSorted() }),
    ...(headers.length > 0 && { headers }),
    ...(query.length > 0 && { query }),
    ...(cookies.length > 0 && { cookies }),
  }));

const LISTENERS: readonly TableListener[] = [
  { name: "any", port: 80, protocol: "http" },
  { name: "exact", port: 443, protocol: "https", host: "a.test" },
  { name: "high", port: 8443, protocol: "https" },
  { name: "wide", port: 443, protocol: "https", host: "*.test" },
];

export const tables: fc.Arbitrary<RouteTable> = fc
  .record({
    routes: fc.array(
      fc.record({
        hosts: fc.oneof(
          { weight: 3, arbitrary: fc.constant(["*"]) },
          { weight: 2, arbitrary: fc.subarray(HOSTS, { minLength: 1, maxLength: 2 }) },
        ),
        matches: fc.array(match, { minLength: 1, maxLength: 2 }),
        listeners: fc.option(fc.subarray([0, 1, 2, 3], { minLength: 1, maxLength: 3 }), { nil: undefined, freq: 2 }),
      }),
      { minLength: 2, maxLength: 7 },
    ),
    listeners: fc.boolean(),
    semantics: fc.constantFrom(undefined, undefined, "gateway-api" as const),
  })
  .map(({ routes, listeners, semantics }) => {
    const { gateway } = tableOf([]);
    return tableOf(
      routes.map(({ listeners: own, ...route }, i) => ({
        id: `t/${i}`,
        ...route,
        ...(listeners && own && { listeners: own }),
      })),
      {
        ...(listeners && { listeners: LISTENERS }),
        gateway: { ...gateway, ...(semantics && { semantics }) },
      },
    );
  });

const ORIGIN = "origin";
const ASKED = "access-control-request-method";
const asked = fc.record({
  methods: fc.constantFrom(["OPTIONS"], ["GET", "OPTIONS"], undefined),
  headers: fc
    .constantFrom<Omit<ValueMatch, "name">>({}, { exact: "GET" }, { exact: "HEAD" }, { regex: "P.*|HEAD" })
    .map((value): ValueMatch[] => [{ name: ASKED, ...value }, { name: ORIGIN }]),
});

/** Tables in which some routes know CORS, and some ask for what preflights have. */
export const tablesWithCors: fc.Arbitrary<RouteTable> = tables.chain((table) =>
  fc
    .array(fc.tuple(fc.boolean(), fc.option(asked, { nil: undefined, freq: 2 })), {
      minLength: table.routes.length,
      maxLength: table.routes.length,
    })
    .map((drawn) => ({
      ...table,
      policies: [{ policy: "cors", mode: "enforce", config: {} }],
      routes: table.routes.map((route, i) => {
        const [cors, wanted] = drawn[i] as (typeof drawn)[number];
        const [first, ...others] = route.matches as [TableMatch, ...TableMatch[]];
        const { methods, ...rest } = { ...first, ...wanted };
        return {
          ...route,
          policies: cors ? [0] : [],
          matches: [{ ...rest, ...(methods && { methods }) }, ...others],
        };
      }),
    })),
);

/** Requests of `requests` as preflights that ask about them, and others with OPTIONS. */
export function* preflights(table: RouteTable, start: number): Generator<ExampleRequest> {
  let n = start;
  for (const request of requests(table, start)) {
    n = (Math.imul(n, 1_664_525) + 1_013_904_223) >>> 0;
    const about = ["GET", "HEAD", "POST", "PUT", "X", undefined][n % 6];
    const headers = { ...request.headers, origin: "https://o.test", ...(about && { [ASKED]: about }) };
    yield { ...request, method: "OPTIONS", headers };
  }
}

/** `naively`, but that a preflight is for the route of the request that it asks about, if that one knows CORS. */
export function naivelyPreflight(table: RouteTable, example: ExampleRequest): number | undefined {
  const about = example.method === "OPTIONS" && ORIGIN in example.headers ? example.headers[ASKED] : undefined;
  const other = about === undefined ? undefined : naively(table, { ...example, method: about });
  return other !== undefined && table.routes[other]?.policies.length ? other : naively(table, example);
}

const WORDS = ["/a", "/b", "/c", "/A"];
const PATHS = [
  "/",
  ...WORDS.flatMap((one) => [
    one,
    `${one}/`,
    ...WORDS.flatMap((two) => [`${one}${two}`, `${one}${two}/`, `${one}${two}/a`, `${one}${two}/c`]),
  ]),
].filter((one) => {
  const normal = normalisePath(one);
  return !normal.refused && normal.path === one;
});
const VALUES = [undefined, "1", "2", "3"];

/** Requests with each path, with the other dimensions drawn by the numbers of a counter that has no common factor with them. */
export function* requests(table: RouteTable, start: number): Generator<ExampleRequest> {
  const places = table.listeners ? ["http", "http:80", "https", "https:443", "https:8443"] : ["https"];
  let n = start;
  const draw = <Value>(from: readonly Value[]): Value => {
    n = (Math.imul(n, 1_664_525) + 1_013_904_223) >>> 0;
    return from[Math.floor((n / 2 ** 32) * from.length)] as Value;
  };
  for (const path of PATHS) {
    for (const host of ["a.test", "b.a.test", "c.test", "other"]) {
      const [header, query, cookie] = [draw(VALUES), draw(VALUES), draw(VALUES)];
      yield {
        place: draw(places),
        host,
        path,
        method: draw(["GET", "POST", "HEAD", "PURGE"]),
        headers: header === undefined ? {} : { "x-h": header },
        query: query === undefined ? {} : { q: query },
        cookies: cookie === undefined ? {} : { c: cookie },
      };
    }
  }
}

/** The documented order of precedence (docs/matching.md) by trying every match of every route. Position of the route, or undefined. */
export function naively(table: RouteTable, example: ExampleRequest): number | undefined {
  const request = matchRequestOf(example);
  const listening = listeningFor(table, example);
  if (table.listeners && listening.length === 0) return undefined;
  const fitting: { rank: readonly (number | string)[]; route: number }[] = [];
  for (const [position, route] of table.routes.entries()) {
    if (table.listeners && route.listeners && !listening.some((one) => route.listeners?.includes(one))) continue;
    for (const [number, match] of route.matches.entries()) {
      for (const host of route.hosts) {
        if (!isHost(host, request.host) || !isPath(match.path, request.path)) continue;
        const { methods, headers = [], query = [], cookies = [] } = match;
        const byGet =
          request.method === "HEAD" && table.gateway.semantics !== "gateway-api" && methods?.includes("GET") === true;
        const has = methods === undefined || methods.includes(request.method);
        if (!has && !byGet) continue;
        if (!headers.every((one) => isValue(one, request.header(one.name)))) continue;
        if (!query.every((one) => isValue(one, request.query(one.name)))) continue;
        if (!cookies.every((one) => isValue(one, request.cookie(one.name)))) continue;
        // Behind a listener a route has no wider host than that.
        const behind = table.listeners?.[listening[0] as number]?.host ?? "*";
        const rank = [
          -Math.max(specific(host), specific(behind)),
          ...pathRank(match.path),
          Number(!has),
          Number(methods === undefined),
          -headers.length,
          -query.length,
          -cookies.length,
          position,
          number,
        ];
        fitting.push({ rank, route: position });
      }
    }
  }
  const byRank = (a: readonly (number | string)[], b: readonly (number | string)[]) => {
    const at = a.findIndex((one, i) => one !== b[i]);
    return at === -1 ? 0 : (a[at] as number) < (b[at] as number) ? -1 : 1;
  };
  return fitting.toSorted((a, b) => byRank(a.rank, b.rank))[0]?.route;
}

function listeningFor({ listeners = [] }: RouteTable, { place, host }: ExampleRequest): number[] {
  const [scheme, port] = place.split(":");
  const all = [...listeners.keys()];
  const at = (number: number) =>
    all.filter((one) => listeners[one]?.protocol === scheme && listeners[one]?.port === number);
  const own = at(scheme === "http" ? 80 : 443);
  const there = port === undefined ? [] : at(Number(port));
  const asked = there.length > 0 ? there : own.length > 0 ? own : all;
  const fits = asked.filter((one) => isHost(listeners[one]?.host ?? "*", host));
  const longest = Math.max(...fits.map((one) => specific(listeners[one]?.host ?? "*")));
  return fits.filter((one) => specific(listeners[one]?.host ?? "*") === longest);
}

const specific = (host: string): number => (host === "*" ? 0 : host.startsWith("*") ? host.split(".").length : 100);

const isHost = (pattern: string, host: string): boolean =>
  pattern === "*" || pattern === host || (pattern.startsWith("*.") && host.endsWith(pattern.slice(1)));

const isValue = ({ exact, regex }: ValueMatch, value: string | null): boolean =>
  value !== null && (exact === undefined || exact === value) && (!regex || compiled(`^(?:${regex})$`).test(value));

const regexes = new Map<string, RegExp>();
function compiled(source: string): RegExp {
  const regex = regexes.get(source) ?? new RegExp(source);
  regexes.set(source, regex);
  return regex;
}

function isPath({ kind, value }: PathMatch, path: string): boolean {
  if (kind === "regex") return compiled(`^(?:${value})$`).test(path);
  const form = value.replaceAll("{p}", "[^/]+");
  return compiled(kind === "exact" ? `^${form}$` : `^${form === "/" ? "" : form}(?:/.*)?$`).test(path);
}

function pathRank({ kind, value }: PathMatch): (number | string)[] {
  const segments = value === "/" && kind === "prefix" ? [] : value.split("/").slice(1);
  const form = segments.map((one) => (one === "{p}" ? 1 : 0)).join("");
  if (kind === "exact") return [0, 0, form];
  if (kind === "prefix") return [2, -segments.length, form];
  // The whole literal segments that these few patterns begin with.
  const depth = value.startsWith("/a/") && !value.includes("|") ? 1 : 0;
  return [1, -depth, -value.length];
}
