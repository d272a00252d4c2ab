import fc from "fast-check";
import { afterEach, describe, expect, test, vi } from "vitest";
import { consumer } from "../../src/config/consumer.ts";
import { type ApiKeyOptions, apiKey, compile, run, schema } from "../../src/policies/api-key.ts";
import { isKey, type KeyRecord, makeKey, recordKey, sha256 } from "../../src/policies/api-key-format.ts";
import type { PolicyMode, RouteTable } from "../../src/table/table.ts";
import { compileContext, type PolicyResult, startPolicy } from "./exchange.ts";
import { type StubbedStore, storeEnv, stubStore, tableWithStore } from "./stubbed-store.ts";

const NOW = Date.UTC(2026, 10, 23, 12);
afterEach(() => {
  vi.restoreAllMocks();
});

/** The policy in an isolate of its own, under a clock that only the test moves, before a store that holds nothing yet. */
function start(
  options: ApiKeyOptions = {},
  { mode = "enforce", consumers = {} }: { mode?: PolicyMode; consumers?: RouteTable["consumers"] } = {},
) {
  const context = compileContext();
  const config = compile(options, context);
  expect(context.problems).toEqual([]);
  const store = stubStore();
  const clock = { now: NOW };
  const table = tableWithStore(consumers);
  const request = startPolicy(run, config, { mode, env: storeEnv, table, now: () => clock.now });
  const send = (headers: HeadersInit = {}, query = "") =>
    request(new Request(`https://api.example.com/v1/orders${query}`, { headers }));
  return { store, clock, send, ask: (key: string) => send({ "x-api-key": key }) };
}

/** A key that the store knows. */
async function issue(store: StubbedStore, record: Partial<KeyRecord> = {}, prefix = "key"): Promise<string> {
  const key = makeKey(prefix);
  const whole: KeyRecord = { id: "id-1", consumer: "partner", created: NOW, ...record };
  store.values.set(recordKey(await sha256(key)), JSON.stringify(whole));
  return key;
}

async function expectRefused({ response, exchange, passed }: PolicyResult, why: string) {
  expect([response.status, passed, exchange.caller]).toEqual([401, false, undefined]);
  expect(await response.json()).toMatchObject({ code: "credentials-invalid" });
  expect(response.headers.get("www-authenticate")).toBe('ApiKey realm="orders"');
  expect(exchange.record.policies).toEqual([
    { policy: "apiKey", verdict: "deny", reason: "credentials-invalid", facts: expect.objectContaining({ why }) },
  ]);
}
const facts = ({ exchange }: PolicyResult) => exchange.record.policies[0]?.facts;

describe("a key", () => {
  test("is written so that a typo is told", () => {
    fc.assert(
      fc.property(
        fc.constantFrom("key", "shop", "shop_live"),
        fc.nat(),
        fc.integer({ min: 0, max: 127 }),
        (prefix, at, code) => {
          const key = makeKey(prefix);
          expect(isKey(key, prefix)).toBe(true);
          expect(key).toMatch(new RegExp(`^${prefix}_[0-9A-Za-z]{32}_[0-9A-Za-z]{6}$`));
          const place = at % key.length;
          const typo = key.slice(0, place) + String.fromCharCode(code) + key.slice(place + 1);
          expect(isKey(typo, prefix)).toBe(typo === key);
          expect(isKey(key.slice(0, -1), prefix)).toBe(false);
          expect(isKey(`${key}0`, prefix)).toBe(false);
          expect(isKey(key, "other")).toBe(false);
        },
      ),
    );
  });

  test("has the checksum that zlib would give it", () => {
    // crc32 of `key_00000000000000000000000000000000` by zlib is 0x16acc3b4.
    expect(isKey("key_00000000000000000000000000000000_0PkCtI", "key")).toBe(true);
  });

  test("is random in all of its characters alike", () => {
    const counts = new Map<string, number>();
    for (let i = 0; i < 2_000; i++) {
      for (const character of makeKey("key").slice(4, 36)) counts.set(character, (counts.get(character) ?? 0) + 1);
    }
    expect(counts.size).toBe(62);
    // 64,000 draws of 62: 1,032 each, with a standard deviation of 32.
    for (const count of counts.values()) expect(Math.abs(count - 1_032)).toBeLessThan(6 * 32);
  });
});

