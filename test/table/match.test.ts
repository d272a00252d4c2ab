import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { indexMatches, literalPrefix, Matcher, type MatchRequest, parametersOf } from "../../src/table/match.ts";
import type { PathMatch, TableMatch, TableRoute, ValueMatch } from "../../src/table/table.ts";

const route = (id: string, hosts: string[], ...matches: Partial<TableMatch>[]): TableRoute => ({
  id,
  api: "test",
  hosts,
  matches: (matches.length > 0 ? matches : [{}]).map((match) => ({
    path: { kind: "prefix", value: "/" },
    headers: [],
    query: [],
    cookies: [],
    ...match,
  })),
  policies: [],
  action: { kind: "forward", backends: [] },
});
const exact = (value: string): PathMatch => ({ kind: "exact", value });
const prefix = (value: string): PathMatch => ({ kind: "prefix", value });
const regex = (value: string): PathMatch => ({ kind: "regex", value });

interface Asked {
  host?: string;
  path?: string;
  method?: string;
  headers?: Record<string, string>;
  query?: Record<string, string>;
  cookies?: Record<string, string>;
}
const request = ({
  host = "h",
  path = "/",
  method = "GET",
  headers = {},
  query = {},
  cookies = {},
}: Asked): MatchRequest => ({
  scheme: "https",
  host,
  path,
  method,
  header: (name) => headers[name] ?? null,
  query: (name) => query[name] ?? null,
  cookie: (name) => cookies[name] ?? null,
});
const look = (routes: TableRoute[], asked: Asked) => {
  const found = new Matcher(routes, indexMatches(routes)).match(request(asked));
  return found.kind === "route"
    ? (routes[found.route] as TableRoute).id
    : found.kind === "not-found"
      ? 404
      : found.allow.join();
};

describe("paths", () => {
  const routes = [
    route("any", ["*"]),
    route("catalog", ["*"], { path: prefix("/v1/catalog") }),
    route("item", ["*"], { path: exact("/v1/catalog/{id}") }),
    route("sale", ["*"], { path: exact("/v1/catalog/sale") }),
    route("numbers", ["*"], { path: regex("/v1/catalog/[0-9]+/.*") }),
    route("slash", ["*"], { path: exact("/v1/orders/") }),
  ];
  it.each([
    ["/", "any"],
    ["/v1/catalog", "catalog"],
    ["/v1/catalog/", "catalog"],
    ["/v1/catalogue", "any"],
    ["/v1/Catalog", "any"],
    ["/v1/catalog/sale", "sale"],
    ["/v1/catalog/17", "item"],
    ["/v1/catalog/17/", "numbers"],
    ["/v1/catalog/x/y", "catalog"],
    ["/v1/catalog/17/y", "numbers"],
    ["/v1/orders/", "slash"],
    ["/v1/orders", "any"],
    ["/__proto__/constructor", "any"],
  ])("%s goes to %s", (path, id) => expect(look(routes, { path })).toBe(id));

  it("is element-wise and ignores a trailing slash in the prefix", () => {
    expect(look([route("a", ["*"], { path: prefix("/foo/") })], { path: "/foo" })).toBe("a");
    expect(look([route("a", ["*"], { path: prefix("/foo/") })], { path: "/foobar" })).toBe(404);
  });

  it("gives parameters decoded, by whole segments", () => {
    expect({ ...parametersOf("/a/{b}/c/{d}", "/a/x%20y/c/%C3%A9") }).toEqual({ b: "x y", d: "é" });
  });

  it("finds the literal segments of a regex, never more than every match has", () => {
    expect(literalPrefix("^/v1/items/[0-9]+$")).toBe("/v1/items");
    expect(literalPrefix("/v1/items")).toBe("/v1");
    expect(literalPrefix("/v1/items?/x")).toBe("/v1");
    expect(literalPrefix("/a|/b/c/d")).toBe("");
    expect(literalPrefix("/a/(?:x|y)/c")).toBe("/a");
    expect(literalPrefix("/a/[|(]/c")).toBe("/a");
    expect(literalPrefix("/a/\\(x|/b/c")).toBe("");
    expect(literalPrefix("(?:/a|/b)/c")).toBe("");
    expect(literalPrefix(".*/x/y")).toBe("");
    expect(literalPrefix("\\/v1\\/a\\.b\\/.*")).toBe("/v1/a.b");
    expect(literalPrefix("(?i:/v1/x/y)")).toBe("");
  });
});

