/** A parsed regex as the program that src/waf/linear-regex.ts runs; its layout is described there. */
import { Operation, PROGRAM_VERSION, TestKind } from "../waf/linear-regex.ts";
import { ByteSet } from "./byte-set.ts";
import type { AssertionKind, ParsedRegex, RegexNode } from "./regex-syntax.ts";

/** Most words of a program: its jumps are 16 bits wide. */
const LONGEST = 65_535;

/** Why a regex has no program: it is not regular, or too large once its counted repetitions are written out. */
export class NotLinearError extends Error {
  override readonly name = "NotLinearError";
}

/** @throws {NotLinearError} */
export function regexProgram({ node, groups }: ParsedRegex): Uint16Array {
  const writer = new Writer();
  writer.write(withoutAtomics(node, "end"));
  writer.code.push(Operation.Match << 13);
  if (writer.code.length > LONGEST) throw new NotLinearError("its repetitions, written out, are too long");
  const { classOf, classes } = byteClasses([...writer.sets.values()], writer.looksAround);
  const words = [PROGRAM_VERSION, groups, classes, writer.sets.size, writer.code.length];
  for (let byte = 0; byte < 256; byte += 2) {
    words.push((classOf[byte] as number) | ((classOf[byte + 1] as number) << 8));
  }
  for (const set of writer.sets.values()) words.push(...acceptedClasses(set, classOf, classes));
  return Uint16Array.from([...words, ...writer.code]);
}

const KINDS: Readonly<Record<Exclude<AssertionKind, "last-line-end">, TestKind>> = {
  start: TestKind.Start,
  end: TestKind.End,
  "line-start": TestKind.LineStart,
  "line-end": TestKind.LineEnd,
  "word-boundary": TestKind.WordBoundary,
  "no-word-boundary": TestKind.NoWordBoundary,
};

class Writer {
  readonly code: number[] = [];
  readonly sets = new Map<string, ByteSet>();
  readonly #numbers = new Map<string, number>();
  looksAround = false;

  write(node: RegexNode): void {
    if (this.code.length > LONGEST) throw new NotLinearError("its repetitions, written out, are too long");
    switch (node.type) {
      case "set":
        this.code.push((Operation.Byte << 13) | this.#number(node.set));
        break;
      case "sequence":
        for (const each of node.nodes) this.write(each);
        break;
      case "either":
        this.#writeEither(node.nodes);
        break;
      case "repeat":
        this.#writeRepeat(node);
        break;
      case "group":
        this.code.push((Operation.Save << 13) | (2 * node.index));
        this.write(node.node);
        this.code.push((Operation.Save << 13) | (2 * node.index + 1));
        break;
      case "assertion":
        this.#writeAssertion(node.kind);
        break;
      case "atomic":
        throw new NotLinearError("an atomic or possessive part may not be given back what follows it");
      case "look":
        throw new NotLinearError("it looks ahead or behind");
      case "backreference":
        throw new NotLinearError("it refers back to a group");
    }
  }

  #number(set: ByteSet): number {
    const { key } = set;
    let number = this.#numbers.get(key);
    if (number === undefined) {
      number = this.#numbers.size;
      this.#numbers.set(key, number);
      this.sets.set(key, set);
    }
    return number;
  }

  #split(lazy: boolean): number {
    this.code.push((lazy ? Operation.SplitLazy : Operation.Split) << 13, 0);
    return this.code.length - 1;
  }

  #jump(): number {
    this.code.push(Operation.Jump << 13, 0);
    return this.code.length - 1;
  }

  #land(at: number): void {
    this.code[at] = this.code.length;
  }

  #writeEither(nodes: readonly RegexNode[]): void {
    const ends: number[] = [];
    for (const node of nodes.slice(0, -1)) {
      const next = this.#split(false);
      this.write(node);
      ends.push(this.#jump());
      this.#land(next);
    }
    this.write(nodes.at(-1) as RegexNode);
    for (const end of ends) this.#land(end);
  }

  #writeRepeat({ node, min, max, greedy }: RegexNode & { readonly type: "repeat" }): void {
    for (let times = 1; times < min; times++) this.write(node);
    if (max === Infinity) {
      const start = this.code.length;
      if (min > 0) {
        // x+: once, then back to before it, or on.
        this.write(node);
        const on = this.#split(!greedy);
        this.code.push(Operation.Jump << 13, start);
        this.#land(on);
      } else {
        const on = this.#split(!greedy);
        this.write(node);
        this.code.push(Operation.Jump << 13, start);
        this.#land(on);
      }
      return;
    }
    if (min > 0) this.write(node);
    const ends: number[] = [];
    for (let times = min; times < max; times++) {
      ends.push(this.#split(!greedy));
      this.write(node);
    }
    for (const end of ends) this.#land(end);
  }

  #writeAssertion(kind: AssertionKind): void {
    if (kind === "last-line-end") throw new NotLinearError("\\Z looks behind a newline: write \\n?\\z");
    this.looksAround ||= kind !== "start" && kind !== "end";
    this.code.push((Operation.Test << 13) | KINDS[kind]);
  }
}

