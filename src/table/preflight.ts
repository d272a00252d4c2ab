/** CORS preflights: which route they are for, at the edge and to whoever reasons about it. */
import type { Matcher, MatchRequest, MatchResult } from "./match.ts";
import type { EdgeTable, TableRoute } from "./table.ts";

/** The method of the request that a preflight asks about (Fetch, 3.2.2, CORS-preflight request); null: the request is none. */
export const askedMethod = ({ method, header }: Pick<MatchRequest, "method" | "header">): string | null =>
  method === "OPTIONS" && header("origin") !== null ? header("access-control-request-method") : null;

export const knowsCors = ({ policies }: EdgeTable, route: Pick<TableRoute, "policies">): boolean =>
  route.policies.some((position) => policies[position]?.policy === "cors");

/** A preflight is for the route that would answer the request that it asks about, if that route knows CORS; undefined: it is for none. */
export function preflightMatch(table: EdgeTable, matcher: Matcher, request: MatchRequest): MatchResult | undefined {
  const method = askedMethod(request);
  if (method === null) return undefined;
  const found = matcher.match({ ...request, method });
  return found.kind === "route" && knowsCors(table, table.routes.at(found.route) as TableRoute) ? found : undefined;
}
