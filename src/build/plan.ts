/** plan: from checked declarations to the RouteTable. Whatever the order of the declarations, the table is the same. */
import { createHash } from "node:crypto";
import type {
  ApiDeclaration,
  GatewayDeclaration,
  Match,
  PolicyEntry,
  RouteDeclaration,
  ValueCondition,
} from "../config/api.ts";
import type { Backend, ClusterDeclaration, Endpoint, Redirect, Split, SplitOptions } from "../config/cluster.ts";
import type { ConsumerDeclaration } from "../config/consumer.ts";
import type { Declaration } from "../config/declaration.ts";
import { parseDuration } from "../config/duration.ts";
import { functionOf, middlewarePlace } from "../config/entries.ts";
import type { PolicyDeclaration } from "../config/policy.ts";
import type { Reference as Declared } from "../config/values.ts";
import type { CompileContext } from "../policies/contract.ts";
import { middleware } from "../policies/middleware.ts";
import { policyOrder } from "../policies/order.ts";
import {
  type GatewaySettings,
  type Reference,
  type RouteTable,
  type StickyKey,
  TABLE_VERSION,
  type TableAction,
  type TableBackend,
  type TableCluster,
  type TableConsumer,
  type TableMatch,
  type TablePolicy,
  type TableRoute,
  type ValueMatch,
} from "../table/table.ts";
import { shape } from "./check.ts";
import type { Problems } from "./problem.ts";
import { registry } from "./registry.ts";
import { resolveTimeouts } from "./timeouts.ts";

export interface Planned {
  readonly table: RouteTable;
  /** Where each route, cluster and consumer was declared: `route orders/list` to the declaration. */
  readonly declarations: ReadonlyMap<string, Declaration>;
}

export function planTable(gateway: GatewayDeclaration, problems: Problems): Planned {
  const plan = new Plan(gateway, problems);
  return plan.table();
}

/** A policy entry with its place, from the gateway's, an API's or a route's list. */
interface Placed {
  readonly entry: PolicyEntry;
  readonly place: string;
}

class Plan {
  readonly #gateway: GatewayDeclaration;
  readonly #problems: Problems;
  readonly #names = { vars: new Set<string>(), secrets: new Set<string>(), bindings: new Set<string>() };
  readonly #clusters = new Map<string, TableCluster>();
  readonly #consumers = new Map<string, TableConsumer>();
  readonly #identityHeaders = new Set<string>();
  readonly #declarations = new Map<string, Declaration>();
  readonly #compiled = new Map<PolicyDeclaration, TablePolicy | undefined>();
  readonly #policies = new Numbered<TablePolicy>();
  readonly #backends = new Numbered<TableBackend>();

  constructor(gateway: GatewayDeclaration, problems: Problems) {
    this.#gateway = gateway;
    this.#problems = problems;
  }

