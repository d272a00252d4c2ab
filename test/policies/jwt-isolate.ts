/** The jwt policy in an isolate of its own, and what a test asks of its answers. */
import { expect, vi } from "vitest";
import { secret } from "../../src/config/values.ts";
import { compile, type JwtOptions, run } from "../../src/policies/jwt.ts";
import type { PolicyMode } from "../../src/table/table.ts";
import { compileContext, type PolicyResult, startPolicy } from "./exchange.ts";
import { AUDIENCE, ISSUER, JWKS, NOW } from "./issuer.ts";

/** The value of the shared secret: 32 bytes. */
export const KEY = "0123456789abcdef0123456789abcdef";

/** Signs with the secret of `sharedSecret`. */
export const sharedKey = { alg: "HS256", kid: "shared", privateKey: new TextEncoder().encode(KEY) };

/** Options with which no key set is asked for. */
export const sharedSecret = { secret: secret("KEY") };

/** Starts the policy under a clock that only the test moves. */
export function start(
  options: Partial<JwtOptions> = {},
  { mode = "enforce", env = {} }: { mode?: PolicyMode; env?: Record<string, unknown> } = {},
) {
  const context = compileContext();
  const keys = options.secret ? {} : { jwks: JWKS };
  const config = compile({ issuer: ISSUER, audience: AUDIENCE, ...keys, ...options }, context);
  expect(context.problems).toEqual([]);
  const clock = { now: NOW * 1_000 };
  const request = startPolicy(run, config, { mode, env: { KEY, ...env }, now: () => clock.now });
  const verify = vi.spyOn(crypto.subtle, "verify");
  const send = (headers: HeadersInit = {}, query = "") =>
    request(new Request(`https://api.example.com/v1/orders${query}`, { headers }));
  return {
    clock,
    send,
    bearer: (token: string) => send({ authorization: `Bearer ${token}` }),
    /** How many signatures have been looked at so far. */
    signatures: () => verify.mock.calls.length,
  };
}

export function expectPassed({ response, exchange, passed }: PolicyResult) {
  expect([response.status, exchange.record.policies]).toEqual([200, [expect.objectContaining({ verdict: "pass" })]]);
  expect(passed).toBe(true);
}

/** 401 with a challenge and a record that says why, no caller, and nothing that the origin could take for one. */
export async function expectRefused({ response, exchange, passed }: PolicyResult, code: string, why?: string) {
  expect([response.status, exchange.record.policies]).toEqual([
    401,
    [
      {
        policy: "jwt",
        verdict: "deny",
        reason: code,
        ...(code !== "token-missing" && { facts: expect.objectContaining({ why: why ?? expect.any(String) }) }),
      },
    ],
  ]);
  expect(await response.json()).toMatchObject({ status: 401, code });
  expect(response.headers.get("content-type")).toBe("application/problem+json");
  expect(response.headers.get("www-authenticate")).toMatch(/^Bearer realm="orders"/);
  expect(passed).toBe(false);
  expect(exchange.caller).toBeUndefined();
  expect(exchange.record.reason).toBe(code);
  expect([...exchange.upstream.keys()].filter((name) => name.startsWith("x-consumer-"))).toEqual([]);
}
