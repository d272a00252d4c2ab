/** plan, what holds of a route: the policies of the lists around it, compiled and numbered, and the consumers and plans in them. */
import { types } from "node:util";
import type { z } from "zod";
import type { PolicyEntry } from "../config/api.ts";
import type { ConsumerDeclaration, PlanDeclaration } from "../config/consumer.ts";
import type { Declaration } from "../config/declaration.ts";
import { EVERYWHERE, functionOf, type PolicyList, placedEntries } from "../config/entries.ts";
import type { PolicyDeclaration } from "../config/policy.ts";
import type { Reference as Declared } from "../config/values.ts";
import type { CompileContext, MemberPolicy } from "../policies/contract.ts";
import { middleware } from "../policies/middleware.ts";
import { authenticates, policyOrder } from "../policies/order.ts";
import type { PolicyName, Reference, TableConsumer, TablePlan, TablePolicy } from "../table/table.ts";
import { byKey } from "./by-key.ts";
import { Numbered } from "./numbered.ts";
import { type Problems, quoted } from "./problem.ts";
import { registry } from "./registry.ts";
import { RuleSets } from "./rule-sets.ts";
import { isName, NAME_FIX, shape, shapes } from "./shapes.ts";

/** What the plan of policies tells to the plan around it, and asks of it. */
export interface PolicyContext {
  readonly problems: Problems;
  readonly gatewayApi: boolean;
  /** By `consumer NAME` and `plan NAME`, and what else has been declared. */
  readonly declarations: Map<string, Declaration>;
  reference(value: Declared): Reference;
  /** Notes a header that only the gateway may say. */
  identityHeader(name: string): void;
}

/** A policy that holds, the list that it comes from and its place there. */
export interface Held {
  readonly declared: PolicyDeclaration;
  readonly list: string;
  readonly place: string;
}

interface Compiled {
  readonly policy: TablePolicy;
  /** The policy as text: equal ones are one, and among those of one list it decides the order. */
  readonly key: string;
}

export class PolicyPlan {
  readonly policies = new Numbered<TablePolicy>();
  readonly consumers = new Map<string, TableConsumer>();
  readonly plans = new Map<string, TablePlan>();
  readonly ruleSets = new RuleSets();
  readonly #compiled = new Map<PolicyDeclaration, Compiled | undefined>();
  readonly #context: PolicyContext;

  constructor(context: PolicyContext) {
    this.#context = context;
  }

  /** What holds where `list` stands: what is inherited, without what the list takes off, and what it adds. */
  hold(inherited: readonly Held[], list: PolicyList): readonly Held[] {
    const tell = this.#context.problems;
    const names = policyOrder.map(({ policy }) => policy).join(", ");
    const off = new Set<string>();
    const own: Held[] = [];
    for (const { entry, place } of placedEntries(list)) {
      if (typeof entry === "function") {
        own.push({ declared: middlewareOf(entry), list: list.place, place });
      } else if (entry.kind === "without") {
        for (const name of entry.policies) {
          if (!Object.hasOwn(registry, name))
            tell.add(entry, `without("${name}")`, "names no policy", `choose from ${names}`);
          else if (!inherited.some(({ declared }) => declared.policy === name)) {
            const message = "takes off a policy that is not inherited here";
            tell.add(entry, `without("${name}")`, message, "take the line out");
          }
          off.add(name);
        }
      } else if (!Object.hasOwn(registry, entry.policy)) {
        tell.add(entry, `policy ${quoted(entry.policy)}`, "is unknown", `choose from ${names}`);
      } else {
        const listOf = `the list of ${list.place === EVERYWHERE ? "the gateway" : list.place}`;
        const twice = own.some(({ declared }) => declared.policy === entry.policy) && !addsUp(entry.policy);
        const other = own.find(({ declared }) => authenticates(declared.policy))?.declared.policy;
        if (other && other !== entry.policy && authenticates(entry.policy)) {
          const message = `stands beside ${other} in ${listOf}, and both say who is calling`;
          const fix = `combine them: anyOf(${other}(...), ${entry.policy}(...)) for either, allOf(...) for both`;
          tell.add(entry, `policy ${entry.policy}`, message, fix);
        } else if (twice) {
          const fix = authenticates(entry.policy) ? "keep one, or combine them with anyOf(...)" : "keep one";
          tell.add(entry, `policy ${entry.policy}`, `stands twice in ${listOf}`, fix);
        }
        own.push({ declared: entry, list: list.place, place });
      }
    }
    return [...inherited.filter(({ declared }) => !off.has(declared.policy)), ...own];
  }

