/**
 * The few words that tell best whether a regex can match: every match holds one of them, and often one of a second lot as well. Beside
 * regex-literals.ts, which finds words that rule out the most, for packs that may be large, this finds such that are both rare and few,
 * for one that must be small: a quotation mark in place of fifty words that begin with it.
 */
import { lowerCase } from "./regex-literals.ts";
import type { RegexNode } from "./regex-syntax.ts";

/** What the automaton has states for (automaton.ts): a longer word would be compared byte by byte. */
const LONGEST = 7;
const MOST_EXACT = 40;
const MOST_IN_SET = 12;
const MOST_RARE_IN_SET = 40;
/** Beyond this it costs less to ask the regex about every value that it looks at, and a second lot pays only where it is cheap. */
const MOST_COST = 320;
const MOST_SECOND_COST = 40;

/**
 * How often a byte stands in ordinary values, roughly: from 200 for what is in every path and address down to 2 for what is hardly in any.
 * A word of two bytes is as frequent as its rarer one divided by 4, and so on.
 */
const RARE = 2;
const LETTER = 60;
const FREQUENT: Readonly<Record<string, number>> = {
  "": LETTER,
  " ": 60,
  "/": 200,
  ".": 100,
  "-": 100,
  _: 60,
  ":": 60,
  ",": 60,
  "=": 30,
  "&": 20,
  "?": 20,
  ";": 12,
  "(": 10,
  ")": 10,
  "+": 10,
  "'": 6,
  "@": 6,
};
const isLetter = (character: string): boolean =>
  (character >= "a" && character <= "z") || (character >= "0" && character <= "9");
const frequencyOf = (character: string): number => FREQUENT[character] ?? (isLetter(character) ? LETTER : RARE);

/**
 * A place in the tables. Tried for the rules of filter: with 2 in place of 4 their pack is 1 kB of gzip larger, with 6 more values of
 * ordinary requests have a word than pays.
 */
const PLACE = 4;
const PLACE_OF_BYTE = 0.3;
/** Words of a language are in values however long they are. */
const LEAST_OF_LANGUAGE = 2;
const costs = new Map<string, number>();

/** What a word costs: to ask each time it is found, and a place in the tables. */
function costOf(word: string): number {
  let cost = costs.get(word);
  if (cost === undefined) {
    const found = Math.min(...Array.from(word, frequencyOf)) / 4 ** (word.length - 1);
    const asked = Math.max(found, /^[a-z]+$/.test(word) ? LEAST_OF_LANGUAGE : 0);
    cost = asked + PLACE + PLACE_OF_BYTE * word.length;
    costs.set(word, cost);
  }
  return cost;
}

interface Cover {
  readonly words: ReadonlySet<string>;
  readonly cost: number;
}

/** What is known of a node: all its matches exactly, where they are few; a cover of words; and one of single bytes. */
interface Known {
  readonly exact?: readonly string[];
  readonly best?: Cover | undefined;
  readonly bytes?: Cover | undefined;
}

/** Clauses of words in lower case, of each of which every match holds one; none: none is worth it, and any value might match. */
export function tellingWords(node: RegexNode): readonly (readonly string[])[] {
  const { best } = new Explorer([]).explore(node);
  if (!best || best.cost > MOST_COST) return [];
  const words = withoutSuperwords(best.words);
  const { best: second } = new Explorer(words).explore(node);
  return second && second.cost <= MOST_SECOND_COST ? [words, withoutSuperwords(second.words)] : [words];
}

class Explorer {
  /** Words that are asked for already: what holds them, or is in them, says nothing new. */
  readonly #taken: readonly string[];

  constructor(taken: readonly string[]) {
    this.#taken = taken;
  }

