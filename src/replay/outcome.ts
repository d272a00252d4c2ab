/** What a table does with a logged request once its route is known, as far as the log lets anybody tell. */
import type { PolicyVerdict } from "../policies/contract.ts";
import { authenticates } from "../policies/order.ts";
import type { RateLimitConfig } from "../policies/rate-limit.ts";
import { inRange, parseAddress, parseRange, subscriberOf } from "../table/cidr.ts";
import { chooseArm } from "../table/split.ts";
import type { ArmAction, PolicyName, RouteTable, SplitAction, TablePolicy, TableRoute } from "../table/table.ts";
import { Counting } from "./counting.ts";
import type { LoggedRequest } from "./logged.ts";

export interface Outcome {
  /** `pass`, `deny CODE`, or `up to jwt, scopes`: which the log says nothing of. */
  readonly verdict: string;
  /** The limits that count the request: `5 per 60s by consumer`; "": none does. */
  readonly limits: string;
  /** Units that all of them together let through in an hour; Infinity: none is there. */
  readonly hourly: number;
  /** The arm, or each with its share where the log does not tell who draws; "": no split. */
  readonly arm: string;
  /** Whom the request goes to. */
  readonly target: string;
}

/** By a policy of this configuration, what became of the request; both tables may have it. */
export type Evidence = ReadonlyMap<string, PolicyVerdict>;

// Of the others nothing but headers depends, or what only the moment tells: who else is there, who is blocked.
const SILENT = new Set<PolicyName>([
  "requestId",
  "securityHeaders",
  "cors",
  "headers",
  "upstreamToken",
  "penaltyBox",
  "concurrency",
]);

interface Prepared {
  readonly policy: PolicyName;
  readonly config: unknown;
  readonly enforced: boolean;
  /** The same for the same policy with the same configuration, in any table. */
  readonly key: string;
  readonly decide?: (request: LoggedRequest) => PolicyVerdict | undefined;
}

/** One table, and the counts of its limits. */
export class Outcomes {
  readonly #table: RouteTable;
  readonly #counting = new Counting();
  readonly #policies = new Map<number, Prepared>();
  readonly #targets = new Map<ArmAction, string>();

  constructor(table: RouteTable) {
    this.#table = table;
  }