  /** Positions of the policies in the order in which they run. */
  positions(inherited: readonly Held[]): number[] {
    const positions = new Set<number>();
    const nearest = inherited.findLast(({ declared }) => authenticates(declared.policy));
    const held = inherited.filter((one) => one === nearest || !authenticates(one.declared.policy));
    for (const { policy, repeat } of policyOrder) {
      const all = held.filter(({ declared }) => declared.policy === policy);
      const lists = [...new Set(all.map(({ list }) => list))];
      const holding = (repeat === "replace" ? all.slice(-1) : all).flatMap(({ declared, list, place }) => {
        const compiled = this.#compiledOf(declared, place);
        return compiled ? [{ ...compiled, depth: lists.indexOf(list) }] : [];
      });
      // Outermost first. In one list only middleware has an order; for the others any will do that is always the same.
      if (policy !== "middleware") holding.sort((a, b) => a.depth - b.depth || (a.key < b.key ? -1 : 1));
      for (const { policy, key } of holding) positions.add(this.policies.number(policy, key));
    }
    return [...positions];
  }

  /** Undefined for what is `off` or has problems. */
  #compiledOf(declared: PolicyDeclaration, place: string): Compiled | undefined {
    if (this.#compiled.has(declared) && declared.policy !== "middleware") return this.#compiled.get(declared);
    const policy = this.#compile(declared, place);
    const compiled = policy && { policy, key: JSON.stringify(policy) };
    this.#compiled.set(declared, compiled);
    return compiled;
  }

