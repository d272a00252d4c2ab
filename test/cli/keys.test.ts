/** `gateway keys` and `gateway consumers`, as a script and as a person meet them, on a real store. */
import { join } from "node:path";
import { Redis } from "@upstash/redis";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import {
  type CreateOptions,
  consumersCommand,
  createCommand,
  listCommand,
  revokeCommand,
  rotateCommand,
} from "../../src/admin/key-commands.ts";
import { rotateKey } from "../../src/admin/keys.ts";
import { setCommand } from "../../src/admin/users.ts";
import { type RunningRedis, redisServerAvailable, startEmbeddedRedis, startRedisServer } from "../../src/dev/redis.ts";
import { startUpstashBridge } from "../../src/dev/upstash-bridge.ts";
import { isKey } from "../../src/policies/api-key-format.ts";
import { folderOf } from "../build/module.ts";
import { gateway } from "./run.ts";

const routes = (policies: string) => `
import { api, anyOf, apiKey, cluster, consumer, env, gateway, plan, route, secret } from "portcullis";
const partner = consumer("partner", { groups: ["partners"], plan: plan("gold") });
export default gateway({ store: { url: env("STORE_URL"), token: secret("STORE_TOKEN") } }, [
  api("shop", {}, [route("all", { path: "/*" }, { policies: [${policies}], to: cluster("eu", { ingress: env("EU") }) })]),
]);`;
const ROUTES = routes('apiKey({ prefix: "shop", consumers: [partner], maxAge: "20s" })');

async function* line(text: string) {
  yield `${text}\n`;
}

