/**
 * Finds all of some thousand words in one pass over a value, in any ASCII case (Aho and Corasick, 1975). The automaton knows the
 * beginnings of words, and compares the rest where one is found. The tables hold the tree of beginnings in breadth-first order, 2
 * bytes for each of its states; the transitions, 1 MB for the Core Rule Set, are made from it where they are first needed, in some
 * milliseconds. src/seclang/automaton.ts writes them:
 *
 *     version, 1 byte; 0, 1 byte; states, words that end, each 2 bytes, the low one first
 *     256 bytes      the class of each byte; 0: in no beginning
 *     states bytes   how many children each state has; they follow each other
 *     states bytes   the class that leads to each state from its parent
 *     states words   how many words' beginnings end in each state
 *     ends words     the number of each of these words, in the states' order
 *     ends bytes     the length of each one's rest
 *     bytes          the rests, in lower case
 *
 * Of these words all low bytes stand before all high ones: gzip makes a third less of them than of pairs.
 */
import { bufferFor } from "./bytes.ts";
import { Detector, FOUND } from "./detector.ts";

export const AUTOMATON_VERSION = 2;

/** In a transition: some word ends in the state that it leads to. */
const ENDS = 0x8000;
export const MOST_STATES = ENDS - 1;

export class Automaton {
  readonly #tables: Uint8Array;
  readonly #masks: Int32Array;
  readonly #kinds: Int32Array;
  /** The second of the masks of the value that was scanned last, or-ed. */
  kinds = 0;
  #made: Made | undefined;
  #scans = 0;

  /**
   * @param tables kept, not copied
   * @param masks by byte: bits that say something of a value which has that byte; none, unless given
   * @param kinds more of them, as 32 are not enough
   */
  constructor(tables: Uint8Array, masks: Int32Array = new Int32Array(256), kinds: Int32Array = new Int32Array(256)) {
    if (tables[0] !== AUTOMATON_VERSION) throw new Error(`an automaton of version ${tables[0]}: build again`);
    this.#tables = tables;
    this.#masks = masks;
    this.#kinds = kinds;
  }

