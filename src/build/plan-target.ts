/** plan, where a route leads: clusters, backends and pools by number, splits, redirects, rewrites and mirrors. */
import type {
  Arm,
  BalanceOptions,
  ClusterDeclaration,
  Endpoint,
  Level,
  Mirror,
  Redirect,
  Rewrite,
  Split,
  SplitOptions,
  Target,
} from "../config/cluster.ts";
import type { Declaration } from "../config/declaration.ts";
import type { Reference as Declared } from "../config/values.ts";
import { headerChanges } from "../policies/headers.ts";
import type {
  ArmAction,
  Reference,
  StickyKey,
  TableAction,
  TableBackend,
  TableCluster,
  TableHashKey,
  TableLevel,
  TableMirror,
  TablePool,
  TableRewrite,
} from "../table/table.ts";
import { Numbered } from "./numbered.ts";
import { resolveBreaker, resolveHealth, resolveOutlier } from "./resilience.ts";

/** What the plan of targets tells to the plan around it, and asks of it. */
export interface TargetContext {
  reference(value: Declared): Reference;
  /** Notes where something was declared: `cluster eu`. */
  declare(name: string, declaration: Declaration): void;
  /** Notes a header or a cookie by which a split is overridden. */
  override(names: { readonly header?: string; readonly cookie?: string }): void;
}

/** A backend before it and those that get its copies have numbers. */
interface PlannedBackend {
  readonly backend: TableBackend;
  readonly mirrors: readonly PlannedMirror[];
}

interface PlannedMirror {
  readonly to: PlannedBackend;
  readonly mirror: Omit<TableMirror, "backend">;
}

export class TargetPlan {
  readonly clusters = new Map<string, TableCluster>();
  readonly backends = new Numbered<TableBackend>();
  readonly pools = new Numbered<TablePool>();
  readonly #context: TargetContext;

  constructor(context: TargetContext) {
    this.#context = context;
  }

  /** `to` is undefined where `check` found it unusable. `id` is the route's. */
  action(to: Target | undefined, id: string): TableAction {
    if (to === undefined) return { kind: "forward", backends: [] };
    return to.kind === "split" ? this.#split(to, id) : this.#armAction(to);
  }

  mirrors(mirrors: readonly Mirror[]): TableMirror[] {
    return this.#numberedMirrors(inOneOrder(mirrors.map((mirror) => this.#plannedMirror(mirror))));
  }

