/**
 * What the engine's prefilter (src/waf/prefilter.ts) is told of each rule: which words and which kinds of characters a value must have
 * for the rule's first link to match on it.
 */
import type { PackAtom, PackLink, PackOperator, PackPrefilter, PackTarget } from "../waf/pack.ts";
import type { Phase } from "../waf/request.ts";
import type { TransformationName } from "../waf/transformations.ts";
import type { CompiledOperator, Needs } from "./compile-operator.ts";
import { RULE_COLLECTIONS } from "./fold.ts";
import { UNUSUAL } from "./regex-literals.ts";

export type OperatorNeeds = Pick<CompiledOperator, "needs" | "plainNeeds" | "orNeeds">;

export class Atoms {
  /** The place of a chain of transformations in the pack. */
  readonly #chain: (names: readonly TransformationName[]) => number;
  readonly #words = new Map<string, number>();
  readonly #clausesOfWord: number[][] = [];
  readonly #sets: string[] = [];
  readonly #atoms: PackAtom[] = [];
  /** Sets of characters that count where another rule has a bit for them anyway. */
  readonly #besideWords: { readonly characters: string; readonly masks: number[] }[] = [];

  constructor(chain: (names: readonly TransformationName[]) => number) {
    this.#chain = chain;
  }

  /** A word's number among those that the automaton finds. */
  word(word: string): number {
    let number = this.#words.get(word);
    if (number === undefined) {
      number = this.#words.size;
      this.#words.set(word, number);
      this.#clausesOfWord.push([]);
    }
    return number;
  }