describe("a good key", () => {
  test("passes, tells whose it is, and stays in the gateway", async () => {
    const { store, ask } = start();
    const key = await issue(store, { scopes: ["orders:read"], groups: ["partners"], plan: "gold" });
    for (let warm = 0; warm < 2; warm++) {
      const { response, exchange } = await ask(key);
      expect(response.status).toBe(200);
      expect(exchange.caller).toEqual({
        consumer: "partner",
        subject: "consumer:partner",
        scopes: ["orders:read"],
        claims: {},
        groups: ["partners"],
        plan: "gold",
        credential: { kind: "apiKey", id: "id-1" },
      });
      expect(Object.fromEntries(exchange.upstream)).toEqual({
        "x-consumer-name": "partner",
        "x-consumer-groups": "partners",
        "x-consumer-plan": "gold",
        "x-consumer-scopes": "orders:read",
      });
      expect(exchange.record).toMatchObject({
        consumer: "partner",
        credential: { kind: "apiKey", id: "id-1" },
        policies: [{ policy: "apiKey", verdict: "pass" }],
      });
      expect(JSON.stringify(exchange.record)).not.toContain(key);
    }
    expect(store.asked).toEqual([["get", recordKey(await sha256(key))]]);
  });

  test("of a declared consumer has what is declared", async () => {
    const { store, ask } = start(
      {},
      { consumers: { partner: { name: "partner", groups: ["declared"], metadata: { a: 1 } } } },
    );
    const { exchange } = await ask(await issue(store, { groups: ["stored"], plan: "gold" }));
    expect(exchange.caller).toMatchObject({ groups: ["declared"], metadata: { a: 1 } });
    expect(exchange.caller).not.toHaveProperty("plan");
  });

  test("of a consumer of a strange name is no member of Object.prototype", async () => {
    const { store, ask } = start();
    const { exchange } = await ask(await issue(store, { consumer: "constructor" }));
    expect(exchange.caller).toMatchObject({ consumer: "constructor", subject: "consumer:constructor" });
  });

  test("may come in a header with a scheme, a cookie or the query; the origin gets none of them", async () => {
    const { store, send } = start({
      keyFrom: [{ header: "authorization", scheme: "ApiKey" }, { cookie: "key" }, { query: "key" }],
    });
    const key = await issue(store);
    const one = await send({ authorization: `apikey ${key}` });
    const two = await send({ cookie: `a=1; key=${key}` });
    const three = await send({}, `?page=2&key=${key}`);
    expect([one, two, three].map(({ passed }) => passed)).toEqual([true, true, true]);
    expect(one.exchange.upstream.has("authorization")).toBe(false);
    expect(two.exchange.upstream.get("cookie")).toBe("a=1");
    expect(three.exchange.upstreamSearch).toBe("?page=2");
    await expectRefused(await send({ cookie: `key=${key}` }, `?key=${await issue(store)}`), "conflict");
  });

  test("reaches the origin where it is to", async () => {
    const { store, ask } = start({ forwardKey: true });
    const key = await issue(store);
    expect((await ask(key)).exchange.upstream.get("x-api-key")).toBe(key);
  });

  test("is one of several that its consumer has", async () => {
    const { store, ask } = start();
    const [old, fresh] = [await issue(store, { id: "old" }), await issue(store, { id: "new" })];
    expect((await ask(old)).exchange.record.credential).toEqual({ kind: "apiKey", id: "old" });
    expect((await ask(fresh)).exchange.record.credential).toEqual({ kind: "apiKey", id: "new" });
  });
});

