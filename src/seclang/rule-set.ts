/**
 * The second step: directives in their order to the rules that hold in the end, with the defaults that stood before each of them,
 * without those that were removed, and with the targets and actions that were changed.
 */
import type { PackTarget } from "../waf/pack.ts";
import type { Phase } from "../waf/request.ts";
import type { TransformationName } from "../waf/transformations.ts";
import { transformationNamed } from "./compile-operator.ts";
import type { Directive, RuleProblem, SourcePlace } from "./directives.ts";
import {
  Malformed,
  type ParsedAction,
  type ParsedOperator,
  parseActions,
  parseCtl,
  parseOperator,
  parseTarget,
  parseTargets,
  splitTargets,
  withExclusions,
} from "./rule-text.ts";
import { ENGINE_MODES, MEANINGLESS, type SourceSettings, settingOf } from "./settings.ts";

export interface SourceLink extends SourcePlace {
  /** Absent: SecAction. */
  readonly operator?: ParsedOperator;
  targets: readonly PackTarget[];
  readonly transformations: readonly TransformationName[];
  readonly capture: boolean;
  readonly multiMatch: boolean;
  /** setvar, ctl, expirevar, initcol ... in their order. */
  readonly actions: readonly ParsedAction[];
}

export interface SourceRule extends SourcePlace {
  readonly kind: "rule";
  readonly id: number;
  readonly phase: Phase;
  readonly links: readonly SourceLink[];
  readonly tags: readonly string[];
  readonly message: string;
  readonly logdata: string;
  readonly severity?: number;
  readonly log: boolean;
  /** pass, deny, drop, allow or redirect; `block` is what the defaults of the phase say. */
  readonly disruptive: ParsedAction;
  readonly status?: number;
  readonly skipAfter?: string;
  readonly skip?: number;
}

export interface SourceMarker extends SourcePlace {
  readonly kind: "marker";
  readonly label: string;
}

export interface RuleSet {
  readonly elements: readonly (SourceRule | SourceMarker)[];
  readonly settings: SourceSettings;
}

interface Defaults {
  readonly disruptive: ParsedAction;
  readonly status?: number;
  readonly log: boolean;
  readonly transformations: readonly TransformationName[];
}

const PASSING: Defaults = { disruptive: { name: "pass", value: "" }, log: true, transformations: [] };
const PHASES: ReadonlyMap<string, Phase> = new Map([
  ["request", 2],
  ["response", 4],
  ["logging", 5],
  ["1", 1],
  ["2", 2],
  ["3", 3],
  ["4", 4],
  ["5", 5],
]);
const SEVERITIES = ["emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"];
const DISRUPTIVE = new Set(["pass", "block", "deny", "drop", "allow", "redirect", "proxy", "pause"]);
// What a rule says to people, or to an audit log, which the decision record takes the place of.
const SILENT = new Set([
  "ver",
  "rev",
  "maturity",
  "accuracy",
  "auditlog",
  "noauditlog",
  "sanitisearg",
  "sanitisematched",
]);
SILENT.add("sanitisematchedbytes").add("sanitiserequestheader").add("sanitiseresponseheader").add("logdata");
const EFFECTS = new Set([
  "setvar",
  "ctl",
  "expirevar",
  "deprecatevar",
  "initcol",
  "setsid",
  "setuid",
  "setrsc",
  "setenv",
]);

/** Problems are told; what has one is left out. */
export function readRuleSet(directives: readonly Directive[], problem: (problem: RuleProblem) => void): RuleSet {
  const reader = new Reader(problem);
  for (const directive of directives) reader.read(directive);
  return reader.finish();
}

class Reader {
  readonly #problem: (problem: RuleProblem) => void;
  readonly #defaults = new Map<Phase, Defaults>();
  readonly #settings: SourceSettings = {};
  #elements: (SourceRule | SourceMarker)[] = [];
  #chain: { head: Draft; links: SourceLink[] } | undefined;

