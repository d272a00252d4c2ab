/** read -> check -> plan: from a routes module to its RouteTable, or to everything that is wrong with it. */
import { relative } from "node:path";
import { gatewayOf } from "../config/entries.ts";
import type { RouteTable } from "../table/table.ts";
import type { EncodedPack } from "../waf/pack-encoding.ts";
import { checkConfiguration } from "./check.ts";
import { checkEnvironment, wranglerFileFor } from "./environment.ts";
import { type Planned, planTable } from "./plan.ts";
import { ConfigurationRefused } from "./problem.ts";
import { addThrown, type RoutesModule, readRoutes } from "./read.ts";

export interface CompileOptions {
  /** The routes module, or a folder with an index. */
  readonly routes: string;
  /** wrangler's configuration. Default: the one beside the routes, if there is one. */
  readonly config?: string;
}

export interface Compiled {
  readonly table: RouteTable;
  /** `file:line` of each route, cluster, listener and consumer: `route orders/list`. No part of the table, which lines do not change. */
  readonly sources: Readonly<Record<string, string>>;
  readonly module: RoutesModule;
  /** By id: the rules of the table's wafs. */
  readonly packs: ReadonlyMap<string, EncodedPack>;
  readonly wrangler: string | undefined;
}

/** Throws ConfigurationRefused with all problems. */
export async function compileRoutes({ routes, config }: CompileOptions): Promise<Compiled> {
  const module = await readRoutes(routes);
  const { problems } = module;
  const { table, declarations, references, packs } = plan(module);
  const wrangler = config ?? (await wranglerFileFor(module.file));
  if (wrangler) await checkEnvironment(table, { references, declarations }, wrangler, problems);
  if (problems.list.length > 0) throw new ConfigurationRefused(problems.list);
  const sources: Record<string, string> = {};
  for (const [name, { declaredAt }] of declarations) {
    const place = problems.locate(declaredAt);
    if (place) sources[name] = `${relative(process.cwd(), place.file)}:${place.line}`;
  }
  return { table, sources, module, packs, wrangler };
}

/** Declarations may hold code that runs when they are looked at, such as getters. */
function plan({ exported, problems }: RoutesModule): Planned {
  try {
    return planTable(checkConfiguration(gatewayOf(exported), problems), problems);
  } catch (error) {
    // Not the module's own: a defect of ours, to be seen as one.
    if (error instanceof Error && !problems.locate(error)) throw error;
    addThrown(error, problems);
    throw new ConfigurationRefused(problems.list);
  }
}
