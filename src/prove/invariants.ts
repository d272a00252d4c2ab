/** Invariants, proved over all routes: for each that may break one, a request that it answers, or that there is none. */
import type { InvariantDeclaration, RequiredPolicy, Selection } from "../config/invariant.ts";
import type { PolicyDeclaration } from "../config/policy.ts";
import type { IpFilterConfig } from "../policies/ip-filter.ts";
import { authenticates, policyOrder } from "../policies/order.ts";
import type { ScopesConfig } from "../policies/scopes.ts";
import type { WafConfig } from "../policies/waf.ts";
import { parseRange } from "../table/cidr.ts";
import { normalisePath } from "../table/path.ts";
import type { PolicyName, RouteTable, TablePolicy, TableRoute } from "../table/table.ts";
import { firstAddress, passing, without } from "./address-set.ts";
import type { TableRequests } from "./answers.ts";
import { enforced, named, nobodyPasses, policiesOf, proves } from "./callers.ts";
import { DOUBTS } from "./doubt.ts";
import type { Finding } from "./finding.ts";
import { type Box, type RequestSet, shownRequest } from "./request-set.ts";
import { type Step, unwatched } from "./step.ts";

/** A finding about an invariant; without a route it is about the invariant itself. */
export interface InvariantFinding extends Finding {
  readonly invariant: InvariantDeclaration;
}

/** `place` tells where an invariant was declared, as messages name it. */
export function checkInvariants(
  space: TableRequests,
  invariants: readonly InvariantDeclaration[],
  place: (invariant: InvariantDeclaration) => string | undefined,
  step: Step = unwatched,
): InvariantFinding[] {
  return invariants.flatMap((invariant, number) => {
    step("proving invariants", number, invariants.length);
    const mistaken = mistakeIn(space.table, invariant);
    if (mistaken) return [{ kind: "invariant", severity: "error", invariant, ...mistaken } as const];
    const where = place(invariant);
    const named = `${spelled(invariant)}${where ? ` (${where})` : ""}`;
    return broken(space, invariant, named);
  });
}

function broken(space: TableRequests, invariant: InvariantDeclaration, named: string): InvariantFinding[] {
  const region = regionOf(invariant.selection);
  const findings: InvariantFinding[] = [];
  let selects = false;
  for (const [position, route] of space.table.routes.entries()) {
    if (!mayMean(space.table, invariant.selection, route)) continue;
    const wrong = wrongWith(invariant, policiesOf(space.table, route));
    // Of the routes for which it holds one is enough, to know that the invariant is about something.
    if (!wrong && selects) continue;
    const answer = space.answer(position, region);
    if (answer.kind === "never") continue;
    selects = true;
    if (!wrong) continue;
    const example = answer.kind === "answers" ? answer.example : undefined;
    const requests =
      answer.kind === "answers"
        ? shownRequest(answer.example)
        : `requests that could not be told, since ${DOUBTS[answer.because].because}`;
    findings.push({
      kind: "invariant",
      severity: "error",
      invariant,
      route: route.id,
      message: `breaks ${named}: it ${wrong.message}, as for ${requests}`,
      fix: wrong.fix,
      ...(example && { example }),
    });
  }
  if (!selects) {
    const message = "is about no route: nothing answers such requests";
    const fix = "correct what it selects, or take it out";
    findings.push({ kind: "invariant", severity: "warning", invariant, message, fix });
  }
  return findings;
}

/** The requests that it is about; undefined: all. */
function regionOf({ under = [], hosts = [], methods }: Selection): RequestSet | undefined {
  if (under.length + hosts.length === 0 && !methods) return undefined;
  const boxes: Box[] = [
    ...under.map((path): Box => ({ path: { kind: "prefix", value: path.replace(/\/\*$|\/$/, "") || "/" } })),
    ...hosts.map((host): Box => ({ host })),
    ...(methods ? [{ methods }] : []),
  ];
  return [{ all: boxes, none: [] }];
}

/** What the request has nothing to say about. */
function mayMean(table: RouteTable, { apis, reaches = [], except = [] }: Selection, route: TableRoute): boolean {
  if (except.includes(route.id) || (apis && !apis.includes(route.api))) return false;
  if (reaches.length === 0) return true;
  const names = backendsOf(table, route).map((position) => table.backends[position]?.name ?? "");
  return reaches.every((wanted) => names.some((name) => isBackend(wanted, name)));
}

/** `wanted` as in `reaches`: a cluster, a service of any, both, or "" for any. */
export const isBackend = (wanted: string, name: string): boolean => {
  const [cluster, service] = name.split("/");
  return wanted === "" || wanted === name || wanted === cluster || wanted === service;
};