  /**
   * Calls `hit` with the number of each word in `value`, once.
   * @param value a latin1 string, one character per byte
   * @returns the masks of all its bytes, or-ed
   */
  scan(value: string, hit: (word: number) => void): number {
    const { transitions, shift } = (this.#made ??= make(this.#tables));
    const masks = this.#masks;
    const kinds = this.#kinds;
    let kindsSeen = 0;
    const classOf = this.#tables;
    const bytes = bufferFor(value);
    const { length } = value;
    this.#scans++;
    let seen = 0;
    let state = 0;
    for (let at = 0; at < length; at++) {
      const byte = value.charCodeAt(at) & 0xff;
      bytes[at] = byte;
      seen |= masks[byte] as number;
      kindsSeen |= kinds[byte] as number;
      state = transitions[(state << shift) + (classOf[byte + HEADER] as number)] as number;
      if (state > MOST_STATES) {
        state &= MOST_STATES;
        this.#report(state, value, at + 1, hit);
      }
    }
    this.kinds = kindsSeen;
    return seen;
  }

  /** For one question: whether a value has one of the words that are `wanted`, by number; of a long word its beginning is enough. */
  detector(wanted: readonly boolean[]): Detector {
    const { transitions, shift, firstEnd, ends, shorter } = (this.#made ??= make(this.#tables));
    const tells = new Uint8Array(shorter.length);
    // A state's shorter one stands before it.
    for (let state = 1; state < tells.length; state++) {
      tells[state] = tells[shorter[state] as number] as number;
      for (let end = firstEnd[state] as number; end < (firstEnd[state + 1] as number); end++)
        if (wanted[ends[end] as number]) tells[state] = 1;
    }
    const states = transitions.slice();
    for (let at = 0; at < states.length; at++) {
      const to = states[at] as number;
      if (to > MOST_STATES) states[at] = tells[to & MOST_STATES] ? FOUND : to & MOST_STATES;
    }
    return new Detector(states, shift, this.#tables.slice(HEADER, HEADER + 256));
  }

  #report(state: number, value: string, at: number, hit: (word: number) => void): void {
    const { firstEnd, ends, shorter, rests, nexts, foundIn } = this.#made as Made;
    const scan = this.#scans;
    const next = at < value.length ? lowered(value.charCodeAt(at)) : NONE;
    for (let ending = state; ending !== 0; ending = shorter[ending] as number) {
      for (let end = firstEnd[ending] as number; end < (firstEnd[ending + 1] as number); end++) {
        // A hundred words begin like `http://`, so that the next byte is worth a look of its own.
        const wanted = nexts[end] as number;
        if ((wanted !== next && wanted !== NONE) || foundIn[end] === scan) continue;
        if (!this.#continues(rests[end] as number, rests[end + 1] as number, value, at)) continue;
        foundIn[end] = scan;
        hit(ends[end] as number);
      }
    }
  }

  /** Whether the tables' bytes from `from` to `to` are the value's from `at` on. */
  #continues(from: number, to: number, value: string, at: number): boolean {
    if (at + to - from > value.length) return false;
    const tables = this.#tables;
    for (let rest = from; rest < to; rest++, at++) {
      if (tables[rest] !== lowered(value.charCodeAt(at))) return false;
    }
    return true;
  }
}

const lowered = (byte: number): number => (byte >= 0x41 && byte <= 0x5a ? byte | 0x20 : byte);

const HEADER = 6;
/** In place of a byte: there is none. */
const NONE = 0x100;

interface Made {
  readonly transitions: Uint16Array;
  /** log2 of a row's length. */
  readonly shift: number;
  /** By state: where its words begin in `ends`. */
  readonly firstEnd: Uint16Array;
  readonly ends: Uint16Array;
  /** By place in `ends`, and one more: where in the tables the rest of its word begins. */
  readonly rests: Uint32Array;
  /** By place in `ends`: the first byte of that rest. */
  readonly nexts: Uint16Array;
  /** By place in `ends`: the last scan that found it. */
  readonly foundIn: Float64Array;
  /** By state: the longest suffix of it in which a word ends, or 0. */
  readonly shorter: Uint16Array;
}

function make(tables: Uint8Array): Made {
  const word = (at: number) => (tables[at] as number) | ((tables[at + 1] as number) << 8);
  const states = word(2);
  const endCount = word(4);
  const childCounts = HEADER + 256;
  const classes = childCounts + states;
  const endCounts = classes + states;
  const numbers = endCounts + 2 * states;
  const lengths = numbers + 2 * endCount;
  const halves = (at: number, count: number) => (tables[at] as number) | ((tables[at + count] as number) << 8);
  const firstEnd = new Uint16Array(states + 1);
  for (let state = 0; state < states; state++)
    firstEnd[state + 1] = (firstEnd[state] as number) + halves(endCounts + state, states);
  const ends = new Uint16Array(endCount);
  const rests = new Uint32Array(endCount + 1);
  const nexts = new Uint16Array(endCount);
  rests[0] = lengths + endCount;
  for (let end = 0; end < endCount; end++) {
    const length = tables[lengths + end] as number;
    ends[end] = halves(numbers + end, endCount);
    rests[end + 1] = (rests[end] as number) + length;
    nexts[end] = length === 0 ? NONE : (tables[rests[end] as number] as number);
  }
  let most = 0;
  for (let byte = 0; byte < 256; byte++) most = Math.max(most, tables[HEADER + byte] as number);
  const shift = 32 - Math.clz32(most);
  const transitions = new Uint16Array(states << shift);
  const failure = new Uint16Array(states);
  const shorter = new Uint16Array(states);
  for (let state = 0, child = 1; state < states; state++) {
    const row = state << shift;
    const fallback = failure[state] as number;
    if (state > 0) {
      transitions.copyWithin(row, fallback << shift, (fallback + 1) << shift);
      shorter[state] = firstEnd[fallback] === firstEnd[fallback + 1] ? (shorter[fallback] as number) : fallback;
    }
    for (let left = tables[childCounts + state] as number; left > 0; left--, child++) {
      const at = row + (tables[classes + child] as number);
      // What stands there is where a value goes on that has all of this child's path but for its first bytes.
      failure[child] = (transitions[at] as number) & MOST_STATES;
      const endsHere = firstEnd[child] !== firstEnd[child + 1] || hasEnd(failure[child] as number);
      transitions[at] = child | (endsHere ? ENDS : 0);
    }
  }
  return { transitions, shift, firstEnd, ends, rests, nexts, foundIn: new Float64Array(endCount), shorter };

  function hasEnd(state: number): boolean {
    return firstEnd[state] !== firstEnd[state + 1] || shorter[state] !== 0;
  }
}