describe("hosts", () => {
  const routes = [
    route("any", ["*"]),
    route("exact", ["api.example.com"], { path: prefix("/v1") }),
    route("wide", ["*.com"], { path: prefix("/") }),
    route("narrow", ["*.example.com"], { path: prefix("/v1") }),
  ];
  it.each([
    ["api.example.com", "/v1", "exact"],
    ["api.example.com", "/other", "wide"],
    ["a.b.example.com", "/v1", "narrow"],
    ["example.com", "/v1", "wide"],
    ["example.org", "/v1", "any"],
    ["toString", "/", "any"],
  ])("%s%s goes to %s", (host, path, id) => expect(look(routes, { host, path })).toBe(id));
});

describe("conditions", () => {
  const header = (name: string, value?: string): ValueMatch => ({ name, ...(value !== undefined && { exact: value }) });
  const routes = [
    route("plain", ["*"], { path: exact("/p") }),
    route("post", ["*"], { path: exact("/p"), methods: ["POST"] }),
    route("one-header", ["*"], { path: exact("/p"), headers: [header("a", "1")] }),
    route("two-headers", ["*"], { path: exact("/p"), headers: [header("a", "1"), header("b")] }),
    route("query", ["*"], { path: exact("/p"), query: [header("q", "x")] }),
    route("cookie", ["*"], { path: exact("/p"), cookies: [{ name: "c", regex: "v[0-9]" }] }),
  ];
  it.each<[string, Asked]>([
    ["plain", {}],
    ["post", { method: "POST", headers: { a: "1", b: "2" } }],
    ["one-header", { headers: { a: "1" }, query: { q: "x" } }],
    ["two-headers", { headers: { a: "1", b: "" } }],
    ["query", { query: { q: "x" }, cookies: { c: "v1" } }],
    ["cookie", { cookies: { c: "v1" } }],
    ["plain", { cookies: { c: "xv1" } }],
    ["plain", { query: { Q: "x" } }],
  ])("%s", (id, asked) => expect(look(routes, { path: "/p", ...asked })).toBe(id));
});

describe("methods", () => {
  const routes = [
    route("get", ["*"], { path: exact("/o"), methods: ["GET"] }),
    route("post", ["*"], { path: exact("/o"), methods: ["POST"] }),
    route("head", ["*"], { path: exact("/h"), methods: ["HEAD"] }),
    route("a-get", ["*"], { path: exact("/h"), methods: ["GET"] }),
    route("special", ["*"], { path: prefix("/o"), methods: ["PUT"], headers: [{ name: "x" }] }),
  ];
  it("tells the methods that the path has, and only those whose other conditions hold", () => {
    expect(look(routes, { path: "/o", method: "DELETE" })).toBe("GET,HEAD,POST");
    expect(look(routes, { path: "/o", method: "DELETE", headers: { x: "1" } })).toBe("GET,HEAD,POST,PUT");
    expect(look(routes, { path: "/none", method: "DELETE" })).toBe(404);
  });
  it("answers HEAD by the GET route, but by a HEAD route first", () => {
    expect(look(routes, { path: "/o", method: "HEAD" })).toBe("get");
    expect(look(routes, { path: "/h", method: "HEAD" })).toBe("head");
    const regexes = [
      route("a", ["*"], { path: regex("/.*b"), methods: ["GET"] }),
      route("b", ["*"], { path: regex("/.*b") }),
    ];
    expect(look(regexes, { path: "/ab", method: "HEAD" })).toBe("b");
  });
  it("falls through to a less specific path that has the method", () => {
    expect(look(routes, { path: "/o", method: "PUT", headers: { x: "1" } })).toBe("special");
  });
});