/** Everybody whom a request or a copy of it may be sent to. */
export function backendsOf(table: RouteTable, { action, mirrors = [] }: TableRoute): number[] {
  const arms = action.kind === "split" ? action.arms.map((arm) => arm.action) : [action];
  const asked = arms.flatMap((arm) =>
    arm.kind === "forward"
      ? arm.backends
      : arm.kind === "pool"
        ? (table.pools[arm.pool]?.levels ?? []).flatMap(({ backends }) => backends)
        : [],
  );
  const copies = [...mirrors, ...asked.flatMap((position) => table.backends[position]?.mirrors ?? [])];
  return [...new Set([...asked, ...(asked.length > 0 ? copies.map(({ backend }) => backend) : [])])];
}

interface Wrong {
  readonly message: string;
  readonly fix: string;
}

function wrongWith({ claim, policies }: InvariantDeclaration, own: readonly TablePolicy[]): Wrong | undefined {
  if (claim === "denies") {
    const why = nobodyPasses(own);
    return why === undefined
      ? undefined
      : {
          message: `${why}, so that a request without a credential gets through`,
          fix: "add jwt({ ... }) or another such policy, or except the route",
        };
  }
  for (const wanted of policies) {
    if (claim === "with") {
      const name = nameOf(wanted) as PolicyName;
      // One of several that anyOf takes is had, too.
      if (own.some((one) => one.policy === name || named(one).includes(name)))
        return { message: `has ${name}`, fix: `take ${name} off with without("${name}"), or except the route` };
      continue;
    }
    const lacking = lacks(own, wanted);
    if (lacking)
      return { message: lacking, fix: `add ${spelledPolicy(wanted)} to the route or its API, or except the route` };
  }
  return undefined;
}

/** Why requests get through `own` without having passed `wanted`. */
function lacks(own: readonly TablePolicy[], wanted: RequiredPolicy): string | undefined {
  const name = nameOf(wanted) as PolicyName;
  const there = own.filter(({ policy }) => policy === name);
  const reporting = there.length > 0 && there.every(({ mode }) => mode === "report");
  if (reporting) return `has ${name} in report mode`;
  if (authenticates(name)) {
    if (own.some((one) => one.mode === "enforce" && proves(one, name))) return undefined;
    const optional = own.some(({ policy }) => policy === name);
    return optional ? `lets requests through that show nothing to ${name}` : `lets requests through without ${name}`;
  }
  const held = enforced(own, name);
  if (held.length === 0) return `has no ${name}`;
  if (name === "waf") {
    const sample = Math.max(...held.map(({ config }) => (config as WafConfig).sample));
    if (sample < 100) return `has a waf that looks at ${sample} of 100 requests`;
  }
  if (typeof wanted === "function") return undefined;
  const options = wanted.options as { all?: readonly string[]; any?: readonly string[] } & IpFilterConfig;
  if (name === "scopes") {
    const asked = held.map(({ config }) => config as ScopesConfig);
    const missing = options.all?.find(
      (scope) => !asked.some(({ all, any }) => all.includes(scope) || isOnly(any, scope)),
    );
    if (missing !== undefined) return `does not ask for the scope ${missing}`;
    const { any } = options;
    const within = asked.some((one) => one.all.some((s) => any?.includes(s)) || isWithin(one.any, any ?? []));
    return any && !within ? `asks for none of the scopes ${any.join(", ")}` : undefined;
  }
  const beyond = firstAddress(without(passing(held.map(({ config }) => config as IpFilterConfig)), passing([options])));
  return beyond === undefined
    ? undefined
    : `lets the address ${beyond} through, which ${spelledPolicy(wanted)} does not`;
}

const isOnly = (list: readonly string[], one: string): boolean => list.length === 1 && list[0] === one;
const isWithin = (list: readonly string[], all: readonly string[]): boolean =>
  list.length > 0 && list.every((one) => all.includes(one));

