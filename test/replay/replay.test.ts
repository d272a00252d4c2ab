import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { compileRoutes, planRoutes } from "../../src/build/compile.ts";
import { eachLine } from "../../src/replay/lines.ts";
import { type LoggedRequest, readHar, readLine } from "../../src/replay/logged.ts";
import { Replay, type ReplayReport } from "../../src/replay/replay.ts";
import { nameOf, Router, routeBoth } from "../../src/replay/routing.ts";
import { indexMatches, Matcher } from "../../src/table/match.ts";
import type { RouteTable } from "../../src/table/table.ts";
import { folderOf, PRELUDE } from "../build/module.ts";
import { gateway } from "../cli/run.ts";
import { explained, shop } from "../explain/shop.ts";
import { weakenedRoutes } from "./weakened.ts";

const weakened = weakenedRoutes();
const weaker = (await planRoutes(weakened.path)).table;
const folder = mkdtempSync(join(tmpdir(), "portcullis-replay-"));
afterAll(() => {
  weakened.remove();
  rmSync(folder, { recursive: true, force: true });
});

/** Records as the edge's own code writes them. */
async function recordOf(method: string, path: string, more: Parameters<typeof explained>[2] = {}): Promise<string> {
  return JSON.stringify((await explained(method, path, more)).record);
}
const alice = { consumer: "storefront", subject: "alice", scopes: ["orders:read", "orders:write"] };
const records = await Promise.all([
  recordOf("GET", "/admin/users"),
  recordOf("GET", "/admin/users", { client: "10.20.0.7", as: { subject: "staff", scopes: ["admin"] } }),
  recordOf("GET", "/v1/search?q=keyboard"),
  recordOf("GET", "/v1/nothing"),
  recordOf("GET", "/v1/orders"),
  recordOf("GET", "/api/products/7"),
  ...Array.from({ length: 20 }, (_, i) => recordOf("GET", "/v1/orders/7", { as: { ...alice, subject: `user-${i}` } })),
  ...Array.from({ length: 7 }, () => recordOf("POST", "/v1/orders", { as: alice })),
]);

function replayed(lines: readonly string[], old = shop.table, fresh = weaker): ReplayReport {
  const replay = new Replay(old, fresh);
  lines.forEach((line, i) => {
    const request = readLine(line, "api.example.com");
    if (request) replay.add(request, i + 1);
    else replay.unread++;
  });
  return replay.report();
}

const told = ({ groups }: ReplayReport) =>
  groups.map(({ kind, routes, old, new: fresh, count, weakened }) => {
    const at = routes[0] === routes[1] ? routes[0] : routes.join(" -> ");
    return `${count} ${weakened ? "weaker " : ""}${kind} ${at}${kind === "route" ? "" : `: ${old} -> ${fresh}`}`;
  });

test("a weakened copy of the routes is caught, and nothing else is told", () => {
  const report = replayed(records);
  expect(report.groups.filter(({ kind }) => kind !== "arm").length).toBe(4);
  expect(told(report)).toEqual(
    expect.arrayContaining([
      expect.stringMatching(/^1 weaker verdict admin\/all: deny address-denied -> up to jwt, scopes/),
      "7 weaker limit orders/create: 5 per 60s by consumer -> 50 per 60s by consumer",
      "2 weaker verdict orders/create: deny rate-limited -> pass",
      "1 route legacy/moved -> catalog/products",
    ]),
  );
  // From 5 % to 50 %: of twenty readers some are on another arm now.
  expect(report.groups.find(({ kind }) => kind === "arm")).toMatchObject({
    old: "stable",
    new: "canary",
    uncertain: 0,
  });
  expect(report).toMatchObject({ requests: records.length, unread: 0, foreign: 0, uncertain: 0 });
  expect(report.weakened).toBe(8);
});

test("a limit that only reports now is weaker", () => {
  const policies = shop.table.policies.map((one) =>
    one.policy === "rateLimit" ? { ...one, mode: "report" as const } : one,
  );
  const report = replayed(records.slice(-1), shop.table, { ...shop.table, policies });
  expect(told(report)).toEqual([
    "1 weaker limit orders/create: 5 per 60s by consumer -> 5 per 60s by consumer, reported only",
  ]);
});

test("the same routes treat every request as before", () => {
  expect(replayed(records, shop.table, structuredClone(shop.table))).toMatchObject({ changed: 0, groups: [] });
});

