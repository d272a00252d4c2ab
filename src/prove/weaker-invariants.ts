/**
 * Which invariants of before are no longer asked for. One is still asked for where another says the same of at least the same routes;
 * so each is taken apart into the least that it says, of one API, one method and one policy, and each part must be within one of now.
 */
import type { InvariantDeclaration, RequiredPolicy, Selection } from "../config/invariant.ts";
import type { PolicyDeclaration } from "../config/policy.ts";
import type { IpFilterConfig } from "../policies/ip-filter.ts";
import { commonHost } from "../table/listener.ts";
import { isParameter, segmentsOf } from "../table/match.ts";
import type { RouteTable } from "../table/table.ts";
import { passing, without } from "./address-set.ts";
import { isBackend, nameOf, spelled } from "./invariants.ts";

/** As phrases. What was said of an API or a backend that `table` has no more is no loss. */
export function lostInvariants(
  before: readonly InvariantDeclaration[],
  now: readonly InvariantDeclaration[],
  table: RouteTable,
): string[] {
  return before.flatMap((invariant) => {
    const parts = partsOf(invariant).filter(({ selection }) => isThere(selection, table));
    const lost = parts.filter((part) => !now.some((one) => implies(one, part)));
    if (lost.length === 0) return [];
    const whole = spelled(invariant);
    return lost.length === parts.length
      ? [`nothing asks for ${whole} any more`]
      : lost.map((part) => `nothing asks any more for ${spelled(part)}, as ${whole} did`);
  });
}

function isThere({ apis, reaches = [] }: Selection, { routes, backends }: RouteTable): boolean {
  return (
    (apis?.every((api) => routes.some((route) => route.api === api)) ?? true) &&
    reaches.every((wanted) => backends.some(({ name }) => isBackend(wanted, name)))
  );
}

function partsOf(invariant: InvariantDeclaration): InvariantDeclaration[] {
  const { selection } = invariant;
  const { apis, methods } = selection;
  const selections = (apis?.map((api) => [api]) ?? [undefined]).flatMap((api) =>
    (methods?.map((method) => [method]) ?? [undefined]).map(
      (method): Selection => ({ ...selection, ...(api && { apis: api }), ...(method && { methods: method }) }),
    ),
  );
  return selections.flatMap((one) =>
    invariant.policies
      .flatMap(leastOf)
      .map((policy): InvariantDeclaration => ({ ...invariant, selection: one, policies: [policy] })),
  );
}

/** Several scopes ask for each of them. */
function leastOf(policy: RequiredPolicy): RequiredPolicy[] {
  const all = nameOf(policy) === "scopes" && typeof policy !== "function" ? scopesOf(policy).all : [];
  if (all.length === 0) return [policy];
  const { any } = scopesOf(policy as PolicyDeclaration);
  const asking = (options: Readonly<Record<string, unknown>>) => ({ ...(policy as PolicyDeclaration), options });
  return [...all.map((scope) => asking({ all: [scope] })), ...(any.length > 0 ? [asking({ any })] : [])];
}

const scopesOf = ({ options }: PolicyDeclaration) => {
  const { all = [], any = [] } = options as { all?: readonly string[]; any?: readonly string[] };
  return { all, any };
};

/** Whether `one` says at least what `part` does, which names one policy. */
function implies(one: InvariantDeclaration, part: InvariantDeclaration): boolean {
  return (
    CLAIMS[one.claim] === CLAIMS[part.claim] &&
    isWithin(part.selection, one.selection) &&
    one.policies.some((policy) => asksAtLeast(policy, part.policies[0] as RequiredPolicy))
  );
}

/** `without(jwt)` of no route is `requires(jwt)` of every one. */
const CLAIMS = { requires: "requires", without: "requires", with: "with", denies: "denies" } as const;

function asksAtLeast(policy: RequiredPolicy, least: RequiredPolicy): boolean {
  if (nameOf(policy) !== nameOf(least)) return false;
  if (typeof least === "function") return true;
  if (typeof policy === "function") return false;
  if (nameOf(policy) === "ipFilter")
    return (
      without(passing([policy.options as IpFilterConfig]), passing([least.options as IpFilterConfig])).length === 0
    );
  const [asked, wanted] = [scopesOf(policy), scopesOf(least)];
  return wanted.all.length > 0
    ? wanted.all.every((scope) => asked.all.includes(scope))
    : asked.all.some((scope) => wanted.any.includes(scope)) ||
        (asked.any.length > 0 && asked.any.every((scope) => wanted.any.includes(scope)));
}

/** Whether `wide` means all routes and requests that `narrow` does. */
function isWithin(narrow: Selection, wide: Selection): boolean {
  const among = (own: readonly string[] | undefined, all: readonly string[] | undefined) =>
    all === undefined || (own?.every((one) => all.includes(one)) ?? false);
  return (
    among(narrow.apis, wide.apis) &&
    among(narrow.methods, wide.methods) &&
    among(wide.except ?? [], narrow.except ?? []) &&
    (wide.under ?? []).every((path) => narrow.under?.some((one) => isBelow(one, path))) &&
    (wide.hosts ?? []).every((host) => narrow.hosts?.some((one) => commonHost(one, host) === one)) &&
    (wide.reaches ?? []).every((name) => narrow.reaches?.some((one) => one === name || isBackend(name, one)))
  );
}

/** Whether every request below `path` is one below `above`. */
function isBelow(path: string, above: string): boolean {
  const [own, wanted] = [path, above].map((one) => segmentsOf(one.replace(/\/\*$|\/$/, ""))) as [string[], string[]];
  return (
    wanted.length <= own.length && wanted.every((segment, i) => isParameter(segment) || segment === (own[i] as string))
  );
}