describe("with the Gateway API's semantics", () => {
  const exactly = (routes: TableRoute[], asked: Asked) => {
    const found = new Matcher(routes, indexMatches(routes), "gateway-api").match(request(asked));
    return found.kind === "route" ? routes[found.route]?.id : found.kind;
  };
  const routes = [route("get", ["*"], { path: exact("/o"), methods: ["GET"] })];

  it("HEAD is a method like any other, and no path has other methods", () => {
    expect(exactly(routes, { path: "/o" })).toBe("get");
    expect(exactly(routes, { path: "/o", method: "HEAD" })).toBe("not-found");
    expect(exactly(routes, { path: "/o", method: "POST" })).toBe("not-found");
    expect(look(routes, { path: "/o", method: "HEAD" })).toBe("get");
    expect(look(routes, { path: "/o", method: "POST" })).toBe("GET,HEAD");
  });

  it("what nothing else parts goes by the declared order, then by the id", () => {
    const tied = [
      { ...route("a", ["*"], { headers: [{ name: "x" }] }), order: 2 },
      { ...route("b", ["*"], { headers: [{ name: "y" }] }), order: 1 },
      { ...route("c", ["*"], { headers: [{ name: "y" }, { name: "z" }] }), order: 3 },
    ];
    expect(exactly(tied, { headers: { x: "1", y: "1" } })).toBe("b");
    expect(exactly(tied, { headers: { x: "1", y: "1", z: "1" } })).toBe("c");
    expect(exactly([route("a", ["*"]), route("b", ["*"])], {})).toBe("a");
  });
});

it("hosts with the same routes share one tree", () => {
  const { paths, hosts } = indexMatches([route("a", ["x.y", "*.y"]), route("b", ["x.y", "*.y", "z"])]);
  expect(hosts).toEqual([{ "x.y": 0, "*.y": 0, z: 1 }]);
  expect(paths).toHaveLength(2);
});

