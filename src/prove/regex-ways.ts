/**
 * In how many ways at once a backtracking matcher can go through a value: its time. At each place it tries every way in which it can
 * have come there, so a regex that never has more than k of them takes at most k steps for each unit, and one that has more of them
 * the longer the value is takes more than linear time.
 *
 * They are counted by the subset construction (Rabin and Scott, 1959) on sets that tell how often each node is in them. If no more of
 * those turn up, the greatest is known for values of any length. What fails before is counted as if it went on (`^`, `$`, `\b` and what
 * looks around as if they held everywhere), and ways behind the one that matches as if they were tried, so the matcher never does more
 * than is counted.
 */
import { representatives } from "./automaton.ts";
import { holds, LAST_UNIT } from "./code-units.ts";
import { type Nfa, type RegexFlags, regexNfa } from "./regex-nfa.ts";

export type Ways =
  /** Of any value. */
  | { readonly kind: "at-most"; readonly ways: number }
  /** More than MANY_WAYS, for values that begin so. */
  | { readonly kind: "many"; readonly beginning: string }
  | { readonly kind: "unknown" };

/** More of them at each place take some 10 ms for the longest URL of 8 KB. */
export const MANY_WAYS = 250;

/** Counted sets, and what is added up for them: a second. Nearly all regexes that people write need fewer than a hundred, or 20 ms. */
const MOST_SETS = 12_000;
const MOST_STEPS = 1_000_000;
const MOST_PATHS = 200_000;

/** How often the matcher comes to each of some nodes. */
type Counts = ReadonlyMap<number, number>;

export function regexWays(source: string, flags: RegexFlags): Ways {
  const nfa = regexNfa(source, flags);
  const places = nfa && placesOf(nfa);
  if (!places) return { kind: "unknown" };
  const onwards = stepsOf(nfa, places);
  const first = places.reached(nfa.start);
  const queue = [{ counts: first, beginning: "" }];
  const seen = new Set([keyOf(first)]);
  let most = 0;
  let steps = 0;
  for (const { counts, beginning } of queue) {
    let ways = 0;
    for (const count of counts.values()) ways += count;
    if (ways > MANY_WAYS) return { kind: "many", beginning };
    most = Math.max(most, ways);
    for (const [unit, next] of nextOf(counts, onwards)) {
      const key = keyOf(next);
      if (seen.has(key)) continue;
      steps += next.size;
      if (seen.size >= MOST_SETS || steps > MOST_STEPS) return { kind: "unknown" };
      seen.add(key);
      queue.push({ counts: next, beginning: beginning + String.fromCharCode(unit) });
    }
  }
  return { kind: "at-most", ways: most };
}

/** By unit, of which those that all sets of the regex treat alike stand for each other, what is reached from a node that reads it. */
type Steps = ReadonlyMap<number, Counts>;

function stepsOf(nfa: Nfa, { reached, settled }: Places): (node: number) => Steps {
  const sets = new Map(nfa.moves.flat().map(({ set }) => [set.join(";"), set]));
  const units = representatives([...sets.values()]);
  const within = new Map(sets.entries().map(([name, set]) => [name, units.filter((unit) => holds(set, unit))]));
  const known: Steps[] = [];
  return (node) => {
    known[node] ??= added(
      (settled(node) ? [] : (nfa.moves[node] ?? [])).flatMap(({ set, to }) =>
        (within.get(set.join(";")) ?? []).map((unit) => [unit, reached(to), 1] as const),
      ),
    );
    return known[node];
  };
}

function nextOf(counts: Counts, onwards: (node: number) => Steps): Steps {
  const parts: [unit: number, counts: Counts, times: number][] = [];
  for (const [node, count] of counts) for (const [unit, next] of onwards(node)) parts.push([unit, next, count]);
  return added(parts);
}

function added(parts: readonly (readonly [unit: number, counts: Counts, times: number])[]): Steps {
  const next = new Map<number, Counts>();
  for (const [unit, counts, times] of parts) {
    const before = next.get(unit);
    next.set(unit, before || times > 1 ? sum([...(before ? [[before, 1] as const] : []), [counts, times]]) : counts);
  }
  return next;
}

function sum(parts: readonly (readonly [Counts, number])[]): Counts {
  const total = new Map<number, number>();
  for (const [counts, times] of parts)
    for (const [node, count] of counts) total.set(node, (total.get(node) ?? 0) + count * times);
  return total;
}

function keyOf(counts: Counts): string {
  if (counts.size > 1)
    return [...counts.keys()]
      .sort((a, b) => a - b)
      .map((node) => `${node}:${counts.get(node)}`)
      .join();
  for (const [node, count] of counts) return `${node}:${count}`;
  return "";
}

