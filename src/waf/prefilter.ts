/**
 * Which rules a value can matter to. One pass of the automaton over each distinct value finds every word that any rule needs, and which
 * kinds of characters the value has; so most transformations and nearly all operators need not run. What is left is asked here, each
 * pair of operator and value once.
 */
import { Automaton } from "./automaton.ts";
import type { Variable } from "./collections.ts";
import type { Operator } from "./operate.ts";
import type { PackAtom, PackTarget, RulePack } from "./pack.ts";
import { type TransformationName, transformations, triggers } from "./transformations.ts";

/** A value that a rule's first link matches on. */
export interface Hit {
  readonly target: PackTarget;
  readonly variable: Variable;
  /** Transformed. */
  readonly value: string;
}

/** What a pass over a value has found. */
interface Scan {
  readonly mask: number;
  readonly words: readonly number[];
}

/** The atoms that look at one collection, or at one member of it, in one phase. */
export interface Group {
  /** By atom: the target that reads this; undefined for atoms that do not. */
  readonly targets: readonly (PackTarget | undefined)[];
  /** Chains that are to be scanned. */
  readonly scanned: readonly number[];
  /** Bits of which a value must have one, for any of these chains to change it. */
  readonly triggers: number;
  /** Atoms that need characters, rather than a word. */
  readonly byMask: readonly number[];
  /** All bits that they need. */
  readonly needs: number;
  /** Values that no rule of the group matched on, in requests before. */
  readonly clean: Set<string>;
}

const NO_WORDS: readonly number[] = [];
/** Set for every value: of transformations that may change any. */
const ALWAYS = 1 << 30;
// Names, agents and the like come again and again; what is longer, or in a body, hardly ever does.
const MOST_CLEAN = 512;
const LONGEST_CLEAN = 256;

export class Prefilter {
  readonly #pack: RulePack;
  readonly #operators: (place: number) => Operator;
  readonly #automaton: Automaton;
  /** By chain: the bits without which it changes nothing. */
  readonly #triggers: readonly number[];
  readonly #asked: Int32Array;
  #asking = 0;
  #found: number[] = [];
  readonly #hit = (word: number): void => void this.#found.push(word);

  constructor(pack: RulePack, operators: (place: number) => Operator) {
    this.#pack = pack;
    this.#operators = operators;
    const sets = [...pack.prefilter.sets];
    const bitOf = (characters: string | undefined): number => {
      if (characters === undefined) return ALWAYS;
      let at = sets.indexOf(characters);
      if (at === -1) at = sets.push(characters) - 1;
      // A transformation without a bit of its own is never skipped.
      return at < 30 ? 1 << at : ALWAYS;
    };
    const chainTriggers: number[] = [];
    for (const { before, last } of pack.chains)
      chainTriggers.push(last === undefined ? 0 : (chainTriggers[before] as number) | bitOf(triggers[last]));
    this.#triggers = chainTriggers;
    const masks = new Int32Array(256);
    for (const [bit, characters] of sets.slice(0, 30).entries())
      for (let i = 0; i < characters.length; i++)
        masks[characters.charCodeAt(i)] = (masks[characters.charCodeAt(i)] as number) | (1 << bit);
    this.#automaton = new Automaton(pack.tables, masks);
    this.#asked = new Int32Array(pack.prefilter.atoms.length);
  }

