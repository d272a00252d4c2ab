/** A request from the client to the cluster and back, with every policy on its way, and the answers that the gateway gives itself. */
import { createLocalJWKSet, jwtVerify } from "jose";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { describeWithRealParts, Fixture, secrets } from "./fixture.ts";
import { AUDIENCE, forge, ISSUER } from "./issuer.ts";
import { type RunningProvider, startProvider } from "./provider.ts";

const ROUTES = `
import { basicAuth } from "hono/basic-auth";
import { poweredBy } from "hono/powered-by";
const hosts = ["api.example.com"];
const canary = split(
  { stable: eu.service("orders").weight(1), canary: eu.service("orders-next").weight(1) },
  { sticky: "subject", override: { header: "x-canary", secret: secret("CANARY_KEY") } },
);
const providerToken = jwt({ issuer: env("PROVIDER"), audience: "${AUDIENCE}", jwks: env("PROVIDER_JWKS"), typ: "at+jwt" });
const shop = cors({ origins: ["https://shop.example.com"], credentials: true, expose: ["x-request-id"] });

export default gateway({ ...settings, policies: [requestId({}), securityHeaders({})] }, [
  api("orders", { hosts, policies: [token, shop] }, [
    route("list", { path: "/v1/orders", methods: ["GET"] }, { policies: [scopes("orders:read")], to: canary }),
    route("create", { path: "/v1/orders", methods: ["POST"] },
      { policies: [scopes("orders:write"), rateLimit({ per: "consumer", limit: 2, window: "1d" })], to: eu.service("orders") }),
    route("read", { path: "/v1/orders/{id}", methods: ["GET"] }, { to: us.service("orders") }),
  ]),
  api("partners", { hosts, policies: [providerToken] }, [
    route("list", { path: "/partners/orders", methods: ["GET"] }, { policies: [scopes("orders:read")], to: us.service("orders") }),
  ]),
  api("middleware", { hosts }, [
    route("marked", { path: "/marked" }, { policies: [without("securityHeaders"), poweredBy({ serverName: "the shop" })], to: us }),
    route("guarded", { path: "/guarded" }, { policies: [basicAuth({ username: "ann", password: "right" })], to: us }),
    route("rewritten", { path: "/rewritten" }, { to: us, policies: [async (c, next) => {
      await next();
      c.res = Response.json({ servedBy: (await c.res.json()).servedBy, route: c.get("exchange").route.id });
    }] }),
  ]),
  api("site", { hosts }, [
    route("everything", { path: "/site/*" }, { to: us }),
    route("moved", { path: "/api/*" }, { to: redirect({ status: 308, path: { prefix: "/v1" } }) }),
    route("office", { path: "/office/*" }, { policies: [ipFilter({ allow: ["10.0.0.0/8"] })], to: us }),
  ]),
]);`;

