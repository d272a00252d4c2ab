/**
 * PCRE and RE2 patterns as ModSecurity's rules have them, read to a tree. One character is one byte (ModSecurity compiles without
 * PCRE's UTF mode), a dot matches every byte (DOTALL), `$` only the very end (DOLLAR_ENDONLY); case is folded here, in the sets.
 */
import { ByteSet } from "./byte-set.ts";

export type AssertionKind =
  | "start"
  | "end"
  | "line-start"
  | "line-end"
  | "last-line-end"
  | "word-boundary"
  | "no-word-boundary";

export type RegexNode =
  | { readonly type: "set"; readonly set: ByteSet }
  | { readonly type: "sequence"; readonly nodes: readonly RegexNode[] }
  | { readonly type: "either"; readonly nodes: readonly RegexNode[] }
  | {
      readonly type: "repeat";
      readonly node: RegexNode;
      readonly min: number;
      /** Infinity where nothing limits it. */
      readonly max: number;
      readonly greedy: boolean;
    }
  | { readonly type: "group"; readonly node: RegexNode; readonly index: number }
  | { readonly type: "assertion"; readonly kind: AssertionKind }
  | { readonly type: "look"; readonly node: RegexNode; readonly behind: boolean; readonly negative: boolean }
  | { readonly type: "atomic"; readonly node: RegexNode }
  | { readonly type: "backreference"; readonly index: number; readonly foldCase: boolean };

export interface ParsedRegex {
  readonly node: RegexNode;
  /** Capturing groups, without the whole match. */
  readonly groups: number;
}

/** What is wrong with a pattern, and at which of its characters. */
export class RegexSyntaxError extends Error {
  constructor(what: string, pattern: string, at: number) {
    const from = Math.max(0, at - 20);
    super(`${what}, at character ${at + 1}: ${pattern.slice(from, at)}»${pattern.slice(at, at + 20)}`);
    this.name = "RegexSyntaxError";
  }
}

const ALL = ByteSet.range(0, 255);
const NEWLINE = ByteSet.of(0x0a);
const DIGITS = ByteSet.range(0x30, 0x39);
const UPPER = ByteSet.range(0x41, 0x5a);
const LOWER = ByteSet.range(0x61, 0x7a);
const WORD = ByteSet.union(DIGITS, UPPER, LOWER, ByteSet.of(0x5f));
const SPACE = ByteSet.union(ByteSet.range(9, 13), ByteSet.of(0x20));
const HORIZONTAL = ByteSet.of(0x09, 0x20, 0xa0);
const VERTICAL = ByteSet.of(0x0a, 0x0b, 0x0c, 0x0d, 0x85);

const CLASS_ESCAPES: Readonly<Record<string, ByteSet>> = {
  d: DIGITS,
  D: DIGITS.not(),
  w: WORD,
  W: WORD.not(),
  s: SPACE,
  S: SPACE.not(),
  h: HORIZONTAL,
  H: HORIZONTAL.not(),
  v: VERTICAL,
  V: VERTICAL.not(),
};

const CONTROL_ESCAPES: Readonly<Record<string, number>> = { a: 7, e: 27, f: 12, n: 10, r: 13, t: 9 };

const ASSERTIONS: Readonly<Record<string, AssertionKind>> = {
  A: "start",
  z: "end",
  Z: "last-line-end",
  b: "word-boundary",
  B: "no-word-boundary",
};

const PUNCTUATION = ByteSet.union(
  ByteSet.range(0x21, 0x2f),
  ByteSet.range(0x3a, 0x40),
  ByteSet.range(0x5b, 0x60),
  ByteSet.range(0x7b, 0x7e),
);

const POSIX: Readonly<Record<string, ByteSet>> = {
  alnum: ByteSet.union(DIGITS, UPPER, LOWER),
  alpha: ByteSet.union(UPPER, LOWER),
  ascii: ByteSet.range(0, 127),
  blank: ByteSet.of(0x09, 0x20),
  cntrl: ByteSet.union(ByteSet.range(0, 31), ByteSet.of(127)),
  digit: DIGITS,
  graph: ByteSet.range(0x21, 0x7e),
  lower: LOWER,
  print: ByteSet.range(0x20, 0x7e),
  punct: PUNCTUATION,
  space: SPACE,
  upper: UPPER,
  word: WORD,
  xdigit: ByteSet.union(DIGITS, ByteSet.range(0x41, 0x46), ByteSet.range(0x61, 0x66)),
};

