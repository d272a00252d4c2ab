/** plan: from checked declarations to the RouteTable. Whatever the order of the declarations, the table is the same. */
import { createHash } from "node:crypto";
import { types } from "node:util";
import type { z } from "zod";
import type {
  ApiDeclaration,
  GatewayDeclaration,
  Match,
  PolicyEntry,
  RouteDeclaration,
  RouteOptions,
  ValueCondition,
} from "../config/api.ts";
import type { ConsumerDeclaration, PlanDeclaration } from "../config/consumer.ts";
import type { Declaration } from "../config/declaration.ts";
import { parseDuration } from "../config/duration.ts";
import { EVERYWHERE, functionOf, type PolicyList, placedEntries } from "../config/entries.ts";
import type { ListenerDeclaration } from "../config/listener.ts";
import type { PolicyDeclaration } from "../config/policy.ts";
import type { Reference as Declared } from "../config/values.ts";
import { type AuthorizeConfig, operandsOf } from "../policies/authorize.ts";
import type { CompileContext, MemberPolicy } from "../policies/contract.ts";
import { FILTER_PACK } from "../policies/filter-inspection.ts";
import { middleware } from "../policies/middleware.ts";
import type { OidcLoginConfig } from "../policies/oidc-login.ts";
import { authenticates, policyOrder } from "../policies/order.ts";
import type { RateLimitConfig } from "../policies/rate-limit.ts";
import { gatewayHeaders } from "../table/gateway-headers.ts";
import { commonHost } from "../table/listener.ts";
import {
  type GatewaySettings,
  type PolicyName,
  type Reference,
  type RouteTable,
  TABLE_VERSION,
  type TableAction,
  type TableConsumer,
  type TableHashKey,
  type TableListener,
  type TableMatch,
  type TablePlan,
  type TablePolicy,
  type TablePool,
  type TableRoute,
  type ValueMatch,
} from "../table/table.ts";
import type { EncodedPack } from "../waf/pack-encoding.ts";
import { filterPack } from "./filter-pack.ts";
import { Numbered } from "./numbered.ts";
import { rewriteOf, TargetPlan } from "./plan-target.ts";
import { type Problems, quoted } from "./problem.ts";
import { registry } from "./registry.ts";
import { resolveRetry } from "./resilience.ts";
import { RuleSets } from "./rule-sets.ts";
import { isName, NAME_FIX, shape, shapes } from "./shapes.ts";
import { resolveTimeouts } from "./timeouts.ts";

export interface Planned {
  readonly table: RouteTable;
  /** Where each route, cluster, listener and consumer was declared: `route orders/list` to the declaration. */
  readonly declarations: ReadonlyMap<string, Declaration>;
  /** Where each name of the environment is first referred to. */
  readonly references: ReadonlyMap<string, Declared>;
  /** By id: the rules of wafs, and those of `filter`. */
  readonly packs: ReadonlyMap<string, EncodedPack>;
  /** Files of rules that went into them. */
  readonly ruleFiles: RuleSets["files"];
}

export function planTable(gateway: GatewayDeclaration, problems: Problems): Planned {
  const plan = new Plan(gateway, problems);
  return plan.table();
}

/** A policy that holds, the list that it comes from and its place there. */
interface Held {
  readonly declared: PolicyDeclaration;
  readonly list: string;
  readonly place: string;
}

interface Compiled {
  readonly policy: TablePolicy;
  /** The policy as text: equal ones are one, and among those of one list it decides the order. */
  readonly key: string;
}

/** A route with its API. */
interface Placed {
  readonly api: ApiDeclaration;
  readonly route: RouteDeclaration;
  readonly id: string;
  readonly order?: number;
}

