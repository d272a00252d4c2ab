import fc from "fast-check";
import { base64url, exportJWK, exportSPKI } from "jose";
import { afterEach, beforeAll, expect, test, vi } from "vitest";
import { compile } from "../../src/policies/jwt.ts";
import { compileContext } from "./exchange.ts";
import {
  AUDIENCE,
  forge,
  goodClaims,
  ISSUER,
  JWKS,
  type Key,
  makeKey,
  NOW,
  sign,
  signAnyway,
  stubIssuer,
} from "./issuer.ts";
import { expectPassed, expectRefused, sharedKey, sharedSecret, start } from "./jwt-isolate.ts";

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

test.each(["none", "None", "nOnE", "NONE", ""])("alg %j", async (alg) => {
  const issuer = stubIssuer(ec);
  const { bearer } = start();
  for (const signature of ["", "AAAA"]) {
    await expectRefused(await bearer(forge({ alg, kid: "ec" }, goodClaims, signature)), "token-invalid");
  }
  expect(issuer.asked).toEqual([]);
});

test("a public key used as a shared secret", async () => {
  const issuer = stubIssuer(rsa);
  const { alg: _, ...withoutAlg } = rsa.jwk;
  issuer.keys = [withoutAlg];
  const { bearer } = start();
  expectPassed(await bearer(await sign(rsa)));
  const pem = await exportSPKI(rsa.publicKey);
  const bare = await exportJWK(rsa.publicKey);
  const guesses = [pem, `${pem}\n`, pem.trim(), JSON.stringify(rsa.jwk), JSON.stringify(bare), String(bare.n)];
  for (const guess of guesses) {
    for (const alg of ["HS256", "HS384", "HS512"]) {
      const token = await sign({ alg, kid: "rsa", privateKey: new TextEncoder().encode(guess) });
      await expectRefused(await bearer(token), "token-invalid", "algorithm");
    }
  }
  expect(issuer.asked).toHaveLength(1);
});

test("a key of one kind under the algorithm of another", async () => {
  const issuer = stubIssuer(rsa, ec);
  const { bearer } = start();
  await expectRefused(await bearer(await sign(ec, {}, { kid: "rsa" })), "token-invalid", "key");
  // The key says RS256, so PS256 with the same key is refused too.
  const pss = await crypto.subtle.importKey(
    "pkcs8",
    (await crypto.subtle.exportKey("pkcs8", rsa.privateKey)) as ArrayBuffer,
    { name: "RSA-PSS", hash: "SHA-256" },
    false,
    ["sign"],
  );
  await expectRefused(await bearer(await sign({ ...rsa, alg: "PS256", privateKey: pss })), "token-invalid", "key");
  // The header says ES256, so a key whose `use` is encryption does not count.
  issuer.keys = [{ ...ec.jwk, use: "enc" }];
  await expectRefused(await start().bearer(await sign(ec)), "token-invalid", "key");
});

test("keys that the token brings along, or says where to find", async () => {
  const issuer = stubIssuer(ec);
  const { bearer } = start();
  const headers = [
    { jwk: stranger.jwk },
    { jku: "https://evil.example/jwks.json" },
    { x5u: "https://evil.example/chain.pem" },
    { x5c: ["MIIB"] },
    { jwk: stranger.jwk, kid: undefined },
    { jku: "https://evil.example/jwks.json", kid: "evil" },
  ];
  for (const header of headers) {
    await expectRefused(await bearer(await sign(stranger, {}, header)), "token-invalid");
  }
  expect(new Set(issuer.asked)).toEqual(new Set([JWKS]));
});

test.each([
  "__proto__",
  "constructor",
  "toString",
  "../../../../dev/null",
  "' OR 1=1 --",
  "ec\u0000",
  "ec\r\nx: y",
  "EC",
  "",
  "k".repeat(2_000),
])("kid %j", async (kid) => {
  const issuer = stubIssuer(ec);
  const { bearer } = start();
  const result = await bearer(await sign(ec, {}, { kid }));
  await expectRefused(result, "token-invalid", "key");
  const fact = String(result.exchange.record.policies[0]?.facts?.kid);
  expect(fact).toMatch(/^[\w.:/+=?-]{0,64}$/);
  expect(issuer.asked).toHaveLength(1);
});

test.each([5, null, [], {}, ["ec"]])("kid %j, which is no text", async (kid) => {
  stubIssuer(ec);
  await expectRefused(await start().bearer(await signAnyway(ec, { alg: "ES256", kid })), "token-invalid");
});

test.each([
  { crit: ["exp"] },
  { crit: ["x-own"], "x-own": true },
  { crit: [] },
  { crit: "b64" },
  { crit: ["b64"], b64: false },
  { crit: ["b64"], b64: true },
  { b64: false },
  { b64: "false" },
  { crit: ["__proto__"] },
])("extensions %j", async (header) => {
  stubIssuer(ec);
  const { bearer } = start();
  await expectRefused(await bearer(await signAnyway(ec, { alg: "ES256", kid: "ec", ...header })), "token-invalid");
  expectPassed(await bearer(await signAnyway(ec, { alg: "ES256", kid: "ec" })));
});

