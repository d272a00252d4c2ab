import { parseDuration } from "../config/duration.ts";
import type { CompileContext } from "./contract.ts";

/** Milliseconds of the option `name`, within `least` and `most`, or `absent` where it is not given. Tells of what is no such duration. */
export function durationOption<Absent>(
  context: Pick<CompileContext, "problem">,
  name: string,
  text: string | undefined,
  absent: Absent,
  least = 0,
  most = Number.POSITIVE_INFINITY,
): number | Absent {
  if (text === undefined) return absent;
  const ms = parseDuration(text);
  if (ms !== undefined && ms >= least && ms <= most) return ms;
  const range =
    most !== Number.POSITIVE_INFINITY ? ` up to ${most / 1_000}s` : least > 1 ? ` from ${least / 1_000}s` : "";
  context.problem(`${name} "${text}" is no duration${range}`, 'write it as "5s", "10m" or "1h30m"');
  return absent;
}
