/**
 * Which policy runs when. One list for all routes, with the reason for each place; where a policy stands in `routes/` means
 * nothing. Changes to the response's headers are made in the same order; middleware sees the response in the reverse one, as in Hono.
 *
 * `repeat` says what happens when the gateway, the API and the route all declare the policy: `add` runs each of them, outermost
 * first; `replace` keeps the one that is nearest to the route. Policies that say who is calling (`authenticates`) replace each other,
 * too: on a route there is one of them, which may be anyOf or allOf over others.
 */
import type { PolicyName } from "../table/table.ts";

export interface OrderedPolicy {
  readonly policy: PolicyName;
  readonly repeat: "add" | "replace";
  readonly authenticates?: true;
  readonly reason: string;
}

/** One place for all of them, since a route has one. */
function authenticating(...policies: PolicyName[]): OrderedPolicy[] {
  const reason = "who is calling decides scopes, limits and the canary's arm";
  return policies.map((policy) => ({ policy, repeat: "replace", authenticates: true, reason }));
}

export const policyOrder: readonly OrderedPolicy[] = [
  { policy: "requestId", repeat: "replace", reason: "whatever happens next, refusals too, is found by its id" },
  {
    policy: "securityHeaders",
    repeat: "replace",
    reason: "every answer carries them, but for those to what is no request: a broken path, host or body",
  },
  {
    policy: "cors",
    repeat: "replace",
    reason:
      "a preflight has no credentials, so it is answered before they are asked for; and a refusal must be readable for the page that caused it",
  },
  { policy: "ipFilter", repeat: "add", reason: "the cheapest refusal: one comparison, no crypto, no store, no body" },
  {
    policy: "penaltyBox",
    repeat: "replace",
    reason: "who is blocked is refused before a credential is looked at; counts what the policies behind it refuse",
  },
  ...authenticating(
    "jwt",
    "oidc",
    "introspection",
    "apiKey",
    "basic",
    "clientCertificate",
    "hmac",
    "forwardAuth",
    "oidcLogin",
    "anyOf",
    "allOf",
    "anonymous",
  ),
  { policy: "scopes", repeat: "add", reason: "needs the caller; refuses before anything is counted or read" },
  {
    policy: "authorize",
    repeat: "add",
    reason: "the same, by rules: after scopes, whose refusal says what is missing",
  },
  {
    policy: "rateLimit",
    repeat: "add",
    reason:
      "counts per caller, so after authentication; before the body is read, so that it bounds what reading costs, and a scan spends the scanner's allowance",
  },
  {
    policy: "concurrency",
    repeat: "add",
    reason:
      "after the rate limit, so that only what would be forwarded takes a place, and keeps it while the rest runs",
  },
  {
    policy: "filter",
    repeat: "replace",
    reason: "may hold a part of the body: the dearest look, for those who passed all others",
  },
  {
    policy: "waf",
    repeat: "replace",
    reason: "after the filter, which is cheaper; it may hold more of the body, and the answer's",
  },
  {
    policy: "upstreamToken",
    repeat: "replace",
    reason:
      "after all refusals, so that a token is fetched only for requests that will be sent; replaces what the client sent",
  },
  {
    policy: "headers",
    repeat: "add",
    reason: "after all that set headers for the origin, so that the operator has the last word",
  },
  { policy: "middleware", repeat: "add", reason: "the operator's own code sees the request as the origin will" },
];

/** Whether the policy says who is calling. */
export const authenticates = (name: PolicyName): boolean =>
  policyOrder.some((ordered) => ordered.policy === name && ordered.authenticates);
