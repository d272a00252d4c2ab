/** White space as C's isspace has it (TAB to CR, and SPACE); of Latin 1 the no-break space where ModSecurity counts it. */

/** Each run becomes one space. */
export function compressWhitespace(value: string): string {
  return value.replace(/[\t-\r \xa0]+/g, " ");
}

export function removeWhitespace(value: string): string {
  return value.replace(/[\t-\r \xa0]+/g, "");
}

export function trimLeft(value: string): string {
  let from = 0;
  while (from < value.length && isSpace(value.charCodeAt(from))) from++;
  return value.slice(from);
}

export function trimRight(value: string): string {
  let to = value.length;
  while (to > 0 && isSpace(value.charCodeAt(to - 1))) to--;
  return value.slice(0, to);
}

export const trim = (value: string): string => trimLeft(trimRight(value));

const isSpace = (code: number): boolean => code === 0x20 || (code >= 0x09 && code <= 0x0d);

/**
 * What shells of Unix and Windows read alike: without quotes, backslashes and carets; commas, semicolons and white space as one space,
 * and none before `/` and `(`; in lower case.
 */
export function commandLine(value: string): string {
  // One look at an ordinary text.
  if (!/["'\\^,;\t\r\n]| [ /(]/.test(value)) return lowercase(value);
  let out = "";
  let copied = 0;
  let spaced = false;
  for (let at = 0; at < value.length; at++) {
    const code = value.charCodeAt(at);
    const kind = COMMAND[code] as number;
    if (kind === PLAIN) {
      if (spaced && code !== SLASH && code !== PARENTHESIS) out += " ";
      spaced = false;
      if (copied === -1) copied = at;
      continue;
    }
    if (copied !== -1) out += value.slice(copied, at);
    copied = -1;
    if (kind === SPACE) spaced = true;
  }
  if (copied !== -1) out += value.slice(copied);
  return lowercase(spaced ? `${out} ` : out);
}

const PLAIN = 0;
const SPACE = 1;
const QUOTE = 2;
const COMMAND = new Uint8Array(256);
for (const character of " ,;\t\r\n") COMMAND[character.charCodeAt(0)] = SPACE;
for (const character of "\"'\\^") COMMAND[character.charCodeAt(0)] = QUOTE;
const SLASH = 0x2f;
const PARENTHESIS = 0x28;

/** ASCII only: bytes above 0x7f are no letters. */
export function lowercase(value: string): string {
  if (!/[A-Z]/.test(value)) return value;
  return /[\x80-\xff]/.test(value) ? value.replace(/[A-Z]+/g, (run) => run.toLowerCase()) : value.toLowerCase();
}

/** ASCII only. */
export const uppercase = (value: string): string => value.replace(/[a-z]+/g, (run) => run.toUpperCase());
