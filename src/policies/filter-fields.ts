/**
 * What a request is made of, for `filter`: names and values, as the most lenient origin would read them. Made for bodies of which only
 * the beginning is there, and for broken ones, which the waf's readers refuse as a whole. All texts are strings of bytes (binary.ts).
 */
import { utf8 } from "../waf/bytes.ts";
import { unescapeMarkup } from "../waf/transforms/readings.ts";

/** Told of each name and value; where what is told was escaped, once more for each layer of escapes. */
export interface FieldVisitor {
  /** Of parameters and JSON members. */
  name(name: string): void;
  /** `name` is "" where there is none. */
  value(name: string, value: string): void;
  /** What is about to be taken apart, before percent escapes are undone. */
  encoded(text: string): void;
}

/** Percent escapes decoded: also IIS's %uXXXX and overlong UTF-8; broken escapes stay. */
export function percentDecoded(text: string): string {
  if (!text.includes("%")) return text;
  const decoded = text.replace(/%(?:([0-9a-f]{2})|u([0-9a-f]{4}))/gi, (_, byte: string | undefined, wide: string) =>
    byte !== undefined ? String.fromCharCode(Number.parseInt(byte, 16)) : utf8(Number.parseInt(wide, 16)),
  );
  // 0xc0 and 0xc1 begin no UTF-8 sequence; lenient decoders read an ASCII character (Unicode 3.9, D92).
  return OVERLONG.test(decoded) ? decoded.replace(EACH_OVERLONG, asciiOf) : decoded;
}

const OVERLONG = /[\xc0\xc1][\x80-\xbf]/;
const EACH_OVERLONG = /[\xc0\xc1][\x80-\xbf]/g;
const asciiOf = (pair: string) => String.fromCharCode(((pair.charCodeAt(0) & 1) << 6) | (pair.charCodeAt(1) & 0x3f));

/** `a=1&b=2`, as in a query or a form. */
export function readParameters(text: string, visitor: FieldVisitor): void {
  visitor.encoded(text);
  const decoded = /[%+]/.test(text) ? decodedField : asItIs;
  let equals = text.indexOf("=");
  for (let from = 0, to: number; from < text.length; from = to + 1) {
    const end = text.indexOf("&", from);
    to = end === -1 ? text.length : end;
    // Looked for once for all pairs that have none: of n of them each would look to the text's end.
    if (equals !== -1 && equals < from) equals = text.indexOf("=", from);
    const at = equals < to ? equals : -1;
    const name = at > from ? decoded(text.slice(from, at)) : "";
    if (name) visitor.name(name);
    visitor.value(name, decoded(text.slice(at === -1 ? from : at + 1, to)));
  }
}

const asItIs = (raw: string) => raw;
const decodedField = (raw: string) => percentDecoded(raw.includes("+") ? raw.replaceAll("+", " ") : raw);

export function readCookies(header: string, visitor: Pick<FieldVisitor, "value">): void {
  for (const cookie of header.split(";")) {
    const at = cookie.indexOf("=");
    visitor.value(cookie.slice(0, Math.max(at, 0)).trim(), percentDecoded(cookie.slice(at + 1)));
  }
}

export type BodyFormat =
  | { readonly kind: "json" | "form" | "xml" | "text" }
  | { readonly kind: "multipart"; readonly boundary: string };

export function readBody(text: string, format: BodyFormat, visitor: FieldVisitor): void {
  if (format.kind === "form") {
    readParameters(text, visitor);
  } else if (format.kind === "multipart") {
    readMultipart(text, format.boundary, visitor);
  } else if (format.kind === "json" && /^(?:\xef\xbb\xbf)?[ \t-\r]*[[{"\d.tfn-]/.test(text)) {
    readJson(text, visitor);
  } else {
    visitor.value("", text);
    if (format.kind !== "xml") return;
    for (const piece of text.split(/[<>]/)) visitor.value("", unescapeMarkup(piece));
  }
}

/**
 * The strings of a JSON text, by scanning: no depth to overflow, the end may be missing, and of a repeated member each value is
 * seen. A value goes by the name of the nearest member before it.
 */
function readJson(text: string, visitor: FieldVisitor): void {
  const escapes = text.includes("\\");
  let name = "";
  let end: number;
  for (let start = text.indexOf('"'); start !== -1; start = text.indexOf('"', end + 1)) {
    end = start;
    do end = text.indexOf('"', end + 1);
    while (escapes && end !== -1 && isEscaped(text, end));
    if (end === -1) end = text.length;
    const raw = text.slice(start + 1, end);
    const value = escapes ? unescapeJson(raw) : raw;
    if (isMemberName(text, end + 1)) {
      name = value;
      visitor.name(value);
    } else {
      visitor.value(name, value);
    }
  }
}

function isEscaped(text: string, at: number): boolean {
  let backslashes = 0;
  while (text.charCodeAt(at - 1 - backslashes) === 0x5c) backslashes++;
  return backslashes % 2 === 1;
}

function isMemberName(text: string, at: number): boolean {
  let code = text.charCodeAt(at);
  while (code === 0x20 || (code >= 0x09 && code <= 0x0d)) code = text.charCodeAt(++at);
  return code === 0x3a;
}

const JSON_ESCAPES: Readonly<Record<string, string>> = { b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" };

function unescapeJson(text: string): string {
  if (!text.includes("\\")) return text;
  return text.replace(/\\(?:u([0-9a-fA-F]{4})|(.))/gs, (_, digits: string | undefined, character: string) =>
    digits ? utf8(Number.parseInt(digits, 16)) : (JSON_ESCAPES[character] ?? character),
  );
}

/** The fields of a form, and the names of its files; what the files hold is the origin's matter. */
function readMultipart(text: string, boundary: string, visitor: FieldVisitor): void {
  for (const piece of text.split(`--${boundary}`)) {
    const blankLine = /\r?\n\r?\n/.exec(piece);
    if (!blankLine) continue;
    const head = piece.slice(0, blankLine.index);
    const name = /\bname=(?:"([^"]{0,256})"|([^\s;]{1,256}))/i.exec(head);
    const file = /\bfilename\*?=(?:"([^"]{0,256})"|([^\r\n;]{0,256}))/i.exec(head);
    const field = name?.[1] ?? name?.[2] ?? "";
    visitor.name(field);
    visitor.value(field, file ? (file[1] ?? (file[2] as string)) : piece.slice(blankLine.index).trim());
  }
}
