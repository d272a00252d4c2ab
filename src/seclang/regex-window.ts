/**
 * How much of a value V8 may see at once, for the few regexes that only a backtracking engine can run. Found by running them here, on
 * values made to cost much, and counting the steps: a count is the same on every machine, a time would not be.
 */
import type { ByteSet } from "./byte-set.ts";
import type { Clause } from "./regex-literals.ts";
import type { ParsedRegex, RegexNode } from "./regex-syntax.ts";

/** No window is safe: a regex such as `(a*)*\1` takes exponential time even on short values. */
export class UnboundedRegexError extends Error {
  override readonly name = "UnboundedRegexError";
}

const WINDOWS = [512, 256, 128, 64];
/** Most steps for a value of 8 KB; V8 takes 1 to 2 ns for one. */
const MOST_STEPS = 4_000_000;
const VALUE = 8_192;

/**
 * Characters at a time; 0: the whole value, as nothing in the regex repeats.
 * @throws {UnboundedRegexError}
 */
export function safeWindow({ node }: ParsedRegex, literals: readonly Clause[]): number {
  if (!repeats(node)) return 0;
  for (const window of WINDOWS) {
    // A window begins every half of one.
    const most = Math.floor((MOST_STEPS * window) / (2 * VALUE));
    if (pumps(node, literals, window).every((value) => steps(node, value, most) <= most)) return window;
  }
  throw new UnboundedRegexError(
    "it backtracks without bound, and what it has (a look around, a reference, an atomic group) rules out the linear engine: " +
      "write it without, or so that repetitions that follow each other have no character in common",
  );
}

function repeats(node: RegexNode): boolean {
  if (node.type === "repeat") return node.max > 8 || repeats(node.node);
  return "nodes" in node ? node.nodes.some(repeats) : "node" in node && repeats(node.node);
}

/** Runs of one byte, of two in turn, and both behind what the regex needs first; a byte for each way in which its sets differ. */
function pumps(node: RegexNode, literals: readonly Clause[], size: number): number[][] {
  const sets: ByteSet[] = [];
  collect(node, sets);
  const byKey = new Map<string, number>();
  for (let byte = 0; byte < 256; byte++) {
    const key = sets.map((set) => Number(set.has(byte))).join("");
    if (!byKey.has(key)) byKey.set(key, byte);
  }
  const bytes = [...byKey.values()].slice(0, 24);
  const begun = Array.from(literals[0]?.[0] ?? "", (character) => character.charCodeAt(0));
  const values = bytes.flatMap((a) => [run([], [a], size), run(begun, [a], size)]);
  for (const a of bytes)
    for (const b of bytes.slice(0, 8)) if (a !== b) values.push(run([], [a, b], size), run([a], [b], size));
  return values;
}

const run = (begun: readonly number[], pump: readonly number[], size: number) =>
  Array.from({ length: size }, (_, at) => begun[at] ?? (pump[(at - begun.length) % pump.length] as number));

function collect(node: RegexNode, sets: ByteSet[]): void {
  if (node.type === "set") sets.push(node.set);
  else if ("nodes" in node) for (const each of node.nodes) collect(each, sets);
  else if ("node" in node) collect(node.node, sets);
}

/** How many steps a backtracking search takes; more than `most`: it was given up. */
function steps(node: RegexNode, value: readonly number[], most: number): number {
  const search = new Search(value, most);
  try {
    for (let start = 0; start <= value.length; start++) if (search.match(node, start, () => true)) break;
  } catch (error) {
    // Too deep for the stack is too much as well.
    if (!(error instanceof TooMany) && !(error instanceof RangeError)) throw error;
    return most + 1;
  }
  return search.taken;
}

class TooMany extends Error {}

type Next = (at: number) => boolean;

class Search {
  taken = 0;
  readonly #value: readonly number[];
  readonly #most: number;
  readonly #groups: (readonly [number, number] | undefined)[] = [];

  constructor(value: readonly number[], most: number) {
    this.#value = value;
    this.#most = most;
  }

  match(node: RegexNode, at: number, next: Next): boolean {
    if (++this.taken > this.#most) throw new TooMany();
    switch (node.type) {
      case "set":
        return at < this.#value.length && node.set.has(this.#value[at] as number) && next(at + 1);
      case "sequence":
        return this.#sequence(node.nodes, 0, at, next);
      case "either":
        return node.nodes.some((each) => this.match(each, at, next));
      case "repeat":
        return this.#repeat(node, 0, at, next);
      case "group": {
        const before = this.#groups[node.index];
        const matched = this.match(node.node, at, (end) => {
          this.#groups[node.index] = [at, end];
          return next(end);
        });
        if (!matched) this.#groups[node.index] = before;
        return matched;
      }
      case "assertion":
        return this.#holds(node.kind, at) && next(at);
      case "look":
        return this.#looks(node, at) !== node.negative && next(at);
      case "atomic": {
        let end = -1;
        return this.match(node.node, at, (to) => (end = to) >= 0) && next(end);
      }
      case "backreference": {
        const [from, to] = this.#groups[node.index] ?? [0, 0];
        for (let offset = 0; offset < to - from; offset++) {
          this.taken++;
          if (this.#value[at + offset] !== this.#value[from + offset]) return false;
        }
        return next(at + to - from);
      }
    }
  }

  #sequence(nodes: readonly RegexNode[], index: number, at: number, next: Next): boolean {
    const node = nodes[index];
    return node ? this.match(node, at, (end) => this.#sequence(nodes, index + 1, end, next)) : next(at);
  }

  #repeat(node: RegexNode & { readonly type: "repeat" }, times: number, at: number, next: Next): boolean {
    const more = () =>
      times < node.max &&
      this.match(node.node, at, (end) => (end > at || times < node.min) && this.#repeat(node, times + 1, end, next));
    const enough = () => times >= node.min && next(at);
    return node.greedy ? more() || enough() : enough() || more();
  }

  #looks(node: RegexNode & { readonly type: "look" }, at: number): boolean {
    if (!node.behind) return this.match(node.node, at, () => true);
    for (let from = at; from >= 0; from--) if (this.match(node.node, from, (end) => end === at)) return true;
    return false;
  }

  #holds(kind: (RegexNode & { readonly type: "assertion" })["kind"], at: number): boolean {
    const [before, after] = [this.#value[at - 1], this.#value[at]];
    if (kind === "start") return before === undefined;
    if (kind === "line-start") return before === undefined || before === 0x0a;
    if (kind === "end") return after === undefined;
    if (kind === "line-end" || kind === "last-line-end") return after === undefined || after === 0x0a;
    return (isWord(before) !== isWord(after)) === (kind === "word-boundary");
  }
}

const isWord = (byte: number | undefined) => byte !== undefined && /\w/.test(String.fromCharCode(byte));