/** Bytes that every set of the program treats alike get one number. */
function byteClasses(sets: readonly ByteSet[], looksAround: boolean): { classOf: number[]; classes: number } {
  const numbers = new Map<string, number>();
  const classOf: number[] = [];
  for (let byte = 0; byte < 256; byte++) {
    let key = sets.map((set) => (set.has(byte) ? "1" : "0")).join("");
    if (looksAround) key += /\w/.test(String.fromCharCode(byte)) ? "w" : byte === 0x0a ? "n" : "";
    if (!numbers.has(key)) numbers.set(key, numbers.size);
    classOf.push(numbers.get(key) as number);
  }
  return { classOf, classes: numbers.size };
}

function acceptedClasses(set: ByteSet, classOf: readonly number[], classes: number): number[] {
  const words = new Array<number>(Math.ceil(classes / 16)).fill(0);
  for (let byte = 0; byte < 256; byte++) {
    const number = classOf[byte] as number;
    if (set.has(byte)) words[number >> 4] = (words[number >> 4] as number) | (1 << (number & 15));
  }
  return words;
}

/** What can come next: some of these bytes, the end of the match, or what is not known. */
type Follow = ByteSet | "end" | "unknown";

/**
 * The same without its atomic and possessive parts, where giving back would not help anyway: `[^>]*+>`, as no `>` is among what was
 * taken; or at the end, where nothing asks for it back.
 */
function withoutAtomics(node: RegexNode, follow: Follow): RegexNode {
  switch (node.type) {
    case "sequence": {
      const nodes: RegexNode[] = [];
      for (const each of [...node.nodes].reverse()) {
        nodes.unshift(withoutAtomics(each, follow));
        follow = before(each, follow);
      }
      return { ...node, nodes };
    }
    case "either":
      return { ...node, nodes: node.nodes.map((each) => withoutAtomics(each, follow)) };
    case "group":
      return { ...node, node: withoutAtomics(node.node, follow) };
    case "repeat":
      return { ...node, node: withoutAtomics(node.node, node.max > 1 ? "unknown" : follow) };
    case "atomic": {
      const { node: inner } = node;
      const run =
        inner.type === "repeat" && inner.node.type === "set" && inner.max === Infinity ? inner.node.set : undefined;
      const plain = follow === "end" || (run && follow instanceof ByteSet && !run.meets(follow));
      return plain ? withoutAtomics(inner, follow) : node;
    }
    default:
      return node;
  }
}

function before(node: RegexNode, follow: Follow): Follow {
  const first = firstBytes(node);
  if (!first) return "unknown";
  if (!first.nullable) return first.set;
  return follow instanceof ByteSet ? ByteSet.union(first.set, follow) : "unknown";
}

function firstBytes(node: RegexNode): { readonly set: ByteSet; readonly nullable: boolean } | undefined {
  switch (node.type) {
    case "set":
      return { set: node.set, nullable: false };
    case "either": {
      const all = node.nodes.map(firstBytes);
      if (!all.every((first) => first !== undefined)) return undefined;
      return { set: ByteSet.union(...all.map(({ set }) => set)), nullable: all.some(({ nullable }) => nullable) };
    }
    case "sequence": {
      let set = ByteSet.of();
      for (const each of node.nodes) {
        const first = firstBytes(each);
        if (!first) return undefined;
        set = ByteSet.union(set, first.set);
        if (!first.nullable) return { set, nullable: false };
      }
      return { set, nullable: true };
    }
    case "repeat": {
      const first = firstBytes(node.node);
      return first && { set: first.set, nullable: first.nullable || node.min === 0 };
    }
    case "group":
    case "atomic":
      return firstBytes(node.node);
    default:
      return undefined;
  }
}
