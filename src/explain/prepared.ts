/**
 * What explaining needs, kept from one command to the next in `.portcullis/explain`: the code as one bundle (to read 150 files of
 * TypeScript takes most of a second), and each routes module's table. Both are made anew as soon as a file that went into them has changed.
 */
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import type { RouteTable } from "../table/table.ts";
import type { Subject } from "./explain.ts";

const SOURCES = fileURLToPath(new URL("..", import.meta.url));

/** Gitignored, as all that the commands keep. */
const FOLDER = join(".portcullis", "explain");

type Code = typeof import("./code.ts");

export interface SubjectOptions {
  readonly routes: string;
  readonly config?: string;
  /** A `table.json`, in place of the routes. */
  readonly table?: string;
}

/** The code of code.ts. */
export async function explainCode(): Promise<Code> {
  const file = join(FOLDER, `code-${stampOf(ownFiles()).slice(0, 16)}.mjs`);
  if (!sizeOf(file) && !(await bundle(file))) return import("./code.ts");
  return import(pathToFileURL(resolve(file)).href);
}

async function bundle(file: string): Promise<boolean> {
  const { build } = await import("esbuild");
  const { outputFiles } = await build({
    entryPoints: [join(SOURCES, "explain", "code.ts")],
    bundle: true,
    write: false,
    minify: true,
    format: "esm",
    platform: "node",
    target: "node22",
    conditions: ["worker"],
    external: ["cloudflare:*"],
    // Packages in the older module format call require(), which an ES module does not have.
    banner: {
      js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
    },
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

interface KeptSubject extends Omit<Subject, "middleware" | "packs"> {
  /** The bytes of each in base64. */
  readonly packs: readonly (readonly [id: string, json: string, bytes: string])[];
  readonly inputs: readonly string[];
  readonly stamp: string;
}

/** The table and what goes with it. Throws ConfigurationRefused when the routes are. */
export async function subjectOf(options: SubjectOptions): Promise<Subject> {
  if (options.table !== undefined) return subjectOfTable(options.table, options.config);
  const name = createHash("sha256")
    .update(`${resolve(options.routes)}\n${options.config ?? ""}`)
    .digest("hex");
  const file = join(FOLDER, `table-${name.slice(0, 16)}.json`);
  const kept = parse(file) as KeptSubject | undefined;
  if (kept && kept.stamp === stampOf(kept.inputs) && !hasFunctions(kept.table)) {
    const packs = kept.packs.map(([id, json, bytes]) => [id, { json, bytes: Buffer.from(bytes, "base64") }] as const);
    return { ...kept, packs: new Map(packs) };
  }
  const [{ compileRoutes }, { indexMatches }] = await Promise.all([
    import("../build/compile.ts"),
    import("../table/match.ts"),
  ]);
  const { table, sources, module, packs, inputs: read, wrangler } = await compileRoutes(options);
  const index = indexMatches(table.routes, table.listeners);
  const subject = { table, index, sources, packs, texts: await variables(wrangler) };
  if (hasFunctions(table)) {
    const { middlewareByPlace } = await import("../config/entries.ts");
    return { ...subject, middleware: middlewareByPlace(module.exported) };
  }
  const inputs = [...read, ...(wrangler ? [wrangler] : []), ...ownFiles()];
  const rules = [...packs].map(([id, { json, bytes }]) => [id, json, Buffer.from(bytes).toString("base64")]);
  keep(file, JSON.stringify({ ...subject, packs: rules, inputs, stamp: stampOf(inputs) }));
  return subject;
}

/** A table has functions by name alone; their code is the routes module's. */
const hasFunctions = ({ policies }: RouteTable): boolean => policies.some(({ policy }) => policy === "middleware");

async function subjectOfTable(file: string, config: string | undefined): Promise<Subject> {
  let table: RouteTable;
  try {
    table = JSON.parse(readFileSync(file, "utf8"));
    if (!Array.isArray(table.routes)) throw new Error("it has no routes");
  } catch (error) {
    throw new Error(`${file} is no table: ${(error as Error).message}; gateway build writes one as table.json`);
  }
  const sources = parse(join(dirname(file), "sources.json")) as Subject["sources"] | undefined;
  return { table, sources: sources ?? {}, texts: await variables(config) };
}

async function variables(wrangler: string | undefined): Promise<Record<string, unknown>> {
  if (wrangler === undefined) return {};
  const { parseWrangler } = await import("../build/environment.ts");
  return parseWrangler(wrangler, readFileSync(wrangler, "utf8")).vars ?? {};
}

/** All of Portcullis: which of its files go into what is not worth knowing. */
const ownFiles = (): string[] => readdirSync(SOURCES, { recursive: true }).map((file) => join(SOURCES, String(file)));

/** Changes when one of the files does. */
function stampOf(files: readonly string[]): string {
  const hash = createHash("sha256").update(process.version);
  for (const file of files) {
    const { mtimeMs = 0, size = 0 } = statSync(file, { throwIfNoEntry: false }) ?? {};
    hash.update(`${file}\n${mtimeMs}\n${size}\n`);
  }
  return hash.digest("hex");
}

const sizeOf = (file: string): number => statSync(file, { throwIfNoEntry: false })?.size ?? 0;

function parse(file: string): unknown {
  try {
    return JSON.parse(readFileSync(file, "utf8"));
  } catch {
    return undefined;
  }
}

/** Whole or not at all; false where nothing can be kept, as in a folder that is read-only. */
function keep(file: string, text: string): boolean {
  try {
    mkdirSync(FOLDER, { recursive: true });
    const fresh = `${file}.${process.pid}`;
    writeFileSync(fresh, text);
    renameSync(fresh, file);
    return true;
  } catch {
    return false;
  }
}