  table(): Planned {
    const settings = this.#settings();
    // Sorted before anything is numbered, so that the numbers do not depend on the declarations' order.
    const pairs = this.#gateway.apis
      .flatMap((api) => api.routes.map((route) => ({ api, route, id: `${api.name}/${route.name}` })))
      .sort((a, b) => (a.id < b.id ? -1 : 1));
    const unmatched = this.#policiesOf(this.#gateway, "gateway", [placed(this.#gateway.options.policies, "gateway")]);
    const routes = pairs.map(({ api, route, id }) => this.#route(api, route, id));
    this.#refuseAmbiguity(routes);
    const environment = {
      vars: [...this.#names.vars].sort(),
      secrets: [...this.#names.secrets].sort(),
      bindings: [...this.#names.bindings].sort(),
    };
    const content = {
      version: TABLE_VERSION,
      gateway: settings,
      environment,
      clusters: sorted(this.#clusters),
      consumers: sorted(this.#consumers),
      policies: this.#policies.values,
      backends: this.#backends.values,
      routes,
      unmatched,
      identityHeaders: [...this.#identityHeaders].sort(),
    } as const;
    const id = createHash("sha256").update(JSON.stringify(content)).digest("hex").slice(0, 16);
    return { table: { ...content, id }, declarations: this.#declarations };
  }

  #settings(): GatewaySettings {
    const { store, debug, assertion, ...options } = this.#gateway.options;
    return {
      escapedSlashes: options.escapedSlashes ?? "refuse",
      forwardedFor: options.forwardedFor ?? "overwrite",
      trustedProxies: options.trustedProxies ?? ["127.0.0.0/8", "::1"],
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

  #route(api: ApiDeclaration, route: RouteDeclaration, id: string): TableRoute {
    this.#declarations.set(`route ${id}`, route);
    const policies = this.#policiesOf(route, id, [
      placed(this.#gateway.options.policies, "gateway"),
      placed(api.options.policies, api.name),
      placed(route.options.policies, id),
    ]);
    this.#checkTogether(route, id, policies);
    const { to, websocket } = route.options;
    const own = api.options.timeouts ?? route.options.timeouts;
    return {
      id,
      api: api.name,
      hosts: [...(api.options.hosts ?? ["*"])].sort(),
      matches: route.matches.map(tableMatch),
      policies,
      action:
        to.kind === "backend"
          ? { kind: "forward", backends: this.#backendsOf(to) }
          : to.kind === "split"
            ? this.#split(to, id)
            : redirectAction(to),
      ...(own && {
        timeouts: resolveTimeouts(route.options.timeouts, api.options.timeouts, this.#gateway.options.timeouts),
      }),
      ...(websocket && { websocket }),
    };
  }

  /** Positions of the policies that hold on a route, in the order in which they run. */
  #policiesOf(declaration: Declaration, id: string, lists: readonly (readonly Placed[])[]): number[] {
    const kept: { declared: PolicyDeclaration; place: string }[] = [];
    for (const list of lists) {
      for (const { entry } of list) {
        if (typeof entry === "function" || entry.kind !== "without") continue;
        for (const name of entry.policies) {
          if (!(name in registry))
            this.#problems.add(
              entry,
              `without("${name}")`,
              "names no policy",
              `choose from ${Object.keys(registry).join(", ")}`,
            );
          else if (!kept.some(({ declared }) => declared.policy === name)) {
            this.#problems.add(
              entry,
              `without("${name}")`,
              "takes off a policy that is not inherited here",
              "take the line out",
            );
          }
        }
        // Only what is inherited is taken off; what the same list adds stays.
        kept.splice(0, kept.length, ...kept.filter(({ declared }) => !entry.policies.includes(declared.policy)));
      }
      for (const { entry, place } of list) {
        if (typeof entry === "function") kept.push({ declared: middlewareOf(entry), place });
        else if (entry.kind === "policy") kept.push({ declared: entry, place });
      }
    }
    const positions: number[] = [];
    for (const { policy, repeat } of policyOrder) {
      const all = kept.filter(({ declared }) => declared.policy === policy);
      const holding = repeat === "replace" ? all.slice(-1) : all;
      const nearest = all.filter(({ place }) => place === all.at(-1)?.place);
      if (repeat === "replace" && nearest.length > 1) {
        this.#problems.add(
          nearest[1]?.declared ?? declaration,
          `policy ${policy}`,
          `stands twice in the list of ${id}`,
          "keep one",
        );
      }
      for (const { declared, place } of holding) {
        const compiled = this.#policy(declared, place);
        if (compiled) positions.push(this.#policies.number(compiled));
      }
    }
    for (const { declared } of kept) {
      if (!(declared.policy in registry))
        this.#problems.add(
          declared,
          `policy ${String(declared.policy)}`,
          "is unknown",
          `choose from ${Object.keys(registry).join(", ")}`,
        );
    }
    return positions;
  }

  /** Undefined for what is `off` or has problems. */
  #policy(declared: PolicyDeclaration, place: string): TablePolicy | undefined {
    if (this.#compiled.has(declared) && declared.policy !== "middleware") return this.#compiled.get(declared);
    const compiled = this.#compile(declared, place);
    this.#compiled.set(declared, compiled);
    return compiled;
  }

  #compile(declared: PolicyDeclaration, place: string): TablePolicy | undefined {
    const registered = registry[declared.policy];
    const subject = `policy ${declared.policy}`;
    if (!registered || !shape(this.#problems, declared, subject, registered.schema(), declared.options))
      return undefined;
    const { mode = "enforce" } = declared.options as { mode?: "enforce" | "report" | "off" };
    if (mode === "off") return undefined;
    const context: CompileContext = {
      place,
      problem: (message, fix) => this.#problems.add(declared, subject, message, fix),
      reference: (value) => this.#reference(value),
      identityHeaders: (names) => {
        for (const name of names) this.#identityHeaders.add(name.toLowerCase());
      },
    };
    for (const consumer of consumersIn(declared.options)) this.#consumer(consumer);
    try {
      return { policy: declared.policy, mode, config: registered.compile(declared.options as never, context) };
    } catch (error) {
      this.#problems.add(declared, subject, `cannot be compiled: ${(error as Error).message}`, "correct its options");
      return undefined;
    }
  }

  #consumer(declared: ConsumerDeclaration): void {
    const known = this.#declarations.get(`consumer ${declared.name}`);
    if (known === declared) return;
    const subject = `consumer ${JSON.stringify(declared.name)}`;
    if (known)
      this.#problems.add(
        declared,
        subject,
        "has the name of another consumer",
        "name it differently: limits and records go by the name",
      );
    this.#declarations.set(`consumer ${declared.name}`, declared);
    const groups = declared.options?.groups ?? [];
    this.#consumers.set(declared.name, {
      name: declared.name,
      groups: Array.isArray(groups) ? [...groups].sort() : [],
    });
  }

  /** Policies that need each other. */
  #checkTogether(route: RouteDeclaration, id: string, positions: readonly number[]): void {
    const subject = `route "${id}"`;
    const names = new Map(
      positions.map((position) => [this.#policies.values[position]?.policy, this.#policies.values[position]]),
    );
    if (names.has("scopes") && !names.has("jwt")) {
      this.#problems.add(
        route,
        subject,
        "asks for scopes, but nothing says who is calling",
        "add jwt({ ... }) to the route, its API or the gateway",
      );
    }
    if (names.has("rateLimit") && !this.#gateway.options.store) {
      this.#problems.add(
        route,
        subject,
        "has a rate limit, but the gateway has no store to count in",
        "give gateway({ store: { url: env(...), token: secret(...) } })",
      );
    }
    const { to } = route.options;
    if (
      to.kind === "split" &&
      (to.options?.sticky ?? "subject") === "subject" &&
      to.options?.sticky &&
      !names.has("jwt")
    ) {
      this.#problems.add(
        route,
        subject,
        "keeps callers on an arm by their subject, but nothing says who is calling",
        `add jwt({ ... }), or use sticky: "client" or { cookie: "..." }`,
      );
    }
  }

