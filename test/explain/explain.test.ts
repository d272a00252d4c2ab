import { stripVTControlCharacters } from "node:util";
import { expect, test } from "vitest";
import { compileRoutes } from "../../src/build/compile.ts";
import { painter } from "../../src/dev/paint.ts";
import { explanationText } from "../../src/explain/text.ts";
import { Issuer } from "../../src/offline/issuer.ts";
import { folderOf, PRELUDE } from "../build/module.ts";
import { explained } from "./shop.ts";

const storefront = { consumer: "storefront", scopes: ["orders:read", "orders:write"] };

test("tells the route, where it is declared, the limiter's key and the exact request to the cluster", async () => {
  const { route, policies, upstream, answer } = await explained("POST", "/v1/orders?draft=1", {
    as: storefront,
    body: "{}",
    headers: [["Content-Type", "application/json"]],
  });
  expect(route).toMatchObject({ id: "orders/create", match: "POST /v1/orders" });
  expect(route?.source).toMatch(/^routes\/orders\.ts:\d+$/);
  expect(policies.map(({ policy, verdict }) => `${policy} ${verdict}`)).toEqual([
    "requestId applies",
    "securityHeaders applies",
    "cors applies",
    "jwt pass",
    "scopes pass",
    "rateLimit pass",
    "filter pass",
  ]);
  expect(policies.find(({ policy }) => policy === "rateLimit")?.limits).toEqual([
    { name: "default", key: "limit:orders/create:default:5/1m:consumer=storefront", remaining: 4 },
  ]);
  expect(upstream).toHaveLength(1);
  expect(upstream[0]).toMatchObject({
    backend: "eu/orders",
    method: "POST",
    url: "https://ingress.eu.shop.example.com/orders/v1/orders?draft=1",
    bytes: 2,
  });
  expect(Object.fromEntries(upstream[0]?.headers ?? [])).toMatchObject({
    "x-consumer-name": "storefront",
    "x-forwarded-for": "203.0.113.7",
    "content-type": "application/json",
  });
  expect(answer.status).toBe(200);
});

test("a consumer's own limit goes by that consumer", async () => {
  const { policies } = await explained("POST", "/v1/orders", { as: { ...storefront, consumer: "warehouse" } });
  const limit = policies.find(({ policy }) => policy === "rateLimit");
  expect(limit?.inputs[0]).toBe("500 per 1m for warehouse");
  expect(limit?.limits?.[0]?.remaining).toBe(499);
});

test("who lacks a scope learns which, and what comes after is not reached", async () => {
  const { answer, policies, upstream } = await explained("POST", "/v1/orders", { as: { consumer: "storefront" } });
  expect(answer).toMatchObject({ status: 403, reason: "scope-missing" });
  expect(policies.find(({ policy }) => policy === "scopes")).toMatchObject({
    verdict: "deny",
    inputs: ["wants orders:write", "caller has none"],
    facts: { missing: ["orders:write"] },
  });
  expect(policies.slice(-2).map(({ verdict }) => verdict)).toEqual(["skipped", "skipped"]);
  expect(upstream).toEqual([]);
});

test("a nearer route that lost, and what the request would have needed", async () => {
  const { route, lost } = await explained("GET", "/v1/products/7");
  expect(route?.id).toBe("catalog/products");
  expect(lost).toMatchObject([{ route: "partners/products", lacks: ["header x-api-key is absent"] }]);
  const partner = await explained("GET", "/v1/products/7", {
    headers: [["x-api-key", "whatever"]],
    as: { consumer: "price-watch" },
  });
  expect(partner.route?.id).toBe("partners/products");
  expect(partner.behind).toMatchObject([{ route: "catalog/products", behind: "it asks for fewer headers" }]);
});

test("a route that another host keeps from answering is told once, and that it is for the host", async () => {
  const text = `${PRELUDE}
const one = api("one", { hosts: ["a.example.com", "*.example.com"] }, [route("any", { path: "/v1/*" }, { to: eu }), route("x", { path: "/v1/x/*" }, { to: eu })]);
const wide = api("wide", { hosts: ["*.example.com"] }, [route("exact", { path: "/v1/x" }, { to: eu })]);
export default gateway({}, [one, wide]);`;
  const folder = await folderOf({ "index.ts": text });
  const { table, sources } = await compileRoutes({ routes: folder });
  const { route, behind } = await explained("GET", "https://a.example.com/v1/x", {}, { table, sources, texts: {} });
  expect(route?.id).toBe("one/x");
  expect(behind.map(({ route, behind }) => `${route}: ${behind}`)).toEqual([
    "one/any: its path /v1/* is less specific",
    "wide/exact: its host *.example.com is less specific",
  ]);
});

