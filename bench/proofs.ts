/** How long it takes to prove a table, and to compare two, in this process: without reading and compiling the routes. */
import { checkConfiguration } from "../src/build/check.ts";
import { planTable } from "../src/build/plan.ts";
import { Problems } from "../src/build/problem.ts";
import { anonymous, every, filter, no, rateLimit, route, scopes } from "../src/index.ts";
import { TableRequests } from "../src/prove/answers.ts";
import { diffTables } from "../src/prove/diff.ts";
import { checkInvariants } from "../src/prove/invariants.ts";
import { proveTable } from "../src/prove/prove.ts";
import type { RouteTable } from "../src/table/table.ts";
import { summary } from "./measure.ts";
import type { Figure } from "./report.ts";
import { crossed } from "./routes/crossed.ts";

const INVARIANTS = [
  every(route).under("/v1/orders-7").requires(scopes("orders"), filter),
  every(route).on("api.example.com").taking("DELETE").denies(anonymous),
  no(route).of("orders-1", "orders-2").without(rateLimit),
];

/** With every remark that `prove` lists, and three invariants. */
function prove(table: RouteTable): void {
  const space = new TableRequests(table);
  const findings = proveTable(table, { notes: true, space });
  // Some route leaves requests to others in each service, or the table would prove nothing.
  if (findings.length < table.routes.length / 10) throw new Error(`only ${findings.length} findings`);
  checkInvariants(space, INVARIANTS, () => undefined);
}

function tableOf(options: Parameters<typeof crossed>[0]): RouteTable {
  const problems = new Problems(() => undefined);
  const { table } = planTable(checkConfiguration(crossed(options), problems), problems);
  if (problems.count > 0) throw new Error(problems.list[0]?.message);
  return table;
}

const RUNS = 3;

/** Calls `step` before each run, RUNS times for each of the three figures. */
export function proofFigures(step: (what: string) => void): Figure[] {
  const thousand = tableOf({ services: 100 });
  const other = tableOf({ services: 100, changed: true });
  const tenThousand = tableOf({ services: 1_000 });
  const measured = (name: string, label: string, target: number, work: () => void): Figure => {
    const seconds = Array.from({ length: RUNS }, () => {
      step("proving");
      const started = performance.now();
      work();
      return (performance.now() - started) / 1_000;
    });
    const { median: value, quartiles } = summary(seconds);
    return { name, label, unit: "s", value, quartiles, target };
  };
  return [
    measured("proofs", "proofs over 1,000 routes", 2, () => prove(thousand)),
    measured("proofs-10000", "proofs over 10,000 routes", 20, () => prove(tenThousand)),
    measured("diff", "diff of two tables of 1,000 routes", 3, () => diffTables(thousand, other)),
  ];
}

export const PROOF_STEPS = 3 * RUNS;
