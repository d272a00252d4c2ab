import fc from "fast-check";
import { afterEach, describe, expect, test, vi } from "vitest";
import type { Exchange } from "../../src/policies/contract.ts";
import {
  compile,
  type Penalty,
  type PenaltyBoxOptions,
  penaltyBox,
  punished,
  run,
  schema,
} from "../../src/policies/penalty-box.ts";
import type { PolicyMode } from "../../src/table/table.ts";
import { compileContext, type PolicyResult, startPolicy } from "./exchange.ts";
import { storeEnv, stubStore, tableWithStore } from "./stubbed-store.ts";

const NOW = Date.UTC(2026, 10, 23, 12);
afterEach(() => {
  vi.restoreAllMocks();
});

/** The policy before something that refuses every request with `reason`. */
function start(
  options: PenaltyBoxOptions = {},
  { mode = "enforce", store = "away" }: { mode?: PolicyMode; store?: "away" | "there" } = {},
) {
  const context = compileContext();
  const config = compile({ failures: 3, ...options }, context);
  expect(context.problems).toEqual([]);
  const stub = stubStore();
  if (store === "away") stub.answer = () => Promise.reject(new TypeError("down"));
  const clock = { now: NOW };
  let reason: Exchange["record"]["reason"] = "token-invalid";
  const send = startPolicy(run, config, {
    mode,
    env: storeEnv,
    table: tableWithStore(),
    now: () => clock.now,
    origin: ({ record }) => {
      if (reason) record.reason = reason;
      return new Response("behind", { status: reason ? 401 : 200 });
    },
  });
  const ask = async (headers: Record<string, string> = {}, clientAddress = "192.0.2.1"): Promise<PolicyResult> => {
    const result = await send(new Request("https://api.example.com/", { headers }), { clientAddress });
    await result.background;
    return result;
  };
  return {
    stub,
    clock,
    ask,
    refuse: (why: Exchange["record"]["reason"]) => {
      reason = why;
    },
    status: async (headers?: Record<string, string>, address?: string) => (await ask(headers, address)).response.status,
  };
}

describe("who keeps failing", () => {
  test("is kept out for a while, and is told how long", async () => {
    const { ask, status, clock, refuse } = start();
    expect([await status(), await status(), await status(), await status()]).toEqual([401, 401, 401, 401]);
    const { response, exchange, passed } = await ask();
    expect([response.status, passed, response.headers.get("retry-after")]).toEqual([429, false, "60"]);
    expect(await response.json()).toMatchObject({ code: "client-blocked" });
    expect(exchange.record.policies).toEqual([
      { policy: "penaltyBox", verdict: "deny", reason: "client-blocked", facts: { by: "client", level: 1 } },
    ]);
    refuse(undefined);
    clock.now += 59_001;
    expect((await ask()).response.headers.get("retry-after")).toBe("1");
    clock.now += 1_000;
    expect(await status()).toBe(200);
  });

  test("is kept out longer each time, up to the longest, and is forgotten in the end", async () => {
    const { ask, status, clock } = start({ maxBlock: "5m" });
    const blocks: string[] = [];
    for (let i = 0; i < 5; i++) {
      for (let failure = 0; failure < 4; failure++) await status();
      const { response } = await ask();
      blocks.push(response.headers.get("retry-after") ?? "");
      clock.now += Number(blocks.at(-1)) * 1_000;
    }
    expect(blocks).toEqual(["60", "120", "240", "300", "300"]);
    clock.now += 86_400_001;
    for (let failure = 0; failure < 4; failure++) await status();
    expect((await ask()).response.headers.get("retry-after")).toBe("60");
  });

  test("does not make it worse by trying while it is kept out", async () => {
    const { status, clock } = start();
    for (let i = 0; i < 200; i++) await status();
    clock.now += 60_000;
    expect(await status()).toBe(401);
  });

  test("is forgiven what lies further back than the window", async () => {
    const { status, clock } = start({ window: "1m" });
    for (let i = 0; i < 20; i++) {
      expect(await status()).toBe(401);
      clock.now += 20_001;
    }
  });

  test.each<[Exchange["record"]["reason"], boolean]>([
    ["credentials-invalid", true],
    ["rate-limited", true],
    ["request-filtered", true],
    ["token-expired", false],
    ["credentials-missing", false],
    ["not-found", false],
    ["upstream-unreachable", false],
    [undefined, false],
  ])("with %s counts: %s", async (reason, counts) => {
    const { status, refuse } = start();
    refuse(reason);
    for (let i = 0; i < 4; i++) await status();
    expect((await status()) === 429).toBe(counts);
  });

  test("is told apart by address, an IPv6 one by its /64", async () => {
    const { status } = start();
    for (let i = 0; i < 4; i++) await status({}, `2001:db8:1:2::${i}`);
    expect(await status({}, "2001:db8:1:2::ffff")).toBe(429);
    expect(await status({}, "2001:db8:1:3::1")).toBe(401);
    expect(await status({}, "192.0.2.2")).toBe(401);
  });

  test("is known by the user whose password it guesses, from wherever, and by its key", async () => {
    const { ask, status } = start();
    const login = (password: string) => ({ authorization: `Basic ${btoa(`alice:${password}`)}` });
    for (let i = 0; i < 4; i++) await status(login(`guess-${i}`), `192.0.2.${i}`);
    const { exchange } = await ask(login("another"), "198.51.100.1");
    expect(exchange.record.policies[0]?.facts).toEqual({ by: "user", level: 1 });
    expect(await status({ authorization: `Basic ${btoa("bob:x")}` }, "198.51.100.1")).toBe(401);
    for (let i = 0; i < 4; i++) await status({ "x-api-key": "stolen" }, `203.0.113.${i}`);
    const blocked = await ask({ "x-api-key": "stolen" }, "203.0.113.99");
    expect(blocked.exchange.record.policies[0]?.facts).toEqual({ by: "credential", level: 1 });
    expect(JSON.stringify(blocked.exchange.record)).not.toContain("stolen");
  });

  test("is never blocked by an exempt address, only by its credential", async () => {
    const { status } = start({ exempt: ["192.0.2.0/24"] });
    for (let i = 0; i < 20; i++) expect(await status()).toBe(401);
    for (let i = 0; i < 4; i++) await status({ "x-api-key": "k" });
    expect(await status({ "x-api-key": "k" })).toBe(429);
  });

  test("passes in report mode, and the record says what would have been", async () => {
    const { ask, status } = start({}, { mode: "report" });
    for (let i = 0; i < 4; i++) await status();
    const { response, exchange } = await ask();
    expect([response.status, exchange.record.policies[0]?.verdict]).toEqual([401, "would-deny"]);
  });
});

