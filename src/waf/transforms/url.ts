/** URL encoding, strict and as IIS and application/x-www-form-urlencoded have it. */
import { hexByte } from "./hex.ts";

/** `%HH` and `+`. What is no valid escape stays as it is, as ModSecurity leaves it. */
export function urlDecode(value: string): string {
  return decode(value, false);
}

/** The same with IIS's `%uHHHH`, of which the low byte counts; of full-width forms (U+FF01 to U+FF5E) the ASCII that they look like. */
export function urlDecodeUni(value: string): string {
  return decode(value, true);
}

function decode(value: string, iis: boolean): string {
  let at = nextEscape(value, 0);
  if (at < 0) return value;
  let out = "";
  let copied = 0;
  for (; at >= 0; at = nextEscape(value, at)) {
    let byte = -1;
    let length = 1;
    if (value.charCodeAt(at) === PLUS) {
      byte = 0x20;
    } else if (iis && (value.charCodeAt(at + 1) | 0x20) === LOWER_U) {
      byte = unicodeByte(value, at + 2);
      length = 6;
    } else {
      byte = hexByte(value, at + 1);
      length = 3;
    }
    if (byte < 0) {
      at++;
      continue;
    }
    out += value.slice(copied, at) + String.fromCharCode(byte);
    at += length;
    copied = at;
  }
  return out + value.slice(copied);
}

/** Of the four hexadecimal digits at `at`, the byte that ModSecurity takes them for; -1 when there are no four. */
export function unicodeByte(value: string, at: number): number {
  const high = hexByte(value, at);
  const low = hexByte(value, at + 2);
  if (high < 0 || low < 0) return -1;
  return high === 0xff && low > 0x00 && low < 0x5f ? low + 0x20 : low;
}

function nextEscape(value: string, from: number): number {
  for (let i = from; i < value.length; i++) {
    const code = value.charCodeAt(i);
    if (code === PERCENT || code === PLUS) return i;
  }
  return -1;
}

const PERCENT = 0x25;
const PLUS = 0x2b;
const LOWER_U = 0x75;

/** Everything but letters, digits and `*`; a space becomes `+`. */
export function urlEncode(value: string): string {
  return value.replace(/[^0-9A-Za-z*]/g, (character) =>
    character === " " ? "+" : `%${character.charCodeAt(0).toString(16).padStart(2, "0")}`,
  );
}
