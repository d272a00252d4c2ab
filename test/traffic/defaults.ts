/** What the language gives where a routes module says no more than `outlier: {}`, `breaker: {}` or `retry: {}`. */
import type { TableBreaker, TableOutlier, TableRetry } from "../../src/table/table.ts";

export const OUTLIER: TableOutlier = {
  consecutive5xx: 5,
  consecutiveGatewayErrors: 5,
  interval: 10_000,
  baseEjectionTime: 30_000,
  maxEjectionTime: 300_000,
  maxEjectionPercent: 10,
  minimumRequests: 5,
  panicThreshold: 50,
};

export const BREAKER: TableBreaker = {
  errorPercent: 50,
  window: 10_000,
  minimumRequests: 20,
  open: 10_000,
  recovery: 10_000,
};

export const RETRY: TableRetry = {
  attempts: 2,
  on: ["connection", 503],
  methods: ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"],
  backoff: { base: 25, max: 250 },
  maxBody: 65_536,
  budget: { percent: 20, minimum: 3 },
};
