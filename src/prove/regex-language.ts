/**
 * The language of a JavaScript regex that matches whole values, as an automaton: what the table's regexes say of paths and values.
 * Backreferences, lookaround and word boundaries are no automata, or dear ones; of these the answer is that it is not known.
 */
import { type Automaton, DEAD, namedSets } from "./automaton.ts";
import { type CodeUnits, holds } from "./code-units.ts";
import { type Nfa, regexNfa } from "./regex-nfa.ts";

const known = new Map<string, Automaton | undefined>();

/** Of `^(?:source)$`; undefined for a regex that is none of the above. */
export function regexLanguage(source: string): Automaton | undefined {
  if (!known.has(source)) {
    const nfa = regexNfa(source);
    const looksAround = nfa?.jumps.some((jumps) => jumps.some(({ only }) => only === "word" || only === "look"));
    known.set(source, nfa && !looksAround ? new SubsetAutomaton(nfa) : undefined);
  }
  return known.get(source);
}

/** The subset construction (Rabin and Scott, 1959), as far as it is asked for. */
class SubsetAutomaton implements Automaton {
  readonly start: number;
  readonly sets: ReadonlyMap<string, CodeUnits>;
  readonly #nfa: Nfa;
  readonly #subsets: number[][] = [];
  readonly #accepting: boolean[] = [];
  readonly #numbers = new Map<string, number>();
  readonly #steps: Map<number, number>[] = [];

  constructor(nfa: Nfa) {
    this.#nfa = nfa;
    this.sets = namedSets(nfa.moves.flat().map(({ set }) => set));
    // Under no key: a later state of the same nodes is another one, since it cannot go where `^` is.
    this.start = this.#add(this.#closed([nfa.start], "start"), "both");
  }

  step(state: number, unit: number): number {
    const steps = this.#steps[state] as Map<number, number>;
    let next = steps.get(unit);
    if (next === undefined) {
      const reached: number[] = [];
      for (const node of this.#subsets[state] as number[])
        for (const { set, to } of this.#nfa.moves[node] ?? []) if (holds(set, unit)) reached.push(to);
      next = reached.length === 0 ? DEAD : this.#number(this.#closed(reached));
      steps.set(unit, next);
    }
    return next;
  }

  accepts(state: number): boolean {
    return this.#accepting[state] === true;
  }

  #number(subset: number[]): number {
    const key = subset.join();
    let number = this.#numbers.get(key);
    if (number === undefined) {
      number = this.#add(subset, "end");
      this.#numbers.set(key, number);
    }
    return number;
  }

  #add(subset: number[], last: "end" | "both"): number {
    this.#steps.push(new Map());
    this.#accepting.push(this.#closed(subset, last).includes(this.#nfa.end));
    return this.#subsets.push(subset) - 1;
  }

  /** Sorted. */
  #closed(nodes: readonly number[], where?: "start" | "end" | "both"): number[] {
    const all = new Set(nodes);
    for (const node of all) {
      for (const { to, only } of this.#nfa.jumps[node] ?? [])
        if (only === undefined || only === where || where === "both") all.add(to);
    }
    return [...all].sort((a, b) => a - b);
  }
}
