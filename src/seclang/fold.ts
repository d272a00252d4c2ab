/**
 * The third step: what the configuration decides is decided here. The rules run once, phase by phase, over what is known at build:
 * the variables that only the configuration sets. A rule about nothing else either never matches, and is gone, or always does, and
 * what it does is done here. So paranoia levels, thresholds and lists of methods cost nothing at run time.
 */
import { comparisons } from "../waf/operators.ts";
import type { PackTarget, Template } from "../waf/pack.ts";
import type { Phase } from "../waf/request.ts";
import { transformations } from "../waf/transformations.ts";
import type { RuleProblem } from "./directives.ts";
import { compileRegex } from "./regex.ts";
import { RegexSyntaxError } from "./regex-syntax.ts";
import { UnboundedRegexError } from "./regex-window.ts";
import { idRanges, patternOf, retargeted, type SourceLink, type SourceMarker, type SourceRule } from "./rule-set.ts";
import { type ParsedAction, parseCtl, parseTemplate, variableName } from "./rule-text.ts";

export interface FoldedLink {
  readonly source: SourceLink;
  /** Of its operator, with what is known filled in. Absent: it always matches. */
  readonly argument?: Template;
  readonly targets: readonly PackTarget[];
  /** With what is known filled in. */
  readonly actions: readonly FoldedAction[];
}

export type FoldedAction =
  | { readonly do: "set" | "add" | "subtract"; readonly name: Template; readonly value: Template }
  | { readonly do: "unset"; readonly name: Template }
  | { readonly do: "ctl"; readonly action: ParsedAction };

export type FoldedStep =
  | { readonly kind: "rule"; readonly rule: SourceRule; readonly links: readonly FoldedLink[] }
  | { readonly kind: "marker"; readonly phase: Phase; readonly label: string };

export interface Folded {
  /** By phase. */
  readonly steps: readonly FoldedStep[];
  /** What collections of variables hold when a request begins. */
  readonly variables: ReadonlyMap<string, string>;
  /** How many rules the configuration has ruled out or carried out. */
  readonly gone: number;
  readonly problems: readonly RuleProblem[];
  /** Rules that stay, or are carried out, and mean less here than where they were written for. */
  readonly notes: readonly RuleProblem[];
}

/** Collections that only rules write to. Those but for TX are meant to outlive a request; here they do not. */
export const RULE_COLLECTIONS = new Set(["TX", "IP", "GLOBAL", "SESSION", "USER", "RESOURCE"]);
const STATIC_OPERATORS = new Set([
  ...Object.keys(comparisons).map((name) => name.toLowerCase()),
  "rx",
  "unconditionalmatch",
  "nomatch",
]);
// They change no request: the decision record takes the place of the audit log.
const SILENT_CTL = /^(?:audit|debug)/i;

export function fold(
  elements: readonly (SourceRule | SourceMarker)[],
  given: ReadonlyMap<string, string>,
  phases: readonly Phase[],
): Folded {
  // Writes of groups that an operator captured come and go.
  const changing = new Changing(Array.from({ length: 10 }, (_, group) => `tx.${group}`));
  for (;;) {
    const before = changing.size;
    const folded = new Pass(elements, given, phases, changing).run();
    if (changing.size === before) return folded;
  }
}

/** Names of variables whose value depends on the request. Grows from pass to pass, until nothing more is found. */
class Changing {
  readonly #names: Set<string>;
  readonly #prefixes = new Set<string>();

  constructor(names: readonly string[]) {
    this.#names = new Set(names);
  }

  get size(): number {
    return this.#names.size + this.#prefixes.size;
  }

  has(name: string): boolean {
    return this.#names.has(name) || [...this.#prefixes].some((prefix) => name.startsWith(prefix));
  }

  add(name: Template): void {
    if (typeof name === "string") this.#names.add(name);
    else this.#prefixes.add(typeof name[0] === "string" ? name[0] : "");
  }
}

class Pass {
  readonly #elements: readonly (SourceRule | SourceMarker)[];
  readonly #phases: readonly Phase[];
  readonly #changing: Changing;
  readonly #known: Map<string, string>;
  readonly #initial = new Map<string, string>();
  /** Variables that a step which stays reads or writes. */
  readonly #used = new Set<string>();
  #usesPattern = false;
  readonly #removed = new Set<SourceRule>();
  readonly #targets = new Map<SourceRule, readonly PackTarget[]>();
  readonly #steps: FoldedStep[] = [];
  readonly #problems: RuleProblem[] = [];
  readonly #notes: RuleProblem[] = [];
  #gone = 0;
  /** Markers that a rule which stays may skip to: what stands before them might not run. */
  readonly #mayskip = new Set<string>();

