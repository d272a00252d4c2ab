/** plan: from checked declarations to the RouteTable. Whatever the order of the declarations, the table is the same. */
import { createHash } from "node:crypto";
import type { ApiDeclaration, GatewayDeclaration, RouteDeclaration, RouteOptions } from "../config/api.ts";
import type { Declaration } from "../config/declaration.ts";
import { parseDuration } from "../config/duration.ts";
import { EVERYWHERE } from "../config/entries.ts";
import type { ListenerDeclaration } from "../config/listener.ts";
import type { Reference as Declared } from "../config/values.ts";
import { type Step, unwatched } from "../prove/step.ts";
import {
  type GatewaySettings,
  type Reference,
  type RouteTable,
  TABLE_VERSION,
  type TableListener,
  type TableRoute,
} from "../table/table.ts";
import type { EncodedPack } from "../waf/pack-encoding.ts";
import { byKey } from "./by-key.ts";
import { checkPlanned } from "./check-planned.ts";
import { tableMatch } from "./plan-match.ts";
import { type Held, PolicyPlan } from "./plan-policies.ts";
import { rewriteOf, TargetPlan } from "./plan-target.ts";
import { type Problems, quoted } from "./problem.ts";
import { resolveRetry } from "./resilience.ts";
import type { RuleSets } from "./rule-sets.ts";
import { resolveTimeouts } from "./timeouts.ts";

export interface Planned {
  readonly table: RouteTable;
  /** Where each route, cluster, listener and consumer was declared: `route orders/list` to the declaration. */
  readonly declarations: ReadonlyMap<string, Declaration>;
  /** Where each name of the environment is first referred to. */
  readonly references: ReadonlyMap<string, Declared>;
  /** By id: the rules of wafs. */
  readonly packs: ReadonlyMap<string, EncodedPack>;
  /** Files of rules that went into them. */
  readonly ruleFiles: RuleSets["files"];
}

export function planTable(gateway: GatewayDeclaration, problems: Problems, step: Step = unwatched): Planned {
  const plan = new Plan(gateway, problems);
  return plan.table(step);
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
  readonly #identityHeaders = new Set<string>();
  readonly #overrideCookies = new Set<string>();
  readonly #declarations = new Map<string, Declaration>();
  readonly #policies: PolicyPlan;
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
    this.#policies = new PolicyPlan({
      problems,
      gatewayApi: this.#gatewayApi,
      declarations: this.#declarations,
      reference: (value) => this.#reference(value),
      identityHeader: (name) => void this.#identityHeaders.add(name.toLowerCase()),
    });
    this.#listeners = [...(gateway.options.listeners ?? [])].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  table(step: Step): Planned {
    const settings = this.#settings();
    const everywhere = this.#policies.hold([], { place: EVERYWHERE, entries: this.#gateway.options.policies ?? [] });
    const unmatched = this.#policies.positions(everywhere);
    // Sorted before anything is numbered, so that the numbers do not depend on the declarations' order.
    const routes = this.#gateway.apis
      .flatMap((api) => {
        const held = this.#policies.hold(everywhere, { place: api.name, entries: api.options.policies ?? [] });
        return api.routes.map((route) => ({ api, route, held, id: `${api.name}/${route.name}` }));
      })
      .map((one, order) => ({ ...one, ...(this.#gatewayApi && { order }) }))
      .sort((a, b) => (a.id < b.id ? -1 : 1))
      .map(({ held, ...one }, number, all) => {
        step("planning routes", number, all.length);
        return this.#route(one, held);
      });
    const listeners = this.#listeners.map((one) => this.#listener(one));
    const whole = {
      routes,
      unmatched,
      listeners,
      policies: this.#policies.policies.values,
      pools: this.#targets.pools.values,
      identityHeaders: [...this.#identityHeaders].sort(),
    };
    checkPlanned(whole, this.#gatewayApi, ({ id }, message, fix) =>
      this.#problems.add(this.#declarations.get(`route ${id}`), `route "${id}"`, message, fix),
    );
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
      consumers: sorted(this.#policies.consumers),
      ...(this.#policies.plans.size > 0 && { plans: sorted(this.#policies.plans) }),
      policies: whole.policies,
      backends: this.#targets.backends.values,
      pools: whole.pools,
      ...(listeners.length > 0 && { listeners }),
      routes,
      unmatched,
      identityHeaders: whole.identityHeaders,
      overrideCookies: [...this.#overrideCookies].sort(),
    } as const;
    const id = createHash("sha256").update(JSON.stringify(content)).digest("hex").slice(0, 16);
    return {
      table: { ...content, id },
      declarations: this.#declarations,
      references: this.#references,
      packs: this.#policies.ruleSets.packs,
      ruleFiles: this.#policies.ruleSets.files,
    };
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
    const policies = this.#policies.positions(
      this.#policies.hold(inherited, { place: id, entries: options.policies ?? [] }),
    );
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
}

const VARIABLE_FIX = "use letters, digits and _";

const otherwiseOf = (value: Declared): string | undefined => (value.kind === "env" ? value.otherwise : undefined);
const isOptional = (value: Declared): boolean => otherwiseOf(value) !== undefined;

function tableWebSocket(declared: RouteOptions["websocket"]): TableRoute["websocket"] {
  if (typeof declared !== "object") return declared || undefined;
  const [idle, lifetime] = [declared.idle, declared.lifetime].map((text) => parseDuration(text ?? "0s") ?? 0);
  return idle || lifetime ? { idle: idle ?? 0, lifetime: lifetime ?? 0 } : true;
}

const sorted = <Value>(map: ReadonlyMap<string, Value>): Record<string, Value> =>
  Object.fromEntries([...map].sort(byKey));
