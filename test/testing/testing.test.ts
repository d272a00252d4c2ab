import { type TestRequest, testGateway } from "portcullis/testing";
import { describe, expect, test } from "vitest";
import { freshReply } from "../../src/explain/fresh-store.ts";
import { Clock } from "../../src/offline/clock.ts";
import { TestStore } from "../../src/testing/store.ts";
import { folderOf, PRELUDE } from "../build/module.ts";

const routes = new URL("./routes.ts", import.meta.url);
const env = { EU: "https://eu.test/base", US: "https://us.test", STORE: "https://store.test" };
const start = (more: Parameters<typeof testGateway>[1] = {}) => testGateway(routes, { env, ...more });

test("what is no method is an error, not a request that no client can send", async () => {
  const gateway = await testGateway(new URL("../../routes", import.meta.url));
  await expect(gateway.fetch("GE T", "/v1/orders")).rejects.toThrow('"GE T" is no method');
});

test("tries follow each other without anybody waiting, and time passes meanwhile", async () => {
  const gateway = await start({ now: "2026-11-28T10:00:00Z" });
  const statuses = [503, 503, 200];
  gateway.upstream(() => new Response("at last", { status: statuses.shift() ?? 500 }));
  const { status, upstream, record, text } = await gateway.fetch("GET", "/retried?a=1");
  expect([status, await text()]).toEqual([200, "at last"]);
  expect(upstream.map(({ url }) => url)).toEqual(Array(3).fill("https://eu.test/base/retried?a=1"));
  expect(upstream[2]?.headers.get("x-portcullis-attempt")).toBe("3");
  expect(record.time).toBe("2026-11-28T10:00:00.000Z");
  expect(gateway.now).toBeGreaterThanOrEqual(Date.parse(record.time));
});

test("a connection that fails, and a body on its way to the cluster and to a mirror", async () => {
  const gateway = await start();
  gateway.upstream(({ cluster }) => {
    if (cluster === "us") throw new TypeError("no mirror today");
    return new Response("ok");
  });
  const body = "x".repeat(50_000);
  const { status, upstream, record } = await gateway.fetch("POST", "/mirrored", { body });
  expect(status).toBe(200);
  expect(upstream.map(({ cluster, bytes }) => `${cluster} ${bytes.length}`)).toEqual(["eu 50000", "us 50000"]);
  expect(record.mirrors).toEqual(["us"]);
  gateway.upstream(() => {
    throw new TypeError("connection refused");
  });
  expect((await gateway.fetch("GET", "/mirrored")).reason).toBe("upstream-unreachable");
});

test("the routes' own middleware reads the body, answers, and changes the answer", async () => {
  const gateway = await start();
  const passed = await gateway.fetch("POST", "/middleware", { body: "yes" });
  expect([passed.headers.get("x-read"), passed.upstream[0]?.text()]).toEqual(["yes", "yes"]);
  const refused = await gateway.fetch("POST", "/middleware", { body: "no" });
  expect([refused.status, refused.upstream.length]).toEqual([418, 0]);
  const unknown = await gateway.fetch("GET", "/refusing");
  expect([unknown.status, unknown.reason]).toEqual([401, "policy"]);
});

test("whom policies ask is the test's to play, and secrets are stand-ins or the test's", async () => {
  const asked: string[] = [];
  const gateway = await start({
    env: { ...env, FROM: "portcullis" },
    provider: async (request) => {
      asked.push(`${request.method} ${request.url}`);
      if (request.url.endsWith("/token"))
        return Response.json({ access_token: "t", token_type: "Bearer", expires_in: 60 });
      return new Response(null, { status: request.headers.has("authorization") ? 200 : 401 });
    },
  });
  expect((await gateway.fetch("GET", "/asked")).status).toBe(401);
  expect((await gateway.fetch("GET", "/asked", { headers: { authorization: "x" } })).status).toBe(200);
  const { upstream } = await gateway.fetch("GET", "/token");
  expect(upstream[0]?.headers.get("authorization")).toBe("Bearer t");
  expect(upstream[0]?.headers.get("x-from")).toBe("portcullis");
  expect(asked).toEqual([
    "GET https://auth.test/check",
    "GET https://auth.test/check",
    "POST https://login.test/token",
  ]);
});

describe("the store counts on the test's clock:", () => {
  const admitted = async (gateway: Awaited<ReturnType<typeof start>>, path: string, requests: number) => {
    let count = 0;
    for (let i = 0; i < requests; i++) if ((await gateway.fetch("GET", path)).status === 200) count++;
    return count;
  };

  test.each([
    ["/fixed", 2],
    ["/sliding", 2],
    ["/bucket", 2],
    ["/leased", 30],
    ["/several", 2],
  ])("%s lets %i through, and later more", async (path, limit) => {
    const gateway = await start({ now: "2026-11-28T10:00:01Z" });
    expect(await admitted(gateway, path, limit + 3)).toBe(limit);
    await gateway.advance("3m");
    expect(await admitted(gateway, path, 1)).toBe(1);
    if (path === "/several") expect(await admitted(gateway, path, 3)).toBe(0);
  });

  test("what a request turned out to cost", async () => {
    const gateway = await start({ upstream: () => new Response(null, { headers: { "x-cost": "3" } }) });
    expect(await admitted(gateway, "/cost", 3)).toBe(1);
  });

  test("who is there at the same time, and who is blocked", async () => {
    const gateway = await start();
    let release: (response: Response) => void = () => {};
    gateway.upstream(() => new Promise((resolve) => (release = resolve)));
    const first = gateway.fetch("GET", "/concurrent");
    await gateway.advance(1);
    expect((await gateway.fetch("GET", "/concurrent")).reason).toBe("concurrency-limited");
    release(new Response(null));
    expect((await first).status).toBe(200);
    const login = () => gateway.fetch("GET", "/basic", { headers: { authorization: `Basic ${btoa("a:b")}` } });
    const reasons = [];
    for (let i = 0; i < 4; i++) reasons.push((await login()).reason);
    expect(reasons).toEqual(["credentials-invalid", "credentials-invalid", "credentials-invalid", "client-blocked"]);
    await gateway.advance("2m");
    expect((await login()).reason).toBe("credentials-invalid");
  });
});

