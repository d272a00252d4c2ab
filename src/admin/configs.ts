/** What the policies of one kind go by, in a table. */
import type { MemberPolicy } from "../policies/contract.ts";
import type { PolicyName, RouteTable } from "../table/table.ts";

/** Of those that stand within others, too. */
export function configsOf<Config>(table: RouteTable, wanted: PolicyName): Config[] {
  const within = ({ policy, config }: MemberPolicy): Config[] =>
    policy === wanted
      ? [config as Config]
      : ((config as { members?: readonly MemberPolicy[] } | null)?.members?.flatMap?.(within) ?? []);
  return table.policies.flatMap(within);
}
