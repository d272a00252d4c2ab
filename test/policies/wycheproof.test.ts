/**
 * Project Wycheproof's vectors for JSON Web Signatures and Keys (test/vectors/wycheproof), each as a bearer token before the policy that trusts
 * the group's key. Their payloads are no claims, so none passes; what counts is which signatures verify. Shared keys are bytes that no
 * secret's text stands for, so the encoder of texts is made to give them.
 */
import { base64url, type JWK } from "jose";
import { afterEach, expect, test, vi } from "vitest";
import { secret } from "../../src/config/values.ts";
import { compile, run } from "../../src/policies/jwt.ts";
import keyVectors from "../vectors/wycheproof/json_web_key_test.json?raw";
import signatureVectors from "../vectors/wycheproof/json_web_signature_test.json?raw";
import { compileContext, startPolicy } from "./exchange.ts";
import { ISSUER, JWKS, stubIssuer } from "./issuer.ts";

interface Group {
  readonly comment: string;
  readonly public?: JWK | { readonly keys: JWK[] };
  readonly private: JWK | { readonly keys: JWK[] };
  readonly tests: readonly { tcId: number; comment: string; jws: unknown; result: string }[];
}

const keysOf = (given: JWK | { readonly keys: JWK[] } | undefined): JWK[] =>
  given === undefined ? [] : "keys" in given ? (given.keys as JWK[]) : [given];
const groups = [signatureVectors, keyVectors]
  .flatMap((json) => (JSON.parse(json) as { testGroups: Group[] }).testGroups)
  // A secret is one key, which says nothing of what it is for, so there is no wrong one to choose.
  .filter((group) => group.public || keysOf(group.private).length === 1)
  .filter((group) => !/^invalid_aes_/.test(group.comment));

afterEach(() => {
  vi.restoreAllMocks();
});

const SECRET = "stands for the bytes of the group's key";

// Valid by their signature; refused before it is looked at: no payload, an `alg` that is none, a character that is none of base64url.
const STRICTER = /^(?:rfc7520|rfc7520WithKeyOps|emptyPayload|InvalidCharacterInsertedIn(?:Header|Payload))$/;
// "invalidBase64Padding": their padding is lost, so that they are letter by letter the valid 357.
const SAME_AS_VALID = [367, 370];

// The issuer's key is one whose factors can be computed (CVE-2017-15361); an issuer that publishes such a key cannot be helped.
const WEAK_KEY = "rejectsKeyWithRocaVulnerability";
// Shorter than RFC 7518, 3.2 allows: that is the operator's mistake, not the caller's.
const SHORT_SECRET = /^(?:key_too_short|empty_key)$/;

test.each(groups.map((group, i) => [`${i}: ${group.comment}`, group] as const))("group %s", async (_, group) => {
  stubIssuer().keys = keysOf(group.public);
  const verified: boolean[] = [];
  const verify = crypto.subtle.verify.bind(crypto.subtle);
  vi.spyOn(crypto.subtle, "verify").mockImplementation(async (...given) => {
    const verifies = await verify(...given);
    verified.push(verifies);
    return verifies;
  });
  const encode = TextEncoder.prototype.encode;
  vi.spyOn(TextEncoder.prototype, "encode").mockImplementation(function (this: TextEncoder, text) {
    return text === SECRET ? base64url.decode(keysOf(group.private)[0]?.k as string) : encode.call(this, text);
  });
  const keys = group.public ? { jwks: JWKS } : { secret: secret("KEY") };
  const config = compile({ issuer: ISSUER, ...keys, maxTokenSize: 65_536 }, compileContext());
  const send = startPolicy(run, config, { env: { KEY: SECRET } });
  for (const { tcId, comment, jws, result } of group.tests) {
    verified.length = 0;
    const token = typeof jws === "string" ? jws : JSON.stringify(jws);
    const request = new Request("https://api.example.com/", { headers: { authorization: `Bearer ${token}` } });
    const { response, passed, exchange } = await send(request);
    const refused = response.status === 503 && SHORT_SECRET.test(comment) ? 503 : 401;
    expect([tcId, response.status, passed, exchange.caller]).toEqual([tcId, refused, false, undefined]);
    const held = verified.includes(true);
    if (SAME_AS_VALID.includes(tcId)) expect(jws).toBe(group.tests[0]?.jws);
    else if (comment === WEAK_KEY) expect(held).toBe(true);
    else if (result === "invalid") expect([tcId, comment, held]).toEqual([tcId, comment, false]);
    else if (!STRICTER.test(group.comment) && !STRICTER.test(comment))
      expect([tcId, comment, held]).toEqual([tcId, comment, true]);
  }
});