  constructor(problem: (problem: RuleProblem) => void) {
    this.#problem = problem;
  }

  read(directive: Directive): void {
    const { file, line } = directive;
    try {
      this.#read(directive);
    } catch (error) {
      if (!(error instanceof Malformed)) throw error;
      const rule = Number(/(?:^|[,\s"])id:'?(\d+)/.exec(directive.args.at(-1) ?? "")?.[1] ?? this.#chain?.head.id);
      this.#problem({
        file,
        line,
        ...(rule && { rule }),
        message: error.message,
        fix: "correct the directive, or take it out",
      });
      this.#chain = undefined;
    }
  }

  finish(): RuleSet {
    if (this.#chain) {
      const { file, line, id } = this.#chain.head;
      this.#problem({
        file,
        line,
        rule: id,
        message: "the chain never ends",
        fix: "add its last rule, or take `chain` out",
      });
    }
    return { elements: this.#elements, settings: this.#settings };
  }

  #read(directive: Directive): void {
    const { name, args } = directive;
    const [first = "", second = "", third = ""] = args;
    switch (name.toLowerCase()) {
      case "secrule":
        if (args.length < 2 || args.length > 3) throw new Malformed("SecRule takes variables, an operator and actions");
        this.#rule(directive, first, second, third);
        return;
      case "secaction":
        if (args.length !== 1) throw new Malformed("SecAction takes actions, and nothing else");
        this.#rule(directive, undefined, undefined, first);
        return;
      case "secmarker":
        this.#elements.push({ kind: "marker", label: first, file: directive.file, line: directive.line });
        return;
      case "secdefaultaction":
        this.#default(first);
        return;
      case "secruleremovebyid": {
        const ids = idRanges(args);
        this.#remove(({ id }) => ids(id));
        return;
      }
      case "secruleremovebytag":
        this.#remove(({ tags }) => tags.some((tag) => patternOf(first).test(tag)));
        return;
      case "secruleremovebymsg":
        this.#remove(({ message }) => patternOf(first).test(message));
        return;
      case "secruleupdatetargetbyid": {
        const ids = idRanges([first]);
        this.#retarget(({ id }) => ids(id), second, third);
        return;
      }
      case "secruleupdatetargetbytag":
        this.#retarget(({ tags }) => tags.some((tag) => patternOf(first).test(tag)), second, third);
        return;
      case "secruleupdatetargetbymsg":
        this.#retarget(({ message }) => patternOf(first).test(message), second, third);
        return;
      case "secruleupdateactionbyid": {
        const ids = idRanges([first]);
        this.#elements = this.#elements.map((element) =>
          element.kind === "rule" && ids(element.id) ? this.#reacted(element, parseActions(second)) : element,
        );
        return;
      }
      default: {
        if (MEANINGLESS.has(name.toLowerCase())) return;
        const setting = settingOf(name, args);
        if (!setting) throw new Malformed(`${name} is not supported`);
        Object.assign(this.#settings, setting);
      }
    }
  }

  #default(text: string): void {
    const actions = parseActions(text);
    const phase = PHASES.get(actions.find(({ name }) => name === "phase")?.value ?? "2");
    if (!phase) throw new Malformed("SecDefaultAction names no phase from 1 to 5");
    const status = actions.find(({ name }) => name === "status")?.value;
    this.#defaults.set(phase, {
      disruptive: actions.find(({ name }) => DISRUPTIVE.has(name)) ?? PASSING.disruptive,
      ...(status && { status: Number(status) }),
      log: !actions.some(({ name }) => name === "nolog"),
      transformations: chainOf(actions, []),
    });
  }

  #rule(place: SourcePlace, variables: string | undefined, operator: string | undefined, text: string): void {
    const actions = parseActions(text);
    const { file, line } = place;
    const chain = this.#chain;
    const head = chain?.head ?? draftOf(actions, { file, line });
    const defaults = this.#defaults.get(head.phase) ?? PASSING;
    for (const { name } of actions) {
      const known = HEAD_ACTIONS.has(name) || LINK_ACTIONS.has(name) || EFFECTS.has(name) || SILENT.has(name);
      if (!known) throw new Malformed(`the action ${name} is not supported`);
    }
    for (const { name, value } of actions) if (name === "ctl") checkCtl(value);
    const link: SourceLink = {
      file,
      line,
      ...(operator !== undefined && { operator: parseOperator(operator) }),
      targets: variables === undefined ? [] : parseTargets(variables),
      transformations: chainOf(actions, defaults.transformations),
      capture: actions.some(({ name }) => name === "capture"),
      multiMatch: actions.some(({ name }) => name === "multimatch"),
      actions: actions.filter(({ name }) => EFFECTS.has(name)),
    };
    const links = [...(chain?.links ?? []), link];
    if (actions.some(({ name }) => name === "chain")) {
      this.#chain = { head, links };
      return;
    }
    this.#chain = undefined;
    if (this.#elements.some((element) => element.kind === "rule" && element.id === head.id))
      throw new Malformed(`the id ${head.id} is taken by another rule`);
    const { disruptive, status } = resolved(head, defaults);
    this.#elements.push({
      kind: "rule",
      ...head,
      links,
      disruptive,
      ...(status !== undefined && { status }),
      log: head.log ?? defaults.log,
    });
  }

  #remove(those: (rule: SourceRule) => boolean): void {
    this.#elements = this.#elements.filter((element) => element.kind !== "rule" || !those(element));
  }

  #retarget(those: (rule: SourceRule) => boolean, text: string, replaced: string): void {
    for (const element of this.#elements) {
      if (element.kind !== "rule" || !those(element)) continue;
      const [link] = element.links as [SourceLink];
      link.targets = retargeted(link.targets, text, replaced);
    }
  }

  #reacted(rule: SourceRule, actions: readonly ParsedAction[]): SourceRule {
    const draft = draftOf([{ name: "id", value: String(rule.id) }, ...actions], rule);
    const [first, ...rest] = rule.links as [SourceLink, ...SourceLink[]];
    const { disruptive, status } = resolved(draft, this.#defaults.get(rule.phase) ?? PASSING);
    const names = new Set(actions.map(({ name }) => name));
    const link = {
      ...first,
      ...(names.has("t") && { transformations: chainOf(actions, []) }),
      actions: [...first.actions, ...actions.filter(({ name }) => EFFECTS.has(name))],
    };
    return {
      ...rule,
      links: [link, ...rest],
      ...(draft.log !== undefined && { log: draft.log }),
      ...([...names].some((name) => DISRUPTIVE.has(name)) && { disruptive }),
      ...(status !== undefined && { status }),
      tags: [...rule.tags, ...draft.tags],
      ...(names.has("msg") && { message: draft.message }),
      ...(names.has("severity") && draft.severity !== undefined && { severity: draft.severity }),
    };
  }
}

