import { segmentsOf } from "../table/match.ts";
import type { PathMatch, RedirectAction } from "../table/table.ts";
import type { RequestTarget } from "./request-target.ts";

/**
 * Where a redirect leads. What the action does not name stays as the client asked for it, the query always. A named scheme without a
 * port means that scheme's own port; the scheme's own port is left out (Gateway API, HTTPRequestRedirectFilter).
 */
export function redirectLocation(
  action: RedirectAction,
  target: RequestTarget,
  matched: PathMatch | undefined,
): string {
  const scheme = action.scheme ?? target.scheme;
  const asked = /:([0-9]+)$/.exec(target.authority)?.[1];
  const port = action.port !== undefined ? String(action.port) : action.scheme || action.host ? undefined : asked;
  const shown = port === undefined || port === (scheme === "https" ? "443" : "80") ? "" : `:${port}`;
  const path = !action.path
    ? target.path
    : "full" in action.path
      ? action.path.full
      : replacePrefix(target.path, matched, action.path.prefix);
  return `${scheme}://${action.host ?? target.host}${shown}${path}${target.search}`;
}

/** By whole segments; never `//`, never an empty path (Gateway API, ReplacePrefixMatch). */
export function replacePrefix(path: string, matched: PathMatch | undefined, replacement: string): string {
  const depth = matched?.kind === "regex" || !matched ? 0 : segmentsOf(matched.value.replace(/\/$/, "")).length;
  const rest = segmentsOf(path).slice(depth).join("");
  return `${replacement.replace(/\/$/, "")}${rest}` || "/";
}
