/** Tables by the name that a person gives: a routes module, a `table.json`, or either of them as it was at a git revision. */
import { execFile } from "node:child_process";
import { existsSync, symlinkSync } from "node:fs";
import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, relative, resolve } from "node:path";
import { promisify } from "node:util";
import { type Compiled, compileRoutes } from "../build/compile.ts";
import { ConfigurationRefused } from "../build/problem.ts";
import { type RouteTable, TABLE_VERSION } from "../table/table.ts";

export interface TableSource {
  /** As it was given. */
  readonly name: string;
  readonly table: RouteTable;
  /** `file:line` by `route orders/list`; {}: unknown. */
  readonly sources: Compiled["sources"];
  /** Absent: it came from a `table.json`. */
  readonly module?: Compiled["module"];
}

/**
 * `given` is a folder or file of routes, a `table.json`, a git revision, or `REVISION:PATH`. Of a revision without a path it is
 * `routes` as it was then. Throws ConfigurationRefused for routes that do not compile, Error for what is none of these.
 */
export async function tableFrom(given: string, routes = "routes"): Promise<TableSource> {
  if (await stat(given).catch(() => undefined)) return { ...(await tableAt(given)), name: given };
  const [, revision = given, path = routes] = /^([^:]+):(.+)$/.exec(given) ?? [];
  const commit = await git("rev-parse", "--verify", "--quiet", "--end-of-options", `${revision}^{commit}`).catch(
    () => "",
  );
  if (commit === "") throw new Error(`${given} is neither a file or folder nor a git revision`);
  return { ...(await tableAtRevision(given, commit, path)), name: given };
}

async function tableAt(path: string): Promise<Omit<TableSource, "name">> {
  if (path.endsWith(".json")) return readTable(path);
  const { table, sources, module } = await compileRoutes({ routes: path });
  return { table, sources, module };
}

async function readTable(file: string): Promise<Omit<TableSource, "name">> {
  const parse = async (path: string) => JSON.parse(await readFile(path, "utf8"));
  const table = (await parse(file).catch((error) => {
    throw new Error(`${file} cannot be read: ${(error as Error).message}`);
  })) as Partial<RouteTable>;
  if (table.version !== TABLE_VERSION || !Array.isArray(table.routes))
    throw new Error(`${file} is no table of this version; gateway build writes one as table.json`);
  return { table: table as RouteTable, sources: await parse(join(dirname(file), "sources.json")).catch(() => ({})) };
}

/** Everything of that revision, since routes may import from anywhere; packages are those of today. */
async function tableAtRevision(name: string, commit: string, path: string): Promise<Omit<TableSource, "name">> {
  const folder = await mkdtemp(join(tmpdir(), "portcullis-revision-"));
  try {
    const [top, prefix] = await Promise.all([git("rev-parse", "--show-toplevel"), git("rev-parse", "--show-prefix")]);
    const archive = join(folder, "all.tar");
    await git("-C", top, "archive", "--format=tar", `--output=${archive}`, commit);
    await promisify(execFile)("tar", ["-xf", archive, "-C", folder]);
    const here = join(folder, prefix);
    if (existsSync("node_modules") && !existsSync(join(here, "node_modules")))
      symlinkSync(resolve("node_modules"), join(here, "node_modules"));
    if (!existsSync(join(here, path))) throw new Error(`${name}: there is no ${path} at that revision`);
    const { sources, ...rest } = await tableAt(join(here, path)).catch((error) => {
      throw error instanceof ConfigurationRefused ? renamed(error, here) : error;
    });
    const told = Object.entries(sources).map(([key, place]) => [key, within(here, place)] as const);
    return { ...rest, sources: Object.fromEntries(told) };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const renamed = ({ problems }: ConfigurationRefused, folder: string): ConfigurationRefused =>
  new ConfigurationRefused(problems.map((one) => (one.file ? { ...one, file: within(folder, one.file) } : one)));

/** A place as it is called in the checkout. */
function within(folder: string, place: string): string {
  const path = relative(folder, resolve(place));
  return path.startsWith("..") ? place : path;
}

const git = async (...args: string[]): Promise<string> =>
  (await promisify(execFile)("git", args, { maxBuffer: 2 ** 28 })).stdout.trim();
