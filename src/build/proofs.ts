/** `gateway prove`: everything that was proved of a table, also what is as it should be. */
import { styleText } from "node:util";
import { type Cost, costOf, PLATFORM } from "../prove/cost.ts";
import type { TableRoute } from "../table/table.ts";
import { type CompileOptions, compileRoutes } from "./compile.ts";
import { formatProblem } from "./problem.ts";
import type { Proved } from "./prove.ts";

export interface Proofs {
  readonly table: string;
  readonly routes: number;
  /** Of those, how many surely answer some request by each of their matches. */
  readonly reachable: number;
  readonly findings: readonly Proved[];
  /** By route, what one request can cost at most. */
  readonly costs: Readonly<Record<string, Cost>>;
  /** Milliseconds for reading, compiling and proving. */
  readonly ms: number;
}

/** Throws ConfigurationRefused with what no configuration should be, and Error where there is no such route. */
export async function proofs({ route, ...options }: CompileOptions & { readonly route?: string }): Promise<Proofs> {
  const started = performance.now();
  const { table, proved } = await compileRoutes({ ...options, notes: true });
  const isMeant = ({ id }: TableRoute) => route === undefined || id === route;
  const routes = table.routes.filter(isMeant);
  if (routes.length === 0)
    throw new Error(`there is no route "${route}"; give one as api/route, such as ${table.routes[0]?.id}`);
  const doubtful = proved.filter(({ kind }) => kind === "unreachable" || kind === "unknown");
  return {
    table: table.id,
    routes: table.routes.length,
    reachable: table.routes.length - new Set(doubtful.map((one) => one.route)).size,
    findings: proved.filter((one) => route === undefined || one.route === route || one.winner === route),
    costs: Object.fromEntries(routes.map((one) => [one.id, costOf(table, one)])),
    ms: Math.round(performance.now() - started),
  };
}

/** Of the costs the highest are shown. */
const MOST_COSTS = 10;

export function proofsText(
  { table, routes, reachable, findings, costs, ms }: Proofs,
  stream: NodeJS.WriteStream,
): string {
  const colour = (name: "yellow" | "dim" | "green", text: string) => styleText(name, text, { stream });
  const dearest = Object.entries(costs)
    .sort(([, a], [, b]) => b.subrequests - a.subrequests || b.connections - a.connections)
    .slice(0, MOST_COSTS);
  const width = Math.max(...dearest.map(([id]) => id.length));
  return [
    ...findings.map(
      (one) => `${colour(one.severity === "note" ? "dim" : "yellow", one.severity)}  ${formatProblem(one)}`,
    ),
    `at most, for one request${Object.keys(costs).length > MOST_COSTS ? `, of the ${MOST_COSTS} dearest routes` : ""}:`,
    ...dearest.map(([id, cost]) => `  ${id.padEnd(width)}  ${shownCost(cost)}`),
    `${colour("green", "proved")}  ${routes} routes, ${reachable === routes ? "all" : reachable} reachable; ${findings.length} remark${findings.length === 1 ? "" : "s"}, table ${table}, ${ms} ms`,
  ].join("\n");
}

function shownCost({ subrequests, connections, buffered, time, atLeast }: Cost): string {
  const { free } = PLATFORM.subrequests;
  return [
    `${subrequests} of ${free} subrequests`,
    `${connections} of ${PLATFORM.connections} at once`,
    `${Math.ceil(buffered / 1_024)} KiB held`,
    Number.isFinite(time) ? `${time / 1_000} s` : "no end",
    ...(atLeast ? ["and what its middleware does"] : []),
  ].join(", ");
}