describe("a request without a good key", () => {
  test("that has none is told to bring one, or passes where that is optional", async () => {
    const { response, passed, exchange } = await start().send();
    expect([response.status, passed]).toEqual([401, false]);
    expect(response.headers.get("www-authenticate")).toBe('ApiKey realm="orders"');
    expect(await response.json()).toMatchObject({ code: "credentials-missing" });
    expect(exchange.record.reason).toBe("credentials-missing");
    const { send, ask } = start({ optional: true });
    const without = await send();
    expect([without.passed, without.exchange.caller, facts(without)]).toEqual([true, undefined, { anonymous: true }]);
    await expectRefused(await ask("nonsense"), "malformed");
  });

  test("costs the store nothing where the key is not written as one", async () => {
    const { store, ask } = start();
    const key = await issue(store);
    const other = key.endsWith("0") ? "1" : "0";
    for (const wrong of [
      key.slice(0, -1) + other,
      key.toLowerCase(),
      `${key}~`,
      `shop${key.slice(3)}`,
      "x".repeat(8_000),
    ]) {
      await expectRefused(await ask(wrong), "malformed");
    }
    expect(store.asked).toEqual([]);
  });

  test("is refused by the same work, however near it comes to a good one", async () => {
    const { store, ask } = start();
    const good = (await issue(store)).slice(4, 36);
    await ask(makeKey("key", good));
    const digest = vi.spyOn(crypto.subtle, "digest");
    const work = [];
    for (let right = 0; right < 32; right++) {
      const next = good[right] === "a" ? "b" : "a";
      digest.mockClear();
      const before = store.asked.length;
      const result = await ask(makeKey("key", good.slice(0, right) + next + good.slice(right + 1)));
      await expectRefused(result, "unknown");
      const [, hashed] = digest.mock.calls[0] as [string, Uint8Array];
      work.push([digest.mock.calls.length, hashed.length, store.asked.length - before]);
    }
    expect(new Set(work.map(String))).toEqual(new Set(["1,43,1"]));
  });

  test("is refused, and costs the store one look each ten seconds", async () => {
    const { store, ask, clock } = start();
    const key = makeKey("key");
    await expectRefused(await ask(key), "unknown");
    clock.now += 9_999;
    await expectRefused(await ask(key), "unknown");
    expect(store.asked).toHaveLength(1);
    store.values.set(recordKey(await sha256(key)), JSON.stringify({ id: "i", consumer: "late", created: NOW }));
    await expectRefused(await ask(key), "unknown");
    clock.now += 1;
    expect((await ask(key)).exchange.caller?.consumer).toBe("late");
  });

  test("is refused from the moment of expiry, whatever is remembered", async () => {
    const { store, ask, clock } = start();
    const key = await issue(store, { expires: NOW + 5_000 });
    clock.now = NOW + 4_999;
    expect((await ask(key)).passed).toBe(true);
    clock.now = NOW + 5_000;
    await expectRefused(await ask(key), "expired");
  });

  test("is refused where the key is another API's", async () => {
    const { store, ask } = start({ consumers: [consumer("shop")] });
    const result = await ask(await issue(store));
    await expectRefused(result, "consumer");
    expect(facts(result)).toEqual({ why: "consumer", id: "id-1" });
    expect((await ask(await issue(store, { consumer: "shop" }))).passed).toBe(true);
    const open = start({ consumers: [consumer("shop")], anyConsumer: true });
    expect((await open.ask(await issue(open.store))).passed).toBe(true);
  });

  test("passes as nobody in report mode, without its key", async () => {
    const { ask } = start({}, { mode: "report" });
    const { passed, exchange } = await ask("nonsense");
    expect([passed, exchange.caller, exchange.upstream.has("x-api-key")]).toEqual([true, undefined, false]);
    expect(exchange.record.policies).toEqual([
      { policy: "apiKey", verdict: "would-deny", reason: "credentials-invalid", facts: { why: "malformed" } },
    ]);
  });

  test("is not told apart by what the record in the store lacks", async () => {
    const { store, ask } = start();
    for (const record of [
      "{",
      "null",
      "5",
      '"x"',
      '{"id":1,"consumer":"a"}',
      '{"id":"a","consumer":"b","scopes":"c"}',
    ]) {
      const key = makeKey("key");
      store.values.set(recordKey(await sha256(key)), record);
      const result = await ask(key);
      expect([record, result.response.status]).toEqual([record, 503]);
      expect(facts(result)).toEqual({ store: "failed", why: "no record" });
    }
  });
});

describe("revocation", () => {
  const revoked = async (store: StubbedStore, key: string) => store.values.delete(recordKey(await sha256(key)));

  test("counts after maxAge at the latest, in an isolate that was idle", async () => {
    const { store, ask, clock } = start();
    const key = await issue(store);
    await ask(key);
    await revoked(store, key);
    clock.now += 30_000;
    await expectRefused(await ask(key), "unknown");
  });

  test("counts sooner for a key in use, which is looked up again in the background, once", async () => {
    const { store, ask, clock } = start();
    const key = await issue(store);
    await ask(key);
    await revoked(store, key);
    clock.now += 14_999;
    await (await ask(key)).background;
    expect(store.asked).toHaveLength(1);
    clock.now += 1;
    const held = Promise.withResolvers<void>();
    store.answer = () => held.promise.then(() => Response.json({ result: null }));
    const [first, second] = [await ask(key), await ask(key)];
    expect([first.passed, second.passed, store.asked.length]).toEqual([true, true, 2]);
    held.resolve();
    await first.background;
    await expectRefused(await ask(key), "unknown");
    expect(store.asked).toHaveLength(2);
  });

  test("a key that is used all the time never waits for the store", async () => {
    const { store, ask, clock } = start();
    const key = await issue(store);
    await ask(key);
    for (let second = 0; second < 300; second++) {
      clock.now += 1_000;
      await (await ask(key)).background;
    }
    expect(store.asked).toHaveLength(1 + Math.floor(300 / 15));
  });
});

