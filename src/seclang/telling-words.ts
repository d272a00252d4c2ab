/**
 * The few words that tell best whether a regex can match: every match holds one of them. Beside regex-literals.ts, which finds words
 * that rule out the most, for packs that may be large, this finds such that are both rare and few, for one that must be small: a
 * quotation mark in place of fifty words that begin with it.
 */
import { lowerCase } from "./regex-literals.ts";
import type { RegexNode } from "./regex-syntax.ts";

/** The automaton compares no more than this anyway before it calls a word found to be worth asking about. */
const LONGEST = 7;
const MOST_EXACT = 40;
const MOST_IN_SET = 12;
const MOST_RARE_IN_SET = 40;
/** Beyond this it costs less to ask the regex about every value, which are those that it looks at alone. */
const MOST_COST = 120;

/**
 * How often a byte stands in ordinary values, roughly: what is in most words and addresses 60 down to what is hardly in any 2. A word of
 * two bytes is as frequent as its rarer one divided by 4, and so on.
 */
const RARE = 2;
const FREQUENT: Readonly<Record<string, number>> = {
  " ": 60,
  "/": 30,
  ".": 30,
  "-": 30,
  _: 20,
  ":": 15,
  ",": 12,
  ";": 12,
  "=": 12,
  "(": 10,
  ")": 10,
  "+": 10,
  "&": 8,
  "'": 6,
  "@": 6,
};
const frequencyOf = (character: string): number => (/[a-z0-9]/.test(character) ? 60 : (FREQUENT[character] ?? RARE));

/** What a word costs: to ask each time it is found, and a place in the tables. */
const costOf = (word: string): number =>
  Math.min(...Array.from(word, frequencyOf)) / 4 ** (word.length - 1) + 1 + 0.3 * word.length;

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

/** In lower case; undefined: no words that are worth it, so that any value might match. */
export function tellingWords(node: RegexNode): readonly string[] | undefined {
  const { best } = explore(node);
  return best && best.cost <= MOST_COST ? withoutSuperwords(best.words) : undefined;
}

function explore(node: RegexNode): Known {
  switch (node.type) {
    case "set": {
      const letters = new Set(node.set.bytes().map((byte) => lowerCase(String.fromCharCode(byte))));
      const rare = [...letters].every((letter) => frequencyOf(letter) === RARE);
      return letters.size > (rare ? MOST_RARE_IN_SET : MOST_IN_SET) ? {} : known([...letters]);
    }
    case "sequence":
      return exploreSequence(node.nodes);
    case "either":
      return exploreEither(node.nodes.map(explore));
    case "repeat": {
      const inner = explore(node.node);
      if (node.max === 0) return known([""]);
      if (node.min === 1 && node.max === 1) return inner;
      if (node.min > 1) {
        const { best, bytes } = exploreSequence(new Array(Math.min(node.min, LONGEST)).fill(node.node));
        return { best, bytes };
      }
      if (node.min === 1) return { best: inner.best, bytes: inner.bytes };
      return node.max === 1 && inner.exact ? known([...inner.exact, ""]) : {};
    }
    case "group":
    case "atomic":
      return explore(node.node);
    case "assertion":
    case "look":
      return known([""]);
    case "backreference":
      return {};
  }
}

const known = (exact: readonly string[]): Known => ({ exact, ...coversOf(exact) });

/** Runs of what is known exactly, and what stands between them: each match holds a word of the cheapest. */
function exploreSequence(nodes: readonly RegexNode[]): Known {
  let best: Cover | undefined;
  let bytes: Cover | undefined;
  const consider = (one: Known) => {
    best = cheaper(best, one.best);
    bytes = cheaper(bytes, one.bytes);
  };
  let run: readonly string[] = [""];
  let whole = true;
  for (const node of nodes) {
    const one = explore(node);
    consider(one);
    const product = one.exact && run.flatMap((start) => (one.exact ?? []).map((end) => start + end));
    if (product && product.length <= MOST_EXACT) {
      run = product;
      continue;
    }
    consider(coversOf(run));
    run = one.exact ?? [""];
    whole = false;
  }
  consider(coversOf(run));
  return { ...(whole && { exact: run }), best, bytes };
}

function exploreEither(all: readonly Known[]): Known {
  const exact = all.flatMap((one) => one.exact ?? []);
  const bytes = together(all.map((one) => one.bytes));
  const best = cheaper(together(all.map((one) => one.best)), bytes);
  if (!all.every((one) => one.exact) || exact.length > MOST_EXACT) return { best, bytes };
  const covers = coversOf(exact);
  return { exact, best: cheaper(best, covers.best), bytes: cheaper(bytes, covers.bytes) };
}

function coversOf(exact: readonly string[]): Pick<Known, "best" | "bytes"> {
  if (exact.includes("")) return {};
  const rarest = (word: string) =>
    Array.from(word).reduce((one, other) => (frequencyOf(other) < frequencyOf(one) ? other : one));
  const bytes = cover(exact.map(rarest));
  return { bytes, best: cheaper(cover(exact.map((word) => word.slice(0, LONGEST))), bytes) };
}

function cover(words: Iterable<string>): Cover {
  const distinct = new Set(withoutSuperwords(words));
  return { words: distinct, cost: [...distinct].reduce((sum, word) => sum + costOf(word), 0) };
}

/** Of alternatives: undefined where one of them has none. */
const together = (covers: readonly (Cover | undefined)[]): Cover | undefined =>
  covers.every((one) => one !== undefined) ? cover(covers.flatMap(({ words }) => [...words])) : undefined;

const cheaper = (one: Cover | undefined, other: Cover | undefined): Cover | undefined =>
  one && other ? (other.cost < one.cost ? other : one) : (one ?? other);

/** A word that holds another one adds nothing: the other is found wherever it is. */
function withoutSuperwords(words: Iterable<string>): string[] {
  const kept: string[] = [];
  for (const word of [...new Set(words)].sort((a, b) => a.length - b.length || (a < b ? -1 : 1)))
    if (!kept.some((shorter) => word.includes(shorter))) kept.push(word);
  return kept;
}