  #compile(declared: PolicyDeclaration, place: string): TablePolicy | undefined {
    const { schema, compile } = registry[declared.policy];
    const subject = `policy ${declared.policy}`;
    const context: CompileContext = {
      place,
      ...(this.#context.gatewayApi && { semantics: "gateway-api" }),
      problem: (message, fix) => this.#context.problems.add(declared, subject, message, fix),
      reference: (value) => this.#context.reference(value),
      identityHeaders: (names) => {
        for (const name of names) this.#context.identityHeader(name);
      },
      member: (within) => this.#compileMember(within, place),
      ruleSet: (options) => this.ruleSets.compile(options, declared, this.#context.problems),
    };
    try {
      if (!shape(this.#context.problems, declared, subject, schema(), declared.options)) return undefined;
      const { mode = "enforce" } = declared.options as { mode?: "enforce" | "report" | "off" };
      if (mode === "off") return undefined;
      const consumers = declaredIn<ConsumerDeclaration>(declared.options, "consumer").map((one) => this.#consumer(one));
      const plans = declaredIn<PlanDeclaration>(declared.options, "plan").map((one) => this.#plan(one));
      if ([...consumers, ...plans].includes(false)) return undefined;
      const config = compile(inKeyOrder(declared.options) as never, context);
      return config === undefined ? undefined : { policy: declared.policy, mode, config };
    } catch (error) {
      this.#context.problems.add(
        declared,
        subject,
        `cannot be compiled: ${(error as Error).message}`,
        "correct its options",
      );
      return undefined;
    }
  }

  /** A policy within another one. It decides nothing by itself, so it has no mode of its own. */
  #compileMember(declared: PolicyDeclaration, place: string): MemberPolicy | undefined {
    const subject = `policy ${quoted(declared?.policy)}`;
    if (!Object.hasOwn(registry, declared.policy) || !authenticates(declared.policy)) {
      const names = policyOrder.filter((ordered) => ordered.authenticates).map(({ policy }) => policy);
      this.#context.problems.add(declared, subject, "does not say who is calling", `choose from ${names.join(", ")}`);
      return undefined;
    }
    if (declared.options?.mode === "report") {
      const fix = "take `mode` out, or give it to the policy around it";
      this.#context.problems.add(declared, subject, "cannot report by itself", fix);
    }
    const compiled = this.#compile(declared, place);
    return compiled && { policy: compiled.policy, config: compiled.config };
  }

  /** Whether the consumer is usable; what is wrong with it is told when it is met for the first time. */
  #consumer(declared: ConsumerDeclaration): boolean {
    return this.#named(declared, shapes.consumer, this.consumers, () => {
      const { groups = [], metadata, plan } = declared.options;
      return {
        name: declared.name,
        ...(groups.length > 0 && { groups: [...new Set(groups)].sort() }),
        ...(metadata && { metadata: inKeyOrder(metadata) as Readonly<Record<string, unknown>> }),
        ...(plan && this.#plan(plan) && { plan: plan.name }),
      };
    });
  }

  #plan(declared: PlanDeclaration): boolean {
    return this.#named(declared, shapes.plan, this.plans, () => ({
      name: declared.name,
      limits: (declared.options.limits ?? []).map(({ limit, window }) => ({ limit, window })),
    }));
  }

  #named<Value>(
    declared: ConsumerDeclaration | PlanDeclaration,
    form: z.ZodType,
    table: Map<string, Value>,
    plan: () => Value,
  ): boolean {
    const { kind, name, options } = declared;
    const known = this.#context.declarations.get(`${kind} ${name}`);
    if (known === declared) return table.has(name);
    const subject = `${kind} ${quoted(name)}`;
    const before = this.#context.problems.count;
    if (known) {
      const fix = "name it differently: limits and records go by the name";
      this.#context.problems.add(declared, subject, `has the name of another ${kind}`, fix);
    } else if (!isName(name)) this.#context.problems.add(declared, subject, "is no usable name", NAME_FIX);
    else this.#context.declarations.set(`${kind} ${name}`, declared);
    shape(this.#context.problems, declared, subject, form, options);
    if (this.#context.problems.count > before) return false;
    const planned = plan();
    if (this.#context.problems.count > before) return false;
    table.set(name, planned);
    return true;
  }
}

const wrapped = new WeakMap<object, PolicyDeclaration>();
function middlewareOf(entry: PolicyEntry): PolicyDeclaration {
  let declared = wrapped.get(entry);
  if (!declared) {
    declared = middleware({ handler: functionOf(entry) as never });
    wrapped.set(entry, declared);
  }
  return declared;
}

const addsUp = (name: PolicyName): boolean =>
  policyOrder.some(({ policy, repeat }) => policy === name && repeat === "add");

/** The consumers or plans that a policy's options, of the right shape, refer to at any depth, but not within other policies. */
function declaredIn<D extends { readonly kind: string }>(value: unknown, wanted: D["kind"]): D[] {
  if (typeof value !== "object" || value === null) return [];
  const { kind } = value as { kind?: unknown };
  if (kind === wanted) return [value as D];
  return kind === undefined ? Object.values(value).flatMap((member) => declaredIn<D>(member, wanted)) : [];
}

/** The same options with the names of all members in alphabetical order, whatever order they were written in. */
function inKeyOrder(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(inKeyOrder);
  if (typeof value !== "object" || value === null || types.isRegExp(value)) return value;
  // A policy within is itself when it is compiled by itself.
  if ((value as { kind?: unknown }).kind === "policy") return value;
  // zod passes over this name, and nobody means it.
  if (Object.hasOwn(value, "__proto__")) throw new Error('"__proto__" is no name for anything');
  const members = Object.entries(value).sort(byKey);
  return Object.fromEntries(
    members.map(([name, member]) => [name, name === "declaredAt" ? member : inKeyOrder(member)]),
  );
}
