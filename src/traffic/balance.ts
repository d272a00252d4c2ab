/** Which of several candidates gets a request. The first `count` of `candidates` stand for choice; there is at least one. */

export interface Candidate {
  readonly endpoint: { readonly active: number; readonly hash: number };
  /** Above 0. */
  readonly weight: number;
  /** What round robin keeps in between; begins at 0. */
  credit: number;
}

/**
 * Smooth weighted round robin, as nginx does it (ngx_http_upstream_round_robin.c): each candidate is credited its weight, who has
 * most is taken and pays the sum. Over as many requests as the weights sum up to, shares are exact, and evenly spread.
 */
export function inTurn<C extends Candidate>(candidates: readonly C[], count: number): C {
  let sum = 0;
  let taken = candidates[0] as C;
  for (let i = 0; i < count; i++) {
    const candidate = candidates[i] as C;
    sum += candidate.weight;
    candidate.credit += candidate.weight;
    if (candidate.credit > taken.credit) taken = candidate;
  }
  taken.credit -= sum;
  return taken;
}

/**
 * Of two different candidates, drawn by weight, the one with fewer requests under way for its weight; the first when they are alike,
 * so that weights hold while there is little to do. Envoy may draw the same one twice, by which one of two would always keep a
 * quarter of the requests, however slow it is.
 */
export function byLeastRequests<C extends Candidate>(candidates: readonly C[], count: number, random: () => number): C {
  const first = draw(candidates, count, undefined, random);
  if (count === 1) return first;
  const second = draw(candidates, count, first, random);
  return second.endpoint.active * first.weight < first.endpoint.active * second.weight ? second : first;
}

/** By weight, at random. */
export function atRandom<C extends Candidate>(candidates: readonly C[], count: number, random: () => number): C {
  return draw(candidates, count, undefined, random);
}

/**
 * Weighted rendezvous hashing, as for splits (src/table/split.ts): who has the highest score for the key. When a candidate leaves,
 * only its own keys move, to the others by weight; when it returns, so do they.
 */
export function byHash<C extends Candidate>(candidates: readonly C[], count: number, key: number): C {
  let taken = candidates[0] as C;
  let best = -1;
  for (let i = 0; i < count; i++) {
    const candidate = candidates[i] as C;
    const uniform = (mix(key ^ candidate.endpoint.hash) + 0.5) / 2 ** 32;
    const score = -candidate.weight / Math.log(uniform);
    if (score > best) {
      best = score;
      taken = candidate;
    }
  }
  return taken;
}

function draw<C extends Candidate>(
  candidates: readonly C[],
  count: number,
  except: C | undefined,
  random: () => number,
): C {
  let sum = 0;
  for (let i = 0; i < count; i++) sum += (candidates[i] as C).weight;
  let left = random() * (sum - (except?.weight ?? 0));
  let last = candidates[0] as C;
  for (let i = 0; i < count; i++) {
    const candidate = candidates[i] as C;
    if (candidate === except) continue;
    last = candidate;
    if ((left -= candidate.weight) < 0) break;
  }
  return last;
}

/** MurmurHash3's finalizer: every bit of the input moves every bit of the result. */
function mix(h: number): number {
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