  #armAction(to: Arm): ArmAction {
    if (to.kind === "redirect") return redirectAction(to);
    if (to.kind === "missing") return { kind: "missing", reason: to.reason };
    const { levels, nearest } = to;
    const alone = levels.every(({ endpoints, balance }) => endpoints.length === 1 && balance === undefined);
    if (alone && !nearest)
      return { kind: "forward", backends: levels.flatMap(({ endpoints }) => this.#numbers(endpoints)) };
    const pool = { levels: levels.map((level) => this.#level(level)), ...(nearest && { nearest }) };
    return { kind: "pool", pool: this.pools.number(pool) };
  }

  #level({ endpoints, balance = {} }: Level): TableLevel {
    // An endpoint of weight 0 gets nothing, also when the others fail; one that is listed twice gets the sum.
    const weights = new Map<number, number>();
    const planned = endpoints
      .filter(({ weight }) => weight !== 0)
      .map((endpoint) => ({ ...this.#planned(endpoint), weight: endpoint.weight ?? 1 }));
    for (const { weight, ...backend } of inOneOrder(planned)) {
      const position = this.#number(backend);
      weights.set(position, (weights.get(position) ?? 0) + weight);
    }
    const shares = [...weights.values()];
    const { by = "round-robin", affinity } = balance;
    return {
      backends: [...weights.keys()],
      ...(new Set(shares).size > 1 && { weights: shares }),
      by: typeof by === "string" ? by : { hash: hashKey(by.hash) },
      // A day: long enough for what an endpoint has in memory to be worth coming back to.
      ...(affinity && { affinity: { cookie: affinity.cookie, maxAge: affinity.maxAge ?? 86_400 } }),
    };
  }

  #split(split: Split, id: string): TableAction {
    const { sticky, override, salt } = split.options;
    if (override) this.#context.override(override);
    const arms = Object.entries(split.arms)
      .sort(byKey)
      .map(([name, arm]) => ({ name, weight: arm.share ?? 0, action: this.#armAction(arm) }));
    // Hand-written routes are refused for it; the Gateway API wants 500 (HTTPRouteRule.backendRefs).
    if (arms.every(({ weight }) => weight === 0)) return { kind: "missing", reason: "all weights are 0" };
    return {
      kind: "split",
      salt: salt ?? id,
      arms,
      sticky: stickyKey(sticky),
      ...(override && {
        override: {
          ...(override.header && { header: override.header.toLowerCase() }),
          ...(override.cookie && { cookie: override.cookie }),
          secret: this.#context.reference(override.secret),
        },
      }),
    };
  }

  #numbers(endpoints: readonly Endpoint[]): number[] {
    return endpoints.map((endpoint) => this.#number(this.#planned(endpoint)));
  }

  #number({ backend, mirrors }: PlannedBackend): number {
    return this.backends.number({
      ...backend,
      ...(mirrors.length > 0 && { mirrors: this.#numberedMirrors(mirrors) }),
    });
  }

  #numberedMirrors(mirrors: readonly PlannedMirror[]): TableMirror[] {
    return mirrors.map(({ to, mirror }) => ({ backend: this.#number(to), ...mirror }));
  }

  #plannedMirror({ to, options }: Mirror): PlannedMirror {
    const { percent = 100, fraction: [numerator, denominator] = [percent, 100] } = options;
    const { methods = ["GET", "HEAD", "OPTIONS"], maxBody = 65_536 } = options;
    const [endpoint] = (to.levels[0] as Level).endpoints;
    return {
      to: this.#planned(endpoint as Endpoint),
      mirror: {
        ...(numerator < denominator && { ratio: numerator / denominator }),
        ...(methods !== "any" && { methods: [...new Set(methods)].sort() }),
        maxBody,
      },
    };
  }

  #planned({ cluster, service, host, path, headers, rewrite, mirrors = [] }: Endpoint): PlannedBackend {
    this.#cluster(cluster);
    const fill = (template: string | undefined) => template?.replaceAll("{service}", service ?? "");
    const template = service === undefined ? undefined : cluster.options.services;
    const ownHost = fill(host ?? template?.host ?? cluster.options.host);
    const ownPath = fill(path ?? template?.path)?.replace(/\/$/, "");
    // What is wrong with them `check` has told.
    const context = { problem: () => {}, reference: (value: Declared) => this.#context.reference(value) };
    const request = headerChanges(headers?.request, "request", context);
    const response = headerChanges(headers?.response, "response", context);
    return {
      backend: {
        name: service === undefined ? cluster.name : `${cluster.name}/${service}`,
        cluster: cluster.name,
        ...(ownHost && { host: ownHost }),
        ...(ownPath && { path: ownPath }),
        ...(request.length + response.length > 0 && { headers: { request, response } }),
        ...(rewrite && { rewrite: rewriteOf(rewrite) }),
      },
      mirrors: inOneOrder(mirrors.map((mirror) => this.#plannedMirror(mirror))),
    };
  }

  #cluster(declared: ClusterDeclaration): void {
    if (this.clusters.has(declared.name)) return;
    this.#context.declare(`cluster ${declared.name}`, declared);
    const { ingress, certificate, region, scheme, assertion, ...options } = declared.options;
    const { outlier, breaker, concurrency, health } = options;
    this.clusters.set(declared.name, {
      name: declared.name,
      ingress: this.#context.reference(ingress),
      ...(certificate && { certificate: this.#context.reference(certificate) }),
      ...(region && { region }),
      scheme: scheme ?? "https",
      assertion: assertion ?? true,
      ...(outlier && { outlier: resolveOutlier(outlier) }),
      ...(breaker && { breaker: resolveBreaker(breaker) }),
      ...(concurrency !== undefined && { concurrency }),
      ...(health && { health: resolveHealth(health) }),
    });
  }
}

export const rewriteOf = ({ host, path }: Rewrite): TableRewrite => ({ ...(host && { host }), ...(path && { path }) });

/** Whatever order `values` are declared in, they are numbered in the same one. */
const inOneOrder = <Value>(values: readonly Value[]): Value[] =>
  values
    .map((value) => [JSON.stringify(value), value] as const)
    .sort(byKey)
    .map(([, value]) => value);

const hashKey = (key: (BalanceOptions["by"] & object)["hash"]): TableHashKey =>
  typeof key === "object" && "header" in key ? { header: key.header.toLowerCase() } : key;

function stickyKey(sticky: SplitOptions["sticky"] = "subject"): StickyKey {
  if (typeof sticky === "string") return { by: sticky };
  if ("header" in sticky) return { by: "header", name: sticky.header.toLowerCase() };
  // A year: within it a returning caller is still on its arm.
  return { by: "cookie", name: sticky.cookie, maxAge: sticky.maxAge ?? 31_536_000 };
}

const redirectAction = ({ options: { status = 302, scheme, host, port, path } }: Redirect): ArmAction => ({
  kind: "redirect",
  status,
  ...(scheme && { scheme }),
  ...(host && { host }),
  ...(port && { port }),
  ...(path && { path }),
});

const byKey = ([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number =>
  a < b ? -1 : a > b ? 1 : 0;