  /** The group of these atoms, each with the target that it reads the values of. */
  group(reading: ReadonlyMap<number, PackTarget>): Group {
    const { atoms } = this.#pack.prefilter;
    const targets = atoms.map((_, atom) => reading.get(atom));
    const of = (atom: number) => atoms[atom] as PackAtom;
    const those = [...reading.keys()];
    const scanned = [...new Set(those.map((atom) => of(atom).scanned))];
    const byMask = those.filter((atom) => of(atom).mask !== 0);
    return {
      targets,
      scanned,
      triggers: scanned.reduce((all, chain) => all | (this.#triggers[chain] as number), 0),
      byMask,
      needs: byMask.reduce((all, atom) => all | of(atom).mask, 0),
      clean: new Set(),
    };
  }

  /** Whether the automaton finds one of these words. */
  readonly finds = (value: string, words: ReadonlySet<number>): boolean =>
    this.#scan(value).words.some((word) => words.has(word));

  /** Calls `found` with each atom that matches on `variable`. `recurs`: the like may come again in other requests. */
  look(group: Group, variable: Variable, recurs: boolean, found: (atom: PackAtom, hit: Hit) => void): void {
    const { value } = variable;
    if (group.clean.has(value)) return;
    this.#asking++;
    const told: { readonly rule: number; readonly text: string }[] = [];
    const ask = (atom: number, text: string | undefined, transformed: Transformed): void => {
      const target = group.targets[atom];
      if (target === undefined || this.#asked[atom] === this.#asking) return;
      const packed = this.#pack.prefilter.atoms[atom] as PackAtom;
      // The word may come from another chain's text.
      if (text !== undefined && transformed.of(packed.scanned) !== text) return;
      this.#asked[atom] = this.#asking;
      const seen = transformed.of(packed.chain);
      // With multiMatch a rule has several atoms: it is asked once about each text that comes of them.
      if (told.some(({ rule, text }) => rule === packed.rule && text === seen)) return;
      if (!this.#operators(this.#operatorOf(packed)).test(seen, noMacros)) return;
      told.push({ rule: packed.rule, text: seen });
      found(packed, { target, variable, value: seen });
    };
    const plain = this.#scan(value);
    const transformed = new Transformed(this.#pack, this.#triggers, value, plain.mask | ALWAYS);
    this.#settle(group, value, plain, transformed, ask);
    if (((plain.mask | ALWAYS) & group.triggers) !== 0) {
      const seen = [value];
      for (const chain of group.scanned) {
        const text = transformed.of(chain);
        if (seen.includes(text)) continue;
        seen.push(text);
        this.#settle(group, text, this.#scan(text), transformed, ask);
      }
    }
    if (told.length > 0 || !recurs || value.length > LONGEST_CLEAN) return;
    if (group.clean.size >= MOST_CLEAN) group.clean.clear();
    group.clean.add(value);
  }

  #settle(
    group: Group,
    text: string,
    { words, mask }: Scan,
    transformed: Transformed,
    ask: (atom: number, text: string | undefined, transformed: Transformed) => void,
  ): void {
    for (const word of words)
      for (const atom of this.#pack.prefilter.atomsOfWord[word] as readonly number[]) ask(atom, text, transformed);
    if ((mask & group.needs) === 0) return;
    for (const atom of group.byMask)
      if (((this.#pack.prefilter.atoms[atom] as PackAtom).mask & mask) !== 0) ask(atom, text, transformed);
  }

  #operatorOf({ rule }: PackAtom): number {
    return this.#pack.rules[rule]?.links[0]?.operator as number;
  }

  #scan(value: string): Scan {
    this.#found = [];
    const mask = this.#automaton.scan(value, this.#hit);
    return { mask, words: this.#found.length === 0 ? NO_WORDS : this.#found };
  }

  /** The value as a rule's operator sees it. */
  transform(chain: number, value: string): string {
    const { before, last } = this.#pack.chains[chain] as { before: number; last?: TransformationName };
    return last === undefined ? value : transformations[last](this.transform(before, value));
  }
}

/** One value in all the forms that chains give it, each made once. */
class Transformed {
  readonly #pack: RulePack;
  readonly #triggers: readonly number[];
  readonly #value: string;
  readonly #mask: number;
  #made: (string | undefined)[] | undefined;

  constructor(pack: RulePack, triggers: readonly number[], value: string, mask: number) {
    this.#pack = pack;
    this.#triggers = triggers;
    this.#value = value;
    this.#mask = mask;
  }

  of(chain: number): string {
    if (((this.#triggers[chain] as number) & this.#mask) === 0) return this.#value;
    this.#made ??= new Array(this.#pack.chains.length);
    let made = this.#made[chain];
    if (made === undefined) {
      const { before, last } = this.#pack.chains[chain] as { before: number; last?: TransformationName };
      made = last === undefined ? this.#value : transformations[last](this.of(before));
      this.#made[chain] = made;
    }
    return made;
  }
}

const noMacros = (): string => {
  throw new Error("an operator of the prefilter has no macros");
};