interface Places {
  /** By how many ways without reading the matcher gets from a node to each of those where it reads or has to give up. */
  readonly reached: (node: number) => Counts;
  /** Whether the matcher, once there, reads to the end and has matched, so that no other way is tried after it. */
  readonly settled: (node: number) => boolean;
}

/** Undefined: too many. */
function placesOf(nfa: Nfa): Places | undefined {
  const count = (stops: (node: number) => boolean) => countsOf(nfa, stops) ?? countsByPath(nfa, stops);
  const plain = count(() => false);
  if (!plain) return undefined;
  const all = nfa.moves.map((_, node) => isSettled(nfa, plain, node));
  const settled = (node: number) => all[node] === true;
  const reached = all.includes(true) ? count(settled) : plain;
  return reached && { reached, settled };
}

/** `stops`: from where it goes no further. Undefined: some way leads back to where it was, or there are too many. */
function countsOf({ jumps, moves }: Nfa, stops: (node: number) => boolean): ((node: number) => Counts) | undefined {
  const known: (Counts | undefined)[] = [];
  const open = new Set<number>();
  let steps = 0;
  for (const from of jumps.keys()) {
    // Not by recursion: thousands of nodes may stand in a row.
    const stack = [from];
    for (let node = stack.at(-1); node !== undefined; node = stack.at(-1)) {
      if (known[node]) {
        stack.pop();
        continue;
      }
      const onwards = stops(node) ? [] : (jumps[node] ?? []).map(({ to }) => to);
      const unknown = onwards.filter((to) => !known[to]);
      if (unknown.length === 0) {
        const waits = onwards.length === 0 || (moves[node] ?? []).length > 0;
        const own: Counts = new Map(waits ? [[node, 1]] : []);
        const counts = sum([own, ...onwards.map((to) => known[to] as Counts)].map((one) => [one, 1] as const));
        steps += counts.size;
        if (steps > MOST_STEPS) return undefined;
        known[node] = counts;
        open.delete(node);
        stack.pop();
      } else if (open.has(node)) return undefined;
      else {
        open.add(node);
        stack.push(...unknown);
      }
    }
  }
  return (node) => known[node] as Counts;
}

/**
 * The same where a repetition may repeat nothing, which the matcher gives up (ECMA-262, RepeatMatcher): each path for itself, since
 * where it may go depends on the repetitions that it has begun since the last unit. Undefined: there are too many.
 */
function countsByPath({ jumps, moves }: Nfa, stops: (node: number) => boolean): ((node: number) => Counts) | undefined {
  const known: Counts[] = [];
  const repeated = new Set(jumps.flatMap((from) => from.flatMap(({ to, again }) => (again ? [to] : []))));
  let steps = 0;
  for (const from of jumps.keys()) {
    const counts = new Map<number, number>();
    const paths: { node: number; begun: readonly number[] }[] = [{ node: from, begun: [] }];
    for (let path = paths.pop(); path; path = paths.pop()) {
      const { node, begun } = path;
      const onwards = stops(node) ? [] : (jumps[node] ?? []);
      if (onwards.length === 0 || (moves[node] ?? []).length > 0) counts.set(node, (counts.get(node) ?? 0) + 1);
      const now = repeated.has(node) && !begun.includes(node) ? [...begun, node] : begun;
      for (const { to, again } of onwards) if (!again || !now.includes(to)) paths.push({ node: to, begun: now });
      steps += onwards.length;
      if (steps > MOST_PATHS) return undefined;
    }
    known.push(counts);
  }
  return (node) => known[node] as Counts;
}

const readsAny = ({ set }: Nfa["moves"][number][number]): boolean =>
  set.length === 1 && holds(set, 0) && holds(set, LAST_UNIT);

/** As behind the last word of `.*word.*`: any unit leads back there, and the end may follow. */
function isSettled({ moves, jumps, end }: Nfa, reached: (node: number) => Counts, node: number): boolean {
  const waiting = [...reached(node).keys()].filter((one) => one !== end);
  const [only] = waiting;
  if (only === undefined || waiting.length > 1) return false;
  const [move, ...others] = moves[only] ?? [];
  if (!move || others.length > 0 || !readsAny(move)) return false;
  if (keyOf(reached(move.to)) !== keyOf(reached(node))) return false;
  const seen = new Set([node]);
  for (const one of seen)
    for (const { to, only } of jumps[one] ?? []) if (only === undefined || only === "end") seen.add(to);
  return seen.has(end);
}
