/**
 * Every answer that the gateway makes itself, by its stable code: the `code` of the problem document (RFC 9457), the `reason` of
 * the decision record, and a heading in docs/errors.md. A code is never renamed and never gets another status, but for what the rules
 * of a `waf` refuse: they may name one.
 */
export const problems = {
  "bad-request": [400, "The request is malformed"],
  "path-escape-invalid": [400, "The path has a percent escape that is broken or not UTF-8"],
  "path-control-character": [400, "The path has a control character"],
  "path-encoded-slash": [400, "The path has an encoded slash or a backslash"],
  "path-traversal": [400, "The path leads above the root"],
  "host-invalid": [400, "The Host header is not a host name"],
  "login-failed": [400, "The login was not completed"],
  "token-missing": [401, "A token is needed"],
  "token-invalid": [401, "The token is not valid"],
  "token-expired": [401, "The token has expired"],
  "token-conflict": [401, "The request carries two different tokens"],
  "credentials-missing": [401, "Credentials are needed"],
  "credentials-invalid": [401, "The credentials are not valid"],
  "scope-missing": [403, "The token lacks a scope"],
  "access-denied": [403, "The caller may not do this"],
  "address-denied": [403, "The client's address is not allowed"],
  "request-filtered": [403, "The request looks like an attack"],
  "not-found": [404, "No route matches"],
  "method-not-allowed": [405, "The path does not have this method"],
  "request-timeout": [408, "The request did not arrive in time"],
  "body-too-large": [413, "The request body is too large"],
  "url-too-long": [414, "The URL is too long"],
  "client-blocked": [429, "Too many failures"],
  "rate-limited": [429, "Too many requests"],
  "concurrency-limited": [429, "Too many requests at the same time"],
  "client-closed": [499, "The client went away"],
  internal: [500, "The gateway failed"],
  "backend-missing": [500, "The route has no backend"],
  "upstream-tls": [502, "No trusted connection with the cluster could be made"],
  "upstream-certificate": [502, "The cluster did not accept the gateway's certificate"],
  "response-filtered": [502, "The cluster's answer was held back"],
  "upstream-unreachable": [502, "The cluster could not be reached"],
  "upstream-invalid": [502, "The cluster's answer was not usable"],
  "breaker-open": [503, "The cluster is given time to recover"],
  "backend-overloaded": [503, "The cluster has as many requests as it may have"],
  "no-healthy-backend": [503, "No healthy cluster is left"],
  "upstream-unavailable": [503, "The cluster could not be reached"],
  "limiter-unavailable": [503, "The rate limiter's store is not available"],
  "credentials-unavailable": [503, "The credentials cannot be checked now"],
  "keys-unavailable": [503, "The issuer's keys are not available"],
  "upstream-token-unavailable": [503, "The gateway has no token for the cluster"],
  "not-configured": [503, "The gateway's environment is incomplete"],
  "upstream-connect-timeout": [504, "The cluster did not accept the connection in time"],
  "upstream-timeout": [504, "The cluster did not answer in time"],
} as const satisfies Record<string, readonly [status: number, title: string]>;

export type ProblemCode = keyof typeof problems;

export interface ProblemExtras {
  /** One sentence for the caller; it must not tell what an attacker would want to know. */
  readonly detail?: string;
  /** More members of the document, such as `missing: "orders:write"`. */
  readonly members?: Readonly<Record<string, unknown>>;
  readonly headers?: Readonly<Record<string, string>>;
  /** 400 to 599. Default: the code's. */
  readonly status?: number;
}

/** The answer for `code`, as `application/problem+json`. `instance` is the request's id, by which its record is found. */
export function problemResponse(code: ProblemCode, instance: string, extras: ProblemExtras = {}): Response {
  const [usual, title] = problems[code];
  const { status = usual } = extras;
  const body = {
    type: `urn:portcullis:problem:${code}`,
    title,
    status,
    code,
    ...(extras.detail !== undefined && { detail: extras.detail }),
    instance: `urn:portcullis:request:${instance}`,
    ...extras.members,
  };
  return new Response(`${JSON.stringify(body)}\n`, {
    status,
    headers: { "content-type": "application/problem+json", "cache-control": "no-store", ...extras.headers },
  });
}
