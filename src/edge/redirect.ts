import type { PathMatch, RedirectAction } from "../table/table.ts";
import { portOf, type RequestTarget } from "./request-target.ts";
import { rewrittenPath } from "./rewrite.ts";

/**
 * Where a redirect leads. What the action does not name stays as the client asked for it, the query always. A named scheme without a
 * port means that scheme's own port. Else the port is that of the listener which the request came to, `listenerPort`; where there is
 * none, a named host means the scheme's own port as well. The scheme's own port is left out (Gateway API, HTTPRequestRedirectFilter).
 */
export function redirectLocation(
  action: RedirectAction,
  target: RequestTarget,
  matched: PathMatch | undefined,
  listenerPort?: number,
): string {
  const scheme = action.scheme ?? target.scheme;
  const kept = action.scheme ? undefined : (listenerPort ?? (action.host ? undefined : portOf(target)));
  const port = action.port ?? kept;
  const shown = port === undefined || port === (scheme === "https" ? 443 : 80) ? "" : `:${port}`;
  const path = rewrittenPath(target.path, action.path, matched);
  return `${scheme}://${action.host ?? target.host}${shown}${path}${target.search}`;
}
