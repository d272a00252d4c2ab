import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { commonHost, type Entrance, indexListeners, listenersFor, widerHost } from "../../src/table/listener.ts";
import { indexMatches, Matcher } from "../../src/table/match.ts";
import type { TableListener, TableRoute } from "../../src/table/table.ts";

const HOSTS = ["*", "*.com", "*.bar.com", "*.foo.bar.com", "bar.com", "foo.bar.com", "a.foo.bar.com", "org"] as const;
const NAMES = ["com", "bar.com", "foo.bar.com", "x.bar.com", "a.foo.bar.com", "b.a.foo.bar.com", "org", "constructor"];

/** Straight from the Gateway API's text: a wildcard is one or more labels. */
const fits = (pattern: string, name: string) =>
  pattern === "*" ||
  pattern === name ||
  (pattern.startsWith("*.") && name.endsWith(pattern.slice(1)) && name.length > pattern.length - 1);

describe("commonHost", () => {
  it.each([
    ["*", "*", "*"],
    ["*", "a.com", "a.com"],
    ["a.com", "*", "a.com"],
    ["a.com", "a.com", "a.com"],
    ["a.com", "b.com", undefined],
    ["*.specific.com", "very.specific.com", "very.specific.com"],
    ["very.specific.com", "*.specific.com", "very.specific.com"],
    ["non.matching.com", "*.specific.com", undefined],
    ["*.com", "*.specific.com", "*.specific.com"],
    ["specific.com", "*.specific.com", undefined],
    ["*.xspecific.com", "*.specific.com", undefined],
  ])("%s and %s: %s", (a, b, common) => {
    expect(commonHost(a, b)).toBe(common);
    expect(commonHost(b, a)).toBe(common);
  });

  it("fits exactly the names that both fit", () => {
    const anyHost = fc.constantFrom(...HOSTS);
    fc.assert(
      fc.property(anyHost, anyHost, fc.constantFrom(...NAMES), (a, b, name) => {
        const common = commonHost(a, b);
        expect(common !== undefined && fits(common, name)).toBe(fits(a, name) && fits(b, name));
      }),
      { numRuns: 2_000 },
    );
  });
});

it("widerHost goes from a name to any, one label at a time", () => {
  const all = (host: string): string[] => (host === "" ? [] : [host, ...all(widerHost(host))]);
  expect(all("a.b.c")).toEqual(["a.b.c", "*.b.c", "*.c", "*"]);
  expect(all("*.b.c")).toEqual(["*.b.c", "*.c", "*"]);
  expect(all("localhost")).toEqual(["localhost", "*"]);
  expect(all("[::1]")).toEqual(["[::1]", "*"]);
});

const listener = (port: number, protocol: "http" | "https", host = "*"): TableListener => ({
  name: `${protocol}-${port}-${host}`,
  port,
  protocol,
  ...(host !== "*" && { host }),
});
const anyListeners = fc
  .uniqueArray(
    fc.record({
      port: fc.constantFrom(80, 443, 8080),
      protocol: fc.constantFrom("http" as const, "https" as const),
      host: fc.constantFrom(...HOSTS),
    }),
    { minLength: 1, maxLength: 6, selector: ({ port, protocol, host }) => `${port}${protocol}${host}` },
  )
  .map((all) => all.map(({ port, protocol, host }) => listener(port, protocol, host)));
const anyEntrance: fc.Arbitrary<Entrance> = fc.record({
  scheme: fc.constantFrom("http", "https"),
  port: fc.constantFrom(undefined, 80, 443, 8080, 8787),
  host: fc.constantFrom(...NAMES),
});

/** The rules one after the other, over all listeners: positions of those that the request belongs to. */
function chosen(listeners: readonly TableListener[], { scheme, port, host }: Entrance): number[] {
  const all = listeners.map((one, position) => ({ ...one, position, host: one.host ?? "*" }));
  const at = (wanted: number | undefined) => all.filter((one) => one.protocol === scheme && one.port === wanted);
  const [own = []] = [at(port), at(scheme === "http" ? 80 : 443), all].filter(({ length }) => length > 0);
  const fitting = own.filter((one) => fits(one.host, host));
  const rank = (pattern: string) => (pattern === "*" ? 0 : pattern.startsWith("*.") ? pattern.length : 1_000);
  const best = Math.max(...fitting.map((one) => rank(one.host)));
  return fitting.filter((one) => rank(one.host) === best).map(({ position }) => position);
}

