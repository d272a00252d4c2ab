/**
 * How an interpreter would read a value: transformations of this gateway's own, beside ModSecurity's. Each undoes at once what its kind
 * of interpreter does not see, so that a pattern behind it need not allow for any of it. On byte strings.
 */
import { utf8 } from "../bytes.ts";

/**
 * Block comments as blanks, and what MySQL runs inside of version comments; line comments that end, and any white space, as one blank.
 * A no-break space is one to MySQL in Latin 1, where it is not a part of a UTF-8 sequence.
 */
export function asSql(value: string): string {
  const bare = value.includes("/*") ? withoutComments(value) : value;
  return UNEVEN.test(bare) ? bare.replace(/(?:--|#)[^\n#]{0,32}\n/g, " ").replace(BLANKS, " ") : bare;
}

/** Character references of HTML and XML, and JavaScript's escapes, decoded; without NUL; any white space as one blank. */
export function asMarkup(value: string): string {
  const bare = (/[&\\]/.test(value) ? unescapeMarkup(value) : value).replaceAll("\0", "");
  return UNEVEN.test(bare) ? bare.replace(BLANKS, " ") : bare;
}

/** Without quotes and escapes, which shells drop; ${IFS} and blanks as one blank; line breaks stay, as they end a command. */
export function asShell(value: string): string {
  const bare = /['"^\\$]/.test(value)
    ? value.replace(/['"^]|\\(?=[A-Za-z])|\$[@*]|\$\{[@*]\}/g, "").replace(/\$\{?ifs\}?/gi, " ")
    : value;
  return UNEVEN.test(bare) ? bare.replace(/(?:[ \t\v\f]|\xc2\xa0)+/g, " ") : bare;
}

// Anything but single blanks between words. Asked first, since most values have nothing to fold, and a replacement that finds
// something costs ten times this.
const UNEVEN = /[\t-\r\xa0\xe2\xe3]| {2}/;
/** Unicode's white space in UTF-8; and 0xa0 by itself. */
const BLANKS = /(?:[\t-\r ]|\xc2\xa0|(?<![\x80-\xbf\xc3-\xf4])\xa0|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe3\x80\x80)+/g;

/** The characters without which none of a reading's steps changes a value. */
export const SQL_TRIGGERS = "*\t\n\v\f\r \xa0\xe2\xe3";
export const MARKUP_TRIGGERS = "&\\\0\t\n\v\f\r \xa0\xe2\xe3";
export const SHELL_TRIGGERS = "'\"^\\$\t\v\f \xa0";

/** No regex, as an unclosed comment would cost n². */
function withoutComments(text: string): string {
  let out = "";
  let from = 0;
  for (let start = text.indexOf("/*"); start !== -1; start = text.indexOf("/*", from)) {
    out += `${text.slice(from, start)} `;
    if (text[start + 2] === "!") {
      from = start + 3;
      while (isDigit(text.charCodeAt(from))) from++;
    } else {
      const end = text.indexOf("*/", start + 2);
      // The marker of an unclosed one stays: it ends a statement as well.
      if (end === -1) return `${out}/*`;
      from = end + 2;
    }
  }
  return (out + text.slice(from)).replaceAll("*/", " ");
}

const isDigit = (code: number) => code >= 0x30 && code <= 0x39;

const NAMED: Readonly<Record<string, string>> = {
  lt: "<",
  gt: ">",
  quot: '"',
  apos: "'",
  amp: "&",
  colon: ":",
  lpar: "(",
  rpar: ")",
  sol: "/",
  bsol: "\\",
  equals: "=",
  grave: "`",
  tab: " ",
  newline: " ",
  nbsp: " ",
};

/** Character references of HTML and XML, and JavaScript's escapes, as what they stand for. */
export function unescapeMarkup(text: string): string {
  return text.replace(
    /&(?:#(x?)([0-9a-f]{1,8})|([a-z]{2,7}));?|\\(?:u00|x)([0-9a-f]{2})/gi,
    (whole, hex: string, digits: string | undefined, name: string | undefined, escaped: string | undefined) => {
      if (name !== undefined) return NAMED[name.toLowerCase()] ?? whole;
      const code = Number.parseInt(escaped ?? digits ?? "", escaped || hex ? 16 : 10);
      return code <= 0xffff ? utf8(code) : whole;
    },
  );
}
