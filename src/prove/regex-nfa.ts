/**
 * A JavaScript regex as a nondeterministic automaton in Thompson's form: a copy of a part for each of its counted repetitions, a node
 * for each place between two units. What looks around is a branch that leads nowhere, beside a jump past it. Backreferences, and looking
 * back at more than a few units, are beyond it.
 */
import { type AST, RegExpParser } from "@eslint-community/regexpp";
import { ANY_UNIT, type CodeUnits, complement, unite, withOtherCases } from "./code-units.ts";

export interface Nfa {
  readonly start: number;
  readonly end: number;
  /** By node, those that read a unit. */
  readonly moves: readonly (readonly { readonly set: CodeUnits; readonly to: number }[])[];
  /** By node, those that read nothing. */
  readonly jumps: readonly (readonly Jump[])[];
}

/**
 * `only`: it may be gone only before the first unit, behind the last one, where a word begins or ends, or where none does, or where what
 * is ahead or behind is as asked. `again`: from the end of what is repeated to the next repetition.
 */
export interface Jump {
  readonly to: number;
  readonly only?: "start" | "end" | "word" | "look";
  readonly again?: true;
}

export interface RegexFlags {
  readonly i: boolean;
  readonly s: boolean;
}

// `(?:a{100}){100}` has 10,000 states; nobody reads a route like that either.
const MOST_NODES = 4_000;

class Unsupported extends Error {}

/** Of `source`, read without u and v; undefined where it has what no automaton has, or too much. */
export function regexNfa(source: string, flags: RegexFlags = { i: false, s: false }): Nfa | undefined {
  try {
    const pattern = new RegExpParser({ ecmaVersion: 2025 }).parsePattern(source);
    const builder = new Builder();
    const start = builder.node();
    const end = builder.alternatives(pattern.alternatives, start, flags);
    return { start, end, moves: builder.moves, jumps: builder.jumps };
  } catch (error) {
    // What regexpp cannot read it throws a SyntaxError of.
    if (error instanceof Unsupported || error instanceof SyntaxError) return undefined;
    throw error;
  }
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
  readonly moves: { set: CodeUnits; to: number }[][] = [];
  readonly jumps: Jump[][] = [];

  node(): number {
    if (this.moves.length >= MOST_NODES) throw new Unsupported();
    this.jumps.push([]);
    return this.moves.push([]) - 1;
  }

  /** Each of these builds from `from` on, and gives the node where it ends. */
  alternatives(alternatives: readonly AST.Alternative[], from: number, flags: RegexFlags): number {
    const end = this.node();
    for (const { elements } of alternatives) {
      let at = this.node();
      this.#jump(from, at);
      for (const element of elements) at = this.#element(element, at, flags);
      this.#jump(at, end);
    }
    return end;
  }

  #jump(from: number, to: number, only?: Jump["only"]): void {
    this.jumps[from]?.push({ to, ...(only && { only }) });
  }

  #move(from: number, set: CodeUnits): number {
    const to = this.node();
    this.moves[from]?.push({ set, to });
    return to;
  }

  #element(element: AST.Element, from: number, flags: RegexFlags): number {
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
        const to = this.node();
        if (element.kind === "lookahead") this.alternatives(element.alternatives, from, flags);
        // Read from its end, which nodes do not tell: as many ways as it has units, each of which is tried once.
        else if (element.kind === "lookbehind")
          for (let i = unitsOf(element); i > 0; i--) this.#jump(from, this.node());
        this.#jump(
          from,
          to,
          element.kind === "start" || element.kind === "end" || element.kind === "word" ? element.kind : "look",
        );
        return to;
      }
      default:
        throw new Unsupported();
    }
  }

  #quantifier({ element, min, max }: AST.Quantifier, from: number, flags: RegexFlags): number {
    let at = from;
    for (let i = 0; i < min; i++) at = this.#element(element, at, flags);
    const end = this.node();
    if (max === Number.POSITIVE_INFINITY) {
      const loop = this.node();
      this.#jump(at, loop);
      this.jumps[this.#element(element, loop, flags)]?.push({ to: loop, again: true });
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

/** Of alternatives of units alone. */
function unitsOf({ alternatives }: AST.LookbehindAssertion): number {
  const units = alternatives.flatMap(({ elements }) => elements);
  if (units.some(({ type }) => type !== "Character" && type !== "CharacterSet" && type !== "CharacterClass"))
    throw new Unsupported();
  return units.length;
}

function flagsIn(modifiers: AST.Modifiers | null, flags: RegexFlags): RegexFlags {
  if (!modifiers) return flags;
  const { add, remove } = modifiers;
  if (add?.multiline) throw new Unsupported();
  return {
    i: (flags.i || add.ignoreCase) && !remove?.ignoreCase,
    s: (flags.s || add.dotAll) && !remove?.dotAll,
  };
}

function setOf(
  element: AST.CharacterClassElement | AST.CharacterSet | AST.CharacterClass,
  flags: RegexFlags,
): CodeUnits {
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
