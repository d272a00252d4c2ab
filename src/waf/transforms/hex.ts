/** Hexadecimal digits, in the byte strings of the WAF: one character (U+0000 to U+00FF) for each byte. */

/** 0 to 15, or -1 when that character is no hexadecimal digit; also past the end, where `code` is NaN. */
export function hexDigit(code: number): number {
  if (code >= 0x30 && code <= 0x39) return code - 0x30;
  const lower = code | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
}

/** The byte that the two digits at `at` write, or -1 when there are no two digits. */
export function hexByte(value: string, at: number): number {
  const high = hexDigit(value.charCodeAt(at));
  const low = hexDigit(value.charCodeAt(at + 1));
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

/** Two lower-case digits a byte. */
export function hexEncode(value: string): string {
  let out = "";
  for (let i = 0; i < value.length; i++) out += HEX[value.charCodeAt(i) & 0xff];
  return out;
}

/**
 * Two characters a byte. ModSecurity looks at none of them twice: what is no digit counts as if it continued the alphabet, and a last
 * single one is dropped.
 */
export function hexDecode(value: string): string {
  let out = "";
  for (let i = 0; i + 1 < value.length; i += 2) {
    out += String.fromCharCode((looseDigit(value.charCodeAt(i)) * 16 + looseDigit(value.charCodeAt(i + 1))) & 0xff);
  }
  return out;
}

const looseDigit = (code: number): number => (code >= 0x41 ? (code & 0xdf) - 0x41 + 10 : code - 0x30);

/** MySQL's 0x414243 becomes ABC. */
export function sqlHexDecode(value: string): string {
  return value.replace(/0[xX](?:[0-9a-fA-F]{2})+/g, (literal) => hexDecode(literal.slice(2)));
}
