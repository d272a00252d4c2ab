/**
 * A rule pack: what the SecLang compiler (src/seclang/) emits and the engine runs. Plain data, but for the automaton's tables; rules
 * that the configuration rules out are not in it, and what a rule says only to people (messages, tags) is not either.
 */
import type { ComparisonName } from "./operators.ts";
import type { Phase } from "./request.ts";
import type { TransformationName } from "./transformations.ts";

export interface RulePack {
  readonly version: 1;
  /** What `tx` and the other collections of variables hold when a request begins, by full name in lower case: `tx.paranoia_level`. */
  readonly variables: Readonly<Record<string, string>>;
  readonly settings: PackSettings;
  /** Chains of transformations, each once: a shorter one, by its place here, and one more. The first is empty. */
  readonly chains: readonly PackChain[];
  /** Each once. */
  readonly operators: readonly PackOperator[];
  /** By phase, in the order in which they run. */
  readonly rules: readonly PackRule[];
  readonly prefilter: PackPrefilter;
  /** The automaton's (automaton.ts). */
  readonly tables: Uint8Array;
  /** Regexes for src/waf/linear-regex.ts. */
  readonly programs: readonly Uint16Array[];
}

export interface PackChain {
  readonly before: number;
  /** Absent: the empty chain. */
  readonly last?: TransformationName;
}

export interface PackSettings {
  readonly engine: "on" | "detection-only" | "off";
  readonly requestBody: boolean;
  readonly responseBody: boolean;
  /** Bytes. */
  readonly requestBodyLimit: number;
  readonly responseBodyLimit: number;
  /** Media types whose bodies phase 4 looks at. */
  readonly responseTypes: readonly string[];
  readonly argumentSeparator: string;
  readonly argumentsLimit: number;
  readonly jsonDepth: number;
}

export interface PackRule {
  readonly id: number;
  readonly phase: Phase;
  /** One, or those of a chain. All must match. */
  readonly links: readonly PackLink[];
  /** Absent: it is not told in records (`nolog`). */
  readonly log?: true;
  /** 0 (emergency) to 7 (debug). */
  readonly severity?: number;
  /** What happens when it matches; absent: the next rule. */
  readonly disrupt?: Disruption;
  /** The place in `rules` to go on at when it matches. */
  readonly skipTo?: number;
  /** What it says to people, in packs for tools: its `msg` and its `logdata`. */
  readonly message?: Template;
  readonly data?: Template;
}

export type Disruption =
  | { readonly action: "deny" | "drop"; readonly status: number }
  | { readonly action: "redirect"; readonly status: number; readonly location: Template }
  | { readonly action: "allow"; readonly scope: "phase" | "request" | "all" };

export interface PackLink {
  /** Absent: SecAction, which always matches. */
  readonly operator?: number;
  readonly negated?: true;
  readonly targets: readonly PackTarget[];
  /** The place in `chains`. */
  readonly chain: number;
  /** Keeps what the operator's groups matched in TX.0 to TX.9. */
  readonly capture?: true;
  /** Asks the operator after each transformation that changes something. */
  readonly multiMatch?: true;
  readonly actions: readonly PackAction[];
}

export interface PackTarget {
  readonly collection: Collection;
  /** One member, in lower case. */
  readonly name?: string;
  /** Members whose name this regex matches. */
  readonly pattern?: PackPattern;
  /** How many there are, rather than what they hold. */
  readonly count?: true;
  /** Members that are left out: by name in lower case, or by a regex. */
  readonly except?: readonly ({ readonly name: string } | { readonly pattern: PackPattern })[];
}

/** A regex over names, which clients choose as they do values: it runs in linear time as well (src/waf/linear-regex.ts). */
export interface PackPattern {
  /** As it was written; the same one has the same program. */
  readonly source: string;
  /** A place in the pack's `programs`; the program itself, in an exclusion, which is no part of the pack. */
  readonly program: number | readonly number[];
}

/** Text with macros: what is fixed and, in between, names of variables in lower case (`tx.0`, `matched_var`). */
export type Template = string | readonly (string | { readonly variable: string })[];

