import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { compileRoutes } from "../../src/build/compile.ts";
import { emit } from "../../src/build/emit.ts";
import { folderOf } from "../build/module.ts";
import { gateway, MAIN, run } from "./run.ts";

const folder = mkdtempSync(join(tmpdir(), "portcullis-explain-"));
const table = join(folder, "table.json");
beforeAll(async () => void (await emit(await compileRoutes({ routes: "routes" }), folder)));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** As people start it: from the bundle that is kept of its code, which takes a fifth of the time. */
const kept = (args: readonly string[], { env = {} as NodeJS.ProcessEnv } = {}) =>
  run(process.execPath, [MAIN, ...args], process.cwd(), env);

test("explains by the routes and by a built table alike, for people and for scripts", async () => {
  const request = [
    "GET",
    "/v1/orders/7?a=1",
    "--as",
    "storefront",
    "--scope",
    "orders:read",
    "--claim",
    "email=a@b.example",
  ];
  const [told, json] = await Promise.all([
    kept(["explain", ...request, "-H", "user-agent: test"]),
    kept(["explain", ...request, "--table", table, "--config", "wrangler.toml", "--json"]),
  ]);
  expect(told).toMatchObject({ code: 0, err: "" });
  expect(told.out).toContain("route     orders/read  routes/orders.ts:");
  expect(told.out).toContain("GET https://ingress.eu.shop.example.com/orders/v1/orders/7?a=1");
  expect(told.out).toContain("x-user-email: a@b.example");
  expect(json).toMatchObject({ code: 0, err: "" });
  expect(JSON.parse(json.out)).toMatchObject({
    route: { id: "orders/read", source: expect.stringMatching(/^routes\/orders\.ts:\d+$/) },
    record: { consumer: "storefront", status: 200 },
    answer: { status: 200 },
  });
});

test("says the same from the bundle that is kept of its code, also of routes that are refused", async () => {
  const broken = await folderOf({ "index.ts": "export default 5;" });
  const args = ["explain", "GET", "/v1/orders/7", "--as", "storefront"];
  for (const more of [[], ["--routes", broken]]) {
    const [bundled, plain] = await Promise.all([kept([...args, ...more]), gateway([...args, ...more])]);
    // Each makes an id of its own for the request.
    const steady = ({ out, ...rest }: typeof plain) => ({
      ...rest,
      out: out.replace(/[0-9a-f]{8}-[0-9a-f-]{27}/g, ""),
    });
    expect(steady(bundled)).toEqual(steady(plain));
  }
});

test("asks the rules of a waf, also from what was compiled before, and says where it has none", async () => {
  const routes = ["--routes", "test/testing/firewall.ts"];
  const attack = ["explain", "GET", "https://shop.example.com/?q=1+union+select+2"];
  const without = join(folder, "firewall");
  await emit(await compileRoutes({ routes: "test/testing/firewall.ts" }), without);
  const first = await kept([...attack, ...routes, "--json"]);
  const [second, table] = await Promise.all([
    kept([...attack, ...routes, "--json"]),
    kept([...attack, "--table", join(without, "table.json")]),
  ]);
  for (const { out } of [first, second]) expect(JSON.parse(out).answer).toMatchObject({ reason: "request-filtered" });
  expect(table.out).toContain("waf lets the request pass: its rules are not in the table");
});

test("says what is wrong with how it was asked", async () => {
  const [header, live, secret, file] = await Promise.all([
    kept(["explain", "GET", "/", "-H", "no colon"]),
    kept(["explain", "POST", "/v1/orders", "--live", "http://127.0.0.1:9"], { env: { DEBUG_KEY: "d" } }),
    kept(["explain", "GET", "/", "--live", "http://127.0.0.1:9", "--secret-env", "NO_SUCH_NAME"]),
    kept(["explain", "GET", "/", "--table", "package.json"]),
  ]);
  expect(header.code).toBe(2);
  expect(header.err).toContain('A header is written as "name: value".');
  expect(live).toMatchObject({ code: 1, err: expect.stringContaining("add --send if that is wanted") });
  expect(secret).toMatchObject({ code: 1, err: expect.stringContaining("NO_SUCH_NAME") });
  expect(file).toMatchObject({ code: 1, err: expect.stringContaining("package.json is no table") });
});
