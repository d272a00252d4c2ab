/** From a folder of rules to a rule pack: load, read, fold, number. */
import { COLLECTIONS } from "../waf/collections.ts";
import type {
  Disruption,
  PackAction,
  PackAtom,
  PackChain,
  PackLink,
  PackOperator,
  PackPattern,
  PackRule,
  PackSettings,
  PackTarget,
  RulePack,
} from "../waf/pack.ts";
import type { Phase } from "../waf/request.ts";
import type { TransformationName } from "../waf/transformations.ts";
import { automatonTables } from "./automaton.ts";
import { type CompiledOperator, compileOperator, LONGEST_PHRASE, type Needs, type Patterns } from "./compile-operator.ts";
import type { RuleProblem } from "./directives.ts";
import { type Folded, type FoldedAction, type FoldedLink, type FoldedStep, fold, RULE_COLLECTIONS, rulesOfCtl } from "./fold.ts";
import { loadRules } from "./load.ts";
import { UNUSUAL } from "./regex-literals.ts";
import { ENGINE_MODES, readRuleSet, type SourceRule } from "./rule-set.ts";
import { Malformed, parseCtl, parseTarget, parseTemplate } from "./rule-text.ts";
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
  const rules = elements.filter((element) => element.kind === "rule");
  // The setup comes first, and the rest must find what the options say rather than what it says.
  const last = loaded.setup === undefined ? 0 : elements.findLastIndex(({ file }) => file === loaded.setup) + 1;
  const given = givenVariables(options, loaded.setup === undefined);
  const phases = options.phases ?? [1, 2];
  const overridden = [...elements.slice(0, last).map((element) => overriding(element, given)), ...elements.slice(last)];
  const folded = fold(overridden, given, phases);
  problems.push(...folded.problems);
  const { pack, words } = packed(folded, rules, { ...options, settings: { ...settings, ...options.settings } }, refused);
  return {
    pack,
    problems,
    warnings,
    notes: folded.notes,
    catalog: new Map(rules.map((rule) => [rule.id, rule])),
    files: loaded.files,
    counts: { read: rules.length, folded: folded.gone, compiled: pack.rules.length, words },
  };
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
  const { words, ...parts } = new Packer(folded.steps, rules, messages, patterns, refused).pack();
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

class Packer {
  readonly #steps: readonly FoldedStep[];
  readonly #sources: readonly SourceRule[];
  readonly #refused: RuleProblem[];
  readonly #chains: PackChain[] = [{ before: 0 }];
  readonly #operators = new Map<string, number>();
  readonly #operatorList: PackOperator[] = [];
  readonly #needs: Pick<CompiledOperator, "needs" | "plainNeeds" | "orNeeds">[] = [];
  readonly #programs: Uint16Array[] = [];
  readonly #programNumbers = new Map<Uint16Array, number>();
  /** By the source of a selector's regex, its program. */
  readonly #selectors = new Map<string, number>();
  readonly #words = new Map<string, number>();
  readonly #clausesOfWord: number[][] = [];
  readonly #sets: string[] = [];
  readonly #atoms: PackAtom[] = [];
  /** Sets of characters that count where another rule has a bit for them anyway. */
  readonly #besideWords: { readonly characters: string; readonly masks: number[] }[] = [];

  readonly #messages: boolean;
  readonly #patterns: Patterns;

  constructor(
    steps: readonly FoldedStep[],
    sources: readonly SourceRule[],
    messages: boolean,
    patterns: Patterns,
    refused: RuleProblem[],
  ) {
    this.#messages = messages;
    this.#patterns = patterns;
    this.#steps = steps;
    this.#sources = sources;
    this.#refused = refused;
  }