/** `!ARGS:a` takes out, `ARGS:a` adds, and with a third argument replaces. */
export function retargeted(targets: readonly PackTarget[], text: string, replaced = ""): PackTarget[] {
  if (replaced !== "") {
    const gone = parseTarget(replaced);
    const fresh = parseTargets(text);
    return targets.flatMap((target) =>
      target.collection === gone.collection && target.name === gone.name ? fresh : [target],
    );
  }
  const parsed = splitTargets(text, "|,").map(parseTarget);
  return withExclusions(
    [...targets, ...parsed.filter(({ excluded }) => !excluded)],
    parsed.filter(({ excluded }) => excluded),
  );
}

const HEAD_ACTIONS = new Set([
  "id",
  "phase",
  "msg",
  "tag",
  "severity",
  "log",
  "nolog",
  "status",
  "skipafter",
  "skip",
  ...DISRUPTIVE,
]);
const LINK_ACTIONS = new Set(["t", "capture", "multimatch", "chain"]);

interface Draft extends SourcePlace {
  readonly id: number;
  readonly phase: Phase;
  readonly tags: readonly string[];
  readonly message: string;
  readonly logdata: string;
  readonly severity?: number;
  readonly log?: boolean;
  readonly disruptive?: ParsedAction;
  readonly status?: number;
  readonly skipAfter?: string;
  readonly skip?: number;
}

