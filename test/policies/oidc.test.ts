import { afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { env } from "../../src/config/values.ts";
import { compile, type OidcOptions, run, schema } from "../../src/policies/oidc.ts";
import { compileContext, startPolicy } from "./exchange.ts";
import { AUDIENCE, ISSUER, JWKS, type Key, makeKey, NOW, sign } from "./issuer.ts";

const METADATA = "https://login.example.com/.well-known/openid-configuration";
const metadata = { issuer: ISSUER, jwks_uri: JWKS, authorization_endpoint: "https://login.example.com/authorize" };

let key: Key;
let other: Key;
beforeAll(async () => {
  key = await makeKey("key");
  other = await makeKey("other");
});
afterEach(() => {
  vi.restoreAllMocks();
});

/** The policy before an issuer that answers as `documents` say, by address. */
function start(options: Partial<OidcOptions> = {}, environment: Record<string, string> = {}) {
  const documents = new Map<string, () => unknown>([
    [METADATA, () => metadata],
    [JWKS, () => ({ keys: [key.jwk] })],
  ]);
  const asked: string[] = [];
  vi.spyOn(globalThis, "fetch").mockImplementation(async (input) => {
    asked.push(String(input));
    const document = documents.get(String(input))?.();
    return document instanceof Response ? document : Response.json(document ?? {}, { status: document ? 200 : 404 });
  });
  const context = compileContext();
  const config = compile({ issuer: ISSUER, audience: AUDIENCE, ...options }, context);
  expect(context.problems).toEqual([]);
  const clock = { now: NOW * 1_000 };
  const send = startPolicy(run, config, { env: environment, now: () => clock.now });
  const bearer = (token: string) =>
    send(new Request("https://api.example.com/", { headers: { authorization: `Bearer ${token}` } }));
  return { documents, asked, clock, bearer };
}

test("finds the issuer's keys by its metadata, once", async () => {
  const { bearer, asked } = start();
  for (let i = 0; i < 3; i++) {
    const { exchange, passed } = await bearer(await sign(key, { jti: `${i}` }));
    expect([passed, exchange.caller?.credential, exchange.record.policies[0]?.policy]).toEqual([
      true,
      { kind: "oidc" },
      "oidc",
    ]);
  }
  expect(asked).toEqual([METADATA, JWKS]);
});

test("takes the issuer from the environment, with and without a slash at its end", async () => {
  const { bearer, documents } = start({ issuer: env("ISSUER") }, { ISSUER: "https://login.example.com" });
  documents.set(METADATA, () => ({ ...metadata, issuer: "https://login.example.com" }));
  expect((await bearer(await sign(key, { iss: "https://login.example.com" }))).passed).toBe(true);
  expect((await bearer(await sign(key))).response.status).toBe(401);
});

test("follows an issuer that moves its keys", async () => {
  const { bearer, documents, clock } = start({ keySet: { maxAge: "10m" } });
  expect((await bearer(await sign(key))).passed).toBe(true);
  documents.set(METADATA, () => ({ ...metadata, jwks_uri: "https://keys.example.com/" }));
  documents.set("https://keys.example.com/", () => ({ keys: [other.jwk] }));
  documents.delete(JWKS);
  clock.now += 30_000;
  const token = await sign(other);
  expect((await bearer(token)).passed).toBe(true);
});

test("keeps the keys, and their address, while the metadata are not to be had", async () => {
  const { bearer, documents, clock } = start();
  expect((await bearer(await sign(key))).passed).toBe(true);
  documents.set(METADATA, () => new Response("", { status: 500 }));
  documents.set(JWKS, () => ({ keys: [other.jwk] }));
  clock.now += 30_000;
  expect((await bearer(await sign(other))).passed).toBe(true);
});

test.each<[string, unknown]>([
  ["of another issuer", { ...metadata, issuer: "https://evil.example.com/" }],
  ["of nobody", {}],
  ["null", null],
  ["with keys at a plain http address", { ...metadata, jwks_uri: "http://login.example.com/keys" }],
  ["with keys at no address", { ...metadata, jwks_uri: { a: 1 } }],
  ["without keys", { issuer: ISSUER }],
  ["that are a redirect", Response.redirect("https://evil.example.com/")],
  ["that are no JSON", new Response("<html>")],
])("believes no metadata %s", async (_, document) => {
  const { bearer, documents, asked } = start();
  documents.set(METADATA, () => (document instanceof Response ? document.clone() : Response.json(document)));
  const { response } = await bearer(await sign(key));
  expect([response.status, await response.json()]).toEqual([
    503,
    expect.objectContaining({ code: "keys-unavailable" }),
  ]);
  expect(response.headers.get("retry-after")).toBe("1");
  expect(asked).toEqual([METADATA]);
});

describe("the build", () => {
  test.each<[RegExp, Partial<OidcOptions>]>([
    [/"http:\/\/login.example.com" is no address of an issuer/, { issuer: "http://login.example.com" }],
    [/"HS256" does not go with a key set/, { algorithms: ["HS256"] }],
  ])("reports %s", (expected, options) => {
    const context = compileContext();
    compile({ issuer: ISSUER, ...options }, context);
    expect(context.problems).toEqual([expect.stringMatching(expected)]);
  });

  test("knows the shape of its options", () => {
    expect(schema().safeParse({ issuer: env("I"), audience: "a" }).success).toBe(true);
    for (const bad of [{}, { issuer: [ISSUER] }, { issuer: ISSUER, jwks: JWKS }])
      expect([bad, schema().safeParse(bad).success]).toEqual([bad, false]);
  });
});
