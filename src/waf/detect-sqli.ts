/** @detectSQLi: does a value, put into an SQL statement as it is, change what the statement says? */
import { type Quote, type SqlTokens, sqlTokens } from "./sql-tokens.ts";

/** Without any of these characters, or without any of the others, there is no injection but with one of SQLI_WORDS. */
export const SQLI_CHARACTERS = "'\"`(;=<>#*|&@-";
/** What parts words from each other, so that there can be two: an address such as ada@example.com, a date or a UUID have none. */
export const SQLI_SEPARATORS = "\0\t\n\v\f\r \xa0'\"`(;=<>#*|&+";
/**
 * What is enough in place of these characters, as BARE_WORDS has it. Not `drop`, `shutdown` and the like: "1 drop table" without any
 * punctuation is what people write.
 */
export const SQLI_WORDS: readonly string[] = ["union", "order", "waitfor", "select", "xp_", "sp_"];
const BARE_WORDS = /(?:union|waitfor|select|order[\0-\x20\xa0]+by)[\0-\x20\xa0]|[xs]p_[a-z]{4}/i;

const NEEDED = new Uint8Array(256);
for (const character of SQLI_CHARACTERS) NEEDED[character.charCodeAt(0)] = 1;
for (const character of SQLI_SEPARATORS)
  NEEDED[character.charCodeAt(0)] = (NEEDED[character.charCodeAt(0)] as number) | 2;

/**
 * The shape of the SQL that `value` injects, for the record: the context that it breaks out of, then a letter per token (see
 * sql-tokens.ts), such as `'s&1c1C`; undefined: it is no injection.
 * @param value latin1, decoded
 */
export function detectSqli(value: string): string | undefined {
  return mayInject(value) ? injectedShape(value) : undefined;
}

/** The same, of any value: without the look at its characters that spares most values the rest. */
export function injectedShape(value: string): string | undefined {
  return (
    inContext(value, "", isBareInjection) ??
    (value.includes("'") ? inContext(value, "'", isBreakout) : undefined) ??
    (value.includes('"') ? inContext(value, '"', isBreakout) : undefined)
  );
}

function mayInject(value: string): boolean {
  let seen = 0;
  for (let at = 0; at < value.length && seen !== 3; at++) seen |= NEEDED[value.charCodeAt(at) & 0xff] as number;
  return seen === 3 || BARE_WORDS.test(value);
}

function inContext(
  value: string,
  quote: Quote,
  judge: (tokens: SqlTokens, value: string) => boolean,
): string | undefined {
  const tokens = sqlTokens(value, quote, true);
  if (judge(tokens, value)) return fingerprint(tokens, quote);
  // Where backslashes do not escape, or one is itself escaped on the way, the string ends earlier.
  if (quote === "" || !value.includes(`\\${quote}`)) return undefined;
  const unescaped = sqlTokens(value, quote, false);
  return judge(unescaped, value) ? fingerprint(unescaped, quote) : undefined;
}

const fingerprint = ({ letters }: SqlTokens, quote: Quote) => quote + letters.slice(0, 16);

/** `select` and then what only SQL has there. */
const SELECTS = String.raw`E\(*(?:[1sv](?:[,)Ck;]|$|[&oc](?:[1sv(fF]|$))|o[kCU,)(]|[fF]\(|v|n(?:,\(*[1snvfFo]|\(|kn\)*(?:[kCUB;,&)]|$))|E|q|kk[1n(])`;

