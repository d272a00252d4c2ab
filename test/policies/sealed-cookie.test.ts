import { expect, test } from "vitest";
import { openSealed, randomSecret, seal, sealingKey } from "../../src/policies/sealed-cookie.ts";

const NOW = Date.UTC(2026, 10, 23, 12);
const SESSION = { purpose: "session", audience: "a" } as const;
const keyOf = (text: string) => sealingKey(text, "COOKIE_KEY");

test("what was sealed opens with the key, for its purpose and until its time, and shows nothing", async () => {
  const [key, other] = await Promise.all([keyOf("a".repeat(32)), keyOf("b".repeat(32))]);
  const sealed = await seal({ name: "visible?" }, SESSION, key, NOW + 1_000);
  expect(await openSealed(sealed, SESSION, [key], NOW)).toMatchObject({
    payload: { name: "visible?" },
    until: NOW + 1_000,
  });
  expect(await openSealed(sealed, SESSION, [other, key], NOW)).toBeDefined();
  expect(sealed + atob(sealed.split(".")[0] as string)).not.toContain("visible");
  expect(await seal({ name: "visible?" }, SESSION, key, NOW + 1_000)).not.toBe(sealed);
  expect(await openSealed(sealed, { ...SESSION, purpose: "login" }, [key], NOW)).toBeUndefined();
  expect(await openSealed(sealed, { ...SESSION, audience: "b" }, [key], NOW)).toBeUndefined();
  expect(await openSealed(sealed, SESSION, [other], NOW)).toBeUndefined();
  expect(await openSealed(sealed, SESSION, [key], NOW + 1_000)).toBeUndefined();
});

test("nothing that was changed opens", async () => {
  const key = await keyOf("a".repeat(32));
  const sealed = await seal({ admin: false }, SESSION, key, NOW + 1_000);
  for (let at = 0; at < sealed.length; at += 7) {
    const changed = sealed.slice(0, at) + (sealed[at] === "A" ? "B" : "A") + sealed.slice(at + 1);
    // The last character of a part may have bits that count for nothing.
    if (sealed[at] === "." || sealed[at + 1] === "." || at + 1 === sealed.length) continue;
    expect([at, await openSealed(changed, SESSION, [key], NOW)]).toEqual([at, undefined]);
  }
  for (const text of ["", ".....", "a.b.c", sealed.slice(0, -4), `${sealed}.x`])
    expect(await openSealed(text, SESSION, [key], NOW)).toBeUndefined();
});

test("a short key is none", async () => {
  await expect(keyOf("a".repeat(31))).rejects.toThrow("COOKIE_KEY is shorter than 32 characters");
});

test("random secrets are long and different", () => {
  const all = new Set(Array.from({ length: 100 }, randomSecret));
  expect(all.size).toBe(100);
  for (const one of all) expect(one).toMatch(/^[\w-]{43}$/);
});
