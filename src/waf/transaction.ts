/** One request on its way through the rules. */
import { Collections, type Variable } from "./collections.ts";
import type { CollectionGroups, Engine, EngineOptions, HeadPart, Hit, RuleHit } from "./engine.ts";
import type { PackAction, PackLink, PackRule, PackSettings, PackTarget, Template } from "./pack.ts";
import { type Found, type Group, LONGEST_SEEN } from "./prefilter.ts";
import type { Interruption, MatchedVariable, Phase, RuleMatch, Verdict, WafRequest, WafResponse } from "./request.ts";

const NO_VARIABLES: readonly Variable[] = [];
const NO_HITS: readonly Hit[] = [];
const NO_MATCHES: readonly MatchedVariable[] = [];
const GROUPS = Array.from({ length: 10 }, (_, group) => `tx.${group}`);
/** Of a collection, the places at which values are told from those of the last request. */
const MOST_PLACES = 1_024;
/** Most variables that one link tells of: a record is no copy of the request. */
const MOST_TOLD = 20;

export class Transaction {
  readonly #engine: Engine;
  readonly #collections: Collections;
  /** What the rules have written; undefined: taken out. What is not here is in the pack's variables. */
  readonly #written = new Map<string, string | undefined>();
  readonly #detectionOnly: boolean;
  #mode: PackSettings["engine"];
  #headSeen = false;
  /** What is found in the part of the head that is looked at. */
  #noted: RuleHit[] | undefined;
  /** By rule: what the prefilter has found. */
  readonly #hits: (Hit[] | undefined)[] = [];
  #removed: Set<number> | undefined;
  #removedTargets: { readonly rules: readonly number[]; readonly target: PackTarget }[] | undefined;
  #allowed: "request" | "all" | undefined;
  #interruption: Interruption | undefined;
  readonly #matches: RuleMatch[] = [];
  /** What the last link that matched has matched on: MATCHED_VARS. */
  #matched: readonly MatchedVariable[] = NO_MATCHES;
  /** What the present link has matched on so far. */
  #matching: MatchedVariable[] | undefined;
  /** The one that MATCHED_VAR is the last of. */
  #latest: readonly MatchedVariable[] = NO_MATCHES;
  /** How many of TX.0 to TX.9 may have something in them. */
  #groupsSet = GROUPS.length;
  #responded = false;

  constructor(engine: Engine, request: WafRequest, { detectionOnly, exclusions = [] }: EngineOptions) {
    this.#engine = engine;
    this.#collections = new Collections(request, engine.pack.settings);
    const { engine: mode } = engine.pack.settings;
    this.#detectionOnly = detectionOnly ?? mode === "detection-only";
    this.#mode = mode === "off" ? "off" : this.#detectionOnly ? "detection-only" : mode;
    for (const { rules, target } of exclusions) this.#remove(rules, target);
  }

  /** Phase 1. */
  requestHead(): void {
    this.#run(1);
  }

  /** How much of the request's body the rules want to see, in bytes; 0: nothing. Known after phase 1. */
  get wantedBody(): number {
    const { readsBody, bodyLimit } = this.#collections;
    return this.#mode === "off" || !readsBody || this.#stopped(2) ? 0 : bodyLimit;
  }

  /** The processor that reads the body; "" when none does. */
  get bodyKind(): string {
    return this.#collections.processor;
  }

