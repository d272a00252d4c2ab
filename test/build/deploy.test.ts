/** `gateway deploy`: what is measured is what goes up, and nothing else does. */
import { execFile } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { compileRoutes } from "../../src/build/compile.ts";
import { deploy } from "../../src/build/deploy.ts";
import { ConfigurationRefused } from "../../src/build/problem.ts";
import { measureStartup } from "../../src/build/startup.ts";
import { type Files, folderOf, markedIn } from "./module.ts";

const CLI = join(process.cwd(), "src/cli.ts");
const compatibility = { compatibilityDate: "2026-10-20", compatibilityFlags: [] };

const ROUTES = `import { api, redirect, route } from "portcullis";
export default api("shop", {}, [route("old", {}, { to: redirect({ path: { full: "/new" } }) })]);`;

const WRANGLER = `name = "shop"
main = ".portcullis/worker.js"
compatibility_date = "2026-10-20"
compatibility_flags = ["enable_request_signal"]
no_bundle = true
find_additional_modules = false
`;

describe("a dry run", () => {
  it("of this repository uploads the built file, byte for byte, and warns of nothing", async () => {
    const { stdout, stderr } = await promisify(execFile)("npm", ["run", "--silent", "deploy", "--", "--dry-run"], {
      env: { ...process.env, CLOUDFLARE_API_TOKEN: "", NO_COLOR: "1" },
    });
    const { table } = await compileRoutes({ routes: "routes" });
    expect(stdout).toMatch(/^built {4}\.portcullis\/worker\.js {2}\d+\.\d kB, \d+\.\d kB gzip, 9 routes, table /);
    expect(stdout).toContain(`table ${table.id}\n`);
    expect(stdout).toMatch(/^startup {2}\d+ ms to compile and run its global scope, in this machine's workerd$/m);
    expect(stdout).toContain("--dry-run: exiting now.");
    // wrangler's [build] command leaves the measured file alone.
    expect(stdout).toContain("[custom build] Running: ");
    expect(stdout).not.toContain("[custom build] built");
    expect(stdout + stderr).not.toMatch(/warn|error|additional modules/i);
    // wrangler adds a note of its own to the folder.
    expect((await readdir(".portcullis/deployed")).filter((name) => name !== "README.md")).toEqual(["worker.js"]);
    const [built, uploaded] = await Promise.all(
      [".portcullis/worker.js", ".portcullis/deployed/worker.js"].map((file) => readFile(file, "utf8")),
    );
    expect(uploaded === built).toBe(true);
  });

  it("leaves other files beside the Worker where they are", async () => {
    const folder = await folderOf({
      "routes/index.ts": ROUTES,
      "wrangler.toml": WRANGLER,
      ".portcullis/keys.txt": "private",
      ".portcullis/other.mjs": "export default 1;",
    });
    const args = [CLI, "deploy", "--routes", "routes", "--dry-run"];
    const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: folder });
    expect(stdout).toContain("--dry-run: exiting now.");
    expect((await readdir(join(folder, ".portcullis/deployed"))).filter((name) => name !== "README.md")).toEqual([
      "worker.js",
    ]);
  });
});

it("ends as wrangler ends, and hands it what it does not know itself", async () => {
  const folder = await folderOf({ "routes/index.ts": ROUTES, "wrangler.toml": WRANGLER });
  const args = [CLI, "deploy", "--dry-run", "--bogus"];
  const failed = await promisify(execFile)(process.execPath, args, { cwd: folder }).catch((error: unknown) => error);
  expect(failed).toMatchObject({ code: 1, stderr: expect.stringContaining("bogus") });
});

describe("is refused", () => {
  const refusal = async (files: Files) => {
    const folder = await folderOf(files);
    const refused = await deploy({ routes: join(folder, "routes"), dryRun: true }, []).catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(ConfigurationRefused);
    return (refused as ConfigurationRefused).problems.map(({ file, line, message, fix }) => [
      file ? `${file.replace(`${folder}/`, "")}:${line}` : "",
      message,
      fix,
    ]);
  };

  const other = (line: string, changed: string) => WRANGLER.replace(new RegExp(`^${line}.*\n`, "m"), changed);

  it.each([
    [
      other("main", 'main = "src/index.ts" #!\n'),
      "`main` is not what the build writes",
      'main = ".portcullis/worker.js"',
    ],
    [other("no_bundle", "no_bundle = false #!\n"), "wrangler would bundle the Worker once more", "no_bundle = true"],
    [
      other("find", "find_additional_modules = true #!\n"),
      "wrangler would upload what else lies beside the Worker",
      "find_additional_modules = false",
    ],
    [
      other("compatibility_flags", "compatibility_flags = [] #!\n"),
      "clients that go away would not close their requests to the clusters",
      'compatibility_flags = ["enable_request_signal"]',
    ],
    // What is not there has no line: the first one stands for it.
    [`#!\n${other("compatibility_date", "")}`, "`compatibility_date` is missing", 'compatibility_date = "2026-10-20"'],
  ])("with %j", async (wrangler, message, fix) => {
    const files = { "routes/index.ts": ROUTES, "wrangler.toml": wrangler };
    expect(await refusal(files)).toEqual([[markedIn(files)[0], message, fix]]);
  });

  it("without a wrangler configuration", async () => {
    expect(await refusal({ "routes/index.ts": ROUTES })).toEqual([
      ["", "has no wrangler configuration beside it", "give it with --config FILE"],
    ]);
  });

  it("with routes that are", async () => {
    expect(await refusal({ "routes/index.ts": "export default 5;", "wrangler.toml": WRANGLER })).toEqual([
      ["routes/index.ts:1", "its default export is 5", "export default gateway({ ... }, [ ...apis ])"],
    ]);
  });
});

describe("the startup cost", () => {
  const workers = {
    "empty.js": "export default {};",
    // Work that no engine can leave out, some 50 ms of it.
    "busy.js": "let a = 1; for (let i = 0; i < 1e7; i++) a = (a * 48271 + i) % 2147483647; export default { a };",
    "broken.js": 'throw new Error("boom");',
  };

  it("is that of the module's global scope", async () => {
    const folder = await folderOf(workers);
    const of = (name: string) => measureStartup({ ...compatibility, worker: join(folder, name), starts: 3 });
    const [empty, busy] = [await of("empty.js"), await of("busy.js")];
    expect(busy).toBeGreaterThan(empty + 20);
  });

  it("is not told of a Worker that does not start", async () => {
    const worker = join(await folderOf(workers), "broken.js");
    await expect(measureStartup({ ...compatibility, worker })).rejects.toThrow(/^the Worker does not start: .*boom/s);
  });
});
