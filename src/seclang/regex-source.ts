/** A parsed regex as one of JavaScript that means the same on latin1 strings: for V8, where the linear engine cannot, and for tests. */
import { type ByteSet, isLetter } from "./byte-set.ts";
import type { ParsedRegex, RegexNode } from "./regex-syntax.ts";

export interface RegexSource {
  readonly source: string;
  readonly flags: string;
  /** By the pattern's group, which group it is here: the same, unless atomic groups needed some of their own. 0: the whole. */
  readonly groups: readonly number[];
}

export function regexSource({ node }: ParsedRegex): RegexSource {
  const sets: ByteSet[] = [];
  collectSets(node, sets);
  // The flag i halves the source; it may only be used if no set could tell it from V8's wider folding.
  const foldCase = sets.some((set) => set.bytes().some(isLetter)) && sets.every(foldsLikeV8);
  const writer = new Writer(foldCase);
  const source = writer.write(node);
  return { source: source || "(?:)", flags: foldCase ? "is" : "s", groups: writer.groups };
}

function collectSets(node: RegexNode, sets: ByteSet[]): void {
  if (node.type === "set") sets.push(node.set);
  else if ("nodes" in node) for (const each of node.nodes) collectSets(each, sets);
  else if ("node" in node) collectSets(node.node, sets);
}

/** V8 without the flag u folds latin1's letters beyond ASCII as well: E0-FE to C0-DE, but for F7. */
function foldsLikeV8(set: ByteSet): boolean {
  for (let byte = 0x61; byte <= 0xfe; byte++) {
    if ((byte <= 0x7a || (byte >= 0xe0 && byte !== 0xf7)) && set.has(byte) !== set.has(byte - 0x20)) return false;
  }
  return true;
}

const ASSERTIONS = {
  start: "^",
  end: "$",
  "line-start": "(?:^|(?<=\\n))",
  "line-end": "(?=\\n|$)",
  "last-line-end": "(?=\\n?$)",
  "word-boundary": "\\b",
  "no-word-boundary": "\\B",
} as const;

class Writer {
  readonly groups = [0];
  readonly #foldCase: boolean;
  #opened = 0;

  constructor(foldCase: boolean) {
    this.#foldCase = foldCase;
  }

  write(node: RegexNode): string {
    switch (node.type) {
      case "set":
        return this.#set(node.set);
      case "sequence":
        return node.nodes
          .map((each) => (each.type === "either" ? `(?:${this.write(each)})` : this.write(each)))
          .join("");
      case "either":
        return node.nodes.map((each) => this.write(each)).join("|");
      case "repeat":
        return this.#repeat(node);
      case "group":
        this.groups[node.index] = ++this.#opened;
        return `(${this.write(node.node)})`;
      case "assertion":
        return ASSERTIONS[node.kind];
      case "look":
        return `(?${node.behind ? "<" : ""}${node.negative ? "!" : "="}${this.write(node.node)})`;
      case "atomic": {
        // What a lookahead has matched is not given up again: an atomic group in the words that JavaScript has.
        const own = ++this.#opened;
        return `(?:(?=(${this.write(node.node)}))\\${own})`;
      }
      case "backreference":
        return node.foldCase === this.#foldCase
          ? `(?:\\${this.groups[node.index]})`
          : `(?${node.foldCase ? "i" : "-i"}:\\${this.groups[node.index]})`;
    }
  }

  #repeat({ node, min, max, greedy }: RegexNode & { readonly type: "repeat" }): string {
    const inner = node.type === "set" || node.type === "group" ? this.write(node) : `(?:${this.write(node)})`;
    const times =
      max === Infinity
        ? min === 0
          ? "*"
          : min === 1
            ? "+"
            : `{${min},}`
        : min === 0 && max === 1
          ? "?"
          : min === max
            ? `{${min}}`
            : `{${min},${max}}`;
    return inner + times + (greedy ? "" : "?");
  }

  #set(set: ByteSet): string {
    const bytes = set.bytes();
    if (bytes.length === 256) return ".";
    const least = this.#foldCase ? bytes.filter((byte) => !isCapital(byte)) : bytes;
    if (least.length === 1) return character(least[0] as number);
    const positive = `[${ranges(least)}]`;
    const negative = `[^${ranges(
      set
        .not()
        .bytes()
        .filter((byte) => !this.#foldCase || !isCapital(byte)),
    )}]`;
    return negative.length < positive.length ? negative : positive;
  }
}

const isCapital = (byte: number) => byte >= 0x41 && byte <= 0x5a;

function ranges(bytes: readonly number[]): string {
  let text = "";
  for (let at = 0; at < bytes.length; at++) {
    const from = bytes[at] as number;
    while (bytes[at + 1] === (bytes[at] as number) + 1) at++;
    const to = bytes[at] as number;
    text += character(from);
    if (to > from) text += (to > from + 1 ? "-" : "") + character(to);
  }
  return text;
}

function character(byte: number): string {
  const text = String.fromCharCode(byte);
  if (/^[A-Za-z0-9_ "'<>=,;:!@#%&~`]$/.test(text)) return text;
  return /^[!-~]$/.test(text) ? `\\${text}` : `\\x${byte.toString(16).padStart(2, "0")}`;
}