describe("against a reference that tries every match of every route", () => {
  const segment = fc.constantFrom("a", "b", "ab", "{p}", "{q}");
  const request_segment = fc.constantFrom("a", "b", "ab", "c", "");
  const pathMatch = fc.oneof(
    fc.array(segment, { maxLength: 3 }).map((segments) => exact(`/${segments.join("/")}`)),
    fc.array(segment, { maxLength: 3 }).map((segments) => prefix(`/${segments.join("/")}`)),
    fc.constantFrom("/a/.*", "/a/[ab]+", "/.*b", "/(?:a|b)/c?", "/a/b/?.*").map(regex),
  );
  const values = fc.uniqueArray(
    fc.record({ name: fc.constantFrom("x", "y"), exact: fc.option(fc.constantFrom("1", "2"), { nil: undefined }) }),
    { maxLength: 2, selector: ({ name }) => name },
  );
  const anyMatch = fc.record({
    path: pathMatch,
    methods: fc.option(fc.uniqueArray(fc.constantFrom("GET", "POST", "HEAD"), { minLength: 1 }), { nil: undefined }),
    headers: values,
    query: values,
    cookies: values,
  }) as fc.Arbitrary<TableMatch>;
  const anyRoutes = fc
    .array(
      fc.record({
        hosts: fc.uniqueArray(fc.constantFrom("*", "x.y", "*.y", "*.x.y"), { minLength: 1, maxLength: 2 }),
        matches: fc.array(anyMatch, { minLength: 1, maxLength: 3 }),
      }),
      { minLength: 1, maxLength: 8 },
    )
    .map((routes) => routes.map(({ hosts, matches }, i) => route(`r${i}`, hosts, ...matches)));
  const dictionary = fc.dictionary(fc.constantFrom("x", "y"), fc.constantFrom("1", "2", "3"));
  const anyRequest = fc.record({
    host: fc.constantFrom("x.y", "y", "a.y", "a.x.y", "z"),
    path: fc
      .array(request_segment, { minLength: 1, maxLength: 4 })
      .map((segments) => `/${segments.join("/")}`.replace(/\/+/g, "/")),
    method: fc.constantFrom("GET", "POST", "HEAD", "PUT"),
    headers: dictionary,
    query: dictionary,
    cookies: dictionary,
  });

  it("finds the same route", () => {
    fc.assert(
      fc.property(anyRoutes, anyRequest, (routes, asked) => {
        expect(look(routes, asked)).toBe(reference(routes, asked));
      }),
      { numRuns: 20_000 },
    );
  }, 60_000);

  it("finds the same route whatever the order of the routes", () => {
    fc.assert(
      fc.property(anyRoutes, anyRequest, fc.infiniteStream(fc.nat()), (routes, asked, random) => {
        const shuffled = routes
          .map((one) => ({ one, at: random.next().value as number }))
          .sort((a, b) => a.at - b.at)
          .map(({ one }) => one)
          // The table itself is sorted by id, which is what makes the last tie-break hold.
          .sort((a, b) => (a.id < b.id ? -1 : 1));
        expect(look(shuffled, asked)).toBe(look(routes, asked));
      }),
      { numRuns: 500 },
    );
  });

  /** Straight from the rules' text: rank everything that fits, take the first that has the method. */
  function reference(routes: TableRoute[], asked: Required<Asked>): string | number {
    const fitting = routes.flatMap((one, routeAt) =>
      one.hosts.flatMap((host) =>
        one.matches.flatMap((match, matchAt) => {
          const rank = rankOf(host, match, asked);
          return rank ? [{ id: one.id, match, rank: [...rank, routeAt, matchAt] }] : [];
        }),
      ),
    );
    fitting.sort((a, b) => {
      for (let i = 0; i < a.rank.length; i++) {
        const difference = (a.rank[i] as number) - (b.rank[i] as number);
        if (difference !== 0) return difference;
      }
      return 0;
    });
    const has = ({ match }: { match: TableMatch }, method: string) => !match.methods || match.methods.includes(method);
    if (asked.method !== "HEAD") {
      const found = fitting.find((one) => has(one, asked.method));
      if (found) return found.id;
    } else {
      // On each level of host and path, HEAD itself goes before HEAD by GET.
      for (const { rank } of fitting) {
        const level = fitting.filter((one) => one.rank.slice(0, LEVEL).join() === rank.slice(0, LEVEL).join());
        const found = level.find((one) => has(one, "HEAD")) ?? level.find((one) => has(one, "GET"));
        if (found) return found.id;
      }
    }
    const allow = new Set(fitting.flatMap(({ match }) => [...(match.methods ?? [])]));
    if (allow.has("GET")) allow.add("HEAD");
    return allow.size === 0 ? 404 : [...allow].sort().join();
  }

  // Ranks up to here say which host and path; a regex is a path of its own, told apart by route and match.
  const LEVEL = 8;

  function rankOf(host: string, match: TableMatch, asked: Required<Asked>): number[] | undefined {
    const hostFits =
      host === "*" || host === asked.host || (host.startsWith("*.") && asked.host.endsWith(host.slice(1)));
    const holds = (wanted: readonly ValueMatch[] = [], given: Record<string, string>) =>
      wanted.every(({ name, exact }) => given[name] !== undefined && (exact === undefined || given[name] === exact));
    const fits =
      hostFits &&
      holds(match.headers, asked.headers) &&
      holds(match.query, asked.query) &&
      holds(match.cookies, asked.cookies);
    if (!fits) return undefined;
    const hostRank = [host.startsWith("*") ? 1 : 0, -host.length];
    const { kind, value } = match.path;
    const many = (wanted: readonly ValueMatch[] = []) => -wanted.length;
    const rest = [match.methods ? 0 : 1, many(match.headers), many(match.query), many(match.cookies)];
    const given = asked.path.slice(1).split("/");
    if (kind === "regex") {
      if (!new RegExp(`^(?:${value})$`).test(asked.path)) return undefined;
      const depth = literalPrefix(value).split("/").length;
      return [...hostRank, 1, -depth, 0, 0, 0, -value.length, ...rest];
    }
    const declared = value
      .replace(kind === "prefix" ? /\/$/ : /$^/, "")
      .split("/")
      .slice(1);
    if (kind === "exact" ? declared.length !== given.length : declared.length > given.length) return undefined;
    const parameter = (name: string) => /^\{.*\}$/.test(name);
    if (!declared.every((name, i) => (parameter(name) ? given[i] !== "" : name === given[i]))) return undefined;
    const literalFirst = [0, 1, 2].map((i) => (declared[i] !== undefined && parameter(declared[i]) ? 1 : 0));
    return [...hostRank, kind === "exact" ? 0 : 2, -declared.length, ...literalFirst, 0, ...rest];
  }
});
