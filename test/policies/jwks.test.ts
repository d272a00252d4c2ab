import { errors } from "jose";
import { afterEach, beforeAll, expect, test, vi } from "vitest";
import { KeySet, type KeySetConfig, KeysUnavailable } from "../../src/policies/jwks.ts";
import { providerUrl } from "../../src/policies/provider-request.ts";
import { exchangeFor } from "./exchange.ts";
import { JWKS, type Key, makeKey, NOW, type StubbedIssuer, stubIssuer } from "./issuer.ts";

let first: Key;
let second: Key;
beforeAll(async () => {
  first = await makeKey("first");
  second = await makeKey("second");
});
afterEach(() => {
  vi.restoreAllMocks();
});

const config: KeySetConfig = { timeout: 5_000, maxAge: 600_000, coolDown: 30_000 };

/** A key set under a clock that only the test moves. */
function start(issuer: StubbedIssuer, changes: Partial<KeySetConfig> = {}) {
  const clock = { now: NOW * 1_000 };
  const changed = vi.fn();
  const set = new KeySet(JWKS, { ...config, ...changes }, () => clock.now, changed);
  const background: Promise<unknown>[] = [];
  const exchange = exchangeFor(new Request("https://api.example.com/"), { waitUntil: (work) => background.push(work) });
  return {
    clock,
    changed,
    set,
    background,
    fetches: () => issuer.asked.length,
    key: (kid: string | undefined, alg = "ES256") => set.key({ alg, ...(kid !== undefined && { kid }) }, exchange),
    /** What a request with a remembered token does. */
    async tend() {
      set.tend(exchange);
      await Promise.all(background.splice(0));
    },
  };
}

const down = () => Promise.reject(new TypeError("connection refused"));

test("is fetched when a key is first needed, and then kept", async () => {
  const { key, tend, fetches, clock } = start(stubIssuer(first));
  await tend();
  expect(fetches()).toBe(0);
  expect((await key("first")).type).toBe("public");
  clock.now += config.maxAge - 1;
  await key("first");
  await tend();
  expect(fetches()).toBe(1);
});

test("after maxAge serves on while it is refreshed in the background, once", async () => {
  const issuer = stubIssuer(first);
  const { key, tend, fetches, clock, changed } = start(issuer);
  await key("first");
  issuer.keys = [second.jwk];
  clock.now += config.maxAge;
  const { promise, resolve } = Promise.withResolvers<void>();
  issuer.answer = () => promise.then(() => Response.json({ keys: issuer.keys }));
  for (let i = 0; i < 10; i++) await key("first");
  expect(fetches()).toBe(2);
  expect(changed).not.toHaveBeenCalled();
  resolve();
  await tend();
  expect(changed).toHaveBeenCalledTimes(1);
  await expect(key("first")).rejects.toThrow(errors.JWKSNoMatchingKey);
  await key("second");
  expect(fetches()).toBe(2);
});

test("a maxAge below the cool-down is kept", async () => {
  const { key, tend, fetches, clock } = start(stubIssuer(first), { maxAge: 10_000 });
  await key("first");
  clock.now += 10_000;
  await tend();
  expect(fetches()).toBe(2);
});

test("a fetch goes on when the client that caused it goes away", async () => {
  const { key, background } = start(stubIssuer(first));
  await key("first");
  expect(background).toHaveLength(1);
});

test("requests at a cold start share one fetch, without waiting for each other's promises", async () => {
  const { key, fetches } = start(stubIssuer(first));
  const keys = await Promise.all(Array.from({ length: 50 }, () => key("first")));
  expect(new Set(keys).size).toBe(1);
  expect(fetches()).toBe(1);
});

test("a fetch that never reports, its request being cancelled, holds nobody up past its timeout", async () => {
  const issuer = stubIssuer(first);
  issuer.answer = () => new Promise(() => {});
  const { key, fetches, clock } = start(issuer);
  void key("first");
  issuer.answer = undefined;
  const waiting = key("first");
  clock.now += config.timeout + 1_000;
  await expect(waiting).rejects.toThrow(KeysUnavailable);
  await key("first");
  expect(fetches()).toBe(2);
});

