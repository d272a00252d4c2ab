import { declaredAt } from "../config/declaration.ts";
import type { PolicyDeclaration } from "../config/policy.ts";
import { problems } from "../table/problems.ts";
import type { PolicyName } from "../table/table.ts";
import { authenticating } from "./authentication.ts";
import type {
  Admission,
  Authentication,
  CompileContext,
  GatewayContext,
  MakeAuthenticator,
  PolicyRun,
  Refusal,
} from "./contract.ts";
import {
  authenticatorsOf,
  challenges,
  compileMembers,
  type MembersConfig,
  type MembersGiven,
  type MembersOptions,
  membersOptions,
  membersSchema,
  refusalFacts,
  withholdAll,
} from "./members.ts";

/**
 * Lets requests through by one of several credentials: `anyOf(jwt({ ... }), apiKey({ ... }))`. They are asked in this order, and the
 * first that is good says who is calling. Where one is there and none is good, the request is refused, also with `anonymous()` in the
 * list: that is for requests that show no credential at all. 401 `credentials-missing` without any.
 */
export function anyOf(...given: MembersGiven): PolicyDeclaration {
  const options = membersOptions(given);
  const members = Array.isArray(options.members) ? options.members.flatMap(alternatives) : options.members;
  return { kind: "policy", policy: "anyOf", options: { ...options, members }, declaredAt: declaredAt(anyOf) };
}

/** One of those of one of these is one of all: so `anonymous` within is asked last, too. */
const alternatives = (member: PolicyDeclaration): readonly PolicyDeclaration[] =>
  member?.kind === "policy" && member.policy === "anyOf" && member.options.mode === undefined
    ? (member.options.members as readonly PolicyDeclaration[])
    : [member];

export const schema = membersSchema;
export type AnyOfConfig = MembersConfig;

export function compile(options: MembersOptions, context: CompileContext): AnyOfConfig {
  const config = compileMembers(options, context, "anyOf");
  if (config.members.filter(({ policy }) => policy === "anonymous").length > 1)
    context.problem("anyOf has two anonymous consumers", "keep one");
  for (const { policy, config: own } of config.members) {
    if ((own as { optional?: unknown }).optional === true) {
      const fix = "take `optional` out, and add anonymous() to the list";
      context.problem(`anyOf asks nobody after ${policy}, which lets requests without a credential pass`, fix);
    }
  }
  return config;
}

interface Refused {
  readonly policy: PolicyName;
  readonly refusal: Refusal;
}

export const authenticator: MakeAuthenticator<AnyOfConfig> = (config, runtime) => {
  const all = authenticatorsOf(config, runtime);
  const members = all.filter(({ policy }) => policy !== "anonymous");
  const anonymous = all.find(({ policy }) => policy === "anonymous")?.authenticator;
  const withhold = withholdAll(members);

  const noneOf = (c: GatewayContext, refusals: readonly Refused[]): Authentication | Promise<Authentication> => {
    const shown = refusals.filter(({ refusal }) => !refusal.absent);
    const headers = challengeHeader(refusals);
    if (shown.length > 0) {
      const { refused, extras } = weightiest(shown).refusal;
      const retry = extras?.headers?.["retry-after"];
      return {
        refused,
        extras: {
          ...extras,
          // Who cannot tell whether a credential is good does not ask for another one.
          headers: problems[refused][0] === 401 ? headers : { ...(retry !== undefined && { "retry-after": retry }) },
          facts: refusalFacts(shown),
        },
      };
    }
    const answer = refusals.find(({ refusal }) => refusal.answer)?.refusal.answer;
    const missing: Refusal = {
      refused: "credentials-missing",
      absent: true,
      extras: { headers },
      ...(answer && { answer }),
    };
    if (!anonymous) return missing;
    // Its admission does not depend on the request, and comes at once.
    const asked = headers["www-authenticate"];
    return { ...(anonymous.authenticate(c) as Admission), ...(asked !== undefined && { challenge: asked }) };
  };

  const from = async (
    c: GatewayContext,
    position: number,
    refusals: Refused[],
    pending: Promise<Authentication>,
  ): Promise<Authentication> => {
    const { policy } = members[position] as (typeof members)[number];
    const outcome = await pending;
    if (!("refused" in outcome)) return "step" in outcome ? outcome : by(policy, outcome);
    refusals.push({ policy, refusal: outcome });
    return ask(c, position + 1, refusals);
  };

  const ask = (c: GatewayContext, position: number, refusals: Refused[]): Authentication | Promise<Authentication> => {
    for (let i = position; i < members.length; i++) {
      const { policy, authenticator } = members[i] as (typeof members)[number];
      const outcome = authenticator.authenticate(c);
      if (outcome instanceof Promise) return from(c, i, refusals, outcome);
      if (!("refused" in outcome)) return "step" in outcome ? outcome : by(policy, outcome);
      refusals.push({ policy, refusal: outcome });
    }
    return noneOf(c, refusals);
  };

  return { authenticate: (c) => ask(c, 0, []), ...(withhold && { withhold }) };
};

export const run: PolicyRun<AnyOfConfig> = authenticating("anyOf", authenticator);

const by = (policy: PolicyName, admission: Admission): Admission => ({
  ...admission,
  facts: { by: policy, ...admission.facts },
});

/**
 * The refusal to tell of. While one of them could not be checked nobody knows that it is bad; and of tokens that several policies
 * read, the one that says that it has expired is the one that it was meant for.
 */
function weightiest(refusals: readonly Refused[]): Refused {
  return (
    refusals.find(({ refusal }) => problems[refusal.refused][0] >= 500) ??
    refusals.find(({ refusal }) => refusal.refused === "token-expired") ??
    (refusals[0] as Refused)
  );
}

function challengeHeader(refusals: readonly Refused[]): Record<string, string> {
  const asked = challenges(refusals.map(({ refusal }) => refusal));
  return asked === undefined ? {} : { "www-authenticate": asked };
}
