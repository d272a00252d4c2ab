/** Sets of values of one header, query parameter or cookie, or of its absence. */
import type { ValueMatch } from "../table/table.ts";
import { type Automaton, shortestWord } from "./automaton.ts";
import type { Doubt } from "./doubt.ts";
import { wholeMatch } from "./path-set.ts";
import { regexLanguage } from "./regex-language.ts";

export type Part = "header" | "query" | "cookie";

/** A condition, and what of the request it is on. */
export interface Condition extends ValueMatch {
  readonly of: Part;
}

/** Whether the condition holds for a value; null: there is none. */
export function hasValue({ exact, regex }: ValueMatch, value: string | null): boolean {
  if (value === null) return false;
  if (exact !== undefined) return value === exact;
  return regex === undefined || wholeMatch(regex).test(value);
}

export type Value = { readonly found: string | null } | "empty" | Doubt;

/** A value for which all of `within` hold and none of `without`. */
export function valueIn(of: Part, within: readonly ValueMatch[], without: readonly ValueMatch[]): Value {
  // What is not there fulfils no condition.
  if (within.length === 0) return { found: null };
  const isWanted = (value: string) =>
    within.every((one) => hasValue(one, value)) && !without.some((one) => hasValue(one, value));
  const literal = within.find(({ exact }) => exact !== undefined)?.exact;
  if (literal !== undefined) {
    if (!isWanted(literal)) return "empty";
    return SENDABLE[of].test(literal) ? { found: literal } : POSSIBLE[of].test(literal) ? "value" : "empty";
  }
  if (without.some(({ exact, regex }) => exact === undefined && regex === undefined)) return "empty";
  for (const value of ["1", "x", ...without.map((_, i) => `x${i}`)]) if (isWanted(value)) return { found: value };
  const inside = within.flatMap(({ regex }) => (regex === undefined ? [] : [regexLanguage(regex)]));
  const outside = without.map(({ exact, regex }) => regexLanguage(regex ?? literally(exact as string)));
  const known = (automata: readonly (Automaton | undefined)[]) => automata.filter((one) => one !== undefined);
  // Fewer conditions have more values: what is empty without some of them is empty.
  const search = (universe: RegExp) =>
    shortestWord([regexLanguage(universe.source) as Automaton, ...known(inside)], known(outside));
  const plain = search(SENDABLE[of]);
  if (typeof plain === "object" && isWanted(plain.found)) return plain;
  const possible = search(POSSIBLE[of]);
  if (typeof possible === "string") return possible;
  return [...inside, ...outside].includes(undefined) ? "regex" : "value";
}

/** The regex of that text alone. */
export const literally = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");

/**
 * Values that surely arrive as they are sent: of headers visible ASCII with blanks inside (RFC 9110, 5.5), of cookies without what ends
 * or quotes them (RFC 6265, 4.1.1). A query can say any text in percent escapes.
 */
const SENDABLE: Readonly<Record<Part, RegExp>> = {
  header: /^(?:[!-~](?:[ -~]*[!-~])?)?$/,
  query: /^[ -\uD7FF\uE000-\uFFFD]*$/,
  cookie: /^[!#-+\--:<-[\]-~]*$/,
};

/** Values that might; what is none of them is none that a request has. Line ends and zeros are in no header. */
const POSSIBLE: Readonly<Record<Part, RegExp>> = {
  header: /^(?:[^\0\n\r \t](?:[^\0\n\r]*[^\0\n\r \t])?)?$/,
  query: /^[\0-\uFFFF]*$/,
  cookie: /^[^\0\n\r;]*$/,
};
