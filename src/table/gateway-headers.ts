/** Request headers that only the gateway may say, whatever a client sends; what the build refuses to match by, and the edge removes. */

// For one connection only (RFC 9110, 7.6.1; Proxy-Connection never was standard but is sent).
const HOP_BY_HOP = [
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
];

// How servers tell each other the client's address.
const CLIENT_ADDRESS = [
  "forwarded",
  "x-real-ip",
  "cf-connecting-ip",
  "cf-connecting-ipv6",
  "cf-pseudo-ipv4",
  "true-client-ip",
  "x-client-ip",
  "x-cluster-client-ip",
  "fastly-client-ip",
];

// By which an origin would serve another path or method than the one that was matched.
const OTHER_REQUEST = [
  "x-original-url",
  "x-rewrite-url",
  "x-http-method",
  "x-http-method-override",
  "x-method-override",
];

const NAMESPACES = ["x-forwarded-", "x-consumer-", "x-portcullis-"];

/**
 * Tells by name, in lower case. Underscores count as hyphens, since CGI-style origins read `X_User_Id` and `X-User-Id` as one.
 * `identityHeaders` are the table's.
 */
export function gatewayHeaders(identityHeaders: readonly string[]): (name: string) => boolean {
  const names = new Set([...HOP_BY_HOP, ...CLIENT_ADDRESS, ...OTHER_REQUEST, ...identityHeaders]);
  return (name) => {
    const spelled = name.includes("_") ? name.replaceAll("_", "-") : name;
    return names.has(spelled) || NAMESPACES.some((namespace) => spelled.startsWith(namespace));
  };
}
