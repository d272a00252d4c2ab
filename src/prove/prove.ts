/** All that is proved of a table: what the build refuses, what `check` warns of, and what `prove` lists. */
import type { RouteTable } from "../table/table.ts";
import { TableRequests } from "./answers.ts";
import { beyondPlatform } from "./cost.ts";
import { deadPolicies } from "./dead-policies.ts";
import type { Finding } from "./finding.ts";
import { lostHosts, shadowed, ties, unreachable } from "./reach.ts";

/** Without `notes` what is ordinary is not looked for: which routes leave requests to more specific ones. */
export function proveTable(
  table: RouteTable,
  { notes = false, space = new TableRequests(table) }: { notes?: boolean; space?: TableRequests } = {},
): Finding[] {
  const found = [
    ...unreachable(space),
    ...ties(space),
    ...deadPolicies(table),
    ...beyondPlatform(table),
    ...(notes ? [...lostHosts(space), ...shadowed(space)] : []),
  ];
  return notes ? found : found.filter(({ severity }) => severity !== "note");
}
