/** The parts of a SecRule: its variables, its operator and its actions, from text to what they say. */
import type { PackPattern, PackTarget, Template } from "../waf/pack.ts";
import { compileRegex } from "./regex.ts";

/** Throws with a message for people. */
export class Malformed extends Error {
  override readonly name = "Malformed";
}

export interface ParsedTarget extends PackTarget {
  /** Leaves these members out of the other targets on the same collection. */
  readonly excluded?: true;
}

/**
 * `ARGS|!ARGS:token|&REQUEST_HEADERS:Host|TX:/^header_/`: targets, with what they leave out folded into them. What is left out
 * counts for all targets on its collection, wherever it stands.
 */
export function parseTargets(text: string): PackTarget[] {
  const all = splitTargets(text).map(parseTarget);
  return withExclusions(
    all.filter(({ excluded }) => !excluded),
    all.filter(({ excluded }) => excluded),
  );
}

export function withExclusions(targets: readonly PackTarget[], exclusions: readonly ParsedTarget[]): PackTarget[] {
  return targets.flatMap((target) => {
    const those = exclusions.filter(({ collection }) => collection === target.collection);
    // Without a name, the collection as a whole.
    if (those.some(({ name, pattern }) => name === undefined && pattern === undefined)) return [];
    if (those.some(({ name }) => name !== undefined && name === target.name)) return [];
    if (those.length === 0) return [target];
    const except = [
      ...(target.except ?? []),
      ...those.map(({ name, pattern }) => (pattern ? { pattern } : { name: name as string })),
    ];
    return [{ ...target, except }];
  });
}

/** What stands in a regex or in quotation marks separates nothing. */
export function splitTargets(text: string, separators = "|"): string[] {
  const parts: string[] = [];
  let start = 0;
  let inside: string | undefined;
  for (let at = 0; at < text.length; at++) {
    const character = text[at] as string;
    if (inside !== undefined) {
      if (character === "\\") at++;
      else if (character === inside) inside = undefined;
    } else if (separators.includes(character)) {
      parts.push(text.slice(start, at));
      start = at + 1;
    } else if (
      text[at - 1] === ":" &&
      (character === "'" || (character === "/" && !/XML:$/i.test(text.slice(Math.max(0, at - 4), at))))
    ) {
      inside = character;
    }
  }
  parts.push(text.slice(start));
  return parts.map((part) => part.trim()).filter((part) => part !== "");
}

export function parseTarget(text: string): ParsedTarget {
  const [, sign, collection, selector] = /^([!&]?)\s*([A-Za-z0-9_]+)(?::([\s\S]+))?$/.exec(text) ?? [];
  if (collection === undefined)
    throw new Malformed(`"${text}" is no variable such as ARGS, ARGS:name or &REQUEST_HEADERS:Host`);
  const base = {
    collection: collection.toUpperCase(),
    ...(sign === "!" && { excluded: true as const }),
    ...(sign === "&" && { count: true as const }),
  };
  if (selector === undefined) return base;
  // XPath is case-sensitive, and begins with a slash as regexes do.
  if (base.collection === "XML") return { ...base, name: selector };
  const plain = /^'([\s\S]*)'$/.exec(selector)?.[1] ?? selector;
  const pattern = /^\/([\s\S]*)\/$/.exec(plain)?.[1];
  return pattern === undefined
    ? { ...base, name: plain.toLowerCase() }
    : { ...base, pattern: selectorPattern(pattern) };
}

const LONGEST_SELECTOR = 1_024;
const selectorPatterns = new Map<string, PackPattern>();

/** Names come from clients too, so that only what runs in linear time may look at them. In any case, as names are. */
function selectorPattern(source: string): PackPattern {
  let pattern = selectorPatterns.get(source);
  if (!pattern) {
    if (source.length > LONGEST_SELECTOR)
      throw new Malformed(`a selector's regular expression has at most ${LONGEST_SELECTOR} characters`);
    let compiled: ReturnType<typeof compileRegex>;
    try {
      compiled = compileRegex(`(?i)${source}`);
    } catch (error) {
      throw new Malformed(`the selector /${source}/ is no regular expression: ${(error as Error).message}`);
    }
    const { program, reason } = compiled;
    if (!program) throw new Malformed(`the selector /${source}/ does not run in linear time: ${reason}`);
    pattern = { source, program: [...program] };
    selectorPatterns.set(source, pattern);
  }
  return pattern;
}

export interface ParsedOperator {
  readonly name: string;
  readonly negated: boolean;
  readonly argument: string;
}

/** `!@rx ^a`; without an @ it is a regex. */
export function parseOperator(text: string): ParsedOperator {
  const [, sign, name, argument] = /^\s*(!?)\s*(?:@(\w+)(?:\s+|$))?([\s\S]*)$/.exec(text) ?? [];
  return { name: name ?? "rx", negated: sign === "!", argument: argument ?? "" };
}

export interface ParsedAction {
  /** In lower case. */
  readonly name: string;
  readonly value: string;
}

/** `id:1,t:none,msg:'a, b',setvar:'tx.a=+1'`. */
export function parseActions(text: string): ParsedAction[] {
  const actions: ParsedAction[] = [];
  let rest = text.trim();
  while (rest !== "") {
    const name = /^[A-Za-z]+/.exec(rest)?.[0];
    if (!name) throw new Malformed(`"${rest.slice(0, 40)}" is no action such as id:1 or t:lowercase`);
    rest = rest.slice(name.length).trimStart();
    let value = "";
    if (rest.startsWith(":")) {
      rest = rest.slice(1).trimStart();
      const quoted = /^'((?:\\.|[^'\\])*)'/s.exec(rest);
      if (quoted) {
        value = (quoted[1] as string).replaceAll("\\'", "'");
        rest = rest.slice(quoted[0].length);
      } else {
        if (rest.startsWith("'")) throw new Malformed(`the value of ${name} has no closing '`);
        value = /^[^,]*/.exec(rest)?.[0] ?? "";
        rest = rest.slice(value.length);
        value = value.trim();
      }
    }
    actions.push({ name: name.toLowerCase(), value });
    rest = rest.trimStart();
    if (rest !== "" && !rest.startsWith(",")) throw new Malformed(`there is no comma before "${rest.slice(0, 40)}"`);
    rest = rest.slice(1).trimStart();
  }
  return actions;
}

export interface ParsedCtl {
  readonly kind: string;
  readonly what: string;
  readonly target?: string | undefined;
}

/** The value of a ctl: `ruleRemoveTargetById=942100;ARGS:note`. */
export function parseCtl(text: string): ParsedCtl {
  const [, kind = "", what = "", target] = /^(\w+)=([^;]*)(?:;(.*))?$/s.exec(text.trim()) ?? [];
  return { kind, what, target };
}

/** `a %{TX.b}`: text with macros. */
export function parseTemplate(text: string): Template {
  const parts = text.split(/%\{([^{}]+)\}/).map((part, i) => (i % 2 === 0 ? part : { variable: variableName(part) }));
  const filled = parts.filter((part) => part !== "");
  return filled.every((part) => typeof part === "string") ? filled.join("") : (filled as Template);
}

/** `TX:foo`, `tx.Foo`: `tx.foo`, as variables are called at run time. */
export const variableName = (text: string): string => text.trim().replace(":", ".").toLowerCase();
