/** An operator with its argument, from text to what the engine runs, and what a value must hold for it to match at all. */
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { SQLI_CHARACTERS, SQLI_SEPARATORS, SQLI_WORDS } from "../waf/detect-sqli.ts";
import { XSS_CHARACTERS } from "../waf/detect-xss.ts";
import { comparisons, prepareByteRange, prepareIpMatch } from "../waf/operators.ts";
import type { PackOperator, Template } from "../waf/pack.ts";
import { type TransformationName, transformations } from "../waf/transformations.ts";
import { type CompiledRegex, compileRegex } from "./regex.ts";
import { lowerCase } from "./regex-literals.ts";
import { regexSource } from "./regex-source.ts";
import { parseRegex } from "./regex-syntax.ts";
import { Malformed, type ParsedOperator } from "./rule-text.ts";
import { tellingWords } from "./telling-words.ts";

/** What a value must have for the operator to match: a word of each clause, in any ASCII case. */
export type Needs = readonly (readonly string[])[];

export interface CompiledOperator {
  /** Words and programs stand here as they are: compile.ts numbers them. */
  readonly operator: PackOperator | { readonly op: "rx"; readonly regex: CompiledRegex } | PhraseOperator;
  /** Absent: any value might match. */
  readonly needs?: Needs;
  /** What is enough in place of `needs`. */
  readonly orNeeds?: Needs;
  /** What a value without an unusual byte must have (regex-literals.ts), where that tells more; `[[]]`, which none has: it never matches. */
  readonly plainNeeds?: Needs;
}

export interface PhraseOperator {
  readonly op: "pm";
  readonly phrases: readonly string[];
}

/** In bytes, of those that the automaton finds (automaton.ts). */
export const LONGEST_PHRASE = 255;

const NAMES = new Map(Object.keys(transformations).map((name) => [name.toLowerCase(), name as TransformationName]));

/** By its name in any case. */
export const transformationNamed = (name: string): TransformationName | undefined => NAMES.get(name.toLowerCase());

const COMPARISONS = new Map(
  Object.keys(comparisons).map((name) => [name.toLowerCase(), name as keyof typeof comparisons]),
);

/**
 * `linear`: src/waf/linear-regex.ts runs whatever it can. `proven`: V8 runs them all, as somebody has proved that each takes time linear
 * in the value; then a pack holds their text, which is a third of their programs, and is to be as small as it can.
 */
export type Patterns = "linear" | "proven";

/**
 * `argument` is the operator's, with the macros that are known at build filled in. Throws Malformed for what cannot be compiled.
 */
export function compileOperator(
  { name }: ParsedOperator,
  argument: Template,
  file: string,
  patterns: Patterns = "linear",
): CompiledOperator {
  const lower = name.toLowerCase();
  const comparison = COMPARISONS.get(lower);
  if (comparison) return { operator: { op: comparison, argument }, ...needsOf(comparison, argument) };
  if (typeof argument !== "string")
    throw new Malformed(`the argument of @${name} has a macro whose value is known only at run time`);
  switch (lower) {
    case "rx": {
      if (patterns === "proven") return provenRegex(argument);
      const regex = compiledRegex(argument);
      // Whatever the value is, it is all of it.
      if (argument === "^.*$" || argument === ".*") return { operator: { op: "unconditionalMatch" } };
      return {
        operator: { op: "rx", regex },
        ...(regex.literals.length > 0 && { needs: regex.literals }),
        plainNeeds: regex.literalsOfPlain ?? [[]],
      };
    }
    case "pm":
      return phrases(argument.trim().split(/\s+/).map(withBytes));
    case "pmf":
    case "pmfromfile":
      return phrases(
        argument
          .trim()
          .split(/\s+/)
          .flatMap((data) => linesOf(data, file)),
      );
    case "detectsqli":
      return {
        operator: { op: "detectSQLi" },
        needs: [[...SQLI_CHARACTERS], [...SQLI_SEPARATORS]],
        orNeeds: [SQLI_WORDS],
      };
    case "detectxss":
      return { operator: { op: "detectXSS" }, needs: [[...XSS_CHARACTERS]] };
    case "validateurlencoding":
      return { operator: { op: "validateUrlEncoding" }, needs: [["%"]] };
    case "validateutf8encoding":
      return { operator: { op: "validateUtf8Encoding" }, needs: [bytesWhere((code) => code > 127)] };
    case "validatebyterange": {
      const allowed = prepared(() => prepareByteRange(argument));
      const isAllowed = (code: number) => (((allowed[code >> 3] as number) >> (code & 7)) & 1) === 1;
      return {
        operator: { op: "validateByteRange", allowed },
        needs: [bytesWhere((code) => !isAllowed(code))],
      };
    }
    case "ipmatch":
      return ipMatch(argument);
    case "ipmatchf":
    case "ipmatchfromfile":
      return ipMatch(linesOf(argument.trim(), file).join(","));
    case "unconditionalmatch":
      return { operator: { op: "unconditionalMatch" } };
    case "nomatch":
      return { operator: { op: "noMatch" } };
    default:
      throw new Malformed(`the operator @${name} is not supported`);
  }
}

