/**
 * Regexes in linear time. V8 backtracks, and on `\s*\s*x` takes minutes for 8 KB; here each byte costs a step of a DFA whose states
 * are made as values need them (as in RE2), so that no value costs more than its length times the size of the regex, and in
 * practice a nanosecond or two a byte.
 *
 * Values are latin1 strings, one character per byte. The programs come from src/seclang/regex-program.ts:
 *
 *     version, groups, byte classes, sets, words of code
 *     128 words     the class of each byte, two bytes to a word
 *     sets          each ⌈classes / 16⌉ words: a bit per class that the set accepts
 *     code          an operation in the top 3 bits, its number in the others; jumps and splits have their target in the next word
 */
import { bytesOf } from "./bytes.ts";

export const PROGRAM_VERSION = 1;

export const Operation = {
  /** Takes a byte of set n. */
  Byte: 0,
  /** Goes on behind the target word, or else at the target. */
  Split: 1,
  /** Goes on at the target, or else behind it. */
  SplitLazy: 2,
  Jump: 3,
  /** Goes on if test n holds here. */
  Test: 4,
  /** Notes where group n/2 starts, or, for an odd n, ends. */
  Save: 5,
  Match: 6,
} as const;

export const TestKind = { Start: 0, End: 1, LineStart: 2, LineEnd: 3, WordBoundary: 4, NoWordBoundary: 5 } as const;
export type TestKind = (typeof TestKind)[keyof typeof TestKind];

// What is at one side of a place in the value.
const OTHER = 0;
const WORD = 1;
const NEWLINE = 2;
const EDGE = 3;

// In the table of transitions, beside the rows' numbers, which are positive.
const UNKNOWN = 0;
const DEAD = -1;
const MATCHED = -2;

/** Most states that are kept: for 40 byte classes, 320 KB. Then all are forgotten. */
const MOST_STATES = 2_048;
/** A value that needs a new state for more than each 16th byte pays more for them than it gains. */
const BYTES_PER_STATE = 16;
/** Most numbers that are kept of where threads get to. */
const MOST_REACHABLE = 1 << 17;
/** Most bits of what exec has tried: bounds its time to about 5 ms, its memory to 64 KB. */
const MOST_TRIED = 1 << 19;

export class LinearRegex {
  /** Capturing groups, without the whole match. */
  readonly groups: number;
  readonly #code: Uint16Array;
  readonly #classes: number;
  readonly #classOf = new Uint8Array(256);
  /** By set and class, 1 where it is accepted. */
  readonly #accepts: Uint8Array;
  /** By class: what kind of neighbour its bytes are. */
  readonly #kinds: Uint8Array;
  readonly #stride: number;

  // States: a row of #table each, from row 1 on. What a state knows: its threads, and the kind of the byte before.
  #table = new Int32Array(0);
  #threads: (readonly number[])[] = [];
  #before: number[] = [];
  #rows = new Map<string, number>();
  #first = UNKNOWN;

  // Threads that begin at each place: by the kind before it. Every state has them, so they are in none.
  readonly #starts: ((readonly number[] | undefined) | undefined)[] = [];
  readonly #startMatches: boolean[] = [];
  readonly #startSteps = new Map<number, readonly number[] | null>();

  readonly #reachable = new Map<number, readonly number[] | null>();
  #reachableSize = 0;
  /** Whether the program tests for anything. */
  readonly #tests: boolean;

  // For a number that grows with every byte that makes a new state: beyond 32 bits threads would be counted twice, then four times.
  readonly #marks: Float64Array;
  #mark = 0;

  constructor(program: Uint16Array) {
    const [version, groups = 0, classes = 0, sets = 0, length = 0] = program;
    if (version !== PROGRAM_VERSION) throw new Error(`a regex program of version ${version}: build again`);
    this.groups = groups;
    this.#classes = classes;
    this.#stride = classes + 1;
    for (let byte = 0; byte < 256; byte++) {
      this.#classOf[byte] = ((program[5 + (byte >> 1)] as number) >> (8 * (byte & 1))) & 0xff;
    }
    const perSet = Math.ceil(classes / 16);
    this.#accepts = new Uint8Array(sets * classes);
    for (let set = 0; set < sets; set++) {
      for (let number = 0; number < classes; number++) {
        const word = program[133 + set * perSet + (number >> 4)] as number;
        this.#accepts[set * classes + number] = (word >> (number & 15)) & 1;
      }
    }
    this.#code = program.subarray(133 + sets * perSet, 133 + sets * perSet + length);
    this.#kinds = new Uint8Array(classes + 1);
    for (let byte = 0; byte < 256; byte++) this.#kinds[this.#classOf[byte] as number] = kindOf(byte);
    this.#kinds[classes] = EDGE;
    this.#marks = new Float64Array(length);
    this.#tests = this.#code.some((word) => word >> 13 === Operation.Test);
  }

