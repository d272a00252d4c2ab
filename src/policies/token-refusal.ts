/** Why a token is refused, whatever kind of token it is. */
import { challenge } from "./authentication.ts";
import type { Exchange, PolicyVerdict, Refusal } from "./contract.ts";

/** All that a client is told, so nothing of the token is in it. Characters as in RFC 6750, 3. */
const REASONS = {
  malformed: "the token is malformed",
  size: "the token is too long",
  duplicate: "the token says something twice",
  type: "the type of the token is not accepted",
  algorithm: "the algorithm of the token is not accepted",
  key: "the key of the token is not known",
  signature: "the signature of the token does not verify",
  issuer: "the issuer of the token is not accepted",
  audience: "the token is for another audience",
  "claim-missing": "the token lacks a required claim",
  "claim-type": "a claim of the token has the wrong type",
  "not-yet": "the token is not valid yet",
  expired: "the token has expired",
  lifetime: "the token is valid for too long",
  inactive: "the issuer does not know the token, or has revoked it",
  consumer: "the token belongs to no known consumer",
  conflict: "the request carries different tokens",
} as const;

export type TokenReason = keyof typeof REASONS;

export class TokenRefused extends Error {
  override readonly name = "TokenRefused";
  readonly reason: TokenReason;

  constructor(reason: TokenReason) {
    super(REASONS[reason]);
    this.reason = reason;
  }
}

export function check(holds: boolean, reason: TokenReason): asserts holds {
  if (!holds) throw new TokenRefused(reason);
}

/** The 401 for a token that is there and not good (RFC 6750, 3.1). */
export function tokenRefusal(exchange: Exchange, reason: TokenReason, facts?: PolicyVerdict["facts"]): Refusal {
  // `invalid_request` is what RFC 6750, 3.1 calls a request with more than one token.
  const error = reason === "conflict" ? "invalid_request" : "invalid_token";
  const detail = REASONS[reason];
  return {
    refused: reason === "conflict" ? "token-conflict" : reason === "expired" ? "token-expired" : "token-invalid",
    extras: {
      detail,
      headers: { "www-authenticate": challenge(exchange, "Bearer", { error, error_description: detail }) },
      facts: { why: reason, ...facts },
    },
  };
}

/** The 401 for a request without a token. */
export const tokenMissing = (exchange: Exchange): Refusal => ({
  refused: "token-missing",
  absent: true,
  extras: { headers: { "www-authenticate": challenge(exchange, "Bearer") } },
});
