import type { TableRetry } from "../table/table.ts";

/**
 * Milliseconds to wait before the `retry`th further try (from 1): the minimum, and anything up to `base`, then up to twice as long
 * each time, at most `max`. Drawn over the whole range ("full jitter"), which spreads retries better than a fixed part with some jitter added.
 */
export function backoffBefore(
  retry: number,
  { minimum = 0, base, max }: TableRetry["backoff"],
  random: () => number,
): number {
  return minimum + random() * Math.min(base * 2 ** (retry - 1), max);
}

// RFC 9110, 5.6.7: of the three forms of a date, asctime's is the one that does not say that it is in UTC.
const ASCTIME = /^[A-Z][a-z]{2} [A-Z][a-z]{2} [ 0-9][0-9] [0-9]{2}:[0-9]{2}:[0-9]{2} [0-9]{4}$/;
const HTTP_DATE = /^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? /;

/**
 * Milliseconds that a Retry-After header asks for (RFC 9110, 10.2.3: seconds or a date); undefined when there is none or it says
 * nothing that can be understood. A date that has passed asks for no wait.
 */
export function parseRetryAfter(value: string | null | undefined, now: number): number | undefined {
  const text = value?.trim() ?? "";
  // As many digits as it likes: what is not understood would be no reason to wait at all.
  if (/^[0-9]+$/.test(text)) return Math.min(Number(text) * 1_000, Number.MAX_SAFE_INTEGER);
  if (!HTTP_DATE.test(text)) return undefined;
  const date = Date.parse(ASCTIME.test(text) ? `${text} GMT` : text);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}
