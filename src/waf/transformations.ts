/**
 * SecLang's transformations, on ModSecurity's byte semantics: values are strings of one character (U+0000 to U+00FF) for each byte.
 * What they do is what ModSecurity's own test vectors ask, but for one accident: after a comment that ends the value, libmodsecurity 3's
 * removeComments appends the NUL that ends its C string. Where versions 2 and 3 differ, 2 is followed: white space includes 0xa0.
 */
import { md5 as md5Of, sha1 as sha1Of } from "@noble/hashes/legacy.js";
import { base64Decode, base64DecodeExt, base64Encode } from "./transforms/base64.ts";
import { removeComments, removeCommentsChar, replaceComments } from "./transforms/comments.ts";
import { htmlEntityDecode } from "./transforms/entities.ts";
import { cssDecode, escapeSeqDecode, jsDecode } from "./transforms/escapes.ts";
import { hexDecode, hexEncode, sqlHexDecode } from "./transforms/hex.ts";
import { normalizePath, normalizePathWin } from "./transforms/path.ts";
import { asMarkup, asShell, asSql, MARKUP_TRIGGERS, SHELL_TRIGGERS, SQL_TRIGGERS } from "./transforms/readings.ts";
import {
  commandLine,
  compressWhitespace,
  lowercase,
  removeWhitespace,
  trim,
  trimLeft,
  trimRight,
  uppercase,
} from "./transforms/text.ts";
import { utf8toUnicode } from "./transforms/unicode.ts";
import { urlDecode, urlDecodeUni, urlEncode } from "./transforms/url.ts";

/** As SecLang writes them after `t:`, which is not case-sensitive there. `none`, which empties a chain, is the compiler's. */
export type TransformationName = keyof typeof table;

type Transformation = {
  readonly apply: (value: string) => string;
  /** A value without any of these characters stays as it is; `any`: values change without a character that tells so. */
  readonly trigger: string | typeof any;
};

const any = Symbol("any character");
const SPACE = "\t\n\v\f\r ";
const UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const HIGH = String.fromCharCode(...Array.from({ length: 128 }, (_, i) => 0x80 + i));

const table = {
  asMarkup: { apply: asMarkup, trigger: MARKUP_TRIGGERS },
  asShell: { apply: asShell, trigger: SHELL_TRIGGERS },
  asSql: { apply: asSql, trigger: SQL_TRIGGERS },
  base64Decode: { apply: base64Decode, trigger: any },
  base64DecodeExt: { apply: base64DecodeExt, trigger: any },
  base64Encode: { apply: base64Encode, trigger: any },
  cmdLine: { apply: commandLine, trigger: `"'\\^ ,;\t\r\n${UPPER}` },
  compressWhitespace: { apply: compressWhitespace, trigger: `${SPACE}\xa0` },
  cssDecode: { apply: cssDecode, trigger: "\\" },
  escapeSeqDecode: { apply: escapeSeqDecode, trigger: "\\" },
  hexDecode: { apply: hexDecode, trigger: any },
  hexEncode: { apply: hexEncode, trigger: any },
  htmlEntityDecode: { apply: htmlEntityDecode, trigger: "&" },
  jsDecode: { apply: jsDecode, trigger: "\\" },
  length: { apply: (value) => String(value.length), trigger: any },
  lowercase: { apply: lowercase, trigger: UPPER },
  md5: { apply: (value) => textOf(md5Of(bytesOf(value))), trigger: any },
  normalisePath: { apply: normalizePath, trigger: "./" },
  normalisePathWin: { apply: normalizePathWin, trigger: "./\\" },
  normalizePath: { apply: normalizePath, trigger: "./" },
  normalizePathWin: { apply: normalizePathWin, trigger: "./\\" },
  parityEven7bit: { apply: (value) => withParity(value, 0), trigger: any },
  parityOdd7bit: { apply: (value) => withParity(value, 1), trigger: any },
  parityZero7bit: {
    apply: (value) => value.replace(/[\x80-\xff]/g, (high) => String.fromCharCode(high.charCodeAt(0) & 0x7f)),
    trigger: HIGH,
  },
  removeComments: { apply: removeComments, trigger: "*-#" },
  removeCommentsChar: { apply: removeCommentsChar, trigger: "*-#" },
  removeNulls: { apply: (value) => value.replaceAll("\0", ""), trigger: "\0" },
  removeWhitespace: { apply: removeWhitespace, trigger: `${SPACE}\xa0` },
  replaceComments: { apply: replaceComments, trigger: "*" },
  replaceNulls: { apply: (value) => value.replaceAll("\0", " "), trigger: "\0" },
  sha1: { apply: (value) => textOf(sha1Of(bytesOf(value))), trigger: any },
  sqlHexDecode: { apply: sqlHexDecode, trigger: "xX" },
  trim: { apply: trim, trigger: SPACE },
  trimLeft: { apply: trimLeft, trigger: SPACE },
  trimRight: { apply: trimRight, trigger: SPACE },
  uppercase: { apply: uppercase, trigger: UPPER.toLowerCase() },
  urlDecode: { apply: urlDecode, trigger: "%+" },
  urlDecodeUni: { apply: urlDecodeUni, trigger: "%+" },
  urlEncode: { apply: urlEncode, trigger: any },
  utf8toUnicode: { apply: utf8toUnicode, trigger: HIGH },
} satisfies Record<string, Transformation>;

/** What an engine has of them: all, or those that its packs name. */
export interface Transformations {
  readonly apply: Readonly<Partial<Record<TransformationName, (value: string) => string>>>;
  readonly triggers: Readonly<Partial<Record<TransformationName, string | undefined>>>;
}

const names = Object.keys(table) as TransformationName[];

/** Each gives the very same string where it changes nothing and its triggers tell so. */
export const transformations: Readonly<Record<TransformationName, (value: string) => string>> = recordOf(
  (name) => table[name].apply,
);

/**
 * For each transformation the characters of which a value must have one to be changed, as a string; undefined where every value may
 * change. So a chain can be skipped for a value that has none of the characters of all its transformations.
 */
export const triggers: Readonly<Record<TransformationName, string | undefined>> = recordOf((name) => {
  const { trigger } = table[name] as Transformation;
  return trigger === any ? undefined : trigger;
});

function recordOf<T>(of: (name: TransformationName) => T): Record<TransformationName, T> {
  return Object.fromEntries(names.map((name) => [name, of(name)])) as Record<TransformationName, T>;
}

function bytesOf(value: string): Uint8Array {
  const bytes = new Uint8Array(value.length);
  for (let i = 0; i < value.length; i++) bytes[i] = value.charCodeAt(i);
  return bytes;
}

const textOf = (bytes: Uint8Array): string => String.fromCharCode(...bytes);

/** The seven low bits, and the eighth so that the number of ones is odd (1) or even (0). */
function withParity(value: string, odd: 0 | 1): string {
  let out = "";
  for (let i = 0; i < value.length; i++) {
    const low = value.charCodeAt(i) & 0x7f;
    let ones = low ^ (low >> 4);
    ones ^= ones >> 2;
    ones ^= ones >> 1;
    out += String.fromCharCode(((ones & 1) ^ odd) === 1 ? low | 0x80 : low);
  }
  return out;
}