test("explain's empty store answers as an empty store does", async () => {
  const now = Math.floor(Date.now() / 60_000) * 60_000 + 30_000;
  const asked: string[] = [];
  for (const path of ["/fixed", "/sliding", "/bucket", "/leased", "/cost", "/concurrent"]) {
    const gateway = await start({ now });
    const { store } = gateway;
    const own = store.command.bind(store);
    store.command = async (command) => {
      const reply = await own(command);
      if (!/^eval/i.test(String(command[0])) || asked.includes(path)) return reply;
      asked.push(path);
      const fresh = freshReply(command as string[]) as number[];
      // Of leases the times are those of the moment.
      if (path === "/leased" || path === "/cost") expect(fresh.slice(0, 2)).toEqual((reply as number[]).slice(0, 2));
      else expect(fresh).toEqual(reply);
      return reply;
    };
    await gateway.fetch("GET", path);
  }
  expect(asked).toHaveLength(6);
});

test("the store knows its commands, and their times", async () => {
  const clock = new Clock(1_000);
  const store = new TestStore(clock);
  const run = (...command: (string | number)[]) => store.command(command);
  expect([await run("SET", "a", "1", "NX", "PX", 50), await run("SET", "a", "2", "NX")]).toEqual(["OK", null]);
  await clock.advance(49);
  expect([await run("GET", "a"), await run("PTTL", "a")]).toEqual(["1", 1]);
  await clock.advance(1);
  expect([await run("GET", "a"), await run("PTTL", "a")]).toEqual([null, -2]);
  expect(await run("EVAL", "return redis.call('INCRBY', KEYS[1], ARGV[1])", 1, "n", 3)).toBe(3);
  await expect(run("EVALSHA", "none", 0)).rejects.toThrow("NOSCRIPT");
  await expect(run("FLUSHALL")).rejects.toThrow("does not know the command FLUSHALL");
});

test("routes that do not compile are refused as in the build, and so is a time that is none", async () => {
  await expect(testGateway("test/no-such-routes")).rejects.toThrow("there is no such file or folder");
  const gateway = await start();
  await expect(gateway.advance("soon")).rejects.toThrow("soon is no duration");
});

test("a waf refuses by its rules, as in the Worker", async () => {
  const gateway = await testGateway(new URL("./firewall.ts", import.meta.url), { env });
  gateway.upstream(() => new Response("ok"));
  expect((await gateway.fetch("GET", "/search?q=plain")).status).toBe(200);
  const refused = await gateway.fetch("GET", "/search?q=1+union+select+2");
  expect([refused.status, refused.reason, refused.upstream.length]).toEqual([403, "request-filtered", 0]);
});

test("a consumer whom nobody can be is an error, with the one that was meant", async () => {
  const asking = async (policies: string, as: TestRequest["as"] & (string | object)) => {
    const text = `${PRELUDE.replace("import {", "import { basic,")}
const shop = consumer("storefront", { claims: { sub: "shop" } });
const known = jwt({ issuer: "https://a.example.com", jwks: "https://a.example.com/keys", consumers: [shop] });
export default gateway({ store: { url: env("U"), token: secret("T") } }, [api("a", { policies: [${policies}] }, [route("a", {}, { to: eu })])]);`;
    const gateway = await testGateway(await folderOf({ "index.ts": text }));
    return gateway.fetch("GET", "/a", { as }).then(
      ({ status }) => status,
      (error) => (error as Error).message,
    );
  };
  expect(await asking("known", "storefront")).toBe(200);
  expect(await asking("known", "storefrnt")).toBe(
    'the routes declare no consumer "storefrnt": did you mean "storefront"?',
  );
  expect(await asking("known", "nobody")).toBe(
    'the routes declare no consumer "nobody": they declare storefront; who is no consumer has a subject alone',
  );
  expect(await asking("known", { subject: "nobody" })).toBe(200);
  expect(await asking("anyOf(known, apiKey({}))", "walk-in")).toBe(200);
  expect(await asking("anyOf(known, apiKey({ consumers: [shop] }))", "walk-in")).toMatch("declare no consumer");
  expect(await asking("anyOf(known, basic({ store: true }))", "walk-in")).toBe(200);
  expect(await asking("anyOf(known, apiKey({}))", "storefronts")).toMatch(/did you mean "storefront"\? One that only/);
  expect(await asking("anyOf(known, apiKey({}))", { consumer: "storefronts", groups: [] })).toBe(200);
});
