/**
 * @detectXSS: does a value, put into a page as it is, run a script? Read as HTML would be (HTML Standard, 13.2.5): as text, in which
 * tags may be; as the inside of an attribute that it breaks out of; and as a URL.
 */

/** Without any of these characters there is no script. */
export const XSS_CHARACTERS = "<=:";

const NEEDED = new Uint8Array(256);
for (const character of XSS_CHARACTERS) NEEDED[character.charCodeAt(0)] = 1;

/** @param value latin1, decoded */
export function detectXss(value: string): boolean {
  if (!mayRun(value)) return false;
  const text = value.includes("\0") ? value.replaceAll("\0", "") : value;
  return (
    isScriptUrl(text, true) || breaksOut(text) || (text.includes("<") && (hasTag(text, true) || hasTag(text, false)))
  );
}

function mayRun(value: string): boolean {
  for (let at = 0; at < value.length; at++) if (NEEDED[value.charCodeAt(at) & 0xff] === 1) return true;
  return false;
}

/** Tags that run a script, load one, or change what others load, with nothing else said. */
const ACTIVE = /^(?:script|iframe|frameset|applet|noscript|bgsound|isindex|vmlframe|foreignobject|portal|fencedframe)$/;
/** Those that need an attribute for it; List<Object> has none. */
const ACTIVE_WITH_ATTRIBUTE = /^(?:object|embed|base|link|meta|frame|layer|ilayer|import|xml|handler|listener)$/;
const URL_ATTRIBUTE =
  /^(?:(?:\w+:)?href|src|action|formaction|data|poster|background|dynsrc|lowsrc|code|codebase|archive|classid|cite|longdesc|manifest|from|to|values?|by|ping|folder|content|profile|usemap|icon|url)$/;