describe("keys", () => {
  let redis: RunningRedis;
  let bridge: Awaited<ReturnType<typeof startUpstashBridge>>;
  beforeAll(async () => {
    redis = await (redisServerAvailable() ? startRedisServer() : startEmbeddedRedis());
    bridge = await startUpstashBridge({ redis, token: "token" });
  });
  beforeEach(async () => {
    vi.stubEnv("STORE_URL", bridge.url);
    vi.stubEnv("STORE_TOKEN", "token");
    await new Redis({ url: bridge.url, token: "token", enableTelemetry: false }).flushall();
  });
  afterEach(() => {
    vi.unstubAllEnvs();
  });
  afterAll(async () => {
    await bridge?.close();
    await redis?.close();
  });

  /** The commands, for these routes. */
  async function shop(text = ROUTES, more: Record<string, string> = {}) {
    const folder = await folderOf({ "routes/index.ts": text, ...more });
    const options = { routes: join(folder, "routes") };
    const json = async (output: Promise<{ out: string }>) => JSON.parse((await output).out);
    const asJson = { ...options, json: true };
    return {
      options,
      create: (wishes: Partial<CreateOptions>) => json(createCommand({ ...asJson, consumer: "partner", ...wishes })),
      rotate: (id: string, overlap: string) => json(rotateCommand(id, { ...asJson, overlap })),
      revoke: async (id: string, key = "") => (await revokeCommand(id, options, line(key))).out,
      list: (wishes: { all?: boolean; consumer?: string } = {}) => json(listCommand({ ...asJson, ...wishes })),
    };
  }

  it("go to stdout alone, and what there is to say about them to stderr", async () => {
    const cwd = await folderOf({ "routes/index.ts": ROUTES });
    const env = { STORE_URL: bridge.url, STORE_TOKEN: "token" };
    const { code, out, err } = await gateway(["keys", "create", "--consumer", "partner"], { cwd, env });
    expect([code, isKey(out.trim(), "shop")]).toEqual([0, true]);
    expect(err).toMatch(/^key [0-9A-Za-z]{10} of partner, good until it is revoked\. It is shown this once\.\n$/);
    const wrong = await gateway(["keys", "revoke", "nothing"], { cwd, env });
    expect([wrong.code, wrong.out]).toEqual([1, ""]);
    expect(wrong.err).toBe("failed  there is no key nothing; gateway keys list --all tells the ids\n");
  });

  it("go from birth to rotation and revocation", async () => {
    const { create, rotate, revoke, list, options } = await shop();
    const first = await create({ scope: "read write" });
    expect(first).toEqual({
      id: expect.any(String),
      consumer: "partner",
      created: expect.any(String),
      scopes: ["read", "write"],
      key: expect.any(String),
    });
    expect(isKey(first.key, "shop")).toBe(true);
    const { key: _, ...listed } = first;
    expect(await list()).toEqual([listed]);

    const rotated = await rotate(first.id, "1h");
    expect(isKey(rotated.key, "shop")).toBe(true);
    expect(rotated).toMatchObject({ consumer: "partner", scopes: ["read", "write"], old: { id: first.id } });
    expect(Date.parse(rotated.old.expires) - Date.parse(rotated.created)).toBe(3_600_000);

    expect(await revoke(first.id)).toBe(`revoked  ${first.id} of partner; isolates that know it forget it within 20 s`);
    expect((await list()).map(({ id }: { id: string }) => id)).toEqual([rotated.id]);
    expect(await list({ all: true })).toHaveLength(2);
    expect(await list({ consumer: "other" })).toEqual([]);
    await expect(rotate(first.id, "1h")).rejects.toThrow(
      `the key ${first.id} is revoked; make a new one with gateway keys create`,
    );
    expect(JSON.parse((await consumersCommand({ ...options, json: true })).out)).toEqual([
      { name: "partner", declared: expect.stringMatching(/index\.ts:3$/), groups: ["partners"], plan: "gold", keys: 1 },
    ]);
    const { out: table } = await listCommand({ ...options, all: true });
    expect(table.split("\n").map((line) => line.split(/ {2,}/)[2])).toEqual(["state", "revoked", "live"]);
  });

  it("that were found where they should not be are revoked by themselves, and stay unseen", async () => {
    const { create, revoke, list } = await shop();
    const { key, id } = await create({});
    await expect(revoke("-", `${key}x`)).rejects.toThrow("there is no such key");
    const said = await revoke("-", key);
    expect(said).toContain(`revoked  ${id} of partner`);
    expect(said).not.toContain(key.split("_")[1]);
    expect(await list()).toEqual([]);
  });

  it("that are revoked while they are rotated stay revoked, and have no successor", async () => {
    const { create, revoke, list } = await shop();
    const { id } = await create({});
    const client = new Redis({
      url: bridge.url,
      token: "token",
      enableTelemetry: false,
      automaticDeserialization: false,
    });
    const between = new Proxy(client, {
      get(target, name) {
        if (name !== "eval") return Reflect.get(target, name);
        return async (...asked: Parameters<typeof target.eval>) => {
          await revoke(id);
          return target.eval(...asked);
        };
      },
    });
    await expect(rotateKey(between, "shop", id, { overlap: 1_000 })).rejects.toThrow(
      `the key ${id} was revoked meanwhile`,
    );
    const all = await list({ all: true });
    expect(all).toMatchObject([{ revoked: expect.any(String) }, { revoked: expect.any(String) }]);
  });

  it("that were rotated are not rotated again, since their end is that of the overlap", async () => {
    const { create, rotate, list } = await shop();
    const first = await create({});
    const second = await rotate(first.id, "1d");
    expect(second.expires).toBeUndefined();
    await expect(rotate(first.id, "1d")).rejects.toThrow(
      `the key ${first.id} was rotated to ${second.id}; rotate that one`,
    );
    expect((await rotate(second.id, "1d")).expires).toBeUndefined();
    expect(await list()).toHaveLength(3);
  });

  it("expire", async () => {
    const { create, rotate } = await shop();
    const made = await create({ expires: "90d" });
    expect(Date.parse(made.expires) - Date.parse(made.created)).toBe(90 * 86_400_000);
    const rotated = await rotate(made.id, "0s");
    expect(Date.parse(rotated.expires) - Date.parse(rotated.created)).toBe(90 * 86_400_000);
    expect(rotated.old).toMatchObject({ id: made.id, revoked: rotated.created });
  });

  it("may be of consumers that the routes do not declare, where a route takes such", async () => {
    const { create } = await shop(routes("apiKey({})"));
    expect(await create({ consumer: "walk-in", group: ["a", "b"] })).toMatchObject({
      consumer: "walk-in",
      groups: ["a", "b"],
    });
    await expect(create({ consumer: "walk-in", plan: "gold" })).rejects.toThrow('the routes declare no plan "gold"');
  });

  it.each<[string, string, Partial<CreateOptions>, string]>([
    [
      "a consumer that no route takes",
      ROUTES,
      { consumer: "partnr" },
      'no route takes keys of "partnr"; there is partner',
    ],
    [
      "groups of a declared consumer",
      ROUTES,
      { group: ["a"] },
      'the routes declare the consumer "partner"; give it groups and a plan there',
    ],
    ["a prefix that no route takes", ROUTES, { prefix: "x" }, "no route takes keys that begin with x; there is shop"],
    ["a scope that is none", ROUTES, { scope: 'read wr"ite' }, '"wr\\"ite" is no scope'],
    ["a life of nothing", ROUTES, { expires: "0s" }, "--expires 0s is a key that was never good"],
    ["routes without keys", routes(""), {}, "no route takes API keys; add apiKey({ ... }) to one"],
  ])("%s is refused", async (_, text, wishes, told) => {
    const { create } = await shop(text);
    await expect(create(wishes)).rejects.toThrow(told);
  });

  it("and users are made only where a route takes such", async () => {
    const { options } = await shop(routes("basic({ store: true })").replace("anyOf,", "basic,"));
    expect(await setCommand("walk-in", options, line("long enough"))).toEqual({ out: "set  walk-in" });
    const { options: others } = await shop();
    await expect(setCommand("walk-in", others, line("long enough"))).rejects.toThrow(
      "no route takes users of the store",
    );
    await expect(setCommand("walk-in", { ...options, scope: "a\\b" }, line("long enough"))).rejects.toThrow(
      "is no scope",
    );
  });

  it("are for the store that .dev.vars names, where the environment names none", async () => {
    const text = ROUTES.replaceAll("STORE_", "OWN_");
    const { create } = await shop(text, {
      ".dev.vars": `OWN_URL=${bridge.url}\nOWN_TOKEN=token\n`,
      "wrangler.toml": `[vars]
EU = "https://eu.example.com"
OWN_URL = "https://nowhere.invalid"
[secrets]
required = ["OWN_TOKEN"]`,
    });
    expect(await create({})).toHaveProperty("key");
    const { list } = await shop(text);
    await expect(list()).rejects.toThrow(
      /^there is no OWN_URL; set it in the environment or in .*\.dev\.vars, or run npm start beside this command$/,
    );
  });

  it("say so when the store refuses or is away, without its token", async () => {
    const { list } = await shop();
    vi.stubEnv("STORE_TOKEN", "wrong-token");
    await expect(list()).rejects.toThrow(/^the store cannot be asked: WRONGPASS invalid or missing auth token$/);
    vi.stubEnv("STORE_URL", "http://127.0.0.1:9");
    await expect(list()).rejects.toThrow(/^the store cannot be asked: (?!.*wrong-token)/);
  });
});