const SUBQUERY = new RegExp(String.raw`(?:^|[1sv&oc,(f])n?\(+${SELECTS}`);
const UNION = new RegExp(
  String.raw`[1sv)}C]U\(*[ED]|U\(+${SELECTS}|^n?U\(*(?:${SELECTS}|Eo|En,|EnC|En?k)|U\(*E\(*(?:[1sv](?:,|C|$)|v|o[^n]|[fF]\()|^[1s]?\)+U`,
);
const STACKED = new RegExp(
  String.raw`^[^;E]{0,2};+\(*(?:D|Mnc|W[sqv1]|F|${SELECTS})|;n?\(*(?:D.*[;C]|F\(|${SELECTS}.*[;C])|W[sq]`,
);
const STATEMENT = /^;?\(*(?:D(?:[nvF.].*)?[;C]|W[sq]|D[vF]|D\(v|Dn(?:\([^()]*\))?k\(|Eokn|E[fF]\(|Ev(?:[,;Ck]|$))/;
const COMPARED = String.raw`\(*[1sv]\)*c\(*[1sqv]`;

const BARE = new RegExp(
  [
    // 1 or 1=1, 1 and 'a'='b, 1 or id=1; after a name only where the comparison ends it
    String.raw`^\(*[1v](?:o[1n])*\)*&${COMPARED}(?![,n.?{])`,
    String.raw`^\(*n(?:o[1n])*\)*&${COMPARED}(?:\)*(?:[C;&]|$))`,
    String.raw`^\(*1\)*&\(*nc\(*[1sqvfFn(]`,
    String.raw`^\(*[1sv]\)*[&oc,]\(*(?:[1sv][&oc,])*\(*F`,
    String.raw`^\(*[1sv]\)*&\(*f\(`,
    // sleep(1) alone
    String.raw`^F\([1snvq]?\)+(?:$|[&oc;,C])`,
    String.raw`(?:^|[1sv])\)*[&oc,;]\(*F\(`,
    String.raw`[&;]F\(1\)`,
    String.raw`^\(*[1v]\)*(?:W[sq]|O[sq])`,
    // 1 order by 5, 1 having 1=1, 1) and (1
    String.raw`^\(*1\)*(?:B[1n](?:,[1n])*C|B1(?:,1)*$|Bf\(|B.{1,12}H.*c|H.*c|\)+C|\)*;C)`,
    String.raw`^1?\)+(?:U|O|B1|&[1sv(fFn])`,
    `^1(?:D|Mnc)`,
    `^.{0,24}O[sq]`,
    String.raw`\)&\(*[1s]cf\(`,
    String.raw`[;n]D(?:t\(|v|\(v).*D\(v`,
  ].join("|"),
);

/** The value is put where a number stands. Ordinary text comes as a list of names there: it must not look like SQL to be refused. */
function isBareInjection(tokens: SqlTokens, value: string): boolean {
  const { letters } = tokens;
  if (tokens.versioned && /[UE&FDBHc(]/.test(letters)) return true;
  if (tokens.inlineComments > 0 && /[1sv)]\)*(?:U|&[1sn(v]?.*c|;?[DW]|B1)/.test(letters)) return true;
  // A path may have words such as `union` in it.
  if (/^\/[\w.~-]+\//.test(value) && tokens.inlineComments === 0) return false;
  if (BARE.test(letters) || UNION.test(letters) || SUBQUERY.test(letters)) return true;
  if (STACKED.test(letters) || STATEMENT.test(letters) || isTautology(tokens)) return true;
  const folded = fold(letters);
  if (folded !== letters && BARE.test(folded)) return true;
  // 1--, 1 or x --
  return (
    (/^\(*[1v]\)*[&;BHU].*C$/.test(letters) || (/^[1v](?:o[1v])*C$/.test(letters) && !value.includes("#"))) &&
    isEmptyComment(tokens.texts.at(-1) as string)
  );
}

/** Arithmetic and functions of constants are constants: `1+1`, `(3)`, `char(65)`. */
function fold(letters: string): string {
  for (let turn = 0; turn < 6; turn++) {
    const folded = letters
      .replace(/f\([1s]?(?:[,k][1s])*\)/g, "1")
      .replace(/(^|[&oc,(k;])\(([1sv])\)/g, "$1$2")
      .replace(/1o(?=1)/g, "");
    if (folded === letters) break;
    letters = folded;
  }
  return letters;
}

/** `or 1=1`, `and 'a' like 'a'`, wherever it is: the same constant on both sides. */
function isTautology({ letters, texts }: SqlTokens): boolean {
  const compared = /[&k]\(*([1s])\)*c\(*[1sq]/g;
  for (let found = compared.exec(letters); found; found = compared.exec(letters)) {
    const right = compared.lastIndex - 1;
    const left = found.index + found[0].indexOf(found[1] as string);
    if (texts[left] === texts[right]) return true;
    compared.lastIndex = found.index + 1;
  }
  return false;
}

const BREAKOUT = new RegExp(
  `^s\\)*(?:${[
    // ' or x = y
    String.raw`&\(*(?:[1svnt]|[fF]\([^c]{0,24}?\))\)*(?:o[1snv])?c\(*[1sqvnfF(E]`,
    String.raw`&\(*(?:k[^;]{0,6})?[1svn]?\)*c\(*[1sqvfF(]`,
    // ' or 1 --
    String.raw`&\(*[1v]\)*(?:[C;]|$)`,
    // '+sleep(1)+', ' and ascii(...)
    String.raw`[&oc,;]\(*(?:[1sv]o)?\(*[fF]\(`,
    String.raw`;*F\(?`,
    // ' and (select
    String.raw`[&oc,;]*n?\(+${SELECTS}`,
    `[&oc,;]*${SELECTS}`,
    String.raw`(?:[oc&].*)?U\(*E`,
    `U[C(]`,
    String.raw`;+\(*(?:[DWFC]|Mnc|n[n1(]*[C;])`,
    `.{0,40}W[sqv1]`,
    `D[nv]?`,
    String.raw`.*D(?:t\(|v|\(v)`,
    // ' order by 1 --
    `B(?:[1n](?:,[1n])*(?:C|o[kn]?C)|1(?:,1)*$|[(fF])`,
    String.raw`(?:B.{1,12})?H\(*.{1,8}c`,
    `.{0,8}O[sq]`,
    String.raw`(?:,\(*[1svnfF]\)*)+[C;]`,
    String.raw`c\(*[1sqvn]\)*(?:[C;]|&\(*[1sqvnfF(])`,
  ].join("|")})`,
);

/** The value ends the string that it is put in: what follows must go on as SQL does. */
function isBreakout(tokens: SqlTokens, value: string): boolean {
  const { letters, texts } = tokens;
  // Without a second token the quote did not end anything; with a name there, it was an apostrophe: O'Brien, rock 'n' roll.
  if (letters.length < 2 || letters[0] !== "s") return false;
  if (/^s\)*n(?!.*D(?:t\(|v|\(v))/.test(letters)) return false;
  if (tokens.versioned && /[UE&FDBHc(]/.test(letters.slice(1))) return true;
  if (tokens.inlineComments > 0 && /^s\)*(?:U|&|;|[oc]\(*[fFE])/.test(letters)) return true;
  if (BREAKOUT.test(letters) || BREAKOUT.test(fold(letters))) return true;
  const end = texts.at(-1) as string;
  const before = texts[0] as string;
  if (letters === "sC") {
    // A quote behind a space opens one in ordinary text: 12 ft '# of them'.
    if (/\s$/.test(before)) return false;
    return value.includes("#") ? /^\W*$/.test(end) : isEmptyComment(end);
  }
  if (letters.endsWith("C")) return /^s(?:\)+|\)*[oc&,;k].*)C$/.test(letters) && isEmptyComment(end);
  if (letters.endsWith("q")) return goesOnIn(letters, before, end.trimEnd(), value);
  return /^s\)+,\(+[q1sv]/.test(letters);
}

/** The value ends in another string, which the statement's own quote will close: ' or '1, '=', '+x+' */
function goesOnIn(letters: string, before: string, end: string, value: string): boolean {
  if (/^s\)*[oc&]\(*q$/.test(letters)) {
    // One quoted word behind a space is a quotation: the word 'and'.
    if (end === "" && /\s$/.test(before)) return false;
    if (end === "" && before === "" && value.startsWith('"')) return false;
    return /^[\w%.]{0,24}$/.test(end) && before.length < 64;
  }
  if (/^s\)*[oc&][^,;.C{}]*[oc&]\(*q$/.test(letters) && !/nn/.test(letters)) return /^[\w%.]{0,24}\s*$/.test(end);
  return /^s\)*[o&].*[o&]q$/.test(letters) && /^[^\s\w]*$/.test(end) && !/[^\w\s]{6}/.test(value.slice(0, 6));
}

/** `--`, `-- -`, `--+`, `-- x1`: nothing to read. */
const isEmptyComment = (text: string) => /^[\s+;)-]*\w{0,6}[\s;-]*$/.test(text);
