/**
 * One spelling for a path, decided before matching, so that what was matched is what is forwarded. Where a gateway and the
 * origin read `%2f`, `//`, `..` or `%00` differently, a guard on one path is walked around by another spelling of it.
 *
 * What happens to each spelling (docs/matching.md has the table):
 * - `%41`, `%7e`: an escaped unreserved character is unescaped (RFC 3986, 6.2.2.2), other escapes get upper-case digits (6.2.2.1)
 * - `.` and `..` segments, also spelled `%2e`: removed (RFC 3986, 5.2.4); `..` above the root is refused
 * - `//`: merged into `/`
 * - `%2f`, `%5c`, `\`: refused, or with `escapedSlashes: "keep"` the first two stay, as opaque characters of their segment
 * - `..;x`, `.;x`, and with kept slashes `..%2f`: refused (Tomcat drops `;x` and then sees `..`)
 * - `%00` to `%1f`, `%7f`, raw control characters, a broken escape, escapes that are no UTF-8 (`%c0%af` is an overlong `/`): refused
 * - a raw character that RFC 3986 does not allow in a path (`<`, `"`, space, non-ASCII): escaped
 */
export type PathRefusal = "path-escape-invalid" | "path-control-character" | "path-encoded-slash" | "path-traversal";

export type NormalPath = { readonly path: string; readonly refused?: undefined } | { readonly refused: PathRefusal };

export interface PathOptions {
  /** `refuse` (default): 400. `keep`: `%2F` and `%5C` stay as they are and never separate segments. */
  readonly escapedSlashes?: "refuse" | "keep";
}

// pchar of RFC 3986, 3.3, plus "/": characters that stand in a path as they are. SUSPECT finds those among them that need a closer look.
const PLAIN = /^\/[A-Za-z0-9\-._~!$&'()*+,;=:@/]*$/;
const SUSPECT = /\/[/.]|;/;
const PCHAR = /[A-Za-z0-9\-._~!$&'()*+,;=:@]/;
const UNRESERVED = /[A-Za-z0-9\-._~]/;
const HEX = /^[0-9a-fA-F]{2}$/;
const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The normal spelling of `raw`, a request target's path (starts with `/`, no `?`), or why it is refused. Never throws. */
export function normalisePath(raw: string, options: PathOptions = {}): NormalPath {
  if (PLAIN.test(raw) && !SUSPECT.test(raw)) return { path: raw };
  const spelled = respell(raw, options.escapedSlashes === "keep");
  if (typeof spelled !== "string") return spelled;
  return removeDotSegments(spelled);
}

function respell(raw: string, keepSlashes: boolean): string | { refused: PathRefusal } {
  let out = "";
  for (let i = 0; i < raw.length; i++) {
    const character = raw[i] as string;
    const code = raw.charCodeAt(i);
    if (character === "/" || PCHAR.test(character)) {
      out += character;
    } else if (character === "\\") {
      return { refused: "path-encoded-slash" };
    } else if (code < 0x20 || code === 0x7f) {
      return { refused: "path-control-character" };
    } else if (character !== "%") {
      const point = raw.codePointAt(i) as number;
      // A lone surrogate has no UTF-8 form, so no origin could have been meant.
      if (point >= 0xd800 && point <= 0xdfff) return { refused: "path-escape-invalid" };
      const whole = String.fromCodePoint(point);
      out += encodeURIComponent(whole);
      i += whole.length - 1;
    } else {
      const bytes: number[] = [];
      while (raw[i] === "%") {
        const digits = raw.slice(i + 1, i + 3);
        if (!HEX.test(digits)) return { refused: "path-escape-invalid" };
        bytes.push(Number.parseInt(digits, 16));
        i += 3;
      }
      i--;
      const escaped = respellEscapes(bytes, keepSlashes);
      if (typeof escaped !== "string") return escaped;
      out += escaped;
    }
  }
  return out;
}

function respellEscapes(bytes: number[], keepSlashes: boolean): string | { refused: PathRefusal } {
  try {
    strictUtf8.decode(Uint8Array.from(bytes));
  } catch {
    return { refused: "path-escape-invalid" };
  }
  let out = "";
  for (const byte of bytes) {
    const character = String.fromCharCode(byte);
    if (byte < 0x20 || byte === 0x7f) return { refused: "path-control-character" };
    if ((character === "/" || character === "\\") && !keepSlashes) return { refused: "path-encoded-slash" };
    out += UNRESERVED.test(character) ? character : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return out;
}

function removeDotSegments(path: string): NormalPath {
  const kept: string[] = [];
  const segments = path.split("/");
  for (let i = 1; i < segments.length; i++) {
    const segment = segments[i] as string;
    const last = i === segments.length - 1;
    const name = segment.split(";", 1)[0];
    // Also behind an escaped slash: an origin that unescapes first would climb.
    const parts = (name as string).split(/%2F|%5C/);
    if ((segment !== name || parts.length > 1) && parts.some((part) => part === "." || part === "..")) {
      return { refused: "path-traversal" };
    }
    if (segment === "..") {
      if (kept.length === 0) return { refused: "path-traversal" };
      kept.pop();
      if (last) kept.push("");
    } else if (segment === "." || segment === "") {
      if (last) kept.push("");
    } else {
      kept.push(segment);
    }
  }
  return { path: `/${kept.join("/")}` };
}
