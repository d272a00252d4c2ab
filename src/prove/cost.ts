/**
 * What one request can cost at most, route by route, against what the platform allows (Cloudflare's limits page, November 2026). Upper
 * bounds: every cache is cold, every script unknown to the store, every try fails, and what could be at once is.
 */
import type { ConcurrencyConfig } from "../policies/concurrency.ts";
import type { MemberPolicy } from "../policies/contract.ts";
import type { FilterConfig } from "../policies/filter.ts";
import type { RateLimitConfig } from "../policies/rate-limit.ts";
import type { WafConfig } from "../policies/waf.ts";
import type { ArmAction, RouteTable, TableMirror, TableRoute } from "../table/table.ts";
import { membersOf, policiesOf } from "./callers.ts";
import type { Finding } from "./finding.ts";

/** Of one request at most. */
export interface Cost {
  /** Requests that the Worker itself sends, to stores, issuers and clusters, also after the answer. */
  readonly subrequests: number;
  /** Of those, how many may wait for response headers at the same time. */
  readonly connections: number;
  /** Bytes of the request's body that are held in memory. */
  readonly buffered: number;
  /** Milliseconds until the response's last byte; Infinity: no limit. */
  readonly time: number;
  /** It has middleware, of which nothing is known. */
  readonly atLeast?: true;
}

export const PLATFORM = {
  /** Free plan, and the Paid plan's default. */
  subrequests: { free: 50, paid: 10_000 },
  connections: 6,
  /** Of an isolate, for all requests that it serves at the same time. */
  memory: 128 * 1024 * 1024,
} as const;

/** In turn, and beside the request: in the background, or after the answer. */
interface Work {
  readonly calls: number;
  readonly beside: number;
  readonly buffered: number;
  readonly time: number;
}

const NOTHING: Work = { calls: 0, beside: 0, buffered: 0, time: 0 };

export function costOf(table: RouteTable, route: TableRoute): Cost {
  const policies = policiesOf(table, route);
  const works = [...policies.map(workOf), healthWork(table)];
  const sum = (member: keyof Work) => works.reduce((total, work) => total + work[member], 0);
  const forwarding = forwardingOf(table, route);
  const { total } = route.timeouts ?? table.gateway.timeouts;
  return {
    subrequests: sum("calls") + sum("beside") + forwarding.tries * 2 + forwarding.mirrors,
    // One that the request waits for, the probe of its connection, and all that goes on beside it.
    connections: 1 + (forwarding.tries > 0 ? 1 : 0) + sum("beside") + forwarding.mirrors,
    buffered: sum("buffered") + forwarding.buffered,
    time: sum("time") + (forwarding.tries === 0 ? 0 : total === 0 ? Number.POSITIVE_INFINITY : total),
    ...(policies.some(({ policy }) => policy === "middleware") && { atLeast: true as const }),
  };
}

function workOf(member: MemberPolicy): Work {
  const { timeout = 0 } = member.config as { timeout?: number };
  switch (member.policy) {
    // The key set, refreshed beside the request; discovery asks for the issuer's metadata first.
    case "jwt":
    case "oidc": {
      const { keys } = member.config as {
        keys: { secret?: unknown; discovery?: true; keySet?: { timeout: number } };
      };
      if (keys.secret !== undefined) return NOTHING;
      const requests = keys.discovery ? 2 : 1;
      return { ...NOTHING, calls: requests, beside: 1, time: requests * (keys.keySet?.timeout ?? 0) };
    }
    // Metadata, keys and the exchange of the code.
    case "oidcLogin":
      return { ...NOTHING, calls: 3, beside: 1, time: 3 * timeout };
    case "introspection":
    case "forwardAuth":
      return { ...NOTHING, calls: 1, time: timeout };
    // Looked up, and again in the background once half of `maxAge` has passed.
    case "apiKey":
    case "upstreamToken":
      return { ...NOTHING, calls: 1, beside: 1, time: timeout };
    case "basic":
      return (member.config as { store: boolean }).store ? { ...NOTHING, calls: 1, time: timeout } : NOTHING;
    case "hmac": {
      const { nonce, digest, maxBody } = member.config as { nonce: boolean; digest: boolean; maxBody: number };
      return {
        ...NOTHING,
        calls: nonce ? 1 : 0,
        buffered: digest ? maxBody : 0,
        time: nonce ? timeout : 0,
      };
    }
    case "anyOf":
    case "allOf":
      return membersOf(member)
        .map(workOf)
        .reduce((a, b) => ({
          calls: a.calls + b.calls,
          beside: a.beside + b.beside,
          buffered: a.buffered + b.buffered,
          time: a.time + b.time,
        }));
    // Asked whether the caller is blocked, and told of a failure by address and by credential.
    case "penaltyBox":
      return { ...NOTHING, beside: 3 };
    // A script that the store does not know is sent a second time; what a refused request took is given back, a dearer one charged.
    case "rateLimit": {
      const { limits, costHeader, count } = member.config as RateLimitConfig;
      const after = limits.length > 1 || costHeader !== undefined || count === "leased" ? 1 : 0;
      return { ...NOTHING, calls: 2, beside: after, time: timeout };
    }
    case "concurrency": {
      const { timeout: patience } = member.config as ConcurrencyConfig;
      return { ...NOTHING, calls: 2, beside: 2, time: patience };
    }
    case "filter": {
      const { body } = member.config as FilterConfig;
      return body ? { ...NOTHING, buffered: body.inspect } : NOTHING;
    }
    // Absent is the rules' SecRequestBodyLimit, at most what `inspect` may be.
    case "waf": {
      const { body } = member.config as WafConfig;
      return body ? { ...NOTHING, buffered: body.inspect ?? 1 << 20 } : NOTHING;
    }
    default:
      return NOTHING;
  }
}

