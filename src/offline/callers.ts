/** Callers that are taken for granted: who asks what would happen to a consumer's request has none of its credentials. */
import { admissionOf, authenticating, challenge, consumerFacts } from "../policies/authentication.ts";
import { admissionByClaims, type ClaimConfig } from "../policies/claims.ts";
import type { Admission, Authentication, Exchange, GatewayRuntime, MemberPolicy } from "../policies/contract.ts";
import type { MembersConfig } from "../policies/members.ts";
import { TokenRefused, tokenRefusal } from "../policies/token-refusal.ts";
import { subjectOf } from "../policies/token-verifier.ts";
import type { PolicyMode, PolicyName, RouteTable } from "../table/table.ts";
import { authenticators } from "./policies.ts";
import { meant } from "./spelling.ts";

/** Somebody whose credential is good, whatever kind the route wants. */
export interface AssumedCaller {
  /** A declared consumer, or one that only the store knows. Absent: a good credential of no consumer. */
  readonly consumer?: string;
  /** The `sub` of a token. Default: the consumer's name. */
  readonly subject?: string;
  readonly scopes?: readonly string[];
  /** What a token says besides. */
  readonly claims?: Readonly<Record<string, unknown>>;
  /** Of a consumer that the routes do not declare. */
  readonly groups?: readonly string[];
  readonly plan?: string;
}

/**
 * Throws Error for a consumer that nobody can be: none that the routes declare, and no policy knows others; or one that is spelled nearly
 * as one of those. With `groups` or a `plan` it is meant to be one that only the store knows.
 */
export function refuseUnknown({ consumers, policies }: RouteTable, caller: AssumedCaller | undefined): void {
  const { consumer, groups, plan } = caller ?? {};
  if (consumer === undefined || groups || plan !== undefined || Object.hasOwn(consumers, consumer)) return;
  const names = Object.keys(consumers);
  const near = meant(consumer, names);
  if (near === undefined && policies.some(knowsOthers)) return;
  const suggestion =
    near === undefined
      ? `they declare ${names.join(", ") || "none"}; who is no consumer has a subject alone`
      : `did you mean "${near}"?`;
  const other = policies.some(knowsOthers)
    ? " One that only the store knows is given with its groups or its plan."
    : "";
  throw new Error(`the routes declare no consumer "${consumer}": ${suggestion}${other}`);
}

/** Whether the policy takes keys or users of the store for consumers that the routes do not declare. */
function knowsOthers({ policy, config }: MemberPolicy): boolean {
  if (policy === "anyOf" || policy === "allOf") return (config as MembersConfig).members.some(knowsOthers);
  const { consumers, store } = config as { readonly consumers?: unknown; readonly store?: unknown };
  return (policy === "apiKey" && consumers === undefined) || (policy === "basic" && store === true);
}

/** The `run` of an authenticating policy that asks `assumed` who is calling, and its own authenticator where nobody is assumed. */
export function assuming(policy: PolicyName, assumed: () => AssumedCaller | undefined) {
  return (config: unknown, runtime: GatewayRuntime, mode: PolicyMode) => {
    const make = authenticators[policy];
    if (!make) throw new Error(`${policy} says of nobody who it is`);
    const own = make(config as never, runtime);
    return authenticating<unknown>(policy, () => ({
      ...own,
      authenticate(c) {
        const caller = assumed();
        if (!caller) return own.authenticate(c);
        return admitted({ policy, config }, caller, c.get("exchange"), runtime) ?? own.authenticate(c);
      },
    }))(config, runtime, mode);
  };
}

/** What the policy makes of a caller whose credential is good; undefined for one that takes no credentials. */
function admitted(
  { policy, config }: MemberPolicy,
  caller: AssumedCaller,
  exchange: Exchange,
  runtime: GatewayRuntime,
): Authentication | undefined {
  if (policy === "anonymous") return undefined;
  if (policy === "anyOf" || policy === "allOf") {
    const { members } = config as MembersConfig;
    const asked = members.filter((member) => member.policy !== "anonymous");
    const member = asked.find((one) => knows(one, caller.consumer)) ?? asked[0];
    const outcome = member && admitted(member, caller, exchange, runtime);
    if (!member || !outcome || !("headers" in outcome)) return outcome;
    return { ...(outcome as Admission), facts: { by: member.policy, ...(outcome as Admission).facts } };
  }
  if (isClaimConfig(config)) return byClaims(policy, config, caller, exchange, runtime);
  const { consumer = "somebody", scopes = [], groups, plan, claims = {} } = caller;
  const { consumers } = config as { readonly consumers?: readonly string[] };
  if (policy === "apiKey" && consumers && !consumers.includes(consumer)) {
    return {
      refused: "credentials-invalid",
      extras: {
        headers: { "www-authenticate": challenge(exchange, "ApiKey") },
        facts: { why: "consumer", ...ASSUMED },
      },
    };
  }
  const own = Object.hasOwn(runtime.table.consumers, consumer)
    ? consumerFacts(runtime, consumer)
    : { consumer, ...(groups && { groups }), ...(plan !== undefined && { plan }) };
  const subject = `consumer:${consumer}`;
  return admissionOf({ ...own, subject, scopes, claims, credential: { kind: policy } }, [], ASSUMED);
}

/** By the claims of such a consumer's tokens, so that the policy itself tells whose they are. */
function byClaims(
  policy: PolicyName,
  config: ClaimConfig & { readonly issuer?: unknown },
  { consumer, subject, scopes = [], claims = {} }: AssumedCaller,
  exchange: Exchange,
  runtime: GatewayRuntime,
): Authentication {
  const declared = config.consumers.find(({ name }) => name === consumer)?.claims;
  const [issuer] = [config.issuer ?? policy].flat();
  const iss = typeof claims.iss === "string" ? claims.iss : typeof issuer === "string" ? issuer : policy;
  const said = {
    iss,
    sub: subject ?? consumer ?? "somebody",
    ...(scopes.length > 0 && { scope: scopes.join(" ") }),
    ...declared,
    ...claims,
  };
  try {
    return admissionByClaims(said, subjectOf(iss, said.sub), config, runtime, policy, ASSUMED);
  } catch (error) {
    if (error instanceof TokenRefused) return tokenRefusal(exchange, error.reason, ASSUMED);
    throw error;
  }
}

const ASSUMED = Object.freeze({ assumed: true });

const isClaimConfig = (config: unknown): config is ClaimConfig =>
  Array.isArray((config as Partial<ClaimConfig>).claimsToHeaders);

/** Whether the policy tells that consumer from others. */
const knows = ({ policy, config }: MemberPolicy, consumer: string | undefined): boolean => {
  if (isClaimConfig(config)) return config.consumers.some(({ name }) => name === consumer);
  const { consumers } = config as { readonly consumers?: readonly unknown[] };
  return policy === "apiKey" && (consumers === undefined || consumers.includes(consumer));
};