describeWithRealParts("a request", () => {
  let provider: RunningProvider;
  let on: Fixture;
  beforeAll(async () => {
    provider = await startProvider();
    on = await Fixture.start({ routes: ROUTES, texts: { PROVIDER: provider.issuer, PROVIDER_JWKS: provider.jwksUrl } });
  });
  afterAll(async () => {
    await on?.close();
    await provider?.close();
  });

  const reader = { sub: "user-1", scope: "orders:read", client_id: "storefront", email: "ann@example.com" };

  describe("that is let through", () => {
    it("reaches the service behind the ingress, and says who sent it", async () => {
      const answer = await on.ask("/v1/orders?limit=2&q=a%20b", { headers: await on.issuer.bearer(reader) });
      expect(answer.status).toBe(200);
      const echo = answer.echo();
      const { arm } = await on.gateway.recordOf(answer);
      const service = arm === "canary" ? "orders-next" : "orders";
      expect(echo).toMatchObject({
        servedBy: `eu/${service}`,
        method: "GET",
        url: `/${service}/v1/orders?limit=2&q=a%20b`,
      });
      expect(echo.headers).toMatchObject({
        "x-ingress": "eu",
        host: `127.0.0.1:${on.eu.port}`,
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-host": "api.example.com",
        "x-forwarded-proto": "http",
        "x-real-ip": "127.0.0.1",
        "x-request-id": answer.headers["x-request-id"],
        "x-consumer-name": "storefront",
        "x-consumer-subject": "user-1",
        "x-consumer-scopes": "orders:read",
        "x-user-id": "user-1",
        "x-user-email": "ann@example.com",
      });
    });

    it("is recorded with everything that was decided", async () => {
      const answer = await on.ask("/v1/orders?secret=in-the-query", { headers: await on.issuer.bearer(reader) });
      const record = await on.gateway.recordOf(answer);
      const backend = answer.headers["x-portcullis-arm"] === "canary" ? "eu/orders-next" : "eu/orders";
      expect(record).toEqual({
        v: 1,
        time: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
        id: answer.headers["x-request-id"],
        table: expect.stringMatching(/^[0-9a-f]{16}$/),
        method: "GET",
        host: "api.example.com",
        path: "/v1/orders",
        client: "127.0.0.1",
        route: "orders/list",
        credential: { kind: "jwt" },
        consumer: "storefront",
        subject: `${ISSUER}|user-1`,
        policies: [
          { policy: "jwt", verdict: "pass", facts: { kid: "first" } },
          { policy: "scopes", verdict: "pass" },
        ],
        arm: answer.headers["x-portcullis-arm"],
        armBy: "subject",
        backend,
        attempts: [{ backend, status: 200, ms: expect.any(Number) }],
        status: 200,
        upstreamMs: expect.any(Number),
        totalMs: expect.any(Number),
      });
      expect(on.gateway.log()).not.toContain("in-the-query");
    });

    it("carries an assertion that the gateway's published keys verify, made for that cluster alone", async () => {
      const published = (await on.ask("/.well-known/portcullis/jwks.json")).json();
      expect(published.keys).toHaveLength(1);
      expect(published.keys[0]).not.toHaveProperty("d");
      const headers = await on.issuer.bearer(reader);
      for (const [path, cluster] of [
        ["/v1/orders", "eu"],
        ["/v1/orders/7", "us"],
      ] as const) {
        const { headers: came } = (await on.ask(path, { headers })).echo();
        const { payload, protectedHeader } = await jwtVerify(
          came["x-portcullis-assertion"] as string,
          createLocalJWKSet(published),
          { issuer: AUDIENCE, audience: cluster, typ: "portcullis-assertion+jwt", requiredClaims: ["exp", "iat"] },
        );
        expect(payload).toMatchObject({
          consumer: "storefront",
          sub: `${ISSUER}|user-1`,
          scope: reader.scope,
          credential: "jwt",
        });
        expect((payload.exp as number) - (payload.iat as number)).toBeLessThanOrEqual(60);
        expect(protectedHeader.kid).toBe(published.keys[0].kid);
      }
      const anonymous = (await on.ask("/site/x")).echo().headers["x-portcullis-assertion"] as string;
      const { payload } = await jwtVerify(anonymous, createLocalJWKSet(published), {
        issuer: AUDIENCE,
        audience: "us",
      });
      expect(payload).not.toHaveProperty("sub");
    });

    it("keeps its Host through a binding, where the ingress routes by it", async () => {
      const { servedBy, headers, url } = (await on.ask("/site/a/b")).echo();
      expect({ servedBy, url }).toEqual({ servedBy: "us/orders", url: "/site/a/b" });
      expect(headers).toMatchObject({ "x-ingress": "us", host: "api.example.com" });
    });

    it("names a service behind a binding by Host", async () => {
      const { servedBy, headers, url } = (
        await on.ask("/v1/orders/7", { headers: await on.issuer.bearer(reader) })
      ).echo();
      expect({ servedBy, url }).toEqual({ servedBy: "us/orders", url: "/v1/orders/7" });
      expect(headers).toMatchObject({ host: "orders.us.shop.internal", "x-forwarded-host": "api.example.com" });
    });

    it("passes with a token of a real authorisation server", async () => {
      const bearer = { authorization: `Bearer ${await provider.token("orders:read")}` };
      const answer = await on.ask("/partners/orders", { headers: bearer });
      expect(answer.status).toBe(200);
      expect(answer.echo().headers).toMatchObject({
        "x-consumer-subject": "warehouse",
        "x-consumer-scopes": "orders:read",
      });
      expect((await on.gateway.recordOf(answer)).subject).toBe(`${provider.issuer.replace("|", "%7C")}|warehouse`);
      const narrow = { authorization: `Bearer ${await provider.token("orders:write")}` };
      expect((await on.ask("/partners/orders", { headers: narrow })).status).toBe(403);
      // Of another issuer, however good.
      expect((await on.ask("/partners/orders", { headers: await on.issuer.bearer(reader) })).status).toBe(401);
    });

    it("is answered with what remains of its limit, and with 429 when nothing does", async () => {
      const headers = await on.issuer.bearer({ sub: "buyer", scope: "orders:write", client_id: "buyer" });
      const create = () => on.ask("/v1/orders", { method: "POST", headers, body: "{}" });
      const [first, second, third] = [await create(), await create(), await create()];
      expect(first.headers).toMatchObject({ "ratelimit-policy": '"default";q=2;w=86400' });
      expect(first.headers.ratelimit).toMatch(/^"default";r=1;t=\d+$/);
      expect(second.headers.ratelimit).toMatch(/^"default";r=0;t=\d+$/);
      expect([first.status, second.status, third.status]).toEqual([200, 200, 429]);
      expect(third.headers["retry-after"]).toMatch(/^[1-9][0-9]*$/);
      expect(Number(third.headers["retry-after"])).toBeLessThanOrEqual(2 * 86_400);
      expect(third.headers.ratelimit).toMatch(/^"default";r=0;t=\d+$/);
      expect(third.json()).toMatchObject({ status: 429, code: "rate-limited", "violated-policies": ["default"] });
      expect(await on.gateway.recordOf(third)).toMatchObject({ status: 429, reason: "rate-limited", attempts: [] });
    });
  });

  describe("that is refused", () => {
    const problem = (code: string, status: number) => ({
      type: `urn:portcullis:problem:${code}`,
      title: expect.any(String),
      status,
      code,
    });

    it.each([
      ["without a token", {}, 401, "token-missing", /^Bearer realm="orders"$/],
      [
        "with a forged token",
        { authorization: `Bearer ${forge({ alg: "none" }, { sub: "root" })}` },
        401,
        "token-invalid",
        /error="invalid_token"/,
      ],
    ])("%s is told so as a problem document", async (_, headers, status, code, challenge) => {
      const answer = await on.ask("/v1/orders", { headers });
      expect(answer.status).toBe(status);
      expect(answer.headers["content-type"]).toBe("application/problem+json");
      expect(answer.headers["www-authenticate"]).toMatch(challenge);
      expect(answer.json()).toMatchObject({
        ...problem(code, status),
        instance: `urn:portcullis:request:${answer.headers["x-request-id"]}`,
      });
      expect(await on.gateway.recordOf(answer)).toMatchObject({
        status,
        reason: code,
        route: "orders/list",
        attempts: [],
      });
    });

    it("for want of a scope gets 403 and hears which", async () => {
      const answer = await on.ask("/v1/orders", { headers: await on.issuer.bearer({ scope: "profile" }) });
      expect(answer.status).toBe(403);
      expect(answer.json()).toMatchObject({ ...problem("scope-missing", 403), missing: ["orders:read"] });
      expect(answer.headers["www-authenticate"]).toMatch(/error="insufficient_scope".*scope="orders:read"/);
    });

    it("by its address gets 403", async () => {
      const answer = await on.ask("/office/door");
      expect([answer.status, answer.json().code]).toEqual([403, "address-denied"]);
      const near = await on.ask("/office/door", { headers: { "cf-connecting-ip": "10.1.2.3" } });
      expect(near.status).toBe(200);
    });

    it.each([
      ["/nowhere", "api.example.com"],
      ["/v1/orders", "unknown.example.com"],
      ["/v1/orders/7/8", "api.example.com"],
      ["/v1/ordersx", "api.example.com"],
    ])("because no route matches %s at %s gets 404", async (path, host) => {
      const answer = await on.ask(path, { host });
      expect(answer.json()).toMatchObject(problem("not-found", 404));
      expect(answer.status).toBe(404);
      expect(await on.gateway.recordOf(answer)).toMatchObject({ reason: "not-found", status: 404 });
    });

    it("for its method gets 405 and Allow", async () => {
      for (const method of ["DELETE", "PUT", "PATCH"]) {
        const answer = await on.ask("/v1/orders", { method });
        expect(answer.status).toBe(405);
        expect(answer.headers.allow).toBe("GET, HEAD, POST");
        expect(answer.json()).toMatchObject(problem("method-not-allowed", 405));
      }
      const options = await on.ask("/v1/orders", { method: "OPTIONS" });
      expect([options.status, options.headers.allow]).toEqual([204, "GET, HEAD, POST, OPTIONS"]);
    });

    it("carries the same security headers and the request's id as an answer from the cluster", async () => {
      const shared = [
        "x-content-type-options",
        "referrer-policy",
        "content-security-policy",
        "strict-transport-security",
      ];
      const answers = [
        await on.ask("/site/x"),
        await on.ask("/nowhere"),
        await on.ask("/v1/orders"),
        await on.ask("/api/x"),
      ];
      expect(answers.map(({ status }) => status)).toEqual([200, 404, 401, 308]);
      for (const { headers } of answers) {
        for (const name of shared) expect(headers[name], name).toBe(answers[0]?.headers[name]);
        expect(headers["x-content-type-options"]).toBe("nosniff");
        expect(headers["x-request-id"]).toMatch(/^[0-9a-f-]{36}$/);
        expect(headers).not.toHaveProperty("server");
      }
    });
  });

  describe("across origins", () => {
    const origin = "https://shop.example.com";
    const preflight = (from: string, method: string, path = "/v1/orders") =>
      on.ask(path, {
        method: "OPTIONS",
        headers: {
          origin: from,
          "access-control-request-method": method,
          "access-control-request-headers": "authorization",
        },
      });

    it("is announced by a preflight, which needs no token and never reaches the cluster", async () => {
      const before = on.origins["eu/orders"].arrived.length;
      const answer = await preflight(origin, "POST");
      expect(answer.status).toBe(204);
      expect(answer.headers).toMatchObject({
        "access-control-allow-origin": origin,
        "access-control-allow-methods": "POST",
        "access-control-allow-headers": "authorization",
        "access-control-allow-credentials": "true",
        "access-control-max-age": "5",
      });
      expect(answer.headers.vary).toContain("Origin");
      expect(await on.gateway.recordOf(answer)).toMatchObject({
        reason: "preflight",
        status: 204,
        route: "orders/create",
      });
      expect(on.origins["eu/orders"].arrived.length).toBe(before);
    });

    it("from a stranger gets no CORS headers", async () => {
      for (const answer of [
        await preflight("https://evil.example.com", "POST"),
        await preflight("https://shop.example.com.evil.io", "GET"),
      ]) {
        expect(Object.keys(answer.headers).filter((name) => name.startsWith("access-control-"))).toEqual([]);
      }
    });

    it("is readable for the page also when it is refused", async () => {
      const answer = await on.ask("/v1/orders", { headers: { origin } });
      expect([answer.status, answer.headers["access-control-allow-origin"]]).toEqual([401, origin]);
    });
  });

  describe("past middleware of Hono's", () => {
    it("has its answer changed by it", async () => {
      const marked = await on.ask("/marked");
      expect([marked.headers["x-powered-by"], marked.echo().servedBy]).toEqual(["the shop", "us/orders"]);
      expect((await on.ask("/rewritten")).json()).toEqual({ servedBy: "us/orders", route: "middleware/rewritten" });
    });

    it("is refused by it, with a record", async () => {
      const wrong = await on.ask("/guarded", { headers: { authorization: `Basic ${btoa("ann:wrong")}` } });
      expect([wrong.status, wrong.headers["www-authenticate"]]).toEqual([401, 'Basic realm="Secure Area"']);
      expect(wrong.headers["x-content-type-options"]).toBe("nosniff");
      expect(await on.gateway.recordOf(wrong)).toMatchObject({ reason: "policy", status: 401, attempts: [] });
      const right = await on.ask("/guarded", { headers: { authorization: `Basic ${btoa("ann:right")}` } });
      expect(right.status).toBe(200);
    });
  });

  it("for the old API is sent to the new one, with its method and query", async () => {
    const answer = await on.ask("/api/orders/7?x=1&y=%2F", { method: "POST", body: "{}" });
    expect([answer.status, answer.headers.location]).toEqual([308, "http://api.example.com/v1/orders/7?x=1&y=%2F"]);
    expect(await on.gateway.recordOf(answer)).toMatchObject({ reason: "redirect", route: "site/moved" });
  });

  describe("with the debug header", () => {
    it("shows its record to who knows the secret, and to nobody else", async () => {
      const shown = await on.ask("/site/x", { headers: { "x-portcullis-debug": secrets.debug } });
      const record = JSON.parse(shown.headers["x-portcullis-record"] as string);
      expect(record).toEqual(await on.gateway.recordOf(shown));
      expect(shown.echo().headers).not.toHaveProperty("x-portcullis-debug");
      for (const wrong of ["", "1", "true", secrets.debug.slice(1), `${secrets.debug}x`, secrets.canary]) {
        const answer = await on.ask("/site/x", { headers: { "x-portcullis-debug": wrong } });
        expect(answer.headers).not.toHaveProperty("x-portcullis-record");
      }
    });

    it("shows why also when it is refused", async () => {
      for (const path of ["/nowhere", "/v1/orders", "/site/%zz"]) {
        const answer = await on.ask(path, { headers: { "x-portcullis-debug": secrets.debug } });
        expect(JSON.parse(answer.headers["x-portcullis-record"] as string).reason).toBe(answer.json().code);
      }
    });
  });

  it("to the gateway itself tells its health and its table", async () => {
    const health = await on.ask("/.well-known/portcullis/health");
    expect(health.json()).toEqual({ status: "ok", table: on.gateway.records[0]?.table });
    const wrong = await on.ask("/.well-known/portcullis/health", { method: "POST" });
    expect([wrong.status, wrong.headers.allow]).toEqual([405, "GET, HEAD"]);
    expect((await on.ask("/.well-known/portcullis/else")).json().code).toBe("not-found");
  });

  it("leaves no secret in the log", () => {
    expect(on.gateway.records.length).toBeGreaterThan(30);
    expect(on.leaked()).toEqual([]);
  });
});
