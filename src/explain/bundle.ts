/**
 * The command line and what `explain` needs of Portcullis as one file, since to read 150 files of TypeScript takes most of a second.
 * It is made anew as soon as a file of Portcullis has changed.
 */
import { readdirSync, rmSync, statSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import type { Plugin } from "esbuild";
import { FOLDER, keep, ownFiles, SOURCES, stampOf } from "./kept.ts";

/** The URL of the bundle; undefined where nothing can be kept. */
export async function commandBundle(): Promise<string | undefined> {
  const file = join(FOLDER, `code-${stampOf(ownFiles()).slice(0, 16)}.mjs`);
  if (!statSync(file, { throwIfNoEntry: false })?.size && !(await bundle(file))) return undefined;
  return pathToFileURL(resolve(file)).href;
}

async function bundle(file: string): Promise<boolean> {
  const { build } = await import("esbuild");
  const { outputFiles } = await build({
    entryPoints: [join(SOURCES, "commands", "explain-alone.ts")],
    bundle: true,
    write: false,
    minify: true,
    format: "esm",
    platform: "node",
    target: "node22",
    conditions: ["worker"],
    external: ["cloudflare:*"],
    define: { "import.meta.url": JSON.stringify(pathToFileURL(join(SOURCES, "explain", "kept.ts")).href) },
    plugins: [onlyNeeded, builtins],
    nodePaths: [join(SOURCES, "..", "node_modules")],
    logLevel: "silent",
  });
  const kept = keep(file, outputFiles[0]?.text ?? "");
  if (kept) removeOthers(file);
  return kept;
}

/** Of one version of the code there is one bundle, and nobody comes back to those of others. */
function removeOthers(file: string): void {
  for (const other of readdirSync(FOLDER))
    if (other.startsWith("code-") && other !== basename(file)) rmSync(join(FOLDER, other), { force: true });
}

/** What else is imported when it is needed stays where it is, in Portcullis. */
const onlyNeeded: Plugin = {
  name: "only-needed",
  setup({ onResolve }) {
    onResolve({ filter: /^\./ }, ({ path, resolveDir, kind }) =>
      kind === "dynamic-import" ? { path: pathToFileURL(resolve(resolveDir, path)).href, external: true } : undefined,
    );
    onResolve({ filter: /^[a-z]/ }, ({ kind, path }) =>
      kind === "dynamic-import" && !path.startsWith("node:") ? { path, external: true } : undefined,
    );
  },
};

/**
 * An import of `node:util` or `node:process` as an ES module touches all that it exports, also what Node loads only when it is touched: a
 * tenth of what a short command takes (Node 26, 20 of 180 ms in a profile).
 */
const builtins: Plugin = {
  name: "builtins",
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^node:/ }, ({ path }) => ({ path, namespace: "builtin" }));
    onLoad({ filter: /.*/, namespace: "builtin" }, ({ path }) => ({
      contents: `module.exports = process.getBuiltinModule(${JSON.stringify(path)});`,
    }));
  },
};