  /** Whether any part of `value` matches. */
  test(value: string): boolean {
    return this.#earliestEnd(value) !== -1;
  }

  /**
   * The leftmost match as a backtracking engine finds it: the whole, then the groups. Where the regex and the value are so large
   * that this could take milliseconds, only the part around the end of the earliest match is looked at.
   */
  exec(value: string): (string | undefined)[] | undefined {
    const end = this.#earliestEnd(value);
    if (end === -1) return undefined;
    const most = Math.floor(MOST_TRIED / this.#code.length) - 1;
    const whole = value.length <= most;
    const from = whole ? 0 : Math.max(0, end - (most >> 1));
    const to = whole ? value.length : Math.min(value.length, from + most);
    return this.#backtrack(value, from, to) ?? [value.slice(from, end), ...new Array(this.groups).fill(undefined)];
  }

  /** Where the match that ends first does end, or -1. */
  #earliestEnd(value: string): number {
    const classOf = this.#classOf;
    let row = this.#first || this.#begin();
    if (row === MATCHED) return 0;
    let table = this.#table;
    const bytes = bytesOf(value);
    const { length } = value;
    let made = 0;
    for (let at = 0; at < length; at++) {
      const number = classOf[bytes[at] as number] as number;
      let next = table[row + number] as number;
      if (next <= 0) {
        if (next === UNKNOWN) {
          if (++made > 64 && made * BYTES_PER_STATE > at) return this.#simulate(value, at, row);
          next = this.#step(row, number);
          table = this.#table;
        }
        if (next === MATCHED) return at;
        if (next === DEAD) return -1;
      }
      row = next;
    }
    let last = table[row + this.#classes] as number;
    if (last === UNKNOWN) last = this.#step(row, this.#classes);
    return last === MATCHED ? value.length : -1;
  }

  #begin(): number {
    const start = this.#start(EDGE);
    this.#first = start === undefined ? MATCHED : this.#row([], EDGE);
    return this.#first;
  }