function draftOf(actions: readonly ParsedAction[], { file, line }: SourcePlace): Draft {
  const last = (wanted: string) => actions.findLast(({ name }) => name === wanted)?.value;
  const id = Number(last("id"));
  if (!Number.isSafeInteger(id) || id < 1) throw new Malformed("the rule has no id");
  const phase = PHASES.get((last("phase") ?? "2").toLowerCase());
  if (!phase) throw new Malformed(`"${last("phase")}" is no phase from 1 to 5`);
  const severity = severityOf(last("severity"));
  const logging = actions.findLast(({ name }) => name === "log" || name === "nolog")?.name;
  const disruptive = actions.findLast(({ name }) => DISRUPTIVE.has(name));
  const [status, skipAfter, skip] = [last("status"), last("skipafter"), last("skip")];
  return {
    file,
    line,
    id,
    phase,
    tags: actions.filter(({ name }) => name === "tag").map(({ value }) => value),
    message: last("msg") ?? "",
    logdata: last("logdata") ?? "",
    ...(severity !== undefined && { severity }),
    ...(logging && { log: logging === "log" }),
    ...(disruptive && { disruptive }),
    ...(status && { status: Number(status) }),
    ...(skipAfter && { skipAfter }),
    ...(skip && { skip: Number(skip) }),
  };
}

function resolved(draft: Draft, defaults: Defaults): { disruptive: ParsedAction; status?: number } {
  const { disruptive = defaults.disruptive } = draft;
  const actual = disruptive.name === "block" ? defaults.disruptive : disruptive;
  const status = draft.status ?? defaults.status;
  return { disruptive: actual, ...(status !== undefined && { status }) };
}

function severityOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const level = /^[0-7]$/.test(text) ? Number(text) : SEVERITIES.indexOf(text.toLowerCase());
  if (level === -1) throw new Malformed(`"${text}" is no severity such as CRITICAL`);
  return level;
}

function chainOf(actions: readonly ParsedAction[], before: readonly TransformationName[]): TransformationName[] {
  let chain = [...before];
  for (const { name, value } of actions) {
    if (name !== "t") continue;
    if (value.toLowerCase() === "none") chain = [];
    else {
      const known = transformationNamed(value);
      if (!known) throw new Malformed(`the transformation t:${value} is not known`);
      chain.push(known);
    }
  }
  return chain;
}

/** What a ctl leaves out is read again when the rule is folded or packed, where nobody would tell of what is wrong with it. */
function checkCtl(value: string): void {
  const { kind, what, target } = parseCtl(value);
  if (!/^ruleremove/i.test(kind)) return;
  if (/byid$/i.test(kind)) idRanges([what]);
  else patternOf(what);
  if (target !== undefined) parseTarget(target);
}

/** `942100`, `942100-942199`, `942100,942110 942120`. */
export function idRanges(args: readonly string[]): (id: number) => boolean {
  const ranges = args
    .flatMap((arg) => arg.split(/[\s,]+/))
    .filter((part) => part !== "")
    .map((part) => {
      const [, from, to = from] = /^(\d+)(?:-(\d+))?$/.exec(part) ?? [];
      if (from === undefined) throw new Malformed(`"${part}" is no rule id or range such as 942100-942199`);
      return [Number(from), Number(to)] as const;
    });
  return (id) => ranges.some(([from, to]) => id >= from && id <= to);
}

export function patternOf(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch {
    throw new Malformed(`"${text}" is no regular expression`);
  }
}

export { ENGINE_MODES };