class Plan {
  readonly #gateway: GatewayDeclaration;
  readonly #problems: Problems;
  /** By `env NAME`, `secret NAME` and `binding NAME`. */
  readonly #references = new Map<string, Declared>();
  readonly #consumers = new Map<string, TableConsumer>();
  readonly #plans = new Map<string, TablePlan>();
  readonly #identityHeaders = new Set<string>();
  readonly #overrideCookies = new Set<string>();
  readonly #declarations = new Map<string, Declaration>();
  readonly #compiled = new Map<PolicyDeclaration, Compiled | undefined>();
  readonly #policies = new Numbered<TablePolicy>();
  readonly #ruleSets = new RuleSets();
  readonly #targets = new TargetPlan({
    reference: (value) => this.#reference(value),
    declare: (name, declaration) => void this.#declarations.set(name, declaration),
    // Who may choose sends the secret along with any request: no route's origin gets it.
    override: ({ header, cookie }) => {
      if (header) this.#identityHeaders.add(header.toLowerCase());
      if (cookie) this.#overrideCookies.add(cookie);
    },
  });
  /** Sorted by name. */
  readonly #listeners: readonly ListenerDeclaration[];

  constructor(gateway: GatewayDeclaration, problems: Problems) {
    this.#gateway = gateway;
    this.#problems = problems;
    this.#listeners = [...(gateway.options.listeners ?? [])].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  table(): Planned {
    const settings = this.#settings();
    const everywhere = this.#hold([], { place: EVERYWHERE, entries: this.#gateway.options.policies ?? [] });
    const unmatched = this.#positions(everywhere);
    // Sorted before anything is numbered, so that the numbers do not depend on the declarations' order.
    const routes = this.#gateway.apis
      .flatMap((api) => {
        const held = this.#hold(everywhere, { place: api.name, entries: api.options.policies ?? [] });
        return api.routes.map((route) => ({ api, route, held, id: `${api.name}/${route.name}` }));
      })
      .map((one, order) => ({ ...one, ...(this.#gatewayApi && { order }) }))
      .sort((a, b) => (a.id < b.id ? -1 : 1))
      .map(({ held, ...one }) => this.#route(one, held));
    if (!this.#gatewayApi) this.#refuseAmbiguity(routes);
    this.#refuseForged(routes);
    this.#refuseLostLogins(routes, unmatched);
    const names = (fits: (reference: Declared) => boolean) =>
      [...this.#references.values()]
        .filter(fits)
        .map(({ name }) => name)
        .sort();
    const optional = names(isOptional);
    const environment = {
      vars: names((reference) => reference.kind === "env" && !isOptional(reference)),
      ...(optional.length > 0 && { optional }),
      secrets: names(({ kind }) => kind === "secret"),
      bindings: names(({ kind }) => kind === "binding"),
    };
    const content = {
      version: TABLE_VERSION,
      gateway: settings,
      environment,
      clusters: sorted(this.#targets.clusters),
      consumers: sorted(this.#consumers),
      ...(this.#plans.size > 0 && { plans: sorted(this.#plans) }),
      policies: this.#policies.values,
      backends: this.#targets.backends.values,
      pools: this.#targets.pools.values,
      ...(this.#listeners.length > 0 && { listeners: this.#listeners.map((one) => this.#listener(one)) }),
      routes,
      unmatched,
      identityHeaders: [...this.#identityHeaders].sort(),
      overrideCookies: [...this.#overrideCookies].sort(),
    } as const;
    const id = createHash("sha256").update(JSON.stringify(content)).digest("hex").slice(0, 16);
    return {
      table: { ...content, id },
      declarations: this.#declarations,
      references: this.#references,
      packs: this.#packs(),
      ruleFiles: this.#ruleSets.files,
    };
  }

  #packs(): Planned["packs"] {
    const { packs } = this.#ruleSets;
    const filters = this.#policies.values.some(({ policy }) => policy === "filter");
    return filters ? new Map([...packs, [FILTER_PACK, filterPack()]]) : packs;
  }

  get #gatewayApi(): boolean {
    return this.#gateway.options.semantics === "gateway-api";
  }

  #settings(): GatewaySettings {
    const { store, debug, assertion, ...options } = this.#gateway.options;
    return {
      ...(this.#gatewayApi && { semantics: "gateway-api" as const }),
      escapedSlashes: options.escapedSlashes ?? "refuse",
      forwardedFor: options.forwardedFor ?? "overwrite",
      trustedProxies: [...(options.trustedProxies ?? ["127.0.0.0/8", "::1"])].sort(),
      ...(store && { store: { url: this.#reference(store.url), token: this.#reference(store.token) } }),
      ...(debug && { debug: { secret: this.#reference(debug) } }),
      ...(assertion && {
        assertion: {
          key: this.#reference(assertion.key),
          issuer: assertion.issuer,
          lifetime: Math.ceil((parseDuration(assertion.lifetime ?? "60s") ?? 60_000) / 1000),
        },
      }),
      maxUrl: options.maxUrl ?? 8_192,
      maxBody: options.maxBody ?? 100_000_000,
      timeouts: resolveTimeouts(options.timeouts),
    };
  }

  #listener(declared: ListenerDeclaration): TableListener {
    this.#declarations.set(`listener ${declared.name}`, declared);
    const { port, protocol, host } = declared.options;
    return { name: declared.name, port, protocol, ...(host && { host }) };
  }

  #route({ api, route, id, order }: Placed, inherited: readonly Held[]): TableRoute {
    this.#declarations.set(`route ${id}`, route);
    const { to, retry, rewrite, mirrors, ...options } = route.options;
    const policies = this.#positions(this.#hold(inherited, { place: id, entries: options.policies ?? [] }));
    this.#checkTogether(route, id, policies);
    const own = api.options.timeouts ?? options.timeouts;
    const matches = new Map(route.matches.map(tableMatch).map((match) => [JSON.stringify(match), match]));
    const listeners = this.#positionsOf(api.options.listeners);
    const action = this.#targets.action(to, id);
    const sends = action.kind !== "redirect" && action.kind !== "missing";
    const websocket = tableWebSocket(options.websocket ?? (this.#gatewayApi && sends));
    return {
      id,
      api: api.name,
      hosts: [...new Set(api.options.hosts ?? ["*"])].sort(),
      ...(listeners && { listeners }),
      ...(order !== undefined && { order }),
      matches: [...matches].sort(byKey).map(([, match]) => match),
      policies,
      action,
      ...(own && {
        timeouts: resolveTimeouts(options.timeouts, api.options.timeouts, this.#gateway.options.timeouts),
      }),
      ...(rewrite && { rewrite: rewriteOf(rewrite) }),
      ...(mirrors && mirrors.length > 0 && { mirrors: this.#targets.mirrors(mirrors) }),
      ...(retry && { retry: resolveRetry(retry) }),
      ...(websocket && { websocket }),
    };
  }

  /** Undefined: all of them. */
  #positionsOf(listeners: readonly ListenerDeclaration[] = this.#listeners): number[] | undefined {
    const wanted = new Set(listeners);
    if (wanted.size === this.#listeners.length) return undefined;
    return [...this.#listeners.keys()].filter((position) =>
      wanted.has(this.#listeners[position] as ListenerDeclaration),
    );
  }

  /** What holds where `list` stands: what is inherited, without what the list takes off, and what it adds. */
  #hold(inherited: readonly Held[], list: PolicyList): readonly Held[] {
    const tell = this.#problems;
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
  #positions(inherited: readonly Held[]): number[] {
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
      for (const { policy, key } of holding) positions.add(this.#policies.number(policy, key));
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
      ...(this.#gatewayApi && { semantics: "gateway-api" }),
      problem: (message, fix) => this.#problems.add(declared, subject, message, fix),
      reference: (value) => this.#reference(value),
      identityHeaders: (names) => {
        for (const name of names) this.#identityHeaders.add(name.toLowerCase());
      },
      member: (within) => this.#compileMember(within, place),
      ruleSet: (options) => this.#ruleSets.compile(options, declared, this.#problems),
    };
    try {
      if (!shape(this.#problems, declared, subject, schema(), declared.options)) return undefined;
      const { mode = "enforce" } = declared.options as { mode?: "enforce" | "report" | "off" };
      if (mode === "off") return undefined;
      const consumers = declaredIn<ConsumerDeclaration>(declared.options, "consumer").map((one) => this.#consumer(one));
      const plans = declaredIn<PlanDeclaration>(declared.options, "plan").map((one) => this.#plan(one));
      if ([...consumers, ...plans].includes(false)) return undefined;
      const config = compile(inKeyOrder(declared.options) as never, context);
      return config === undefined ? undefined : { policy: declared.policy, mode, config };
    } catch (error) {
      this.#problems.add(declared, subject, `cannot be compiled: ${(error as Error).message}`, "correct its options");
      return undefined;
    }
  }

  /** A policy within another one. It decides nothing by itself, so it has no mode of its own. */
  #compileMember(declared: PolicyDeclaration, place: string): MemberPolicy | undefined {
    const subject = `policy ${quoted(declared?.policy)}`;
    if (!Object.hasOwn(registry, declared.policy) || !authenticates(declared.policy)) {
      const names = policyOrder.filter((ordered) => ordered.authenticates).map(({ policy }) => policy);
      this.#problems.add(declared, subject, "does not say who is calling", `choose from ${names.join(", ")}`);
      return undefined;
    }
    if (declared.options?.mode === "report") {
      const fix = "take `mode` out, or give it to the policy around it";
      this.#problems.add(declared, subject, "cannot report by itself", fix);
    }
    const compiled = this.#compile(declared, place);
    return compiled && { policy: compiled.policy, config: compiled.config };
  }

  /** Whether the consumer is usable; what is wrong with it is told when it is met for the first time. */
  #consumer(declared: ConsumerDeclaration): boolean {
    return this.#named(declared, shapes.consumer, this.#consumers, () => {
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
    return this.#named(declared, shapes.plan, this.#plans, () => ({
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
    const known = this.#declarations.get(`${kind} ${name}`);
    if (known === declared) return table.has(name);
    const subject = `${kind} ${quoted(name)}`;
    const before = this.#problems.count;
    if (known) {
      const fix = "name it differently: limits and records go by the name";
      this.#problems.add(declared, subject, `has the name of another ${kind}`, fix);
    } else if (!isName(name)) this.#problems.add(declared, subject, "is no usable name", NAME_FIX);
    else this.#declarations.set(`${kind} ${name}`, declared);
    shape(this.#problems, declared, subject, form, options);
    if (this.#problems.count > before) return false;
    const planned = plan();
    if (this.#problems.count > before) return false;
    table.set(name, planned);
    return true;
  }

  /** Policies that need each other. */
  #checkTogether(route: RouteDeclaration, id: string, positions: readonly number[]): void {
    const subject = `route "${id}"`;
    const names = positions.map((position) => (this.#policies.values[position] as TablePolicy).policy);
    const known = names.some(authenticates);
    if (names.includes("scopes") && !known) {
      this.#problems.add(
        route,
        subject,
        "asks for scopes, but nothing says who is calling",
        "add jwt({ ... }) to the route, its API or the gateway",
      );
    }
    const asking = positions.some((position) => {
      const { policy, config } = this.#policies.values[position] as TablePolicy;
      return policy === "authorize" && (config as AuthorizeConfig).asksCaller;
    });
    if (asking && !known) {
      this.#problems.add(
        route,
        subject,
        "has rules about who is calling, but nothing says who that is",
        "add jwt({ ... }) or another such policy to the route, its API or the gateway",
      );
    }
    const { to } = route.options;
    if (to?.kind === "split" && to.options?.sticky === "subject" && !known) {
      this.#problems.add(
        route,
        subject,
        "keeps callers on an arm by their subject, but nothing says who is calling",
        `add jwt({ ... }), or use sticky: "client" or { cookie: "..." }`,
      );
    }
  }

  /** What goes by a header that only the gateway may say would go by what a client made up. */
  #refuseForged(routes: readonly TableRoute[]): void {
    const isGateways = gatewayHeaders([...this.#identityHeaders]);
    for (const route of routes) {
      const { action } = route;
      const hashes = this.#hashKeys(action);
      const policies = route.policies.map((position) => this.#policies.values[position] as TablePolicy);
      const keys = policies.flatMap(({ policy, config }) =>
        policy === "rateLimit" || policy === "concurrency" ? (config as Pick<RateLimitConfig, "per">).per : [],
      );
      const named = [
        ...route.matches.flatMap(({ headers = [] }) => headers.map(({ name }) => name)),
        ...keys.map((key) => (typeof key === "object" && "header" in key ? key.header : "")),
        action.kind === "split" && action.sticky.by === "header" ? action.sticky.name : "",
        ...hashes.map((key) => (typeof key === "object" && "header" in key ? key.header : "")),
        ...policies.flatMap(headersInRules),
      ];
      for (const name of new Set(named)) {
        if (!isGateways(name.toLowerCase())) continue;
        const message = `goes by the header "${name}", which only the gateway may say: here it is whatever the client sent`;
        const fix = 'go by "consumer", { claim: ... } or a header of the client\'s own';
        this.#problems.add(this.#declarations.get(`route ${route.id}`), `route "${route.id}"`, message, fix);
      }
      if (policies.some(({ policy }) => authenticates(policy))) continue;
      const anonymous = (message: string, fix: string) =>
        this.#problems.add(this.#declarations.get(`route ${route.id}`), `route "${route.id}"`, message, fix);
      if (keys.some((key) => key === "consumer" || (typeof key === "object" && "claim" in key)))
        anonymous("limits by who is calling, but nothing says who that is", 'add jwt({ ... }), or use per: "client"');
      if (hashes.includes("subject"))
        anonymous(
          "balances by who is calling, but nothing says who that is",
          'add jwt({ ... }), or use { hash: "client" }',
        );
    }
  }

  /** Browsers come back from a login to a path that some route with the login must have; else they find nothing there. */
  #refuseLostLogins(routes: readonly TableRoute[], unmatched: readonly number[]): void {
    for (const [position, policy] of this.#policies.values.entries()) {
      const holding = routes.filter(({ policies }) => policies.includes(position));
      for (const { callbackPath, logoutPath } of loginsIn(policy)) {
        for (const path of unmatched.includes(position) ? [] : [callbackPath, logoutPath]) {
          if (holding.some(({ matches }) => matches.some((match) => takesGet(match, path)))) continue;
          const route = holding[0] as TableRoute;
          const message = `signs browsers in, but no route with that policy has the path ${path}`;
          const fix = `give the policy to a route whose path is "/*" or "${path.replace(/[^/]+$/, "*")}"`;
          this.#problems.add(this.#declarations.get(`route ${route.id}`), `route "${route.id}"`, message, fix);
        }
      }
    }
  }

  #hashKeys(action: TableAction): TableHashKey[] {
    if (action.kind === "split") return action.arms.flatMap((arm) => this.#hashKeys(arm.action));
    if (action.kind !== "pool") return [];
    const { levels } = this.#targets.pools.values[action.pool] as TablePool;
    return levels.flatMap(({ by }) => (typeof by === "object" ? [by.hash] : []));
  }

  #reference(value: Declared): Reference {
    const { kind, name } = value;
    const key = `${kind} ${name}`;
    const known = this.#references.get(key);
    const otherwise = otherwiseOf(value);
    if (!known) {
      // A binding's name is whatever wrangler takes for one; the others are names of variables.
      const [form, fix] =
        kind === "binding" ? [/^[\w./:-]+$/, "use letters, digits and . / : _ -"] : [/^[A-Za-z_]\w*$/, VARIABLE_FIX];
      if (!form.test(name)) this.#problems.add(value, `${kind}(${quoted(name)})`, "is no name of a variable", fix);
    } else if (otherwise !== undefined && (otherwiseOf(known) ?? otherwise) !== otherwise) {
      const fix = "declare the reference once, and use it in both places";
      this.#problems.add(value, `${kind}(${quoted(name)})`, "is something else otherwise than elsewhere", fix);
    }
    // What is needed in one place is needed, whatever is used otherwise in others.
    if (!known || (isOptional(known) && !isOptional(value))) this.#references.set(key, value);
    return { [kind]: name, ...(otherwise !== undefined && { otherwise }) } as unknown as Reference;
  }

  /** The hosts of a route as they are behind each of its listeners. */
  #placesOf({ hosts, listeners = [...this.#listeners.keys()] }: TableRoute): [listener: number, host: string][] {
    if (this.#listeners.length === 0) return hosts.map((host) => [-1, host]);
    return listeners.flatMap((listener) => {
      const own = this.#listeners[listener]?.options.host ?? "*";
      const common = hosts.map((host) => commonHost(host, own)).filter((host) => host !== undefined);
      return [...new Set(common)].map((host): [number, string] => [listener, host]);
    });
  }

  /** Two matches that the rules of precedence do not part would be parted by the routes' names alone: nobody wants that. */
  #refuseAmbiguity(routes: readonly TableRoute[]): void {
    const taken = new Map<string, TableRoute>();
    for (const route of routes) {
      const others = new Set<TableRoute>();
      const places = this.#placesOf(route);
      for (const { path, methods = ["*"], headers, query, cookies } of route.matches) {
        const form = path.kind === "regex" ? path.value : path.value.replace(/\{\w+\}/g, "{}");
        for (const [listener, host] of places) {
          for (const method of methods) {
            const key = JSON.stringify([listener, host, path.kind, form, method, headers, query, cookies]);
            const other = taken.get(key);
            if (!other) taken.set(key, route);
            else if (other !== route && !others.has(other)) {
              others.add(other);
              this.#problems.add(
                this.#declarations.get(`route ${route.id}`),
                `route "${route.id}"`,
                `matches the same requests as route "${other.id}": ${method} ${host}${path.value}`,
                "part them by path, method, header or query, or take one out",
              );
            }
          }
        }
      }
    }
  }
}

/** Those of the policy, or within it. */
function loginsIn({ policy, config }: MemberPolicy): OidcLoginConfig[] {
  if (policy === "oidcLogin") return [config as OidcLoginConfig];
  const { members } = config as { members?: readonly MemberPolicy[] };
  return Array.isArray(members) ? members.flatMap(loginsIn) : [];
}

function takesGet({ path: { kind, value }, methods }: TableMatch, path: string): boolean {
  if (methods && !methods.includes("GET")) return false;
  if (kind === "regex") return new RegExp(`^(?:${value})$`).test(path);
  const form = value.replace(/[\\^$.*+?()[\]|]/g, "\\$&").replace(/\{\w+\}/g, "[^/]+");
  return new RegExp(kind === "exact" ? `^${form}$` : `^${form.replace(/\/$/, "")}(?:/|$)`).test(path);
}

function headersInRules({ policy, config }: TablePolicy): string[] {
  if (policy !== "authorize") return [];
  const { allow, deny } = config as AuthorizeConfig;
  const operands = [...allow, ...deny].flatMap(({ condition }) => operandsOf(condition));
  return operands.flatMap((operand) => (operand.of === "header" ? [operand.name] : []));
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

const VARIABLE_FIX = "use letters, digits and _";

const otherwiseOf = (value: Declared): string | undefined => (value.kind === "env" ? value.otherwise : undefined);
const isOptional = (value: Declared): boolean => otherwiseOf(value) !== undefined;

function tableWebSocket(declared: RouteOptions["websocket"]): TableRoute["websocket"] {
  if (typeof declared !== "object") return declared || undefined;
  const [idle, lifetime] = [declared.idle, declared.lifetime].map((text) => parseDuration(text ?? "0s") ?? 0);
  return idle || lifetime ? { idle: idle ?? 0, lifetime: lifetime ?? 0 } : true;
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

function tableMatch({ path = "/*", methods, headers = {}, query = {}, cookies = {} }: Match): TableMatch {
  const conditions = [
    ["headers", valueMatches(headers, true)],
    ["query", valueMatches(query)],
    ["cookies", valueMatches(cookies)],
  ] as const;
  return {
    path:
      typeof path === "object"
        ? { kind: "regex", value: sourceOf(path) }
        : path.endsWith("/*")
          ? { kind: "prefix", value: path.slice(0, -2) || "/" }
          : { kind: "exact", value: path },
    ...(methods && { methods: [...new Set(methods)].sort() }),
    ...Object.fromEntries(conditions.filter(([, matches]) => matches.length > 0)),
  };
}

function valueMatches(conditions: Readonly<Record<string, ValueCondition>>, lowerCase = false): ValueMatch[] {
  return Object.entries(conditions)
    .map(([name, condition]) => ({
      name: lowerCase ? name.toLowerCase() : name,
      ...(typeof condition === "string" && { exact: condition }),
      ...(typeof condition === "object" && { regex: sourceOf(condition, true) }),
    }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

/**
 * A regex as text alone: its flags become a modifier group, which V8 knows. `.` is any character: paths have no line breaks, and in
 * other values (`dots`) there is no line that would end at one.
 */
const sourceOf = ({ source, flags }: RegExp, dots = false): string => {
  const modifiers = `${flags.replace("s", "")}${dots && source.includes(".") ? "s" : ""}`;
  return modifiers === "" ? source : `(?${modifiers}:${source})`;
};

const byKey = ([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number =>
  a < b ? -1 : a > b ? 1 : 0;

const sorted = <Value>(map: ReadonlyMap<string, Value>): Record<string, Value> =>
  Object.fromEntries([...map].sort(byKey));
