/** Operators as the engine asks them: of a pack, each made when it is first needed. */
import { inRange, parseAddress } from "../table/cidr.ts";
import { detectSqli } from "./detect-sqli.ts";
import { detectXss } from "./detect-xss.ts";
import { LinearRegex } from "./linear-regex.ts";
import {
  comparisons,
  prepareIpMatch,
  validateByteRange,
  validateUrlEncoding,
  validateUtf8Encoding,
} from "./operators.ts";
import type { PackOperator, Template } from "./pack.ts";
import { WindowedRegex } from "./windowed-regex.ts";

export interface Operator {
  /** `expand` fills in the macros of an argument that has some. */
  test(value: string, expand: (template: Template) => string): boolean;
  /** What TX.0 to TX.9 become, for a value that matches; absent: the whole value is TX.0. */
  captures?(value: string): readonly (string | undefined)[];
}

/** `finds` says whether the automaton finds one of these words in a value. */
export function operatorOf(
  packed: PackOperator,
  programs: readonly Uint16Array[],
  finds: (value: string, words: ReadonlySet<number>) => boolean,
): Operator {
  switch (packed.op) {
    case "rx":
      return regexOperator(new LinearRegex(programs[packed.program] as Uint16Array));
    case "rx-backtracking":
      return regexOperator(new WindowedRegex(packed.source, packed.flags, packed.window, packed.groups));
    case "pm": {
      const words = new Set(packed.words);
      const { long = [] } = packed;
      return {
        test: (value) =>
          finds(value, words) || (long.length > 0 && long.some((phrase) => value.toLowerCase().includes(phrase))),
      };
    }
    case "detectSQLi": {
      // Who matches captures, of the same value.
      const detect = rememberingLast(detectSqli);
      return { test: (value) => detect(value) !== undefined, captures: (value) => [detect(value)] };
    }
    case "detectXSS":
      return { test: detectXss };
    case "validateUrlEncoding":
      return { test: validateUrlEncoding };
    case "validateUtf8Encoding":
      return { test: validateUtf8Encoding };
    case "validateByteRange":
      return { test: (value) => validateByteRange(value, packed.allowed) };
    case "unconditionalMatch":
      return { test: () => true };
    case "noMatch":
      return { test: () => false };
    case "ipMatch": {
      const ranges = prepareIpMatch(packed.ranges.join(","));
      // Requests of one connection, and of one proxy, have the same address.
      return {
        test: rememberingLast((value) => {
          const address = parseAddress(value);
          return address !== undefined && ranges.some((range) => inRange(address, range));
        }),
      };
    }
    case "notedWithin": {
      const { argument, before, after, as } = packed;
      const readers = packed.readers.map((program) => new LinearRegex(programs[program] as Uint16Array));
      return {
        test: (value) =>
          argument.includes(before + value + after) || readers.some((reader) => reader.test(as + value.toLowerCase())),
      };
    }
    default: {
      const compare = comparisons[packed.op];
      const { argument } = packed;
      if (typeof argument === "string") return { test: (value) => compare(value, argument) };
      return { test: (value, expand) => compare(value, expand(argument)) };
    }
  }
}

function rememberingLast<Known>(of: (value: string) => Known): (value: string) => Known {
  let last: { readonly value: string; readonly known: Known } | undefined;
  return (value) => {
    if (last?.value !== value) last = { value, known: of(value) };
    return last.known;
  };
}

function regexOperator(regex: LinearRegex | WindowedRegex): Operator {
  return { test: (value) => regex.test(value), captures: rememberingLast((value) => regex.exec(value) ?? []) };
}