test.each([5, null, [], {}, ["ES256"], "es256", "ES256 ", "__proto__", "toString"])("alg %j", async (alg) => {
  stubIssuer(ec);
  await expectRefused(await start().bearer(await signAnyway(ec, { alg, kid: "ec" })), "token-invalid");
});

test.each([
  ["a claim", (json: string) => json.replace("{", '{"sub":"first",')],
  ["a claim with the same value", (json: string) => json.replace("{", '{"sub":"user-1",')],
  ["a claim in another spelling", (json: string) => json.replace("{", '{"s\\u0075b":"admin",')],
  ["a claim within a claim", (json: string) => json.replace("{", '{"org":{"id":1,"roles":[{"a":1},{"a":1}],"id":2},')],
])("%s that is there twice", async (_, twice) => {
  stubIssuer(ec);
  const { bearer } = start();
  const json = JSON.stringify(goodClaims);
  await expectRefused(await bearer(await sign(ec, twice(json))), "token-invalid", "duplicate");
  // What only looks like it: the same name in several objects, and in texts.
  const fine = json.replace("{", '{"org":{"sub":"a"},"list":[{"sub":1},{"sub":2}],"text":"\\",\\"sub\\":1",');
  expectPassed(await bearer(await sign(ec, fine)));
});

test("a member of the header that is there twice", async () => {
  stubIssuer(ec);
  const input = `${base64url.encode('{"alg":"none","alg":"ES256","kid":"ec"}')}.${base64url.encode(JSON.stringify(goodClaims))}`;
  const algorithm = { name: "ECDSA", hash: "SHA-256" };
  const signature = await crypto.subtle.sign(algorithm, ec.privateKey, new TextEncoder().encode(input));
  const token = `${input}.${base64url.encode(new Uint8Array(signature))}`;
  await expectRefused(await start().bearer(token), "token-invalid", "duplicate");
});

test("expired by one second, and issuers but for a slash", async () => {
  stubIssuer(ec);
  const { bearer } = start({ leeway: "0s" });
  await expectRefused(await bearer(await sign(ec, { exp: NOW - 1 })), "token-expired");
  await expectRefused(await bearer(await sign(ec, { exp: NOW })), "token-expired");
  expectPassed(await bearer(await sign(ec, { exp: NOW + 1 })));
  for (const iss of [ISSUER.slice(0, -1), `${ISSUER}/`, ISSUER.toUpperCase()])
    await expectRefused(await bearer(await sign(ec, { iss })), "token-invalid", "issuer");
});

test("audiences in a list", async () => {
  stubIssuer(ec);
  const { bearer } = start();
  expectPassed(await bearer(await sign(ec, { aud: ["https://other", AUDIENCE] })));
  for (const aud of [[], ["https://other"], [`${AUDIENCE}/`]])
    await expectRefused(await bearer(await sign(ec, { aud })), "token-invalid", "audience");
  for (const aud of [[AUDIENCE, 5], [[AUDIENCE]], { 0: AUDIENCE }])
    await expectRefused(await bearer(await sign(ec, { aud })), "token-invalid");
});

test("a token in another spelling: bits of the last character that belong to no byte", async () => {
  stubIssuer(ec);
  const { bearer } = start();
  const token = await sign(ec);
  const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  // 64 bytes of signature end in a character of two bits.
  const last = digits.indexOf(token.at(-1) as string);
  for (let bits = 1; bits < 16; bits++)
    await expectRefused(await bearer(token.slice(0, -1) + digits[last + bits]), "token-invalid", "malformed");
  expectPassed(await bearer(token));
});

test("a token within a token, and an encrypted one", async () => {
  const issuer = stubIssuer(ec);
  const { bearer } = start();
  await expectRefused(await bearer(await sign(ec, await sign(ec), { cty: "JWT" })), "token-invalid", "malformed");
  const jwe = `${base64url.encode('{"alg":"dir","enc":"A256GCM","cty":"JWT"}')}..AAAA.AAAA.AAAA`;
  await expectRefused(await bearer(jwe), "token-invalid", "malformed");
  expect(issuer.asked).toHaveLength(1);
});

test("tokens of a megabyte are refused before they are looked at", async () => {
  const issuer = stubIssuer(ec);
  const { bearer, signatures } = start();
  await expectRefused(await bearer(`a.${"b".repeat(1_048_576)}.c`), "token-invalid", "size");
  await expectRefused(await bearer(await sign(ec, { pad: "x".repeat(8_192) })), "token-invalid", "size");
  expect(issuer.asked).toEqual([]);
  expect(signatures()).toBe(0);
});

