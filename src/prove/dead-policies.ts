/** Policies that let nobody pass, or that never have anything to say. */
import type { IpFilterConfig } from "../policies/ip-filter.ts";
import type { Limit, RateLimitConfig } from "../policies/rate-limit.ts";
import type { ScopesConfig } from "../policies/scopes.ts";
import type { RouteTable, TablePolicy, TableRoute } from "../table/table.ts";
import { passing } from "./address-set.ts";
import { authenticatorOf, enforced, policiesOf, possibleConsumers, possibleScopes } from "./callers.ts";
import type { Finding } from "./finding.ts";

type Told = Pick<Finding, "kind" | "severity" | "message" | "fix">;

export function deadPolicies(table: RouteTable): Finding[] {
  // Many routes have the same policies, and what is wrong with those is wrong on all.
  const known = new Map<string, Told[]>();
  return table.routes.flatMap((route) => {
    const key = route.policies.join();
    const told = known.get(key) ?? ofPolicies(policiesOf(table, route));
    known.set(key, told);
    return [...told, ...deadRetry(table, route)].map((one) => ({ ...one, route: route.id }));
  });
}

function ofPolicies(policies: readonly TablePolicy[]): Told[] {
  return [
    ...impossibleScopes(policies),
    ...noAddress(policies),
    ...deadLimits(policies),
    ...unknownConsumers(policies),
  ];
}

function impossibleScopes(policies: readonly TablePolicy[]): Told[] {
  const authenticator = authenticatorOf(policies);
  const possible = authenticator && possibleScopes(authenticator);
  if (!authenticator || !possible) return [];
  return policies
    .filter(({ policy }) => policy === "scopes")
    .flatMap(({ mode, config }): Told[] => {
      const { all, any } = config as ScopesConfig;
      const missing = all.find((scope) => !possible.has(scope));
      if (missing === undefined && (any.length === 0 || any.some((scope) => possible.has(scope)))) return [];
      const what = missing === undefined ? `one of the scopes ${any.join(", ")}` : `the scope ${missing}`;
      const who = `nobody whom ${authenticator.policy} lets in can have`;
      return [
        {
          kind: "dead-policy",
          severity: mode === "enforce" ? "error" : "warning",
          message: `asks for ${what}, which ${who}: it refuses every request`,
          fix: `give the scope to somebody in ${authenticator.policy}, or ask for another one`,
        },
      ];
    });
}

function noAddress(policies: readonly TablePolicy[]): Told[] {
  const filters = enforced(policies, "ipFilter").map(({ config }) => config as IpFilterConfig);
  if (filters.length === 0 || passing(filters).length > 0) return [];
  const message = `lets no address through: ${filters.length === 1 ? "its ipFilter denies all that it allows" : "its ipFilters have none in common"}`;
  return [{ kind: "dead-policy", severity: "error", message, fix: "widen `allow`, or narrow `deny`" }];
}

/** Consumers with a limit of their own whom the route never knows. */
function unknownConsumers(policies: readonly TablePolicy[]): Told[] {
  const authenticator = authenticatorOf(policies);
  const possible = authenticator && possibleConsumers(authenticator);
  if (!authenticator || !possible) return [];
  return policies
    .filter(({ policy }) => policy === "rateLimit" || policy === "concurrency")
    .flatMap(({ policy, config }) =>
      Object.keys((config as RateLimitConfig).consumers)
        .filter((name) => !possible.has(name))
        .map(
          (name): Told => ({
            kind: "dead-policy",
            severity: "warning",
            message: `has a limit in ${policy} for the consumer "${name}", whom ${authenticator.policy} never names`,
            fix: `list "${name}" in ${authenticator.policy}, or take the limit out`,
          }),
        ),
    );
}

/** One limit on a route, with what it counts. */
interface Counted {
  readonly limit: Limit;
  readonly config: RateLimitConfig;
}

function deadLimits(policies: readonly TablePolicy[]): Told[] {
  const counted = enforced(policies, "rateLimit").flatMap(({ config }) => {
    const one = config as RateLimitConfig;
    return one.limits.map((limit): Counted => ({ limit, config: one }));
  });
  return counted.flatMap((one): Told[] => {
    const first = counted.find((other) => other !== one && alwaysFirst(other, one));
    if (!first) return [];
    const shown = ({ limit }: Counted) => `${limit.quota} in ${limit.window / 1_000} s`;
    const message = `has a limit of ${shown(one)} that is never reached: ${shown(first)} always refuses before`;
    return [{ kind: "dead-policy", severity: "warning", message, fix: "lower it, or take it out" }];
  });
}

/**
 * Whether `other` lets so few pass that `one` can never refuse. Windows are counted generously: of those that are tried at the edges
 * of a window, and of the estimate that a sliding window is, so that what is called dead is.
 */
function alwaysFirst(other: Counted, one: Counted): boolean {
  const simple = ({ config }: Counted) =>
    Object.keys(config.consumers).length === 0 && !config.plans && config.costHeader === undefined;
  const same = JSON.stringify(other.config.per) === JSON.stringify(one.config.per);
  if (
    !same ||
    !simple(other) ||
    one.config.plans ||
    other.config.cost !== one.config.cost ||
    other.config.shared !== one.config.shared
  )
    return false;
  if (other.config.onStoreFailure !== one.config.onStoreFailure || other.config.count !== one.config.count)
    return false;
  // Twins would each be the other's.
  if (other.limit.quota === one.limit.quota && other.limit.window === one.limit.window) return false;
  const most = other.limit.quota * (one.limit.window / other.limit.window + 3);
  const nested = one.limit.window <= other.limit.window && other.limit.window % one.limit.window === 0;
  const fixed = one.limit.label.startsWith("fixed-") && other.limit.label.startsWith("fixed-");
  const least = Math.min(one.limit.quota, ...Object.values(one.config.consumers).map(({ quota }) => quota));
  return most <= least || (nested && fixed && other.limit.quota <= least);
}

function deadRetry({ gateway }: RouteTable, { matches, retry }: TableRoute): Told[] {
  if (!retry?.methods || retry.attempts === 0) return [];
  const byGet = gateway.semantics !== "gateway-api";
  const asked = matches.flatMap(({ methods = ["*"] }) =>
    byGet && methods.includes("GET") ? [...methods, "HEAD"] : methods,
  );
  if (asked.some((method) => method === "*" || retry.methods?.includes(method))) return [];
  const message = `has retries for ${retry.methods.join(", ")}, but answers ${[...new Set(asked)].join(", ")} alone`;
  const fix = 'take `retry` out, or allow them with methods: "any" where a request may come twice';
  return [{ kind: "dead-retry", severity: "warning", message, fix }];
}
