/** What a cluster is asked for in the place of what the client asked for (Gateway API, HTTPURLRewriteFilter). */
import { segmentsOf } from "../table/match.ts";
import type { PathMatch, TableRewrite } from "../table/table.ts";

/** A backend's rewrite says more than its route's: what both change is changed as the backend has it. */
export const combined = (route: TableRewrite | undefined, backend: TableRewrite | undefined): TableRewrite =>
  route && backend ? { ...route, ...backend } : (backend ?? route ?? NOTHING);

const NOTHING: TableRewrite = {};

/** The new path for `path`, which `matched` has matched. */
export function rewrittenPath(path: string, change: TableRewrite["path"], matched: PathMatch | undefined): string {
  if (!change) return path;
  return "full" in change ? change.full : replacePrefix(path, matched, change.prefix);
}

/**
 * Replaces what `matched` has matched as a prefix, by whole segments: all of an exact path, nothing of a regex. Never gives `//` nor an
 * empty path (Gateway API, HTTPPathModifier.replacePrefixMatch).
 */
export function replacePrefix(path: string, matched: PathMatch | undefined, replacement: string): string {
  const depth = matched?.kind === "regex" || !matched ? 0 : segmentsOf(matched.value.replace(/\/$/, "")).length;
  const rest = segmentsOf(path).slice(depth).join("");
  return `${replacement.replace(/\/$/, "")}${rest}` || "/";
}