describe("listenersFor", () => {
  const listeners = [
    listener(80, "http"),
    listener(8080, "http", "*.example.com"),
    listener(8080, "http", "*.foo.example.com"),
    listener(8080, "http", "abc.foo.example.com"),
    listener(443, "https", "example.org"),
  ];
  const index = indexListeners(listeners);
  it.each<[string, number | undefined, string, number | undefined]>([
    ["http", undefined, "abc.foo.example.com", 0],
    ["http", 8080, "abc.foo.example.com", 3],
    ["http", 8080, "x.foo.example.com", 2],
    ["http", 8080, "foo.example.com", 1],
    ["http", 8080, "example.com", undefined],
    ["http", 8787, "abc.foo.example.com", 0],
    ["https", 8443, "example.org", 4],
    ["https", undefined, "other.org", undefined],
  ])("%s, port %s, %s: %s", (scheme, port, host, position) => {
    const set = listenersFor(index, { scheme, port, host });
    expect(set === undefined ? undefined : index.sets[set]).toEqual(position === undefined ? undefined : [position]);
  });

  it("takes them all where nothing tells, those of the request's protocol first", () => {
    const unusual = indexListeners([listener(8080, "http"), listener(8443, "https"), listener(9443, "https", "a.b")]);
    const ask = (scheme: string, host: string) => unusual.sets[listenersFor(unusual, { scheme, host }) as number];
    expect(ask("https", "h")).toEqual([1, 0]);
    expect(ask("http", "h")).toEqual([0, 1]);
    expect(ask("http", "a.b")).toEqual([2]);
  });

  it("chooses as the rules do, one after the other", () => {
    fc.assert(
      fc.property(anyListeners, anyEntrance, (all, entrance) => {
        const indexed = JSON.parse(JSON.stringify(indexListeners(all))) as ReturnType<typeof indexListeners>;
        const set = listenersFor(indexed, entrance);
        const found = set === undefined ? [] : (indexed.sets[set] ?? []);
        expect([...found].sort()).toEqual(chosen(all, entrance));
      }),
      { numRuns: 5_000 },
    );
  });
});

describe("routes behind listeners", () => {
  const route = (id: string, hosts: readonly string[], listeners?: readonly number[], path = "/"): TableRoute => ({
    id,
    api: "test",
    hosts,
    ...(listeners && { listeners }),
    matches: [{ path: { kind: "prefix", value: path } }],
    policies: [],
    action: { kind: "forward", backends: [] },
  });
  const look = (routes: TableRoute[], listeners: TableListener[] | undefined, entrance: Entrance, path = "/") => {
    const matcher = new Matcher(routes, JSON.parse(JSON.stringify(indexMatches(routes, listeners))));
    const asked = { ...entrance, path, method: "GET", header: () => null, query: () => null, cookie: () => null };
    const found = matcher.match(asked);
    return { id: found.kind === "route" ? routes[found.route]?.id : found.kind, listener: found.listener };
  };

  it("answer nothing that belongs to another listener, also when that has no answer", () => {
    const listeners = [listener(80, "http"), listener(80, "http", "*.example.com")];
    const routes = [route("any", ["*"], [0]), route("example", ["*"], [1], "/v1")];
    const at = (host: string, path: string) => look(routes, listeners, { scheme: "http", host }, path);
    expect(at("a.org", "/v1")).toEqual({ id: "any", listener: 0 });
    expect(at("a.example.com", "/v1")).toEqual({ id: "example", listener: 1 });
    expect(at("a.example.com", "/v2")).toEqual({ id: "not-found", listener: 1 });
  });

  it("serve of their hosts what the listener has", () => {
    const listeners = [listener(80, "http", "very.specific.com")];
    const routes = [route("wide", ["*.specific.com"])];
    expect(look(routes, listeners, { scheme: "http", host: "very.specific.com" })).toEqual({ id: "wide", listener: 0 });
    expect(look(routes, listeners, { scheme: "http", host: "other.specific.com" })).toEqual({ id: "not-found" });
  });

  it("are told by the listener that has them, where several are asked", () => {
    const listeners = [listener(8080, "http"), listener(8090, "http")];
    const routes = [route("a", ["*"], [0], "/a"), route("b", ["*"], [1], "/a/b")];
    expect(look(routes, listeners, { scheme: "https", host: "h" }, "/a")).toEqual({ id: "a", listener: 0 });
    expect(look(routes, listeners, { scheme: "https", host: "h" }, "/a/b")).toEqual({ id: "b", listener: 1 });
    expect(look(routes, listeners, { scheme: "http", port: 8080, host: "h" }, "/a/b").id).toBe("a");
  });

  it("are those of the chosen listeners on the common hosts, and no others", () => {
    const anyRoutes = fc
      .array(
        fc.record({
          hosts: fc.uniqueArray(fc.constantFrom(...HOSTS), { minLength: 1, maxLength: 2 }),
          listeners: fc.option(fc.uniqueArray(fc.nat(5), { minLength: 1, maxLength: 3 }), { nil: undefined }),
          path: fc.constantFrom("/", "/a", "/a/b"),
        }),
        { minLength: 1, maxLength: 6 },
      )
      .map((all) => all.map(({ hosts, listeners, path }, i) => route(`r${i}`, hosts, listeners, path)));
    fc.assert(
      fc.property(anyListeners, anyRoutes, anyEntrance, (listeners, routes, entrance) => {
        const set = chosen(listeners, entrance);
        const attached = routes.flatMap(({ listeners: own, ...rest }) => {
          if (own && !set.some((one) => own.includes(one))) return [];
          const hosts = rest.hosts.flatMap((host) => commonHost(host, listeners[set[0] ?? -1]?.host ?? "*") ?? []);
          return set.length > 0 && hosts.length > 0 ? [{ ...rest, hosts }] : [];
        });
        const path = "/a/b/c";
        expect(look(routes, listeners, entrance, path).id).toBe(look(attached, undefined, entrance, path).id);
      }),
      { numRuns: 5_000 },
    );
  });
});
