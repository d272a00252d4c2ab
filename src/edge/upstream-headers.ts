/** The headers that a cluster gets: the client's, less what is for this hop, less what only the gateway may say. And the way back. */
import { type Exchange, type HeaderEdit, receivedHeader, removeCookie } from "../policies/contract.ts";
import type { EdgeTable } from "../table/table.ts";
import type { RequestTarget } from "./request-target.ts";

/**
 * A copy of the request's headers, cleaned, with X-Forwarded-For, -Host, -Proto and X-Real-IP set. Headers that the client lists in
 * Connection go too (RFC 9110, 7.6.1), before any of the gateway's own are set, so the list cannot take those away; the ones that
 * say who the client is or what the body is stay. Undefined when a value has a control character, which RFC 9110, 5.5 forbids and
 * of which each origin makes something else.
 */
export function upstreamHeaders(
  request: Request,
  received: Exchange["received"],
  target: RequestTarget,
  client: string,
  isStripped: (name: string) => boolean,
  { gateway: settings, overrideCookies }: EdgeTable,
): Headers | undefined {
  const upstream = new Headers(request.headers);
  for (const [name, value] of received) {
    if (CONTROL.test(value)) return undefined;
    if (isStripped(name)) upstream.delete(name);
  }
  for (const name of listedInConnection(receivedHeader({ received }, "connection"))) upstream.delete(name);
  for (const name of overrideCookies) removeCookie(upstream, name);
  if (client !== "") {
    const came = settings.forwardedFor === "append" ? receivedHeader({ received }, "x-forwarded-for") : null;
    upstream.set("x-forwarded-for", came ? `${came}, ${client}` : client);
    upstream.set("x-real-ip", client);
  }
  upstream.set("x-forwarded-host", target.authority);
  upstream.set("x-forwarded-proto", target.scheme);
  return upstream;
}

/**
 * Takes out of a cluster's answer what is for its connection with the gateway alone. The runtime does so by itself with Connection,
 * Keep-Alive, TE, Trailer, Transfer-Encoding and Upgrade (measured), and with no others.
 */
export function connectionEdits(headers: Headers): HeaderEdit[] {
  const edits: HeaderEdit[] = [];
  for (const name of listedInConnection(headers.get("connection"))) edits.push({ action: "remove", name });
  for (const name of PROXY_HEADERS) if (headers.has(name)) edits.push({ action: "remove", name });
  return edits;
}

const PROXY_HEADERS = ["proxy-authenticate", "proxy-connection"];
const NONE: readonly string[] = [];

const listedInConnection = (connection: string | null | undefined): readonly string[] =>
  connection
    ?.toLowerCase()
    .split(",")
    .map((listed) => listed.trim())
    .filter((name) => /^[a-z0-9-_]+$/.test(name) && !KEPT_THOUGH_LISTED.has(name)) ?? NONE;

// biome-ignore lint/suspicious/noControlCharactersInRegex: these are looked for
const CONTROL = /[\x00-\x08\x0a-\x1f\x7f]/;

const KEPT_THOUGH_LISTED = new Set([
  "authorization",
  "cookie",
  "host",
  "content-length",
  "content-type",
  "content-encoding",
  "origin",
]);
