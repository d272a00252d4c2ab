/**
 * read: from a routes module on disk to what it declares. esbuild bundles the module, so that any import works that works in
 * TypeScript and every broken one is told with its line; Node runs the bundle, and its source map leads from each declaration's
 * stack back to file and line.
 */
import { readFile, stat } from "node:fs/promises";
import { builtinModules, SourceMap } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { inspect } from "node:util";
import { type BuildFailure, build, type Plugin } from "esbuild";
import type { Place } from "../config/declaration.ts";
import * as portcullis from "../index.ts";
import { ConfigurationRefused, Problems, quoted } from "./problem.ts";

/** The folder of Portcullis' own sources. */
export const SOURCES = fileURLToPath(new URL("..", import.meta.url));

export interface RoutesModule {
  /** The module's file, absolute. */
  readonly file: string;
  /** The default export, as it is. */
  readonly exported: unknown;
  /** The default export of `invariants.ts` beside it; absent: there is no such file. */
  readonly invariants?: { readonly file: string; readonly exported: unknown };
  /** All files that went into it, absolute: what to watch. */
  readonly inputs: readonly string[];
  readonly problems: Problems;
}

const INDEX = join(SOURCES, "index.ts");
const IMPORTED = { filter: /^portcullis$/ };

/** `import ... from "portcullis"` means these sources, wherever the routes module lies. */
export const portcullisImport: Plugin = {
  name: "portcullis",
  setup: (esbuild) => esbuild.onResolve(IMPORTED, () => ({ path: INDEX, sideEffects: false })),
};

/** The same without its text, since it is in this process anyway: its names alone, so that esbuild tells of a wrong one. */
const portcullisByReference: Plugin = {
  name: "portcullis",
  setup(esbuild) {
    const contents = `export { ${Object.keys(portcullis)} } from ${JSON.stringify(pathToFileURL(INDEX).href)};`;
    esbuild.onResolve(IMPORTED, () => ({ path: "portcullis", namespace: "portcullis" }));
    esbuild.onLoad({ filter: /^/, namespace: "portcullis" }, () => ({ contents }));
    esbuild.onResolve({ filter: /^file:/, namespace: "portcullis" }, ({ path }) => ({ path, external: true }));
  },
};

const ENDINGS = ["ts", "mts", "js", "mjs"];

/** The file behind `--routes PATH`: itself, or the index of a folder. Throws ConfigurationRefused when there is none. */
export async function routesFile(path: string): Promise<string> {
  const absolute = resolve(path);
  const found = await stat(absolute).catch(() => undefined);
  if (found?.isFile()) return absolute;
  if (found?.isDirectory()) {
    for (const ending of ENDINGS) {
      const file = join(absolute, `index.${ending}`);
      if (await stat(file).catch(() => undefined)) return file;
    }
  }
  const message = found ? "the folder has no index.ts" : "there is no such file or folder";
  throw new ConfigurationRefused([{ subject: path, message, fix: "give the routes module with --routes PATH" }]);
}

/** Throws ConfigurationRefused when the module cannot be bundled or run. */
export async function readRoutes(path: string): Promise<RoutesModule> {
  const file = await routesFile(path);
  const beside = await invariantsBeside(file);
  const { text, map, inputs } = await bundle(file, beside);
  // A name of its own for each run: Node keeps every module that it has loaded, by its address.
  const script = `portcullis-routes-${++runs}.mjs`;
  const problems = new Problems(locator(script, map, dirname(file)));
  const { exported, invariants } = await run(addressOf(text, script), file, problems);
  return { file, exported, ...(beside && { invariants: { file: beside, exported: invariants } }), inputs, problems };
}

/** A file of its own, or a folder with an index, since what routes/ exports may get into the Worker. */
async function invariantsBeside(file: string): Promise<string | undefined> {
  for (const name of ["invariants", "invariants/index"].flatMap((one) => ENDINGS.map((ending) => `${one}.${ending}`))) {
    const beside = join(dirname(file), name);
    if (beside !== file && (await stat(beside).catch(() => undefined))?.isFile()) return beside;
  }
  return undefined;
}

let runs = 0;

/** Keeps the bundle in memory. Stacks name it by its sourceURL, or in formats that know none by the address, which ends alike. */
const addressOf = (text: string, script: string): string =>
  `data:text/javascript;base64,${Buffer.from(`${text}//# sourceURL=${script}\n`).toString("base64")}#${script}`;

interface Bundle {
  readonly text: string;
  readonly map: string;
  readonly inputs: readonly string[];
}

