/** Sets of UTF-16 code units, which is what a regex without the u flag reads (ECMA-262, 22.2.2): sorted ranges that do not touch. */
export type CodeUnits = readonly (readonly [first: number, last: number])[];

export const LAST_UNIT = 0xffff;
export const ANY_UNIT: CodeUnits = [[0, LAST_UNIT]];

export function unite(...sets: readonly CodeUnits[]): CodeUnits {
  const ranges = sets.flat().sort((a, b) => a[0] - b[0]);
  const united: [number, number][] = [];
  for (const [first, last] of ranges) {
    const before = united.at(-1);
    if (before && first <= before[1] + 1) before[1] = Math.max(before[1], last);
    else united.push([first, last]);
  }
  return united;
}

export function complement(set: CodeUnits): CodeUnits {
  const rest: [number, number][] = [];
  let next = 0;
  for (const [first, last] of set) {
    if (first > next) rest.push([next, first - 1]);
    next = last + 1;
  }
  if (next <= LAST_UNIT) rest.push([next, LAST_UNIT]);
  return rest;
}

export const holds = (set: CodeUnits, unit: number): boolean => {
  for (const [first, last] of set) if (unit <= last) return unit >= first;
  return false;
};

/** By what a unit is equal to others under the i flag (ECMA-262, 22.2.2.7.3, Canonicalize without u and v). */
let canonical: Uint16Array | undefined;
let byCanonical: Map<number, number[]> | undefined;

/** The set with all units that the i flag takes for one of its own. */
export function withOtherCases(set: CodeUnits): CodeUnits {
  if (!canonical || !byCanonical) {
    canonical = Uint16Array.from({ length: LAST_UNIT + 1 }, (_, unit) => canonicalOf(unit));
    byCanonical = Map.groupBy(canonical.keys(), (unit) => (canonical as Uint16Array)[unit] as number);
  }
  if (set.length === 1 && set[0]?.[0] === 0 && set[0][1] === LAST_UNIT) return set;
  const others = new Set<number>();
  for (const [first, last] of set)
    for (let unit = first; unit <= last; unit++)
      for (const other of byCanonical.get(canonical[unit] as number) ?? []) others.add(other);
  return unite([...others].map((unit) => [unit, unit] as const));
}

function canonicalOf(unit: number): number {
  const upper = String.fromCharCode(unit).toUpperCase();
  if (upper.length !== 1) return unit;
  const code = upper.charCodeAt(0);
  return unit >= 128 && code < 128 ? unit : code;
}