interface Flags {
  readonly foldCase: boolean;
  readonly dotAll: boolean;
  readonly multiline: boolean;
  readonly extended: boolean;
}

/** @throws {RegexSyntaxError} */
export function parseRegex(pattern: string): ParsedRegex {
  return new Parser(pattern).parse();
}

class Parser {
  readonly #pattern: string;
  #at = 0;
  #groups = 0;
  #flags: Flags = { foldCase: false, dotAll: true, multiline: false, extended: false };
  readonly #names = new Map<string, number>();

  constructor(pattern: string) {
    this.#pattern = latin1(pattern);
  }

  parse(): ParsedRegex {
    const node = this.#either();
    if (this.#at < this.#pattern.length) this.#fail("a ) without its (");
    return { node, groups: this.#groups };
  }

  #fail(what: string, at = this.#at): never {
    throw new RegexSyntaxError(what, this.#pattern, at);
  }

  #takes(text: string): boolean {
    if (!this.#pattern.startsWith(text, this.#at)) return false;
    this.#at += text.length;
    return true;
  }

  #takesMatch(regex: RegExp): RegExpExecArray | null {
    regex.lastIndex = this.#at;
    const match = regex.exec(this.#pattern);
    if (match) this.#at += match[0].length;
    return match;
  }

  /** Flags set inside, as in `a(?i)b|c`, hold until the group ends: for the later alternatives too. */
  #either(): RegexNode {
    const outer = this.#flags;
    const nodes = [this.#sequence()];
    while (this.#takes("|")) nodes.push(this.#sequence());
    this.#flags = outer;
    return nodes.length === 1 ? (nodes[0] as RegexNode) : { type: "either", nodes };
  }

  #sequence(): RegexNode {
    const nodes: RegexNode[] = [];
    while (this.#at < this.#pattern.length && !"|)".includes(this.#pattern[this.#at] as string)) {
      if (this.#takesMatch(/\(\?#[^)]*\)/y)) continue;
      if (this.#flags.extended && this.#takesMatch(/\s+|#[^\n]*\n?/y)) continue;
      if (this.#takes("\\E")) continue;
      if (this.#takes("\\Q")) {
        nodes.push(...this.#quoted());
        continue;
      }
      const node = this.#atom();
      if (node) nodes.push(this.#repeated(node));
    }
    return nodes.length === 1 ? (nodes[0] as RegexNode) : { type: "sequence", nodes };
  }

  #quoted(): RegexNode[] {
    const end = this.#pattern.indexOf("\\E", this.#at);
    const text = this.#pattern.slice(this.#at, end === -1 ? undefined : end);
    this.#at += text.length;
    const nodes = [...text].map((character) => this.#set(ByteSet.of(character.charCodeAt(0))));
    const last = nodes.pop();
    if (end !== -1) this.#at += 2;
    return last ? [...nodes, this.#repeated(last)] : nodes;
  }

  #repeated(node: RegexNode): RegexNode {
    for (let repeated = node; ; ) {
      const at = this.#at;
      const quantifier = this.#takesMatch(/[*+?]|\{(\d+)(?:(,)(\d*))?\}/y);
      if (!quantifier) return repeated;
      const [sign, least, comma, most] = quantifier;
      const min = least === undefined ? (sign === "+" ? 1 : 0) : Number(least);
      const max = least === undefined ? (sign === "?" ? 1 : Infinity) : !comma ? min : most ? Number(most) : Infinity;
      if (max < min) this.#fail("a repetition whose most is less than its least", at);
      if (min > 65_535 || (max > 65_535 && max !== Infinity)) this.#fail("a repetition of more than 65535", at);
      const possessive = this.#takes("+");
      const greedy = possessive || !this.#takes("?");
      repeated = { type: "repeat", node: repeated, min, max, greedy };
      if (possessive) repeated = { type: "atomic", node: repeated };
    }
  }

  #set(set: ByteSet): RegexNode {
    return { type: "set", set: this.#flags.foldCase ? set.folded() : set };
  }

  #atom(): RegexNode | undefined {
    const at = this.#at;
    const character = this.#pattern[this.#at++] as string;
    switch (character) {
      case "(":
        return this.#group();
      case "[":
        return this.#set(this.#characterClass());
      case "\\":
        return this.#escape();
      case ".":
        return { type: "set", set: this.#flags.dotAll ? ALL : NEWLINE.not() };
      case "^":
        return { type: "assertion", kind: this.#flags.multiline ? "line-start" : "start" };
      case "$":
        return { type: "assertion", kind: this.#flags.multiline ? "line-end" : "end" };
      case "*":
      case "+":
      case "?":
        return this.#fail(`a ${character} with nothing to repeat`, at);
      default:
        return this.#set(ByteSet.of(character.charCodeAt(0)));
    }
  }

  #group(): RegexNode | undefined {
    const at = this.#at - 1;
    if (this.#pattern[this.#at] === "*") this.#fail("(*verbs) are PCRE's alone: write the pattern without them", at);
    if (!this.#takes("?")) return this.#capturing(at);
    if (this.#takes(":")) return this.#inside(at);
    if (this.#takes(">")) return { type: "atomic", node: this.#inside(at) };
    for (const [sign, behind, negative] of LOOKS) {
      if (this.#takes(sign)) return { type: "look", node: this.#inside(at), behind, negative };
    }
    const name = this.#takesMatch(/P?<([A-Za-z_]\w*)>|'([A-Za-z_]\w*)'/y);
    if (name) return this.#capturing(at, name[1] ?? name[2]);
    const reference = this.#takesMatch(/P=(\w+)\)/y);
    if (reference) return this.#named(reference[1] as string, at);
    const flags = this.#takesMatch(/(\^?)([a-zA-Z]*)(?:-([a-zA-Z]*))?([:)])/y);
    if (!flags) this.#fail("conditions, recursion and callouts of PCRE are not supported", at);
    return this.#withFlags(flags, at);
  }

  #withFlags([, reset, on = "", off = "", end]: RegExpExecArray, at: number): RegexNode | undefined {
    for (const flag of on + off) {
      if (!"ismx".includes(flag)) this.#fail(`the flag ${flag} is not supported`, at);
    }
    const outer = this.#flags;
    const value = (flag: string, before: boolean, unset: boolean) =>
      on.includes(flag) || (!off.includes(flag) && (reset ? unset : before));
    const inner: Flags = {
      foldCase: value("i", outer.foldCase, false),
      dotAll: value("s", outer.dotAll, true),
      multiline: value("m", outer.multiline, false),
      extended: value("x", outer.extended, false),
    };
    this.#flags = inner;
    if (end === ")") return undefined;
    const node = this.#inside(at);
    this.#flags = outer;
    return node;
  }

  #capturing(at: number, name?: string): RegexNode {
    const index = ++this.#groups;
    if (name !== undefined) this.#names.set(name, index);
    return { type: "group", node: this.#inside(at), index };
  }

  #inside(at: number): RegexNode {
    const node = this.#either();
    if (!this.#takes(")")) this.#fail("a ( without its )", at);
    return node;
  }

  #named(name: string, at: number): RegexNode {
    const index = this.#names.get(name);
    if (index === undefined) this.#fail(`there is no group "${name}" before`, at);
    return { type: "backreference", index, foldCase: this.#flags.foldCase };
  }

  #escape(): RegexNode {
    const at = this.#at - 1;
    const letter = this.#pattern[this.#at];
    if (letter === undefined) this.#fail("a \\ with nothing behind it", at);
    const kind = ASSERTIONS[letter];
    if (kind) {
      this.#at++;
      return { type: "assertion", kind };
    }
    if (letter === "N") {
      this.#at++;
      return { type: "set", set: NEWLINE.not() };
    }
    if (letter === "R") {
      this.#at++;
      const crlf: RegexNode = {
        type: "sequence",
        nodes: [0x0d, 0x0a].map((byte) => ({ type: "set", set: ByteSet.of(byte) })),
      };
      return { type: "atomic", node: { type: "either", nodes: [crlf, { type: "set", set: VERTICAL }] } };
    }
    const named = this.#takesMatch(/k(?:<(\w+)>|\{(\w+)\}|'(\w+)')/y);
    if (named) return this.#named((named[1] ?? named[2] ?? named[3]) as string, at);
    const numbered = this.#takesMatch(/g\{?(-?\d+)\}?/y);
    if (numbered) {
      const number = Number(numbered[1]);
      return this.#numbered(number < 0 ? this.#groups + 1 + number : number, at);
    }
    const digits = /[1-9]\d*/y;
    digits.lastIndex = this.#at;
    const number = Number(digits.exec(this.#pattern)?.[0] ?? 0);
    // PCRE's rule: one digit, or as many groups as that before it, is a reference; else it is octal.
    if (number > 0 && (number < 10 || number <= this.#groups)) {
      this.#at += String(number).length;
      return this.#numbered(number, at);
    }
    return this.#set(this.#escapedSet(at));
  }

  #numbered(index: number, at: number): RegexNode {
    if (index < 1 || index > this.#groups) this.#fail(`there is no group ${index} before`, at);
    return { type: "backreference", index, foldCase: this.#flags.foldCase };
  }

  /** The set for an escape that stands for characters, in a class or outside; `#at` is behind the backslash. */
  #escapedSet(at: number): ByteSet {
    const letter = this.#pattern[this.#at] as string;
    const set = CLASS_ESCAPES[letter];
    if (set) {
      this.#at++;
      return set;
    }
    const hex = this.#takesMatch(/x\{([0-9a-fA-F]+)\}|x([0-9a-fA-F]{0,2})/y);
    if (hex) {
      const code = Number.parseInt(hex[1] ?? (hex[2] || "0"), 16);
      if (code > 255) this.#fail("a character beyond \\xff: patterns match bytes, so write its UTF-8 bytes", at);
      return ByteSet.of(code);
    }
    const octal = this.#takesMatch(/[0-3]?[0-7]{1,2}/y);
    if (octal) return ByteSet.of(Number.parseInt(octal[0], 8));
    const control = this.#takesMatch(/c([@-_a-z])/y);
    if (control) return ByteSet.of((control[1] as string).toUpperCase().charCodeAt(0) ^ 0x40);
    this.#at++;
    const code = CONTROL_ESCAPES[letter];
    if (code !== undefined) return ByteSet.of(code);
    if (/[A-Za-z0-9]/.test(letter)) this.#fail(`the escape \\${letter} is not supported`, at);
    return ByteSet.of(letter.charCodeAt(0));
  }

  #characterClass(): ByteSet {
    const start = this.#at - 1;
    const negated = this.#takes("^");
    const sets: ByteSet[] = [];
    for (let first = true; first || this.#pattern[this.#at] !== "]"; first = false) {
      if (this.#at >= this.#pattern.length) this.#fail("a [ without its ]", start);
      if (this.#takes("\\Q") || this.#takes("\\E")) continue;
      const at = this.#at;
      const low = this.#classMember(at);
      const range =
        this.#pattern[this.#at] === "-" && this.#pattern[this.#at + 1] !== "]" && this.#at + 1 < this.#pattern.length;
      if (!range || low.size !== 1) {
        sets.push(low);
        continue;
      }
      this.#at++;
      const high = this.#classMember(this.#at);
      const [from, to] = [low.bytes()[0] as number, high.bytes()[0] as number];
      if (high.size !== 1) sets.push(low, ByteSet.of(0x2d), high);
      else if (to < from) this.#fail("a range whose end is before its start", at);
      else sets.push(ByteSet.range(from, to));
    }
    this.#at++;
    const set = this.#flags.foldCase ? ByteSet.union(...sets).folded() : ByteSet.union(...sets);
    return negated ? set.not() : set;
  }

  #classMember(at: number): ByteSet {
    const posix = this.#takesMatch(/\[:(\^?)(\w+):\]/y);
    if (posix) {
      const name = posix[2] as string;
      const set = Object.hasOwn(POSIX, name) ? POSIX[name] : undefined;
      if (!set) this.#fail(`there is no class [:${posix[2]}:]`, at);
      return posix[1] ? set.not() : set;
    }
    const character = this.#pattern[this.#at++] as string;
    if (character !== "\\") return ByteSet.of(character.charCodeAt(0));
    if (this.#at >= this.#pattern.length) this.#fail("a \\ with nothing behind it", at);
    if (this.#takes("b")) return ByteSet.of(8);
    return this.#escapedSet(at);
  }
}

const LOOKS: readonly (readonly [sign: string, behind: boolean, negative: boolean])[] = [
  ["=", false, false],
  ["!", false, true],
  ["<=", true, false],
  ["<!", true, true],
];

const utf8 = new TextEncoder();

/** A pattern read as text rather than as bytes may hold characters beyond latin1: those become their UTF-8. */
function latin1(pattern: string): string {
  return /[^\0-\xff]/.test(pattern)
    ? Array.from(utf8.encode(pattern), (byte) => String.fromCharCode(byte)).join("")
    : pattern;
}
