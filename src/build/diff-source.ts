/** Where `gateway diff` gets a table from: a table.json, a folder, a routes module, or a revision of the git repository. */
import { execFile } from "node:child_process";
import { mkdtemp, readFile, realpath, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative, resolve, sep } from "node:path";
import { promisify } from "node:util";
import type { AcknowledgementDeclaration, InvariantDeclaration } from "../config/invariant.ts";
import type { Step } from "../prove/step.ts";
import { type RouteTable, TABLE_VERSION } from "../table/table.ts";
import { planRoutes } from "./compile.ts";
import { ConfigurationRefused } from "./problem.ts";
import { invariantsOf } from "./prove.ts";

export interface DiffSource {
  /** As it was asked for: `main`, `routes`, `old/table.json`. */
  readonly name: string;
  readonly table: RouteTable;
  /** `file:line` of routes and others, as in sources.json; {} where only the table is there. */
  readonly sources: Readonly<Record<string, string>>;
  readonly acknowledgements: readonly AcknowledgementDeclaration[];
  /** Absent: only the table is there, which does not tell them. */
  readonly invariants?: readonly InvariantDeclaration[];
}

/** `routes` is where a revision has its routes module. Throws Error, or ConfigurationRefused with what is wrong with the routes. */
export async function diffSource(name: string, routes: string, step?: Step): Promise<DiffSource> {
  const found = await stat(name).catch(() => undefined);
  if (found?.isFile() && name.endsWith(".json")) return fromTable(name, name);
  if (found?.isDirectory()) {
    const built = join(name, "table.json");
    if ((await stat(built).catch(() => undefined))?.isFile()) return fromTable(name, built);
  }
  return found ? fromRoutes(name, name, step) : fromRevision(name, routes, step);
}

async function fromTable(name: string, file: string): Promise<DiffSource> {
  const table = JSON.parse(await readFile(file, "utf8")) as RouteTable;
  if (table.version !== TABLE_VERSION || !Array.isArray(table.routes))
    throw new Error(`${file} is no table of version ${TABLE_VERSION}; build it again with this version of Portcullis`);
  return { name, table, sources: {}, acknowledgements: [] };
}

async function fromRoutes(name: string, path: string, step?: Step): Promise<DiffSource> {
  const { table, sources, module } = await planRoutes(path, step);
  return { name, table, sources, ...invariantsOf(module) };
}

/** The whole tree of the revision, since a routes module may import from anywhere in it; nothing of the repository is touched. */
async function fromRevision(revision: string, routes: string, step?: Step): Promise<DiffSource> {
  const commit = await git(["rev-parse", "--verify", "--quiet", "--end-of-options", `${revision}^{commit}`]).catch(
    () => undefined,
  );
  if (!commit)
    throw new Error(
      `"${revision}" is neither a file or folder nor a revision of this git repository; git log has them`,
    );
  const top = await git(["rev-parse", "--show-toplevel"]);
  const place = relative(await realpath(top), resolve(await realpath("."), routes));
  if (place.startsWith(`..${sep}`))
    throw new Error(`${routes} is not in the repository whose revision "${revision}" is`);
  const folder = await realpath(await mkdtemp(join(tmpdir(), "portcullis-diff-")));
  try {
    const index = { GIT_INDEX_FILE: join(folder, "index") };
    const tree = join(folder, "tree");
    await git(["read-tree", commit], index);
    await git(["-C", top, "checkout-index", "--all", `--prefix=${tree}${sep}`], index);
    const found = await fromRoutes(revision, join(tree, place), step);
    return { ...found, sources: {} };
  } catch (error) {
    if (!(error instanceof ConfigurationRefused)) throw error;
    // Their lines are those of the revision, in a folder that is gone by then.
    const problems = error.problems.map(({ file, subject, ...problem }) => ({
      ...problem,
      ...(file && { file: `${revision}:${relative(join(folder, "tree"), file)}` }),
      subject: subject.replace(`${join(folder, "tree")}${sep}`, `${revision}:`),
    }));
    throw new ConfigurationRefused(problems);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function git(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<string> {
  const { stdout } = await promisify(execFile)("git", [...args], { env: { ...process.env, ...env } });
  return stdout.trim();
}
