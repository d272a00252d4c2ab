/**
 * Sets of normal paths, as routes ask for them: a path that is in all of some and in none of others, or that there is none. Paths of
 * whole segments are compared segment by segment; only where a regex takes part are automata needed.
 */
import { isParameter, segmentsOf } from "../table/match.ts";
import type { GatewaySettings, PathMatch } from "../table/table.ts";
import { type Automaton, shortestWord } from "./automaton.ts";
import type { Doubt } from "./doubt.ts";
import { NormalPaths, OWN_PATHS, ownPaths } from "./normal-path.ts";
import { regexLanguage } from "./regex-language.ts";

/** `open`: a prefix, which any segments may follow. */
interface Segments {
  readonly segments: readonly string[];
  readonly open: boolean;
}

const parsed = new WeakMap<PathMatch, Segments>();

function segmentsFor(match: PathMatch): Segments {
  let segments = parsed.get(match);
  if (!segments) {
    const open = match.kind === "prefix";
    segments = { segments: segmentsOf(open ? match.value.replace(/\/$/, "") : match.value), open };
    parsed.set(match, segments);
  }
  return segments;
}

const regexes = new Map<string, RegExp>();

/** The whole value, as the matcher has it. */
export function wholeMatch(source: string): RegExp {
  let regex = regexes.get(source);
  if (!regex) {
    regex = new RegExp(`^(?:${source})$`);
    regexes.set(source, regex);
  }
  return regex;
}

/** Whether the matcher takes `path` for one of `match`. */
export function hasPath(match: PathMatch, path: string): boolean {
  if (match.kind === "regex") return wholeMatch(match.value).test(path);
  const { segments, open } = segmentsFor(match);
  const given = segmentsOf(path);
  if (open ? given.length < segments.length : given.length !== segments.length) return false;
  return segments.every((segment, i) => fits(segment, given[i] as string));
}

// A parameter is one segment that is not empty.
const fits = (declared: string, given: string): boolean =>
  isParameter(declared) ? given.length > 1 : declared === given;

export type FoundPath = { readonly found: string } | "empty" | Doubt;

/** A normal path that is in all of `within` and in none of `without`. */
export function pathIn(
  within: readonly PathMatch[],
  without: readonly PathMatch[],
  escapedSlashes: GatewaySettings["escapedSlashes"],
): FoundPath {
  const regexWithin = within.filter(({ kind }) => kind === "regex");
  const form = common(within.filter(({ kind }) => kind !== "regex").map(segmentsFor));
  if (!form) return "empty";
  const wanted = (path: string) =>
    regexWithin.every((one) => hasPath(one, path)) &&
    !without.some((one) => hasPath(one, path)) &&
    !path.startsWith(OWN_PATHS);
  const examples = leastCovered(form, without);
  for (const path of examples) if (wanted(path)) return { found: path };
  const regexWithout = without.filter(({ kind }) => kind === "regex");
  // A literal path is its own only example; and among whole segments those examples are all that have to be looked at.
  if (!form.open && !form.segments.some(isParameter)) return "empty";
  if (regexWithin.length + regexWithout.length === 0) return "empty";
  // What one of the regexes has by itself is known from before, and mostly is all that is needed.
  for (const regex of within.length + without.length > 1 ? regexWithin : []) {
    const word = pathIn([regex], [], escapedSlashes);
    if (word === "empty") return word;
    if (typeof word === "object" && wanted(word.found) && within.every((one) => hasPath(one, word.found))) return word;
  }
  const key = JSON.stringify([escapedSlashes, within, without]);
  let word = words.get(key);
  if (!word) {
    word = searched(within, without, escapedSlashes);
    // The same few paths meet again at every host and listener; a table of any size needs no more.
    if (words.size >= MOST_WORDS) words.clear();
    words.set(key, word);
  }
  return word;
}

const MOST_WORDS = 10_000;
const words = new Map<string, FoundPath>();

/** By automata. Where a regex has none, it can still be told that there is nothing even without it. */
function searched(
  within: readonly PathMatch[],
  without: readonly PathMatch[],
  escapedSlashes: GatewaySettings["escapedSlashes"],
): FoundPath {
  const known = (all: readonly PathMatch[]) => all.map(languageOf).filter((one) => one !== undefined);
  const [inside, outside] = [known(within), known(without)];
  const found = shortestWord([normalPaths[escapedSlashes], ...inside], [ownPaths(), ...outside]);
  if (typeof found === "string") return found;
  const holds = within.every((one) => hasPath(one, found.found)) && !without.some((one) => hasPath(one, found.found));
  return holds ? found : "regex";
}

const normalPaths = { refuse: new NormalPaths("refuse"), keep: new NormalPaths("keep") } as const;

const languages = new WeakMap<PathMatch, Automaton | undefined>();

function languageOf(match: PathMatch): Automaton | undefined {
  if (!languages.has(match)) languages.set(match, regexLanguage(sourceOf(match)));
  return languages.get(match);
}

function sourceOf(match: PathMatch): string {
  if (match.kind === "regex") return match.value;
  const { segments, open } = segmentsFor(match);
  const source = segments
    .map((segment) => (isParameter(segment) ? "/[^/]+" : segment.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&")))
    .join("");
  return open ? `${source}(?:/.*)?` : source;
}

/** What all of them have in common; undefined: nothing. */
function common(all: readonly Segments[]): Segments | undefined {
  let result: Segments = { segments: [], open: true };
  for (const one of all) {
    const [longer, shorter] = one.segments.length >= result.segments.length ? [one, result] : [result, one];
    if (longer.segments.length > shorter.segments.length && !shorter.open) return undefined;
    const segments: string[] = [];
    for (const [i, segment] of longer.segments.entries()) {
      const other = shorter.segments[i];
      if (other === undefined || other === segment) segments.push(segment);
      else if (isParameter(segment) && (isParameter(other) || other !== "/")) segments.push(other);
      else if (isParameter(other) && segment !== "/") segments.push(segment);
      else return undefined;
    }
    result = { segments, open: one.open && result.open };
  }
  return result;
}

/**
 * Paths of the form of which every other one is in at least the same of `others`, if those are of whole segments: where a segment is
 * free, one that nobody names is in the fewest. So if none of these is left, nothing is. One for each length that can make a difference,
 * with a slash at the end and without.
 */
function leastCovered({ segments, open }: Segments, others: readonly PathMatch[]): string[] {
  const named = new Set<string>();
  let longest = segments.length;
  for (const other of others) {
    if (other.kind === "regex") continue;
    const form = segmentsFor(other);
    longest = Math.max(longest, form.segments.length);
    for (const segment of form.segments) named.add(segment);
  }
  let free = "/x";
  for (let i = 1; named.has(free); i++) free = `/x${i}`;
  const filled = segments.map((segment) => (isParameter(segment) ? free : segment)).join("");
  if (!open) return [filled];
  const examples: string[] = [];
  for (let path = filled, length = segments.length; length <= longest + 1; path += free, length++) {
    if (path !== "") examples.push(path);
    examples.push(`${path}/`);
  }
  return examples;
}
