/** What explain says is what the built Worker does, in workerd, for requests of all kinds over the shipped routes. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { resolve } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { AskedRequest } from "../../src/explain/explain.ts";
import { differences, liveRecord } from "../../src/explain/live.ts";
import { Issuer } from "../../src/offline/issuer.ts";
import { gateway as command } from "../cli/run.ts";
import { Gateway } from "../e2e/gateway.ts";
import { Origin } from "../e2e/origin.ts";
import { explained, shop } from "./shop.ts";

const issuer = new Issuer();
const keys = createServer(async (request, response) => {
  const answer = issuer.answer(new Request(`http://keys${request.url}`));
  response.end(await answer?.text());
});
let cluster: Origin;
let gateway: Gateway;
let texts: Record<string, string>;

beforeAll(async () => {
  await new Promise<void>((listening) => keys.listen(0, "127.0.0.1", listening));
  cluster = await Origin.start("cluster");
  texts = {
    EU_INGRESS: `http://127.0.0.1:${cluster.port}`,
    ISSUER_JWKS: `http://127.0.0.1:${(keys.address() as AddressInfo).port}/keys`,
    // Nobody is there: what is counted is counted in the isolate.
    UPSTASH_REDIS_REST_URL: "http://127.0.0.1:9",
    UPSTASH_REDIS_REST_TOKEN: "token",
    DEBUG_KEY: "debug",
    CANARY_KEY: "canary",
  };
  const { privateKey } = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign"]);
  const jwk = await crypto.subtle.exportKey("jwk", privateKey);
  gateway = await Gateway.start({
    routes: `export { default } from ${JSON.stringify(resolve("routes/index.ts"))};`,
    texts: { ...texts, ASSERTION_KEY: JSON.stringify({ ...jwk, alg: "ES256", kid: "a" }) },
    services: { US_CLUSTER: cluster.port },
    cf: true,
  });
});

afterAll(async () => {
  await gateway?.close();
  await cluster?.close();
  keys.close();
});

const now = Math.floor(Date.now() / 1_000);
const token = (more: object) =>
  issuer.token({ iss: "https://login.example.com", aud: "https://api.example.com", exp: now + 600, ...more });
const tokens = [
  token({ sub: "alice", scope: "orders:read orders:write" }),
  token({ sub: "bob", scope: "admin orders:read", client_id: "storefront" }),
  token({ sub: "carol", scope: "orders:write", client_id: "warehouse" }),
  token({ sub: "dora", scope: "orders:read", exp: now - 600 }),
  token({ sub: "eve", aud: "https://other.example.com" }),
  "no.token.atall",
];

const segments = [
  "v1",
  "orders",
  "products",
  "search",
  "feed",
  "api",
  "admin",
  "7",
  "a%20b",
  "%2e%2e",
  "..",
  "",
  "%zz",
];
const likely = [
  "/v1/orders",
  "/v1/orders/7",
  "/v1/products/7",
  "/v1/search",
  "/v1/feed",
  "/admin/users",
  "/api/orders",
];
const requests = fc.record({
  method: fc.constantFrom("GET", "GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE"),
  path: fc.oneof(
    fc.constantFrom(...likely),
    fc.array(fc.constantFrom(...segments), { maxLength: 5 }).map((parts) => `/${parts.join("/")}`),
  ),
  query: fc.constantFrom("", "", "?q=", "?q=keyboards&page=2", "?Q=1", "?q=%3Cscript%3Ealert(1)%3C/script%3E"),
  host: fc.constantFrom("api.example.com", "API.Example.com:8443", "localhost", "127.0.0.1", "www.example.com"),
  token: fc.option(fc.constantFrom(...tokens)),
  key: fc.option(fc.constant("shop_nokey"), { freq: 5 }),
  origin: fc.option(fc.constantFrom("https://shop.example.com", "https://evil.example.com")),
  asks: fc.option(fc.constantFrom("GET", "POST", "PATCH")),
  client: fc.oneof(fc.ipV4(), fc.constantFrom("10.20.0.7", "2001:db8:20::1")),
});

test("for 400 requests the Worker's record is the explained one, and so is what the cluster gets", async () => {
  const routes = new Set<string | undefined>();
  await fc.assert(
    fc.asyncProperty(requests, async ({ method, path, query, host, token, key, origin, asks, client }) => {
      const headers: [string, string][] = [];
      if (token !== null) headers.push(["authorization", `Bearer ${token}`]);
      if (key !== null) headers.push(["x-api-key", key]);
      if (origin !== null) headers.push(["origin", origin]);
      if (asks !== null) headers.push(["access-control-request-method", asks]);
      const asked: AskedRequest = { method, url: `http://${host}${path}${query}`, headers, client, cf: {} };
      cluster.arrived.length = 0;
      const live = { ...asked, headers: [...headers, ["cf-connecting-ip", client] as const] };
      const there = await liveRecord(`http://127.0.0.1:${gateway.port}`, live, "debug");
      // What was counted before is not known here.
      if (there.reason === "rate-limited") return;
      const here = await explained(method, asked.url, asked, { ...shop, texts });
      routes.add(here.route?.id);
      expect(differences(here, there)).toEqual([]);
      expect(here.upstream.map(({ url }) => url.replace(/^\w+:\/\/[^/]*/, ""))).toEqual(
        cluster.arrived.map(({ url }) => url),
      );
      for (const [i, sent] of here.upstream.entries()) {
        const arrived = cluster.arrived[i]?.headers ?? {};
        for (const [name, value] of sent.headers)
          if (/^x-(?:consumer|forwarded|user|real)/.test(name)) expect([name, arrived[name]]).toEqual([name, value]);
        expect("authorization" in arrived).toBe(sent.headers.some(([name]) => name === "authorization"));
      }
    }),
    { numRuns: 400 },
  );
  expect(routes.size).toBe(shop.table.routes.length + 1);
});

test("the command compares with a gateway that runs, from wherever that sees the request come", async () => {
  const live = ["--live", `http://127.0.0.1:${gateway.port}`];
  const asked = ["explain", "GET", "http://api.example.com/v1/search?q=a", ...live];
  const { code, out, err } = await command(asked, { env: { DEBUG_KEY: "debug" } });
  expect(err).toBe("");
  expect(out).toContain("same  http://127.0.0.1:");
  expect(code).toBe(0);
  const other = await command([...asked, "--client", "203.0.113.8", "--json"], { env: { DEBUG_KEY: "debug" } });
  expect(other.code).toBe(1);
  expect(JSON.parse(other.out).differences.map(({ field }: { field: string }) => field)).toContain("client");
});

test("a gateway that runs other routes is told apart, and one that does not know the secret", async () => {
  const asked: AskedRequest = {
    method: "GET",
    url: "http://api.example.com/v1/orders",
    headers: [],
    client: "203.0.113.7",
    cf: {},
  };
  const there = await liveRecord(`http://127.0.0.1:${gateway.port}`, asked, "debug");
  const without = { ...shop.table, id: "other", routes: shop.table.routes.filter(({ id }) => id !== "orders/list") };
  const here = await explained("GET", asked.url, asked, { ...shop, table: without, texts });
  expect(differences(here, there)).toMatchObject([
    { field: "table", here: "other", there: shop.table.id },
    { field: "route", here: undefined, there: "orders/list" },
    { field: "reason", here: "method-not-allowed", there: "token-missing" },
    { field: "policies" },
    { field: "status", here: 405, there: 401 },
    { field: "client" },
  ]);
  await expect(liveRecord(`http://127.0.0.1:${gateway.port}`, asked, "wrong")).rejects.toThrow("without a record");
});
