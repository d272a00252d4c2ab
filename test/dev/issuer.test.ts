import { mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createRemoteJWKSet, jwtVerify } from "jose";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { AUDIENCE, devKeys, ISSUER, signToken, startIssuer, tokenForDemo } from "../../src/dev/issuer.ts";

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "portcullis-issuer-"));
});

afterEach(() => rm(folder, { recursive: true, force: true }));

describe("the development keys", () => {
  it("are made once, for the owner alone, also when two ask at the same time", async () => {
    const made = await Promise.all([devKeys(folder), devKeys(folder), devKeys(folder)]);
    expect(new Set(made.map((keys) => JSON.stringify(keys))).size).toBe(1);
    expect(await devKeys(folder)).toEqual(made[0]);
    expect(await readdir(folder)).toEqual(["dev-keys.json"]);
    expect((await stat(join(folder, "dev-keys.json"))).mode & 0o777).toBe(0o600);
  });

  it("are not replaced when the file is not one of ours", async () => {
    await writeFile(join(folder, "dev-keys.json"), '{"issuer":{}}');
    await expect(devKeys(folder)).rejects.toThrow("delete it, and new ones are made");
  });
});

describe("a token", () => {
  it("verifies against the key set that the issuer serves, which has no private part", async () => {
    const issuer = await startIssuer({ folder });
    try {
      const { keys } = (await (await fetch(issuer.jwksUrl)).json()) as { keys: object[] };
      expect(keys.map((key) => Object.keys(key).sort())).toEqual([["alg", "crv", "kid", "kty", "use", "x", "y"]]);
      const token = await signToken({ subject: "alice", scope: "a b", claims: { email: "a@example.com" } }, folder);
      const { payload, protectedHeader } = await jwtVerify(token, createRemoteJWKSet(new URL(issuer.jwksUrl)), {
        issuer: ISSUER,
        audience: AUDIENCE,
        typ: "at+jwt",
        algorithms: ["ES256"],
      });
      expect(protectedHeader.kid).toBeTruthy();
      expect(payload).toMatchObject({ sub: "alice", scope: "a b", client_id: "storefront", email: "a@example.com" });
      expect((payload.exp ?? 0) - (payload.iat ?? 0)).toBe(3600);
    } finally {
      await issuer.close();
    }
  });

  it("is refused with what is wrong in how it was asked for", async () => {
    await expect(tokenForDemo({ sub: "alice", expires: "soon" })).rejects.toThrow("--expires soon is no duration");
    await expect(tokenForDemo({ sub: "alice", claim: ["admin"] })).rejects.toThrow("--claim admin is no claim");
  });
});
