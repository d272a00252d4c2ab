/**
 * The policy lists of a configuration by their place: `*` for the gateway's, `<api>` or `<api>/<route>`. Functions among the entries are named
 * by place and number, `orders/list#0`: that is how the table refers to what JSON cannot hold, and how the Worker, which carries the
 * routes module for this alone, finds it again.
 */
import type { MiddlewareHandler } from "hono";
import type { ApiDeclaration, GatewayDeclaration, PolicyEntry } from "./api.ts";

export interface PolicyList {
  readonly place: string;
  readonly entries: readonly PolicyEntry[];
}

/** No API can be named so. */
export const EVERYWHERE = "*";

export function policyLists(declaration: GatewayDeclaration): PolicyList[] {
  const lists: PolicyList[] = [{ place: EVERYWHERE, entries: declaration.options.policies ?? [] }];
  for (const api of declaration.apis) {
    lists.push({ place: api.name, entries: api.options.policies ?? [] });
    for (const route of api.routes) {
      lists.push({ place: `${api.name}/${route.name}`, entries: route.options.policies ?? [] });
    }
  }
  return lists;
}

/** The function in an entry, if it is one or wraps one. */
export function functionOf(entry: PolicyEntry): MiddlewareHandler | undefined {
  if (typeof entry === "function") return entry;
  if (entry?.kind !== "policy" || entry.policy !== "middleware") return undefined;
  const handler = entry.options?.handler;
  return typeof handler === "function" ? (handler as MiddlewareHandler) : undefined;
}

/** Each entry with its place. Only functions count, since among policies the order of a list means nothing. */
export function placedEntries({ place, entries }: PolicyList): { entry: PolicyEntry; place: string }[] {
  let functions = 0;
  return entries.map((entry) => ({ entry, place: `${place}#${functionOf(entry) ? functions++ : functions}` }));
}

/** All functions by place, for the Worker. `exported` is the routes module's default export. */
export function middlewareByPlace(exported: unknown): Record<string, MiddlewareHandler> {
  const functions: Record<string, MiddlewareHandler> = {};
  for (const { entry, place } of policyLists(gatewayOf(exported)).flatMap(placedEntries)) {
    const handler = functionOf(entry);
    if (handler) functions[place] = handler;
  }
  return functions;
}

/** A routes module may export `gateway(...)`, or for a small one a single `api(...)` or a list of them. */
export function gatewayOf(exported: unknown): GatewayDeclaration {
  const value = exported as { kind?: unknown } | readonly unknown[] | null | undefined;
  if (value && !Array.isArray(value) && (value as { kind?: unknown }).kind === "gateway")
    return value as GatewayDeclaration;
  const apis = (Array.isArray(value) ? value : [value]) as readonly ApiDeclaration[];
  return { kind: "gateway", options: {}, apis, declaredAt: apis[0]?.declaredAt ?? {} };
}