  /** The row for these threads, made where there is none. */
  #row(threads: readonly number[], before: number): number {
    const key = String.fromCharCode(before, ...threads);
    const known = this.#rows.get(key);
    if (known !== undefined) return known;
    if (this.#threads.length > MOST_STATES) {
      this.#threads = [];
      this.#before = [];
      this.#rows = new Map();
      this.#table = new Int32Array(0);
      this.#first = UNKNOWN;
    }
    const state = this.#threads.length + 1;
    const row = state * this.#stride;
    if (row + this.#stride > this.#table.length) {
      const larger = new Int32Array(Math.max(16, 2 * state) * this.#stride);
      larger.set(this.#table);
      this.#table = larger;
    }
    this.#threads.push(threads);
    this.#before.push(before);
    this.#rows.set(key, row);
    return row;
  }

  /** Fills in one transition. A row that was forgotten meanwhile is not written to. */
  #step(row: number, number: number): number {
    const state = row / this.#stride - 1;
    const before = this.#before[state] as number;
    const threads = this.#advance(this.#threads[state] as readonly number[], before, number)?.toSorted(ascending);
    const rows = this.#rows;
    let next: number;
    if (threads === undefined) next = MATCHED;
    else if (number === this.#classes) next = DEAD;
    else {
      const kind = this.#kinds[number] as number;
      const begins = this.#start(kind);
      if (begins === undefined) next = MATCHED;
      else next = threads.length === 0 && !this.#mayBegin() ? DEAD : this.#row(threads, kind);
    }
    if (rows === this.#rows) this.#table[row + number] = next;
    return next;
  }

  /** The same without keeping states: for values that would need too many. */
  #simulate(value: string, at: number, row: number): number {
    const state = row / this.#stride - 1;
    const bytes = bytesOf(value);
    let threads = this.#threads[state] as readonly number[];
    let before = this.#before[state] as number;
    for (; at <= value.length; at++) {
      const number = at < value.length ? (this.#classOf[bytes[at] as number] as number) : this.#classes;
      const next = this.#advance(threads, before, number);
      if (next === undefined) return at;
      if (at === value.length) return -1;
      threads = next;
      before = this.#kinds[number] as number;
      if (this.#start(before) === undefined) return at + 1;
      if (threads.length === 0 && !this.#mayBegin()) return -1;
    }
    return -1;
  }

  /** Threads that begin at a place, by the kind of the byte before it; undefined: the empty match is one. */
  #start(before: number): readonly number[] | undefined {
    if (this.#startMatches[before] === undefined) {
      const threads: number[] = [];
      this.#startMatches[before] = this.#follow(0, before, -1, threads, new Set());
      this.#starts[before] = threads;
    }
    return this.#startMatches[before] ? undefined : (this.#starts[before] as readonly number[]);
  }

  /** Whether any thread can begin behind the first place: not where all must begin with the value. */
  #mayBegin(): boolean {
    return [OTHER, WORD, NEWLINE].some((before) => this.#start(before)?.length !== 0);
  }

  /** The threads behind a byte of class `number`; undefined: something matched. */
  #advance(threads: readonly number[], before: number, number: number): readonly number[] | undefined {
    const begun = this.#startStep(before, number);
    if (begun === null) return undefined;
    const next: number[] = [];
    const matched = this.#takeByte(threads, before, number, next);
    if (matched) return undefined;
    if (next.length === 0) return begun;
    for (const thread of begun) if (this.#marks[thread] !== this.#mark) next.push(thread);
    return next;
  }

  /** What becomes of the threads that begin before a byte of this class; null: one of them matches. Kept, as every state needs it. */
  #startStep(before: number, number: number): readonly number[] | null {
    const key = before * this.#stride + number;
    const known = this.#startSteps.get(key);
    if (known !== undefined) return known;
    const next: number[] = [];
    const matched = this.#takeByte(this.#start(before) ?? [], before, number, next);
    const step = matched ? null : next;
    this.#startSteps.set(key, step);
    return step;
  }

  /** Adds to `next` where the threads are after a byte of class `number`; true: one of them matches. */
  #takeByte(threads: readonly number[], before: number, number: number, next: number[]): boolean {
    const code = this.#code;
    const after = this.#kinds[number] as number;
    // First the tests that waited for what comes next.
    let ready = threads;
    if (this.#tests && threads.some((thread) => (code[thread] as number) >> 13 === Operation.Test)) {
      const through: number[] = [];
      const seen = new Set<number>();
      for (const thread of threads) if (this.#follow(thread, before, after, through, seen)) return true;
      ready = through;
    }
    this.#mark++;
    if (number === this.#classes) return false;
    const marks = this.#marks;
    const mark = this.#mark;
    for (const thread of ready) {
      const set = (code[thread] as number) & 0x1fff;
      if (this.#accepts[set * this.#classes + number] !== 1) continue;
      const reached = this.#reached(thread + 1, after);
      if (reached === null) return true;
      for (let at = 0; at < reached.length; at++) {
        const place = reached[at] as number;
        if (marks[place] === mark) continue;
        marks[place] = mark;
        next.push(place);
      }
    }
    return false;
  }

  /** Where a thread is that goes on at `place`, behind a byte of kind `before`; null: at the match. Kept, as long as it is not much. */
  #reached(place: number, before: number): readonly number[] | null {
    const key = 4 * place + before;
    const known = this.#reachable.get(key);
    if (known !== undefined) return known;
    const threads: number[] = [];
    const reached = this.#follow(place, before, -1, threads, new Set()) ? null : threads;
    this.#reachableSize += threads.length;
    if (this.#reachableSize < MOST_REACHABLE) this.#reachable.set(key, reached);
    return reached;
  }

  /**
   * Adds to `threads` all places from `at` on that wait for a byte, or, where `after` is not known yet (-1), for what comes next.
   * True: the match is reached.
   */
  #follow(at: number, before: number, after: number, threads: number[], seen: Set<number>): boolean {
    const code = this.#code;
    const waiting = [at];
    for (let place = waiting.pop(); place !== undefined; place = waiting.pop()) {
      if (seen.has(place)) continue;
      seen.add(place);
      const word = code[place] as number;
      switch (word >> 13) {
        case Operation.Byte:
          threads.push(place);
          break;
        case Operation.Split:
        case Operation.SplitLazy:
          waiting.push(code[place + 1] as number, place + 2);
          break;
        case Operation.Jump:
          waiting.push(code[place + 1] as number);
          break;
        case Operation.Save:
          waiting.push(place + 1);
          break;
        case Operation.Match:
          return true;
        default: {
          const holds = testHolds(word & 0x1fff, before, after);
          if (holds) waiting.push(place + 1);
          else if (holds === undefined) threads.push(place);
        }
      }
    }
    return false;
  }

  /** Whether no match begins at this place, as its first byte tells: so at nearly all. */
  #isDeadEnd(value: string, at: number): boolean {
    const before = at === 0 ? EDGE : kindOf(value.charCodeAt(at - 1));
    if (this.#start(before) === undefined) return false;
    return this.#startStep(before, this.#classOf[value.charCodeAt(at) & 0xff] as number)?.length === 0;
  }

  /** Tries as a backtracking engine does, but nothing twice: a place in the code at a place in the value either leads on or not. */
  #backtrack(value: string, from: number, to: number): (string | undefined)[] | undefined {
    const code = this.#code;
    const width = to - from + 1;
    const tried = triedOf(Math.ceil((code.length * width) / 32));
    const saved = new Int32Array(2 * this.groups + 2).fill(-1);
    // Pairs: a place in the code and one in the value; or, with the slot's complement, what to put back.
    const stack: number[] = [];
    for (let start = from; start <= to; start++) {
      if (start < to && this.#isDeadEnd(value, start)) continue;
      stack.push(0, start);
      while (stack.length > 0) {
        let at = stack.pop() as number;
        let place = stack.pop() as number;
        if (place < 0) {
          saved[~place] = at;
          continue;
        }
        for (;;) {
          const bit = place * width + (at - from);
          if (((tried[bit >> 5] as number) >>> (bit & 31)) & 1) break;
          tried[bit >> 5] = (tried[bit >> 5] as number) | (1 << (bit & 31));
          const word = code[place] as number;
          const operation = word >> 13;
          if (operation === Operation.Byte) {
            if (at >= to) break;
            const number = this.#classOf[value.charCodeAt(at) & 0xff] as number;
            if (this.#accepts[(word & 0x1fff) * this.#classes + number] !== 1) break;
            at++;
            place++;
          } else if (operation === Operation.Split) {
            stack.push(code[place + 1] as number, at);
            place += 2;
          } else if (operation === Operation.SplitLazy) {
            stack.push(place + 2, at);
            place = code[place + 1] as number;
          } else if (operation === Operation.Jump) {
            place = code[place + 1] as number;
          } else if (operation === Operation.Save) {
            const slot = word & 0x1fff;
            stack.push(~slot, saved[slot] as number);
            saved[slot] = at;
            place++;
          } else if (operation === Operation.Match) {
            const groups: (string | undefined)[] = [value.slice(start, at)];
            for (let slot = 2; slot < saved.length; slot += 2) {
              const [begun, ended] = [saved[slot] as number, saved[slot + 1] as number];
              groups.push(begun === -1 || ended === -1 ? undefined : value.slice(begun, ended));
            }
            return groups;
          } else {
            const kindBefore = at === 0 ? EDGE : kindOf(value.charCodeAt(at - 1));
            const kindAfter = at === value.length ? EDGE : kindOf(value.charCodeAt(at));
            if (!testHolds(word & 0x1fff, kindBefore, kindAfter)) break;
            place++;
          }
        }
      }
    }
    return undefined;
  }
}

let tried = new Uint32Array(1 << 10);

/** Zeroes, in an array that is used again. */
function triedOf(length: number): Uint32Array {
  if (length > tried.length) tried = new Uint32Array(2 * length);
  return tried.fill(0, 0, length);
}

const ascending = (a: number, b: number) => a - b;

function kindOf(byte: number): number {
  if (byte === 0x0a) return NEWLINE;
  const lower = byte | 0x20;
  return (lower >= 0x61 && lower <= 0x7a) || (byte >= 0x30 && byte <= 0x39) || byte === 0x5f ? WORD : OTHER;
}

/** Whether a test holds between two neighbours; undefined: that depends on the one behind, which is not known yet (-1). */
function testHolds(test: number, before: number, after: number): boolean | undefined {
  if (test === TestKind.Start) return before === EDGE;
  if (test === TestKind.LineStart) return before === EDGE || before === NEWLINE;
  if (after === -1) return undefined;
  if (test === TestKind.End) return after === EDGE;
  if (test === TestKind.LineEnd) return after === EDGE || after === NEWLINE;
  return ((before === WORD) !== (after === WORD)) === (test === TestKind.WordBoundary);
}