  /** Phase 2. `body` is what is held of the body; absent: what the request came with. */
  requestBody(body?: string, truncated?: boolean): void {
    if (this.#stopped(2)) return;
    this.#collections.readBody(body, truncated);
    this.#run(2);
  }

  /** Phases 3 and 4. */
  response(response: WafResponse): void {
    this.#responded = true;
    this.#collections.respond(response);
    this.#run(3);
    if (response.body !== undefined) this.#run(4);
  }

  /** Phase 5, which only counts and tells. */
  finish(): void {
    this.#run(5);
  }

  /** Absent: nothing was refused so far. */
  get interruption(): Interruption | undefined {
    return this.#interruption;
  }

  verdict(): Verdict {
    const scores: Record<string, number> = {};
    for (const [name, value] of this.#written) {
      const score = Number(value);
      if (score > 0 && name.startsWith("tx.") && /[._]score(?:_pl\d)?$/.test(name)) scores[name.slice(3)] = score;
    }
    return {
      matches: this.#matches,
      scores,
      ...(this.#interruption && { interruption: this.#interruption }),
    };
  }

  #stopped(phase: Phase): boolean {
    if (this.#mode === "off") return true;
    if (phase === 5) return false;
    if (this.#interruption && this.#mode === "on") return true;
    return this.#allowed === "all" || (this.#allowed === "request" && phase < 3);
  }

  #run(phase: Phase): void {
    const range = this.#engine.ranges.get(phase);
    if (!range || this.#stopped(phase)) return;
    if (phase === 5 && !this.#responded && this.#engine.pack.settings.engine === "off") return;
    if (!this.#headSeen) for (const part of this.#engine.head) this.#lookAtHead(part);
    this.#headSeen = true;
    this.#look(this.#engine.groups.get(phase) ?? []);
    const { rules } = this.#engine.pack;
    const { filtered } = this.#engine;
    for (let at = range[0]; at < range[1]; at++) {
      if (filtered[at] && this.#hits[at] === undefined) continue;
      if (this.#removed?.has(at)) continue;
      const rule = rules[at] as PackRule;
      if (!this.#matchesRule(rule, at)) continue;
      // A rule may have turned the engine off.
      if (this.#mode === ("off" as PackSettings["engine"])) return;
      const { disrupt } = rule;
      if (disrupt?.action === "allow") {
        if (disrupt.scope !== "phase") this.#allowed = disrupt.scope;
        return;
      }
      if (disrupt) {
        this.#interruption ??= {
          rule: rule.id,
          phase,
          action: disrupt.action,
          status: disrupt.status,
          ...(disrupt.action === "redirect" && { location: this.#expand(disrupt.location) }),
        };
        if (this.#mode === "on") return;
      }
      if (rule.skipTo !== undefined) at = rule.skipTo - 1;
    }
  }

  #lookAtHead(part: HeadPart): void {
    const { request } = this.#collections;
    if (part.last && part.isSame(request, part.last.request)) {
      for (const [rule, hit] of part.last.hits) (this.#hits[rule] ??= []).push(hit);
      return;
    }
    const hits: RuleHit[] = [];
    this.#noted = hits;
    this.#look(part.collections);
    this.#noted = undefined;
    part.last = { request: { ...request, body: "" }, hits };
  }

  #look(collections: readonly CollectionGroups[]): void {
    const { prefilter } = this.#engine;
    prefilter.begin();
    for (const { number, before, all, byName, byPattern } of collections) {
      const variables = this.#collections.at(number);
      for (let place = 0; place < variables.length; place++) {
        const variable = variables[place] as Variable;
        const { key, value } = variable;
        const last = before?.[place];
        if (last && last.key === key && last.value === value) this.#found(last.group, variable, last.found);
        else {
          const group = byName?.get(key) ?? all;
          if (group) {
            const found = prefilter.look(group, value, before !== undefined);
            this.#found(group, variable, found);
            if (before && place < MOST_PLACES && value.length <= LONGEST_SEEN)
              before[place] = { key, value, group, found };
          }
        }
        for (const { pattern, group } of byPattern)
          if (pattern.test(key)) this.#found(group, variable, prefilter.look(group, value, before !== undefined));
      }
    }
  }

  #found(group: Group, variable: Variable, all: readonly Found[]): void {
    for (const { atom, rule, text } of all) {
      const hits = (this.#hits[rule] ??= []);
      for (const target of group.targets[atom] as readonly PackTarget[]) {
        const hit: Hit = { target, variable, value: text };
        hits.push(hit);
        this.#noted?.push([rule, hit]);
      }
    }
  }

  /** Whether all links match. What a link does it does when it matches, even if the next one does not. */
  #matchesRule(rule: PackRule, place: number): boolean {
    const { links } = rule;
    for (let i = 0; i < links.length; i++) {
      const link = links[i] as PackLink;
      if (link.operator === undefined) {
        this.#matched = NO_MATCHES;
        this.#act(link.actions);
        continue;
      }
      const before = this.#matched;
      this.#matching = undefined;
      if (i === 0 && this.#engine.filtered[place] && !this.#engine.guarded[place]) this.#linkHits(link, place);
      else this.#link(link, i === 0 ? place : -1);
      if (this.#matching === undefined) {
        this.#matched = before;
        return false;
      }
      this.#matched = this.#matching;
    }
    // What counts and prepares is of no interest to anybody.
    if (!rule.log) return true;
    this.#matches.push({
      id: rule.id,

      ...(rule.severity !== undefined && { severity: rule.severity }),
      on: this.#matched.slice(0, MOST_TOLD),
      ...(rule.message !== undefined && { message: this.#expand(rule.message) }),
      ...(rule.data !== undefined && { data: this.#expand(rule.data) }),
    });
    return true;
  }

  /** Of a first link that the prefilter has asked. */
  #linkHits(link: PackLink, place: number): void {
    const hits = this.#hits[place] ?? NO_HITS;
    const inOrder = hits.length > 1 ? byTarget(hits, link.targets) : hits;
    for (const { target, variable, value } of inOrder) {
      if (target.except && this.#engine.leavesOut(target, variable.key)) continue;
      if (this.#removedTargets && this.#isRemoved(place, target, variable.key)) continue;
      this.#match(link, target, variable, value);
    }
  }

  #link(link: PackLink, place: number): void {
    const { prefilter, pack } = this.#engine;
    const operator = this.#engine.operator(link.operator as number);
    const wanted = link.negated !== true;
    const expand = this.#expander;
    for (const target of link.targets) {
      for (const variable of this.#resolve(target)) {
        if (place >= 0 && this.#removedTargets && this.#isRemoved(place, target, variable.key)) continue;
        if (link.multiMatch) {
          let before: string | undefined;
          for (const chain of stagesOf(pack.chains, link.chain)) {
            const value = prefilter.transform(chain, variable.value);
            if (value === before) continue;
            before = value;
            if (operator.test(value, expand) === wanted) this.#match(link, target, variable, value);
          }
        } else {
          const value = link.chain === 0 ? variable.value : prefilter.transform(link.chain, variable.value);
          if (operator.test(value, expand) === wanted) this.#match(link, target, variable, value);
        }
      }
    }
  }

  #match(link: PackLink, target: PackTarget, variable: Variable, value: string): void {
    const { collection, count } = target;
    const name = variable.name === "" ? collection : `${collection}:${variable.name}`;
    let captured: string | undefined;
    if (link.capture && link.operator !== undefined) {
      const groups = this.#engine.operator(link.operator).captures?.(value) ?? [value];
      captured = groups[0];
      const most = Math.min(GROUPS.length, groups.length);
      for (let group = 0; group < most || group < this.#groupsSet; group++)
        this.#written.set(GROUPS[group] as string, groups[group]);
      this.#groupsSet = most;
    }
    this.#matching ??= [];
    this.#matching.push({ name: count ? `&${name}` : name, value, ...(captured !== undefined && { captured }) });
    this.#latest = this.#matching;
    if (link.actions.length > 0) this.#act(link.actions);
  }

  #resolve(target: PackTarget): readonly Variable[] {
    const { name, pattern, except, count } = target;
    let those = this.#membersOf(target);
    if (count && name !== undefined && except === undefined) {
      let number = 0;
      for (const { key } of those) if (key === name) number++;
      return [{ key: name, name, value: String(number) }];
    }
    if (name !== undefined || pattern !== undefined || except !== undefined) {
      const regex = pattern === undefined ? undefined : this.#engine.pattern(pattern);
      let kept: Variable[] | undefined;
      for (let i = 0; i < those.length; i++) {
        const member = those[i] as Variable;
        const { key } = member;
        if (name !== undefined && key !== name) continue;
        if (regex !== undefined && !regex.test(key)) continue;
        if (except !== undefined && this.#engine.leavesOut(target, key)) continue;
        kept ??= [];
        kept.push(member);
      }
      those = kept ?? NO_VARIABLES;
    }
    return count ? [{ key: name ?? "", name: name ?? "", value: String(those.length) }] : those;
  }

  #membersOf(target: PackTarget): readonly Variable[] {
    const { collection } = target;
    switch (collection) {
      case "TX":
      case "IP":
      case "GLOBAL":
      case "SESSION":
      case "USER":
      case "RESOURCE":
        return this.#ruleVariables(target);
      case "MATCHED_VAR":
        return this.#latest.slice(-1).map(({ value }) => ({ key: "", name: "", value }));
      case "MATCHED_VAR_NAME":
        return this.#latest.slice(-1).map((matched) => ({ key: "", name: "", value: matched.name }));
      case "MATCHED_VARS":
        return this.#matched.map((matched) => ({
          key: matched.name.toLowerCase(),
          name: matched.name,
          value: matched.value,
        }));
      case "MATCHED_VARS_NAMES":
        return this.#matched.map((matched) => ({
          key: matched.name.toLowerCase(),
          name: matched.name,
          value: matched.name,
        }));
      case "REQUEST_HEADERS":
        return target.name === undefined ? this.#collections.of(collection) : this.#collections.headers(target.name);
      default:
        return this.#collections.of(collection);
    }
  }

  #ruleVariables(target: PackTarget): readonly Variable[] {
    const { collection, name, pattern } = target;
    if (name !== undefined) {
      const value = this.#variable(this.#engine.fullName(target));
      return value === undefined ? NO_VARIABLES : [{ key: name, name, value }];
    }
    const prefix = `${collection.toLowerCase()}.`;
    const regex = pattern === undefined ? undefined : this.#engine.pattern(pattern);
    const found: Variable[] = [];
    const { variables } = this.#engine.pack;
    for (const full of this.#engine.namesIn(prefix, pattern)) {
      const key = full.slice(prefix.length);
      const value = variables[full];
      if (value !== undefined && !this.#written.has(full)) found.push({ key, name: key, value });
    }
    const beginning = pattern === undefined ? "" : beginningOf(pattern.source);
    const isBeginning = pattern === undefined || pattern.source === `^${beginning}`;
    const start = prefix + beginning;
    for (const [full, value] of this.#written) {
      if (value === undefined || !full.startsWith(start)) continue;
      const key = full.slice(prefix.length);
      if (isBeginning || regex?.test(key)) found.push({ key, name: key, value });
    }
    return found;
  }

  #variable(full: string): string | undefined {
    const value = this.#written.get(full);
    return value !== undefined || this.#written.has(full) ? value : this.#engine.pack.variables[full];
  }

  readonly #expander = (template: Template): string => this.#expand(template);

  #expand(template: Template): string {
    if (typeof template === "string") return template;
    let text = "";
    for (const part of template) text += typeof part === "string" ? part : this.#macro(part.variable);
    return text;
  }

  #macro(variable: string): string {
    if (variable.startsWith("tx.")) return this.#variable(variable) ?? "";
    const matched = this.#latest.at(-1);
    if (variable === "matched_var") return matched?.value ?? "";
    if (variable === "matched_var_name") return matched?.name ?? "";
    const dot = variable.indexOf(".");
    const collection = (dot === -1 ? variable : variable.slice(0, dot)).toUpperCase();
    const target = { collection, ...(dot !== -1 && { name: variable.slice(dot + 1) }) };
    return this.#resolve(target)[0]?.value ?? "";
  }

  #act(actions: readonly PackAction[]): void {
    for (const action of actions) {
      switch (action.do) {
        case "set":
          this.#set(this.#nameOf(action.name), this.#expand(action.value));
          break;
        case "add":
        case "subtract": {
          const name = this.#nameOf(action.name);
          const by = Number(this.#expand(action.value)) || 0;
          this.#set(name, String((Number(this.#variable(name)) || 0) + (action.do === "add" ? by : -by)));
          break;
        }
        case "unset":
          this.#written.set(this.#nameOf(action.name), undefined);
          break;
        case "engine":
          // What is only to be told of is never refused.
          this.#mode = action.mode === "on" && this.#detectionOnly ? "detection-only" : action.mode;
          break;
        case "body-processor":
          this.#collections.processor = action.processor;
          break;
        case "request-body-variable":
          this.#collections.forcesBodyVariable = action.on;
          break;
        case "request-body-access":
          this.#collections.readsBody = action.on;
          break;
        case "request-body-limit":
          this.#collections.bodyLimit = action.bytes;
          break;
        case "response-body-access":
          break;
        case "remove-rules":
          this.#remove(action.rules);
          break;
        case "remove-target":
          this.#remove(action.rules, action.target);
          break;
      }
    }
  }

  /** What is fixed is in lower case already. */
  #nameOf(name: Template): string {
    return typeof name === "string" ? name : this.#expand(name).toLowerCase();
  }

  #set(name: string, value: string): void {
    if (name.length === "tx.0".length) this.#groupsSet = GROUPS.length;
    this.#written.set(name, value);
  }

  #remove(rules: readonly number[], target?: PackTarget): void {
    if (target) {
      this.#removedTargets ??= [];
      this.#removedTargets.push({ rules, target });
    } else {
      this.#removed ??= new Set();
      for (const rule of rules) this.#removed.add(rule);
    }
  }

  #isRemoved(place: number, { collection }: PackTarget, key: string): boolean {
    return (this.#removedTargets ?? []).some(
      ({ rules, target }) =>
        target.collection === collection &&
        rules.includes(place) &&
        (target.name === undefined || target.name === key) &&
        (target.pattern === undefined || this.#engine.pattern(target.pattern).test(key)),
    );
  }
}

/** In the order of the rule's targets, as ModSecurity matches. */
function byTarget(hits: readonly Hit[], targets: readonly PackTarget[]): readonly Hit[] {
  return hits.toSorted((a, b) => targets.indexOf(a.target) - targets.indexOf(b.target));
}

/** What every name begins with that a pattern such as `^header_name_` fits; names of variables are in lower case. */
function beginningOf(pattern: string): string {
  if (pattern.includes("|")) return "";
  return /^\^([a-z0-9_]*)(?![?*{a-z0-9_])/.exec(pattern)?.[1] ?? "";
}

/** The chain from its first transformation to its last. */
function stagesOf(chains: readonly { readonly before: number }[], chain: number): number[] {
  const stages: number[] = [];
  for (let at = chain; at !== 0; at = (chains[at] as { before: number }).before) stages.unshift(at);
  return [0, ...stages];
}
