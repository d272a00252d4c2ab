/** What anyOf and allOf have in common: a list of policies that say who is calling. */
import { z } from "zod";
import type { Deciding, PolicyDeclaration } from "../config/policy.ts";
import type { CompileContext, Exchange, GatewayRuntime, MemberPolicy, Refusal } from "./contract.ts";

export interface MembersOptions extends Deciding {
  readonly members: readonly PolicyDeclaration[];
}

export type MembersGiven = readonly [MembersOptions] | readonly PolicyDeclaration[];

/** The options of `anyOf(a, b)` as of `anyOf({ members: [a, b], mode: "report" })`. */
export function membersOptions(given: MembersGiven): Readonly<Record<string, unknown>> {
  const [first] = given;
  return typeof first === "object" && first !== null && "members" in first ? { ...first } : { members: given };
}

export const membersSchema = () =>
  z.strictObject({
    mode: z.enum(["enforce", "report", "off"]).optional(),
    members: z.array(
      z.custom<PolicyDeclaration>(
        (value) => (value as { kind?: unknown } | null | undefined)?.kind === "policy",
        "must be a policy that says who is calling, such as jwt({ ... })",
      ),
    ),
  });

export interface MembersConfig {
  /** In the order in which they are asked. */
  readonly members: readonly MemberPolicy[];
}

/** `policy` names the policy in problems. */
export function compileMembers({ members }: MembersOptions, context: CompileContext, policy: string): MembersConfig {
  const compiled = members.map((member) => context.member(member)).filter((member) => member !== undefined);
  if (members.length < 2) context.problem(`${policy} has nothing to choose from`, "list two policies or more");
  return { members: compiled };
}

export const authenticatorsOf = ({ members }: MembersConfig, runtime: GatewayRuntime) =>
  members.map((member) => ({ policy: member.policy, authenticator: runtime.authenticator(member) }));

type Members = ReturnType<typeof authenticatorsOf>;

/** Takes the credentials of all of them away from the origin, also those that were not asked for. */
export function withholdAll(members: Members): ((exchange: Exchange) => void) | undefined {
  const withholding = members.flatMap(({ authenticator }) => (authenticator.withhold ? [authenticator] : []));
  if (withholding.length === 0) return undefined;
  return (exchange) => {
    for (const authenticator of withholding) authenticator.withhold?.(exchange);
  };
}

/** One WWW-Authenticate for all that may be brought (RFC 9110, 11.6.1), each once. */
export function challenges(refusals: readonly Refusal[]): string | undefined {
  const all = refusals.map(({ extras }) => extras?.headers?.["www-authenticate"]).filter((text) => text !== undefined);
  return all.length === 0 ? undefined : [...new Set(all)].join(", ");
}

/** Why each of them was refused, for the record. */
export const refusalFacts = (refusals: readonly { readonly policy: string; readonly refusal: Refusal }[]) => ({
  refused: refusals.map(({ policy, refusal: { refused, extras } }) => ({
    by: policy,
    reason: refused,
    ...(extras?.facts && { ...extras.facts }),
  })),
});