  finished(): { readonly prefilter: PackPrefilter; readonly words: readonly string[] } {
    for (const { characters, masks } of this.#besideWords) {
      const at = this.#sets.indexOf(characters);
      if (at !== -1) masks.push(1 << at);
    }
    return {
      prefilter: { clausesOfWord: this.#clausesOfWord, sets: this.#sets, atoms: this.#atoms },
      words: [...this.#words.keys()],
    };
  }

  /** The atoms of a rule whose first link reads the request or the response alone, with an operator whose argument is known. */
  add(
    rule: number,
    phase: Phase,
    link: PackLink,
    names: readonly TransformationName[],
    operator: PackOperator,
    { guard, orNeeds, ...needs }: OperatorNeeds & { readonly guard?: number },
  ): void {
    if (link.targets.length === 0 || ("argument" in operator && typeof operator.argument !== "string")) return;
    const settled = ({ collection, count }: PackTarget) =>
      !count &&
      !RULE_COLLECTIONS.has(collection) &&
      !collection.startsWith("MATCHED_") &&
      // In phase 1 rules may still choose it.
      !(phase === 1 && collection === "REQBODY_PROCESSOR");
    if (!link.targets.every(settled)) return;
    const conditions = link.negated
      ? []
      : [...this.#conditions(needs), ...(orNeeds ? this.#conditions({ needs: orNeeds }) : [])];
    if (conditions.length === 0) conditions.push({ clauses: [], masks: [] });
    const chains = link.multiMatch ? [[], ...names.map((_, i) => names.slice(0, i + 1))] : [names];
    for (const chain of chains) {
      for (const { clauses, masks } of conditions) {
        const least = Math.max(1, ...clauses.map((clause) => Math.min(...clause.map(({ length }) => length))));
        const atom = this.#atoms.push({
          rule,
          chain: this.#chain(chain),
          scanned: this.#chain(scannedOf(chain)),
          clauses: clauses.length,
          masks,
          ...(least > 1 && { least }),
          ...(guard !== undefined && { guard }),
          ...(operator.op === "pm" && !operator.long && clauses.length > 0 && { certain: true as const }),
        });
        for (const [number, clause] of clauses.entries())
          for (const word of clause) this.#clausesOfWord[this.word(word)]?.push(4 * (atom - 1) + number);
      }
    }
  }

  /**
   * One of these a value fulfils that the operator matches on. Where what all values need tells little, as with most rules against
   * commands in disguise, plain values and those with an unusual byte are told apart.
   */
  #conditions({ needs, plainNeeds }: Pick<CompiledOperator, "needs" | "plainNeeds">): Condition[] {
    const isWeak = (needs ?? []).every((clause) => {
      const characters = charactersOf(clause);
      return characters === undefined ? clause.some(({ length }) => length < 3) : isCommon(characters);
    });
    const tellsMore = plainNeeds?.some((clause) => clause.every(({ length }) => length > 1));
    const unusual = isWeak && tellsMore ? this.#bit(UNUSUAL.join("")) : undefined;
    if (unusual === undefined || !plainNeeds) return needs ? [this.#condition(needs)] : [];
    const rare = (needs ?? []).filter((clause) => !clause.some((word) => /^[a-z0-9]$/.test(word)));
    const { clauses, masks } = this.#condition(rare);
    const ofUnusual = { clauses, masks: [unusual, ...masks] };
    return plainNeeds.some(({ length }) => length === 0) ? [ofUnusual] : [ofUnusual, this.#condition(plainNeeds)];
  }

  #condition(needs: Needs): Condition {
    const telling = needs.find((clause) => clause.every(({ length }) => length > 2));
    // Beside one that tells much, those with a word in nearly every value, or with very many, cost more than they rule out.
    const tooCommon = (clause: readonly string[]) =>
      telling !== undefined &&
      clause !== telling &&
      (clause.length > MOST_WORDS_BESIDE || clause.some(({ length }) => length === 1));
    const clauses = needs
      .filter((clause) => charactersOf(clause) === undefined && !tooCommon(clause))
      .slice(0, MOST_CLAUSES);
    const masks: number[] = [];
    for (const clause of needs) {
      const characters = charactersOf(clause);
      if (characters === undefined || isCommon(characters)) continue;
      // A word of some length is rare enough by itself, and bits are few.
      if (telling) this.#besideWords.push({ characters, masks });
      else {
        const bit = this.#bit(characters);
        if (bit !== undefined) masks.push(bit);
        else if (clauses.length < MOST_CLAUSES) clauses.push(clause);
      }
    }
    return { clauses, masks };
  }

  /** Undefined: there is none left. */
  #bit(characters: string): number | undefined {
    let at = this.#sets.indexOf(characters);
    if (at === -1 && this.#sets.length < MOST_SETS) at = this.#sets.push(characters) - 1;
    return at === -1 ? undefined : 1 << at;
  }
}

const MOST_SETS = 32;
const MOST_WORDS_BESIDE = 400;
const MOST_CLAUSES = 4;

/** Of a clause of single characters: all of them, in both cases. */
function charactersOf(clause: readonly string[]): string | undefined {
  if (clause.some(({ length }) => length > 1)) return undefined;
  const both = clause.flatMap((character) => [
    character,
    /[a-z]/.test(character) ? character.toUpperCase() : character,
  ]);
  return [...new Set(both)].sort().join("");
}

/** Nearly every value has a letter or digit of several, so that to ask for one rules hardly any out. */
const isCommon = (characters: string): boolean =>
  characters.length > 3 && characters.length < 200 && /[a-z0-9]/.test(characters);

/** What one atom asks for: a word of each clause, and for each mask a character of its bits. */
interface Condition {
  readonly clauses: readonly (readonly string[])[];
  readonly masks: readonly number[];
}

const CASE = new Set<TransformationName>(["lowercase", "uppercase"]);
/** What they do is the same whatever the letters' case is. */
const CASELESS = new Set<TransformationName>([
  "removeNulls",
  "removeWhitespace",
  "compressWhitespace",
  "replaceNulls",
  "trim",
  "replaceComments",
]);

/** Words are found in any case, so what changes nothing else need not be done before they are looked for. */
function scannedOf(names: readonly TransformationName[]): readonly TransformationName[] {
  return names.filter(
    (name, i) => !CASE.has(name) || names.slice(i + 1).some((later) => !CASE.has(later) && !CASELESS.has(later)),
  );
}
