/** What is wrong with the routes of a plan together, or with what their policies need of each other: no declaration tells it alone. */
import { type AuthorizeConfig, operandsOf } from "../policies/authorize.ts";
import type { MemberPolicy } from "../policies/contract.ts";
import type { OidcLoginConfig } from "../policies/oidc-login.ts";
import { authenticates } from "../policies/order.ts";
import type { RateLimitConfig } from "../policies/rate-limit.ts";
import { gatewayHeaders } from "../table/gateway-headers.ts";
import { commonHost } from "../table/listener.ts";
import type {
  RouteTable,
  TableAction,
  TableHashKey,
  TableListener,
  TableMatch,
  TablePolicy,
  TablePool,
  TableRoute,
} from "../table/table.ts";

export type PlannedTable = Pick<RouteTable, "routes" | "policies" | "pools" | "unmatched" | "identityHeaders"> & {
  readonly listeners: readonly TableListener[];
};

type Tell = (route: TableRoute, message: string, fix: string) => void;

/** By the Gateway API matches that nothing else parts are parted by their order. */
export function checkPlanned(planned: PlannedTable, gatewayApi: boolean, tell: Tell): void {
  refuseNobody(planned, tell);
  if (!gatewayApi) refuseAmbiguity(planned, tell);
  refuseForged(planned, tell);
  refuseLostLogins(planned, tell);
}

/** Policies that need to know who is calling, on a route where nothing says that. */
function refuseNobody({ policies: all, routes }: PlannedTable, tell: Tell): void {
  for (const route of routes) {
    const policies = route.policies.map((position) => all[position] as TablePolicy);
    if (policies.some(({ policy }) => authenticates(policy))) continue;
    if (policies.some(({ policy }) => policy === "scopes"))
      tell(
        route,
        "asks for scopes, but nothing says who is calling",
        "add jwt({ ... }) to the route, its API or the gateway",
      );
    if (policies.some(({ policy, config }) => policy === "authorize" && (config as AuthorizeConfig).asksCaller))
      tell(
        route,
        "has rules about who is calling, but nothing says who that is",
        "add jwt({ ... }) or another such policy to the route, its API or the gateway",
      );
    const { action } = route;
    if (action.kind === "split" && action.sticky.by === "subject")
      tell(
        route,
        "keeps callers on an arm by their subject, but nothing says who is calling",
        `add jwt({ ... }), or use sticky: "client" or { cookie: "..." }`,
      );
  }
}

/** What goes by a header that only the gateway may say would go by what a client made up. */
function refuseForged({ routes, policies: all, pools, identityHeaders }: PlannedTable, tell: Tell): void {
  const isGateways = gatewayHeaders([...identityHeaders]);
  for (const route of routes) {
    const { action } = route;
    const hashes = hashKeys(action, pools);
    const policies = route.policies.map((position) => all[position] as TablePolicy);
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
      tell(route, message, fix);
    }
    if (policies.some(({ policy }) => authenticates(policy))) continue;
    const anonymous = (message: string, fix: string) => tell(route, message, fix);
    if (keys.some((key) => key === "consumer" || (typeof key === "object" && "claim" in key)))
      anonymous("limits by who is calling, but nothing says who that is", 'add jwt({ ... }), or use per: "client"');
    if (hashes.includes("subject"))
      anonymous(
        "balances by who is calling, but nothing says who that is",
        'add jwt({ ... }), or use { hash: "client" }',
      );
  }
}

function hashKeys(action: TableAction, pools: readonly TablePool[]): TableHashKey[] {
  if (action.kind === "split") return action.arms.flatMap((arm) => hashKeys(arm.action, pools));
  if (action.kind !== "pool") return [];
  const { levels } = pools[action.pool] as TablePool;
  return levels.flatMap(({ by }) => (typeof by === "object" ? [by.hash] : []));
}

/** Browsers come back from a login to a path that some route with the login must have; else they find nothing there. */
function refuseLostLogins({ routes, unmatched, policies }: PlannedTable, tell: Tell): void {
  for (const [position, policy] of policies.entries()) {
    const holding = routes.filter((one) => one.policies.includes(position));
    for (const { callbackPath, logoutPath } of loginsIn(policy)) {
      for (const path of unmatched.includes(position) ? [] : [callbackPath, logoutPath]) {
        if (holding.some(({ matches }) => matches.some((match) => takesGet(match, path)))) continue;
        const route = holding[0] as TableRoute;
        const message = `signs browsers in, but no route with that policy has the path ${path}`;
        const fix = `give the policy to a route whose path is "/*" or "${path.replace(/[^/]+$/, "*")}"`;
        tell(route, message, fix);
      }
    }
  }
}

/** Two matches that the rules of precedence do not part would be parted by the routes' names alone: nobody wants that. */
function refuseAmbiguity({ routes, listeners }: PlannedTable, tell: Tell): void {
  const taken = new Map<string, TableRoute>();
  for (const route of routes) {
    const others = new Set<TableRoute>();
    const places = placesOf(route, listeners);
    for (const { path, methods = ["*"], headers, query, cookies } of route.matches) {
      const form = path.kind === "regex" ? path.value : path.value.replace(/\{\w+\}/g, "{}");
      for (const [listener, host] of places) {
        for (const method of methods) {
          const key = JSON.stringify([listener, host, path.kind, form, method, headers, query, cookies]);
          const other = taken.get(key);
          if (!other) taken.set(key, route);
          else if (other !== route && !others.has(other)) {
            others.add(other);
            tell(
              route,
              `matches the same requests as route "${other.id}": ${method} ${host}${path.value}`,
              "part them by path, method, header or query, or take one out",
            );
          }
        }
      }
    }
  }
}

/** The hosts of a route as they are behind each of its listeners. */
function placesOf(
  { hosts, listeners: own }: TableRoute,
  listeners: readonly TableListener[],
): [listener: number, host: string][] {
  if (listeners.length === 0) return hosts.map((host) => [-1, host]);
  return [...(own ?? listeners.keys())].flatMap((listener) => {
    const behind = listeners[listener]?.host ?? "*";
    const common = hosts.map((host) => commonHost(host, behind)).filter((host) => host !== undefined);
    return [...new Set(common)].map((host): [number, string] => [listener, host]);
  });
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
