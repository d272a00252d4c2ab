/**
 * Which arm of a weighted split a key falls on. Weighted rendezvous hashing: every arm draws a score from hash(salt, arm, key)
 * and its weight, and the highest score wins. Without any state, each key stays where it is, arms get exactly their weights'
 * shares of all keys, and raising one arm's weight moves keys to that arm only: from 5 % to 10 % nobody leaves the canary.
 * (A threshold on one hash has that property for two arms, but shifts keys between the others when there are three.)
 *
 * Schindelhauer and Schomaker, "Weighted distributed hash tables" (SPAA 2005): score = -weight / ln(u) for u uniform in (0,1).
 */
export function chooseArm<Arm extends { readonly name: string; readonly weight: number }>(
  arms: readonly Arm[],
  salt: string,
  key: string,
): Arm {
  let chosen = arms[0] as Arm;
  let best = -1;
  for (const arm of arms) {
    if (arm.weight === 0) continue;
    const uniform = (hash32(`${salt}\0${arm.name}\0${key}`) + 0.5) / 2 ** 32;
    const score = -arm.weight / Math.log(uniform);
    if (score > best) {
      best = score;
      chosen = arm;
    }
  }
  return chosen;
}

/** MurmurHash3's 32-bit variant (Appleby, public domain algorithm) over UTF-16 code units: every bit of the input moves every bit of the result. */
export function hash32(text: string): number {
  let h = 0x9747b28c;
  for (let i = 0; i < text.length; i++) {
    let k = Math.imul(text.charCodeAt(i), 0xcc9e2d51);
    k = Math.imul((k << 15) | (k >>> 17), 0x1b873593);
    h ^= k;
    h = (Math.imul((h << 13) | (h >>> 19), 5) + 0xe6546b64) | 0;
  }
  h ^= text.length;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
