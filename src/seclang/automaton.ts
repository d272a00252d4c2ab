/** The tables of src/waf/automaton.ts, whose layout is described there. */
import { AUTOMATON_VERSION, MOST_STATES } from "../waf/automaton.ts";
import { lowerCase } from "./regex-literals.ts";

/**
 * Bytes of a word that the automaton knows; the rest is compared. Measured for the words of CRS 4's request rules: 6 to 8 make a third
 * of the states that whole words would, and hardly any value has the beginning of a word alone.
 */
const BEGINNING = 7;

interface TreeNode {
  readonly children: Map<number, TreeNode>;
  readonly words: { readonly number: number; readonly rest: string }[];
}

/**
 * @param words latin1; found in any ASCII case. Their place here is their number
 * @throws {RangeError} for an empty word, one of more than 262 bytes, and more words than the tables can hold
 */
export function automatonTables(words: readonly string[]): Uint8Array {
  const root: TreeNode = { children: new Map(), words: [] };
  words.forEach((word, number) => {
    if (word === "") throw new RangeError(`word ${number} is empty: it would be found everywhere`);
    if (/[^\0-\xff]/.test(word)) throw new RangeError(`${JSON.stringify(word)} is not latin1`);
    if (word.length > BEGINNING + 255)
      throw new RangeError(`${JSON.stringify(word)} is longer than ${BEGINNING + 255}`);
    const lower = lowerCase(word);
    let node = root;
    for (const character of lower.slice(0, BEGINNING)) {
      const byte = character.charCodeAt(0);
      let child = node.children.get(byte);
      if (!child) node.children.set(byte, (child = { children: new Map(), words: [] }));
      node = child;
    }
    node.words.push({ number, rest: lower.slice(BEGINNING) });
  });

  const nodes = [root];
  const bytes = [0];
  for (let at = 0; at < nodes.length; at++) {
    for (const [byte, child] of (nodes[at] as TreeNode).children) {
      nodes.push(child);
      bytes.push(byte);
    }
  }
  const ends = nodes.flatMap((node) => node.words);
  if (nodes.length > MOST_STATES || words.length > 0xffff) {
    throw new RangeError(`${words.length} words have ${nodes.length} states: at most ${MOST_STATES} fit`);
  }

  const classOf = new Uint8Array(256);
  // 0 is the class of bytes that are in no word; were all 256 in some, there would be none for it.
  for (const byte of [...new Set(bytes.slice(1))].sort((a, b) => a - b)) classOf[byte] = Math.max(...classOf) + 1;
  for (let byte = 0x41; byte <= 0x5a; byte++) classOf[byte] = classOf[byte + 0x20] as number;

  const u16 = (value: number) => [value & 0xff, value >> 8];
  const halves = (values: readonly number[]) => [
    ...values.map((value) => value & 0xff),
    ...values.map((value) => value >> 8),
  ];
  return Uint8Array.from([
    AUTOMATON_VERSION,
    0,
    ...u16(nodes.length),
    ...u16(ends.length),
    ...classOf,
    ...nodes.map(({ children }) => children.size),
    ...bytes.map((byte) => classOf[byte] as number),
    ...halves(nodes.map((node) => node.words.length)),
    ...halves(ends.map(({ number }) => number)),
    ...ends.map(({ rest }) => rest.length),
    ...ends.flatMap(({ rest }) => Array.from(rest, (character) => character.charCodeAt(0))),
  ]);
}
