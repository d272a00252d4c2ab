/** What a policy goes by, in words: its configuration as far as it matters for the one request, and what the request brings. */
import type { AssumedCaller } from "../offline/callers.ts";
import type { PolicyStep } from "../offline/gateway.ts";
import type { Caller, DecisionRecord } from "../policies/contract.ts";
import type { CredentialPlace } from "../policies/credential-place.ts";
import type { MembersConfig } from "../policies/members.ts";
import { authenticates } from "../policies/order.ts";
import type { PolicyName } from "../table/table.ts";

export interface Situation {
  readonly header: (name: string) => string | null;
  readonly method: string;
  readonly client: string;
  readonly caller: Caller | undefined;
  readonly as: AssumedCaller | undefined;
}

/** Short phrases, the most telling first. */
export function inputsOf(step: PolicyStep, situation: Situation): string[] {
  const config = step.config as Record<string, unknown>;
  const { caller, client, header } = situation;
  switch (step.policy) {
    case "requestId":
      return [`${config.header}: ${config.accept ? "the client's, or else " : ""}a new one`];
    case "cors":
      return [header("origin") === null ? "no Origin" : `Origin ${header("origin")}`, `allows ${list(config.origins)}`];
    case "ipFilter":
      return [
        `client ${client || "unknown"}`,
        ...(config.allow ? [`allows ${list(config.allow)}`] : []),
        ...(config.deny ? [`denies ${list(config.deny)}`] : []),
      ];
    case "penaltyBox":
      return [`blocks after ${config.failures} failures in ${duration(config.window)}`, "nobody is blocked here"];
    case "scopes":
      return [scopesWanted(config), caller ? `caller has ${list(caller.scopes) || "none"}` : "nobody is known"];
    case "authorize":
      return [`${(config.deny as unknown[]).length} rules deny, ${(config.allow as unknown[]).length} allow`];
    case "rateLimit":
      return limitInputs(step, config, caller);
    case "concurrency":
      return [`${ownLimit(config, caller) ?? config.limit} at a time`, ...keysOf(step.limits)];
    case "filter":
      return [`refuses from a score of ${config.threshold}`, ...(config.body ? [] : ["does not look at the body"])];
    case "waf":
      return [
        `rules ${config.pack}`,
        ...(config.sample === 100 ? [] : [`looks at ${config.sample} of a hundred requests`]),
        ...(config.body ? [] : ["does not look at the body"]),
      ];
    case "middleware":
      return [`${config.name}`];
    case "securityHeaders":
    case "headers":
    case "upstreamToken":
      return [];
    default:
      return !authenticates(step.policy) ? [] : credentialInputs(step.policy, config, situation);
  }
}

function credentialInputs(
  policy: PolicyName,
  config: Record<string, unknown>,
  { as, caller, header }: Situation,
): string[] {
  if (policy === "anonymous") return [`everybody is ${config.consumer}`];
  if (as)
    return [
      `assumes ${as.consumer ?? as.subject ?? "somebody"}${caller && !as.consumer ? ` (${caller.subject})` : ""}`,
    ];
  const members = (config as unknown as Partial<MembersConfig>).members;
  if (members) return [`${policy === "anyOf" ? "one of" : "all of"} ${members.map((one) => one.policy).join(", ")}`];
  const issuer = config.issuer === undefined ? [] : [`issuer ${[config.issuer].flat().map(named).join(" or ")}`];
  const places = (config.tokenFrom ?? config.keyFrom) as readonly CredentialPlace[] | undefined;
  const names = (places ?? []).map((place) => ("header" in place ? place.header : Object.entries(place)[0]?.join(" ")));
  const carried = (places ?? []).some((place) => "header" in place && header(place.header) !== null);
  // Whether a query or a cookie carries it is the policy's to say.
  const there = carried
    ? "is there"
    : names.length > 0 && places?.every((place) => "header" in place)
      ? "is not there"
      : "";
  return [...(names.length > 0 ? [`${names.join(" or ")} ${there}`.trim()] : []), ...issuer];
}

function limitInputs(
  { limits, verdicts }: PolicyStep,
  config: Record<string, unknown>,
  caller: Caller | undefined,
): string[] {
  const own = (config.consumers as Record<string, Window> | undefined)?.[caller?.consumer ?? ""];
  const plan = (config.plans as Record<string, Window[]> | undefined)?.[caller?.plan ?? ""];
  const windows = own ? [own] : (plan ?? (config.limits as Window[]));
  const whose = own ? ` for ${caller?.consumer}` : plan ? ` on the plan ${caller?.plan}` : "";
  const failed = verdicts.some(({ facts }) => facts?.store === "failed");
  return [
    windows.map(({ quota, window }) => `${quota} per ${duration(window)}`).join(", ") + whose,
    ...limits.map(({ remaining }, i) => `${remaining} of ${windows[i]?.quota ?? "?"} left`),
    ...(config.count === "leased" ? ["leased"] : []),
    ...(failed ? ["store not asked"] : []),
    ...keysOf(limits),
  ];
}

interface Window {
  readonly quota: number;
  readonly window: number;
}

const ownLimit = (config: Record<string, unknown>, caller: Caller | undefined): number | undefined =>
  (config.consumers as Record<string, number> | undefined)?.[caller?.consumer ?? ""] ??
  (config.plans as Record<string, number> | undefined)?.[caller?.plan ?? ""];

const keysOf = (limits: NonNullable<DecisionRecord["limits"]>): string[] => limits.map(({ key }) => `key ${key}`);

function scopesWanted({ all, any }: Record<string, unknown>): string {
  const some = (any as string[]).length > 0 ? `any of ${list(any)}` : "";
  return `wants ${[list(all), some].filter(Boolean).join(" and ")}`;
}

const list = (texts: unknown): string => (texts as readonly string[]).join(", ");

/** A text of the table, or the name of what holds it. */
const named = (value: unknown): string =>
  typeof value === "string" ? value : String(Object.values(value as object)[0]);

/** 90000 as `90s`, 60000 as `1m`. */
export function duration(milliseconds: unknown): string {
  const ms = Number(milliseconds);
  for (const [unit, length] of [
    ["d", 86_400_000],
    ["h", 3_600_000],
    ["m", 60_000],
    ["s", 1_000],
  ] as const)
    if (ms % length === 0) return `${ms / length}${unit}`;
  return `${ms}ms`;
}
