/**
 * In what a list of policies holds back less than another one: policies that are gone or only report, limits that are higher, lists
 * that are longer. Where two configurations cannot be compared, the change itself is told, since it may be a weakening.
 */
import type { AuthorizeConfig } from "../policies/authorize.ts";
import type { ConcurrencyConfig } from "../policies/concurrency.ts";
import type { MemberPolicy } from "../policies/contract.ts";
import type { CorsConfig } from "../policies/cors.ts";
import type { FilterConfig } from "../policies/filter.ts";
import type { IpFilterConfig } from "../policies/ip-filter.ts";
import { authenticates } from "../policies/order.ts";
import type { RateLimitConfig } from "../policies/rate-limit.ts";
import type { ScopesConfig } from "../policies/scopes.ts";
import type { SecurityHeadersConfig } from "../policies/security-headers.ts";
import type { WafConfig } from "../policies/waf.ts";
import type { PolicyName, TablePolicy } from "../table/table.ts";
import { firstAddress, passing, without } from "./address-set.ts";
import { admitsNobody, authenticatorOf, enforced, membersOf } from "./callers.ts";
import { weakerCaps, weakerLimits } from "./weaker-limits.ts";
import { type ConfigRules, weakerMembers } from "./weaker-members.ts";

export interface Weakening {
  readonly policy: PolicyName;
  /** As a phrase: `no longer asks for the scope admin`. */
  readonly message: string;
}

/** Policies that hold requests back, or answers. The others make them known, or change what is forwarded. */
const HOLDING: readonly PolicyName[] = [
  "securityHeaders",
  "ipFilter",
  "penaltyBox",
  "scopes",
  "authorize",
  "rateLimit",
  "concurrency",
  "filter",
  "waf",
  "middleware",
];

/** What `now` lets through, or tells, that `before` did not. */
export function weakenings(before: readonly TablePolicy[], now: readonly TablePolicy[]): Weakening[] {
  const found: Weakening[] = [];
  const tell = (policy: PolicyName, ...messages: readonly string[]) =>
    found.push(...messages.map((message) => ({ policy, message })));
  for (const policy of HOLDING) {
    const [old, held] = [enforced(before, policy), enforced(now, policy)];
    if (old.length === 0 || same(old, held)) continue;
    if (held.length === 0) {
      const reports = now.some((one) => one.policy === policy);
      tell(policy, reports ? `${policy} only reports` : `${policy} is gone`);
    } else tell(policy, ...(COMPARED[policy]?.(configs(old), configs(held)) ?? []));
  }
  tellAuthenticator(tell, authenticatorOf(before), authenticatorOf(now), now.some(goesByConsumer));
  const cors = configs(now.filter(({ policy }) => policy === "cors")) as CorsConfig[];
  tell("cors", ...weakerCors(configs(before.filter(({ policy }) => policy === "cors")) as CorsConfig[], cors));
  return found;
}

/** Whether it holds one consumer back less than others. */
function goesByConsumer({ policy, config }: TablePolicy): boolean {
  if (policy === "authorize") return (config as AuthorizeConfig).asksCaller;
  if (policy !== "rateLimit" && policy !== "concurrency") return false;
  const { consumers, plans = {} } = config as RateLimitConfig | ConcurrencyConfig;
  return Object.keys(consumers).length + Object.keys(plans).length > 0;
}

type Tell = (policy: PolicyName, ...messages: readonly string[]) => void;

const configs = (policies: readonly TablePolicy[]): unknown[] => policies.map(({ config }) => config);
const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);

