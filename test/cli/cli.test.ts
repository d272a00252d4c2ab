/** The command line as scripts and people meet it: exit codes, what goes to which stream, JSON, colours. */
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { folderOf } from "../build/module.ts";
import { serve } from "../build/workerd.ts";
import { CLI, gateway, run } from "./run.ts";

const ROUTES = `import { api, cluster, env, redirect, route } from "portcullis";
const eu = cluster("eu", { ingress: env("EU") });
export default api("shop", {}, [
  route("old", { path: "/old" }, { to: redirect({ path: { full: "/new" } }) }),
  route("all", { path: "/*" }, { to: eu }),
]);
`;

// biome-ignore lint/suspicious/noControlCharactersInRegex: the escape that begins a colour
const COLOUR = /\u001b\[/;

describe("usage", () => {
  it.each([[["--help"]], [["help"]]])("%j tells the commands", async (args) => {
    const { code, out, err } = await gateway(args);
    expect([code, err]).toEqual([0, ""]);
    for (const command of ["dev", "check", "build", "import", "token", "keys", "users", "consumers", "deploy"])
      expect(out).toMatch(new RegExp(`^  ${command} `, "m"));
  });

  it.each([
    ["check", ["--routes <path>", "--config <file>", "--json"]],
    ["build", ["--routes <path>", "--config <file>", "--out <dir>", "--json"]],
    [
      "token",
      ["--sub <subject>", "--scope <scopes>", "--client <id>", "--expires <duration>", "--claim <name=value...>"],
    ],
    ["import", ["--gateway <ns/name>", "--endpoints <file>", "--out <dir>", "--force", "--strict", "--json"]],
    ["deploy", ["--routes <path>", "--config <file>", "--dry-run"]],
    ["dev", ["--routes <path>", "--port <port>", "--redis <kind>", "--json"]],
  ])("%s --help tells its options", async (command, options) => {
    const { code, out } = await gateway([command, "--help"]);
    expect(code).toBe(0);
    for (const option of options) expect(out).toContain(`  ${option} `);
  });

  it.each([
    ["nothing", [], "Usage: gateway"],
    ["an unknown command", ["chekc"], "(Did you mean check?)"],
    ["an unknown option", ["check", "--rotes", "a"], "(Did you mean --routes?)"],
    ["more than it takes", ["check", "routes"], "too many arguments for 'check'"],
    ["build without a folder", ["build"], "required option '--out <dir>' not specified"],
    ["import of nothing", ["import", "--out", "a"], "missing required argument 'manifests'"],
    ["import without a folder", ["import", "a.yaml"], "required option '--out <dir>' not specified"],
    ["a Gateway without its namespace", ["import", "a", "--out", "b", "--gateway", "c"], "written as namespace/name."],
    ["a token of nobody", ["token"], "required option '--sub <subject>' not specified"],
    ["a token of an empty subject", ["token", "--sub", ""], "A token is about somebody."],
    [
      "a token for no time",
      ["token", "--sub", "a", "--expires", "soon"],
      "A duration is written as 90s, 15m, 1h30m or 7d.",
    ],
    ["a claim without a value", ["token", "--sub", "a", "--claim", "b"], "A claim is written as name=value."],
    ["a port that is none", ["dev", "--port", "http"], "A port is a number from 0 to 65535."],
    ["a Redis that there is not", ["dev", "--redis", "cluster"], "Allowed choices are embedded, real."],
  ])("%s is wrong usage: 2", async (_, args, told) => {
    const { code, out, err } = await gateway(args);
    expect([code, out]).toEqual([2, ""]);
    expect(err).toContain(told);
  });
});

describe("check", () => {
  it("of routes/, as shipped", async () => {
    const { code, out, err } = await gateway(["check"]);
    expect([code, err]).toEqual([0, ""]);
    expect(out).toMatch(/^ok {2}\d+ routes, 2 clusters, \d+ policies, table [0-9a-f]{16}\n$/);
  });

  it("--json of the same", async () => {
    const { code, out, err } = await gateway(["check", "--json"]);
    expect([code, err]).toEqual([0, ""]);
    expect(JSON.parse(out)).toEqual({
      ok: true,
      table: expect.stringMatching(/^[0-9a-f]{16}$/),
      routes: 9,
      clusters: 2,
      policies: expect.any(Number),
      problems: [],
      warnings: [],
    });
  });

  const broken = {
    "shop/index.ts": ROUTES.replace('"/old"', '"old"')
      .replace("{ to: eu }", "{ to: eu, policies: [requestId] }")
      .replace("redirect,", "redirect, requestId,"),
  };

  it("of a module with mistakes tells file, line and fix, and ends with 1", async () => {
    const folder = await folderOf(broken);
    const { code, out, err } = await gateway(["check", "--routes", "shop"], { cwd: folder });
    expect([code, out]).toEqual([1, ""]);
    expect(err).toBe(`shop/index.ts:4  route "shop/old": \`path\`: must begin with /
    fix: correct the value
shop/index.ts:5  route "shop/all": \`policies.0\`: must be a policy such as cors({ ... }), a Hono middleware or without(...)
    fix: correct the value
2 problems; nothing was changed
`);
  });

  it("--json of the same", async () => {
    const folder = await folderOf(broken);
    const { code, out, err } = await gateway(["check", "--json", "--routes", "shop"], { cwd: folder });
    expect([code, err]).toEqual([1, ""]);
    expect(JSON.parse(out)).toEqual({
      ok: false,
      problems: [
        {
          file: "shop/index.ts",
          line: 4,
          subject: 'route "shop/old"',
          message: "`path`: must begin with /",
          fix: "correct the value",
        },
        expect.objectContaining({ file: "shop/index.ts", line: 5 }),
      ],
    });
  });

  it("of what is not there ends with 1", async () => {
    const { code, err } = await gateway(["check", "--routes", "nowhere"]);
    expect(code).toBe(1);
    expect(err).toBe(`nowhere: there is no such file or folder
    fix: give the routes module with --routes PATH
1 problem; nothing was changed
`);
  });

  it("goes by the wrangler configuration that --config names", async () => {
    const folder = await folderOf({
      "routes.ts": ROUTES,
      "wrangler.json": "{}",
      "other.json": '{ "vars": { "EU": "https://a.example.com" } }',
    });
    const [own, other] = await Promise.all([
      gateway(["check", "--routes", "routes.ts"], { cwd: folder }),
      gateway(["check", "--routes", "routes.ts", "--config", "other.json"], { cwd: folder }),
    ]);
    expect(own.err).toContain('routes.ts:2  env("EU"): is not in wrangler.json');
    expect([own.code, other.code, other.err]).toEqual([1, 0, ""]);
  });
});

const MANIFESTS = await readFile("test/import/fixtures/minimal.yaml", "utf8");

describe("import", () => {
  const broken = MANIFESTS.replace("port: 80", "port: none");
  const imports = async (args: readonly string[], text = MANIFESTS) => {
    const folder = await folderOf({ "shop.yaml": text });
    return { folder, ...(await gateway(["import", "shop.yaml", "--out", "routes", ...args], { cwd: folder })) };
  };

  it("writes a module, and tells what is refused and what to do next", async () => {
    const { folder, code, out, err } = await imports([]);
    expect([code, err]).toEqual([0, ""]);
    expect(
      out,
    ).toBe(`refused  shop.yaml:18  HTTPRoute shop/orders spec.rules[0].tpyo: this importer does not know the field
The manifests have no Services, so that those of the routes exist is taken for granted.
CLUSTER_INGRESS is to hold the URL of an ingress that finds Services by /namespace/service in front of the path. To reach them otherwise, say how in a file for --endpoints (docs/from-gateway-api.md).
Clusters at a URL see that URL's host, or the Service's \`host\`, as Host, and the client's in X-Forwarded-Host: \`fetch\` sends no other. A binding keeps the client's.
1 refused, 0 carried with a difference, 19 carried, 1 not for the gateway
imported  Gateway infra/public into routes: 1 API, 1 listener, 1 cluster
next: npm run gateway -- check --routes routes
`);
    expect((await readdir(join(folder, "routes"))).sort()).toEqual([
      "REPORT.md",
      "clusters.ts",
      "index.ts",
      "orders.ts",
    ]);
  });

  it("--strict ends with 1, and has written all the same", async () => {
    const { folder, code } = await imports(["--strict"]);
    expect(code).toBe(1);
    expect(await readdir(join(folder, "routes"))).toContain("index.ts");
    expect((await imports(["--strict"], MANIFESTS.replace(/ +tpyo: .*\n/, ""))).code).toBe(0);
  });

  it("--json tells of every field", async () => {
    const { code, out } = await imports(["--json"]);
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject({
      ok: true,
      gateway: "infra/public",
      apis: 1,
      files: ["clusters.ts", "orders.ts", "index.ts", "REPORT.md"],
      entries: expect.arrayContaining([
        {
          resource: "HTTPRoute shop/orders",
          field: "spec.rules[0].tpyo",
          verdict: "refused",
          note: "this importer does not know the field",
          file: "shop.yaml",
          line: 18,
        },
      ]),
    });
  });

  it("of manifests with mistakes tells file, line and fix, ends with 1, and writes nothing", async () => {
    const { folder, code, out, err } = await imports([], broken);
    expect([code, out]).toEqual([1, ""]);
    expect(
      err,
    ).toBe(`shop.yaml:6  Gateway infra/public: \`spec.listeners[0].port\` must be a whole number from 1 to 65535
    fix: write it as the API's reference says
1 problem; nothing was changed
`);
    expect(await readdir(folder)).toEqual(["shop.yaml"]);
    expect(JSON.parse((await imports(["--json"], broken)).out)).toMatchObject({ ok: false, problems: [{ line: 6 }] });
  });

  it("reads standard input", async () => {
    const folder = await folderOf({ "shop.yaml": MANIFESTS });
    const { code, out } = await run(
      "sh",
      ["-c", `"${process.execPath}" "${CLI}" import - --out routes <shop.yaml`],
      folder,
      {},
    );
    expect(code).toBe(0);
    expect(out).toContain("refused  stdin:18  ");
  });

  it("writes over nothing without --force", async () => {
    const { folder } = await imports([]);
    const again = ["import", "shop.yaml", "--out", "routes"];
    const { code, err } = await gateway(again, { cwd: folder });
    expect([code, err]).toEqual([
      1,
      "routes: has files already\n    fix: give another folder with --out DIR, or --force to write over them\n1 problem; nothing was changed\n",
    ]);
    await writeFile(join(folder, "routes/old.ts"), "");
    const forced = await gateway([...again, "--force"], { cwd: folder });
    expect(forced.code).toBe(0);
    expect(forced.out).toContain("\nleft as they were, and not of this import: old.ts\n");
  });
});

describe("colours", () => {
  it("are for terminals", async () => {
    const folder = await folderOf({ "routes.ts": ROUTES, "broken.ts": "" });
    const [good, bad] = await Promise.all(
      ["routes.ts", "broken.ts"].map((routes) => gateway(["check", "--routes", routes], { cwd: folder })),
    );
    expect(`${good?.out}${bad?.err}`).not.toMatch(COLOUR);
  });

  // `script` lends a command a terminal; other systems' takes other options.
  it.runIf(process.platform === "linux")("go when NO_COLOR says so", async () => {
    const folder = await folderOf({ "routes.ts": ROUTES });
    const command = `"${process.execPath}" "${CLI}" check --routes routes.ts`;
    const inTerminal = (env: NodeJS.ProcessEnv) =>
      run("script", ["--quiet", "--return", "--command", command, "/dev/null"], folder, {
        TERM: "xterm-256color",
        ...env,
      });
    const [plain, without] = await Promise.all([inTerminal({}), inTerminal({ NO_COLOR: "1" })]);
    expect([plain.code, without.code]).toEqual([0, 0]);
    expect(plain.out).toMatch(COLOUR);
    expect(without.out).not.toMatch(COLOUR);
  });
});

describe("build", () => {
  it.each([
    ["a .ts file", "shop.ts", "shop.ts"],
    ["a .js file", "shop.js", "shop.js"],
    ["a .mjs file", "deep/er/shop.mjs", "deep/er/shop.mjs"],
    ["a folder with an index", "shop/index.js", "shop"],
  ])("of %s, outside of any project, writes a Worker that workerd runs as it is", async (_, file, routes) => {
    const folder = await folderOf({ [file]: ROUTES });
    const { code, out, err } = await gateway(["build", "--routes", routes, "--out", "new/folder", "--json"], {
      cwd: folder,
    });
    expect([code, err]).toEqual([0, ""]);
    expect((await readdir(join(folder, "new/folder"))).sort()).toEqual(["sources.json", "table.json", "worker.js"]);
    const table = JSON.parse(await readFile(join(folder, "new/folder/table.json"), "utf8"));
    const worker = join(folder, "new/folder/worker.js");
    expect(JSON.parse(out)).toEqual({
      ok: true,
      table: table.id,
      routes: 2,
      worker: "new/folder/worker.js",
      bytes: (await readFile(worker)).byteLength,
      gzipBytes: expect.any(Number),
      ms: expect.any(Number),
    });
    expect(JSON.parse(await readFile(join(folder, "new/folder/sources.json"), "utf8"))).toEqual({
      "route shop/old": `${file}:4`,
      "route shop/all": `${file}:5`,
      "cluster eu": `${file}:2`,
    });
    const gatewayUrl = await serve(worker);
    const moved = await fetch(`${gatewayUrl}/old?a=b`, { redirect: "manual" });
    expect([moved.status, moved.headers.get("location")]).toEqual([302, `${gatewayUrl}/new?a=b`]);
    const health = await fetch(`${gatewayUrl}/.well-known/portcullis/health`);
    expect(await health.json()).toEqual({ status: "ok", table: table.id });
  });

  it("tells what it has written", async () => {
    const folder = await folderOf({ "shop.ts": ROUTES });
    const { out } = await gateway(["build", "--routes", "shop.ts", "--out", "dist"], { cwd: folder });
    expect(out).toMatch(
      /^built {2}dist\/worker\.js {2}\d+\.\d kB, \d+\.\d kB gzip, 2 routes, table [0-9a-f]{16}, \d+ ms\n$/,
    );
  });

  it("of a module with mistakes writes nothing", async () => {
    const folder = await folderOf({ "shop.ts": "export default 5;" });
    const { code, out } = await gateway(["build", "--routes", "shop.ts", "--out", "dist", "--json"], { cwd: folder });
    expect(code).toBe(1);
    expect(JSON.parse(out)).toMatchObject({ ok: false, problems: [{ file: "shop.ts", line: 1 }] });
    expect(await readdir(folder)).toEqual(["shop.ts"]);
  });

  it("into what is no folder ends with 1 and one line", async () => {
    const folder = await folderOf({ "shop.ts": ROUTES, dist: "a file" });
    const text = await gateway(["build", "--routes", "shop.ts", "--out", "dist"], { cwd: folder });
    expect([text.code, text.out]).toEqual([1, ""]);
    expect(text.err).toMatch(/^failed {2}EEXIST: [^\n]+\n$/);
    const json = await gateway(["build", "--routes", "shop.ts", "--out", "dist", "--json"], { cwd: folder });
    expect(JSON.parse(json.out)).toEqual({ ok: false, error: expect.stringContaining("EEXIST") });
  });
});