  explore(node: RegexNode): Known {
    switch (node.type) {
      case "set": {
        const letters = new Set(node.set.bytes().map((byte) => lowerCase(String.fromCharCode(byte))));
        const rare = [...letters].every((letter) => frequencyOf(letter) === RARE);
        return letters.size > (rare ? MOST_RARE_IN_SET : MOST_IN_SET) ? {} : this.#known([...letters]);
      }
      case "sequence":
        return this.#sequence(node.nodes);
      case "either":
        return this.#either(node.nodes.map((each) => this.explore(each)));
      case "repeat": {
        if (node.max === 0) return this.#known([""]);
        const inner = this.explore(node.node);
        if (node.min === 1 && node.max === 1) return inner;
        if (node.min > 1) {
          const { best, bytes } = this.#sequence(new Array(Math.min(node.min, LONGEST)).fill(node.node));
          return { best, bytes };
        }
        if (node.min === 1) return { best: inner.best, bytes: inner.bytes };
        return node.max === 1 && inner.exact ? this.#known([...inner.exact, ""]) : {};
      }
      case "group":
      case "atomic":
        return this.explore(node.node);
      case "assertion":
      case "look":
        return this.#known([""]);
      case "backreference":
        return {};
    }
  }

  #known(exact: readonly string[]): Known {
    return { exact, ...this.#coversOf(exact) };
  }

  /** Runs of what is known exactly, their beginnings, and what stands between them: each match holds a word of the cheapest. */
  #sequence(nodes: readonly RegexNode[]): Known {
    let best: Cover | undefined;
    let bytes: Cover | undefined;
    const consider = (one: Known) => {
      best = cheaper(best, one.best);
      bytes = cheaper(bytes, one.bytes);
    };
    let run: readonly string[] = [""];
    let whole = true;
    for (const node of nodes) {
      const one = this.explore(node);
      consider(one);
      const product = one.exact && run.flatMap((start) => (one.exact ?? []).map((end) => start + end));
      if (product && product.length <= MOST_EXACT) {
        run = product;
      } else {
        run = one.exact ?? [""];
        whole = false;
      }
      consider(this.#coversOf(run));
    }
    return { ...(whole && { exact: run }), best, bytes };
  }

  #either(all: readonly Known[]): Known {
    const exact = all.flatMap((one) => one.exact ?? []);
    const bytes = together(all.map((one) => one.bytes));
    const best = cheaper(together(all.map((one) => one.best)), bytes);
    if (!all.every((one) => one.exact) || exact.length > MOST_EXACT) return { best, bytes };
    const covers = this.#coversOf(exact);
    return { exact, best: cheaper(best, covers.best), bytes: cheaper(bytes, covers.bytes) };
  }

  #coversOf(exact: readonly string[]): Pick<Known, "best" | "bytes"> {
    const words = exact.map((word) => word.slice(0, LONGEST));
    const rarest = exact.map((word) =>
      Array.from(word).reduce((one, other) => (frequencyOf(other) < frequencyOf(one) ? other : one), ""),
    );
    const bytes = this.#cover(rarest);
    return { bytes, best: cheaper(this.#cover(words), bytes) };
  }

  #cover(words: readonly string[]): Cover | undefined {
    const says = (word: string) =>
      !/^ *$/.test(word) && !this.#taken.some((taken) => word.includes(taken) || taken.includes(word));
    return words.every(says) ? coverOf(words) : undefined;
  }
}

function coverOf(words: Iterable<string>): Cover {
  const distinct = new Set(withoutSuperwords(words));
  return { words: distinct, cost: [...distinct].reduce((sum, word) => sum + costOf(word), 0) };
}

/** Of alternatives: undefined where one of them has none. */
const together = (covers: readonly (Cover | undefined)[]): Cover | undefined =>
  covers.every((one) => one !== undefined) ? coverOf(covers.flatMap(({ words }) => [...words])) : undefined;

const cheaper = (one: Cover | undefined, other: Cover | undefined): Cover | undefined =>
  one && other ? (other.cost < one.cost ? other : one) : (one ?? other);

/** A word that holds another one adds nothing: the other is found wherever it is. */
function withoutSuperwords(words: Iterable<string>): string[] {
  const kept: string[] = [];
  for (const word of [...new Set(words)].sort((a, b) => a.length - b.length || (a < b ? -1 : 1)))
    if (!kept.some((shorter) => word.includes(shorter))) kept.push(word);
  return kept;
}