function tellAuthenticator(
  tell: Tell,
  old: TablePolicy | undefined,
  now: TablePolicy | undefined,
  consumersMatter: boolean,
): void {
  if (old?.mode !== "enforce" || same(old, now)) return;
  if (!now) return void tell(old.policy, `${old.policy} is gone: nothing says who is calling`);
  if (now.mode !== "enforce") return void tell(now.policy, `${now.policy} only reports`);
  if (admitsNobody(old) === "refuses" && admitsNobody(now) !== "refuses") {
    const how = admitsNobody(now) === "admits" ? "get through" : `are left to the service that ${now.policy} asks`;
    tell(now.policy, `requests without a credential ${how}`);
  }
  const [leaves, fresh] = [leavesOf(old), leavesOf(now)];
  // All of them are asked for, and those from before are among them.
  const adds = now.policy === "allOf" && leaves.every(({ policy }) => fresh.some((one) => one.policy === policy));
  for (const one of adds ? [] : fresh)
    if (!leaves.some(({ policy }) => policy === one.policy)) tell(now.policy, `accepts ${one.policy} now`);
  if (old.policy === "allOf") {
    for (const one of leaves)
      if (!fresh.some(({ policy }) => policy === one.policy)) tell(now.policy, `no longer asks for ${one.policy}, too`);
    if (now.policy === "anyOf") tell(now.policy, "one credential is enough where all were needed");
  }
  for (const one of fresh) {
    const before = leaves.find(({ policy }) => policy === one.policy);
    if (before && !same(before.config, one.config))
      tell(
        one.policy,
        ...weakerMembers(one.policy, before.config, one.config, AUTHENTICATORS[one.policy]),
        ...moreForCallers(one.policy, before.config, one.config, consumersMatter),
      );
  }
}

const leavesOf = (member: MemberPolicy): MemberPolicy[] =>
  member.policy === "anyOf" || member.policy === "allOf" ? membersOf(member).flatMap(leavesOf) : [member];

/** Whom an authenticating policy knows, as far as that is told by name. */
interface Callers {
  readonly users?: Readonly<Record<string, NamedCaller>>;
  readonly keys?: unknown;
  readonly consumers?: readonly { readonly name: string }[];
  readonly requireConsumer?: boolean;
}

interface NamedCaller {
  readonly scopes: readonly string[];
  readonly consumer?: string;
}

/** Of users of basic and keys of hmac more scopes, another consumer or secret; where consumers matter, more of them or others. */
function moreForCallers(policy: PolicyName, before: unknown, now: unknown, consumersMatter: boolean): string[] {
  const [old, fresh] = [before, now] as [Callers, Callers];
  if (policy !== "basic" && policy !== "hmac") {
    if (policy === "apiKey" || !(consumersMatter || (old.requireConsumer && fresh.requireConsumer))) return [];
    const added = (fresh.consumers ?? []).filter((one) => !old.consumers?.some((known) => same(known, one)));
    // By name alone where a service tells them.
    const names = added.map((one) => one.name ?? one);
    return names.length > 0 ? [`${policy} has more consumers: ${names.join(", ")}`] : [];
  }
  const named = ({ users, keys }: Callers) => (users ?? keys) as NonNullable<Callers["users"]>;
  return Object.entries(named(fresh)).flatMap(([name, { scopes, consumer, ...secrets }]) => {
    const known = named(old)[name];
    if (!known) return [];
    const { scopes: had, consumer: was, ...secretsBefore } = known;
    const added = scopes.filter((scope) => !had.includes(scope));
    return [
      ...(added.length > 0 ? [`${policy} gives ${name} more scopes: ${added.join(", ")}`] : []),
      ...(consumer !== was
        ? [`${policy} takes ${name} for ${consumer ?? "no consumer"} instead of ${was ?? "none"}`]
        : []),
      ...(same(secrets, secretsBefore) ? [] : [`${policy} knows ${name} by another secret, which may be a weaker one`]),
    ];
  });
}

const CLAIMS: ConfigRules = { issuer: "fewer", requireConsumer: "on", groupsFrom: "same-or-none" };
const TOKEN: ConfigRules = {
  ...CLAIMS,
  audience: "fewer-or-any",
  keys: "same",
  algorithms: "fewer",
  typ: "same",
  requiredClaims: "more",
  leeway: "lower",
  maxLifetime: "lower-or-none",
  tokenFrom: "fewer",
};
const AUTHENTICATORS: Partial<Record<PolicyName, ConfigRules>> = {
  jwt: TOKEN,
  oidc: TOKEN,
  introspection: {
    ...CLAIMS,
    issuer: "fewer-or-any",
    audience: "fewer-or-any",
    endpoint: "same",
    tokenFrom: "fewer",
    maxAge: "lower",
  },
  oidcLogin: {
    issuer: "same",
    clientId: "same",
    requireConsumer: "on",
    groupsFrom: "same-or-none",
    lifetime: "lower",
  },
  apiKey: { prefix: "same", consumers: "fewer-or-any", keyFrom: "fewer", maxAge: "lower", grace: "lower" },
  basic: { users: "fewer-names", store: "off", maxAge: "lower" },
  clientCertificate: { certificates: "fewer", anyVerified: "off" },
  hmac: {
    keys: "fewer-names",
    components: "more",
    digest: "on",
    nonce: "on",
    tag: "same-or-any",
    maxAge: "lower",
    leeway: "lower",
  },
  forwardAuth: { url: "same", consumerFrom: "same-or-none", scopesFrom: "same-or-none" },
};