  #split(split: Split, id: string): TableAction {
    const { sticky, override, salt } = split.options;
    return {
      kind: "split",
      salt: salt ?? id,
      arms: Object.entries(split.arms)
        .map(([name, arm]) => ({ name, weight: arm.share ?? 0, backends: this.#backendsOf(arm) }))
        .sort((a, b) => (a.name < b.name ? -1 : 1)),
      sticky: stickyKey(sticky),
      ...(override && {
        override: {
          ...(override.header && { header: override.header.toLowerCase() }),
          ...(override.cookie && { cookie: override.cookie }),
          secret: this.#reference(override.secret),
        },
      }),
    };
  }

  #backendsOf(backend: Backend): number[] {
    return backend.endpoints.map((endpoint) => this.#backends.number(this.#backend(endpoint)));
  }

  #backend({ cluster, service, host, path }: Endpoint): TableBackend {
    this.#cluster(cluster);
    const fill = (template: string | undefined) => template?.replaceAll("{service}", service ?? "");
    const template = service === undefined ? undefined : cluster.options.services;
    const ownHost = fill(host ?? template?.host ?? cluster.options.host);
    const ownPath = fill(path ?? template?.path)?.replace(/\/$/, "");
    return {
      name: service === undefined ? cluster.name : `${cluster.name}/${service}`,
      cluster: cluster.name,
      ...(ownHost && { host: ownHost }),
      ...(ownPath && { path: ownPath }),
    };
  }

  #cluster(declared: ClusterDeclaration): void {
    if (this.#clusters.has(declared.name)) return;
    this.#declarations.set(`cluster ${declared.name}`, declared);
    const { ingress, certificate, region, scheme, assertion } = declared.options;
    this.#clusters.set(declared.name, {
      name: declared.name,
      ingress: this.#reference(ingress),
      ...(certificate && { certificate: this.#reference(certificate) }),
      ...(region && { region }),
      scheme: scheme ?? "https",
      assertion: assertion ?? true,
    });
  }

  #reference(value: Declared): Reference {
    if (value.kind === "env") this.#names.vars.add(value.name);
    else if (value.kind === "secret") this.#names.secrets.add(value.name);
    else this.#names.bindings.add(value.name);
    return { [value.kind]: value.name } as unknown as Reference;
  }

