/**
 * What one isolate keeps between requests, all of it derived from the frozen table or bounded: the matcher, each route's policies
 * (made when the route is first asked for, so that start-up does not pay for 10,000 routes), ingress addresses, assertions.
 */
import type { MiddlewareHandler } from "hono";
import type {
  Authenticator,
  GatewayEnv,
  GatewayRuntime,
  MakeAuthenticator,
  MemberPolicy,
  PolicyRun,
} from "../policies/contract.ts";
import { gatewayHeaders } from "../table/gateway-headers.ts";
import { Matcher, type MatchIndex } from "../table/match.ts";
import type { EdgeTable, PolicyName, TableBackend, TableCluster, TablePolicy, TableRoute } from "../table/table.ts";
import type { RulePack } from "../waf/pack.ts";
import { Assertions } from "./assertion.ts";
import { trustedRanges } from "./client.ts";
import { type Ingress, ingressOf, textOf } from "./environment.ts";
import { MirrorTraffic } from "./mirror.ts";
import { type HealthReader, Traffic } from "./tries.ts";

/** What the build puts into the Worker. */
export interface GatewayParts {
  readonly table: EdgeTable;
  readonly index: MatchIndex;
  /** Of exactly the policies that the table uses. */
  // biome-ignore lint/suspicious/noExplicitAny: each run knows its own configuration's type
  readonly runs: Partial<Record<PolicyName, PolicyRun<any>>>;
  /** Of exactly the policies that stand in anyOf or allOf. */
  // biome-ignore lint/suspicious/noExplicitAny: as above
  readonly authenticators?: Partial<Record<PolicyName, MakeAuthenticator<any>>>;
  readonly middleware: Readonly<Record<string, MiddlewareHandler>>;
  /** By id: the rules of the table's wafs. */
  readonly packs?: Readonly<Record<string, RulePack>>;
  /** Reads what the health checks have found (health.ts); where the table has some. */
  readonly readHealth?: HealthReader;
}

export class Isolate {
  readonly table: EdgeTable;
  readonly matcher: Matcher;
  readonly isStripped: (name: string) => boolean;
  readonly trustedProxies: ReturnType<typeof trustedRanges>;
  readonly assertions: Assertions | undefined;
  /** Stands for the route of requests that no route matches: the gateway's own policies run for them as well. */
  readonly unmatched: TableRoute;
  readonly traffic: Traffic;
  readonly mirrorTraffic = new MirrorTraffic();
  readonly #runs: GatewayParts["runs"];
  readonly #authenticators: GatewayParts["authenticators"];
  readonly #runtime: GatewayRuntime;
  readonly #policies = new Map<number, MiddlewareHandler<GatewayEnv>>();
  readonly #handlers = new Map<TableRoute, readonly MiddlewareHandler<GatewayEnv>[]>();
  readonly #ingresses = new Map<string, Ingress>();

  constructor({ table, index, runs, authenticators, middleware, packs, readHealth }: GatewayParts) {
    this.table = table;
    this.matcher = new Matcher(table.routes, index, table.gateway.semantics);
    this.isStripped = gatewayHeaders(table.identityHeaders);
    this.trustedProxies = trustedRanges(table.gateway.trustedProxies);
    this.assertions = table.gateway.assertion && new Assertions(table.gateway.assertion);
    this.unmatched = {
      id: "",
      api: "",
      hosts: [],
      matches: [],
      policies: table.unmatched,
      action: { kind: "forward", backends: [] },
    };
    this.traffic = new Traffic(table, readHealth);
    this.#runs = runs;
    this.#authenticators = authenticators;
    this.#runtime = {
      table,
      middleware,
      text: textOf,
      now: () => Date.now(),
      rulePack: (id) => {
        const pack = packs?.[id];
        if (!pack) throw new Error(`the rules ${id} are not in the bundle`);
        return pack;
      },
      authenticator: (member) => this.#authenticator(member),
    };
  }

  now(): number {
    return this.#runtime.now();
  }

  policiesOf(route: TableRoute): readonly MiddlewareHandler<GatewayEnv>[] {
    let handlers = this.#handlers.get(route);
    if (!handlers) {
      handlers = route.policies.map((position) => this.#policy(position));
      this.#handlers.set(route, handlers);
    }
    return handlers;
  }

  backend(position: number, env: unknown): { backend: TableBackend; cluster: TableCluster; ingress: Ingress } {
    const backend = this.table.backends[position] as TableBackend;
    const cluster = this.table.clusters[backend.cluster] as TableCluster;
    return { backend, cluster, ingress: ingressOf(cluster, env, this.#ingresses) };
  }

  /** `:8443`, or "" where the scheme's own port serves. */
  portOf({ origin }: Ingress): string {
    const port = origin && new URL(origin).port;
    return port ? `:${port}` : "";
  }

  #policy(position: number): MiddlewareHandler<GatewayEnv> {
    let handler = this.#policies.get(position);
    if (!handler) {
      const { policy, config, mode } = this.table.policies[position] as TablePolicy;
      const run = this.#runs[policy];
      if (!run) throw new Error(`the policy ${policy} is not in the bundle`);
      handler = run(config, this.#runtime, mode);
      this.#policies.set(position, handler);
    }
    return handler;
  }

  #authenticator({ policy, config }: MemberPolicy): Authenticator {
    const make = this.#authenticators?.[policy];
    if (!make) throw new Error(`the authenticator of ${policy} is not in the bundle`);
    return make(config, this.#runtime);
  }
}