/** What the health checks have found is read beside a request now and then. */
const healthWork = (table: RouteTable): Work =>
  Object.values(table.clusters).some(({ health }) => health) ? { ...NOTHING, beside: 1 } : NOTHING;

function forwardingOf(table: RouteTable, { action, mirrors = [], retry }: TableRoute) {
  const arms: readonly ArmAction[] = action.kind === "split" ? action.arms.map((arm) => arm.action) : [action];
  const chains = arms.map((arm) => levelsOf(table, arm));
  const levels = Math.max(0, ...chains.map((chain) => chain.length));
  const ofBackends = chains.map((chain) =>
    chain.flat().reduce<readonly TableMirror[]>((most, backend) => {
      const own = table.backends[backend]?.mirrors ?? [];
      return own.length > most.length ? own : most;
    }, []),
  );
  const copies = [...mirrors, ...ofBackends.reduce((most, one) => (one.length > most.length ? one : most), [])];
  const retries = levels > 0 && retry ? retry.attempts : 0;
  return {
    tries: levels + retries,
    mirrors: levels > 0 ? copies.length : 0,
    buffered: Math.max(0, retry && levels > 0 ? retry.maxBody : 0, ...copies.map(({ maxBody }) => maxBody)),
  };
}

/** Backends by priority: of each priority one may be asked before the next. */
function levelsOf(table: RouteTable, action: ArmAction): (readonly number[])[] {
  if (action.kind === "forward") return action.backends.map((backend) => [backend]);
  if (action.kind !== "pool") return [];
  return (table.pools[action.pool]?.levels ?? []).map(({ backends }) => backends);
}

export function beyondPlatform(table: RouteTable): Finding[] {
  return table.routes.flatMap((route): Finding[] => {
    const { subrequests, connections, buffered } = costOf(table, route);
    const told: Omit<Finding, "kind" | "route">[] = [];
    const { free, paid } = PLATFORM.subrequests;
    if (subrequests > free) {
      const beyond = subrequests > paid;
      told.push({
        severity: beyond ? "error" : "warning",
        message: `may need ${subrequests} subrequests for one request; ${beyond ? `the Paid plan allows ${paid}` : `the Free plan allows ${free}`}`,
        fix: "fewer tries, mirrors or policies that ask a store",
      });
    }
    if (connections > PLATFORM.connections) {
      told.push({
        severity: "warning",
        message: `may have ${connections} requests waiting for an answer at once; from the ${PLATFORM.connections + 1}th on they queue, and their timeouts run`,
        fix: "fewer mirrors, or fewer policies that ask in the background",
      });
    }
    if (buffered > PLATFORM.memory / 4) {
      const megabytes = Math.round(buffered / 1_000_000);
      told.push({
        severity: buffered > PLATFORM.memory ? "error" : "warning",
        message: `may hold ${megabytes} MB of one request's body; an isolate has 128 MB for all that it serves at once`,
        fix: "lower maxBody of retry, mirrors or hmac, or inspect of filter",
      });
    }
    return told.map((one) => ({ kind: "platform-limit", route: route.id, ...one }));
  });
}
