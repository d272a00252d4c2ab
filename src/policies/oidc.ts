import { z } from "zod";
import { policyBuilder } from "../config/policy.ts";
import type { EnvReference } from "../config/values.ts";
import { authenticating } from "./authentication.ts";
import type { CompileContext, PolicyRun } from "./contract.ts";
import { providerUrl } from "./provider-request.ts";
import {
  compileKeySet,
  compileSignedToken,
  type SignedTokenConfig,
  type SignedTokenOptions,
  signedTokenAuthenticator,
  signedTokenShape,
  value,
  valuesOf,
} from "./signed-token.ts";
import { ASYMMETRIC } from "./token-verifier.ts";

export interface OidcOptions extends SignedTokenOptions {
  /**
   * The issuer, exactly as it calls itself in `iss` and in its metadata: an https URL; plain http for loopback addresses only. The
   * metadata are at `<issuer>/.well-known/openid-configuration`, and are read again whenever the keys are.
   */
  readonly issuer: string | EnvReference;
}

/** jwt for an issuer whose keys are found by its metadata (OpenID Connect Discovery 1.0). Answers as jwt does. */
export const oidc = policyBuilder<OidcOptions>("oidc");

export const schema = () => z.strictObject({ ...signedTokenShape(), issuer: value() });

export type OidcConfig = SignedTokenConfig;

export function compile(options: OidcOptions, context: CompileContext): OidcConfig {
  const { issuer, algorithms = [] } = options;
  if (typeof issuer === "string" && !providerUrl(issuer)) {
    context.problem(
      `"${issuer}" is no address of an issuer`,
      "write an https URL without user or password; http is for loopback addresses only",
    );
  }
  for (const algorithm of algorithms) {
    if (!ASYMMETRIC.includes(algorithm)) {
      context.problem(
        `the algorithm "${algorithm}" does not go with a key set`,
        `use some of ${ASYMMETRIC.join(", ")}, or leave \`algorithms\` out`,
      );
    }
  }
  return {
    issuer: valuesOf(issuer, context),
    keys: { discovery: true, keySet: compileKeySet(options.keySet, context) },
    ...compileSignedToken(options, context, "oidc", ASYMMETRIC),
  };
}

export const authenticator = signedTokenAuthenticator("oidc");
export const run: PolicyRun<OidcConfig> = authenticating("oidc", authenticator);
