import { declaredAt } from "../config/declaration.ts";
import type { PolicyDeclaration } from "../config/policy.ts";
import type { PolicyName } from "../table/table.ts";
import { admissionOf, authenticating, challenge } from "./authentication.ts";
import type {
  Admission,
  Authentication,
  Caller,
  CompileContext,
  GatewayContext,
  MakeAuthenticator,
  PolicyRun,
  Refusal,
} from "./contract.ts";
import {
  authenticatorsOf,
  compileMembers,
  type MembersConfig,
  type MembersGiven,
  type MembersOptions,
  membersOptions,
  membersSchema,
  withholdAll,
} from "./members.ts";

/**
 * Lets requests through by several credentials together: `allOf(clientCertificate({ ... }), jwt({ ... }))`. The last one says who is
 * calling, with which scopes; the consumer is whom any of them names, and two different ones are refused. Write them from the
 * outermost to the one that knows best.
 */
export function allOf(...given: MembersGiven): PolicyDeclaration {
  return { kind: "policy", policy: "allOf", options: membersOptions(given), declaredAt: declaredAt(allOf) };
}

export const schema = membersSchema;
export type AllOfConfig = MembersConfig;

export function compile(options: MembersOptions, context: CompileContext): AllOfConfig {
  const config = compileMembers(options, context, "allOf");
  if (config.members.some(({ policy }) => policy === "anonymous"))
    context.problem("allOf asks for what anonymous() does not have", "take it out");
  return config;
}

interface Admitted {
  readonly policy: PolicyName;
  readonly admission: Admission;
}

export const authenticator: MakeAuthenticator<AllOfConfig> = (config, runtime) => {
  const members = authenticatorsOf(config, runtime);
  const withhold = withholdAll(members);
  // By the admission of the last member, which is remembered with its credential and forgotten with it.
  const united = new WeakMap<Admission, { readonly of: readonly Admitted[]; readonly admission: Admission }>();

  const unite = (c: GatewayContext, admitted: readonly Admitted[]): Authentication => {
    const last = (admitted.at(-1) as Admitted).admission;
    const known = united.get(last);
    if (known?.of.every(({ admission }, i) => admission === admitted[i]?.admission)) return known.admission;
    const names = new Set(admitted.flatMap(({ admission }) => admission.caller?.consumer ?? []));
    if (names.size > 1) {
      return {
        refused: "credentials-invalid",
        extras: {
          detail: "the credentials are of different consumers",
          headers: { "www-authenticate": challenge(c.get("exchange"), "Bearer") },
          facts: { why: "consumers", consumers: [...names].sort() },
        },
      };
    }
    const admission = together(admitted);
    united.set(last, { of: admitted, admission });
    return admission;
  };

  /** In the order of the list, from `position` on. A request that shows some of the credentials is not one that shows none. */
  const ask = (c: GatewayContext, position: number, admitted: Admitted[]): Authentication | Promise<Authentication> => {
    for (let i = position; i < members.length; i++) {
      const { policy, authenticator } = members[i] as (typeof members)[number];
      const outcome = authenticator.authenticate(c);
      if (outcome instanceof Promise) return outcome.then((settled) => take(c, i, policy, settled, admitted));
      if ("step" in outcome) return outcome;
      const refused = accept(policy, outcome, admitted);
      if (refused) return refusing(c, i, refused, admitted);
    }
    return unite(c, admitted);
  };

  const take = (c: GatewayContext, i: number, policy: PolicyName, outcome: Authentication, admitted: Admitted[]) => {
    if ("step" in outcome) return outcome;
    const refused = accept(policy, outcome, admitted);
    return refused ? refusing(c, i, refused, admitted) : ask(c, i + 1, admitted);
  };

  const refusing = async (
    c: GatewayContext,
    position: number,
    { absent, ...refusal }: Refusal,
    admitted: readonly Admitted[],
  ): Promise<Refusal> => {
    if (!absent || admitted.length > 0) return refusal;
    for (const { authenticator } of members.slice(position + 1)) {
      const outcome = await authenticator.authenticate(c);
      if (!("refused" in outcome) || !outcome.absent) return refusal;
    }
    return { absent, ...refusal };
  };

  return { authenticate: (c) => ask(c, 0, []), ...(withhold && { withhold }) };
};

export const run: PolicyRun<AllOfConfig> = authenticating("allOf", authenticator);

/** Adds an admission to the others; the refusal, if it is one. */
function accept(policy: PolicyName, outcome: Admission | Refusal, admitted: Admitted[]): Refusal | undefined {
  if ("refused" in outcome) return outcome;
  admitted.push({ policy, admission: outcome });
  return undefined;
}

// What admissionOf writes by itself, and what only the last member may say.
const OF_CALLER = /^x-consumer-(?:name|groups|plan|scopes|subject)$/;

function together(admitted: readonly Admitted[]): Admission {
  const facts = { by: admitted.map(({ policy }) => policy) };
  const callers = admitted.flatMap(({ admission }) => admission.caller ?? []);
  const last = callers.at(-1);
  const headers = admitted.flatMap(({ admission }) => admission.headers.filter(([name]) => !OF_CALLER.test(name)));
  if (!last) return { headers, facts };
  const subject = admitted
    .findLast(({ admission }) => admission.caller === last)
    ?.admission.headers.filter(([name]) => name === "x-consumer-subject");
  const named: Partial<Caller> = callers.findLast(({ consumer }) => consumer !== undefined) ?? {};
  const { consumer, groups, metadata, plan } = named;
  const caller: Caller = {
    ...last,
    ...(consumer !== undefined && { consumer }),
    ...(groups && { groups }),
    ...(metadata && { metadata }),
    ...(plan !== undefined && { plan }),
  };
  return admissionOf(caller, [...headers, ...(subject ?? [])], facts);
}
