/**
 * A pack whose rules stand each for itself: one link, no actions, no order. Of a transaction, which carries out rules one after the
 * other, nothing is needed then: whoever has the values looks at them, and the prefilter tells which rules match. Brings along only the
 * operators and transformations that it is given.
 */
import type { Operator } from "./operate.ts";
import type { PackOperator, PackTarget, RulePack } from "./pack.ts";
import { type Found, type Group, Prefilter } from "./prefilter.ts";
import { RecentValues } from "./recent-values.ts";
import type { TransformationName, Transformations } from "./transformations.ts";

/** The rules that read one variable. */
export type Reading = Group;

/** For what hardly comes again: to scan a short value takes less time than to look it up (20 and 100 ns for 20 bytes). */
class NoValues extends RecentValues<readonly Found[]> {
  override get(): undefined {
    return undefined;
  }
  override set(): void {}
}

export class SingleRules {
  readonly pack: RulePack;
  readonly #prefilter: Prefilter;
  readonly #operators: (Operator | undefined)[] = [];
  readonly #transformations: Transformations;

  /** @param operatorOf makes those operators that the pack has */
  constructor(pack: RulePack, operatorOf: (packed: PackOperator) => Operator, transformations: Transformations) {
    this.pack = pack;
    this.#transformations = transformations;
    const operator = (place: number) => (this.#operators[place] ??= operatorOf(pack.operators[place] as PackOperator));
    this.#prefilter = new Prefilter(pack, operator, transformations);
  }

  /**
   * The rules that read `variable`: the members of a collection, or the one that it names.
   * @param recurs what is found in its values is remembered, as the like of them comes again in other requests
   */
  reading(variable: PackTarget, recurs: boolean): Reading {
    const { rules, prefilter } = this.pack;
    const targets = prefilter.atoms.flatMap(({ rule }, atom) => {
      const those = rules[rule]?.links[0]?.targets.filter((target) => reads(target, variable));
      return those && those.length > 0 ? [[atom, those] as const] : [];
    });
    const group = this.#prefilter.group(new Map(targets));
    return recurs ? group : { ...group, seen: new NoValues(() => 0) };
  }

  /**
   * Whether a value may match a rule that reads one of `variables`, or is more than its text, as it has one of `escapes`: one pass, which
   * makes nothing and dismisses most values. It may be asked of what is yet to be taken apart, too, about all its parts that end at
   * `separators` and hold none.
   */
  gates(variables: readonly PackTarget[], ways: readonly { separators: string; escapes: string }[]): Gate[] {
    const { rules, prefilter, chains } = this.pack;
    const telling = new Set<string>();
    // That a rule has to be asked about every value.
    let always = false;
    const atoms = prefilter.atoms.map(({ rule, masks: [mask], clauses, chain }) => {
      const targets = rules[rule]?.links[0]?.targets ?? [];
      if (!targets.some((target) => variables.some((one) => reads(target, one)))) return NOT_ASKED;
      if (mask === undefined && clauses === 0) always = true;
      for (let at = chain; at !== 0; at = chains[at]?.before ?? 0) {
        const trigger = this.#transformations.triggers[chains[at]?.last as TransformationName];
        if (trigger === undefined) always = true;
        // Words are found in any case.
        for (const character of trigger ?? "") if (!/[A-Z]/.test(character)) telling.add(character);
      }
      // One thing that it needs is enough.
      if (mask === undefined) return BY_WORDS;
      for (const character of prefilter.sets[31 - Math.clz32(mask)] as string) telling.add(character);
      return BY_CHARACTERS;
    });
    if (always) return ways.map(() => () => true);
    const detector = this.#prefilter.detector(
      prefilter.clausesOfWord.map((clauses) =>
        clauses.some((clause) => (clause & 3) === 0 && atoms[clause >> 2] === BY_WORDS),
      ),
    );
    return ways.map(({ separators, escapes }) => {
      const classes = detector.classes([...telling, escapes].join(""), separators);
      return (text) => detector.test(text, classes);
    });
  }

  /** What matches on `value`, a string of bytes; by the rules' places in the pack. */
  look(reading: Reading, value: string): readonly Found[] {
    // As to what is remembered, all values are alike: a request is no unit here.
    return this.#prefilter.look(reading, value, true);
  }
}

/** False: nothing in the text can match. */
export type Gate = (text: string) => boolean;

const NOT_ASKED = 0;
const BY_WORDS = 1;
const BY_CHARACTERS = 2;

/** Whether the target reads the variable: all members of a collection, but for those that it excepts, or the one that it names. */
function reads({ collection, name, except = [] }: PackTarget, variable: PackTarget): boolean {
  if (collection !== variable.collection) return false;
  if (name !== undefined) return name === variable.name;
  return !except.some((one) => "name" in one && one.name === variable.name);
}
