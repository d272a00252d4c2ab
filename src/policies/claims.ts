/** What the claims of a token say about the caller, and what of that the origin is told. */
import { z } from "zod";
import type { ConsumerDeclaration } from "../config/consumer.ts";
import type { PolicyName } from "../table/table.ts";
import { admissionOf, consumerFacts, headerText } from "./authentication.ts";
import { type Admission, type CompileContext, claimAt, type GatewayRuntime, type PolicyVerdict } from "./contract.ts";
import { check } from "./token-refusal.ts";

export interface ClaimOptions {
  /** The first one whose claims the token has is the caller's consumer. */
  readonly consumers?: readonly ConsumerDeclaration[];
  /** Refuse tokens of none of the `consumers`. Default: false. */
  readonly requireConsumer?: boolean;
  /**
   * Request headers for the origin by claim, e.g. `{ email: "x-user-email", "org.id": "x-org" }`; dots lead into objects, unless
   * a claim has that very name. What clients send in these headers is removed on all routes.
   */
  readonly claimsToHeaders?: Readonly<Record<string, string>>;
  /** The claim that lists the caller's groups, such as `groups` (RFC 9068, 2.2.3.1); they add to its consumer's. Default: none. */
  readonly groupsFrom?: string;
}

/** Members for the schema of a policy that takes ClaimOptions. */
export const claimShape = () => {
  const text = z.string().min(1);
  return {
    consumers: z
      .array(
        z.looseObject({
          kind: z.literal("consumer"),
          name: text,
          options: z.looseObject({ claims: z.record(text, z.string()).optional() }),
        }),
      )
      .optional(),
    requireConsumer: z.boolean().optional(),
    claimsToHeaders: z.record(text, z.string()).optional(),
    groupsFrom: text.optional(),
  };
};

export interface ClaimConfig {
  readonly consumers: readonly { readonly name: string; readonly claims: Readonly<Record<string, string>> }[];
  readonly requireConsumer: boolean;
  readonly claimsToHeaders: readonly (readonly [claim: string, header: string])[];
  readonly groupsFrom?: string;
}

// Claimed headers are removed from what clients send, so HTTP's own cannot be claimed. No underscores: to CGI-like origins
// `x_user` and `x-user` are one header.
const CLAIMABLE =
  /^(?!(?:host|connection|te|trailer|upgrade|expect|date|via|range|origin|referer|forwarded|authorization|cookie|user-agent)$)(?!(?:keep-alive|transfer-|proxy-|content-|accept|access-control-|if-|sec-|cf-|cdn-|x-forwarded-|x-real-ip|x-consumer-|x-portcullis-))[a-z0-9-]+$/;

/** `carriers` are the headers in which credentials come, in lower case. `policy` names the policy in problems. */
export function compileClaims(
  options: ClaimOptions,
  context: CompileContext,
  policy: string,
  carriers: readonly string[],
): ClaimConfig {
  const { consumers = [], groupsFrom } = options;
  for (const { name, options: consumer } of consumers) {
    if (Object.keys(consumer.claims ?? {}).length === 0) {
      context.problem(
        `the consumer "${name}" has no claims, so every token is its`,
        "give the claims that tell it apart",
      );
    }
  }
  if (options.requireConsumer && consumers.length === 0) {
    context.problem(`${policy} requires a consumer and knows none`, "list the declared consumers in `consumers`");
  }
  const claimsToHeaders = Object.entries(options.claimsToHeaders ?? {})
    .map(([claim, header]) => [claim, header.toLowerCase()] as const)
    .sort(([, a], [, b]) => (a < b ? -1 : 1));
  claimsToHeaders.forEach(([claim, header], i) => {
    if (!isClaimable(header) || carriers.includes(header)) {
      context.problem(
        `the claim "${claim}" cannot go into the header "${header}"`,
        'use a header of its own, of letters, digits and hyphens, such as "x-user-id"',
      );
    } else if (claimsToHeaders[i - 1]?.[1] === header) {
      context.problem(`two claims go into the header "${header}"`, "give each claim a header of its own");
    }
  });
  context.identityHeaders(claimsToHeaders.map(([, header]) => header));
  return {
    consumers: consumers.map(({ name, options: { claims = {} } }) => ({ name, claims })),
    requireConsumer: options.requireConsumer ?? false,
    claimsToHeaders,
    ...(groupsFrom !== undefined && { groupsFrom }),
  };
}

/** Whether a header, in lower case, may be one that only the gateway sets. */
export const isClaimable = (header: string): boolean => CLAIMABLE.test(header);

/**
 * The admission of whom `claims` are about. `subject` tells it from all others, of all issuers. Throws TokenRefused for claims of wrong
 * types, and for tokens of no consumer where one is required.
 */
export function admissionByClaims(
  claims: Readonly<Record<string, unknown>>,
  subject: string,
  config: ClaimConfig,
  runtime: GatewayRuntime,
  kind: PolicyName,
  facts?: PolicyVerdict["facts"],
): Admission {
  const { consumers, requireConsumer, claimsToHeaders, groupsFrom } = config;
  const { sub } = claims;
  check(!Object.hasOwn(claims, "__proto__"), "claim-type");
  check(sub === undefined || typeof sub === "string", "claim-type");
  const scopes = scopesOf(claims);
  const name = consumers.find((candidate) =>
    Object.entries(candidate.claims).every(([path, value]) => claimAt(claims, path) === value),
  )?.name;
  check(name !== undefined || !requireConsumer, "consumer");
  const own = consumerFacts(runtime, name);
  const groups = groupsFrom === undefined ? own.groups : unite(own.groups, groupsOf(claims, groupsFrom));

  const headers: [name: string, value: string][] = [];
  const tell = (header: string, value: unknown) => {
    const text = headerText(value);
    check(text !== undefined, "claim-type");
    if (text !== "") headers.push([header, text]);
  };
  tell("x-consumer-subject", sub);
  for (const [claim, header] of claimsToHeaders) tell(header, claimAt(claims, claim));
  const caller = { ...own, ...(groups && { groups }), subject, scopes, claims, credential: { kind } };
  return admissionOf(caller, headers, facts);
}

/** `scope` (RFC 8693, 4.2), else `scp`, which others call it, also as an array. */
function scopesOf({ scope, scp = [] }: Readonly<Record<string, unknown>>): string[] {
  check(scope === undefined || typeof scope === "string", "claim-type");
  const listed = scope ?? scp;
  const scopes = typeof listed === "string" ? listed.split(" ").filter((item) => item !== "") : listed;
  check(Array.isArray(scopes), "claim-type");
  // A scope with a space in it would be two for the origin.
  check(
    scopes.every((item) => typeof item === "string" && SCOPE_TOKEN.test(item)),
    "claim-type",
  );
  return scopes;
}

/** One scope (RFC 6749, 3.3). */
export const SCOPE_TOKEN = /^[\x21\x23-\x5b\x5d-\x7e]+$/;

function groupsOf(claims: object, path: string): string[] {
  const listed = claimAt(claims, path) ?? [];
  const groups = typeof listed === "string" ? [listed] : listed;
  check(Array.isArray(groups) && groups.every((group) => typeof group === "string" && group !== ""), "claim-type");
  return groups;
}

const unite = (some: readonly string[] = [], others: readonly string[]): readonly string[] | undefined => {
  const all = [...new Set([...some, ...others])].sort();
  return all.length === 0 ? undefined : all;
};
