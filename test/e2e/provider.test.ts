/** A real provider: its keys found by discovery, its opaque tokens by introspection. */
import { createRemoteJWKSet, jwtVerify } from "jose";
import { afterAll, beforeAll, expect, it } from "vitest";
import { describeWithRealParts, Fixture } from "./fixture.ts";
import { until } from "./process.ts";
import { CLIENT, type RunningProvider, startProvider } from "./provider.ts";

const ROUTES = `
import { anyOf, introspection, oidc, upstreamToken } from "portcullis";
const found = oidc({ issuer: env("PROVIDER"), audience: "https://api.example.com", typ: "at+jwt" });
const warehouse = consumer("warehouse", { claims: { client_id: "warehouse" } });
const asked = introspection({ endpoint: env("INTROSPECTION"), clientId: "${CLIENT.id}", clientSecret: secret("CLIENT_SECRET"),
  issuer: env("PROVIDER"), audience: "https://opaque.example.com", consumers: [warehouse], maxAge: "1s", inactiveFor: "1s", timeout: "1s" });
export default gateway(settings, [
  api("provider", {}, [
    route("found", { path: "/found" }, { policies: [found, scopes("orders:read")], to: origin }),
    route("asked", { path: "/asked" }, { policies: [asked, scopes("orders:read")], to: origin }),
    route("own", { path: "/own" }, { policies: [token, upstreamToken({ endpoint: env("TOKEN"), clientId: "${CLIENT.id}",
      clientSecret: secret("CLIENT_SECRET"), resource: "https://api.example.com", scope: "orders:read", timeout: "1s" })], to: origin }),
    route("either", { path: "/either" }, { policies: [anyOf(found, asked)], to: origin }),
  ]),
]);`;

describeWithRealParts("a provider", () => {
  let provider: RunningProvider;
  let on: Fixture;
  beforeAll(async () => {
    provider = await startProvider();
    on = await Fixture.start({
      routes: ROUTES,
      texts: {
        PROVIDER: provider.issuer,
        INTROSPECTION: provider.introspectionUrl,
        TOKEN: `${provider.issuer}/token`,
        CLIENT_SECRET: CLIENT.secret,
      },
    });
  });
  afterAll(async () => {
    await on?.close();
    await provider?.close();
  });

  const ask = (path: string, token: string) => on.ask(path, { headers: { authorization: `Bearer ${token}` } });

  it("is known by its name alone: metadata, keys, tokens", async () => {
    const answer = await ask("/found", await provider.token("orders:read"));
    expect(answer.status).toBe(200);
    expect(answer.echo().headers).not.toHaveProperty("authorization");
    expect(await on.gateway.recordOf(answer)).toMatchObject({
      subject: `${provider.issuer}|warehouse`,
      credential: { kind: "oidc" },
    });
    expect((await ask("/found", await provider.token("orders:write"))).status).toBe(403);
  });

  it("says what its opaque tokens are worth, once for many requests", async () => {
    const token = await provider.opaqueToken("orders:read");
    const before = provider.introspected();
    const answers = await Promise.all(Array.from({ length: 30 }, () => ask("/asked", token)));
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    expect(provider.introspected() - before).toBe(1);
    expect(answers[0]?.echo().headers).toMatchObject({
      "x-consumer-name": "warehouse",
      "x-consumer-scopes": "orders:read",
    });
    const narrow = await ask("/asked", await provider.opaqueToken("orders:write"));
    expect([narrow.status, narrow.json().missing]).toEqual([403, ["orders:read"]]);
    expect((await ask("/asked", "made-up")).json()).toMatchObject({ code: "token-invalid" });
  });

  it("revokes a token, which is refused within maxAge", async () => {
    const token = await provider.opaqueToken("orders:read");
    expect((await ask("/asked", token)).status).toBe(200);
    await provider.revoke(token);
    const revoked = Date.now();
    await until("the token is refused", async () => (await ask("/asked", token)).status === 401);
    expect(Date.now() - revoked).toBeLessThan(2_000);
  });

  it("has tokens of both kinds on one route", async () => {
    for (const token of [await provider.token("orders:read"), await provider.opaqueToken("orders:read")]) {
      expect((await ask("/either", token)).status).toBe(200);
    }
    expect((await ask("/either", "made-up")).status).toBe(401);
  });

  it("gives the gateway a token of its own for the cluster, once for many requests", async () => {
    const headers = await on.issuer.bearer();
    const answers = await Promise.all(Array.from({ length: 20 }, () => on.ask("/own", { headers })));
    const tokens = new Set(answers.map((answer) => answer.echo().headers.authorization));
    expect([new Set(answers.map(({ status }) => status)), tokens.size]).toEqual([new Set([200]), 1]);
    const [own = ""] = [...tokens].map((text) => text?.replace("Bearer ", ""));
    const { payload } = await jwtVerify(own, createRemoteJWKSet(new URL(provider.jwksUrl)), {
      issuer: provider.issuer,
      audience: "https://api.example.com",
    });
    expect(payload).toMatchObject({ client_id: CLIENT.id, scope: "orders:read" });
  });

  it("that is away means 503 for opaque tokens, none for signed ones, and is back by itself", async () => {
    const [signed, opaque] = [await provider.token("orders:read"), await provider.opaqueToken("orders:read")];
    expect((await ask("/found", signed)).status).toBe(200);
    await provider.pause();
    expect((await ask("/found", await signed)).status).toBe(200);
    for (let i = 0; i < 2; i++) {
      const answer = await ask("/asked", opaque);
      expect([answer.status, answer.json().code]).toEqual([503, "credentials-unavailable"]);
      expect(answer.headers["retry-after"]).toMatch(/^[1-9]\d*$/);
    }
    await provider.listen();
    await until("opaque tokens are good again", async () => (await ask("/asked", opaque)).status === 200);
  });

  it("and its tokens leave no trace in the log", () => {
    expect(on.leaked()).toEqual([]);
    expect(on.gateway.log()).not.toContain(CLIENT.secret);
    expect(on.gateway.log()).not.toContain(btoa(`${CLIENT.id}:${CLIENT.secret}`));
  });
});
