/** How the timeouts of gateway, API and route come together, and whether they can hold. */
import type { TimeoutOptions } from "../config/api.ts";
import type { Declaration } from "../config/declaration.ts";
import { parseDuration } from "../config/duration.ts";
import type { Timeouts } from "../table/table.ts";
import type { Problems } from "./problem.ts";

/** Envoy waits 15 s for an answer and 5 s to connect, nginx 60 s for an answer; Cloudflare itself 19 s to connect and 120 s. */
const DEFAULTS: Timeouts = { connect: 5_000, firstByte: 15_000, total: 60_000 };

/** The nearest statement counts, `nearest` first. What nobody states is the default, or less where what encloses it is less. */
export function resolveTimeouts(...nearest: (TimeoutOptions | undefined)[]): Timeouts {
  const stated = (name: keyof Timeouts) => {
    const text = nearest.find((options) => options?.[name] !== undefined)?.[name];
    return text === undefined ? undefined : parseDuration(text);
  };
  const total = stated("total") ?? DEFAULTS.total;
  const firstByte = stated("firstByte") ?? Math.min(DEFAULTS.firstByte, total || Number.POSITIVE_INFINITY);
  const connect = stated("connect") ?? Math.min(DEFAULTS.connect, firstByte);
  return { connect, firstByte, total };
}

export function checkTimeouts(
  problems: Problems,
  declaration: Declaration,
  subject: string,
  ...nearest: (TimeoutOptions | undefined)[]
): void {
  if (!nearest[0]) return;
  const { connect, firstByte, total } = resolveTimeouts(...nearest);
  if (connect === 0 || firstByte === 0) {
    problems.add(declaration, subject, "a timeout of 0s would fail every request", "only `total` may be 0s");
  }
  if (total > 0 && firstByte > total) {
    const message = `the first byte may take ${firstByte} ms, but the whole exchange only ${total} ms`;
    problems.add(declaration, subject, message, "make `firstByte` at most `total`");
  }
  if (connect > firstByte) {
    const message = `connecting may take ${connect} ms, but the first byte is due after ${firstByte} ms`;
    problems.add(declaration, subject, message, "make `connect` at most `firstByte`");
  }
}