const PENALTY: ConfigRules = {
  failures: "lower",
  window: "higher",
  block: "higher",
  maxBlock: "higher",
  memory: "higher",
  count: "more",
  credentials: "more",
  exempt: "fewer",
};

type Compare = (old: readonly unknown[], now: readonly unknown[]) => string[];

const COMPARED: Partial<Record<PolicyName, Compare>> = {
  scopes: (old, now) => weakerScopes(old as ScopesConfig[], now as ScopesConfig[]),
  ipFilter: (old, now) => weakerAddresses(old as IpFilterConfig[], now as IpFilterConfig[]),
  authorize: (old, now) => weakerRules(old as AuthorizeConfig[], now as AuthorizeConfig[]),
  rateLimit: (old, now) => weakerLimits(old as RateLimitConfig[], now as RateLimitConfig[]),
  concurrency: (old, now) => weakerCaps(old as ConcurrencyConfig[], now as ConcurrencyConfig[]),
  penaltyBox: ([old], [now]) => weakerMembers("penaltyBox", old, now, PENALTY),
  filter: ([old], [now]) => weakerFilter(old as FilterConfig, now as FilterConfig),
  waf: ([old], [now]) => weakerWaf(old as WafConfig, now as WafConfig),
  securityHeaders: ([old], [now]) => weakerHeaders(old as SecurityHeadersConfig, now as SecurityHeadersConfig),
  middleware: (old, now) =>
    now.length < old.length ? ["some of its middleware is gone"] : ["its middleware is another"],
};

function weakerScopes(old: readonly ScopesConfig[], now: readonly ScopesConfig[]): string[] {
  const asked = (scope: string) =>
    now.some(({ all, any }) => all.includes(scope) || (any.length === 1 && any[0] === scope));
  const dropped = [...new Set(old.flatMap(({ all }) => all))].filter((scope) => !asked(scope));
  const anyDropped = old.filter(
    ({ any }) =>
      any.length > 0 &&
      !any.some(asked) &&
      !now.some((one) => one.any.length > 0 && one.any.every((scope) => any.includes(scope))),
  );
  return [
    ...dropped.map((scope) => `no longer asks for the scope ${scope}`),
    ...anyDropped.map(({ any }) => `no longer asks for one of the scopes ${any.join(", ")}`),
  ];
}

function weakerAddresses(old: readonly IpFilterConfig[], now: readonly IpFilterConfig[]): string[] {
  const beyond = firstAddress(without(passing(now), passing(old)));
  return beyond === undefined ? [] : [`lets addresses through that it refused, such as ${beyond}`];
}

function weakerRules(old: readonly AuthorizeConfig[], now: readonly AuthorizeConfig[]): string[] {
  const changes: string[] = [];
  const named = (list: readonly AuthorizeConfig[], effect: "allow" | "deny") =>
    new Map(list.flatMap((one) => one[effect].map(({ name, condition }) => [name, JSON.stringify(condition)])));
  const [allowed, allows] = [named(old, "allow"), named(now, "allow")];
  for (const [name, condition] of allows)
    if (allowed.get(name) !== condition)
      changes.push(`${allowed.has(name) ? "allows otherwise" : "also allows"}: "${name}"`);
  const [denied, denies] = [named(old, "deny"), named(now, "deny")];
  for (const [name, condition] of denied)
    if (denies.get(name) !== condition)
      changes.push(`${denies.has(name) ? "denies otherwise" : "no longer denies"}: "${name}"`);
  if (now.length < old.length) changes.push("has fewer authorize policies, each of which had to agree");
  return changes;
}

