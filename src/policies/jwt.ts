import { z } from "zod";
import { policyBuilder } from "../config/policy.ts";
import type { EnvReference, SecretReference } from "../config/values.ts";
import { authenticating } from "./authentication.ts";
import type { CompileContext, PolicyRun } from "./contract.ts";
import { providerUrl } from "./provider-request.ts";
import {
  compileKeySet,
  compileSignedToken,
  reference,
  type SignedTokenConfig,
  type SignedTokenOptions,
  signedTokenAuthenticator,
  signedTokenShape,
  value,
  valuesOf,
} from "./signed-token.ts";
import { ASYMMETRIC, HMAC } from "./token-verifier.ts";

export interface JwtOptions extends SignedTokenOptions {
  /** Accepted values of `iss`, compared character by character: `https://a` and `https://a/` are two issuers. */
  readonly issuer: string | EnvReference | readonly (string | EnvReference)[];
  /** Where the issuer publishes its keys: an https URL; plain http for loopback addresses only. Either this or `secret`. */
  readonly jwks?: string | EnvReference;
  /** A key shared with the issuer, for HS256; its text must have 32 bytes, for HS384 48 and for HS512 64 (RFC 7518, 3.2). */
  readonly secret?: SecretReference;
}

/**
 * Lets requests through by a signed token (RFC 7519, RFC 9068) and tells the origin whose it is. 401 `token-missing`,
 * `token-invalid`, `token-expired` or `token-conflict`; 503 `keys-unavailable` when the issuer's keys could never be fetched.
 */
export const jwt = policyBuilder<JwtOptions>("jwt");

export const schema = () =>
  z.strictObject({
    ...signedTokenShape(),
    issuer: z.union([value(), z.array(value()).min(1)]),
    jwks: value().optional(),
    secret: reference("secret").optional(),
  });

export type JwtConfig = SignedTokenConfig;

export function compile(options: JwtOptions, context: CompileContext): JwtConfig {
  const { jwks, secret } = options;
  if ((jwks === undefined) === (secret === undefined)) {
    context.problem(
      `jwt has ${jwks === undefined ? "neither" : "both"} \`jwks\` ${jwks === undefined ? "nor" : "and"} \`secret\``,
      "give the URL of the issuer's key set, or the secret that is shared with the issuer",
    );
  }
  if (typeof jwks === "string" && !providerUrl(jwks)) {
    context.problem(
      `"${jwks}" is no address of a key set`,
      "write an https URL without user or password; http is for loopback addresses only",
    );
  }
  const known = secret ? Object.keys(HMAC) : ASYMMETRIC;
  for (const algorithm of options.algorithms ?? []) {
    if (!known.includes(algorithm)) {
      context.problem(
        `the algorithm "${algorithm}" does not go with ${secret ? "a secret" : "a key set"}`,
        `use some of ${known.join(", ")}, or leave \`algorithms\` out`,
      );
    }
  }
  return {
    issuer: valuesOf(options.issuer, context),
    keys: secret
      ? { secret: context.reference(secret) }
      : {
          jwks: typeof jwks === "object" ? context.reference(jwks) : (jwks ?? ""),
          keySet: compileKeySet(options.keySet, context),
        },
    ...compileSignedToken(options, context, "jwt", known),
  };
}

export const authenticator = signedTokenAuthenticator("jwt");
export const run: PolicyRun<JwtConfig> = authenticating("jwt", authenticator);
