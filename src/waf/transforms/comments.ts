/** Comments of C, SQL, shells and HTML. */

/** Each C comment becomes one space, also one that does not end. */
export function replaceComments(value: string): string {
  let at = value.indexOf("/*");
  if (at < 0) return value;
  let out = "";
  let copied = 0;
  for (; at >= 0; at = value.indexOf("/*", copied)) {
    out += `${value.slice(copied, at)} `;
    const end = value.indexOf("*/", at + 2);
    if (end < 0) return out;
    copied = end + 2;
  }
  return out + value.slice(copied);
}

/**
 * Takes comments out: of C and of HTML (either ends at the first end of either), and everything from `--` or `#` on. A comment that does
 * not end becomes a space. The character after a comment begins no other one, as in ModSecurity.
 */
export function removeComments(value: string): string {
  const begin = /\/\*|<!--|--|#/g;
  const end = /\*\/|-->/g;
  let out = "";
  let copied = 0;
  for (let found = begin.exec(value); found; found = begin.exec(value)) {
    out += value.slice(copied, found.index);
    if (found[0] === "--" || found[0] === "#") return out;
    end.lastIndex = begin.lastIndex;
    if (!end.test(value)) return `${out} `;
    copied = end.lastIndex;
    begin.lastIndex = copied + 1;
  }
  return copied === 0 ? value : out + value.slice(copied);
}

/** Takes the marks of comments out, not what is in them. */
export const removeCommentsChar = (value: string): string => value.replace(/\/\*|\*\/|<!--|-->|--|#/g, "");
