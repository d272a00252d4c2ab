import { createLocalJWKSet, exportJWK, generateKeyPair, jwtVerify } from "jose";
import { beforeAll, expect, test, vi } from "vitest";
import { Assertions } from "../../src/edge/assertion.ts";
import type { Caller } from "../../src/policies/contract.ts";

const NOW = Date.UTC(2026, 10, 23, 12);
let key: string;
let other: string;
beforeAll(async () => {
  const make = async (kid: string) => {
    const { privateKey } = await generateKeyPair("ES256", { extractable: true });
    return JSON.stringify({ ...(await exportJWK(privateKey)), kid, alg: "ES256" });
  };
  [key, other] = await Promise.all([make("first"), make("second")]);
});

const assertions = () => new Assertions({ key: { secret: "KEY" }, issuer: "https://api.example.com", lifetime: 60 });
const caller: Caller = {
  consumer: "partner",
  subject: "https://login.example.com|alice",
  scopes: ["read", "write"],
  groups: ["staff", "web"],
  plan: "gold",
  metadata: { secret: "stays" },
  claims: { email: "stays" },
  credential: { kind: "jwt", id: "stays" },
};

async function claimsOf(made: Assertions, token: string, text = key) {
  const { payload } = await jwtVerify(token, createLocalJWKSet(await made.publicKeys(text)), {
    issuer: "https://api.example.com",
    currentDate: new Date(NOW),
  });
  return payload;
}

test("tells the cluster who is calling, by which kind of credential and with which scopes", async () => {
  const made = assertions();
  expect(await claimsOf(made, await made.sign(key, "eu", caller, NOW))).toEqual({
    iss: "https://api.example.com",
    aud: "eu",
    iat: NOW / 1_000,
    exp: NOW / 1_000 + 60,
    sub: "https://login.example.com|alice",
    consumer: "partner",
    scope: "read write",
    groups: ["staff", "web"],
    plan: "gold",
    credential: "jwt",
  });
});

test("of a caller of whom little is known says little, and of nobody nothing", async () => {
  const made = assertions();
  const plain = { subject: "s", scopes: [], claims: {} };
  const { iss, aud, iat, exp, ...claims } = await claimsOf(made, await made.sign(key, "eu", plain, NOW));
  expect(claims).toEqual({ sub: "s" });
  expect(await claimsOf(made, await made.sign(key, "eu", undefined, NOW))).toEqual({ iss, aud, iat, exp });
});

test("is signed once for who is told the same, and anew for another caller, cluster, time or key", async () => {
  const made = assertions();
  const sign = vi.spyOn(crypto.subtle, "sign");
  const first = await made.sign(key, "eu", caller, NOW);
  expect(await made.sign(key, "eu", caller, NOW + 29_999)).toBe(first);
  expect(await made.sign(key, "eu", { ...caller }, NOW)).toBe(first);
  expect(sign).toHaveBeenCalledTimes(1);
  const others = [
    await made.sign(key, "us", caller, NOW),
    await made.sign(key, "eu", { ...caller, scopes: ["read"] }, NOW),
    await made.sign(key, "eu", { ...caller, groups: ["web"] }, NOW),
    await made.sign(key, "eu", { ...caller, credential: { kind: "apiKey" } }, NOW),
    await made.sign(key, "eu", undefined, NOW),
    await made.sign(key, "eu", caller, NOW + 30_000),
    await made.sign(other, "eu", caller, NOW),
  ];
  expect(new Set([first, ...others]).size).toBe(8);
  expect(await claimsOf(made, others[6] as string, other)).toMatchObject({ consumer: "partner" });
  sign.mockRestore();
});
