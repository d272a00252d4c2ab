/**
 * Which policy runs when. One list for all routes, with the reason for each place; where a policy stands in `routes/` means
 * nothing. Changes to the response's headers are made in the same order; middleware sees the response in the reverse one, as in Hono.
 *
 * `repeat` says what happens when the gateway, the API and the route all declare the policy: `add` runs each of them, outermost
 * first; `replace` keeps the one that is nearest to the route.
 */
import type { PolicyName } from "../table/table.ts";

export interface OrderedPolicy {
  readonly policy: PolicyName;
  readonly repeat: "add" | "replace";
  readonly reason: string;
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
  { policy: "jwt", repeat: "replace", reason: "who is calling decides scopes, limits and the canary's arm" },
  { policy: "scopes", repeat: "add", reason: "needs the caller; refuses before anything is counted or read" },
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
    policy: "headers",
    repeat: "add",
    reason: "after all that set headers for the origin, so that the operator has the last word",
  },
  { policy: "middleware", repeat: "add", reason: "the operator's own code sees the request as the origin will" },
];
