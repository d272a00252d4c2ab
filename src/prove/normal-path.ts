/**
 * The paths that can reach the matcher at all, as an automaton: those that normalisePath (table/path.ts) leaves as they are, without
 * the gateway's own. What is refused with 400 before is no request of any route.
 */
import { type Automaton, DEAD, namedSets } from "./automaton.ts";
import type { CodeUnits } from "./code-units.ts";
import { regexLanguage } from "./regex-language.ts";

export const OWN_PATHS = "/.well-known/portcullis/";

/** Paths that begin so are answered before any route is looked for. */
export const ownPaths = (): Automaton => regexLanguage("/\\.well-known/portcullis/.*") as Automaton;

/**
 * Where in a segment: `slash` at its beginning, `part` at that of another part of it (behind an escaped slash), `dot` and `dots` behind
 * what would be `.` and `..` if it ended here, `name` behind anything else, `parameter` behind a semicolon.
 */
type Place = "start" | "slash" | "part" | "dot" | "dots" | "name" | "parameter";

/**
 * Within percent escapes: a nibble of a byte that is the first of `more` and one, or, with `least` and `most`, one that continues a
 * character (RFC 3629, 4). `percent`: a continuing byte must come.
 */
interface Escape {
  readonly at: "percent" | "high" | "low";
  readonly high?: number;
  readonly more: number;
  readonly least: number;
  readonly most: number;
  readonly first: boolean;
}

const ALPHABET: readonly CodeUnits[] = [..."/.;%0123456789ABCDEF"].map(
  (character): CodeUnits => [[character.charCodeAt(0), character.charCodeAt(0)]],
);

// pchar of RFC 3986, 3.3, in the order of their codes.
const PCHAR: CodeUnits = [..."!$&'()*+,-.0123456789:;=@ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"].map(
  (character) => [character.charCodeAt(0), character.charCodeAt(0)] as const,
);
const ACCEPTING = new Set<Place>(["slash", "part", "name", "parameter"]);

export class NormalPaths implements Automaton {
  readonly start: number;
  readonly sets = namedSets([...ALPHABET, PCHAR]);
  readonly #keepsSlashes: boolean;
  readonly #states: { place: Place; escaped?: Escape }[] = [];
  readonly #numbers = new Map<string, number>();
  readonly #steps = new Map<number, number>();

  constructor(escapedSlashes: "refuse" | "keep") {
    this.#keepsSlashes = escapedSlashes === "keep";
    this.start = this.#number({ place: "start" });
  }

  accepts(state: number): boolean {
    const { place, escaped } = this.#states[state] as { place: Place; escaped?: Escape };
    return !escaped && ACCEPTING.has(place);
  }

  step(state: number, unit: number): number {
    const key = state * 0x10000 + unit;
    const known = this.#steps.get(key);
    if (known !== undefined) return known;
    const next = this.#next(state, unit);
    this.#steps.set(key, next);
    return next;
  }

  #next(state: number, unit: number): number {
    const { place, escaped } = this.#states[state] as { place: Place; escaped?: Escape };
    const character = String.fromCharCode(unit);
    if (escaped) return this.#within(place, escaped, character);
    if (place === "start") return character === "/" ? this.#number({ place: "slash" }) : DEAD;
    if (character === "%")
      return this.#number({ place, escaped: { at: "high", more: 0, least: 0, most: 255, first: true } });
    if (!/[A-Za-z0-9\-._~!$&'()*+,;=:@/]/.test(character)) return DEAD;
    return this.#to(after(place, character));
  }

  #to(place: Place | undefined): number {
    return place === undefined ? DEAD : this.#number({ place });
  }

  #within(place: Place, escaped: Escape, character: string): number {
    if (escaped.at === "percent")
      return character === "%" ? this.#number({ place, escaped: { ...escaped, at: "high" } }) : DEAD;
    if (!/[0-9A-F]/.test(character)) return DEAD;
    const nibble = Number.parseInt(character, 16);
    if (escaped.at === "high") return this.#number({ place, escaped: { ...escaped, at: "low", high: nibble } });
    const byte = (escaped.high as number) * 16 + nibble;
    if (byte < escaped.least || byte > escaped.most) return DEAD;
    const named = place === "parameter" ? place : "name";
    if (!escaped.first) return this.#continued(named, escaped.more - 1);
    if (byte >= 0x80) {
      const begins = LEADS.find(({ first, last }) => byte >= first && byte <= last);
      return begins ? this.#number({ place, escaped: { at: "percent", first: false, ...begins.rest } }) : DEAD;
    }
    const plain = String.fromCharCode(byte);
    if (byte < 0x20 || byte === 0x7f || /[A-Za-z0-9\-._~]/.test(plain)) return DEAD;
    if (plain !== "/" && plain !== "\\") return this.#number({ place: named });
    if (!this.#keepsSlashes || place === "dot" || place === "dots") return DEAD;
    return this.#number({ place: place === "parameter" ? place : "part" });
  }

  #continued(place: Place, more: number): number {
    if (more === 0) return this.#number({ place });
    return this.#number({ place, escaped: { at: "percent", more, least: 0x80, most: 0xbf, first: false } });
  }

  #number(state: { place: Place; escaped?: Escape }): number {
    const { place, escaped } = state;
    const key = escaped
      ? [place, escaped.at, escaped.high, escaped.more, escaped.least, escaped.most, escaped.first].join()
      : place;
    let number = this.#numbers.get(key);
    if (number === undefined) {
      number = this.#states.push(state) - 1;
      this.#numbers.set(key, number);
    }
    return number;
  }
}

/** Undefined: no normal path goes on so. */
function after(place: Place, character: string): Place | undefined {
  const isDots = place === "dot" || place === "dots";
  if (character === "/") return isDots || place === "slash" ? undefined : "slash";
  if (place === "parameter") return place;
  if (character === ";") return isDots ? undefined : "parameter";
  if (character !== ".") return "name";
  return place === "slash" || place === "part" ? "dot" : place === "dot" ? "dots" : "name";
}

// First bytes of characters of several, with the range of the second one (RFC 3629, 4).
const LEADS = (
  [
    [0xc2, 0xdf, 1, 0x80, 0xbf],
    [0xe0, 0xe0, 2, 0xa0, 0xbf],
    [0xe1, 0xec, 2, 0x80, 0xbf],
    [0xed, 0xed, 2, 0x80, 0x9f],
    [0xee, 0xef, 2, 0x80, 0xbf],
    [0xf0, 0xf0, 3, 0x90, 0xbf],
    [0xf1, 0xf3, 3, 0x80, 0xbf],
    [0xf4, 0xf4, 3, 0x80, 0x8f],
  ] as const
).map(([first, last, more, least, most]) => ({ first, last, rest: { more, least, most } }));