/** What cannot be meant by it. */
function mistakeIn(table: RouteTable, { selection, claim, policies }: InvariantDeclaration): Wrong | undefined {
  for (const path of selection.under ?? [])
    if (!/^\/[^*?#]*(?:\/\*)?$/.test(path))
      return { message: `is about "${path}", which is no path`, fix: 'write "/admin"' };
  for (const path of selection.under ?? []) {
    const normal = normalIn(table, path);
    if (normal !== path)
      return {
        message: `is about "${path}", which no request has as its path`,
        fix: normal === undefined ? "write a path that the gateway accepts" : `write "${normal}", as requests are read`,
      };
  }
  for (const host of selection.hosts ?? [])
    if (!/^(?:\*\.)?(?:\[[0-9a-f:.]+\]|[^A-Z:/*\s]+)$|^\*$/.test(host))
      return {
        message: `is about "${host}", which is no host`,
        fix: 'write "api.example.com" or "*.example.com", in lower case and without a port',
      };
  for (const method of selection.methods ?? [])
    if (method !== method.toUpperCase())
      return { message: `is about "${method}", which is no method`, fix: `write "${method.toUpperCase()}"` };
  const ids = new Set(table.routes.map(({ id }) => id));
  for (const id of selection.except ?? [])
    if (!ids.has(id))
      return { message: `excepts "${id}", which is no route`, fix: 'write its API and its name: "orders/list"' };
  for (const api of selection.apis ?? [])
    if (!table.routes.some((route) => route.api === api))
      return { message: `is about "${api}", which is no API`, fix: "name an API of the gateway" };
  for (const name of selection.reaches ?? [])
    if (name !== "" && !table.backends.some((one) => isBackend(name, one.name)))
      return {
        message: `is about the backend "${name}", which there is not`,
        fix: `name one of ${table.backends.map((one) => one.name).join(", ")}`,
      };
  if (policies.length === 0) return { message: "names no policy", fix: "name at least one, such as jwt" };
  for (const wanted of policies) {
    const name = nameOf(wanted);
    if (name === undefined)
      return {
        message: "names something that is no policy",
        fix: 'write the builder, such as jwt, or scopes("admin")',
      };
    if (claim === "denies" && name !== "anonymous")
      return { message: `denies ${name}, which is nobody`, fix: "write denies(anonymous)" };
    if (typeof wanted === "function") continue;
    if (claim === "with" || (name !== "scopes" && name !== "ipFilter"))
      return { message: `compares the options of ${name}, which it cannot`, fix: `write ${name} alone` };
    const { allow = [], deny = [] } = wanted.options as IpFilterConfig;
    const range = [...allow, ...deny].find((text) => !parseRange(text));
    if (range !== undefined)
      return {
        message: `has "${range}", which is no address or CIDR range`,
        fix: "write it as 10.0.0.0/8 or 2001:db8::/32",
      };
  }
  return undefined;
}

/** The path as the gateway spells it (table/path.ts), with parameters as they are; undefined: none that could be proposed. */
function normalIn({ gateway: { escapedSlashes } }: RouteTable, path: string): string | undefined {
  const plain = path.replace(/\*$/, "").replace(/\/\{[^/{}]*\}(?=\/|$)/g, "/x");
  const normal = normalisePath(plain, { escapedSlashes });
  if (normal.refused === undefined && normal.path === plain) return path;
  return normal.refused !== undefined || path.includes("{") ? undefined : normal.path;
}

const names = new Set<unknown>(policyOrder.map(({ policy }) => policy));

/** Undefined: it is no policy. Builders only put down what they are given, so what one builds of nothing says whose it is. */
export function nameOf(wanted: RequiredPolicy): PolicyName | undefined {
  let declared: { readonly policy?: PolicyName } | undefined;
  try {
    declared = typeof wanted === "function" ? (wanted as (options: unknown) => PolicyDeclaration)({}) : wanted;
  } catch {
    return undefined;
  }
  return names.has(declared?.policy) ? declared?.policy : undefined;
}

/** As it is written. */
export function spelled({ quantifier, selection, claim, policies }: InvariantDeclaration): string {
  const { under = [], hosts = [], methods, apis, reaches = [], except = [] } = selection;
  const call = (name: string, texts: readonly string[]) =>
    `.${name}(${texts.map((text) => JSON.stringify(text)).join(", ")})`;
  return [
    `${quantifier}(route)`,
    ...under.map((path) => call("under", [path])),
    ...hosts.map((host) => call("on", [host])),
    ...(methods ? [call("taking", methods)] : []),
    ...(apis ? [call("of", apis)] : []),
    ...reaches.map((name) => (name === "" ? ".reaches()" : `.reaches(backend(${JSON.stringify(name)}))`)),
    ...(except.length > 0 ? [call("except", except)] : []),
    `.${claim}(${policies.map(spelledPolicy).join(", ")})`,
  ].join("");
}

function spelledPolicy(wanted: RequiredPolicy): string {
  const name = nameOf(wanted) ?? "?";
  if (typeof wanted === "function") return name;
  const { all, any, ...rest } = wanted.options as { all?: readonly string[]; any?: readonly string[] };
  if (all && !any && name === "scopes") return `scopes(${all.map((scope) => JSON.stringify(scope)).join(", ")})`;
  return `${name}(${JSON.stringify({ ...(all && { all }), ...(any && { any }), ...rest })})`;
}
