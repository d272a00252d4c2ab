/** Whom a request comes from: the address that address lists, limits and X-Forwarded-For go by. */
import { inRange, parseAddress, parseRange, type Range } from "../table/cidr.ts";

// Whether the runtime has ever told a peer's address, as workerd by itself does in `request.cf.clientIp`. Then it faces clients
// itself, and a request that comes without, over a Unix socket, may be anybody's.
let facesClients = false;

/**
 * CF-Connecting-IP, which Cloudflare sets on every request and which a client cannot. Where the runtime faces clients itself, the
 * peer's address, unless the peer is a trusted proxy. "" when nobody tells.
 */
export function clientAddress(request: Request, trusted: readonly Range[]): string {
  const named = request.headers.get("cf-connecting-ip") ?? "";
  const peer = (request.cf as { clientIp?: unknown } | undefined)?.clientIp;
  if (typeof peer !== "string") return facesClients ? "" : named;
  facesClients = true;
  const address = withoutPort(peer);
  if (named === "") return address;
  const parsed = parseAddress(address);
  const proxy = parsed !== undefined && trusted.some((range) => inRange(parsed, range));
  return proxy && named !== "" ? named : address;
}

export const trustedRanges = (texts: readonly string[]): Range[] =>
  texts.map((text) => parseRange(text)).filter((range) => range !== undefined);

/** `127.0.0.1:51212` or `[::1]:51212`. */
const withoutPort = (peer: string): string => peer.replace(/:[0-9]+$/, "").replace(/^\[(.*)\]$/, "$1");
