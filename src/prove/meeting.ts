/** Which matches of a table may be for the same requests, by their hosts and paths alone: a walk through the index of the edge. */
import { commonHost } from "../table/listener.ts";
import type { MatchIndex } from "../table/match.ts";
import { type Candidate, isParameter, literalPrefix, type MatchNode, segmentsOf } from "../table/match.ts";
import type { TableMatch } from "../table/table.ts";

/** The matches whose paths may meet `path` at one of `hosts`, also at narrower and wider ones. */
export function* meeting(index: MatchIndex, hosts: readonly string[], path: TableMatch["path"]): Generator<Candidate> {
  const open = path.kind !== "exact";
  const literal = path.kind === "regex" ? literalPrefix(path.value) : path.value;
  const segments = segmentsOf(open ? literal.replace(/\/$/, "") : literal);
  const seen = new Set<string>();
  for (const tree of treesOf(index, hosts)) {
    for (const list of meetingIn(index.paths[tree] as MatchNode, segments, open, 0)) {
      for (const candidate of list) {
        const key = candidate.join();
        if (!seen.has(key)) yield candidate;
        seen.add(key);
      }
    }
  }
}

function treesOf(index: MatchIndex, hosts: readonly string[]): Set<number> {
  return new Set(
    index.hosts.flatMap((byHost) =>
      Object.entries(byHost).flatMap(([host, tree]) =>
        hosts.some((one) => commonHost(one, host) !== undefined) ? [tree] : [],
      ),
    ),
  );
}

function* meetingIn(
  node: MatchNode,
  segments: readonly string[],
  open: boolean,
  depth: number,
): Generator<readonly Candidate[]> {
  if (node.r) yield node.r;
  if (node.x) yield node.x;
  const segment = segments[depth];
  if (segment === undefined) {
    if (node.e) yield node.e;
    if (!open) return;
    for (const child of Object.values(node.s ?? {})) yield* meetingIn(child, segments, open, depth + 1);
    if (node.p) yield* meetingIn(node.p, segments, open, depth + 1);
    return;
  }
  const free = isParameter(segment);
  for (const [name, child] of Object.entries(free ? (node.s ?? {}) : {}))
    if (name !== "/") yield* meetingIn(child, segments, open, depth + 1);
  const literal = free ? undefined : node.s?.[segment];
  if (literal) yield* meetingIn(literal, segments, open, depth + 1);
  if (node.p && segment !== "/") yield* meetingIn(node.p, segments, open, depth + 1);
}
