/**
 * Tables such as nobody writes: hosts within hosts, regexes with classes and beyond ASCII, conditions on everything, CORS here and there.
 * What is explained, proved and replayed of them must be what the built Worker does in workerd.
 */
import fc from "fast-check";
import { expect, inject, test } from "vitest";
import { compileRoutes } from "../../src/build/compile.ts";
import { ConfigurationRefused } from "../../src/build/problem.ts";
import type { AskedRequest } from "../../src/explain/explain.ts";
import { differences, liveRecord } from "../../src/explain/live.ts";
import { TableRequests } from "../../src/prove/answers.ts";
import type { ExampleRequest } from "../../src/prove/request-set.ts";
import { type LoggedRequest, readHar, readLine } from "../../src/replay/logged.ts";
import { nameOf, Router, routeBoth } from "../../src/replay/routing.ts";
import { folderOf } from "../build/module.ts";
import { Gateway } from "../e2e/gateway.ts";
import { Origin } from "../e2e/origin.ts";
import { explained } from "./shop.ts";

/** PORTCULLIS_RUNS draws more tables. */
const TABLES = Number(process.env.PORTCULLIS_RUNS ?? 1);

const PATHS = [
  '"/*"',
  '"/a"',
  '"/a/"',
  '"/a/*"',
  '"/{p}"',
  '"/{p}/b"',
  '"/a/{p}/*"',
  '"/caf%C3%A9"',
  '"/caf%C3%A9/*"',
  '"/a;v=1"',
  '"/constructor"',
  "/\\/a\\/[^/]+/",
  "/\\/[a-c\\d]+/",
  "/\\/A\\/b/i",
  "/\\/a\\/(?:b|c)\\/.*/",
  "/\\/(?:%[0-9A-F]{2})+/",
  "/\\/caf%C3%A9\\/[\\w-]{1,5}/",
  "/\\/.*\\.(?:png|jpe?g)/",
  "/\\/a|\\/b\\/.+/",
];
const VALUES = ["true", '"1"', '"é"', '"a b"', "/[a-z]+/", "/[^a]*/", "/1|é/", "/K/i", "/\\S+ \\S+/"];
const part = (name: string) =>
  fc.option(
    fc.constantFrom(...VALUES).map((value) => `${name}: ${value}`),
    { nil: "", freq: 4 },
  );
const route = fc.record({
  api: fc.nat(3),
  path: fc.constantFrom(...PATHS),
  methods: fc.option(fc.subarray(["GET", "POST", "HEAD", "OPTIONS", "PURGE"], { minLength: 1 }), { nil: undefined }),
  headers: fc.oneof(
    part('"x-h"'),
    part("origin"),
    fc.constant('origin: true, "access-control-request-method": "POST"'),
  ),
  query: part('"q[]"'),
  cookies: part("c"),
});
type Route = typeof route extends fc.Arbitrary<infer Value> ? Value : never;

const HOSTS = ['["a.test"]', '["*.a.test", "b.test"]', '["*.test"]', "undefined"];

const moduleOf = (routes: readonly (Route | undefined)[]): string => `
import { api, cluster, cors, env, gateway, route, secret } from "portcullis";
const eu = cluster("eu", { ingress: env("EU") });
export default gateway({ debug: secret("DEBUG_KEY") }, [${HOSTS.map((hosts, number) => {
  const own = routes.flatMap((one, i) => {
    if (one?.api !== number) return [];
    const { path, methods, headers, query, cookies } = one;
    const match = `{ path: ${path}, ${methods ? `methods: ${JSON.stringify(methods)},` : ""} headers: { ${headers} }, query: { ${query} }, cookies: { ${cookies} } }`;
    return [
      `route("r${i}", ${match}, { to: eu${i % 3 === 0 ? ', policies: [cors({ origins: ["https://o.test"] })]' : ""} })`,
    ];
  });
  return `api("api${number}", { hosts: ${hosts} }, [${['route("own", { path: "/own" }, { to: eu })', ...own].join(",\n")}])`;
}).join(",\n")}]);`;

