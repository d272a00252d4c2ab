/**
 * read: from a routes module on disk to what it declares. esbuild bundles the module, so that any import works that works in
 * TypeScript and every broken one is told with its line; Node runs the bundle, and its source map leads from each declaration's
 * stack back to file and line.
 */
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { builtinModules, SourceMap } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { type BuildFailure, build, type Plugin } from "esbuild";
import type { Place } from "../config/declaration.ts";
import { ConfigurationRefused, Problems } from "./problem.ts";

/** The folder of Portcullis' own sources. */
export const SOURCES = fileURLToPath(new URL("..", import.meta.url));

export interface RoutesModule {
  /** The module's file, absolute. */
  readonly file: string;
  /** The default export, as it is. */
  readonly exported: unknown;
  /** All files that went into it, absolute: what to watch. */
  readonly inputs: readonly string[];
  readonly problems: Problems;
}

/** `import ... from "portcullis"` means these sources, wherever the routes module lies. */
export const portcullisImport: Plugin = {
  name: "portcullis",
  setup: (esbuild) =>
    esbuild.onResolve({ filter: /^portcullis$/ }, () => ({ path: join(SOURCES, "index.ts"), sideEffects: false })),
};

/** The file behind `--routes PATH`: itself, or the index of a folder. Throws ConfigurationRefused when there is none. */
export async function routesFile(path: string): Promise<string> {
  const absolute = resolve(path);
  const found = await stat(absolute).catch(() => undefined);
  if (found?.isFile()) return absolute;
  if (found?.isDirectory()) {
    for (const name of ["index.ts", "index.mts", "index.js", "index.mjs"]) {
      const file = join(absolute, name);
      if (await stat(file).catch(() => undefined)) return file;
    }
  }
  const message = found ? "the folder has no index.ts" : "there is no such file or folder";
  throw new ConfigurationRefused([{ subject: path, message, fix: "give the routes module with --routes PATH" }]);
}

/** Throws ConfigurationRefused when the module cannot be bundled or run. */
export async function readRoutes(path: string): Promise<RoutesModule> {
  const file = await routesFile(path);
  const folder = await mkdtemp(join(tmpdir(), "portcullis-"));
  try {
    const { text, inputs } = await bundle(file);
    const script = join(folder, "routes.mjs");
    await writeFile(script, text);
    const locate = locator(script, text, dirname(file));
    const problems = new Problems(locate);
    const exported = await run(script, file, problems);
    return { file, exported, inputs, problems };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function bundle(file: string): Promise<{ text: string; inputs: string[] }> {
  try {
    const result = await build({
      entryPoints: [file],
      bundle: true,
      write: false,
      metafile: true,
      format: "esm",
      platform: "node",
      target: "node22",
      sourcemap: "inline",
      sourcesContent: false,
      outfile: join(dirname(file), "routes.mjs"),
      absWorkingDir: dirname(file),
      plugins: [portcullisImport],
      nodePaths: [join(SOURCES, "..", "node_modules")],
      logLevel: "silent",
      // Packages in the older module format call require(), which an ES module does not have.
      banner: {
        js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
      },
      external: [...builtinModules],
    });
    const inputs = Object.keys(result.metafile?.inputs ?? {})
      .map((input) => resolve(dirname(file), input))
      .filter((input) => !input.includes("/node_modules/") && !input.startsWith(SOURCES));
    return { text: result.outputFiles?.[0]?.text ?? "", inputs };
  } catch (error) {
    const errors = (error as Partial<BuildFailure>).errors;
    if (!errors) throw error;
    const problems = new Problems(() => undefined);
    for (const { text, location, notes } of errors) {
      const fix = notes[0]?.text || "correct the line; the message is the TypeScript bundler's";
      if (location) problems.addAt(resolve(dirname(file), location.file), location.line, "module", text, fix);
      else problems.add(undefined, "module", text, fix);
    }
    throw new ConfigurationRefused(problems.list);
  }
}

async function run(script: string, file: string, problems: Problems): Promise<unknown> {
  try {
    const module = (await import(pathToFileURL(script).href)) as { default?: unknown };
    if (module.default === undefined) {
      problems.addAt(file, 1, "module", "has no default export", "export default gateway({ ... }, [ ...apis ])");
      throw new ConfigurationRefused(problems.list);
    }
    return module.default;
  } catch (error) {
    if (error instanceof ConfigurationRefused) throw error;
    const thrown = error instanceof Error ? error : new Error(String(error));
    problems.add(
      { declaredAt: { stack: thrown.stack ?? "" } },
      "module",
      `throws ${thrown.name}: ${thrown.message}`,
      "correct what the line does; the routes module runs once, at build",
    );
    throw new ConfigurationRefused(problems.list);
  }
}

/** From a stack in the bundle to the first place in it that is not Portcullis' own. */
function locator(
  script: string,
  text: string,
  folder: string,
): (place: Place) => { file: string; line: number } | undefined {
  const encoded = /\/\/# sourceMappingURL=data:application\/json;base64,([A-Za-z0-9+/=]+)\s*$/.exec(text)?.[1];
  if (!encoded) return () => undefined;
  const map = new SourceMap(JSON.parse(Buffer.from(encoded, "base64").toString()));
  return ({ stack }) => {
    for (const [, file, line, column] of (stack ?? "").matchAll(
      /\(?((?:file:\/\/)?\/[^\s():]+):([0-9]+):([0-9]+)\)?/g,
    )) {
      if (!(file as string).endsWith(script)) continue;
      const entry = map.findEntry(Number(line) - 1, Number(column) - 1);
      if (!("originalSource" in entry) || !entry.originalSource) continue;
      const source = resolve(folder, entry.originalSource.replace(/^file:\/\//, ""));
      if (source.startsWith(SOURCES)) continue;
      return { file: source, line: entry.originalLine + 1 };
    }
    return undefined;
  };
}

/** The text of a file, or undefined when there is none. */
export const textOfFile = (file: string): Promise<string | undefined> => readFile(file, "utf8").catch(() => undefined);