  pack(): Pick<RulePack, "chains" | "operators" | "rules" | "prefilter" | "tables" | "programs"> & { words: number } {
    const kept = this.#steps.map((step) => (step.kind === "rule" ? this.#links(step) : step));
    // A rule's number is how many come before it: what cannot be compiled has none.
    const numbers: number[] = [];
    let count = 0;
    for (const step of kept) {
      numbers.push(count);
      if (step?.kind === "rule") count++;
    }
    const rules: PackRule[] = [];
    for (const [at, step] of kept.entries()) {
      if (step?.kind !== "rule") continue;
      const { rule } = step;
      const number = rules.length;
      const skipTo = rule.skipAfter === undefined ? undefined : this.#skipTo(at, rule.skipAfter, numbers, count);
      const links = step.links.map((link, i) => this.#finished(link, step.folded[i] as FoldedLink, kept, numbers));
      const disrupt = disruptionOf(rule);
      rules.push({
        id: rule.id,
        phase: rule.phase,
        links,
        ...(rule.log && { log: true as const }),
        ...(rule.severity !== undefined && { severity: rule.severity }),
        ...(disrupt && { disrupt }),
        ...(skipTo !== undefined && { skipTo }),
        ...(this.#messages && { message: parseTemplate(rule.message), data: parseTemplate(rule.logdata) }),
      });
      this.#addAtoms(number, links[0] as PackLink, step.folded[0] as FoldedLink);
    }
    for (const { characters, masks } of this.#besideWords) {
      const at = this.#sets.indexOf(characters);
      if (at !== -1) masks.push(1 << at);
    }
    const words = [...this.#words.keys()];
    return {
      chains: this.#chains,
      operators: this.#operatorList,
      rules,
      prefilter: { clausesOfWord: this.#clausesOfWord, sets: this.#sets, atoms: this.#atoms },
      tables: automatonTables(words),
      programs: this.#programs,
      words: words.length,
    };
  }

  #links(step: FoldedStep & { kind: "rule" }): Kept | undefined {
    const { rule } = step;
    try {
      disruptionOf(rule);
      const links = step.links.map(({ source, argument, targets }): PackLink => {
        for (const { collection, name } of targets) checkTarget(collection, name);
        const negated = source.operator?.negated === true;
        const compiled = source.operator && compileOperator(source.operator, argument ?? "", source.file, this.#patterns);
        return {
          ...(compiled && { operator: this.#operator(compiled) }),
          ...(negated && { negated: true as const }),
          targets: targets.map((target) => this.#target(target)),
          chain: this.#chain(source.transformations),
          ...(source.capture && { capture: true as const }),
          ...(source.multiMatch && { multiMatch: true as const }),
          actions: [],
        };
      });
      for (const { actions } of step.links) for (const action of actions) checkAction(action);
      return { kind: "rule", rule, links, folded: step.links };
    } catch (error) {
      if (!(error instanceof Malformed)) throw error;
      const { file, line, id } = rule;
      this.#refused.push({
        file,
        line,
        rule: id,
        message: error.message,
        fix: "change the rule, or allow it to be left out: --allow-unsupported",
      });
      return undefined;
    }
  }

  #finished(
    link: PackLink,
    { actions }: FoldedLink,
    kept: readonly (Kept | FoldedStep | undefined)[],
    numbers: readonly number[],
  ): PackLink {
    const numberOf = (wanted: ReadonlySet<number>) =>
      kept.flatMap((step, at) => (step?.kind === "rule" && wanted.has(step.rule.id) ? [numbers[at] as number] : []));
    return { ...link, actions: actions.flatMap((action) => this.#action(action, numberOf)) };
  }

  #action(action: FoldedAction, numberOf: (ids: ReadonlySet<number>) => number[]): PackAction[] {
    if (action.do !== "ctl") return [action];
    const { kind, what, target } = parseCtl(action.action.value);
    const those = rulesOfCtl(kind, what, this.#sources);
    if (!those) return [settingCtl(kind, what) as PackAction];
    const rules = numberOf(new Set(those.map(({ id }) => id)));
    if (rules.length === 0) return [];
    return [
      target === undefined
        ? { do: "remove-rules", rules }
        : { do: "remove-target", rules, target: this.#target(parseTarget(target)) },
    ];
  }

  /** With its regexes among the pack's programs. */
  #target(target: PackTarget): PackTarget {
    const { pattern, except } = target;
    return {
      ...target,
      ...(pattern && { pattern: this.#pattern(pattern) }),
      ...(except && {
        except: except.map((one) => ("pattern" in one ? { pattern: this.#pattern(one.pattern) } : one)),
      }),
    };
  }

  #pattern({ source, program }: PackPattern): PackPattern {
    let number = this.#selectors.get(source);
    if (number === undefined) {
      number = typeof program === "number" ? program : this.#programs.push(Uint16Array.from(program)) - 1;
      this.#selectors.set(source, number);
    }
    return { source, program: number };
  }

  #skipTo(at: number, label: string, numbers: readonly number[], count: number): number {
    const { phase } = (this.#steps[at] as { rule: SourceRule }).rule;
    for (let next = at + 1; next < this.#steps.length; next++) {
      const step = this.#steps[next] as FoldedStep;
      if ((step.kind === "rule" ? step.rule.phase : step.phase) !== phase) return numbers[next] as number;
      if (step.kind === "marker" && step.label === label) return numbers[next] as number;
    }
    return count;
  }

  #chain(names: readonly TransformationName[]): number {
    let at = 0;
    for (const last of names) {
      const before = at;
      at = this.#chains.findIndex((chain) => chain.before === before && chain.last === last);
      if (at === -1) at = this.#chains.push({ before, last }) - 1;
    }
    return at;
  }

  #operator({ operator, needs, plainNeeds, orNeeds }: CompiledOperator): number {
    const packed = this.#packed(operator);
    const key = JSON.stringify(packed);
    let number = this.#operators.get(key);
    if (number === undefined) {
      number = this.#operatorList.push(packed) - 1;
      this.#operators.set(key, number);
      this.#needs.push({ ...(needs && { needs }), ...(plainNeeds && { plainNeeds }), ...(orNeeds && { orNeeds }) });
    }
    return number;
  }

  #packed(operator: CompiledOperator["operator"]): PackOperator {
    if ("phrases" in operator) {
      const long = operator.phrases.filter(({ length }) => length > LONGEST_PHRASE);
      const short = operator.phrases.filter(({ length }) => length <= LONGEST_PHRASE);
      return { op: "pm", words: short.map((phrase) => this.#word(phrase)), ...(long.length > 0 && { long }) };
    }
    if (!("regex" in operator)) return operator;
    const { program, source, flags, window = 0, groupsInV8 } = operator.regex;
    if (!program) return { op: "rx-backtracking", source, flags, window, groups: groupsInV8 };
    let number = this.#programNumbers.get(program);
    if (number === undefined) {
      number = this.#programs.push(program) - 1;
      this.#programNumbers.set(program, number);
    }
    return { op: "rx", program: number };
  }

  #word(word: string): number {
    let number = this.#words.get(word);
    if (number === undefined) {
      number = this.#words.size;
      this.#words.set(word, number);
      this.#clausesOfWord.push([]);
    }
    return number;
  }

  /** The atoms of a rule whose first link reads the request alone, with an operator that needs something. */
  #addAtoms(rule: number, link: PackLink, { source }: FoldedLink): void {
    if (link.operator === undefined || link.negated || link.targets.length === 0) return;
    const ofRequest = ({ collection, count }: PackTarget) =>
      !count && !RULE_COLLECTIONS.has(collection) && !collection.startsWith("MATCHED_");
    if (!link.targets.every(ofRequest)) return;
    const { orNeeds, ...needs } = this.#needs[link.operator] ?? {};
    const conditions = [...this.#conditions(needs), ...(orNeeds ? this.#conditions({ needs: orNeeds }) : [])];
    const operator = this.#operatorList[link.operator] as PackOperator;
    const { transformations: names } = source;
    const chains = link.multiMatch ? [[], ...names.map((_, i) => names.slice(0, i + 1))] : [names];
    for (const chain of chains) {
      for (const { clauses, masks } of conditions) {
        const least = Math.max(1, ...clauses.map((clause) => Math.min(...clause.map(({ length }) => length))));
        const atom = this.#atoms.push({
          rule,
          chain: this.#chain(chain),
          scanned: this.#chain(scannedOf(chain)),
          clauses: clauses.length,
          masks,
          ...(least > 1 && { least }),
          ...(operator.op === "pm" && !operator.long && clauses.length > 0 && { certain: true as const }),
        });
        for (const [number, clause] of clauses.entries())
          for (const word of clause) this.#clausesOfWord[this.#word(word)]?.push(4 * (atom - 1) + number);
      }
    }
  }

  /**
   * One of these a value fulfils that the operator matches on. Where what all values need tells little, as with most rules against
   * commands in disguise, plain values and those with an unusual byte are told apart.
   */
  #conditions({ needs, plainNeeds }: Pick<CompiledOperator, "needs" | "plainNeeds">): Condition[] {
    const isWeak = (needs ?? []).every((clause) => {
      const characters = charactersOf(clause);
      return characters === undefined ? clause.some(({ length }) => length < 3) : isCommon(characters);
    });
    const tellsMore = plainNeeds?.some((clause) => clause.every(({ length }) => length > 1));
    const unusual = isWeak && tellsMore ? this.#bit(UNUSUAL.join("")) : undefined;
    if (unusual === undefined || !plainNeeds) return needs ? [this.#condition(needs)] : [];
    const rare = (needs ?? []).filter((clause) => !clause.some((word) => /^[a-z0-9]$/.test(word)));
    const { clauses, masks } = this.#condition(rare);
    const ofUnusual = { clauses, masks: [unusual, ...masks] };
    return plainNeeds.some(({ length }) => length === 0) ? [ofUnusual] : [ofUnusual, this.#condition(plainNeeds)];
  }

  #condition(needs: Needs): Condition {
    const telling = needs.find((clause) => clause.every(({ length }) => length > 2));
    // Beside one that tells much, those with a word in nearly every value, or with very many, cost more than they rule out.
    const tooCommon = (clause: readonly string[]) =>
      telling !== undefined &&
      clause !== telling &&
      (clause.length > MOST_WORDS_BESIDE || clause.some(({ length }) => length === 1));
    const clauses = needs
      .filter((clause) => charactersOf(clause) === undefined && !tooCommon(clause))
      .slice(0, MOST_CLAUSES);
    const masks: number[] = [];
    for (const clause of needs) {
      const characters = charactersOf(clause);
      if (characters === undefined || isCommon(characters)) continue;
      // A word of some length is rare enough by itself, and bits are few.
      if (telling) this.#besideWords.push({ characters, masks });
      else {
        const bit = this.#bit(characters);
        if (bit !== undefined) masks.push(bit);
        else if (clauses.length < MOST_CLAUSES) clauses.push(clause);
      }
    }
    return { clauses, masks };
  }

  /** Undefined: there is none left. */
  #bit(characters: string): number | undefined {
    let at = this.#sets.indexOf(characters);
    if (at === -1 && this.#sets.length < MOST_SETS) at = this.#sets.push(characters) - 1;
    return at === -1 ? undefined : 1 << at;
  }
}

const MOST_SETS = 32;
const MOST_WORDS_BESIDE = 400;
const MOST_CLAUSES = 4;

/** Of a clause of single characters: all of them, in both cases. */
function charactersOf(clause: readonly string[]): string | undefined {
  if (clause.some(({ length }) => length > 1)) return undefined;
  const both = clause.flatMap((character) => [
    character,
    /[a-z]/.test(character) ? character.toUpperCase() : character,
  ]);
  return [...new Set(both)].sort().join("");
}

/** Nearly every value has a letter or digit of several, so that to ask for one rules hardly any out. */
const isCommon = (characters: string): boolean =>
  characters.length > 3 && characters.length < 200 && /[a-z0-9]/.test(characters);

/** What one atom asks for: a word of each clause, and for each mask a character of its bits. */
interface Condition {
  readonly clauses: readonly (readonly string[])[];
  readonly masks: readonly number[];
}

interface Kept {
  readonly kind: "rule";
  readonly rule: SourceRule;
  readonly links: readonly PackLink[];
  readonly folded: readonly FoldedLink[];
}

const CASE = new Set<TransformationName>(["lowercase", "uppercase"]);
/** What they do is the same whatever the letters' case is. */
const CASELESS = new Set<TransformationName>([
  "removeNulls",
  "removeWhitespace",
  "compressWhitespace",
  "replaceNulls",
  "trim",
  "replaceComments",
]);

/** Words are found in any case, so what changes nothing else need not be done before they are looked for. */
function scannedOf(names: readonly TransformationName[]): readonly TransformationName[] {
  return names.filter(
    (name, i) => !CASE.has(name) || names.slice(i + 1).some((later) => !CASE.has(later) && !CASELESS.has(later)),
  );
}

function checkTarget(collection: string, name: string | undefined): void {
  if (!COLLECTIONS.has(collection)) throw new Malformed(`the variable ${collection} is not supported`);
  if (collection === "XML" && name !== "/*" && name !== "//@*")
    throw new Malformed(`of XML only /* and //@* are supported, not ${name ?? "the whole"}`);
}

function checkAction(action: FoldedAction): void {
  if (action.do !== "ctl") return;
  const { kind, what, target } = parseCtl(action.action.value);
  if (!rulesOfCtl(kind, what, []) && !settingCtl(kind, what))
    throw new Malformed(`ctl:${action.action.value} is not supported`);
  if (target !== undefined) parseTarget(target);
}

function settingCtl(kind: string, what: string): PackAction | undefined {
  const on = /^on$/i.test(what);
  switch (kind.toLowerCase()) {
    case "ruleengine": {
      const mode = ENGINE_MODES.get(what.toLowerCase());
      return mode && { do: "engine", mode };
    }
    case "requestbodyprocessor":
      return /^(?:URLENCODED|MULTIPART|JSON|XML)$/i.test(what)
        ? { do: "body-processor", processor: what.toUpperCase() as "JSON" }
        : undefined;
    case "forcerequestbodyvariable":
      return { do: "request-body-variable", on };
    case "requestbodyaccess":
      return { do: "request-body-access", on };
    case "responsebodyaccess":
      return { do: "response-body-access", on };
    case "requestbodylimit":
      return /^\d+$/.test(what) ? { do: "request-body-limit", bytes: Number(what) } : undefined;
    default:
      return undefined;
  }
}

/** What `redirect` may answer with; a status for refusals, which SecDefaultAction has set, is none of them. */
const REDIRECTS = new Set([301, 302, 303, 307, 308]);

function disruptionOf({ disruptive, status, phase }: SourceRule): Disruption | undefined {
  switch (disruptive.name) {
    case "pass":
      return undefined;
    case "deny":
    case "drop": {
      if (status !== undefined && !(status >= 400 && status <= 599))
        throw new Malformed(`${disruptive.name} answers with a status from 400 to 599, not ${status}`);
      return { action: disruptive.name, status: status ?? (phase < 3 ? 403 : 502) };
    }
    case "redirect":
      return {
        action: "redirect",
        status: status && REDIRECTS.has(status) ? status : 302,
        location: parseTemplate(disruptive.value),
      };
    case "allow":
      return {
        action: "allow",
        scope: disruptive.value === "phase" || disruptive.value === "request" ? disruptive.value : "all",
      };
    default:
      throw new Malformed(`the action ${disruptive.name} is not supported`);
  }
}
