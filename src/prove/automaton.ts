/**
 * Languages of texts as automata, and the shortest text that some of them have and others have not. Automata are made deterministic
 * as far as a search goes, and a search that would go too far says so: exact within limits, never wrong.
 */
import type { CodeUnits } from "./code-units.ts";
import { LAST_UNIT } from "./code-units.ts";

/** Deterministic. States are numbers of its own; `DEAD` is left by nothing and accepts nothing. */
export interface Automaton {
  readonly start: number;
  step(state: number, unit: number): number;
  accepts(state: number): boolean;
  /** What it tells apart, by any name of the set: it treats units that are in the same of these sets alike. */
  readonly sets: ReadonlyMap<string, CodeUnits>;
}

export const namedSets = (sets: readonly CodeUnits[]): ReadonlyMap<string, CodeUnits> =>
  new Map(sets.map((set) => [set.join(";"), set]));

export const DEAD = -1;

/** `search`: it would have taken too long. */
export type Word = { readonly found: string } | "empty" | "search";

/** Combined states that one search may go through. Routes that people write need some hundreds. */
const MOST_STATES = 20_000;

/** The shortest text that is in all of `within` and in none of `without`. */
export function shortestWord(
  within: readonly Automaton[],
  without: readonly Automaton[],
  budget: number = MOST_STATES,
): Word {
  const automata = [...within, ...without];
  const units = representatives([...new Map(automata.flatMap(({ sets }) => [...sets])).values()]);
  const isGoal = (states: readonly number[]) =>
    within.every((one, i) => one.accepts(states[i] as number)) &&
    without.every((one, i) => !isIn(one, states[within.length + i] as number));
  const start = automata.map((one) => one.start);
  const queue: { states: readonly number[]; unit: number; from: number }[] = [{ states: start, unit: 0, from: -1 }];
  const seen = new Set([start.join()]);
  for (let at = 0; at < queue.length; at++) {
    const { states } = queue[at] as (typeof queue)[number];
    if (isGoal(states)) return { found: spelled(queue, at) };
    for (const unit of units) {
      const next: number[] = [];
      let dead = false;
      for (let i = 0; i < automata.length && !dead; i++) {
        const state = states[i] as number;
        const stepped = state === DEAD ? DEAD : (automata[i] as Automaton).step(state, unit);
        dead = stepped === DEAD && i < within.length;
        next.push(stepped);
      }
      if (dead) continue;
      const key = next.join();
      if (seen.has(key)) continue;
      if (seen.size >= budget) return "search";
      seen.add(key);
      queue.push({ states: next, unit, from: at });
    }
  }
  return "empty";
}

const isIn = (automaton: Automaton, state: number): boolean => state !== DEAD && automaton.accepts(state);

function spelled(queue: readonly { unit: number; from: number }[], goal: number): string {
  const units: number[] = [];
  for (let at = goal; at > 0; at = queue[at]?.from as number) units.push(queue[at]?.unit as number);
  return String.fromCharCode(...units.reverse());
}

// An example is read by people: letters first, visible ASCII before all else.
const RANKS = new Map(
  [..."abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-_./"].map((character, at) => [
    character.charCodeAt(0),
    at,
  ]),
);

/** One unit for each group of units that all of the sets treat alike, readable ones first. */
export function representatives(distinct: readonly CodeUnits[]): number[] {
  // One bit for each set; where a range begins or has ended its bit turns.
  const turns = new Map<number, bigint>([[0, 0n]]);
  for (const [number, set] of distinct.entries()) {
    const bit = 1n << BigInt(number);
    for (const [first, last] of set)
      for (const edge of [first, last + 1]) if (edge <= LAST_UNIT) turns.set(edge, (turns.get(edge) ?? 0n) ^ bit);
  }
  const edges = [...turns].sort(([a], [b]) => a - b);
  const groups = new Map<bigint, number>();
  let within = 0n;
  for (const [i, [first, turned]] of edges.entries()) {
    within ^= turned;
    const unit = mostReadable(first, (edges[i + 1]?.[0] ?? LAST_UNIT + 1) - 1);
    const other = groups.get(within);
    if (other === undefined || rank(unit) < rank(other)) groups.set(within, unit);
  }
  return [...groups.values()].sort((a, b) => rank(a) - rank(b));
}

function mostReadable(first: number, last: number): number {
  let best = first;
  for (let unit = first; unit <= Math.min(last, 0x7e); unit++) if (rank(unit) < rank(best)) best = unit;
  return best;
}

const rank = (unit: number): number => RANKS.get(unit) ?? (unit > 0x20 && unit < 0x7f ? 1_000 + unit : 2_000 + unit);
