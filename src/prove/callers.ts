/** What the table itself tells about who gets past a route's authenticating policy, and with what. */

import type { Condition } from "../config/condition.ts";
import type { AllOfConfig } from "../policies/all-of.ts";
import type { AnonymousConfig } from "../policies/anonymous.ts";
import type { ApiKeyConfig } from "../policies/api-key.ts";
import { type AuthorizeConfig, OF_CALLER } from "../policies/authorize.ts";
import type { BasicConfig } from "../policies/basic.ts";
import type { ClientCertificateConfig } from "../policies/client-certificate.ts";
import type { MemberPolicy } from "../policies/contract.ts";
import type { ForwardAuthConfig } from "../policies/forward-auth.ts";
import type { HmacConfig } from "../policies/hmac.ts";
import { authenticates } from "../policies/order.ts";
import type { ScopesConfig } from "../policies/scopes.ts";
import type { PolicyName, RouteTable, TablePolicy, TableRoute } from "../table/table.ts";

export const policiesOf = (table: RouteTable, { policies }: Pick<TableRoute, "policies">): TablePolicy[] =>
  policies.map((position) => table.policies[position] as TablePolicy);

export const enforced = (policies: readonly TablePolicy[], name: PolicyName): TablePolicy[] =>
  policies.filter(({ policy, mode }) => policy === name && mode === "enforce");

export const authenticatorOf = (policies: readonly TablePolicy[]): TablePolicy | undefined =>
  policies.find(({ policy }) => authenticates(policy));

export const membersOf = ({ config }: MemberPolicy): readonly MemberPolicy[] => (config as AllOfConfig).members;

/** Scopes that a caller can have; undefined: whatever its credential says. */
export function possibleScopes(member: MemberPolicy): ReadonlySet<string> | undefined {
  const { config } = member;
  switch (member.policy) {
    case "forwardAuth":
      return (config as ForwardAuthConfig).scopesFrom === undefined ? new Set() : undefined;
    case "basic": {
      const { users, store } = config as BasicConfig;
      return store ? undefined : new Set(Object.values(users).flatMap(({ scopes }) => scopes));
    }
    case "clientCertificate":
      return new Set((config as ClientCertificateConfig).certificates.flatMap(({ scopes }) => scopes));
    case "hmac":
      return new Set(Object.values((config as HmacConfig).keys).flatMap(({ scopes }) => scopes));
    case "anonymous":
      return new Set();
    case "anyOf":
    case "allOf":
      return united(membersOf(member).map(possibleScopes));
    default:
      return undefined;
  }
}

/** Names of the consumers that a caller can be; undefined: whatever a store or a service says. */
export function possibleConsumers(member: MemberPolicy): ReadonlySet<string> | undefined {
  const { config } = member;
  switch (member.policy) {
    case "jwt":
    case "oidc":
    case "introspection":
    case "oidcLogin":
      return new Set((config as { consumers: readonly { name: string }[] }).consumers.map(({ name }) => name));
    case "apiKey": {
      const { consumers } = config as ApiKeyConfig;
      return consumers && new Set(consumers);
    }
    case "basic": {
      const { users, store } = config as BasicConfig;
      return store ? undefined : new Set(Object.values(users).flatMap(({ consumer }) => consumer ?? []));
    }
    case "clientCertificate":
      return new Set((config as ClientCertificateConfig).certificates.map(({ consumer }) => consumer));
    case "hmac":
      return new Set(Object.values((config as HmacConfig).keys).map(({ consumer }) => consumer));
    case "forwardAuth":
      return new Set((config as ForwardAuthConfig).consumers);
    case "anonymous":
      return new Set([(config as AnonymousConfig).consumer]);
    case "anyOf":
    case "allOf":
      return united(membersOf(member).map(possibleConsumers));
    default:
      return undefined;
  }
}

function united(sets: readonly (ReadonlySet<string> | undefined)[]): ReadonlySet<string> | undefined {
  return sets.includes(undefined) ? undefined : new Set(sets.flatMap((set) => [...(set as ReadonlySet<string>)]));
}

