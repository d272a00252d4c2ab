/** Between any two tables: a request that another route answers now is told of, and every example that is told is one. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { planRoutes } from "../../src/build/compile.ts";
import { diffTables } from "../../src/prove/diff.ts";
import { folderOf, PRELUDE } from "../build/module.ts";
import { naively, requests, tableOf, tables } from "./tables.ts";

describe("random pairs of tables", () => {
  it("have no other differences than those that are told", () => {
    let cases = 0;
    let moved = 0;
    // The second has some of the first one's routes, so that ids mean something.
    const pairs = fc
      .tuple(tables, tables, fc.array(fc.boolean(), { minLength: 7, maxLength: 7 }))
      .map(([a, b, kept]) => ({
        old: a,
        now: { ...b, gateway: a.gateway, routes: b.routes.map((route, i) => (kept[i] && a.routes[i]) || route) },
      }));
    fc.assert(
      fc.property(pairs, fc.nat(), ({ old, now }, start) => {
        const diff = diffTables(old, now);
        const idOf = (table: typeof old, position?: number) =>
          position === undefined ? undefined : table.routes[position]?.id;
        const told = (route: string | undefined, ...changes: string[]) =>
          diff.changes.some((one) => one.route === route && changes.includes(one.change));
        expect(diff.uncompared).toBe(0);
        for (const request of requests({ ...old, ...(now.listeners && { listeners: now.listeners }) }, start)) {
          cases++;
          const [from, to] = [idOf(old, naively(old, request)), idOf(now, naively(now, request))];
          if (from === to) continue;
          moved++;
          const known =
            from === undefined
              ? told(to, "added", "widened")
              : to === undefined
                ? told(from, "removed", "narrowed")
                : diff.moves.some((move) => move.from === from && move.to === to);
          if (!known) throw new Error(`${from} to ${to} is not told: ${JSON.stringify(request)}`);
        }
        for (const { from, to, example } of diff.moves) {
          expect(idOf(old, naively(old, example))).toBe(from);
          expect(idOf(now, naively(now, example))).toBe(to);
        }
      }),
      { numRuns: 30 },
    );
    expect(cases).toBeGreaterThan(8_000);
    expect(moved).toBeGreaterThan(500);
  });

  it("tells nothing of a table and itself", () => {
    fc.assert(
      fc.property(tables, (table) => {
        expect(diffTables(table, structuredClone(table))).toEqual({
          changes: [],
          moves: [],
          weakenings: [],
          edited: [],
          uncompared: 0,
        });
      }),
      { numRuns: 30 },
    );
  });
});

describe("requests that go elsewhere", () => {
  const jwt = {
    policy: "jwt",
    mode: "enforce",
    config: { optional: false, keys: { secret: { secret: "A" } } },
  } as const;
  const guarded = { id: "shop/all", policies: [0], matches: [{ path: { kind: "prefix", value: "/v1" } as const }] };

  it("are weakened when the route that answers them now holds back less", () => {
    const old = tableOf([guarded], { policies: [jwt] });
    const open = { id: "shop/status", matches: [{ path: { kind: "exact", value: "/v1/status" } as const }] };
    const { weakenings } = diffTables(old, tableOf([guarded, open], { policies: [jwt] }));
    expect(weakenings).toEqual([
      {
        route: "shop/status",
        policy: "jwt",
        message: "jwt is gone: nothing says who is calling",
        from: "shop/all",
        example: expect.objectContaining({ path: "/v1/status" }),
      },
    ]);
  });

  it("are not when it is the same route by another name", () => {
    const diff = diffTables(
      tableOf([guarded], { policies: [jwt] }),
      tableOf([{ ...guarded, id: "shop/every" }], { policies: [jwt] }),
    );
    expect(diff.weakenings).toEqual([]);
    expect(diff.moves).toMatchObject([{ from: "shop/all", to: "shop/every" }]);
  });
});

it("tells of a consumer's other plan, whose limits are others", async () => {
  const withPlan = async (name: string) => {
    const text = `${PRELUDE.replace("import {", "import { plan,")}
const free = plan("free", { limits: [{ limit: 2, window: "1m" }] });
const gold = plan("gold", { limits: [{ limit: 900, window: "1m" }] });
const shop = consumer("shop", { claims: { sub: "shop" }, plan: ${name} });
const policies = [
  jwt({ issuer: "https://a", jwks: "https://a/k", audience: "shop", consumers: [shop] }),
  rateLimit({ limit: 5, window: "1m", plans: [free, gold] }),
];
export default gateway({ store: { url: env("U"), token: secret("T") } }, [
  api("shop", {}, [route("all", { path: "/*" }, { policies, to: eu })]),
]);`;
    return (await planRoutes(await folderOf({ "index.ts": text }))).table;
  };
  const { weakenings } = diffTables(await withPlan("free"), await withPlan("gold"));
  expect(weakenings).toEqual([
    { route: "*", policy: "gateway", message: "consumer shop has the plan gold instead of free, with other limits" },
  ]);
});

it("tells of what rules know of a consumer, and of a cluster that no longer sees a certificate", async () => {
  const table = async (shop: string, cluster: string, rules: string) => {
    const text = `${PRELUDE.replace("import {", "import { deny,")}
const us = cluster("us", { ingress: env("US")${cluster} });
const shop = consumer("shop", { claims: { sub: "shop" }, ${shop} });
const policies = [jwt({ issuer: "https://a", jwks: "https://a/k", audience: "shop", consumers: [shop] }), ${rules}];
export default gateway({}, [api("shop", {}, [route("all", { path: "/*" }, { policies, to: us })])]);`;
    return (await planRoutes(await folderOf({ "index.ts": text }))).table;
  };
  const told = async (rules: string) =>
    diffTables(
      await table('groups: ["blocked"], metadata: { tier: 1 }', ', certificate: binding("C")', rules),
      await table("metadata: { tier: 2 }", "", rules),
    ).weakenings.map(({ message }) => message);
  expect(
    await told('authorize(allow("tier", caller.metadata("tier").is(2)), deny("b", caller.groups.has("blocked")))'),
  ).toEqual([
    "cluster us is shown no certificate",
    "consumer shop is no longer in groups by which rules may refuse it: blocked",
    "consumer shop has other metadata, by which rules may allow more",
  ]);
  expect(await told('scopes("a")')).toEqual(["cluster us is shown no certificate"]);
});