describe("while the store is away", () => {
  const down = () => Promise.reject(new TypeError("connection refused"));

  test("keys that were good go on for `grace`, others get 503 and are told when to come back", async () => {
    const { store, ask, clock } = start({ grace: "5m" });
    const [key, other] = [await issue(store), await issue(store)];
    await ask(key);
    store.answer = down;
    clock.now += 30_000;
    const result = await ask(key);
    expect([result.passed, facts(result)]).toEqual([true, { store: "failed", why: "TypeError" }]);
    const refused = await ask(other);
    expect([refused.response.status, refused.response.headers.get("retry-after")]).toEqual([503, "1"]);
    expect(await refused.response.json()).toMatchObject({ code: "credentials-unavailable" });
    expect(facts(refused)).toEqual({ store: "failed", why: "paused" });
    clock.now = NOW + 299_999;
    expect((await ask(key)).passed).toBe(true);
    clock.now = NOW + 300_000;
    expect((await ask(key)).response.status).toBe(503);
    store.answer = undefined;
    clock.now += 30_000;
    // This one finds out that the store is back, and does not wait for that.
    const trial = await ask(key);
    expect(trial.response.status).toBe(503);
    await trial.background;
    expect(facts(await ask(key))).toBeUndefined();
    expect((await ask(other)).passed).toBe(true);
  });

  test("no request waits for a store that has failed, not even the one that tries it", async () => {
    const { store, ask, clock } = start();
    const key = await issue(store);
    store.answer = down;
    await ask(key);
    clock.now += 1_000;
    store.answer = () => new Promise(() => {});
    const asked = store.asked.length;
    const results = await Promise.all([ask(key), ask(key), ask(key)]);
    for (const result of results) expect(facts(result)).toEqual({ store: "failed", why: "paused" });
    expect(store.asked.length - asked).toBe(1);
  });

  test("nobody waits for a store that just failed: one request per pause asks it", async () => {
    const { store, ask, clock } = start();
    const key = await issue(store);
    store.answer = down;
    const asked = async (ms: number) => {
      const before = store.asked.length;
      for (let passed = 0; passed < ms; passed += 100) {
        clock.now += 100;
        expect((await ask(key)).response.status).toBe(503);
      }
      return store.asked.length - before;
    };
    expect(await asked(1_000)).toBe(1);
    // After 1 s, 2 s, 4 s, 8 s, 16 s, and then each 30 s.
    expect(await asked(30_100)).toBe(5);
    expect(await asked(60_000)).toBe(2);
  });

  test("expiry still counts", async () => {
    const { store, ask, clock } = start();
    const key = await issue(store, { expires: NOW + 60_000 });
    await ask(key);
    store.answer = down;
    clock.now += 60_000;
    await expectRefused(await ask(key), "expired");
  });

  test("what it says is repeated without keys", async () => {
    const { store, ask } = start();
    store.answer = () =>
      Response.json({ error: `ERR no, command was: ["get","${recordKey("abc")}"]` }, { status: 400 });
    expect(facts(await ask(makeKey("key")))).toEqual({ store: "failed", why: "ERR no" });
  });
});

test("made-up keys push no good key out of memory", async () => {
  const { store, ask } = start({ remember: 10 });
  const key = await issue(store);
  await ask(key);
  for (let i = 0; i < 50; i++) await ask(makeKey("key"));
  const before = store.asked.length;
  expect((await ask(key)).passed).toBe(true);
  expect(store.asked.length).toBe(before);
});

describe("the build", () => {
  test("takes what is documented", () => {
    const full: Required<ApiKeyOptions> = {
      mode: "report",
      prefix: "shop_live",
      keyFrom: [{ header: "x-key" }, { cookie: "key" }, { query: "key" }],
      consumers: [consumer("shop")],
      anyConsumer: true,
      optional: true,
      forwardKey: true,
      maxAge: "1m",
      unknownFor: "5s",
      grace: "0s",
      timeout: "1s",
      remember: 5,
    };
    expect(schema().safeParse(full).success).toBe(true);
    expect(schema().safeParse(apiKey({}).options).success).toBe(true);
    for (const bad of [
      { prefix: "Shop" },
      { prefix: "a_b_c" },
      { keyFrom: [] },
      { remember: -1 },
      { consumers: ["a"] },
      { other: 1 },
    ])
      expect([bad, schema().safeParse({ ...full, ...bad }).success]).toEqual([bad, false]);
  });

  test.each<[RegExp, ApiKeyOptions]>([
    [/accepts the keys of nobody/, { consumers: [] }],
    [/maxAge "500ms" is no duration from 1s/, { maxAge: "500ms" }],
    [/timeout "30s" is no duration up to 25s/, { timeout: "30s" }],
  ])("reports %s", (expected, options) => {
    const context = compileContext();
    compile(options, context);
    expect(context.problems).toEqual([expect.stringMatching(expected)]);
  });
});
