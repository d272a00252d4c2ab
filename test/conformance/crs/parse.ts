/**
 * A raw request as a server reads it, for calling the engine without one: leniently, so that the rules see what a strict server would
 * refuse; and whether a server would have refused it, as Apache 2.4 in its strict default does (HttpProtocolOptions).
 */
import type { WafRequest } from "../../../src/waf/request.ts";

export interface ParsedRequest {
  readonly request: WafRequest;
  /** 400: what follows from HTTP alone. "no answer": HTTP/0.9, whose answer has no status line, or a body that does not come whole. */
  readonly refused?: 400 | "no answer";
  /** A line of the headers is none, which Apache refuses before any rule is asked. */
  readonly unread?: true;
}

/** `raw` has one character for each byte. */
export function parseRequest(raw: string): ParsedRequest {
  const end = /\r?\n\r?\n/.exec(raw);
  const head = end ? raw.slice(0, end.index) : raw.trimEnd();
  const rest = end ? raw.slice(end.index + end[0].length) : "";
  const [line = "", ...lines] = head.split(/\r?\n/);
  const [, method = "", uri = "", protocol = ""] = /^[ \t]*(\S*)[ \t]*(.*?)(?:[ \t]+(\S*))?[ \t]*$/s.exec(line) ?? [];
  const headers: [string, string][] = [];
  let wellFormed = true;
  for (const text of lines) {
    const previous = headers.at(-1);
    if (/^[ \t]/.test(text) && previous) {
      previous[1] += ` ${text.trim()}`;
      continue;
    }
    const colon = text.indexOf(":");
    const name = colon < 0 ? text : text.slice(0, colon);
    // RFC 9112, 5: a name is a token, and no bare CR or NUL is in a value.
    if (colon < 0 || !TOKEN.test(name) || /[\r\0]/.test(text)) wellFormed = false;
    const value = colon < 0 ? "" : text.slice(colon + 1).replace(/^[ \t]+|[ \t]+$/g, "");
    // Apache joins them, as Workers do.
    const same = headers.find(([other]) => other.toLowerCase() === name.toLowerCase());
    if (same) same[1] += `, ${value}`;
    else headers.push([name.trim(), value]);
  }
  const body = bodyOf(headers, rest);
  // RFC 9112, 6.3: Transfer-Encoding overrides Content-Length, which Apache takes out.
  const chunked = headers.some(([name]) => name.toLowerCase() === "transfer-encoding");
  const request = {
    method,
    uri,
    protocol,
    headers: chunked ? headers.filter(([name]) => name.toLowerCase() !== "content-length") : headers,
    body,
    clientAddress: "127.0.0.1",
  };
  if (!wellFormed) return { request, refused: 400, unread: true };
  if (protocol === "" || body.length < announced(headers)) return { request, refused: "no answer" };
  return lineIsRight(line, request) && headersAreRight(request) ? { request } : { request, refused: 400 };
}

const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;

/** RFC 9112, 3: three parts with one space in between. RFC 3986: what a URI's characters are; no fragment in a request. */
function lineIsRight(line: string, { method, uri, protocol }: WafRequest): boolean {
  if (line !== `${method} ${uri} ${protocol}` || !TOKEN.test(method) || !/^HTTP\/1\.[01]$/.test(protocol)) return false;
  if (method === "CONNECT") return /^[^\s/?#@]+:[0-9]+$/.test(uri);
  if (uri === "*") return method === "OPTIONS";
  return /^(?:\/|[a-z][a-z0-9+.-]*:)/i.test(uri) && !/[#\s\0<>"\\^`{|}]/.test(uri);
}

function headersAreRight({ headers, protocol }: WafRequest): boolean {
  const valuesOf = (wanted: string) =>
    headers.flatMap(([name, value]) => (name.toLowerCase() === wanted ? [value] : []));
  const hosts = valuesOf("host");
  if (protocol === "HTTP/1.1" && hosts.length === 0) return false;
  if (hosts.length > 1 || hosts.some((host) => !/^(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?$/.test(host)))
    return false;
  return valuesOf("content-length").every((length) => /^[0-9]+$/.test(length));
}

/** Bytes of body that are still to come, by Content-Length. */
const announced = (headers: readonly (readonly [string, string])[]): number =>
  headers.some(([name]) => name.toLowerCase() === "transfer-encoding")
    ? 0
    : Number(/^[0-9]+$/.exec(headers.find(([name]) => name.toLowerCase() === "content-length")?.[1] ?? "")?.[0] ?? 0);

function bodyOf(headers: readonly (readonly [string, string])[], rest: string): string {
  const of = (wanted: string) => headers.find(([name]) => name.toLowerCase() === wanted)?.[1];
  if (/chunked/i.test(of("transfer-encoding") ?? "")) return dechunked(rest);
  const length = of("content-length");
  return length !== undefined && /^[0-9]+$/.test(length) ? rest.slice(0, Number(length)) : "";
}

function dechunked(rest: string): string {
  let body = "";
  let from = 0;
  for (;;) {
    const end = rest.indexOf("\n", from);
    const size = Number.parseInt(rest.slice(from, end), 16);
    if (end < 0 || !(size > 0)) return body;
    body += rest.slice(end + 1, end + 1 + size);
    from = end + 1 + size + (rest.startsWith("\r\n", end + 1 + size) ? 2 : 1);
  }
}
