/**
 * SecLang's operators that need no regex and no automaton, on byte strings (one character for each byte), as ModSecurity 2 has them.
 * Those that begin with `validate` match a value that is not valid. What can be prepared at build is: `prepare…` throw an Error that
 * says what is wrong with the rule's argument.
 */
import { inRange, parseAddress, type Range } from "../table/cidr.ts";

export type ComparisonName =
  | "beginsWith"
  | "contains"
  | "containsWord"
  | "endsWith"
  | "eq"
  | "ge"
  | "gt"
  | "le"
  | "lt"
  | "streq"
  | "strmatch"
  | "within";

/** Of the value, and the rule's argument with its macros replaced. */
export const comparisons: Readonly<Record<ComparisonName, (value: string, argument: string) => boolean>> = {
  beginsWith: (value, argument) => value.startsWith(argument),
  contains: (value, argument) => value.includes(argument),
  containsWord,
  endsWith: (value, argument) => value.endsWith(argument),
  eq: (value, argument) => integer(value) === integer(argument),
  ge: (value, argument) => integer(value) >= integer(argument),
  gt: (value, argument) => integer(value) > integer(argument),
  le: (value, argument) => integer(value) <= integer(argument),
  lt: (value, argument) => integer(value) < integer(argument),
  streq: (value, argument) => value === argument,
  strmatch: (value, argument) => value.includes(argument),
  // An empty value is within everything.
  within: (value, argument) => argument.includes(value),
};

/** C's atoi: a sign and digits at the beginning, after white space; 0 for everything else. */
export function integer(text: string): number {
  // Most are counts and scores.
  if (text.length === 1) {
    const digit = text.charCodeAt(0) - 0x30;
    return digit >= 0 && digit <= 9 ? digit : 0;
  }
  const digits = /^[\t-\r ]*([+-]?[0-9]+)/.exec(text);
  return digits ? Number(digits[1]) : 0;
}

/** Between characters that are no letters, digits or underscores, or the value's ends. An empty word is in every value. */
function containsWord(value: string, word: string): boolean {
  if (word === "") return true;
  for (let at = value.indexOf(word); at >= 0; at = value.indexOf(word, at + 1)) {
    if (!isWord(value.charCodeAt(at - 1)) && !isWord(value.charCodeAt(at + word.length))) return true;
  }
  return false;
}

const isWord = (code: number): boolean =>
  (code >= 0x30 && code <= 0x39) || (code >= 0x41 && code <= 0x5a) || (code >= 0x61 && code <= 0x7a) || code === 0x5f;

/** `32-126,128-255` or `9,10`: 32 numbers of eight bits, of which bit `code & 7` of number `code >> 3` is set for each byte in a range. */
export function prepareByteRange(argument: string): number[] {
  const allowed = new Array<number>(32).fill(0);
  for (const range of argument.split(",")) {
    const [, first, last = first] = /^\s*([0-9]{1,3})(?:\s*-\s*([0-9]{1,3}))?\s*$/.exec(range) ?? [];
    const from = Number(first);
    const to = Number(last);
    if (first === undefined || to > 255 || from > to)
      throw new Error(`"${range.trim()}" is no range of bytes: write 0 to 255, as in 32-126`);
    for (let byte = from; byte <= to; byte++) allowed[byte >> 3] = (allowed[byte >> 3] as number) | (1 << (byte & 7));
  }
  return allowed;
}

/** Whether a byte is outside of what `prepareByteRange` made. */
export function validateByteRange(value: string, allowed: readonly number[]): boolean {
  for (let i = 0; i < value.length; i++) {
    const byte = value.charCodeAt(i);
    if ((((allowed[byte >> 3] as number) >> (byte & 7)) & 1) === 0) return true;
  }
  return false;
}

/** Whether a percent sign has not two hexadecimal digits after it. */
export const validateUrlEncoding = (value: string): boolean => /%(?![0-9a-fA-F]{2})/.test(value);

/** Whether it is no UTF-8 (RFC 3629): overlong sequences, surrogates and what is beyond U+10FFFF are none. */
export function validateUtf8Encoding(value: string): boolean {
  for (let i = 0; i < value.length; ) {
    const lead = value.charCodeAt(i++);
    if (lead < 0x80) continue;
    const more = lead < 0xc2 ? 0 : lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : lead < 0xf5 ? 3 : 0;
    if (more === 0) return true;
    // RFC 3629, 4: what the second byte may be depends on the first.
    const second = value.charCodeAt(i);
    const least = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
    const most = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf;
    if (!(second >= least && second <= most)) return true;
    for (let j = 1; j < more; j++) if ((value.charCodeAt(i + j) & 0xc0) !== 0x80) return true;
    i += more;
  }
  return false;
}

/** Addresses and CIDR ranges, v4 and v6, separated by commas. Bits beyond a prefix do not count. */
export function prepareIpMatch(argument: string): Range[] {
  return argument.split(",").map((text) => {
    const [, addressText = "", prefixText] = /^\s*([^/\s]+)(?:\/([0-9]{1,3}))?\s*$/.exec(text) ?? [];
    const address = parseAddress(addressText);
    const width = addressText.includes(":") ? 128 : 32;
    const prefix = prefixText === undefined ? width : Number(prefixText);
    if (address === undefined || prefix > width)
      throw new Error(`"${text.trim()}" is no IP address or range: write 192.0.2.1, 10.0.0.0/8 or 2001:db8::/32`);
    return { address, prefix: prefix + 128 - width };
  });
}

/** False for a value that is no address. */
export function ipMatch(value: string, ranges: readonly Range[]): boolean {
  const address = parseAddress(value);
  return address !== undefined && ranges.some((range) => inRange(address, range));
}
