/** All that is proved of a table: what the build refuses, what `check` warns of, and what `prove` lists. */
import type { RouteTable } from "../table/table.ts";
import { TableRequests } from "./answers.ts";
import { beyondPlatform } from "./cost.ts";
import { deadPolicies } from "./dead-policies.ts";
import type { Finding } from "./finding.ts";
import { lostHosts, shadowed, ties, unreachable } from "./reach.ts";
import { type Step, unwatched } from "./step.ts";

/** Without `notes` what is ordinary is not looked for: which routes leave requests to more specific ones. */
export function proveTable(
  table: RouteTable,
  {
    notes = false,
    space = new TableRequests(table),
    step = unwatched,
  }: { notes?: boolean; space?: TableRequests; step?: Step } = {},
): Finding[] {
  const found = [
    ...unreachable(space, step),
    ...ties(space, step),
    ...deadPolicies(table),
    ...beyondPlatform(table),
    ...(notes ? [...lostHosts(space, step), ...shadowed(space, step)] : []),
  ];
  return notes ? found : found.filter(({ severity }) => severity !== "note");
}
