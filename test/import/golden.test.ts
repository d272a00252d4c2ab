/** A module as a person gets it: its text, that the language takes it, and that the project's formatter has nothing to change. */
import { execFile } from "node:child_process";
import { mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { importManifests } from "../../src/import/import.ts";
import { folderOf } from "../build/module.ts";

const run = promisify(execFile);
const ROOT = process.cwd();
const SHOP = ["test/import/fixtures/shop"];

const shopIn = async (folder: string) =>
  importManifests(SHOP, { endpoints: "test/import/fixtures/endpoints.yaml", out: join(folder, "routes") });

it("the shop's manifests", async () => {
  const { files } = await shopIn(await folderOf({}));
  const text = [...files].map(([file, content]) => `=== ${file}\n${content}`).join("\n");
  await expect(text).toMatchFileSnapshot("golden/shop.golden");
});

it("are TypeScript of the language", async () => {
  const folder = await folderOf({});
  await shopIn(folder);
  await mkdir(join(folder, "node_modules"));
  await symlink(ROOT, join(folder, "node_modules/portcullis"));
  const compilerOptions = { types: [join(ROOT, "node_modules/@cloudflare/workers-types")] };
  const config = { extends: join(ROOT, "tsconfig.base.json"), compilerOptions, include: ["routes"] };
  await writeFile(join(folder, "tsconfig.json"), JSON.stringify(config));
  const { stdout } = await run(join(ROOT, "node_modules/.bin/tsc"), ["-p", folder]).catch((error) => error);
  expect(stdout).toBe("");
});

it("are formatted as biome formats", async () => {
  const folder = await folderOf({});
  await shopIn(folder);
  const { vcs: _, files: __, overrides: ___, ...config } = JSON.parse(await readFile("biome.json", "utf8"));
  await writeFile(join(folder, "biome.json"), JSON.stringify(config));
  const { stdout } = await run(join(ROOT, "node_modules/.bin/biome"), ["check", "routes"], { cwd: folder }).catch(
    (error) => error,
  );
  expect(stdout).toContain("No fixes applied");
});