  constructor(
    elements: readonly (SourceRule | SourceMarker)[],
    given: ReadonlyMap<string, string>,
    phases: readonly Phase[],
    changing: Changing,
  ) {
    this.#elements = elements;
    this.#known = new Map(given);
    this.#phases = phases;
    this.#changing = changing;
  }

  run(): Folded {
    for (const phase of this.#phases) {
      let skipTo: string | undefined;
      this.#mayskip.clear();
      for (const element of this.#elements) {
        if (element.kind === "marker") {
          if (element.label === skipTo) skipTo = undefined;
          this.#mayskip.delete(element.label);
          this.#steps.push({ kind: "marker", phase, label: element.label });
        } else if (element.phase === phase) {
          if (skipTo !== undefined || this.#removed.has(element)) this.#gone++;
          else skipTo = this.#visit(element);
        }
      }
    }
    if (!this.#phases.includes(5)) {
      for (const element of this.#elements)
        if (element.kind === "rule" && element.phase === 5) this.#noteUnheard(element);
    }
    const variables = new Map(this.#initial);
    for (const [name, value] of this.#known)
      if (!this.#changing.has(name) && (this.#used.has(name) || this.#usesPattern)) variables.set(name, value);
    return { steps: this.#steps, variables, gone: this.#gone, problems: this.#problems, notes: this.#notes };
  }

  /** The marker to go on at, when the rule skips for certain. */
  #visit(rule: SourceRule): string | undefined {
    const links = rule.links.map((link, i) =>
      i === 0 ? { ...link, targets: this.#targets.get(rule) ?? link.targets } : link,
    );
    const outcomes = links.map((link) => this.#outcome(link));
    const never = outcomes.indexOf(false);
    if (never !== -1 && links.slice(0, never).every(({ actions }) => actions.length === 0)) {
      this.#gone++;
      return undefined;
    }
    this.#noteForgotten(rule, links);
    if (outcomes.every((outcome) => outcome === true)) return this.#always(rule, links);
    const kept = links
      .map((source, i): FoldedLink => {
        const { operator } = source;
        const argument = operator && this.#filled(operator.argument, rule);
        return {
          source,
          ...(argument !== undefined && { argument }),
          targets: source.targets,
          actions: this.#actions(source, rule),
          ...(i > never && never !== -1 && { actions: [] }),
        };
      })
      .filter((link, i) => !(outcomes[i] === true && i === 0 && link.actions.length === 0 && !readsMatch(links[1])));
    this.#stay(rule, kept);
    return undefined;
  }

  /** A rule that matches whatever the request is. */
  #always(rule: SourceRule, links: readonly SourceLink[]): string | undefined {
    const certain = this.#mayskip.size === 0;
    const left: FoldedAction[] = [];
    for (const link of links) {
      for (const action of this.#actions(link, rule)) {
        if (action.do === "ctl") {
          if (!(certain && this.#remove(action.action))) left.push(action);
        } else if (!this.#set(action, certain)) {
          left.push(action);
        }
      }
    }
    const { disruptive, skipAfter } = rule;
    const refuses = disruptive.name === "deny" || disruptive.name === "drop" || disruptive.name === "redirect";
    if (refuses && certain) {
      const { file, line, id } = rule;
      const message = `with this configuration it refuses every request: ${rule.message || "it has no message"}`;
      this.#problems.push({ file, line, rule: id, message, fix: "correct the configuration, or take the rule out" });
    }
    const skips = skipAfter !== undefined && certain;
    const stays =
      left.length > 0 || rule.log || (!certain && (refuses || skipAfter !== undefined)) || disruptive.name === "allow";
    if (!stays) {
      this.#gone++;
      return skips ? skipAfter : undefined;
    }
    const [source] = links as [SourceLink];
    const { operator: _, ...bare } = source;
    this.#stay(skips ? without(rule, "skipAfter") : rule, [{ source: bare, targets: [], actions: left }]);
    return skips ? skipAfter : undefined;
  }

  #noteForgotten(rule: SourceRule, links: readonly SourceLink[]): void {
    const { file, line, id } = rule;
    const done = links.flatMap(({ actions }) => actions.map(({ name }) => name)).filter((name) => !RUN.has(name));
    const outliving = outlivingIn(links);
    const message = [
      ...(done.length > 0 ? [`${listed(done)} ${new Set(done).size > 1 ? "do" : "does"} nothing here`] : []),
      ...(outliving.length > 0 ? [`what is in ${listed(outliving)} is forgotten when the request ends`] : []),
    ].join(", and ");
    if (message !== "") this.#notes.push({ file, line, rule: id, message, fix: FORGOTTEN });
  }

  /** Of a phase that is not run: a rule that does more than to tell. */
  #noteUnheard({ file, line, id, links }: SourceRule): void {
    if (outlivingIn(links).length === 0) return;
    this.#notes.push({ file, line, rule: id, message: "phase 5, which only logs, is not run", fix: FORGOTTEN });
  }

  #stay(rule: SourceRule, links: readonly FoldedLink[]): void {
    for (const { argument, targets, actions } of links) {
      this.#use(argument);
      for (const { collection, name, pattern } of targets) {
        if (!RULE_COLLECTIONS.has(collection)) continue;
        if (name !== undefined) this.#used.add(`${collection.toLowerCase()}.${name}`);
        if (pattern !== undefined || name === undefined) this.#usesPattern = true;
      }
      for (const action of actions) {
        if (action.do === "ctl") continue;
        this.#changing.add(action.name);
        this.#use(action.name);
        if (typeof action.name === "string") this.#used.add(action.name);
        if (action.do !== "unset") this.#use(action.value);
      }
    }
    if (rule.skipAfter !== undefined) this.#mayskip.add(rule.skipAfter);
    this.#steps.push({ kind: "rule", rule, links });
  }

  #use(template: Template | undefined): void {
    if (template === undefined || typeof template === "string") return;
    for (const part of template) if (typeof part !== "string") this.#used.add(part.variable);
  }

  /** Whether the link matches; undefined: that depends on the request. */
  #outcome({ operator, targets, transformations: chain, capture }: SourceLink): boolean | undefined {
    if (!operator) return true;
    if (!STATIC_OPERATORS.has(operator.name.toLowerCase())) {
      // Of variables that nobody sets, no operator is asked.
      return targets.every((target) => this.#values(target)?.length === 0) ? false : undefined;
    }
    const values: string[] = [];
    for (const target of targets) {
      const held = this.#values(target);
      if (!held) return undefined;
      values.push(...held);
    }
    if (values.length === 0) return false;
    const argument = this.#filled(operator.argument);
    if (typeof argument !== "string") return undefined;
    let matches: boolean;
    try {
      matches = values.some((value) => {
        const seen = chain.reduce((text, name) => transformations[name](text), value);
        return decided(operator.name.toLowerCase(), seen, argument) !== operator.negated;
      });
    } catch (error) {
      // The rule stays, and whoever compiles its operator tells what is wrong with it.
      if (error instanceof RegexSyntaxError || error instanceof UnboundedRegexError) return undefined;
      throw error;
    }
    return matches && capture ? undefined : matches;
  }

  /** Undefined: the request has a say in it. */
  #values({ collection, name, pattern, count }: PackTarget): string[] | undefined {
    if (!RULE_COLLECTIONS.has(collection) || name === undefined || pattern !== undefined) return undefined;
    const full = `${collection.toLowerCase()}.${name}`;
    if (this.#changing.has(full)) return undefined;
    const value = this.#known.get(full);
    if (count) return [value === undefined ? "0" : "1"];
    return value === undefined ? [] : [value];
  }

  /** With the macros replaced whose value is known here. */
  #filled(text: string, rule?: SourceRule): Template {
    const template = parseTemplate(text);
    if (typeof template === "string") return template;
    const parts = template.map((part) => {
      if (typeof part === "string") return part;
      const { variable } = part;
      if (rule && variable.startsWith("rule.")) return ruleFact(rule, variable);
      const [collection = ""] = variable.split(".", 1);
      if (!RULE_COLLECTIONS.has(collection.toUpperCase()) || this.#changing.has(variable)) return part;
      return this.#known.get(variable) ?? "";
    });
    return parts.every((part) => typeof part === "string") ? parts.join("") : parts;
  }

  #actions({ actions }: SourceLink, rule: SourceRule): FoldedAction[] {
    return actions.flatMap((action): FoldedAction[] => {
      if (action.name === "ctl") return SILENT_CTL.test(action.value) ? [] : [{ do: "ctl", action }];
      if (action.name !== "setvar") return [];
      const [, name = "", sign, value = "1"] = /^([^=]+)(?:=([+-]?)([\s\S]*))?$/.exec(action.value.trim()) ?? [];
      if (name.startsWith("!")) return [{ do: "unset", name: lowerTemplate(this.#filled(name.slice(1), rule)) }];
      const kind = sign === "+" ? "add" : sign === "-" ? "subtract" : "set";
      return [{ do: kind, name: lowerTemplate(this.#filled(name, rule)), value: this.#filled(value, rule) }];
    });
  }

  /** Sets it here and now. False: that has to happen at run time. */
  #set(action: Exclude<FoldedAction, { do: "ctl" }>, certain: boolean): boolean {
    const { name } = action;
    if (typeof name !== "string" || !certain || (action.do !== "unset" && typeof action.value !== "string"))
      return false;
    const changes = this.#changing.has(name);
    if (changes && this.#used.has(name)) return false;
    const held = changes ? this.#initial : this.#known;
    const value = action.do === "unset" ? undefined : written(action.do, held.get(name), action.value as string);
    if (!changes && this.#used.has(name) && held.get(name) !== value) {
      // Who read it before would find what it is afterwards.
      this.#changing.add(name);
      return false;
    }
    if (value === undefined) held.delete(name);
    else held.set(name, value);
    return true;
  }

  /** Takes rules, or targets of them, out of what follows. False: the ctl is of another kind. */
  #remove({ value }: ParsedAction): boolean {
    const { kind, what, target } = parseCtl(value);
    const rules = this.#elements.filter((element) => element.kind === "rule");
    const those = rulesOfCtl(kind, what, rules);
    if (!those) return false;
    for (const rule of those) {
      if (target === undefined) this.#removed.add(rule);
      else this.#targets.set(rule, retargeted(this.#targets.get(rule) ?? rule.links[0]?.targets ?? [], `!${target}`));
    }
    return true;
  }
}

/** The rules that a `ctl:ruleRemove...` is about; undefined for another ctl. */
export function rulesOfCtl(kind: string, what: string, rules: readonly SourceRule[]): SourceRule[] | undefined {
  switch (kind.toLowerCase()) {
    case "ruleremovebyid":
    case "ruleremovetargetbyid": {
      const ids = idRanges([what]);
      return rules.filter(({ id }) => ids(id));
    }
    case "ruleremovebytag":
    case "ruleremovetargetbytag":
      return rules.filter(({ tags }) => tags.some((tag) => patternOf(what).test(tag)));
    case "ruleremovebymsg":
    case "ruleremovetargetbymsg":
      return rules.filter(({ message }) => patternOf(what).test(message));
    default:
      return undefined;
  }
}

function decided(operator: string, value: string, argument: string): boolean {
  if (operator === "unconditionalmatch") return true;
  if (operator === "nomatch") return false;
  if (operator === "rx") {
    const { source, flags } = compileRegex(argument);
    return new RegExp(source, flags).test(value);
  }
  const name = Object.keys(comparisons).find((known) => known.toLowerCase() === operator) as keyof typeof comparisons;
  return comparisons[name](value, argument);
}

const written = (kind: "set" | "add" | "subtract", before: string | undefined, value: string): string =>
  kind === "set" ? value : String((Number(before) || 0) + (kind === "add" ? 1 : -1) * (Number(value) || 0));

const RUN = new Set(["setvar", "ctl"]);
const FORGOTTEN = "count with rateLimit or penaltyBox instead, and take the rule out";
const listed = (names: readonly string[]): string => [...new Set(names)].join(", ");

/** The collections that the links read or write, and that ModSecurity keeps between requests. */
function outlivingIn(links: readonly SourceLink[]): string[] {
  const named = links.flatMap(({ targets, actions }) => [
    ...targets.map(({ collection }) => collection),
    ...actions
      .filter(({ name }) => name === "setvar")
      .map(({ value }) => /^\s*!?\s*(\w+)[.:]/.exec(value)?.[1]?.toUpperCase() ?? ""),
  ]);
  return named.filter((collection) => collection !== "TX" && RULE_COLLECTIONS.has(collection));
}

const readsMatch = (link: SourceLink | undefined): boolean =>
  link === undefined ||
  link.targets.some(({ collection }) => collection.startsWith("MATCHED_")) ||
  link.actions.some(({ value }) => /matched_var/i.test(value));

const lowerTemplate = (template: Template): Template =>
  typeof template === "string"
    ? variableName(template)
    : template.map((part) => (typeof part === "string" ? part.toLowerCase() : part));

function ruleFact({ id, message, severity }: SourceRule, variable: string): string {
  const facts: Readonly<Record<string, string>> = {
    "rule.id": String(id),
    "rule.msg": message,
    "rule.severity": String(severity ?? ""),
  };
  return facts[variable] ?? "";
}

function without(rule: SourceRule, _: "skipAfter"): SourceRule {
  const { skipAfter: __, ...rest } = rule;
  return rest;
}
