/** Backslash escapes: of JavaScript, of ANSI C, and of CSS. */
import { hexByte, hexDigit } from "./hex.ts";
import { unicodeByte } from "./url.ts";

/** BEL, BS, FF, LF, CR, TAB and VT. */
const NAMED: Readonly<Record<string, string>> = {
  a: "\x07",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  v: "\v",
};

/** What an escape stands for, and how many characters it takes, the backslash included. */
type Escape = { readonly text: string; readonly length: number };

/** Replaces each backslash that has a character after it by what `read` makes of it; `last` is what a last backslash becomes. */
function decodeEscapes(value: string, read: (value: string, at: number) => Escape, last: string): string {
  let at = value.indexOf("\\");
  if (at < 0) return value;
  let out = "";
  let copied = 0;
  for (; at >= 0; at = value.indexOf("\\", copied)) {
    out += value.slice(copied, at);
    if (at + 1 === value.length) return out + last;
    const { text, length } = read(value, at);
    out += text;
    copied = at + length;
  }
  return out + value.slice(copied);
}

/** `\uHHHH` (its low byte; full-width forms as ASCII), `\xHH`, octal and the named escapes; other backslashes go. */
export function jsDecode(value: string): string {
  return decodeEscapes(value, jsEscape, "\\");
}

function jsEscape(value: string, at: number): Escape {
  const next = value.charAt(at + 1);
  if (next === "u") {
    const byte = unicodeByte(value, at + 2);
    if (byte >= 0) return { text: String.fromCharCode(byte), length: 6 };
  }
  if (next === "x") {
    const byte = hexByte(value, at + 2);
    if (byte >= 0) return { text: String.fromCharCode(byte), length: 4 };
  }
  const digits = octalDigits(value, at + 1);
  if (digits > 0) {
    // Three digits only up to \377: a byte.
    const used = digits === 3 && value.charAt(at + 1) > "3" ? 2 : digits;
    return { text: String.fromCharCode(Number.parseInt(value.slice(at + 1, at + 1 + used), 8)), length: 1 + used };
  }
  return { text: NAMED[next] ?? next, length: 2 };
}

/** ANSI C's escapes: the named ones, `\xHH` and octal; other backslashes go. */
export function escapeSeqDecode(value: string): string {
  return decodeEscapes(value, ansiEscape, "\\");
}

function ansiEscape(value: string, at: number): Escape {
  const next = value.charAt(at + 1);
  if (next === "x" || next === "X") {
    const byte = hexByte(value, at + 2);
    if (byte >= 0) return { text: String.fromCharCode(byte), length: 4 };
  }
  const digits = octalDigits(value, at + 1);
  if (digits > 0) {
    const number = Number.parseInt(value.slice(at + 1, at + 1 + digits), 8);
    return { text: String.fromCharCode(number & 0xff), length: 1 + digits };
  }
  return { text: NAMED[next] ?? next, length: 2 };
}

function octalDigits(value: string, from: number): number {
  let count = 0;
  while (count < 3 && value.charCodeAt(from + count) >= 0x30 && value.charCodeAt(from + count) <= 0x37) count++;
  return count;
}

/**
 * CSS 2's escapes: one to six hexadecimal digits and one white space, of which the last two digits count (full-width forms become
 * ASCII where the number says so); a line break after a backslash goes with it, and a last backslash goes.
 */
export function cssDecode(value: string): string {
  return decodeEscapes(value, cssEscape, "");
}

function cssEscape(value: string, at: number): Escape {
  let digits = 0;
  while (digits < 6 && hexDigit(value.charCodeAt(at + 1 + digits)) >= 0) digits++;
  if (digits === 0) {
    const next = value.charAt(at + 1);
    return { text: next === "\n" ? "" : next, length: 2 };
  }
  const number = Number.parseInt(value.slice(at + 1, at + 1 + digits), 16);
  let byte = number & 0xff;
  // The number is 0xffHH, also when zeros pad it.
  if (digits >= 4 && number >> 8 === 0xff && byte > 0x00 && byte < 0x5f) byte += 0x20;
  const after = value.charCodeAt(at + 1 + digits);
  const space = after === 0x20 || (after >= 0x09 && after <= 0x0d) ? 1 : 0;
  return { text: String.fromCharCode(byte), length: 1 + digits + space };
}