describe("the store", () => {
  test("is told of each failure, after the answer, by a hash; and no request asks it", async () => {
    const { stub, status, refuse } = start({}, { store: "there" });
    await status();
    expect(stub.asked).toHaveLength(1);
    const [command = "", , keys, key = "", ...args] = stub.asked[0] ?? [];
    expect([command, keys, key.length, args]).toEqual([
      "eval",
      1,
      "penalty:".length + 64,
      [NOW, 3, 300_000, 60_000, 3_600_000, 86_400_000],
    ]);
    refuse(undefined);
    for (let i = 0; i < 5; i++) await status();
    expect(stub.asked).toHaveLength(1);
  });

  test("tells of a block that others have earned, with the first failure here", async () => {
    const { stub, ask } = start({}, { store: "there" });
    stub.evaluate = () => [NOW + 240_000, 3];
    await ask();
    const { response, exchange } = await ask();
    expect([response.status, response.headers.get("retry-after")]).toEqual([429, "240"]);
    expect(exchange.record.policies[0]?.facts).toEqual({ by: "client", level: 3 });
  });

  test.each([null, [], ["x", "y"], "no", [0, 0]])("that answers %j changes nothing", async (answer) => {
    const { stub, status } = start({}, { store: "there" });
    stub.evaluate = () => answer;
    expect([await status(), await status()]).toEqual([401, 401]);
  });

  test("is told by a hundred requests at once and no more", async () => {
    const { stub, ask } = start({}, { store: "there" });
    const held = Promise.withResolvers<void>();
    stub.answer = () => held.promise.then(() => Response.json({ result: [0, 0] }));
    const waiting = Array.from({ length: 300 }, (_, i) => ask({}, `10.0.${i >> 8}.${i & 255}`));
    await vi.waitFor(() => expect(stub.asked).toHaveLength(100));
    held.resolve();
    await Promise.all(waiting);
    expect(stub.asked).toHaveLength(100);
  });
});

test("a penalty never shrinks while it lasts, and never comes before the failures are used up", () => {
  const config = { failures: 3, window: 1_000, block: 100, maxBlock: 1_000, memory: 5_000 };
  fc.assert(
    fc.property(fc.array(fc.nat({ max: 400 }), { maxLength: 60 }), (pauses) => {
      let penalty: Penalty = { count: 0, ends: 0, level: 0, until: 0 };
      let now = 1_000_000;
      const failures: number[] = [];
      for (const pause of pauses) {
        now += pause;
        const before = penalty;
        penalty = punished(before, config, now);
        if (before.until > now) {
          expect(penalty).toBe(before);
          continue;
        }
        failures.push(now);
        if (penalty.until > now) {
          // Four failures, none longer ago than the window.
          expect(failures.filter((at) => at > now - config.window).length).toBeGreaterThan(config.failures);
          expect(penalty.until - now).toBeLessThanOrEqual(config.maxBlock);
          failures.length = 0;
        }
      }
    }),
  );
});

describe("the build", () => {
  test.each<[RegExp, PenaltyBoxOptions]>([
    [/`maxBlock` is shorter than `block`/, { block: "2m", maxBlock: "1m" }],
    [/"10.0.0.1\/8" is no address or CIDR range/, { exempt: ["10.0.0.1/8"] }],
    [/window "0s" is no duration from 1s/, { window: "0s" }],
  ])("reports %s", (expected, options) => {
    const context = compileContext();
    compile(options, context);
    expect(context.problems).toEqual([expect.stringMatching(expected)]);
  });

  test("knows the shape of its options", () => {
    expect(
      schema().safeParse(penaltyBox({ failures: 5, count: ["rate-limited"], credentials: ["x-key"] }).options).success,
    ).toBe(true);
    for (const bad of [{ failures: 0 }, { count: ["no-such-code"] }, { credentials: ["a b"] }, { x: 1 }])
      expect([bad, schema().safeParse(bad).success]).toEqual([bad, false]);
  });
});