test("shapes that are no compact JWS ask for no key", async () => {
  const issuer = stubIssuer(ec);
  const { bearer } = start();
  const token = await sign(ec);
  const [header, payload, signature] = token.split(".");
  const shapes = [
    `${token}.`,
    `.${token}`,
    `${token}.${signature}`,
    `${header}..${payload}.${signature}.`,
    `${header}.${payload}.${signature}.${header}.${payload}`,
    `${header}.${payload}`,
    `${header}.${payload}.`,
    `${header}..${signature}`,
    `.${payload}.${signature}`,
    "..",
    ".",
    "token",
    `${token}=`,
    `${header}=.${payload}.${signature}`,
    token.replaceAll(".", "\t."),
    `"${token}"`,
    `${header?.replace(/.$/, "+")}.${payload}.${signature}`,
  ];
  for (const shape of shapes) await expectRefused(await bearer(shape), "token-invalid", "malformed");
  expect(issuer.asked).toEqual([]);
});

test("whatever is changed in a token or cut from it, it does not pass", async () => {
  stubIssuer(ec);
  const { bearer } = start();
  const token = await sign(ec);
  const position = fc.integer({ min: 0, max: token.length - 1 });
  const character = fc.constantFrom(..."ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.");
  await fc.assert(
    fc.asyncProperty(position, character, async (at, put) => {
      fc.pre(token[at] !== put);
      await expectRefused(await bearer(token.slice(0, at) + put + token.slice(at + 1)), "token-invalid");
      await expectRefused(await bearer(token.slice(0, at)), "token-invalid");
    }),
  );
});

test("whatever stands in Authorization, the answer is 401 and never a failure", async () => {
  stubIssuer(ec);
  const { send } = start();
  const texts = fc.string({ unit: fc.constantFrom(...'Bearer .,=\t"eyJ') });
  await fc.assert(
    fc.asyncProperty(texts, async (text) => {
      for (const authorization of [text, `Bearer ${text}`]) {
        expect((await send({ authorization })).response.status).toBe(401);
      }
    }),
  );
});

test("whatever types the claims have, the answer is 200 or 401, and headers stay one line of visible ASCII", async () => {
  const { bearer } = start({ ...sharedSecret, claimsToHeaders: { email: "x-email", "org.id": "x-org" } });
  const value = fc.oneof(fc.string({ unit: "binary" }), fc.jsonValue());
  const names = ["iss", "sub", "aud", "exp", "nbf", "iat", "scope", "scp", "email", "org", "__proto__", "toString"];
  const changes = fc.array(fc.tuple(fc.constantFrom(...names), value), { maxLength: 3 });
  await fc.assert(
    fc.asyncProperty(changes, async (changed) => {
      const payload = JSON.stringify({ ...goodClaims, ...Object.fromEntries(changed) });
      const { response, exchange } = await bearer(await sign(sharedKey, payload));
      expect([200, 401]).toContain(response.status);
      for (const [name, text] of exchange.upstream) {
        if (name.startsWith("x-")) expect(text).toMatch(/^[\x20-\x7e]+$/);
      }
    }),
    { numRuns: 300 },
  );
});

test("claims cannot break out of their header, and no two look the same there", async () => {
  const { bearer } = start({ ...sharedSecret, claimsToHeaders: { text: "x-text", list: "x-list" } });
  const text = fc.string({
    unit: fc.oneof(
      fc.constantFrom(..."\r\n:,% \t\u0000é|a"),
      fc.string({ unit: "binary", minLength: 1, maxLength: 1 }),
    ),
  });
  await fc.assert(
    fc.asyncProperty(text, fc.array(text, { minLength: 2 }), async (text, list) => {
      const { response, exchange } = await bearer(await sign(sharedKey, { text, list }));
      if (![text, ...list].every((item) => item.isWellFormed())) {
        expect(response.status).toBe(401);
        return;
      }
      expect(decodeURIComponent(exchange.upstream.get("x-text") ?? "")).toBe(text);
      expect(exchange.upstream.get("x-list")?.split(",").map(decodeURIComponent)).toEqual(list);
    }),
  );
});

test("identity headers of the client never reach the origin", async () => {
  const issuer = stubIssuer(ec);
  const context = compileContext();
  const options = { claimsToHeaders: { email: "X-User-Email", sub: "x-user-id" } };
  compile({ issuer: ISSUER, jwks: JWKS, ...options }, context);
  // The gateway removes these on all routes, as it does with x-consumer-*.
  expect(context.claimed.sort()).toEqual(["x-user-email", "x-user-id"]);
  const { send } = start(options);
  const spoofed = { "x-consumer-name": "admin", "x-consumer-subject": "root", "x-user-id": "root" };
  const { exchange } = await send({ authorization: `Bearer ${await sign(ec)}`, ...spoofed });
  expect(exchange.upstream.get("x-user-id")).toBe("user-1");
  expect(exchange.upstream.get("x-consumer-subject")).toBe("user-1");
  expect(exchange.upstream.get("x-consumer-name")).toBeNull();
  expect(issuer.asked).toEqual([JWKS]);
});
