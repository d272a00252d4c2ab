/** HTML's character references, as ModSecurity knows them: numbers, and five names. */

// A Map, as an object has names of its own: `&constructor;`.
const NAMES: ReadonlyMap<string, string> = new Map(
  Object.entries({ quot: '"', amp: "&", lt: "<", gt: ">", nbsp: "\xa0" }),
);

/** Each becomes one byte, the low one of its number; the semicolon may be missing. */
export function htmlEntityDecode(value: string): string {
  if (value.indexOf("&") < 0) return value;
  return value.replace(
    /&(?:#[xX]([0-9a-fA-F]+)|#([0-9]+)|([a-zA-Z0-9]+));?/g,
    (whole, hexadecimal: string | undefined, decimal: string | undefined, name: string | undefined) => {
      if (hexadecimal !== undefined)
        return byteOf(Number.parseInt(hexadecimal, 16), Number.parseInt(hexadecimal.slice(-2), 16));
      if (decimal !== undefined) return byteOf(Number(decimal), lowByte(decimal));
      return NAMES.get((name as string).toLowerCase()) ?? whole;
    },
  );
}

/** C's strtol, which ModSecurity calls, gives LONG_MAX for what is beyond it: its low byte is 0xff. */
const byteOf = (number: number, low: number): string => String.fromCharCode(number >= 2 ** 63 ? 0xff : low);

/** Exact, also beyond 2^53. */
function lowByte(decimal: string): number {
  let low = 0;
  for (let i = 0; i < decimal.length; i++) low = (low * 10 + decimal.charCodeAt(i) - 0x30) & 0xff;
  return low;
}
