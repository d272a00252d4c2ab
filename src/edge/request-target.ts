/**
 * What the client asked for, taken from the URL as it came over the wire: workerd hands `request.url` on unparsed (measured:
 * `http://API.example.com:8787/a/../b//c?q=%zz` stays so), and parsing it would already decide what `..` means.
 */
import { parseAddress } from "../table/cidr.ts";
import { normalisePath, type PathOptions } from "../table/path.ts";
import type { ProblemCode } from "../table/problems.ts";

export interface RequestTarget {
  readonly scheme: string;
  /** In lower case, without port, trailing dot removed: for matching. */
  readonly host: string;
  /** As the client sent it, with port: for forwarding. */
  readonly authority: string;
  readonly path: string;
  /** With its `?`, untouched; "" when there is none. */
  readonly search: string;
}

export type TargetRefusal = { readonly refused: ProblemCode };

// A name of RFC 1123 (underscores occur in practice) or an IP literal; then the port.
const AUTHORITY = /^(?:([A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}))|\[([0-9A-Fa-f:.]{2,45})\])(?::([0-9]{1,5}))?$/;

export function readTarget(url: string, maxUrl: number, options: PathOptions): RequestTarget | TargetRefusal {
  if (url.length > maxUrl) return { refused: "url-too-long" };
  const afterScheme = url.indexOf("://") + 3;
  const slash = url.indexOf("/", afterScheme);
  const question = url.indexOf("?", afterScheme);
  const pathAt = slash === -1 || (question !== -1 && question < slash) ? -1 : slash;
  const authority = url.slice(afterScheme, pathAt !== -1 ? pathAt : question !== -1 ? question : url.length);
  const parts = AUTHORITY.exec(authority);
  if (!parts || Number(parts[3] ?? 0) > 65_535) return { refused: "host-invalid" };
  const name = parts[1] ?? `[${parts[2]}]`;
  if (!isHost(parts[1], parts[2])) return { refused: "host-invalid" };
  const search = question === -1 ? "" : (url.slice(question).split("#", 1)[0] as string);
  const rawPath =
    pathAt === -1 ? "/" : (url.slice(pathAt, question === -1 ? undefined : question).split("#", 1)[0] as string);
  // Line ends would end the header field at a careless origin; other characters of a query are the origin's business.
  for (let i = 0; i < search.length; i++)
    if (search.charCodeAt(i) < 0x20 || search.charCodeAt(i) === 0x7f) return { refused: "bad-request" };
  const normal = normalisePath(rawPath, options);
  if (normal.refused) return { refused: normal.refused };
  return {
    scheme: url.slice(0, afterScheme - 3),
    host: name.toLowerCase().replace(/\.$/, ""),
    authority,
    path: normal.path,
    search,
  };
}

// A name that ends in a number is an IPv4 address to URL parsers (WHATWG URL, 3.5), which read 127.1, 0x7f.1 and 2130706433 as
// 127.0.0.1: only the form that they write is the host that it looks like.
const ENDS_IN_NUMBER = /(?:^|\.)(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?$/;

const isHost = (name: string | undefined, v6: string | undefined): boolean => {
  if (name === undefined) return v6?.includes(":") === true && parseAddress(v6) !== undefined;
  return !ENDS_IN_NUMBER.test(name) || (!name.endsWith(".") && parseAddress(name) !== undefined);
};

/** Of the Host header; undefined: it has none. */
export function portOf({ authority }: RequestTarget): number | undefined {
  const port = /:([0-9]+)$/.exec(authority)?.[1];
  return port === undefined ? undefined : Number(port);
}

/** The first value of a query parameter, decoded as browsers do (`+` is a blank); null when it is absent. */
export function queryValue(search: string, name: string): string | null {
  return search === "" ? null : new URLSearchParams(search).get(name);
}

/** The first cookie of that name (RFC 6265, 5.4); null when it is absent. Values are taken as they are, without quotes. */
export function cookieValue(header: string | null, name: string): string | null {
  if (header === null) return null;
  for (const pair of header.split(";")) {
    const equals = pair.indexOf("=");
    if (equals !== -1 && pair.slice(0, equals).trim() === name) {
      return pair
        .slice(equals + 1)
        .trim()
        .replace(/^"(.*)"$/, "$1");
    }
  }
  return null;
}