test("an abandoned fetch that reports after all does not undo a newer one", async () => {
  const issuer = stubIssuer(first);
  const late = Promise.withResolvers<Response>();
  issuer.answer = () => late.promise;
  const { key, clock } = start(issuer);
  const abandoned = key("first");
  clock.now += config.timeout + 1_000;
  issuer.answer = undefined;
  issuer.keys = [second.jwk];
  await key("second");
  late.resolve(Response.json({ keys: [first.jwk] }));
  await expect(abandoned).rejects.toThrow(errors.JWKSNoMatchingKey);
  await key("second");
});

test("an unknown kid fetches anew, outside of the cool-down", async () => {
  const issuer = stubIssuer(first);
  const { key, fetches, clock, changed } = start(issuer);
  await key("first");
  issuer.keys.push(second.jwk);
  clock.now += config.coolDown - 1;
  await expect(key("second")).rejects.toThrow(errors.JWKSNoMatchingKey);
  expect(fetches()).toBe(1);
  clock.now += 1;
  // All requests that come with the new key while it is fetched get it.
  await Promise.all(Array.from({ length: 20 }, () => key("second")));
  expect(fetches()).toBe(2);
  expect(changed).toHaveBeenCalledTimes(1);
});

test("junk kids cost the issuer one fetch per cool-down, however many they are", async () => {
  const { key, fetches, clock } = start(stubIssuer(first));
  await key("first");
  for (let i = 0; i < 300; i++) {
    clock.now += 1_000;
    await Promise.allSettled([key(`junk-${i}`), key(`other-${i}`)]);
  }
  expect(fetches()).toBe(1 + 10);
});

test("cold and the issuer down: says when to come again, backs off up to the cool-down, and recovers by itself", async () => {
  const issuer = stubIssuer(first);
  issuer.answer = down;
  const { key, fetches, clock } = start(issuer);
  const attempts: number[] = [];
  for (let elapsed = 0; elapsed < 120; elapsed++) {
    const before = fetches();
    const error = await key("first").catch((thrown) => thrown);
    expect(error).toBeInstanceOf(KeysUnavailable);
    expect(error.retryAfter).toBeGreaterThanOrEqual(1);
    expect(error.retryAfter).toBeLessThanOrEqual(30);
    if (fetches() > before) attempts.push(elapsed);
    clock.now += 1_000;
  }
  expect(attempts).toEqual([0, 1, 3, 7, 15, 31, 61, 91]);
  issuer.answer = undefined;
  clock.now += 30_000;
  await key("first");
});

test("warm and the issuer down: the last good set serves for ever, and is asked for at the back-off's pace", async () => {
  const issuer = stubIssuer(first);
  const { key, set, tend, fetches, clock, changed } = start(issuer);
  await key("first");
  issuer.answer = down;
  clock.now += 24 * 3_600_000;
  await tend();
  expect(set.stale).toBe(true);
  for (let elapsed = 0; elapsed < 60; elapsed++) {
    await key("first");
    await tend();
    clock.now += 1_000;
  }
  expect(fetches()).toBe(1 + 6);
  await expect(key("second")).rejects.toThrow(errors.JWKSNoMatchingKey);
  issuer.answer = undefined;
  clock.now += 30_000;
  await tend();
  expect(set.stale).toBe(false);
  expect(changed).not.toHaveBeenCalled();
});

test("with maxStale the last good set ends that long after its maxAge", async () => {
  const issuer = stubIssuer(first);
  const { key, tend, clock, changed } = start(issuer, { maxStale: 60_000 });
  await key("first");
  issuer.answer = down;
  clock.now += config.maxAge + 59_999;
  await key("first");
  await tend();
  expect(changed).not.toHaveBeenCalled();
  clock.now += 1;
  await tend();
  expect(changed).toHaveBeenCalledTimes(1);
  await expect(key("first")).rejects.toThrow(KeysUnavailable);
});