test("no route: the nearest ones, and what is missing", async () => {
  const typo = await explained("GET", "/v1/order");
  expect(typo.answer).toMatchObject({ status: 404, reason: "not-found" });
  expect(typo.nearest[0]).toMatchObject({
    route: "orders/list",
    lacks: ["path has /order where /orders is wanted"],
  });
  const query = await explained("GET", "/v1/search");
  expect(query.nearest).toMatchObject([{ route: "catalog/search", lacks: ["query q is absent"] }]);
  const host = await explained("GET", "https://www.example.com/v1/orders");
  expect(host.nearest[0]?.lacks[0]).toBe("host is www.example.com, wants 127.0.0.1 or api.example.com or localhost");
  const method = await explained("DELETE", "/v1/orders");
  expect(method.answer).toMatchObject({ status: 405, reason: "method-not-allowed" });
  expect(method.nearest.map(({ lacks }) => lacks[0])).toEqual([
    "method is DELETE, wants POST",
    "method is DELETE, wants GET",
  ]);
});

test("a preflight is for the route of the request that it asks about, HEAD for the one that answers GET", async () => {
  const headers = [
    ["Origin", "https://shop.example.com"],
    ["Access-Control-Request-Method", "POST"],
  ] as const;
  const preflight = await explained("OPTIONS", "/v1/orders", { headers });
  expect(preflight).toMatchObject({ route: { id: "orders/create" }, answer: { status: 204, reason: "preflight" } });
  expect((await explained("HEAD", "/v1/search?q=a")).route?.id).toBe("catalog/search");
});

test("a redirect says whereto, and a spelling of a path what it means", async () => {
  expect((await explained("GET", "/api//orders/../products?a=1")).answer).toMatchObject({
    status: 308,
    reason: "redirect",
    location: "https://api.example.com/v1/products?a=1",
  });
  expect((await explained("GET", "/%zz")).answer).toMatchObject({ status: 400, reason: "path-escape-invalid" });
});

test("of a token all but the signature is checked, unless the issuer may be asked", async () => {
  const stranger = new Issuer();
  const now = Math.floor(Date.now() / 1_000);
  const claims = {
    iss: "https://login.example.com",
    aud: "https://api.example.com",
    sub: "alice",
    scope: "orders:read",
  };
  const bearer = (more: object) =>
    explained("GET", "/v1/orders", {
      headers: [
        ["Authorization", `Bearer ${stranger.token({ ...claims, exp: now + 60, ...more }, { kid: "theirs" })}`],
      ],
    });
  const good = await bearer({ client_id: "storefront" });
  expect(good.record).toMatchObject({ consumer: "storefront", subject: "https://login.example.com|alice" });
  expect(good.arm?.by).toBe("subject");
  expect(good.assumptions[0]).toContain("signature");
  expect((await bearer({ exp: now - 60 })).answer.reason).toBe("token-expired");
  expect((await bearer({ aud: "https://other.example.com" })).answer).toMatchObject({
    reason: "token-invalid",
    detail: "the token is for another audience",
  });
});

test("what lets somebody in is not told, nor what stands in for a secret", async () => {
  const explanation = await explained("GET", "/v1/orders", {
    as: storefront,
    headers: [
      ["Cookie", "session=verysecret"],
      ["X-Canary", "canary:guess"],
    ],
  });
  const told = JSON.stringify(explanation) + explanationText(explanation, painter(false), true);
  expect(told).not.toContain("verysecret");
  expect(told).not.toContain("guess");
  expect(told).not.toContain("eyJ");
});

test("the text for a person: what it comes to, and why", async () => {
  const { record: _, ...explanation } = await explained("GET", "/v1/orders/7", { as: { consumer: "storefront" } });
  const text = explanationText({ ...explanation, record: _ }, painter(true));
  expect(text).toContain("\u001b[");
  const lines = stripVTControlCharacters(text).split("\n");
  expect(lines[0]).toBe("GET https://api.example.com/v1/orders/7  as storefront  from 203.0.113.7");
  expect(lines).toContain("answer    403  scope-missing  The token lacks a scope");
  expect(text).toContain("deny scope-missing");
});

test("a table alone has the rules of filter, which are always the same", async () => {
  const { answer, policies } = await explained("GET", "/v1/catalog?q=1%27+or+%271%27=%271");
  expect(answer).toMatchObject({ status: 403, reason: "request-filtered" });
  expect(policies.find(({ policy }) => policy === "filter")).toMatchObject({
    verdict: "deny",
    facts: { score: 5, rules: [{ id: "sqli-tautology", target: "query:q" }] },
  });
});
