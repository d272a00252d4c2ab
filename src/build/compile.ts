/** read -> check -> plan -> prove: from a routes module to its RouteTable, or to everything that is wrong with it. */
import { relative } from "node:path";
import { gatewayOf } from "../config/entries.ts";
import { FILTER_PACK } from "../policies/filter-inspection.ts";
import { type Step, unwatched } from "../prove/step.ts";
import type { RouteTable } from "../table/table.ts";
import type { EncodedPack } from "../waf/pack-encoding.ts";
import { checkConfiguration } from "./check.ts";
import { checkEnvironment, wranglerFileFor } from "./environment.ts";
import { filterPack } from "./filter-pack.ts";
import { type Planned, planTable } from "./plan.ts";
import { ConfigurationRefused } from "./problem.ts";
import { type Proved, prove } from "./prove.ts";
import { addThrown, type RoutesModule, readRoutes } from "./read.ts";

export interface CompileOptions {
  /** The routes module, or a folder with an index. */
  readonly routes: string;
  /** wrangler's configuration. Default: the one beside the routes, if there is one. */
  readonly config?: string;
  /** Whether what is ordinary is proved and told too, such as which routes leave requests to more specific ones. Default: false. */
  readonly notes?: boolean;
  /** Told how far it is. Default: nobody is. */
  readonly step?: Step;
}

export interface Compiled {
  readonly table: RouteTable;
  /** `file:line` of each route, cluster, listener and consumer: `route orders/list`. No part of the table, which lines do not change. */
  readonly sources: Readonly<Record<string, string>>;
  readonly module: RoutesModule;
  /** By id: the rules of the table's wafs, and those of `filter`. */
  readonly packs: ReadonlyMap<string, EncodedPack>;
  /** All files that went into the table and the packs, but for wrangler's. */
  readonly inputs: readonly string[];
  readonly wrangler: string | undefined;
  /** What was proved of the table and is no problem. */
  readonly proved: readonly Proved[];
}

/** The table alone, whatever the environment has and the proofs say. Throws ConfigurationRefused with what is wrong with the routes. */
export async function planRoutes(
  routes: string,
  step: Step = unwatched,
): Promise<Pick<Compiled, "table" | "module" | "sources">> {
  const module = await readRoutes(routes);
  const { table, declarations } = plan(module, step);
  if (module.problems.list.length > 0) throw new ConfigurationRefused(module.problems.list);
  return { table, module, sources: sourcesOf(declarations, module) };
}

/** Throws ConfigurationRefused with all problems. */
export async function compileRoutes({
  routes,
  config,
  notes = false,
  step = unwatched,
}: CompileOptions): Promise<Compiled> {
  const module = await readRoutes(routes);
  const { problems } = module;
  const { table, declarations, references, packs: wafs, ruleFiles } = plan(module, step);
  const wrangler = config ?? (await wranglerFileFor(module.file));
  if (wrangler) await checkEnvironment(table, { references, declarations }, wrangler, problems);
  // Of a table with holes nothing is true.
  const proved = problems.count === 0 ? prove(table, module, declarations, notes, step) : [];
  if (problems.list.length > 0) throw new ConfigurationRefused(problems.list);
  const inputs = [...module.inputs, ...ruleFiles];
  const filters = table.policies.some(({ policy }) => policy === "filter");
  return {
    table,
    sources: sourcesOf(declarations, module),
    module,
    // Made when somebody asks: `check` need not wait for it.
    get packs() {
      return filters ? new Map([...wafs, [FILTER_PACK, filterPack()]]) : wafs;
    },
    inputs,
    wrangler,
    proved,
  };
}

function sourcesOf(declarations: Planned["declarations"], { problems }: RoutesModule): Record<string, string> {
  const sources: Record<string, string> = {};
  for (const [name, { declaredAt }] of declarations) {
    const place = problems.locate(declaredAt);
    if (place) sources[name] = `${relative(process.cwd(), place.file)}:${place.line}`;
  }
  return sources;
}

/** Declarations may hold code that runs when they are looked at, such as getters. */
function plan({ exported, problems }: RoutesModule, step: Step): Planned {
  try {
    return planTable(checkConfiguration(gatewayOf(exported), problems, step), problems, step);
  } catch (error) {
    // Not the module's own: a defect of ours, to be seen as one.
    if (error instanceof Error && !problems.locate(error)) throw error;
    addThrown(error, problems);
    throw new ConfigurationRefused(problems.list);
  }
}
