/**
 * A pack whose rules stand each for itself: one link, no actions, no order. Of a transaction, which carries out rules one after the
 * other, nothing is needed then: whoever has the values looks at them, and the prefilter tells which rules match. Brings along only the
 * operators and transformations that it is given.
 */
import type { Operator } from "./operate.ts";
import type { PackAtom, PackOperator, RulePack } from "./pack.ts";
import { type Group, Prefilter } from "./prefilter.ts";
import { RecentValues } from "./recent-values.ts";
import type { Transformations } from "./transformations.ts";

/** The rules that read one variable. */
export interface Reading {
  readonly group: Group;
  /** Its values are remembered, as the like of them comes again in other requests. */
  readonly recurs: boolean;
}

/** For what hardly comes again: to scan a short value takes less time than to look it up (20 and 100 ns for 20 bytes). */
class NoValues extends RecentValues {
  override has(): boolean {
    return false;
  }
  override add(): void {}
}

export class SingleRules {
  readonly pack: RulePack;
  readonly #prefilter: Prefilter;
  readonly #operators: (Operator | undefined)[] = [];
  #found: (rule: number) => void = () => {};
  readonly #tell = ({ rule }: PackAtom): void => this.#found(rule);

  /** @param operatorOf makes those operators that the pack has */
  constructor(pack: RulePack, operatorOf: (packed: PackOperator) => Operator, transformations: Transformations) {
    this.pack = pack;
    const operator = (place: number) =>
      (this.#operators[place] ??= operatorOf(pack.operators[place] as PackOperator));
    this.#prefilter = new Prefilter(pack, operator, transformations);
  }

  /** @param key of the member, in lower case; "" for a collection of one, or any other member */
  reading(collection: string, key: string, recurs: boolean): Reading {
    const { rules, prefilter } = this.pack;
    const targets = prefilter.atoms.flatMap(({ rule }, atom) => {
      const target = rules[rule]?.links[0]?.targets.find(
        ({ collection: own, name = key, except = [] }) =>
          own === collection && name === key && !except.some((one) => "name" in one && one.name === key),
      );
      return target ? [[atom, target] as const] : [];
    });
    return { group: { ...this.#prefilter.group(new Map(targets)), cleanNow: new NoValues() }, recurs };
  }

  /** Calls `found` with the place in the pack of each rule that matches `value`, a string of bytes. */
  look({ group, recurs }: Reading, value: string, found: (rule: number) => void): void {
    this.#found = found;
    this.#prefilter.look(group, { key: "", name: "", value }, recurs, this.#tell);
  }
}
