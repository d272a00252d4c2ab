/** How the timeouts of gateway, API and route come together, and whether they can hold. */
import type { RetryOptions, TimeoutOptions } from "../config/api.ts";
import type { Declaration } from "../config/declaration.ts";
import { parseDuration } from "../config/duration.ts";
import type { Timeouts } from "../table/table.ts";
import type { Tell } from "./check-target.ts";
import type { Problems } from "./problem.ts";
import { resolveRetry } from "./resilience.ts";

/** Envoy waits 15 s for an answer and 5 s to connect, nginx 60 s for an answer; Cloudflare itself 19 s to connect and 120 s. */
const DEFAULTS = { connect: 5_000, firstByte: 15_000, total: 60_000 } as const;

/** The nearest statement counts, `nearest` first. What nobody states is the default, or less where what encloses it is less. */
export function resolveTimeouts(...nearest: (TimeoutOptions | undefined)[]): Timeouts {
  const stated = (name: keyof Timeouts) => {
    const text = nearest.find((options) => options?.[name] !== undefined)?.[name];
    return text === undefined ? undefined : parseDuration(text);
  };
  const total = stated("total") ?? DEFAULTS.total;
  const firstByte = stated("firstByte") ?? Math.min(DEFAULTS.firstByte, orForever(total));
  const connect = stated("connect") ?? Math.min(DEFAULTS.connect, orForever(firstByte), orForever(total));
  const idle = stated("idle");
  return { connect, firstByte, total, ...(idle && { idle }) };
}

/** 0 is no limit. */
const orForever = (milliseconds: number): number => milliseconds || Number.POSITIVE_INFINITY;

export function checkTimeouts(
  problems: Problems,
  declaration: Declaration,
  subject: string,
  ...nearest: (TimeoutOptions | undefined)[]
): void {
  if (!nearest[0]) return;
  const { connect, firstByte, total } = resolveTimeouts(...nearest);
  if (connect === 0) {
    const fix = "only `firstByte`, `total` and `idle` may be 0s";
    problems.add(declaration, subject, "a timeout of 0s would fail every request", fix);
  }
  if (firstByte > orForever(total)) {
    const message = `the first byte may take ${firstByte} ms, but the whole exchange only ${total} ms`;
    problems.add(declaration, subject, message, "make `firstByte` at most `total`");
  }
  if (connect > orForever(firstByte)) {
    const message = `connecting may take ${connect} ms, but the first byte is due after ${firstByte} ms`;
    problems.add(declaration, subject, message, "make `connect` at most `firstByte`");
  }
}

/**
 * Refuses tries that could never happen: Istio takes `attempts: 3` with a timeout of 3 s and a backoff of 2 s, and tries once more.
 * All tries at their longest and all waits between them must fit into the whole exchange.
 */
export function checkRetryTime(tell: Tell, options: RetryOptions, ...nearest: (TimeoutOptions | undefined)[]): void {
  const { attempts, backoff } = resolveRetry(options);
  const { firstByte, total } = resolveTimeouts(...nearest);
  if (total === 0 || attempts === 0) return;
  const tries = attempts + 1;
  let waits = 0;
  for (let attempt = 0; attempt < attempts; attempt++)
    waits += (backoff.minimum ?? 0) + Math.min(backoff.base * 2 ** attempt, backoff.max);
  const needed = tries * firstByte + waits;
  if (firstByte > 0 && needed <= total) return;
  const message =
    firstByte === 0
      ? `one try may take all of the ${total} ms that the exchange has, and ${attempts} more could never happen`
      : `${tries} tries of ${firstByte} ms and up to ${waits} ms between them take ${needed} ms, but the whole exchange only ${total} ms`;
  const longest = Math.floor((total - waits) / tries);
  const ways = [
    longest > 0 && `\`firstByte\` at most ${longest}ms`,
    firstByte > 0 && `\`total\` at least ${needed}ms`,
    "fewer `attempts`",
  ];
  tell(message, `give ${ways.filter(Boolean).join(", or ")}`);
}
