/** What a cluster's and a route's options of resilience mean where they say nothing, in the units of the table. */
import type { RetryCondition, RetryOptions } from "../config/api.ts";
import type { BreakerOptions, HealthOptions, OutlierOptions } from "../config/cluster.ts";
import { parseDuration } from "../config/duration.ts";
import type { TableBreaker, TableHealth, TableOutlier, TableRetry } from "../table/table.ts";

/** Of those that may be repeated without asking (RFC 9110, 9.2.2), the ones that `fetch` can send. */
const IDEMPOTENT = ["DELETE", "GET", "HEAD", "OPTIONS", "PUT"] as const;

const milliseconds = (text: string): number => parseDuration(text) ?? 0;

/** Envoy's retry policy and retry budget: 25 ms of backoff, at most ten times that, 20 % of the requests and 3 in any case. */
export function resolveRetry(options: RetryOptions): TableRetry {
  const { attempts = 2, on = ["connection", 503], methods = "idempotent", backoff, maxBody, budget } = options;
  const minimum = milliseconds(backoff?.minimum ?? "0s");
  const base = milliseconds(backoff?.base ?? "25ms");
  const max = backoff?.max === undefined ? base * 10 : milliseconds(backoff.max);
  const listed = methods === "idempotent" ? IDEMPOTENT : methods;
  return {
    attempts,
    on: [...new Set(on.flatMap(conditionsOf))].sort((a, b) => (`${a}` < `${b}` ? -1 : 1)),
    ...(listed !== "any" && { methods: [...new Set(listed)].sort() }),
    backoff: { ...(minimum > 0 && { minimum }), base, max },
    maxBody: maxBody ?? 65_536,
    budget: { percent: budget?.percent ?? 20, minimum: budget?.minimum ?? 3 },
  };
}

function conditionsOf(condition: RetryCondition): TableRetry["on"] {
  if (condition === "gateway-error") return [502, 503, 504];
  if (condition === "5xx") return Array.from({ length: 100 }, (_, more) => 500 + more);
  return [condition];
}

/** Envoy's defaults (config.cluster.v3.OutlierDetection); `minimumRequests` it has for success rates alone. */
export function resolveOutlier(options: OutlierOptions): TableOutlier {
  const baseEjectionTime = milliseconds(options.baseEjectionTime ?? "30s");
  return {
    consecutive5xx: options.consecutive5xx ?? 5,
    consecutiveGatewayErrors: options.consecutiveGatewayErrors ?? 5,
    interval: milliseconds(options.interval ?? "10s"),
    baseEjectionTime,
    maxEjectionTime: options.maxEjectionTime
      ? milliseconds(options.maxEjectionTime)
      : Math.max(300_000, baseEjectionTime),
    maxEjectionPercent: options.maxEjectionPercent ?? 10,
    minimumRequests: options.minimumRequests ?? 5,
    panicThreshold: options.panicThreshold ?? 50,
  };
}

/** Traefik's times (`fallbackDuration`, `recoveryDuration`). */
export const resolveBreaker = (options: BreakerOptions): TableBreaker => ({
  errorPercent: options.errorPercent ?? 50,
  window: milliseconds(options.window ?? "10s"),
  minimumRequests: options.minimumRequests ?? 20,
  open: milliseconds(options.open ?? "10s"),
  recovery: milliseconds(options.recovery ?? "10s"),
});

export const resolveHealth = ({ expect, ...options }: HealthOptions): TableHealth => ({
  path: options.path ?? "/healthz",
  ...(expect && { expect: [...new Set(expect)].sort((a, b) => a - b) }),
  timeout: milliseconds(options.timeout ?? "5s"),
  unhealthy: options.unhealthy ?? 3,
  healthy: options.healthy ?? 2,
});
