/** From a folder of rules to a rule pack: load, read, fold, number. */
import type { PackSettings, RulePack } from "../waf/pack.ts";
import type { Phase } from "../waf/request.ts";
import type { Patterns } from "./compile-operator.ts";
import { type RuleProblem, readDirectives } from "./directives.ts";
import { type Folded, fold } from "./fold.ts";
import { loadRules } from "./load.ts";
import { Packer } from "./packer.ts";
import { type RuleSet, readRuleSet, type SourceRule } from "./rule-set.ts";
import { DEFAULT_SETTINGS } from "./settings.ts";

export interface CompileOptions {
  /** A file of its own in place of the folder's crs-setup.conf. */
  readonly setup?: string;
  /** Files of rules that run before those of the folder, and after them. */
  readonly before?: readonly string[];
  readonly after?: readonly string[];
  /** Blocking paranoia level, 1 to 4. Default: the setup's. */
  readonly paranoia?: number;
  /** Rules of up to this level are asked and told of, but those above `paranoia` do not count. */
  readonly detection?: number;
  /** Score from which a request, or a response, is refused. */
  readonly threshold?: number;
  readonly responseThreshold?: number;
  /** Variables of `tx` by name, as the setup would set them. */
  readonly variables?: Readonly<Record<string, string>>;
  readonly settings?: Partial<PackSettings>;
  /** Default: 1 and 2, the request's. */
  readonly phases?: readonly Phase[];
  /** The pack says to people what its rules say, for tools. Default: false. */
  readonly messages?: boolean;
  /** How the rules' regexes are run. Default: `linear`. */
  readonly patterns?: Patterns;
  /** What cannot be compiled is left out, and listed. */
  readonly allowUnsupported?: boolean;
}

export interface CompiledRules {
  readonly pack: RulePack;
  /** What cannot be compiled. Without `allowUnsupported` the pack is not to be used when there is anything. */
  readonly problems: readonly RuleProblem[];
  /** With it: what was left out. */
  readonly warnings: readonly RuleProblem[];
  /** Rules that are in the pack, or have been carried out, and mean less here: their variables do not outlive the request. */
  readonly notes: readonly RuleProblem[];
  /** All rules that were read, by id, also those that the configuration has ruled out. */
  readonly catalog: ReadonlyMap<number, SourceRule>;
  readonly files: readonly string[];
  readonly counts: {
    readonly read: number;
    readonly folded: number;
    readonly compiled: number;
    readonly words: number;
  };
}

export function compileRules(folder: string, options: CompileOptions = {}): CompiledRules {
  const problems: RuleProblem[] = [];
  const warnings: RuleProblem[] = [];
  const refused = options.allowUnsupported ? warnings : problems;
  const loaded = loadRules(folder, options, (problem) => problems.push(problem));
  const { elements, settings } = readRuleSet(loaded.directives, (problem) => refused.push(problem));
  const own = unreadOf(elements);
  const rules = [...own, ...elements].filter((element) => element.kind === "rule");
  // The setup comes first, and the rest must find what the options say rather than what it says.
  const last = loaded.setup === undefined ? 0 : elements.findLastIndex(({ file }) => file === loaded.setup) + 1;
  const given = givenVariables(options, loaded.setup === undefined);
  const phases = options.phases ?? [1, 2];
  const overridden = [
    ...own,
    ...elements.slice(0, last).map((element) => overriding(element, given)),
    ...elements.slice(last),
  ];
  const folded = fold(overridden, given, phases);
  problems.push(...folded.problems);
  const { pack, words } = packed(
    folded,
    rules,
    { ...options, settings: { ...settings, ...options.settings } },
    refused,
  );
  return {
    pack,
    problems,
    warnings,
    notes: [...folded.notes, ...lostSkips(elements)],
    catalog: new Map(rules.map((rule) => [rule.id, rule])),
    files: loaded.files,
    counts: { read: rules.length, folded: folded.gone, compiled: pack.rules.length, words },
  };
}