describe("what a log does not tell", () => {
  const combined = (target: string, client = "203.0.113.9") =>
    `${client} - - [28/Nov/2026:10:00:00 +0100] "GET ${target} HTTP/1.1" 200 512 "-" "curl/8.5.0" 120 0.005 [shop-80] [] 10.0.0.1:80 512 0.005 200 6a7c`;

  test("is taken both ways, and the change is one that may be", async () => {
    const without = { ...shop.table, routes: shop.table.routes.filter(({ id }) => id !== "partners/products") };
    const report = replayed([combined("/v1/products/7"), combined("/v1/search?q=a")], shop.table, without);
    expect(told(report)).toEqual([
      expect.stringMatching(/^1 weaker verdict partners\/products -> catalog\/products: up to apiKey/),
      "1 route partners/products -> catalog/products",
    ]);
    expect(report).toMatchObject({ changed: 1, uncertain: 1 });
    // A record says which route it was, and so whether there was an API key.
    expect(replayed([await recordOf("GET", "/v1/products/7")], shop.table, without).changed).toBe(0);
  });

  test("is no change where both tables would ask for it", () => {
    expect(replayed([combined("/v1/orders"), combined("/admin/a")], shop.table, shop.table).changed).toBe(0);
    expect(told(replayed([combined("/admin/a")]))).toEqual([
      expect.stringMatching(/^1 weaker verdict admin\/all: deny address-denied -> up to jwt, scopes/),
    ]);
  });
});

describe("formats", () => {
  test("the combined log, with the host of the option, and its time zone", () => {
    const line =
      '2001:db8::1 - bob [28/Nov/2026:10:00:00 +0100] "POST /a?b=1 HTTP/2.0" 201 5 "https://x/" "Agent \\"A\\""';
    const request = readLine(line, "h.example.com") as LoggedRequest;
    expect(request).toMatchObject({ method: "POST", url: "https://h.example.com/a?b=1", client: "2001:db8::1" });
    expect(new Date(request.time).toISOString()).toBe("2026-11-28T09:00:00.000Z");
    expect([request.query("b"), request.query("c"), request.header("referer"), request.header("x-y")]).toEqual([
      "1",
      null,
      "https://x/",
      undefined,
    ]);
  });

  test("HAR knows all headers", () => {
    const headers = [
      { name: "X-Api-Key", value: "k" },
      { name: "Cookie", value: "a=1; b=2" },
    ];
    const entries = [
      { startedDateTime: "2026-11-28T10:00:00Z", request: { method: "GET", url: "https://h/x?q=", headers } },
      { request: { method: "GET", url: "data:text/plain,a" } },
    ];
    const [request, ...others] = readHar(JSON.stringify({ log: { entries } }));
    expect(others).toEqual([]);
    expect([
      request?.header("x-api-key"),
      request?.header("accept"),
      request?.cookie("b"),
      request?.query("q"),
    ]).toEqual(["k", null, "2", ""]);
    expect(() => readHar("{}")).toThrow("log.entries");
  });

  test("of a HAR, entries that are none are counted, and WebSockets are requests", () => {
    const url = "wss://h.example.com/feed";
    const entries = [
      null,
      {},
      { request: { method: "GET", url: "nope" } },
      { request: { method: "GET", url, headers: [null] } },
    ];
    const found = readHar(JSON.stringify({ log: { entries } }));
    expect(found.map((one) => one?.url)).toEqual([undefined, undefined, undefined, "https://h.example.com/feed"]);
    expect(() => readHar("null")).toThrow("log.entries");
  });

  test("what nginx escapes in its log is what came", () => {
    const line =
      '203.0.113.9 - - [28/Nov/2026:10:00:00 +0100] "GET /caf\\xC3\\xA9?q=\\x22a HTTP/1.1" 200 5 "-" "\\x22b"';
    const request = readLine(line, "h.example.com") as LoggedRequest;
    expect(request.url).toBe("https://h.example.com/caf%C3%A9?q=%22a");
    expect([request.query("q"), request.header("user-agent")]).toEqual(['"a', '"b']);
  });

  test("cookies of a HAR are read as the edge reads them, also one line for each", () => {
    const headers = ["a=1", 'b="2"', "a=3", "c"].map((value) => ({ name: "Cookie", value }));
    const entry = { request: { method: "GET", url: "https://h.example.com/", headers } };
    const [request] = readHar(JSON.stringify({ log: { entries: [entry] } }));
    expect(["a", "b", "c"].map((name) => request?.cookie(name))).toEqual(["1", "2", null]);
    expect(request?.header("cookie")).toBe('a=1; b="2"; a=3; c');
  });

  test("a record that is not whole is none", () => {
    const whole = JSON.parse(records.at(-1) as string);
    const { policies: _, ...cut } = whole;
    for (const record of [cut, { ...whole, policies: [null] }, { ...whole, host: 5 }, { ...whole, client: {} }])
      expect(replayed([JSON.stringify(record)])).toMatchObject({ requests: 0, unread: 1 });
  });

  test("what is no request is none", () => {
    for (const line of ["", "hello", "{", '{"v":1,"event":"health"}', '203.0.113.9 - - [x] "\\x16\\x03" 400 0'])
      expect(readLine(line, "h")).toBeUndefined();
  });
});