/** Whether a request without any credential is let in by it: `asks` leaves that to a service of the operator's. */
export function admitsNobody(member: MemberPolicy): "admits" | "refuses" | "asks" {
  if (member.policy === "anonymous") return "admits";
  if (member.policy === "forwardAuth") return "asks";
  if (member.policy === "anyOf" || member.policy === "allOf") {
    const members = membersOf(member).map(admitsNobody);
    const [one, all] = member.policy === "anyOf" ? (["admits", "refuses"] as const) : (["refuses", "admits"] as const);
    return members.includes(one) ? one : members.every((verdict) => verdict === all) ? all : "asks";
  }
  return (member.config as { optional?: boolean }).optional ? "admits" : "refuses";
}

/** Whether who passes the policy has shown a credential of that kind, or for anyOf and allOf passed them. */
export function proves(member: MemberPolicy, name: PolicyName): boolean {
  if (member.policy === name) return admitsNobody(member) !== "admits" || name === "anonymous";
  if (member.policy === "allOf") return membersOf(member).some((one) => proves(one, name));
  return member.policy === "anyOf" && membersOf(member).every((one) => proves(one, name));
}

/** Why a request without a credential gets through all of `policies`; undefined: it does not. */
export function nobodyPasses(policies: readonly TablePolicy[]): string | undefined {
  const authenticator = authenticatorOf(policies);
  const verdict = authenticator?.mode === "enforce" ? admitsNobody(authenticator) : "admits";
  if (verdict === "refuses") return undefined;
  // A service may make anybody known, and with any scopes.
  if (authenticator && verdict === "asks") return `lets the service that ${authenticator.policy} asks decide`;
  const scopes = enforced(policies, "scopes").map(({ config }) => config as ScopesConfig);
  // Whom no credential made known has none.
  if (scopes.some(({ all, any }) => all.length + any.length > 0)) return undefined;
  if (!authenticator) return "has no policy that says who is calling";
  const { policy, mode } = authenticator;
  const isConsumer = mode === "enforce" && named(authenticator).includes("anonymous");
  const rules = enforced(policies, "authorize").map(({ config }) => config as AuthorizeConfig);
  // Rules of which each needs a caller that is known let nobody else pass.
  if (!isConsumer && rules.some(({ allow }) => allow.every(({ condition }) => !mayHold(condition)))) return undefined;
  if (mode === "report") return `has ${policy} in report mode, which lets all requests pass`;
  return named(authenticator).includes("anonymous")
    ? "lets requests in without a credential by anonymous()"
    : `has ${policy} with optional: true`;
}

/** The kinds of credential that it reads; of any other policy its own name. */
export const named = (member: MemberPolicy): PolicyName[] =>
  member.policy === "anyOf" || member.policy === "allOf" ? membersOf(member).flatMap(named) : [member.policy];

/** Whether the condition may hold for a request of nobody: what is asked of the caller is then not known, so it does not hold. */
function mayHold(condition: Condition): boolean {
  if ("all" in condition) return condition.all.every(mayHold);
  if ("any" in condition) return condition.any.some(mayHold);
  // Its opposite would have to be told, which it cannot be either; but what is within may be more than one value.
  if ("not" in condition) return !onlyOfCaller(condition.not);
  if ("time" in condition) return true;
  if (!OF_CALLER.has(condition.value.of)) {
    return !("is" in condition) || condition.is.some((one) => typeof one !== "object" || !OF_CALLER.has(one.value.of));
  }
  return false;
}

function onlyOfCaller(condition: Condition): boolean {
  if ("all" in condition) return condition.all.every(onlyOfCaller);
  if ("any" in condition) return condition.any.every(onlyOfCaller);
  if ("not" in condition) return onlyOfCaller(condition.not);
  return "value" in condition && OF_CALLER.has(condition.value.of) && !("exists" in condition);
}