  /** What the record says, by the policies of the route that it is about. */
  evidence(route: TableRoute, { record }: LoggedRequest): Evidence {
    const known = new Map<string, PolicyVerdict>();
    if (record?.route !== route.id || record.table !== this.#table.id) return known;
    let at = 0;
    for (const position of route.policies) {
      const { policy, key } = this.#prepared(position);
      const said = record.policies[at];
      if (said?.policy !== policy && !(policy === "middleware" && said?.policy.startsWith("middleware:"))) continue;
      at++;
      known.set(key, said);
    }
    return known;
  }

  of(route: TableRoute, request: LoggedRequest, evidence: Evidence): Outcome {
    const open: string[] = [];
    const limits: string[] = [];
    let hourly = Number.POSITIVE_INFINITY;
    let denied: string | undefined;
    for (const position of route.policies) {
      const prepared = this.#prepared(position);
      const { policy, key, enforced } = prepared;
      if (SILENT.has(policy)) continue;
      if (policy === "rateLimit") {
        const config = prepared.config as RateLimitConfig;
        const group = limitsFor(config, request, this.#table);
        for (const limit of group) {
          const only = enforced ? "" : ", reported only";
          limits.push(`${limit.quota} per ${limit.window / 1_000}s by ${config.per.map(keyText).join("+")}${only}`);
          if (enforced) hourly = Math.min(hourly, (limit.quota * 3_600_000) / limit.window);
        }
        if (denied !== undefined || !enforced) continue;
        const place = config.shared === undefined ? `${route.id} ${position}` : `shared ${config.shared}`;
        if (this.#counting.admits(config, group, place, request) === false) denied = "deny rate-limited";
        continue;
      }
      if (denied !== undefined || !enforced) continue;
      const said = evidence.get(key) ?? prepared.decide?.(request) ?? bySameCaller(prepared, evidence);
      if (!said) open.push(policy);
      else if (said.verdict === "deny") denied = `deny ${said.reason ?? policy}`;
    }
    const verdict =
      open.length > 0 ? `up to ${open.join(", ")}${denied ? `, then ${denied}` : ""}` : (denied ?? "pass");
    const [arm, action] = this.#arm(route, request);
    return { verdict, limits: limits.join(", "), hourly, arm, target: action ? this.#target(action) : "" };
  }

  /** Whether two routes do the same with every request that is theirs, so that nothing need be decided. */
  signature(route: TableRoute): string {
    const { id, action, rewrite } = route;
    const policies = route.policies.map((position) => {
      const { key, enforced } = this.#prepared(position);
      return `${enforced} ${key}`;
    });
    const arms =
      action.kind === "split" ? action.arms.map((arm) => [arm.name, arm.weight, this.#target(arm.action)]) : [];
    const whole = action.kind === "split" ? { ...action, arms } : this.#target(action);
    return JSON.stringify([id, policies, whole, rewrite]);
  }

  #prepared(position: number): Prepared {
    let prepared = this.#policies.get(position);
    if (!prepared) {
      const { policy, config, mode } = this.#table.policies[position] as TablePolicy;
      const key = `${policy} ${JSON.stringify(config)}`;
      const decide = policy === "ipFilter" ? ipFilter(config as IpLists) : undefined;
      prepared = { policy, config, key, enforced: mode === "enforce", ...(decide && { decide }) };
      this.#policies.set(position, prepared);
    }
    return prepared;
  }

  #arm({ action }: TableRoute, request: LoggedRequest): [name: string, action: ArmAction | undefined] {
    if (action.kind !== "split") return ["", action];
    const { arms } = action;
    const { arm, armBy = "" } = request.record ?? {};
    const recorded = arm === undefined ? undefined : arms.find(({ name }) => name === arm);
    if (recorded && armBy.startsWith("override")) return [recorded.name, recorded.action];
    const key = stickyKey(action, request);
    if (key !== undefined) {
      const chosen = chooseArm(arms, action.salt, key);
      return [chosen.name, chosen.action];
    }
    const total = arms.reduce((sum, { weight }) => sum + weight, 0) || 1;
    const shares = arms.map(({ name, weight }) => `${name} ${Math.round((weight / total) * 1_000) / 10} %`);
    return [shares.join(" or "), undefined];
  }

  #target(action: ArmAction): string {
    let text = this.#targets.get(action);
    if (text === undefined) {
      text = this.#targetText(action);
      this.#targets.set(action, text);
    }
    return text;
  }

  #targetText(action: ArmAction): string {
    const { backends, pools } = this.#table;
    const names = (positions: readonly number[]) =>
      positions.map((position) => backends[position]?.name ?? "").join(", ");
    if (action.kind === "forward") return names(action.backends);
    if (action.kind === "pool")
      return (pools[action.pool]?.levels ?? []).map((level) => names(level.backends)).join(", else ");
    return action.kind === "redirect" ? `redirect ${JSON.stringify({ ...action, kind: undefined })}` : "nobody";
  }
}

type Limits = RateLimitConfig["limits"];

function limitsFor(
  { limits, consumers, plans }: RateLimitConfig,
  { record }: LoggedRequest,
  table: RouteTable,
): Limits {
  const consumer = record?.consumer ?? "";
  const own = Object.hasOwn(consumers, consumer) ? consumers[consumer] : undefined;
  if (own) return [own];
  const plan = Object.hasOwn(table.consumers, consumer) ? table.consumers[consumer]?.plan : undefined;
  return (plan !== undefined && plans?.[plan]) || limits;
}

const keyText = (key: RateLimitConfig["per"][number]): string =>
  typeof key === "string" ? key : (Object.keys(key)[0] ?? "");

interface IpLists {
  readonly allow?: readonly string[];
  readonly deny?: readonly string[];
}

/** As ip-filter.ts has it. */
function ipFilter({ allow, deny }: IpLists): Prepared["decide"] & object {
  const ranges = (texts?: readonly string[]) =>
    texts?.map((text) => parseRange(text)).filter((range) => range !== undefined);
  const [allowed, denied] = [ranges(allow), ranges(deny)];
  const pass: PolicyVerdict = { policy: "ipFilter", verdict: "pass" };
  const refuse: PolicyVerdict = { policy: "ipFilter", verdict: "deny", reason: "address-denied" };
  const known = new Map<string, PolicyVerdict>();
  return ({ client }) => {
    if (client === "") return undefined;
    let verdict = known.get(client);
    if (verdict) return verdict;
    const address = parseAddress(client);
    const within = (list: typeof allowed) =>
      address !== undefined && list?.some((range) => inRange(address, range)) === true;
    verdict = address !== undefined && !within(denied) && (!allowed || within(allowed)) ? pass : refuse;
    if (known.size >= 10_000) known.clear();
    known.set(client, verdict);
    return verdict;
  };
}

interface ScopeLists {
  readonly all: readonly string[];
  readonly any: readonly string[];
}

/** What can be told of a policy by what another one of its kind has found: scopes that the caller is known to have, or to lack. */
function bySameCaller({ policy, config }: Prepared, evidence: Evidence): PolicyVerdict | undefined {
  if (policy !== "scopes") return undefined;
  const { all, any } = config as ScopeLists;
  for (const [key, { verdict, facts }] of evidence) {
    if (!key.startsWith("scopes ")) continue;
    const other = JSON.parse(key.slice("scopes ".length)) as ScopeLists;
    if (verdict === "pass" && any.length === 0 && all.every((scope) => other.all.includes(scope)))
      return { policy, verdict: "pass" };
    const missing = (facts?.missing as readonly string[] | undefined) ?? [];
    if (verdict === "deny" && all.some((scope) => missing.includes(scope)))
      return { policy, verdict: "deny", reason: "scope-missing" };
  }
  return undefined;
}

/** Undefined: who draws is not in the log. */
function stickyKey({ sticky }: SplitAction, { record, client, header, cookie }: LoggedRequest): string | undefined {
  if (sticky.by === "request") return undefined;
  if (sticky.by === "subject") {
    if (record?.subject !== undefined && record.credential) return record.subject;
    if (!record) return undefined;
  }
  const value = sticky.by === "header" ? header(sticky.name) : sticky.by === "cookie" ? cookie(sticky.name) : null;
  if (value) return value;
  // A new cookie is drawn by chance.
  if (value === undefined || sticky.by === "cookie") return undefined;
  const agent = header("user-agent");
  return client === "" || agent === undefined ? undefined : `${subscriberOf(client)}\n${agent ?? ""}`;
}

/** Whether the second of two verdicts lets more requests pass, or asks less of them. */
export function isWeaker(old: string, fresh: string): boolean {
  if (old === fresh || fresh.startsWith("deny")) return false;
  if (old.startsWith("deny")) return fresh === "pass" || !fresh.includes("deny");
  const asked = (verdict: string) => (verdict.startsWith("up to ") ? verdict.slice(6).split(", ") : []);
  const [before, after] = [asked(old), asked(fresh)];
  return before.some(
    (policy) =>
      !after.includes(policy) &&
      !(authenticates(policy as PolicyName) && after.some((one) => authenticates(one as PolicyName))),
  );
}