const FILTER: ConfigRules = {
  threshold: "lower",
  methods: "fewer",
  maxHeaders: "lower",
  maxHeaderBytes: "lower",
  maxQueryBytes: "lower",
};

function weakerFilter(old: FilterConfig, now: FilterConfig): string[] {
  const changes = weakerMembers("filter", old, now, FILTER);
  for (const [rule, targets] of Object.entries(now.exclude)) {
    const before = old.exclude[rule];
    if (before === true || same(before, targets)) continue;
    if (targets === true) changes.push(`excludes the rule ${rule}`);
    else {
      const fresh = targets.filter((target) => !before?.includes(target));
      if (fresh.length > 0) changes.push(`excludes ${fresh.join(", ")} from the rule ${rule}`);
    }
  }
  if (old.body && !now.body) changes.push("no longer looks at bodies");
  else if (old.body && now.body) {
    if (now.body.inspect < old.body.inspect)
      changes.push(`looks at ${now.body.inspect} bytes of a body instead of ${old.body.inspect}`);
    if (old.body.tooLarge === "refuse" && now.body.tooLarge === "pass") changes.push("lets longer bodies pass unseen");
    if (!same(old.body.types, now.body.types)) changes.push("looks at bodies of other types");
  }
  return changes;
}

function weakerWaf(old: WafConfig, now: WafConfig): string[] {
  const changes = weakerMembers("waf", old, now, { exclusions: "fewer", pack: "same" });
  if (now.sample < old.sample) changes.push(`looks at ${now.sample} of 100 requests instead of ${old.sample}`);
  if (old.response !== undefined && now.response === undefined) changes.push("no longer looks at answers");
  if (old.body && !now.body) changes.push("no longer looks at bodies");
  if (old.body && now.body) {
    // Absent is the rules' own limit.
    if (
      !same(old.body.inspect, now.body.inspect) &&
      !((now.body.inspect ?? 0) > (old.body.inspect ?? Number.POSITIVE_INFINITY))
    )
      changes.push("looks at another length of bodies, which may be less");
    if (old.body.tooLarge === "refuse" && now.body.tooLarge === "pass") changes.push("lets longer bodies pass unseen");
    if (!same(old.body.kinds, now.body.kinds)) changes.push("looks at bodies of other kinds");
  }
  return changes;
}

function weakerHeaders(old: SecurityHeadersConfig, now: SecurityHeadersConfig): string[] {
  return old.edits
    .filter((edit) => !now.edits.some((one) => same(one, edit)))
    .map(({ action, name, value }) => {
      const other = now.edits.find((one) => one.name === name && one.action === action);
      return `${other ? `sets ${name} to ${other.value}, no longer to ${value}` : `no longer ${action}s ${name}`}`;
    });
}

function weakerCors([old]: readonly CorsConfig[], [now]: readonly CorsConfig[]): string[] {
  if (!now || same(old, now)) return [];
  const fresh = now.origins.filter((origin) => !old?.origins.includes(origin));
  const lists = (["methods", "headers", "expose"] as const).filter((name) => {
    const [before, after] = [old?.[name], now[name]];
    if (!old || same(before, after)) return false;
    // Without a list of methods or headers, those that the browser asks for are allowed.
    return after === undefined
      ? name !== "expose"
      : !before
        ? name === "expose"
        : after.some((one) => !before.includes(one));
  });
  return [
    ...fresh.map((origin) => `lets scripts of ${origin} read its answers`),
    ...(now.credentials && old && !old.credentials ? ["lets scripts send cookies along"] : []),
    ...lists.map((name) => `allows more ${name === "expose" ? "response headers" : name} to scripts`),
  ];
}

/** For tests: a policy that nobody compares would be weakened without a word. */
export const isCompared = (policy: PolicyName): boolean =>
  policy in COMPARED ||
  policy in AUTHENTICATORS ||
  (authenticates(policy) && policy !== "anonymous") ||
  policy === "cors";
