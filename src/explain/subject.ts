/**
 * The table to explain by, kept from one command to the next in `.portcullis/explain`; made anew as soon as a file that went into it has
 * changed.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import type { RouteTable } from "../table/table.ts";
import type { Subject } from "./explain.ts";
import { FOLDER, keep, ownFiles, parse, stampOf } from "./kept.ts";

export interface SubjectOptions {
  readonly routes: string;
  readonly config?: string;
  /** A `table.json`, in place of the routes. */
  readonly table?: string;
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
