/** Numbers in [0, 1) that `seed` alone decides: sfc32 (Doty-Humphrey, PractRand), 128 bits of state. */
export function seededRandom(seed: number): () => number {
  let a = seed | 0;
  let b = (seed / 2 ** 32) | 0;
  let c = 0x9e3779b9 | 0;
  let counter = 1;
  const next = () => {
    const sum = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return (sum >>> 0) / 2 ** 32;
  };
  // Until a small seed has reached all of the state.
  for (let i = 0; i < 15; i++) next();
  return next;
}