/** Where a tag's name begins, and its local part: `<svg:script`, `<x:script xmlns:x=...>` are scripts in XML. */
const TAG =
  /<(?:[a-z][\w.-]{0,32}:)?([a-z][\w-]*)|<!(?:entity|\[if|doctype[^>[]{0,256}\[)|<!--\[if|<\?(?:import|xml-stylesheet)|<%/giy;

interface Attribute {
  readonly name: string;
  readonly value: string;
}

/** @param quoted whether `>` and `<` inside quotes are part of an attribute: to the page they are, unless it has a quote open itself */
function hasTag(text: string, quoted: boolean): boolean {
  let styled = false;
  for (let at = text.indexOf("<"); at !== -1; at = text.indexOf("<", at)) {
    TAG.lastIndex = at;
    const tag = TAG.exec(text);
    if (!tag) {
      at++;
      continue;
    }
    if (tag[1] === undefined) {
      if (tag[0] !== "<%") return true;
      at += 2;
      continue;
    }
    const name = tag[1].toLowerCase();
    const { attributes, end } = readAttributes(text, TAG.lastIndex, quoted);
    if (isActive(name, attributes)) return true;
    if (name === "style" && !styled) {
      styled = true;
      if (ACTIVE_STYLE.test(unescapeCss(text.slice(end)))) return true;
    }
    at = Math.max(end, TAG.lastIndex);
  }
  return false;
}

function isActive(name: string, attributes: readonly Attribute[]): boolean {
  if (ACTIVE.test(name)) return true;
  if (ACTIVE_WITH_ATTRIBUTE.test(name) && attributes.some(({ name, value }) => value !== "" || name === "/"))
    return true;
  if (name === "style" && attributes.some(({ value }) => /javascript/i.test(value))) return true;
  return attributes.some((attribute) => isActiveAttribute(name, attribute));
}

function isActiveAttribute(tag: string, { name, value }: Attribute): boolean {
  if (/^on[a-z]{3,}$/.test(name) && value !== "" && !/^on(?:ly|ce|line|es)$/.test(name)) return true;
  if (/^(?:\w+:)?handler$/.test(name)) return value !== "";
  if (name === "srcdoc") return value !== "";
  if (name === "style") return isActiveStyle(value);
  if (name === "http-equiv") return true;
  if (name === "attributename") return /^(?:on|href|xlink|src|data)/i.test(value.trim());
  if (tag === "a" && name === "folder") return true;
  return (
    URL_ATTRIBUTE.test(name) &&
    (isScriptUrl(value, false) || /;\s{0,16}url\s{0,16}=\s{0,16}(?:javascript|data|vbscript):/i.test(value))
  );
}

function isActiveStyle(value: string): boolean {
  const css = unescapeCss(decodeEntities(value)).replace(/\/\*.*?\*\//gs, "");
  return ACTIVE_STYLE.test(css);
}

const unescapeCss = (text: string) =>
  text
    .replace(/\\([0-9a-f]{1,6})\s?/gi, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 16)))
    .replace(/\\/g, "");

const ACTIVE_STYLE =
  /@import|expression\s{0,16}\(|(?:java|vb)script\s{0,16}:|-moz-binding|behaviou?r\s{0,16}:|url\s{0,16}\(\s{0,16}['"]?\s{0,16}data:(?!image\/(?:png|gif|jpe?g|webp))/i;

const SPACE_OR_SLASH = /[\s/"'`]*/y;
const ATTRIBUTE_NAME = /[^\s/>="'`<]+/y;
const EQUALS = /[\s]*=[\s]*/y;
// A < is part of an unquoted value to the page; as where a tag begins, it is read here as that.
const UNQUOTED = /[^\s><]*/y;

/** The attributes from `at` on, up to the end of the tag; names in lower case. */
function readAttributes(text: string, at: number, quoted: boolean): { attributes: Attribute[]; end: number } {
  const attributes: Attribute[] = [];
  while (at < text.length) {
    SPACE_OR_SLASH.lastIndex = at;
    SPACE_OR_SLASH.test(text);
    at = SPACE_OR_SLASH.lastIndex;
    const character = text[at];
    if (character === undefined || character === ">" || character === "<") break;
    ATTRIBUTE_NAME.lastIndex = at;
    const name = ATTRIBUTE_NAME.exec(text)?.[0];
    if (name === undefined) {
      at++;
      continue;
    }
    at += name.length;
    EQUALS.lastIndex = at;
    if (!EQUALS.test(text)) {
      attributes.push({ name: name.toLowerCase(), value: "" });
      continue;
    }
    at = EQUALS.lastIndex;
    const quote = text[at];
    const end = quoted && (quote === '"' || quote === "'" || quote === "`") ? text.indexOf(quote, at + 1) : -1;
    if (end !== -1) {
      attributes.push({ name: name.toLowerCase(), value: text.slice(at + 1, end) });
      at = end + 1;
      continue;
    }
    UNQUOTED.lastIndex = at;
    const value = UNQUOTED.exec(text)?.[0] ?? "";
    attributes.push({ name: name.toLowerCase(), value });
    at += value.length;
  }
  return { attributes, end: at };
}

/** Events by what their names begin with: outside a tag, `on` and any letters would be too many words. */
const EVENT =
  "on(?:abort|activate|after|animation|auxclick|before|begin|blur|bounce|cancel|can[a-z]*play|cell|change|click|close|content|context|" +
  "control|copy|cue|cut|data|db?l?click|deactivate|device|drag|drop|durationchange|emptied|end|error|fetch|filter|finish|focus|" +
  "formdata|fullscreen|gesture|gotpointer|hashchange|help|input|invalid|key|languagechange|layout|load|lose|lostpointer|message|" +
  "mouse|move|orientation|page|paint|paste|pause|play|pointer|popstate|progress|propertychange|ratechange|readystate|rejection|" +
  "repeat|reset|resize|resume|reverse|row|scroll|search|seek|select|show|slotchange|sort|stalled|start|stop|storage|submit|suspend|" +
  "time|toggle|touch|transition|unhandled|unload|url|volumechange|waiting|webkit|wheel|zoom)[a-z]*";
/** A value of such an attribute that is a script: it calls, assigns, or hides that it does. */
const HANDLER = new RegExp(
  String.raw`(?:^|[\s"'\x60/;+])${EVENT}\s{0,8}=\s{0,8}["'\x60]?[^<>\s]{0,64}?(?:[(\x60=\\]|&#|&lpar|location|javascript|window|document\.|eval)`,
  "i",
);
const URL_OR_STYLE = /[\s"'`/](style|srcdoc|formaction|href|src)\s{0,8}=\s{0,8}["']?([^"'>]{0,256})/gi;

/** Out of an attribute's quotes, or in an unquoted value, further attributes follow. */
function breaksOut(text: string): boolean {
  if (!text.includes("=")) return false;
  if (HANDLER.test(text)) return true;
  const quote = text.search(/["'`]/);
  if (quote === -1) return false;
  for (const { 1: name = "", 2: value = "" } of text.slice(quote).matchAll(URL_OR_STYLE)) {
    if (isActiveAttribute("", { name: name.toLowerCase(), value })) return true;
  }
  return false;
}

const ENTITIES: Readonly<Record<string, string>> = {
  tab: "\t",
  newline: "\n",
  colon: ":",
  lpar: "(",
  rpar: ")",
  quot: '"',
  apos: "'",
  sol: "/",
  amp: "&",
  lt: "<",
  gt: ">",
  period: ".",
};

function decodeEntities(text: string): string {
  if (!text.includes("&")) return text;
  return text.replace(/&(?:#(?:x([0-9a-f]{1,7})|(\d{1,8}))|([a-z]{2,8}));?/gi, (whole, hex, decimal, name) => {
    if (name !== undefined) return ENTITIES[String(name).toLowerCase()] ?? whole;
    const code = hex === undefined ? Number(decimal) : Number.parseInt(hex, 16);
    return code < 0x110000 ? String.fromCodePoint(code) : "";
  });
}

/** Images and sounds may come as data; what a page would run may not. */
const HARMLESS_DATA =
  /^data:(?:image\/(?!svg)|audio\/|video\/|font\/|application\/(?:pdf|font|octet|x-font|json)|text\/(?:plain|css|csv))/i;

/** @param whole whether it is a value of its own, so that it must look like code and not be a sentence: "javascript: the good parts" */
function isScriptUrl(value: string, whole: boolean): boolean {
  const colon = value.search(/:|&colon|&#/i);
  if (colon === -1 || colon > 512) return false;
  // Browsers ignore white space in front of a URL, and tabs and newlines in it.
  const url = decodeEntities(value.slice(0, 1024)).replace(/^[\0-\x20\xa0"'`(]+|\p{Cc}+/gu, "");
  if (/^(?:javascript|vbscript|livescript|jscript|mocha):/i.test(url)) {
    return !whole || /^\w+:\s*[^\s].*[(=`[\\%]/s.test(url) || /^\w+:(?:\/\/|\/\*)/.test(url);
  }
  if (!/^data:/i.test(url) || HARMLESS_DATA.test(url)) return false;
  return whole
    ? /^data:(?:text\/(?:html|xml|javascript)|image\/svg|application\/(?:xhtml|xml|x?-?javascript))/i.test(url)
    : /^data:[^\s]*[,;]/i.test(url);
}