const regexes = new Map<string, CompiledRegex>();

/** One pattern often stands in several rules, and to compile one may take milliseconds. */
function compiledRegex(pattern: string): CompiledRegex {
  let regex = regexes.get(pattern);
  if (!regex) {
    regex = prepared(() => compileRegex(pattern));
    regexes.set(pattern, regex);
  }
  return regex;
}

/** Without a word that tells something, nothing is needed: the regex is asked about every value. */
function provenRegex(pattern: string): CompiledOperator {
  const parsed = prepared(() => parseRegex(pattern));
  const { source, flags, groups } = regexSource(parsed);
  return {
    operator: { op: "rx-backtracking", source, flags, window: 0, groups },
    needs: tellingWords(parsed.node),
  };
}

function needsOf(comparison: keyof typeof comparisons, argument: Template): { needs?: Needs } {
  if (typeof argument !== "string" || argument === "" || argument.length > 200) return {};
  const holdsIt = ["streq", "contains", "containsWord", "beginsWith", "endsWith", "strmatch"].includes(comparison);
  return holdsIt ? { needs: [[lowerCase(argument)]] } : {};
}

function phrases(all: readonly string[]): CompiledOperator {
  const words = [...new Set(all.map(lowerCase))].filter((word) => word !== "");
  if (words.length === 0) throw new Malformed("the operator has no phrase to look for");
  return {
    operator: { op: "pm", phrases: words },
    needs: [words.map((word) => word.slice(0, LONGEST_PHRASE))],
  };
}

function ipMatch(argument: string): CompiledOperator {
  prepared(() => prepareIpMatch(argument));
  return { operator: { op: "ipMatch", ranges: argument.split(",").map((range) => range.trim()) } };
}

/** Snort's bytes: `A|42 43|D`. */
const withBytes = (phrase: string): string =>
  phrase.replace(/\|((?:[0-9a-f]{2}\s*)+)\|/gi, (_, bytes: string) =>
    bytes.replace(/\s+/g, "").replace(/../g, (byte) => String.fromCharCode(Number.parseInt(byte, 16))),
  );

/** Of a data file that lies beside the rules: a phrase per line, but for comments. Bytes as they are. */
function linesOf(data: string, file: string): string[] {
  let text: string;
  try {
    text = readFileSync(join(dirname(file), data), "latin1");
  } catch {
    throw new Malformed(`there is no file ${data} beside the rule's`);
  }
  return text
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"));
}

function prepared<T>(prepare: () => T): T {
  try {
    return prepare();
  } catch (error) {
    throw new Malformed((error as Error).message);
  }
}

function bytesWhere(holds: (code: number) => boolean): string[] {
  return Array.from({ length: 256 }, (_, code) => (holds(code) ? String.fromCharCode(code) : "")).filter(
    (byte) => byte !== "",
  );
}