async function bundle(file: string, invariants: string | undefined): Promise<Bundle> {
  const from = JSON.stringify(pathToFileURL(file).href);
  const loading = (name: string, path: string) => `export const ${name} = () => import(${JSON.stringify(path)});`;
  try {
    const { outputFiles, metafile } = await build({
      // Imported in this way each file becomes a function of its own. To find a line takes V8 a time that grows with the function
      // that it is in: for 10,000 routes in 200 files 3 s, were they one, and 0.3 s so (Node 26).
      stdin: {
        contents: loading("load", file) + (invariants ? loading("loadInvariants", invariants) : ""),
        resolveDir: dirname(file),
      },
      bundle: true,
      write: false,
      metafile: true,
      format: "esm",
      platform: "node",
      target: "node22",
      sourcemap: "external",
      sourcesContent: false,
      outfile: join(dirname(file), "routes.mjs"),
      absWorkingDir: dirname(file),
      plugins: [portcullisByReference],
      nodePaths: [join(SOURCES, "..", "node_modules")],
      logLevel: "silent",
      define: { "import.meta.url": from },
      // Packages in the older module format call require(), which an ES module does not have.
      banner: {
        js: `import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(${from});`,
      },
      external: [...builtinModules],
    });
    const inputs = Object.keys(metafile.inputs)
      .filter((input) => input !== "<stdin>" && !input.startsWith("portcullis:"))
      .map((input) => resolve(dirname(file), input))
      .filter((input) => !input.includes("/node_modules/"));
    const output = (end: string) => outputFiles.find(({ path }) => path.endsWith(end))?.text ?? "";
    return { text: output(".mjs"), map: output(".map"), inputs };
  } catch (error) {
    const errors = (error as Partial<BuildFailure>).errors;
    if (!errors) throw error;
    const problems = new Problems(() => undefined);
    for (const { text: said, location, notes } of errors) {
      const text = said.replace("portcullis:portcullis", "portcullis");
      const fix = notes[0]?.text || "correct the line; the message is the TypeScript bundler's";
      if (location) problems.addAt(resolve(dirname(file), location.file), location.line, "module", text, fix);
      else problems.add(undefined, "module", text, fix);
    }
    throw new ConfigurationRefused(problems.list);
  }
}

/** Milliseconds for a module that waits (top-level await): a promise that is never kept would end Node without a word. */
const PATIENCE = 10_000;

/** The default exports of the module and of its invariants. */
async function run(
  address: string,
  file: string,
  problems: Problems,
): Promise<{ exported: unknown; invariants: unknown }> {
  let module: { default?: unknown } | undefined;
  let invariants: { default?: unknown } | undefined;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, PATIENCE, undefined);
  });
  try {
    const { load, loadInvariants } = await import(address);
    module = await Promise.race([load(), late]);
    invariants = module && loadInvariants && (await Promise.race([loadInvariants(), late]));
  } catch (error) {
    addThrown(error, problems);
    throw new ConfigurationRefused(problems.list);
  } finally {
    clearTimeout(timer);
  }
  if (!module) {
    const message = `waits for something that has not come after ${PATIENCE / 1000} s`;
    problems.addAt(file, 1, "module", message, "take out the await that is never done");
    throw new ConfigurationRefused(problems.list);
  }
  const exported = module.default;
  const { kind } = (exported ?? {}) as { kind?: unknown };
  const list = Array.isArray(exported) && exported.length > 0;
  if (kind !== "gateway" && kind !== "api" && !list) {
    const message = exported === undefined ? "has no default export" : `its default export is ${quoted(exported)}`;
    problems.addAt(file, 1, "module", message, "export default gateway({ ... }, [ ...apis ])");
    throw new ConfigurationRefused(problems.list);
  }
  return { exported, invariants: invariants?.default };
}

/** Tells of an exception that the module's own code has thrown. */
export function addThrown(error: unknown, problems: Problems): void {
  const thrown = error instanceof Error ? `${error.name}: ${error.message}` : inspect(error);
  const declaredAt = error instanceof Error ? (error as Place) : {};
  problems.add({ declaredAt }, "module", `throws ${thrown}`, "correct what the line does; the module runs at build");
}

/** From a stack to the first place in it that is the routes module's: neither Portcullis' own, which is not in the bundle, nor a package's. */
function locator(script: string, map: string, folder: string): Problems["locate"] {
  const sources = new SourceMap(JSON.parse(map));
  return ({ stack }) => {
    if (typeof stack !== "string") return undefined;
    for (const frame of stack.split(`${script}:`).slice(1)) {
      const [line, column] = frame.split(/[:)\s]/, 2).map(Number) as [number, number];
      const entry = sources.findEntry(line - 1, column - 1);
      if (!("originalSource" in entry) || !entry.originalSource) continue;
      const source = resolve(folder, entry.originalSource);
      if (source.includes("/node_modules/")) continue;
      return { file: source, line: entry.originalLine + 1 };
    }
    return undefined;
  };
}

/** The text of a file, or undefined when there is none. */
export const textOfFile = (file: string): Promise<string | undefined> => readFile(file, "utf8").catch(() => undefined);