test("a new key under an old kid takes over; the same keys in a new order change nothing", async () => {
  const issuer = stubIssuer(first, second);
  const { key, tend, clock, changed } = start(issuer);
  const before = await key("first");
  issuer.keys = [second.jwk, first.jwk];
  clock.now += config.maxAge;
  await tend();
  expect(changed).not.toHaveBeenCalled();
  expect(await key("first")).toBe(before);
  issuer.keys = [{ ...second.jwk, kid: "first" }];
  clock.now += config.maxAge;
  await tend();
  expect(changed).toHaveBeenCalledTimes(1);
  expect(await key("first")).not.toBe(before);
});

test("symmetric keys in a set are never used", async () => {
  const issuer = stubIssuer(first);
  issuer.keys = [{ kty: "oct", k: "AAAA", kid: "first" }];
  await expect(start(issuer).key("first")).rejects.toThrow(errors.JWKSNoMatchingKey);
  await expect(start(issuer).key("first", "HS256")).rejects.toThrow(errors.JOSENotSupported);
});

test.each<[string, () => Response | Promise<Response>]>([
  ["a refused connection", down],
  ["a redirect", () => new Response(null, { status: 302, headers: { location: "https://elsewhere.example/jwks" } })],
  ["another status", () => Response.json({ keys: [] }, { status: 203 })],
  ["an error page", () => new Response("<html>", { status: 500 })],
  ["no JSON", () => new Response("<html>")],
  [
    "no UTF-8",
    () => new Response(Uint8Array.from('{"keys":[{"kid":"\xff"}]}', (character) => character.charCodeAt(0))),
  ],
  ["null", () => Response.json(null)],
  ["no keys", () => Response.json({ jwks: [] })],
  ["keys that are no array", () => Response.json({ keys: { 0: {} } })],
  ["a key that is no object", () => Response.json({ keys: ["key"] })],
  ["no body", () => new Response(null)],
  ["a body without end", () => endless()],
])("%s is a failure, and does not replace what there is", async (_, answer) => {
  const issuer = stubIssuer(first);
  issuer.answer = answer;
  await expect(start(issuer).key("first")).rejects.toThrow(KeysUnavailable);
  issuer.answer = undefined;
  const warm = start(issuer);
  await warm.key("first");
  issuer.answer = answer;
  warm.clock.now += config.maxAge;
  await warm.tend();
  await warm.key("first");
  expect(warm.set.stale).toBe(true);
});

function endless(): Response {
  const chunk = new TextEncoder().encode(" ".repeat(65_536));
  return new Response(new ReadableStream({ pull: (controller) => controller.enqueue(chunk) }));
}

test("is fetched without following redirects and with its own timeout, which holds for the body too", async () => {
  const issuer = stubIssuer(first);
  const late = new AbortController();
  const timeout = vi.spyOn(AbortSignal, "timeout").mockReturnValue(late.signal);
  // A body that begins and stops. The runtime's own fetch fails its stream when the signal fires.
  issuer.answer = () =>
    new Response(
      new ReadableStream({
        start(controller) {
          controller.enqueue(new TextEncoder().encode('{"keys":['));
          late.signal.addEventListener("abort", () => controller.error(late.signal.reason));
        },
      }),
    );
  const waiting = start(issuer).key("first");
  await vi.waitFor(() => expect(fetch).toHaveBeenCalled());
  expect(timeout).toHaveBeenCalledWith(config.timeout);
  expect(vi.mocked(fetch).mock.calls[0]?.[1]).toMatchObject({ redirect: "manual", signal: late.signal });
  late.abort(new DOMException("late", "TimeoutError"));
  await expect(waiting).rejects.toThrow(KeysUnavailable);
});

test.each([
  ["https://login.example.com/jwks", "https://login.example.com/jwks"],
  ["http://localhost:9000/jwks", "http://localhost:9000/jwks"],
  ["http://127.1.2.3/", "http://127.1.2.3/"],
  ["http://[::1]:9000/", "http://[::1]:9000/"],
  ["http://login.example.com/jwks", undefined],
  ["http://localhost.example.com/", undefined],
  ["http://127.0.0.1.example.com/", undefined],
  ["https://user:password@login.example.com/", undefined],
  ["ftp://localhost/", undefined],
  ["login.example.com/jwks", undefined],
  ["", undefined],
])("providerUrl(%j) is %j", (text, url) => {
  expect(providerUrl(text)).toBe(url);
});