test("of what is fully known the route is the matcher's", async () => {
  await sameAsMatcher((await compileRoutes({ routes: "test/build/fixtures/matches.ts" })).table);
});

test("HEAD is by a route for GET where only a wider host has one for HEAD, and not where another name of a parameter does", async () => {
  const text = `${PRELUDE}
const a = api("a", { hosts: ["a.example.com"] }, [
  route("get", { path: "/v1/orders", methods: ["GET"] }, { to: eu }),
  route("one", { path: "/v1/orders/{id}", methods: ["GET"] }, { to: eu }),
  route("two", { path: "/v1/orders/{order}", methods: ["HEAD"] }, { to: eu }),
]);
const wide = api("wide", { hosts: ["*.example.com"] }, [route("head", { path: "/v1/orders", methods: ["HEAD"] }, { to: eu })]);
export default gateway({}, [a, wide]);`;
  await sameAsMatcher((await planRoutes(await folderOf({ "index.ts": text }))).table);
});

async function sameAsMatcher(table: RouteTable): Promise<void> {
  const matcher = new Matcher(table.routes, indexMatches(table.routes, table.listeners));
  const router = new Router(table);
  const request = fc.record({
    method: fc.constantFrom("GET", "HEAD", "PUT", "POST"),
    host: fc.constantFrom("a.example.com", "x.example.com", "other.test"),
    path: fc.constantFrom("/v1/orders/7", "/v1/orders", "/v2/status", "/V2/STATUS", "/", "/v1/orders/7/items"),
    headers: fc.dictionary(fc.constantFrom("x-version", "accept"), fc.constantFrom("v1", "x", "text/html")),
    query: fc.dictionary(fc.constantFrom("page", "Sort"), fc.constantFrom("UP", "1")),
    cookies: fc.dictionary(fc.constantFrom("beta"), fc.constantFrom("1", "2")),
  });
  fc.assert(
    fc.property(request, ({ method, host, path, headers, query, cookies }) => {
      const value = (of: Record<string, string>) => (name: string) => of[name] ?? null;
      const known = { header: value(headers), query: value(query), cookie: value(cookies) };
      const found = matcher.match({ scheme: "https", host, path, method, ...known });
      const expected = { route: () => table.routes[(found as { route: number }).route]?.id, "not-found": () => "404" };
      const logged = { method, url: `https://${host}${path}`, client: "", time: 0, ...known };
      const { old, new: fresh, certain } = routeBoth(router, router, logged);
      expect(certain).toBe(true);
      expect(nameOf(old)).toBe(nameOf(fresh));
      expect(nameOf(old)).toBe(found.kind === "method-not-allowed" ? "405" : expected[found.kind]());
    }),
    { numRuns: 2_000 },
  );
}

test("what has no line ends is one line, of which no more than its beginning is kept", async () => {
  const log = join(folder, "endless.log");
  writeFileSync(log, `${"x".repeat(5 << 20)}\nlast`);
  const lines: number[] = [];
  await eachLine(log, (line) => lines.push(line.length));
  expect(lines.length).toBe(2);
  expect(lines[0]).toBeLessThan(3 << 20);
  expect(lines[1]).toBe(4);
});

test("the command reads plain and packed logs, and ends as it is told to", async () => {
  const log = join(folder, "records.log");
  const packed = join(folder, "records.log.gz");
  writeFileSync(log, `${records.join("\n")}\nnonsense\n`);
  writeFileSync(packed, gzipSync(`${records.join("\n")}\n`));
  const [told, same, none] = await Promise.all([
    gateway(["replay", log, packed, "--old", "routes", "--new", weakened.path, "--fail-on", "weakened"]),
    gateway(["replay", log, "--old", "HEAD", "--json", "--fail-on", "weakened"]),
    gateway(["replay", log, "--old", "no-such-thing"]),
  ]);
  expect(told).toMatchObject({ code: 1, err: "" });
  expect(told.out).toContain(`replayed  ${records.length * 2} requests of 2 files`);
  expect(told.out).toContain("note: 1 line could not be read as a request");
  expect(same.code).toBe(0);
  expect(JSON.parse(same.out)).toMatchObject({ old: { name: "HEAD" }, weakened: 0 });
  expect(none).toMatchObject({ code: 1, out: "" });
  expect(none.err).toContain("is neither a file or folder nor a revision");
});
