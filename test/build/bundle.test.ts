/** What goes into the Worker, and that it runs in workerd as it is. */
import { readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { dirname, join, relative, resolve } from "node:path";
import { gzipSync } from "node:zlib";
import { expect, it, onTestFinished } from "vitest";
import { compileRoutes } from "../../src/build/compile.ts";
import { type Emitted, emit } from "../../src/build/emit.ts";
import { ConfigurationRefused } from "../../src/build/problem.ts";
import { Matcher } from "../../src/table/match.ts";
import { folderOf } from "./module.ts";
import { serve } from "./workerd.ts";

async function build(
  routes: string,
): Promise<Emitted & { readonly text: string; readonly parts: Record<string, number> }> {
  const compiled = await compileRoutes({ routes });
  const emitted = await emit(compiled, join(await folderOf({}), "out"));
  const [output] = Object.values(emitted.metafile.outputs);
  const parts = Object.entries(output?.inputs ?? {}).map(([path, { bytesInOutput }]) => {
    // From the repository's root, or from the package's.
    const file = relative(process.cwd(), resolve(dirname(compiled.module.file), path));
    return [file.replace(/^.*node_modules\//, "npm:").replace(/^.*portcullis-entry/, "entry"), bytesInOutput] as const;
  });
  return { ...emitted, text: await readFile(emitted.worker, "utf8"), parts: Object.fromEntries(parts) };
}

/** An ingress that tells what it was asked. */
async function ingress(): Promise<string> {
  const server = createServer((request, response) => {
    response.end(JSON.stringify({ url: request.url, headers: request.headers }));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void server.close());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

it("is below 100 KB gzip for routes/, as shipped", async () => {
  const { text, bytes, gzipBytes } = await build("routes");
  expect(bytes).toBe(Buffer.byteLength(text));
  expect(gzipBytes).toBe(gzipSync(text).byteLength);
  expect(gzipBytes).toBeLessThan(100_000);
});

it("has the edge, the table and the policies in use, and nothing of the build", async () => {
  const { text, parts } = await build("routes");
  const paths = Object.keys(parts);
  const policies = paths.flatMap((path) => /^src\/policies\/(.*)\.ts$/.exec(path)?.[1] ?? []);
  expect(policies).toEqual(expect.arrayContaining(["jwt", "scopes", "cors", "rate-limit", "filter", "ip-filter"]));
  expect(policies).not.toContain("headers");
  expect(policies).not.toContain("middleware");
  expect(
    paths.filter((path) =>
      /^npm:(?:zod|recheck|esbuild|smol-toml|commander)\/|^routes\/|^src\/(?:build|prove|dev|index)/.test(path),
    ),
  ).toEqual([]);
  // esbuild knows only of a call marked as pure that nothing comes of it: what makes the builders may be left, and no more.
  const config = paths.filter((path) => path.startsWith("src/config/")).map((path) => parts[path] as number);
  expect(config.reduce((sum, bytes) => sum + bytes, 0)).toBeLessThan(200);
  // What only schemas and builders say.
  for (const said of [
    "Unrecognized key",
    "strictObject",
    "safeParse",
    "must be a policy",
    "is no address or CIDR range",
  ])
    expect(text).not.toContain(said);
});

it("has nothing that only proofs, explanations, replays and tests use", async () => {
  const built = await Promise.all(["routes", "test/build/fixtures/middleware.ts"].map(build));
  const paths = built.flatMap(({ parts }) => Object.keys(parts));
  expect(paths).toContain("src/table/match.ts");
  expect(paths.filter((path) => /^src\/(?:prove|explain|replay|testing|offline)\//.test(path))).toEqual([]);
  expect(paths).not.toContain("src/table/candidates.ts");
  // Of a class all methods are in the bundle, whoever calls them.
  expect(Object.getOwnPropertyNames(Matcher.prototype)).toEqual(["constructor", "match"]);
});

it("has no policy that the table does not use", async () => {
  const { parts } = await build("test/build/fixtures/one-api.ts");
  const policies = Object.keys(parts).filter((path) => path.startsWith("src/policies/"));
  expect(policies).toEqual(["src/policies/contract.ts", "src/policies/held-body.ts"]);
});

it("has not a byte of what was proved, also where the routes come along for their middleware", async () => {
  const routes = `import { api, cluster, env, route } from "portcullis";
const eu = cluster("eu", { ingress: env("EU") });
export default api("shop", { policies: [(c, next) => next()] }, [route("all", { path: "/*" }, { to: eu })]);`;
  const folder = await folderOf({ "index.ts": routes });
  const { text } = await build(folder);
  const invariants = `import { every, middleware, route } from "portcullis";
export default [every(route).under("/only-in-invariants").requires(middleware)];`;
  await writeFile(join(folder, "invariants.ts"), invariants);
  const proved = await build(folder);
  expect(proved.text).toBe(text);
  expect(Object.keys(proved.parts).filter((path) => /^src\/(?:prove|config\/invariant)/.test(path))).toEqual([]);
});

it("carries health checks, and their trigger, where a cluster has some", async () => {
  const routes = (options: string) => `
import { api, cluster, env, gateway, route, secret } from "portcullis";
const eu = cluster("eu", { ingress: env("EU")${options} });
export default gateway({ store: { url: env("REDIS"), token: secret("TOKEN") } }, [api("shop", {}, [route("all", {}, { to: eu })])]);`;
  const [without, checked] = await Promise.all(
    ["", ", health: {}"].map(async (options) => build(await folderOf({ "index.ts": routes(options) }))),
  );
  for (const part of ["src/edge/health.ts", "scheduled:"]) {
    const has = (built: typeof without) => built && (part in built.parts || built.text.includes(part));
    expect([has(without), has(checked)]).toEqual([false, true]);
  }
});

it("has no path of this machine, no variable's value and no secret's", async () => {
  const folder = await folderOf({
    "routes/index.ts": `
import { api, cluster, env, gateway, route, secret } from "portcullis";
import { logger } from "hono/logger";
import { join } from "./legacy.cjs";
const eu = cluster("eu", { ingress: env("EU"), services: { path: "/{service}" } });
export default gateway({ policies: [logger()], debug: secret("DEBUG_KEY") }, [
  api("shop", {}, [route("all", { path: join("/v1", "orders") }, { to: eu })]),
]);`,
    // A module of the older kind, which esbuild wraps by its path.
    "routes/legacy.cjs": "exports.join = (...parts) => parts.join('/');",
    "wrangler.toml": `
[vars]
EU = "https://hidden-ingress.example.com"
[secrets]
required = ["DEBUG_KEY"]`,
    ".dev.vars": 'DEBUG_KEY="hunter2"',
  });
  process.env.DEBUG_KEY = "hunter2";
  onTestFinished(() => {
    delete process.env.DEBUG_KEY;
  });
  const { text, parts } = await build(join(folder, "routes"));
  expect(Object.keys(parts).some((path) => path.endsWith("/legacy.cjs"))).toBe(true);
  for (const hidden of [
    "hunter2",
    "hidden-ingress",
    folder,
    process.cwd(),
    "/node_modules/",
    "routes/",
    "sourceMappingURL",
  ])
    expect(text).not.toContain(hidden);
  expect(text).toContain("DEBUG_KEY");
});

it("is the same for the same routes", async () => {
  const [one, other] = [await build("routes"), await build("routes")];
  expect(other.text).toBe(one.text);
});

it("carries the routes module where it holds middleware, which then runs", async () => {
  const { worker, parts } = await build("test/build/fixtures/middleware.ts");
  expect(Object.keys(parts)).toContain("test/build/fixtures/middleware.ts");
  expect(Object.keys(parts).filter((path) => path.startsWith("npm:zod"))).toEqual([]);
  const gateway = await serve(worker, { EU_INGRESS: await ingress() });

  const tea = await fetch(`${gateway}/tea`);
  expect([tea.status, await tea.text()]).toEqual([418, "short and stout"]);
  expect(tea.headers.get("x-powered-by")).toBe("Portcullis");
  expect(tea.headers.get("x-told")).toBe("shop/tea /tea");
  expect(tea.headers.get("x-request-id")).toMatch(/^[0-9a-f-]{36}$/);

  const twice = await fetch(`${gateway}/twice`);
  expect(twice.status).toBe(200);
  expect(twice.headers.get("x-told")).toBe("shop/twice /twice, shop/twice /twice, shop/twice /twice");
  expect(((await twice.json()) as { headers: object }).headers).toHaveProperty("x-own");

  const plain = await fetch(`${gateway}/plain`);
  expect(plain.headers.get("x-told")).toBeNull();
  expect(plain.headers.get("x-powered-by")).toBeNull();
});

it("carries no routes module where there is no middleware", async () => {
  const { parts } = await build("test/build/fixtures/targets.ts");
  expect(Object.keys(parts).filter((path) => path.startsWith("test/"))).toEqual([]);
});

it("is refused with file and line when middleware brings what a Worker does not have", async () => {
  const folder = await folderOf({
    "index.ts": `import { api, cluster, env, route } from "portcullis";
import { disk } from "./disk.ts";
export default api("shop", { policies: [disk] }, [route("all", {}, { to: cluster("eu", { ingress: env("EU") }) })]);`,
    "disk.ts":
      'import type { MiddlewareHandler } from "hono";\nimport { readFileSync } from "fs";\nexport const disk: MiddlewareHandler = async (c) => c.text(readFileSync("/etc/hosts", "utf8"));',
  });
  const refused = await build(folder).catch((error: unknown) => error);
  expect(refused).toBeInstanceOf(ConfigurationRefused);
  expect((refused as ConfigurationRefused).problems).toEqual([
    {
      file: join(folder, "disk.ts"),
      line: 2,
      subject: "middleware",
      message: 'cannot be bundled for the Worker: Could not resolve "fs"',
      fix: "a routes module that holds Hono middleware is part of the Worker: it may import only what runs there",
    },
  ]);
});

it("leaves the old Worker whole when the new one cannot be made", async () => {
  const folder = await folderOf({ "out/worker.js": "export default {};" });
  const broken = join(await folderOf({ "index.ts": "export default 5;" }), "index.ts");
  await expect(
    compileRoutes({ routes: broken }).then((compiled) => emit(compiled, join(folder, "out"))),
  ).rejects.toThrow(ConfigurationRefused);
  expect(await readFile(join(folder, "out/worker.js"), "utf8")).toBe("export default {};");
});
