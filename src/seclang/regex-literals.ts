/**
 * What every match of a regex must hold, so that one pass of an automaton over a value (automaton.ts) tells which regexes can match.
 * Words are latin1 in lower case and are to be looked for without regard to ASCII case: that finds more, never less.
 */
import { ByteSet } from "./byte-set.ts";
import type { RegexNode } from "./regex-syntax.ts";

/** Every match has at least one of these words. */
export type Clause = readonly string[];

/** Longest word and most words that are worth keeping apart: more would only make the automaton larger. */
const LONGEST = 24;
const MOST_WORDS = 1_500;
const MOST_PRODUCT = 200;
const MOST_IN_SET = 12;
const MOST_CLAUSES = 4;

/** What is known of the matches of a node: all of them exactly, in lower case, or clauses that each of them holds. */
type Known = { readonly exact: readonly string[] } | { readonly clauses: readonly Clause[] };

const NOTHING: Known = { clauses: [] };

/** The clauses of a regex, the most telling first; none: any value might match. */
export function requiredLiterals(node: RegexNode): Clause[] {
  const known = explore(node);
  const clauses = "exact" in known ? clauseOf(known.exact) : known.clauses;
  const distinct = new Map(clauses.map((clause) => [[...clause].sort().join("\0"), withoutSuperwords(clause)]));
  return [...distinct.values()].sort((a, b) => weight(b) - weight(a)).slice(0, MOST_CLAUSES);
}

/**
 * The bytes that ordinary names, numbers and texts are made of. Regexes against evasion allow quotes, backslashes, `$x` and the like
 * between any two letters of a command; without these bytes they are lists of commands.
 */
const PLAIN = ByteSet.union(
  ByteSet.range(0x30, 0x39),
  ByteSet.range(0x41, 0x5a),
  ByteSet.range(0x61, 0x7a),
  ByteSet.of(...Array.from(" _.,:/+-@%?", (character) => character.charCodeAt(0))),
);

/** All others. */
export const UNUSUAL: readonly string[] = PLAIN.not()
  .bytes()
  .map((byte) => String.fromCharCode(byte));

/**
 * The clauses of the regex on values without an unusual byte; undefined: it matches none of these. They tell more than those that hold
 * for all values.
 */
export function literalsOfPlain(node: RegexNode): Clause[] | undefined {
  const plain = within(node, PLAIN);
  return plain && requiredLiterals(plain);
}

/** What is left of a regex for values that have these bytes alone; undefined: nothing. */
function within(node: RegexNode, bytes: ByteSet): RegexNode | undefined {
  switch (node.type) {
    case "set": {
      const set = node.set.and(bytes);
      return set.size === 0 ? undefined : { type: "set", set };
    }
    case "sequence": {
      const nodes = node.nodes.map((each) => within(each, bytes));
      return nodes.every((each) => each !== undefined) ? { type: "sequence", nodes } : undefined;
    }
    case "either": {
      const nodes = node.nodes.flatMap((each) => within(each, bytes) ?? []);
      return nodes.length === 0 ? undefined : { type: "either", nodes };
    }
    case "repeat": {
      const inner = within(node.node, bytes);
      if (inner) return { ...node, node: inner };
      return node.min === 0 ? { type: "sequence", nodes: [] } : undefined;
    }
    case "group":
    case "atomic": {
      const inner = within(node.node, bytes);
      return inner && { ...node, node: inner };
    }
    default:
      return node;
  }
}

function explore(node: RegexNode): Known {
  switch (node.type) {
    case "set":
      return exploreSet(node.set);
    case "sequence":
      return exploreSequence(node.nodes);
    case "either":
      return exploreEither(node.nodes);
    case "repeat":
      return exploreRepeat(node);
    case "group":
    case "atomic":
      return explore(node.node);
    case "assertion":
    case "look":
      return { exact: [""] };
    case "backreference":
      return NOTHING;
  }
}

function exploreSet(set: ByteSet): Known {
  const letters = new Set(set.bytes().map((byte) => lowerCase(String.fromCharCode(byte))));
  if (letters.size > MOST_IN_SET) return NOTHING;
  return { exact: [...letters] };
}

/** ASCII alone: toLowerCase would fold latin1's letters too. */
export const lowerCase = (text: string): string => text.replace(/[A-Z]+/g, (letters) => letters.toLowerCase());

function exploreSequence(nodes: readonly RegexNode[]): Known {
  const clauses: Clause[] = [];
  let exact: readonly string[] = [""];
  let whole = true;
  for (const node of nodes) {
    const known = explore(node);
    if ("clauses" in known) {
      clauses.push(...clauseOf(exact), ...known.clauses);
      exact = [""];
      whole = false;
      continue;
    }
    const product = new Set(exact.flatMap((start) => known.exact.map((end) => start + end)));
    if (product.size <= MOST_PRODUCT && [...product].every(({ length }) => length <= LONGEST)) {
      exact = [...product];
      continue;
    }
    clauses.push(...clauseOf(exact));
    exact = known.exact;
    whole = false;
  }
  return whole ? { exact } : { clauses: [...clauses, ...clauseOf(exact)] };
}

function exploreEither(nodes: readonly RegexNode[]): Known {
  const all = nodes.map(explore);
  if (all.every((known) => "exact" in known)) {
    const exact = new Set(all.flatMap((known) => known.exact));
    if (exact.size <= MOST_WORDS) return { exact: [...exact] };
  }
  const words = new Set<string>();
  for (const known of all) {
    const clauses = "exact" in known ? clauseOf(known.exact) : known.clauses;
    const best = clauses.toSorted((a, b) => weight(b) - weight(a))[0];
    if (!best) return NOTHING;
    for (const word of best) words.add(word);
  }
  return words.size <= MOST_WORDS ? { clauses: [[...words]] } : NOTHING;
}

function exploreRepeat({ node, min, max }: RegexNode & { readonly type: "repeat" }): Known {
  if (max === 0) return { exact: [""] };
  const known = explore(node);
  if (min === 0) {
    if (max > 1 || !("exact" in known)) return NOTHING;
    return { exact: [...new Set([...known.exact, ""])] };
  }
  if (min === 1 && max === 1) return known;
  if (!("exact" in known)) return known;
  const copies = Array.from({ length: Math.min(min, LONGEST) }, () => node);
  if (min === max && min <= LONGEST) return exploreSequence(copies);
  const least = exploreSequence(copies);
  return { clauses: "exact" in least ? clauseOf(least.exact) : least.clauses };
}

function clauseOf(exact: readonly string[]): Clause[] {
  return exact.includes("") ? [] : [exact];
}

/** How much a clause rules out: by its least telling word, as one character of a word says little and a quotation mark more. */
function weight(clause: Clause): number {
  let least = Infinity;
  for (const word of clause) {
    let told = 0;
    for (const character of word) told += /[a-z0-9 ]/.test(character) ? 1 : /[-_.,/=&;:]/.test(character) ? 1.25 : 1.75;
    least = Math.min(least, told);
  }
  return least - Math.log2(clause.length) / 8;
}

/** A word that holds another one of the clause adds nothing: the other is found wherever it is. */
function withoutSuperwords(clause: Clause): Clause {
  const byLength = [...new Set(clause)].sort((a, b) => a.length - b.length);
  const kept: string[] = [];
  for (const word of byLength) if (!kept.some((shorter) => word.includes(shorter))) kept.push(word);
  return kept;
}
