const UNIT = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** Milliseconds of `250ms`, `1m30s` (GEP-2257, plus `d` for quotas); undefined when `text` is no duration. */
export function parseDuration(text: string): number | undefined {
  if (!/^(?:[0-9]{1,9}(?:ms|s|m|h|d))+$/.test(text)) return undefined;
  let total = 0;
  for (const [, amount, unit] of text.matchAll(/([0-9]+)(ms|s|m|h|d)/g))
    total += Number(amount) * UNIT[unit as keyof typeof UNIT];
  return total;
}
