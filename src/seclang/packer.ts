/** From rules as fold.ts leaves them to those of a pack: each operator, chain and regex once, and by number. */
import { COLLECTIONS } from "../waf/collections.ts";
import type {
  Disruption,
  PackAction,
  PackChain,
  PackLink,
  PackOperator,
  PackPattern,
  PackRule,
  PackTarget,
  RulePack,
} from "../waf/pack.ts";
import type { TransformationName } from "../waf/transformations.ts";
import { Atoms, type OperatorNeeds } from "./atoms.ts";
import { automatonTables } from "./automaton.ts";
import { type CompiledOperator, compileOperator, LONGEST_PHRASE, type Patterns } from "./compile-operator.ts";
import type { RuleProblem } from "./directives.ts";
import { type Folded, type FoldedAction, type FoldedLink, type FoldedStep, rulesOfCtl } from "./fold.ts";
import { guardOf } from "./guard.ts";
import { ENGINE_MODES, type SourceRule } from "./rule-set.ts";
import { Malformed, parseCtl, parseTarget, parseTemplate } from "./rule-text.ts";

export interface PackerOptions {
  /** The pack says to people what its rules say. */
  readonly messages: boolean;
  readonly patterns: Patterns;
}

export class Packer {
  readonly #steps: readonly FoldedStep[];
  readonly #sources: readonly SourceRule[];
  readonly #refused: RuleProblem[];
  readonly #chains: PackChain[] = [{ before: 0 }];
  readonly #operators = new Map<string, number>();
  readonly #operatorList: PackOperator[] = [];
  readonly #needs: OperatorNeeds[] = [];
  readonly #programs: Uint16Array[] = [];
  readonly #programNumbers = new Map<Uint16Array, number>();
  /** By the source of a selector's regex, its program. */
  readonly #patterns = new Map<string, number>();
  readonly #atoms = new Atoms((names) => this.#chain(names));
  readonly #variables: readonly string[];
  readonly #options: PackerOptions;

  /** @param folded what is left of the `sources` */
  constructor(
    { steps, variables }: Folded,
    sources: readonly SourceRule[],
    options: PackerOptions,
    refused: RuleProblem[],
  ) {
    this.#options = options;
    this.#steps = steps;
    this.#variables = [...variables.keys()];
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
    const firsts: FoldedLink[] = [];
    for (const [at, step] of kept.entries()) {
      if (step?.kind !== "rule") continue;
      const { rule } = step;
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
        ...(this.#options.messages && { message: parseTemplate(rule.message), data: parseTemplate(rule.logdata) }),
      });
      firsts.push(step.folded[0] as FoldedLink);
    }
    for (const [number, rule] of rules.entries()) this.#addAtoms(number, rule, rules, firsts[number] as FoldedLink);
    const { prefilter, words } = this.#atoms.finished();
    return {
      chains: this.#chains,
      operators: this.#operatorList,
      rules,
      prefilter,
      tables: automatonTables(words),
      programs: this.#programs,
      words: words.length,
    };
  }

  #links(step: FoldedStep & { kind: "rule" }): Kept | undefined {
    const { rule } = step;
    const { patterns } = this.#options;
    try {
      disruptionOf(rule);
      const links = step.links.map(({ source, argument, targets }): PackLink => {
        for (const { collection, name } of targets) checkTarget(collection, name);
        const negated = source.operator?.negated === true;
        const compiled = source.operator && compileOperator(source.operator, argument ?? "", source.file, patterns);
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
    let number = this.#patterns.get(source);
    if (number === undefined) {
      number = typeof program === "number" ? program : this.#programs.push(Uint16Array.from(program)) - 1;
      this.#patterns.set(source, number);
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
      return { op: "pm", words: short.map((phrase) => this.#atoms.word(phrase)), ...(long.length > 0 && { long }) };
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

  #addAtoms(number: number, rule: PackRule, rules: readonly PackRule[], { source }: FoldedLink): void {
    const [link] = rule.links as [PackLink, ...PackLink[]];
    if (link.operator === undefined) return;
    const guard = guardOf(rule, rules, this.#operatorList, this.#variables);
    this.#atoms.add(
      number,
      rule.phase,
      link,
      source.transformations,
      this.#operatorList[link.operator] as PackOperator,
      {
        ...this.#needs[link.operator],
        ...(guard && { guard: this.#operator({ operator: guard }) }),
      },
    );
  }
}

interface Kept {
  readonly kind: "rule";
  readonly rule: SourceRule;
  readonly links: readonly PackLink[];
  readonly folded: readonly FoldedLink[];
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