  /** Two matches that the rules of precedence do not part would be parted by the routes' names alone: nobody wants that. */
  #refuseAmbiguity(routes: readonly TableRoute[]): void {
    const seen = new Map<string, { route: TableRoute; methods: readonly string[] | undefined }[]>();
    for (const route of routes) {
      const own = new Set<string>();
      for (const match of route.matches) {
        const path = {
          ...match.path,
          value: match.path.kind === "regex" ? match.path.value : match.path.value.replace(/\{\w+\}/g, "{}"),
        };
        for (const host of route.hosts) {
          const key = JSON.stringify([host, path, match.headers, match.query, match.cookies]);
          const others = seen.get(key) ?? [];
          for (const other of others) {
            const common = overlap(other.methods, match.methods);
            if (other.route === route || common === undefined || own.has(other.route.id)) continue;
            own.add(other.route.id);
            this.#problems.add(
              this.#declarations.get(`route ${route.id}`),
              `route "${route.id}"`,
              `matches the same requests as route "${other.route.id}": ${common} ${host}${match.path.value}`,
              "part them by path, method, header or query, or take one out",
            );
          }
          seen.set(key, [...others, { route, methods: match.methods }]);
        }
      }
    }
  }
}

/** Gives equal values the same position, in order of first use. */
class Numbered<Value> {
  readonly values: Value[] = [];
  readonly #positions = new Map<string, number>();

  number(value: Value): number {
    const key = JSON.stringify(value);
    let position = this.#positions.get(key);
    if (position === undefined) {
      position = this.values.push(value) - 1;
      this.#positions.set(key, position);
    }
    return position;
  }
}

const placed = (entries: readonly PolicyEntry[] | undefined, list: string): Placed[] =>
  (entries ?? []).map((entry, position) => ({ entry, place: middlewarePlace(list, position) }));

const wrapped = new WeakMap<object, PolicyDeclaration>();
function middlewareOf(entry: PolicyEntry): PolicyDeclaration {
  let declared = wrapped.get(entry);
  if (!declared) {
    declared = middleware({ handler: functionOf(entry) as never });
    wrapped.set(entry, declared);
  }
  return declared;
}

/** The consumers that a policy's options refer to, at any depth. */
function consumersIn(value: unknown): ConsumerDeclaration[] {
  if (typeof value !== "object" || value === null) return [];
  if ((value as { kind?: unknown }).kind === "consumer") return [value as ConsumerDeclaration];
  return Object.values(value).flatMap(consumersIn);
}

function tableMatch({ path = "/*", methods, headers = {}, query = {}, cookies = {} }: Match): TableMatch {
  return {
    path:
      path instanceof RegExp
        ? { kind: "regex", value: sourceOf(path) }
        : path.endsWith("/*")
          ? { kind: "prefix", value: path.slice(0, -2) || "/" }
          : { kind: "exact", value: path },
    ...(methods && { methods: [...new Set(methods)].sort() }),
    headers: valueMatches(headers, true),
    query: valueMatches(query),
    cookies: valueMatches(cookies),
  };
}

function valueMatches(conditions: Readonly<Record<string, ValueCondition>>, lowerCase = false): ValueMatch[] {
  return Object.entries(conditions)
    .map(([name, condition]) => ({
      name: lowerCase ? name.toLowerCase() : name,
      ...(typeof condition === "string" && { exact: condition }),
      ...(condition instanceof RegExp && { regex: sourceOf(condition) }),
    }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** A regex as text alone: its flags become a modifier group, which V8 knows. */
const sourceOf = (regex: RegExp): string => {
  const flags = regex.flags.replace("u", "");
  return flags === "" ? regex.source : `(?${flags}:${regex.source})`;
};

function stickyKey(sticky: SplitOptions["sticky"] = "subject"): StickyKey {
  if (typeof sticky === "string") return { by: sticky };
  if ("header" in sticky) return { by: "header", name: sticky.header.toLowerCase() };
  // A year: within it a returning caller is still on its arm.
  return { by: "cookie", name: sticky.cookie, maxAge: sticky.maxAge ?? 31_536_000 };
}

const redirectAction = ({ options: { status = 302, ...rest } }: Redirect): TableAction => ({
  kind: "redirect",
  status,
  ...rest,
});

const sorted = <Value>(map: ReadonlyMap<string, Value>): Record<string, Value> =>
  Object.fromEntries([...map].sort(([a], [b]) => (a < b ? -1 : 1)));

/** A method that both allow, `*` for any; undefined when there is none. */
function overlap(a: readonly string[] | undefined, b: readonly string[] | undefined): string | undefined {
  // A match with methods goes before one without, so these two are parted.
  if ((a === undefined) !== (b === undefined)) return undefined;
  if (!a || !b) return "*";
  return a.find((method) => b.includes(method));
}
