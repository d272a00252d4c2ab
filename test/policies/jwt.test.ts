import fc from "fast-check";
import { base64url, exportJWK, type JWK } from "jose";
import { afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { consumer } from "../../src/config/consumer.ts";
import { env, secret } from "../../src/config/values.ts";
import { compile, type JwtOptions, jwt, run, schema } from "../../src/policies/jwt.ts";
import type { RouteTable } from "../../src/table/table.ts";
import { compileContext, type PolicyResult, startPolicy } from "./exchange.ts";
import { AUDIENCE, forge, goodClaims, ISSUER, JWKS, type Key, makeKey, NOW, sign, stubIssuer } from "./issuer.ts";
import { expectPassed, expectRefused, KEY, sharedKey, sharedSecret, start } from "./jwt-isolate.ts";

let ec: Key;
let rsa: Key;
let stranger: Key;
beforeAll(async () => {
  ec = await makeKey("ec");
  rsa = await makeKey("rsa", "RS256");
  stranger = await makeKey("ec");
});
afterEach(() => {
  vi.restoreAllMocks();
});

describe("a good token", () => {
  test("passes, and tells the gateway and the origin whose it is", async () => {
    const issuer = stubIssuer(ec, rsa);
    const shop = consumer("storefront", { claims: { azp: "shop" } });
    const { bearer } = start({
      consumers: [consumer("other", { claims: { azp: "other" } }), shop, consumer("late", { claims: { azp: "shop" } })],
      claimsToHeaders: { email: "X-User-Email", "org.id": "x-org", roles: "x-roles", absent: "x-absent" },
    });
    const claims = {
      azp: "shop",
      scope: "orders:read  orders:write",
      email: "a@b.example",
      org: { id: 7 },
      roles: ["a", "b"],
    };
    const token = await sign(ec, claims);
    const { response, exchange } = await bearer(token);
    expect(response.status).toBe(200);
    expect(exchange.caller).toEqual({
      consumer: "storefront",
      subject: "https://login.example.com/|user-1",
      scopes: ["orders:read", "orders:write"],
      claims: { ...goodClaims, ...claims },
      credential: { kind: "jwt" },
    });
    expect(Object.fromEntries(exchange.upstream)).toEqual({
      "x-consumer-subject": "user-1",
      "x-consumer-name": "storefront",
      "x-consumer-scopes": "orders:read orders:write",
      "x-user-email": "a@b.example",
      "x-org": "7",
      "x-roles": "a,b",
    });
    expect(exchange.record.consumer).toBe("storefront");
    expect(exchange.record.policies).toEqual([{ policy: "jwt", verdict: "pass", facts: { kid: "ec" } }]);
    expect(issuer.asked).toEqual([JWKS]);
  });

  test.each(["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"])(
    "may be signed with %s",
    async (alg) => {
      const key = await makeKey("key", alg);
      stubIssuer(key);
      expectPassed(await start().bearer(await sign(key)));
    },
    // Some RSA keys take seconds to find on a busy machine.
    30_000,
  );

  test.each([
    ["one of several audiences in the token", { audience: AUDIENCE }, { aud: ["https://other", AUDIENCE] }, {}],
    ["one of several audiences in the policy", { audience: ["https://other", AUDIENCE] }, {}, {}],
    ["one of several issuers", { issuer: ["https://other", ISSUER] }, {}, {}],
    ["the type, as RFC 9068 writes it", { typ: "at+jwt" }, {}, { typ: "at+jwt" }],
    ["the type as a whole media type", { typ: "at+jwt" }, {}, { typ: "application/AT+JWT" }],
    ["the type, declared as a whole media type", { typ: "application/at+jwt" }, {}, { typ: "at+jwt" }],
    ["no subject", {}, { sub: undefined }, {}],
    ["an exp with fractions", {}, { exp: NOW + 0.5 }, {}],
    ["an nbf that is within the leeway", {}, { nbf: NOW + 5 }, {}],
    ["an exp that is within the leeway", {}, { exp: NOW - 4 }, {}],
    ["the longest lifetime", { maxLifetime: "5m" }, {}, {}],
    ["a required claim", { requiredClaims: ["jti"] }, { jti: "1" }, {}],
    [
      "embedded keys, which are ignored",
      {},
      {},
      { jku: "https://evil.example", x5u: "https://evil.example", x5c: ["AA"] },
    ],
  ] as [string, Partial<JwtOptions>, Record<string, unknown>, Record<string, unknown>][])(
    "may have %s",
    async (_, options, claims, header) => {
      const issuer = stubIssuer(ec);
      const { bearer } = start(options);
      expectPassed(await bearer(await sign(ec, claims, header)));
      expect(issuer.asked).toEqual([JWKS]);
    },
  );

  test("may come without an audience only where the policy names none", async () => {
    stubIssuer(ec);
    const context = compileContext();
    const config = compile({ issuer: ISSUER, jwks: JWKS }, context);
    const send = startPolicy(run, config, { now: NOW * 1_000 });
    const token = await sign(ec, { aud: undefined });
    const request = () => new Request("https://api.example.com/", { headers: { authorization: `Bearer ${token}` } });
    expectPassed(await send(request()));
    await expectRefused(await start().send({ authorization: `Bearer ${token}` }), "token-invalid", "claim-missing");
  });

  test.each([
    [{ scope: "a b" }, ["a", "b"]],
    [{ scope: "" }, []],
    [{ scp: "a b" }, ["a", "b"]],
    [{ scp: ["a", "b"] }, ["a", "b"]],
    [{ scope: "a", scp: ["b"] }, ["a"]],
    [{}, []],
  ])("%j has the scopes %j", async (claims, scopes) => {
    stubIssuer(ec);
    const { exchange } = await start().bearer(await sign(ec, claims));
    expect(exchange.caller?.scopes).toEqual(scopes);
    expect(exchange.upstream.get("x-consumer-scopes")).toBe(scopes.join(" ") || null);
  });

  test("has no claims but its own", async () => {
    stubIssuer(ec);
    const { bearer } = start({
      claimsToHeaders: { constructor: "x-a", "__proto__.constructor": "x-b", "sub.length": "x-c" },
    });
    const { response, exchange } = await bearer(await sign(ec));
    expect(response.status).toBe(200);
    expect([...exchange.upstream.keys()]).toEqual(["x-consumer-subject"]);
  });

  test("of no kid is tried with each key that fits it, up to eight", async () => {
    const others = await Promise.all(Array.from({ length: 8 }, (_, i) => makeKey(`other-${i}`)));
    const issuer = stubIssuer(...others.slice(0, 7), ec);
    const token = await sign(ec, {}, { kid: undefined });
    expectPassed(await start().bearer(token));
    await expectRefused(
      await start().bearer(await sign(ec, { exp: NOW - 60 }, { kid: undefined })),
      "token-expired",
      "expired",
    );
    issuer.keys = [...others, ec].map(({ jwk }) => jwk);
    await expectRefused(await start().bearer(token), "token-invalid", "signature");
  });

  test("is known by issuer and subject together, without collisions", async () => {
    const part = fc.string({ unit: fc.constantFrom("|", "%", "7", "C", "a"), minLength: 1, maxLength: 6 });
    const pair = fc.tuple(part, fc.option(part, { nil: undefined }));
    await fc.assert(
      fc.asyncProperty(pair, pair, async (one, other) => {
        const { bearer } = start({ ...sharedSecret, issuer: [one[0], other[0]] });
        const subjectOf = async ([iss, sub]: typeof one) =>
          (await bearer(await sign(sharedKey, { iss, sub }))).exchange.caller?.subject;
        const same = one[0] === other[0] && one[1] === other[1];
        expect((await subjectOf(one)) === (await subjectOf(other))).toBe(same);
      }),
      {
        examples: [
          [
            ["a|b", "c"],
            ["a", "b|c"],
          ],
          [
            ["a|b", "c"],
            ["a%7Cb", "c"],
          ],
        ],
      },
    );
  });
});

describe("a bad token", () => {
  test.each([
    ["the issuer without its slash", "issuer", { iss: ISSUER.slice(0, -1) }],
    ["another issuer", "issuer", { iss: "https://evil.example/" }],
    ["an issuer in a list", "issuer", { iss: [ISSUER] }],
    ["no issuer", "claim-missing", { iss: undefined }],
    ["another audience", "audience", { aud: "https://other" }],
    ["a part of the audience", "audience", { aud: AUDIENCE.slice(0, -1) }],
    ["an empty list of audiences", "audience", { aud: [] }],
    ["no audience", "claim-missing", { aud: undefined }],
    ["a number for an audience", "audience", { aud: 7 }],
    ["a number among its audiences", "claim-type", { aud: [AUDIENCE, 7] }],
    ["nested audiences", "audience", { aud: [[AUDIENCE]] }],
    ["no exp", "claim-missing", { exp: undefined }],
    ["a text for exp", "claim-type", { exp: "tomorrow" }],
    ["null for exp", "claim-type", { exp: null }],
    ["a text for nbf", "claim-type", { nbf: "x" }],
    ["a text for iat", "claim-type", { iat: "x" }],
    ["an nbf one second past the leeway", "not-yet", { nbf: NOW + 6 }],
    ["an object for sub", "claim-type", { sub: {} }],
    ["a number for sub", "claim-type", { sub: 1 }],
    ["half a character in sub", "claim-type", { sub: "\ud800" }],
    ["a number for scope", "claim-type", { scope: 5 }],
    ["an array for scope", "claim-type", { scope: ["a"] }],
    ["null for scope", "claim-type", { scope: null }],
    ["a control character in scope", "claim-type", { scope: "a\r\nx-admin: 1" }],
    ["a number for scp", "claim-type", { scp: 5 }],
    ["nested arrays in scp", "claim-type", { scp: [["a"]] }],
    ["two scopes in one of scp", "claim-type", { scp: ["a admin"] }],
    ["an object for a claim that goes into a header", "claim-type", { email: {} }],
    ["nested arrays for a claim that goes into a header", "claim-type", { email: [["a"]] }],
    ["null in an array that goes into a header", "claim-type", { email: [null] }],
    ["no required claim", "claim-missing", { jti: undefined }],
    ["a lifetime that is too long", "lifetime", { exp: NOW + 3_601 }],
    ["no iat, where the lifetime counts", "claim-missing", { iat: undefined }],
    ["an iat in the future, which would buy lifetime", "not-yet", { iat: NOW + 6, exp: NOW + 3_600 }],
  ])("with %s is refused: %s", async (_, why, claims) => {
    stubIssuer(ec);
    const { bearer } = start({ claimsToHeaders: { email: "x-email" }, requiredClaims: ["jti"], maxLifetime: "1h" });
    expectPassed(await bearer(await sign(ec, { jti: "1" })));
    await expectRefused(await bearer(await sign(ec, { jti: "1", ...claims })), "token-invalid", why);
  });

  test.each([
    ["text", '"text"'],
    ["an array", "[]"],
    ["null", "null"],
    ["broken JSON", JSON.stringify(goodClaims).slice(0, -1)],
    ["nothing", " "],
    ["an own __proto__", JSON.stringify(goodClaims).replace("{", '{"__proto__":{"scope":"admin"},')],
    ["an infinite exp", JSON.stringify({ ...goodClaims, exp: 0 }).replace('"exp":0', '"exp":1e999')],
    ["deep nesting", JSON.stringify(goodClaims).replace("{", `{"deep":${"[".repeat(2_900)}${"]".repeat(2_900)},`)],
  ])("whose claims are %s is refused or harmless, never a failure", async (name, payload) => {
    stubIssuer(ec);
    const result = await start().bearer(await sign(ec, payload));
    if (name === "deep nesting") expect([200, 401]).toContain(result.response.status);
    else await expectRefused(result, "token-invalid");
  });

  test.each([
    [undefined, "type"],
    ["JWT", "type"],
    ["at+jwt+x", "type"],
    ["text/at+jwt", "type"],
    [5, "type"],
    [["at+jwt"], "type"],
  ])("of the type %j is refused where at+jwt is asked for", async (typ, why) => {
    stubIssuer(ec);
    await expectRefused(await start({ typ: "at+jwt" }).bearer(await sign(ec, {}, { typ })), "token-invalid", why);
  });

  test("is expired one second past the leeway, whether it is remembered or not", async () => {
    stubIssuer(ec);
    const { bearer, clock } = start({ leeway: "5s" });
    const token = await sign(ec, { exp: NOW + 60 });
    expectPassed(await bearer(token));
    clock.now = (NOW + 65) * 1_000 - 1;
    expectPassed(await bearer(token));
    clock.now = (NOW + 65) * 1_000;
    await expectRefused(await bearer(token), "token-expired", "expired");
    await expectRefused(await start().bearer(await sign(ec, { exp: NOW - 6 })), "token-expired", "expired");
    await expectRefused(await start({ leeway: "0s" }).bearer(await sign(ec, { exp: NOW })), "token-expired");
  });

  test("gets a challenge of fixed words", async () => {
    stubIssuer(ec);
    const { bearer, send } = start();
    const challengeOf = (result: PolicyResult) => result.response.headers.get("www-authenticate");
    expect(challengeOf(await send())).toBe('Bearer realm="orders"');
    expect(challengeOf(await bearer("secret-text"))).toBe(
      'Bearer realm="orders", error="invalid_token", error_description="the token is malformed"',
    );
    expect(challengeOf(await bearer(await sign(ec, { exp: NOW - 60 })))).toBe(
      'Bearer realm="orders", error="invalid_token", error_description="the token has expired"',
    );
    const nameless = await startPolicy(run, compile({ issuer: ISSUER, jwks: JWKS }, compileContext()))(
      new Request("https://api.example.com/"),
      {
        route: {
          id: "",
          api: 'a"\r\n\\',
          hosts: [],
          matches: [],
          policies: [],
          action: { kind: "forward", backends: [] },
        },
      },
    );
    expect(challengeOf(nameless)).toBe('Bearer realm="a"');
  });

  test("shows up nowhere in answers and records", async () => {
    stubIssuer(ec);
    const token = await sign(stranger, { sub: "someone" });
    const { response, exchange } = await start().bearer(token);
    const seen = JSON.stringify([await response.text(), [...response.headers], exchange.record]);
    for (const part of [...token.split("."), "someone"]) expect(seen).not.toContain(part);
  });
});

describe("where the token stands", () => {
  test.each(["Bearer", "bearer", "BEARER", "bEaReR  "])("after the scheme %j", async (scheme) => {
    stubIssuer(ec);
    expectPassed(await start().send({ authorization: `${scheme} ${await sign(ec)}` }));
  });

  test.each(["", "Basic dXNlcjpwYXNz", "Bearers x", "Digest username=bearer"])("%j has none", async (authorization) => {
    stubIssuer(ec);
    const result = await start().send(authorization ? { authorization } : {});
    await expectRefused(result, "token-missing");
    expect(result.exchange.record.policies[0]?.facts).toBeUndefined();
  });

  test("a repeated Authorization header is refused, whatever it holds, also where tokens are optional", async () => {
    stubIssuer(ec);
    const token = await sign(ec);
    const repeated = (...values: string[]) => values.map((value): [string, string] => ["authorization", value]);
    for (const { send } of [start(), start({ optional: true })]) {
      for (const values of [
        [`Bearer ${token}`, `Bearer ${token}`],
        [`Bearer ${token}`, "Bearer x"],
        [`Bearer ${token}`, "Basic x"],
        ["Basic x", `Bearer ${token}`],
        ["Basic x", `bearer\t${token}`],
        ["Bearer"],
        ["Bearer", "Bearer"],
      ]) {
        await expectRefused(await send(repeated(...values)), "token-invalid", "malformed");
      }
    }
  });

  test("other headers, cookies and the query, where declared", async () => {
    stubIssuer(ec);
    const token = await sign(ec);
    const { send } = start({ tokenFrom: [{ header: "X-Token" }, { cookie: "token" }, { query: "access_token" }] });
    expectPassed(await send({ "x-token": token }));
    expectPassed(await send({ cookie: `a=b; token=${token}; c=d` }));
    expectPassed(await send({}, `?a=b&access_token=${token}`));
    expectPassed(await send({ "x-token": token, cookie: `token=${token}` }, `?access_token=${token}`));
    for (const result of [
      await send({ authorization: `Bearer ${token}` }),
      await send({ cookie: `xtoken=${token}; Token=${token}; token=` }),
      await send({}, `?x_access_token=${token}&access_token=`),
    ]) {
      await expectRefused(result, "token-missing");
    }
  });

  test("different tokens are refused, even if each is valid", async () => {
    stubIssuer(ec);
    const [one, other] = [await sign(ec), await sign(ec, { sub: "user-2" })];
    const { send } = start({
      optional: true,
      tokenFrom: [{ header: "authorization", scheme: "Bearer" }, { cookie: "token" }, { query: "token" }],
    });
    for (const result of [
      await send({ authorization: `Bearer ${one}`, cookie: `token=${other}` }),
      await send({ cookie: `token=${one}; token=${other}` }),
      await send({ cookie: `token=${one}` }, "?token=x"),
      await send({}, `?token=${one}&token=${other}`),
    ]) {
      await expectRefused(result, "token-conflict", "conflict");
      expect(result.response.headers.get("www-authenticate")).toContain('error="invalid_request"');
    }
  });

  test("optional: no token passes without a caller, a bad one does not", async () => {
    stubIssuer(ec);
    const { send, bearer } = start({ optional: true });
    const { exchange, passed } = await send({ authorization: "Basic x", "x-consumer-name": "admin" });
    expect(passed).toBe(true);
    expect(exchange.caller).toBeUndefined();
    expect(Object.fromEntries(exchange.upstream)).toEqual({ authorization: "Basic x" });
    expect(exchange.record.policies).toEqual([{ policy: "jwt", verdict: "pass", facts: { anonymous: true } }]);
    await expectRefused(await bearer("x"), "token-invalid");
    expectPassed(await bearer(await sign(ec)));
  });

  test("is kept from the origin, and all else is left, unless forwardToken says otherwise", async () => {
    stubIssuer(ec);
    const token = await sign(ec);
    const options = {
      optional: true,
      tokenFrom: [
        { header: "authorization", scheme: "Bearer" },
        { cookie: "token" },
        { header: "x-token" },
        { query: "token" },
      ],
    } as const;
    const { send } = start(options);
    const kept = async (headers: Record<string, string>, from = send) => {
      const { upstream } = (await from(headers)).exchange;
      return Object.fromEntries([...upstream].filter(([name]) => !name.startsWith("x-consumer-")));
    };
    for (let warm = 0; warm < 2; warm++) {
      expect(await kept({ authorization: `Bearer ${token}`, accept: "*/*" })).toEqual({ accept: "*/*" });
      expect(await kept({ cookie: `a=b; token=${token}; c=d` })).toEqual({ cookie: "a=b; c=d" });
      expect(await kept({ cookie: `token=${token}`, "x-token": token })).toEqual({});
    }
    expect(await kept({ authorization: "Basic x" })).toEqual({ authorization: "Basic x" });
    for (const [query, left] of [
      [`?token=${token}`, ""],
      [`?a=%20b&token=${token}&c=d+e&token=${token}`, "?a=%20b&c=d+e"],
      [`?%74oken=${token}&`, ""],
    ] as const) {
      const { exchange } = await send({}, query);
      expect([exchange.caller?.subject, exchange.upstreamSearch]).toEqual([`${ISSUER}|user-1`, left]);
    }
    const { bearer } = start({ forwardToken: true });
    expect((await bearer(token)).exchange.upstream.get("authorization")).toBe(`Bearer ${token}`);
    const { send: report } = start({ ...options, optional: false }, { mode: "report" });
    expect(await kept({ authorization: "Bearer x" }, report)).toEqual({});
    expect(await kept({ authorization: "Bearer x, Bearer y" }, report)).toEqual({});
  });
});

describe("consumers", () => {
  test("are known by claims, nested ones and those with dots in their names too", async () => {
    stubIssuer(ec);
    const { bearer } = start({
      consumers: [
        consumer("both", { claims: { azp: "a", tenant: "t" } }),
        consumer("nested", { claims: { "org.id": "o" } }),
        consumer("named", { claims: { "https://shop.example/plan": "gold" } }),
      ],
    });
    const nameFor = async (claims: Record<string, unknown>) =>
      (await bearer(await sign(ec, claims))).exchange.caller?.consumer;
    expect(await nameFor({ azp: "a", tenant: "t" })).toBe("both");
    expect(await nameFor({ azp: "a" })).toBeUndefined();
    expect(await nameFor({ org: { id: "o" } })).toBe("nested");
    expect(await nameFor({ "https://shop.example/plan": "gold" })).toBe("named");
    expect(await nameFor({ azp: ["a"], tenant: "t" })).toBeUndefined();
    expect(await nameFor({})).toBeUndefined();
  });

  test("may be required", async () => {
    stubIssuer(ec);
    const { bearer } = start({ consumers: [consumer("shop", { claims: { azp: "shop" } })], requireConsumer: true });
    expectPassed(await bearer(await sign(ec, { azp: "shop" })));
    await expectRefused(await bearer(await sign(ec, { azp: "other" })), "token-invalid", "consumer");
  });
});

describe("groups, metadata and plan", () => {
  const table = {
    consumers: { shop: { name: "shop", groups: ["partners", "web"], metadata: { tier: 1 }, plan: "gold" } },
  } as unknown as RouteTable;

  test("are what the table says of the consumer, and what the token adds", async () => {
    stubIssuer(ec);
    const shop = consumer("shop", { claims: { azp: "shop" } });
    const config = compile({ issuer: ISSUER, jwks: JWKS, consumers: [shop], groupsFrom: "groups" }, compileContext());
    const send = startPolicy(run, config, { now: NOW * 1_000, table });
    const ask = async (claims: Record<string, unknown>) =>
      send(new Request("https://api.example.com/", { headers: { authorization: `Bearer ${await sign(ec, claims)}` } }));
    const { exchange } = await ask({ azp: "shop", groups: ["web", "b,c"] });
    expect(exchange.caller).toMatchObject({
      consumer: "shop",
      groups: ["b,c", "partners", "web"],
      metadata: { tier: 1 },
      plan: "gold",
    });
    expect(Object.fromEntries(exchange.upstream)).toMatchObject({
      "x-consumer-name": "shop",
      "x-consumer-groups": "b%2Cc,partners,web",
      "x-consumer-plan": "gold",
    });
    expect(exchange.record).toMatchObject({ consumer: "shop", credential: { kind: "jwt" } });
    const { exchange: other } = await ask({ azp: "other", groups: "one" });
    expect(other.caller).toMatchObject({ groups: ["one"] });
    for (const member of ["consumer", "plan", "metadata"]) expect(other.caller).not.toHaveProperty(member);
    for (const groups of [{ a: 1 }, [1], [""], 5])
      await expectRefused(await ask({ groups }), "token-invalid", "claim-type");
  });
});

describe("remembered tokens", () => {
  test("cost no signature, no key and no wait", async () => {
    const issuer = stubIssuer(ec);
    const { bearer, signatures } = start();
    const token = await sign(ec);
    const first = await bearer(token);
    const again = await bearer(token);
    expect(signatures()).toBe(1);
    expect(issuer.asked).toHaveLength(1);
    expect(again.exchange.caller).toEqual(first.exchange.caller);
    expect([...again.exchange.upstream]).toEqual([...first.exchange.upstream]);
    expect(again.exchange.record.policies).toEqual(first.exchange.record.policies);
  });

  test("are not shared by what is not valid: each bad token is looked at each time", async () => {
    stubIssuer(ec);
    const { bearer, signatures } = start();
    const bad = await sign(stranger);
    for (let i = 0; i < 3; i++) await expectRefused(await bearer(bad), "token-invalid", "signature");
    expect(signatures()).toBe(3);
  });

  test("cannot be changed by what comes after the policy", async () => {
    stubIssuer(ec);
    const { bearer } = start();
    const token = await sign(ec, { roles: ["user"] });
    const { exchange } = await bearer(token);
    const claims = exchange.caller?.claims as { roles: string[]; sub: string };
    expect(() => claims.roles.push("admin")).toThrow(TypeError);
    expect(() => (claims.sub = "root")).toThrow(TypeError);
    expect((await bearer(token)).exchange.caller?.claims.roles).toEqual(["user"]);
  });

  test("are checked against the clock each time, also one that was set back", async () => {
    const { bearer, clock } = start(sharedSecret);
    const token = await sign(sharedKey, { nbf: NOW });
    expectPassed(await bearer(token));
    clock.now = (NOW - 6) * 1_000;
    await expectRefused(await bearer(token), "token-invalid", "not-yet");
    clock.now = NOW * 1_000;
    expectPassed(await bearer(token));
  });

  test("are bounded in number: the one used longest ago leaves first", async () => {
    const { bearer, signatures } = start({ ...sharedSecret, remember: 2 });
    const [a, b, c] = await Promise.all(["a", "b", "c"].map((sub) => sign(sharedKey, { sub })));
    const costs = async (token = "") => {
      const before = signatures();
      expectPassed(await bearer(token));
      return signatures() - before;
    };
    expect([await costs(a), await costs(b), await costs(a), await costs(c)]).toEqual([1, 1, 0, 1]);
    expect([await costs(a), await costs(c), await costs(b)]).toEqual([0, 0, 1]);
  });

  test("are bounded in size, however they are used", async () => {
    const { bearer, signatures } = start({ ...sharedSecret, maxTokenSize: 65_536, remember: 100_000 });
    const pad = "x".repeat(40_000);
    const tokens: string[] = [];
    for (let i = 0; i < 160; i++) tokens.push(await sign(sharedKey, { pad, sub: `${i}` }));
    const fit = Math.floor((4 * 1024 * 1024) / (tokens[0]?.length ?? 0));
    expect(fit).toBeLessThan(80);
    const verifiedOf = async (some: string[]) => {
      const before = signatures();
      for (const token of some) expectPassed(await bearer(token));
      return signatures() - before;
    };
    expect(await verifiedOf(tokens.slice(0, fit))).toBe(fit);
    expect(await verifiedOf(tokens.slice(0, fit))).toBe(0);
    // All that are held have been used; each new one still pushes one out.
    expect(await verifiedOf(tokens.slice(fit, 2 * fit))).toBe(fit);
    expect(await verifiedOf(tokens.slice(fit, 2 * fit))).toBe(0);
    expect(await verifiedOf(tokens.slice(0, fit))).toBe(fit);
  });

  test("none are kept with remember: 0", async () => {
    const { bearer, signatures } = start({ ...sharedSecret, remember: 0 });
    const token = await sign(sharedKey);
    for (let i = 0; i < 3; i++) expectPassed(await bearer(token));
    expect(signatures()).toBe(3);
  });

  test("are forgotten when their key leaves the set, though no other token asks for keys", async () => {
    const issuer = stubIssuer(ec, rsa);
    const { bearer, clock, signatures } = start({ keySet: { maxAge: "1m" } });
    const [removed, kept] = [await sign(ec), await sign(rsa)];
    expectPassed(await bearer(removed));
    expectPassed(await bearer(kept));
    issuer.keys = [rsa.jwk];
    clock.now += 60_000;
    const last = await bearer(removed);
    expectPassed(last);
    await last.background;
    await expectRefused(await bearer(removed), "token-invalid", "key");
    const before = signatures();
    expectPassed(await bearer(kept));
    expect(signatures()).toBe(before + 1);
  });

  test("do not outlive a key that changes while the token is being verified", async () => {
    const issuer = stubIssuer(ec);
    const { bearer, clock, signatures } = start({ keySet: { maxAge: "1m" } });
    const warm = await sign(ec, { sub: "warm" });
    expectPassed(await bearer(warm));
    const verify = crypto.subtle.verify.bind(crypto.subtle);
    const refreshed = Promise.withResolvers<void>();
    vi.mocked(crypto.subtle.verify).mockImplementationOnce(async (...given) => {
      await refreshed.promise;
      return verify(...given);
    });
    const token = await sign(ec);
    const slow = bearer(token);
    await vi.waitFor(() => expect(signatures()).toBe(2));
    issuer.keys = [rsa.jwk];
    clock.now += 60_000;
    await (await bearer(warm)).background;
    refreshed.resolve();
    expectPassed(await slow);
    await expectRefused(await bearer(token), "token-invalid", "key");
  });
});

describe("keys", () => {
  test("rotation: the new key works at once, the old one until it leaves the set", async () => {
    const issuer = stubIssuer(ec);
    const { bearer, clock } = start();
    expectPassed(await bearer(await sign(ec)));
    issuer.keys.push(rsa.jwk);
    clock.now += 30_000;
    expectPassed(await bearer(await sign(rsa)));
    expectPassed(await bearer(await sign(ec)));
  });

  test("rotation under the same kid: the new key takes over with the next refresh", async () => {
    const issuer = stubIssuer(ec);
    const { bearer, clock } = start();
    expectPassed(await bearer(await sign(ec)));
    issuer.keys = [stranger.jwk];
    await expectRefused(await bearer(await sign(stranger)), "token-invalid", "signature");
    clock.now += 600_000;
    await (await bearer(await sign(ec, { exp: NOW + 900 }))).background;
    expectPassed(await bearer(await sign(stranger, { exp: NOW + 900 })));
    await expectRefused(await bearer(await sign(ec, { exp: NOW + 900 })), "token-invalid", "signature");
  });

  test("issuer down at a cold start: 503 with Retry-After for tokens, 401 as ever without; then it recovers", async () => {
    const issuer = stubIssuer(ec);
    issuer.answer = () => Promise.reject(new TypeError("refused"));
    const { send, bearer, clock } = start();
    const token = await sign(ec);
    const { response, exchange, passed } = await bearer(token);
    expect(response.status).toBe(503);
    expect(response.headers.get("retry-after")).toBe("1");
    expect(await response.json()).toMatchObject({ code: "keys-unavailable" });
    expect([passed, exchange.caller]).toEqual([false, undefined]);
    await expectRefused(await send(), "token-missing");
    await expectRefused(await bearer(forge({ alg: "none" }, goodClaims)), "token-invalid", "algorithm");
    issuer.answer = undefined;
    clock.now += 1_000;
    expectPassed(await bearer(token));
  });

  test("issuer down later: the last good keys serve, new tokens included, and the record says so", async () => {
    const issuer = stubIssuer(ec);
    const { bearer, clock } = start();
    expectPassed(await bearer(await sign(ec)));
    issuer.answer = () => Promise.reject(new TypeError("refused"));
    clock.now += 3_600_000;
    const token = await sign(ec, { exp: NOW + 7_200 });
    await (await bearer(token)).background;
    const { exchange, passed } = await bearer(token);
    expect(passed).toBe(true);
    expect(exchange.record.policies[0]?.facts).toEqual({ kid: "ec", keys: "stale" });
  });

  test("a key that the runtime cannot use refuses its tokens", async () => {
    const issuer = stubIssuer(ec);
    issuer.keys = [{ ...ec.jwk, x: "AAAA" }];
    await expectRefused(await start().bearer(await sign(ec)), "token-invalid", "key");
    issuer.keys = [{ ...(await exportJWK(ec.privateKey)), kid: "ec" } as JWK];
    await expectRefused(await start().bearer(await sign(ec)), "token-invalid", "key");
  });

  test("the address comes from the environment and must be https, or http on loopback", async () => {
    const issuer = stubIssuer(ec);
    const token = await sign(ec);
    const statusWith = async (url: unknown) =>
      (await start({ jwks: env("KEYS") }, { env: { KEYS: url } }).bearer(token)).response.status;
    expect(await statusWith("http://127.0.0.1:9000/jwks")).toBe(200);
    expect(issuer.asked).toEqual(["http://127.0.0.1:9000/jwks"]);
    for (const bad of ["http://login.example.com/", "", undefined]) expect(await statusWith(bad)).toBe(503);
    expect(issuer.asked).toHaveLength(1);
  });

  test("issuer and audience may come from the environment", async () => {
    stubIssuer(ec);
    const { bearer } = start(
      { issuer: [env("ISSUER")], audience: env("AUDIENCE") },
      { env: { ISSUER: "https://staging/", AUDIENCE: "staging" } },
    );
    expectPassed(await bearer(await sign(ec, { iss: "https://staging/", aud: "staging" })));
    await expectRefused(await bearer(await sign(ec)), "token-invalid", "issuer");
  });
});

describe("a shared secret", () => {
  test("verifies HS256 and nothing else, until it is long enough", async () => {
    const token = (alg: string, text: string) => sign({ alg, kid: "x", privateKey: new TextEncoder().encode(text) });
    const { bearer } = start(sharedSecret);
    expectPassed(await bearer(await token("HS256", KEY)));
    await expectRefused(await bearer(await token("HS384", KEY)), "token-invalid", "algorithm");
    await expectRefused(await bearer(await token("HS256", `${KEY}x`)), "token-invalid", "signature");
    await expectRefused(await bearer(await sign(ec)), "token-invalid", "algorithm");
    await expectRefused(await bearer(forge({ alg: "none" }, goodClaims)), "token-invalid", "algorithm");
    const long = KEY + KEY;
    const longer = start(sharedSecret, { env: { KEY: long } });
    for (const alg of ["HS256", "HS384", "HS512"]) expectPassed(await longer.bearer(await token(alg, long)));
    const narrowed = start({ ...sharedSecret, algorithms: ["HS512"] }, { env: { KEY: long } });
    await expectRefused(await narrowed.bearer(await token("HS256", long)), "token-invalid", "algorithm");
  });

  test("that is too short or absent is 503, and never verifies", async () => {
    const token = await sign({ ...sharedKey, privateKey: new TextEncoder().encode("short") });
    for (const KEY of ["short", undefined]) {
      const { response, passed } = await start(sharedSecret, { env: { KEY } }).bearer(token);
      expect([response.status, passed]).toEqual([503, false]);
    }
  });
});

describe("report", () => {
  test("lets everything pass, without a caller, and records what it would have done", async () => {
    const issuer = stubIssuer(ec);
    const { send, bearer } = start({}, { mode: "report" });
    const verdicts = [
      ["token-missing", await send({ "x-consumer-name": "admin" })],
      ["token-invalid", await bearer("x")],
      ["token-invalid", await bearer(await sign(stranger))],
      ["token-expired", await bearer(await sign(ec, { exp: NOW - 60 }))],
    ] as const;
    for (const [reason, { response, exchange, passed }] of verdicts) {
      expect([response.status, passed, exchange.caller]).toEqual([200, true, undefined]);
      expect([...exchange.upstream.keys()].filter((name) => name.startsWith("x-"))).toEqual([]);
      expect(exchange.record.policies).toEqual([expect.objectContaining({ verdict: "would-deny", reason })]);
      expect(exchange.record.reason).toBeUndefined();
    }
    const good = await bearer(await sign(ec));
    expect(good.exchange.caller?.subject).toBe(`${ISSUER}|user-1`);
    issuer.answer = () => Promise.reject(new TypeError("refused"));
    const { response } = await start({}, { mode: "report" }).bearer(await sign(ec));
    expect(response.status).toBe(200);
  });
});

describe("the build", () => {
  const problemsOf = (options: Partial<JwtOptions>) => {
    const context = compileContext();
    compile({ issuer: ISSUER, jwks: JWKS, ...options }, context);
    return context.problems.join("\n");
  };

  test.each<[RegExp, Partial<JwtOptions>]>([
    [/both `jwks` and `secret`/, { secret: secret("X") }],
    [/no address of a key set/, { jwks: "http://login.example.com/jwks" }],
    [/"none" does not go with a key set/, { algorithms: ["ES256", "none"] }],
    [/"HS256" does not go with a key set/, { algorithms: ["HS256"] }],
    [/leeway "61s" is no duration up to 60s/, { leeway: "61s" }],
    [/leeway "5" is no duration/, { leeway: "5" }],
    [/maxLifetime "0s" is no duration/, { maxLifetime: "0s" }],
    [/timeout "26s" is no duration up to 25s/, { keySet: { timeout: "26s" } }],
    [/coolDown "500ms" is no duration/, { keySet: { coolDown: "500ms" } }],
    [/"shop" has no claims/, { consumers: [consumer("shop", { claims: {} })] }],
    [/requires a consumer and knows none/, { requireConsumer: true }],
    [/"shop" has no claims/, { consumers: [consumer("shop")] }],
    [/cannot go into the header "authorization"/, { claimsToHeaders: { sub: "Authorization" } }],
    [/cannot go into the header "content-length"/, { claimsToHeaders: { sub: "content-length" } }],
    [/cannot go into the header "x-consumer-name"/, { claimsToHeaders: { sub: "X-Consumer-Name" } }],
    [/cannot go into the header "x_user"/, { claimsToHeaders: { sub: "x_user" } }],
    [
      /cannot go into the header "x-token"/,
      { claimsToHeaders: { sub: "x-token" }, tokenFrom: [{ header: "X-Token" }] },
    ],
    [/two claims go into the header "x-user"/, { claimsToHeaders: { sub: "x-user", email: "X-User" } }],
  ])("reports %s", (expected, options) => {
    expect(problemsOf(options)).toMatch(expected);
  });

  test("reports all problems at once, and neither of key set and secret", () => {
    const context = compileContext();
    compile({ issuer: ISSUER, leeway: "x", claimsToHeaders: { sub: "host" } }, context);
    expect(context.problems).toHaveLength(3);
    expect(context.problems[0]).toMatch(/neither `jwks` nor `secret`/);
  });

  test("makes the same JSON of the same options in another order, and notes references", () => {
    const context = compileContext();
    const one = compile({ issuer: env("I"), secret: secret("S"), claimsToHeaders: { a: "x-a", b: "x-b" } }, context);
    const other = compile(
      { issuer: [env("I")], secret: secret("S"), claimsToHeaders: { b: "x-b", a: "x-a" } },
      context,
    );
    expect(JSON.stringify(one)).toBe(JSON.stringify(other));
    expect(JSON.parse(JSON.stringify(one))).toEqual(one);
    expect(new Set(context.references)).toEqual(new Set(["env:I", "secret:S"]));
  });

  test("knows the shape of its options", () => {
    const accepts = (options: unknown) => schema().safeParse(options).success;
    const full: JwtOptions = {
      mode: "report",
      issuer: [ISSUER, env("I")],
      audience: AUDIENCE,
      jwks: env("KEYS"),
      algorithms: ["ES256"],
      typ: "at+jwt",
      requiredClaims: ["jti"],
      leeway: "5s",
      maxLifetime: "1h",
      maxTokenSize: 8192,
      tokenFrom: [{ header: "authorization", scheme: "Bearer" }, { cookie: "t" }, { query: "t" }],
      optional: true,
      consumers: [consumer("shop", { claims: { azp: "shop" } })],
      requireConsumer: false,
      claimsToHeaders: { sub: "x-user-id" },
      forwardToken: true,
      remember: 0,
      keySet: { timeout: "5s", maxAge: "10m", coolDown: "30s", maxStale: "1d" },
    };
    expect(accepts(full)).toBe(true);
    for (const bad of [
      { issuer: undefined },
      { issuer: "" },
      { issuer: [] },
      { jwks: secret("X") },
      { secret: "literal" },
      { algorithms: [] },
      { tokenFrom: [] },
      { tokenFrom: [{ header: "a b" }] },
      { tokenFrom: [{ header: "a", scheme: "a+b" }] },
      { consumers: ["shop"] },
      { consumers: [{ kind: "consumer", name: "shop", options: { claims: [] } }] },
      { maxTokenSize: 1e9 },
      { unknown: 1 },
    ]) {
      expect([bad, accepts({ ...full, ...bad })]).toEqual([bad, false]);
    }
  });

  test("finds the declaration in the file that calls the builder", () => {
    const { policy, declaredAt } = jwt({ issuer: ISSUER, jwks: JWKS });
    expect(policy).toBe("jwt");
    expect(declaredAt.stack?.split("\n")[1]).toContain("jwt.test.ts");
  });
});

test("a token that another library signed", async () => {
  // RFC 7515, A.3: ES256 over {"iss":"joe","exp":1300819380,"http://example.com/is_root":true}.
  const token =
    "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ" +
    ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
  const issuer = stubIssuer();
  issuer.keys = [
    {
      kty: "EC",
      crv: "P-256",
      x: "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
      y: "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    },
  ];
  const send = startPolicy(run, compile({ issuer: "joe", jwks: JWKS }, compileContext()), { now: 1_300_819_379_000 });
  const { exchange } = await send(
    new Request("https://api.example.com/", { headers: { authorization: `Bearer ${token}` } }),
  );
  expect(exchange.caller).toMatchObject({ subject: "joe", claims: { "http://example.com/is_root": true } });
  expect(base64url.decode(token.split(".")[2] ?? "")).toHaveLength(64);
});
