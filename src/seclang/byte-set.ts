/** A set of bytes, such as what a regex's character class accepts: 256 bits. Values are never changed once made. */
export class ByteSet {
  readonly bits: Uint32Array;

  constructor(bits: Uint32Array) {
    this.bits = bits;
  }

  static of(...bytes: readonly number[]): ByteSet {
    const bits = new Uint32Array(8);
    for (const byte of bytes) bits[byte >> 5] = (bits[byte >> 5] as number) | (1 << (byte & 31));
    return new ByteSet(bits);
  }

  static range(from: number, to: number): ByteSet {
    return ByteSet.of(...Array.from({ length: to - from + 1 }, (_, at) => from + at));
  }

  static union(...sets: readonly ByteSet[]): ByteSet {
    const bits = new Uint32Array(8);
    for (const set of sets) for (let at = 0; at < 8; at++) bits[at] = (bits[at] as number) | (set.bits[at] as number);
    return new ByteSet(bits);
  }

  has(byte: number): boolean {
    return (((this.bits[byte >> 5] as number) >>> (byte & 31)) & 1) === 1;
  }

  not(): ByteSet {
    return new ByteSet(this.bits.map((word) => ~word));
  }

  and(other: ByteSet): ByteSet {
    return new ByteSet(this.bits.map((word, at) => word & (other.bits[at] as number)));
  }

  meets(other: ByteSet): boolean {
    return this.bits.some((word, at) => (word & (other.bits[at] as number)) !== 0);
  }

  /** With the other case of each ASCII letter: PCRE's folding in the C locale, which leaves bytes beyond ASCII alone. */
  folded(): ByteSet {
    const bytes = this.bytes();
    return ByteSet.of(...bytes, ...bytes.filter(isLetter).map((byte) => byte ^ 0x20));
  }

  bytes(): number[] {
    const found: number[] = [];
    for (let byte = 0; byte < 256; byte++) if (this.has(byte)) found.push(byte);
    return found;
  }

  get size(): number {
    return this.bytes().length;
  }

  get key(): string {
    return this.bits.join();
  }
}

export const isLetter = (byte: number): boolean => {
  const lower = byte | 0x20;
  return lower >= 0x61 && lower <= 0x7a;
};