/** Rules that skip to a marker which is not there: from the name's mistake on, the phase has no rules. */
function lostSkips(elements: RuleSet["elements"]): RuleProblem[] {
  const labels = new Set(elements.map((element) => element.kind === "marker" && element.label));
  return elements.flatMap((element) => {
    if (element.kind !== "rule" || element.skipAfter === undefined || labels.has(element.skipAfter)) return [];
    const { file, line, id, skipAfter } = element;
    const message = `skipAfter:${skipAfter} skips the rest of the phase, as no SecMarker has that name`;
    return [{ file, line, rule: id, message, fix: `add SecMarker ${skipAfter}, or name one that is there` }];
  });
}

/**
 * The one rule of modsecurity.conf, which comes with ModSecurity and not with the Core Rule Set, without which no other holds: what was
 * not read, as it is broken or beyond a limit, no rule sees. Not where the folder has one that asks the same.
 */
const UNREAD =
  'SecRule REQBODY_ERROR "!@eq 0" "id:200002,phase:2,t:none,deny,status:400,log,' +
  "msg:'The request cannot be read as a whole',logdata:'%{REQBODY_ERROR_MSG}',severity:2\"";

function unreadOf(elements: RuleSet["elements"]): RuleSet["elements"] {
  const asks = (element: RuleSet["elements"][number]) =>
    element.kind === "rule" &&
    (element.id === 200_002 ||
      element.links.some(({ targets }) => targets.some(({ collection }) => collection === "REQBODY_ERROR")));
  if (elements.some(asks)) return [];
  const never = ({ message }: RuleProblem) => {
    throw new Error(message);
  };
  return readRuleSet(readDirectives(UNREAD, import.meta.filename, never), never).elements;
}

/**
 * Rules that were not read from files but made here, as a pack. They are ours, so what is wrong with them is a defect.
 * @throws {Error}
 */
export function compileOwnRules(rules: readonly SourceRule[], options: PackingOptions): RulePack {
  const problems: RuleProblem[] = [];
  const { pack } = packed(fold(rules, new Map(), [1, 2]), rules, options, problems);
  const [problem] = problems;
  if (problem) throw new Error(`${problem.file}: rule ${problem.rule}: ${problem.message}`);
  return pack;
}

type PackingOptions = Pick<CompileOptions, "messages" | "settings" | "patterns">;

function packed(
  folded: Folded,
  rules: readonly SourceRule[],
  { messages = false, patterns = "linear", settings }: PackingOptions,
  refused: RuleProblem[],
): { pack: RulePack; words: number } {
  const { words, ...parts } = new Packer(folded, rules, { messages, patterns }, refused).pack();
  const pack: RulePack = {
    version: 1,
    variables: Object.fromEntries(folded.variables),
    settings: { ...DEFAULT_SETTINGS, ...settings },
    ...parts,
  };
  return { pack, words };
}

/** Both generations of names: those of the Core Rule Set 3 and 4. */
function givenVariables(options: CompileOptions, withoutSetup: boolean): Map<string, string> {
  const given = new Map<string, string>();
  const set = (value: number | undefined, ...names: string[]) => {
    if (value !== undefined) for (const name of names) given.set(`tx.${name}`, String(value));
  };
  if (withoutSetup) set(1, "crs_setup_version");
  set(options.paranoia, "paranoia_level", "blocking_paranoia_level");
  set(options.detection ?? options.paranoia, "executing_paranoia_level", "detection_paranoia_level");
  set(options.threshold, "inbound_anomaly_score_threshold");
  set(options.responseThreshold, "outbound_anomaly_score_threshold");
  for (const [name, value] of Object.entries(options.variables ?? {})) given.set(`tx.${name.toLowerCase()}`, value);
  return given;
}

/** A rule of the setup without the variables that the options give. */
function overriding<T extends { readonly kind: string }>(element: T, given: ReadonlyMap<string, string>): T {
  if (element.kind !== "rule") return element;
  const rule = element as unknown as SourceRule;
  const links = rule.links.map((link) => ({
    ...link,
    actions: link.actions.filter(
      ({ name, value }) => name !== "setvar" || !given.has((value.split("=", 1)[0] as string).trim().toLowerCase()),
    ),
  }));
  return { ...element, links };
}
