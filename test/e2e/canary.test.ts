/** Weighted splits over real requests: how many get which arm, who stays where, and who may choose. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Answer } from "./client.ts";
import { describeWithRealParts, Fixture, secrets } from "./fixture.ts";

const ROUTES = `
const arms = (canary) => ({
  stable: eu.service("orders").weight(100 - canary),
  canary: eu.service("orders-next").weight(canary),
});
const override = { header: "x-canary", cookie: "canary", secret: secret("CANARY_KEY") };
export default gateway(settings, [
  api("shop", {}, [
    route("ten", { path: "/ten" }, { policies: [token], to: split(arms(10), { salt: "one" }) }),
    route("twenty", { path: "/twenty" }, { policies: [token], to: split(arms(20), { salt: "one" }) }),
    route("other", { path: "/other" }, { policies: [token], to: split(arms(10), { salt: "two" }) }),
    route("cookie", { path: "/cookie" }, { to: split(arms(50), { sticky: { cookie: "arm", maxAge: 3600 } }) }),
    route("header", { path: "/header" }, { to: split(arms(50), { sticky: { header: "x-tenant" } }) }),
    route("chosen", { path: "/chosen" }, { to: split(arms(0), { sticky: "client", override }) }),
  ]),
]);`;

const SUBJECTS = Array.from({ length: 2_000 }, (_, i) => `customer-${i}`);

describeWithRealParts("a canary", () => {
  let on: Fixture;
  beforeAll(async () => {
    on = await Fixture.start({ routes: ROUTES });
  });
  afterAll(() => on?.close());

  /** The arm in the response header, which is also where the request went and what the record says. */
  async function armOf(answer: Answer): Promise<string> {
    expect(answer.status).toBe(200);
    const arm = answer.headers["x-portcullis-arm"] as string;
    expect(answer.echo().servedBy).toBe(arm === "canary" ? "eu/orders-next" : "eu/orders");
    expect((await on.gateway.recordOf(answer)).arm).toBe(arm);
    return arm;
  }

  describe("by subject", () => {
    /** The subjects on the canary of `path`, asked for by 20 clients at once. */
    async function onCanary(path: string, subjects: readonly string[]): Promise<Set<string>> {
      const chosen = new Set<string>();
      const waiting = [...subjects];
      const client = async () => {
        for (let sub = waiting.pop(); sub !== undefined; sub = waiting.pop()) {
          const answer = await on.ask(path, { headers: await on.issuer.bearer({ sub }) });
          if (answer.headers["x-portcullis-arm"] === "canary") chosen.add(sub);
        }
      };
      await Promise.all(Array.from({ length: 20 }, client));
      return chosen;
    }

    it("gets its share, keeps whom it has, and only wins callers when its weight is raised", async () => {
      const first = await onCanary("/ten", SUBJECTS);
      // Four standard deviations of the binomial distribution; for these subjects and this salt the number is always the same.
      expect(Math.abs(first.size - 200)).toBeLessThan(4 * Math.sqrt(2_000 * 0.1 * 0.9));
      expect(on.origins["eu/orders-next"].arrivedAt("/ten").length).toBe(first.size);
      expect(on.origins["eu/orders"].arrivedAt("/ten").length).toBe(2_000 - first.size);

      const sample = [...first, ...SUBJECTS.slice(0, 300)];
      const again = await onCanary("/ten", sample);
      expect(again).toEqual(new Set(sample.filter((sub) => first.has(sub))));

      const raised = await onCanary("/twenty", sample);
      expect([...first].filter((sub) => !raised.has(sub))).toEqual([]);
      expect(raised.size).toBeGreaterThan(first.size);
    });

    it("is drawn anew for a split with another salt", async () => {
      const [one, two] = [
        await onCanary("/ten", SUBJECTS.slice(0, 300)),
        await onCanary("/other", SUBJECTS.slice(0, 300)),
      ];
      expect(one).not.toEqual(two);
    });

    it("stands in the response header and the record", async () => {
      const answer = await on.ask("/ten", { headers: await on.issuer.bearer({ sub: "customer-1" }) });
      await armOf(answer);
      expect((await on.gateway.recordOf(answer)).armBy).toBe("subject");
    });
  });

  describe("by cookie", () => {
    it("keeps every caller where the first answer put him, on both arms", async () => {
      const cookies = new Map<string, string>();
      for (let i = 0; i < 200 && cookies.size < 2; i++) {
        const answer = await on.ask("/cookie");
        const [given, ...more] = answer.headers["set-cookie"] ?? [];
        expect(more).toEqual([]);
        expect(given).toMatch(/^arm=[0-9a-f-]{36}; Path=\/; Max-Age=3600; HttpOnly; SameSite=Lax$/);
        expect((await on.gateway.recordOf(answer)).armBy).toBe("new-cookie");
        cookies.set(await armOf(answer), (given as string).split(";")[0] as string);
      }
      expect([...cookies.keys()].sort()).toEqual(["canary", "stable"]);
      for (const [arm, cookie] of cookies) {
        for (let i = 0; i < 10; i++) {
          const answer = await on.ask("/cookie", {
            headers: { cookie: `a=1; ${cookie}`, "user-agent": `browser ${i}` },
          });
          expect(await armOf(answer)).toBe(arm);
          expect(answer.headers).not.toHaveProperty("set-cookie");
          expect((await on.gateway.recordOf(answer)).armBy).toBe("cookie");
        }
      }
    });

    it("gives a new one to who comes with none that it could have given", async () => {
      for (const cookie of [
        "arm=",
        "arm=x",
        "arm=canary",
        `arm=${"x".repeat(65)}`,
        "arm=a b c d e f g h",
        "army=12345678",
      ]) {
        const answer = await on.ask("/cookie", { headers: { cookie } });
        expect(answer.headers["set-cookie"]?.[0], cookie).toMatch(/^arm=[0-9a-f-]{36};/);
      }
    });
  });

  it("by header keeps a tenant, whoever asks for it", async () => {
    const arms = new Map<string, Set<string>>();
    for (let i = 0; i < 40; i++) {
      for (const agent of ["a", "b"]) {
        const answer = await on.ask("/header", { headers: { "x-tenant": `tenant-${i}`, "user-agent": agent } });
        const seen = arms.get(`tenant-${i}`) ?? new Set();
        arms.set(`tenant-${i}`, seen.add(await armOf(answer)));
      }
    }
    expect([...arms.values()].every((seen) => seen.size === 1)).toBe(true);
    expect(new Set([...arms.values()].flatMap((seen) => [...seen])).size).toBe(2);
  });

  describe("by override", () => {
    it.each([
      ["a header", { "x-canary": `canary:${secrets.canary}` }, "override-header"],
      ["a cookie", { cookie: `a=1; canary=canary:${secrets.canary}; b=2` }, "override-cookie"],
    ])("is chosen with the secret in %s, even at no weight", async (_, headers, armBy) => {
      const answer = await on.ask("/chosen", { headers });
      expect(await armOf(answer)).toBe("canary");
      expect((await on.gateway.recordOf(answer)).armBy).toBe(armBy);
    });

    it.each([
      "canary",
      "canary:",
      ":",
      "",
      "always",
      "true",
      `canary:${secrets.canary}x`,
      `canary:${secrets.canary.slice(1)}`,
      `canary: ${secrets.canary}`,
      `none:${secrets.canary}`,
      `CANARY:${secrets.canary}`,
      secrets.canary,
      `stable:${secrets.canary},canary:${secrets.canary}`,
    ])("is not chosen by %j", async (wish) => {
      for (const headers of [{ "x-canary": wish }, { cookie: `canary=${wish}` }]) {
        const answer = await on.ask("/chosen", { headers });
        expect(await armOf(answer)).toBe("stable");
        expect((await on.gateway.recordOf(answer)).armBy).toBe("client");
      }
    });

    it("does not tell the cluster the secret, right or wrong", async () => {
      for (const wish of [`canary:${secrets.canary}`, "canary:wrong-guess"]) {
        const answer = await on.ask("/chosen", { headers: { "x-canary": wish, cookie: `a=1; canary=${wish}; b=2` } });
        const { headers, lines } = answer.echo();
        expect(headers.cookie).toBe("a=1; b=2");
        expect(headers).not.toHaveProperty("x-canary");
        expect(JSON.stringify(lines)).not.toContain(wish.split(":")[1]);
      }
      const alone = (await on.ask("/chosen", { headers: { cookie: `canary=canary:${secrets.canary}` } })).echo();
      expect(alone.headers).not.toHaveProperty("cookie");
    });
  });

  it("leaves no secret in the log", () => {
    expect(on.gateway.records.length).toBeGreaterThan(2_500);
    expect(on.leaked()).toEqual([]);
  });
});