export type PackAction =
  /** `name` is a full name in lower case: `tx.sql_injection_score`. */
  | { readonly do: "set" | "add" | "subtract"; readonly name: Template; readonly value: Template }
  | { readonly do: "unset"; readonly name: Template }
  | { readonly do: "engine"; readonly mode: PackSettings["engine"] }
  | { readonly do: "body-processor"; readonly processor: BodyProcessor }
  | { readonly do: "request-body-variable"; readonly on: boolean }
  | { readonly do: "request-body-access" | "response-body-access"; readonly on: boolean }
  | { readonly do: "request-body-limit"; readonly bytes: number }
  /** Places in `rules`. */
  | { readonly do: "remove-rules"; readonly rules: readonly number[] }
  | { readonly do: "remove-target"; readonly rules: readonly number[]; readonly target: PackTarget };

export type BodyProcessor = "URLENCODED" | "MULTIPART" | "JSON" | "XML";

export type PackOperator =
  /** `program` is a place in `programs`, which src/waf/linear-regex.ts runs. */
  | { readonly op: "rx"; readonly program: number }
  /** For src/waf/windowed-regex.ts: a regex that only V8 can run. */
  | {
      readonly op: "rx-backtracking";
      readonly source: string;
      readonly flags: string;
      readonly window: number;
      readonly groups: readonly number[];
    }
  /** Matches where the automaton finds one of these words, or the value has one of the phrases that are too long for it, in any case. */
  | { readonly op: "pm"; readonly words: readonly number[]; readonly long?: readonly string[] }
  | { readonly op: "detectSQLi" | "detectXSS" | "validateUrlEncoding" | "validateUtf8Encoding" }
  | { readonly op: "unconditionalMatch" | "noMatch" }
  | { readonly op: "ipMatch"; readonly ranges: readonly string[] }
  /** A bit per byte that is allowed: 32 numbers of 8 bits. */
  | { readonly op: "validateByteRange"; readonly allowed: readonly number[] }
  | { readonly op: ComparisonName; readonly argument: Template }
  /**
   * Whether the value, `before` and `after` it what is written there, is within the argument, or one of `readers`, programs, matches it
   * with `as` before it. For guards alone (src/seclang/guard.ts).
   */
  | {
      readonly op: "notedWithin";
      readonly argument: string;
      readonly before: string;
      readonly after: string;
      readonly as: string;
      readonly readers: readonly number[];
    };

/**
 * Which rules need not be asked about a value: the operator of an atom can match only a value that has a word of each of its clauses,
 * and a character of each of its sets. A rule has atoms when its first link reads nothing but the request or the response, with an
 * operator that knows its argument: one, or two for values with and without unusual bytes, and with multiMatch as many per
 * transformation. An operator that says nothing of what it needs, or that is negated, is asked about all values, but of those that come
 * with every request only once. Rules without atoms are always asked.
 */
export interface PackPrefilter {
  /** By word of the automaton, what it is for: four times the atom's number, and the number of its clause, 0 to 3. */
  readonly clausesOfWord: readonly (readonly number[])[];
  /** Sets of characters, at most 32; a value's mask has a bit for each of which it has a character. */
  readonly sets: readonly string[];
  readonly atoms: readonly PackAtom[];
}

export interface PackAtom {
  readonly rule: number;
  /** What the operator sees. */
  readonly chain: number;
  /** What is scanned: the same, without what only changes the case of letters, since words are found in any case. */
  readonly scanned: number;
  /** How many clauses it has. */
  readonly clauses: number;
  /** Of each of these a value must have a bit. */
  readonly masks: readonly number[];
  /** An operator in place of the rule's: where it matches the rule is asked, as one without atoms is. */
  readonly guard?: number;
  /** A word alone makes the operator match. */
  readonly certain?: true;
  /** Bytes that a text must have to hold a word of each clause; absent: 1. */
  readonly least?: number;
}

/** Variables, by ModSecurity's names. */
export type Collection = string;
