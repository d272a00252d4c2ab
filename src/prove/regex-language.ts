/**
 * The language of a JavaScript regex that matches whole values, as an automaton: what the table's regexes say of paths and values.
 * Backreferences, lookaround and word boundaries are no automata, or dear ones; of these the answer is that it is not known.
 */
import { type AST, RegExpParser } from "@eslint-community/regexpp";
import { type Automaton, DEAD, namedSets } from "./automaton.ts";
import { ANY_UNIT, type CodeUnits, complement, holds, unite, withOtherCases } from "./code-units.ts";

/** `start` and `end`: an edge that may be gone only before the first unit, or behind the last one. */
interface Nfa {
  readonly moves: { readonly set: CodeUnits; readonly to: number }[][];
  readonly jumps: { readonly to: number; readonly only?: "start" | "end" }[][];
}

// `(?:a{100}){100}` has 10,000 states; nobody reads a route like that either.
const MOST_NODES = 4_000;

class Unsupported extends Error {}

const known = new Map<string, Automaton | undefined>();

/** Of `^(?:source)$`; undefined for a regex that is none of the above. */
export function regexLanguage(source: string): Automaton | undefined {
  if (!known.has(source)) known.set(source, compile(source));
  return known.get(source);
}

function compile(source: string): Automaton | undefined {
  try {
    const pattern = new RegExpParser({ ecmaVersion: 2025 }).parsePattern(source);
    const builder = new Builder();
    const start = builder.node();
    const end = builder.alternatives(pattern.alternatives, start, { i: false, s: false });
    return new SubsetAutomaton(builder.nfa, start, end);
  } catch (error) {
    // What regexpp cannot read it throws a SyntaxError of.
    if (error instanceof Unsupported || error instanceof SyntaxError) return undefined;
    throw error;
  }
}

interface Flags {
  readonly i: boolean;
  readonly s: boolean;
}

const DIGIT: CodeUnits = [[48, 57]];
const WORD: CodeUnits = [
  [48, 57],
  [65, 90],
  [95, 95],
  [97, 122],
];
// WhiteSpace and LineTerminator (ECMA-262, 12.2 and 12.3).
const SPACE: CodeUnits = [
  [9, 13],
  [32, 32],
  [160, 160],
  [0x1680, 0x1680],
  [0x2000, 0x200a],
  [0x2028, 0x2029],
  [0x202f, 0x202f],
  [0x205f, 0x205f],
  [0x3000, 0x3000],
  [0xfeff, 0xfeff],
];
const LINE_ENDS: CodeUnits = [
  [10, 10],
  [13, 13],
  [0x2028, 0x2029],
];

class Builder {
  readonly nfa: Nfa = { moves: [], jumps: [] };

  node(): number {
    if (this.nfa.moves.length >= MOST_NODES) throw new Unsupported();
    this.nfa.jumps.push([]);
    return this.nfa.moves.push([]) - 1;
  }

  /** Each of these builds from `from` on, and gives the node where it ends. */
  alternatives(alternatives: readonly AST.Alternative[], from: number, flags: Flags): number {
    const end = this.node();
    for (const { elements } of alternatives) {
      let at = this.node();
      this.#jump(from, at);
      for (const element of elements) at = this.#element(element, at, flags);
      this.#jump(at, end);
    }
    return end;
  }

  #jump(from: number, to: number, only?: "start" | "end"): void {
    this.nfa.jumps[from]?.push({ to, ...(only && { only }) });
  }

  #move(from: number, set: CodeUnits): number {
    const to = this.node();
    this.nfa.moves[from]?.push({ set, to });
    return to;
  }

  #element(element: AST.Element, from: number, flags: Flags): number {
    switch (element.type) {
      case "Character": {
        // Beyond the BMP only regexes with u read one; these have none.
        const unit: CodeUnits = [[element.value, element.value]];
        return this.#move(from, flags.i ? withOtherCases(unit) : unit);
      }
      case "CharacterSet":
      case "CharacterClass":
        return this.#move(from, setOf(element, flags));
      case "Group":
        return this.alternatives(element.alternatives, from, flagsIn(element.modifiers, flags));
      case "CapturingGroup":
        return this.alternatives(element.alternatives, from, flags);
      case "Quantifier":
        return this.#quantifier(element, from, flags);
      case "Assertion": {
        if (element.kind !== "start" && element.kind !== "end") throw new Unsupported();
        const to = this.node();
        this.#jump(from, to, element.kind);
        return to;
      }
      default:
        throw new Unsupported();
    }
  }

  #quantifier({ element, min, max }: AST.Quantifier, from: number, flags: Flags): number {
    let at = from;
    for (let i = 0; i < min; i++) at = this.#element(element, at, flags);
    const end = this.node();
    if (max === Number.POSITIVE_INFINITY) {
      const loop = this.node();
      this.#jump(at, loop);
      this.#jump(this.#element(element, loop, flags), loop);
      this.#jump(loop, end);
      return end;
    }
    for (let i = min; i < max; i++) {
      this.#jump(at, end);
      at = this.#element(element, at, flags);
    }
    this.#jump(at, end);
    return end;
  }
}

function flagsIn(modifiers: AST.Modifiers | null, flags: Flags): Flags {
  if (!modifiers) return flags;
  const { add, remove } = modifiers;
  if (add?.multiline) throw new Unsupported();
  return {
    i: (flags.i || add.ignoreCase) && !remove?.ignoreCase,
    s: (flags.s || add.dotAll) && !remove?.dotAll,
  };
}

function setOf(element: AST.CharacterClassElement | AST.CharacterSet | AST.CharacterClass, flags: Flags): CodeUnits {
  switch (element.type) {
    case "Character": {
      const unit: CodeUnits = [[element.value, element.value]];
      return flags.i ? withOtherCases(unit) : unit;
    }
    case "CharacterClassRange": {
      const range: CodeUnits = [[element.min.value, element.max.value]];
      return flags.i ? withOtherCases(range) : range;
    }
    case "CharacterClass": {
      const united = unite(...element.elements.map((one) => setOf(one as AST.CharacterClassElement, flags)));
      return element.negate ? complement(united) : united;
    }
    case "CharacterSet": {
      if (element.kind === "any") return flags.s ? ANY_UNIT : complement(LINE_ENDS);
      if (element.kind === "property") throw new Unsupported();
      const set = { digit: DIGIT, word: WORD, space: SPACE }[element.kind];
      const closed = flags.i ? withOtherCases(set) : set;
      // `\W` under i is what no unit of `\w` is equal to, within a class; `[^\w]` the same.
      if (!element.negate) return closed;
      return flags.i ? withOtherCases(complement(set)) : complement(set);
    }
    default:
      throw new Unsupported();
  }
}

/** The subset construction (Rabin and Scott, 1959), as far as it is asked for. */
class SubsetAutomaton implements Automaton {
  readonly start: number;
  readonly sets: ReadonlyMap<string, CodeUnits>;
  readonly #nfa: Nfa;
  readonly #end: number;
  readonly #subsets: number[][] = [];
  readonly #accepting: boolean[] = [];
  readonly #numbers = new Map<string, number>();
  readonly #steps: Map<number, number>[] = [];

  constructor(nfa: Nfa, start: number, end: number) {
    this.#nfa = nfa;
    this.#end = end;
    this.sets = namedSets(nfa.moves.flat().map(({ set }) => set));
    // Under no key: a later state of the same nodes is another one, since it cannot go where `^` is.
    this.start = this.#add(this.#closed([start], "start"), "both");
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
    this.#accepting.push(this.#closed(subset, last).includes(this.#end));
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