/** Without the routes that the build refuses, as two of a kind, or as those that nothing reaches. */
async function accepted(routes: readonly Route[]): Promise<{ text: string; left: number }> {
  let left: readonly (Route | undefined)[] = routes;
  for (;;) {
    const text = moduleOf(left);
    try {
      await compileRoutes({ routes: await folderOf({ "index.ts": text }) });
      return { text, left: left.filter(Boolean).length };
    } catch (error) {
      if (!(error instanceof ConfigurationRefused)) throw error;
      const refused = new Set(error.problems.map(({ subject }) => Number(/\/r(\d+)"/.exec(subject)?.[1])));
      if (!left.some((one, i) => one && refused.has(i))) throw error;
      left = left.map((one, i) => (refused.has(i) ? undefined : one));
    }
  }
}

const SPELLED = [
  "/",
  "/a",
  "/a/",
  "/a/b",
  "/a/c/d.png",
  "/A/b",
  "/x/b",
  "/café",
  "/caf%c3%a9/ab-1",
  "/a;v=1",
  "/%20",
  "/b/",
  "/b/x",
  "/constructor",
  "/own",
  "/a//b",
  "/%2e%2e/a",
  "/a%2fb",
];
const requests = fc.record({
  method: fc.constantFrom("GET", "GET", "HEAD", "POST", "OPTIONS", "OPTIONS", "PURGE", "PUT"),
  host: fc.constantFrom("a.test", "x.a.test", "x.y.a.test", "b.test", "B.test:8080", "test", "other", "a.test."),
  path: fc.constantFrom(...SPELLED),
  query: fc.constantFrom("", "", "?q[]=1", "?q%5B%5D=%C3%A9", "?q[]=a+b", "?q[]", "?q[]=a&q[]=1", "?Q[]=1", "?q[]=%zz"),
  header: fc.option(fc.constantFrom("1", "abc", "k", "\u212A", "a b", "")),
  cookie: fc.option(fc.constantFrom("c=1", "c=abc; d=1", "d=1; c=a b", 'c="1"', "C=1", "c=2; c=1", "c")),
  origin: fc.option(fc.constantFrom("https://o.test", "https://other.test")),
  asks: fc.option(fc.constantFrom("GET", "POST", "HEAD", "X")),
});

const asAsked = ({ place, host, path, method, headers, query, cookies }: ExampleRequest): AskedRequest => {
  const cookie = Object.entries(cookies).map(([name, value]) => `${name}=${value}`);
  const search = Object.entries(query).map((pair) => pair.map(encodeURIComponent).join("="));
  return {
    method,
    url: `${place}://${host}${path}${search.length > 0 ? `?${search.join("&")}` : ""}`.replace(/^https/, "http"),
    headers: [...Object.entries(headers), ...(cookie.length > 0 ? [["cookie", cookie.join("; ")] as const] : [])],
    client: "203.0.113.7",
    cf: {},
  };
};

test(`what is told of odd tables is so`, async () => {
  const cluster = await Origin.start("cluster");
  const texts = { EU: `http://127.0.0.1:${cluster.port}`, DEBUG_KEY: "debug" };
  const seed = inject("fuzzSeed");
  let [examples, drawn] = [0, 0];
  try {
    for (let number = 0; number < TABLES; number++) {
      const [routes = []] = fc.sample(fc.array(route, { minLength: 30, maxLength: 30 }), {
        seed: seed + number,
        numRuns: 1,
      });
      const { text, left } = await accepted(routes as Route[]);
      expect(left).toBeGreaterThan(8);
      const gateway = await Gateway.start({ routes: text, texts });
      try {
        const { table, sources } = await compileRoutes({ routes: await folderOf({ "index.ts": text }) });
        const space = new TableRequests(table);
        const router = new Router(table);
        const ask = async (asked: AskedRequest) => {
          const there = await liveRecord(`http://127.0.0.1:${gateway.port}`, asked, "debug");
          const here = await explained(asked.method, asked.url, asked, { table, sources, texts });
          // The peer's address is another one there.
          expect(differences(here, { ...there, client: here.record.client }), JSON.stringify(asked)).toEqual([]);
          return there;
        };
        for (const [position, { id, matches }] of table.routes.entries())
          for (const match of matches.keys()) {
            const answer = space.answer(position, undefined, match);
            if (answer.kind !== "answers") continue;
            examples++;
            expect((await ask(asAsked(answer.example))).route, JSON.stringify(answer.example)).toBe(id);
          }
        for (const one of fc.sample(requests, { seed: seed + number, numRuns: 150 })) {
          drawn++;
          const headers: [string, string][] = [];
          if (one.header !== null && !/[^\0-\xff]/.test(one.header)) headers.push(["x-h", one.header]);
          if (one.cookie !== null) headers.push(["cookie", one.cookie]);
          if (one.origin !== null) headers.push(["origin", one.origin]);
          if (one.asks !== null) headers.push(["access-control-request-method", one.asks]);
          const url = `http://${one.host}${encodeURI(one.path).replaceAll("%25", "%")}${one.query}`;
          const asked: AskedRequest = { method: one.method, url, headers, client: "203.0.113.7", cf: {} };
          const there = await ask(asked);
          const replayed = nameOf(routeBoth(router, router, inHar(asked)).old);
          const code =
            there.reason === "not-found"
              ? "404"
              : there.reason === "method-not-allowed" || there.reason === "options"
                ? "405"
                : there.reason;
          expect(replayed, JSON.stringify(asked)).toBe(there.route ?? code);
          // The record tells no headers and no query, but who has answered.
          const told = readLine(JSON.stringify(there), "") as LoggedRequest;
          expect(nameOf(routeBoth(router, router, told).old), JSON.stringify(there)).toBe(there.route ?? code);
        }
      } finally {
        await gateway.close();
      }
    }
  } finally {
    await cluster.close();
  }
  console.log(`${examples} examples of the proofs, ${drawn} requests`);
}, 600_000);

/** As a browser would note it. */
function inHar({ method, url, headers }: AskedRequest): LoggedRequest {
  const noted = headers.map(([name, value]) => ({ name, value }));
  const entry = { startedDateTime: "2026-11-28T10:00:00Z", request: { method, url, headers: noted } };
  return readHar(JSON.stringify({ log: { entries: [entry] } }))[0] as LoggedRequest;
}
