/**
 * Project Wycheproof's vectors for JSON Web Signatures (test/vectors/wycheproof), each as a bearer token before the policy that trusts
 * the group's public key. Their payloads are no claims, so none passes; what counts is which signatures verify. Groups with a shared key
 * are left out: their keys are bytes that no secret's text stands for.
 */
import type { JWK } from "jose";
import { afterEach, expect, test, vi } from "vitest";
import { compile, run } from "../../src/policies/jwt.ts";
import vectors from "../vectors/wycheproof/json_web_signature_test.json?raw";
import { compileContext, startPolicy } from "./exchange.ts";
import { ISSUER, JWKS, stubIssuer } from "./issuer.ts";

interface Group {
  readonly comment: string;
  readonly public?: JWK;
  readonly tests: readonly { tcId: number; comment: string; jws: unknown; result: string }[];
}

const groups = (JSON.parse(vectors) as { testGroups: Group[] }).testGroups.filter((group) => group.public);

afterEach(() => {
  vi.restoreAllMocks();
});

// Valid by their signature; refused before it is looked at: no payload, an `alg` that is none.
const STRICTER = /^(?:rfc7520|rfc7520WithKeyOps)$|^emptyPayload$/;

test.each(groups.map((group, i) => [`${i}: ${group.comment}`, group] as const))("group %s", async (_, group) => {
  const issuer = stubIssuer();
  issuer.keys = [group.public as JWK];
  const verified: boolean[] = [];
  const verify = crypto.subtle.verify.bind(crypto.subtle);
  vi.spyOn(crypto.subtle, "verify").mockImplementation(async (...given) => {
    const verifies = await verify(...given);
    verified.push(verifies);
    return verifies;
  });
  const send = startPolicy(run, compile({ issuer: ISSUER, jwks: JWKS, maxTokenSize: 65_536 }, compileContext()));
  for (const { tcId, comment, jws, result } of group.tests) {
    verified.length = 0;
    const token = typeof jws === "string" ? jws : JSON.stringify(jws);
    const request = new Request("https://api.example.com/", { headers: { authorization: `Bearer ${token}` } });
    const { response, passed, exchange } = await send(request);
    expect([tcId, response.status, passed, exchange.caller]).toEqual([tcId, 401, false, undefined]);
    const held = verified.includes(true);
    if (result === "invalid") expect([tcId, comment, held]).toEqual([tcId, comment, false]);
    else if (!STRICTER.test(group.comment) && !STRICTER.test(comment))
      expect([tcId, comment, held]).toEqual([tcId, comment, true]);
  }
});
