/** Of the names the one that was meant by `given`, by up to two letters; undefined: none is so near. */
export const meant = (given: string, names: Iterable<string>): string | undefined =>
  [...names]
    .map((name) => ({ name, distance: editDistance(given, name) }))
    .filter(({ distance }) => distance <= 2)
    .sort((a, b) => a.distance - b.distance)[0]?.name;

/** Levenshtein's: how many letters are to be changed, put in or taken out; 3 for all that is farther apart. */
export function editDistance(a: string, b: string): number {
  if (Math.abs(a.length - b.length) > 2) return 3;
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] as number) + Number(a[i - 1] !== b[j - 1]);
      next[j] = Math.min(replaced, (row[j] as number) + 1, (next[j - 1] as number) + 1);
    }
    row = next;
  }
  return Math.min(3, row[b.length] as number);
}
