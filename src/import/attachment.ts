/** Which routes are attached to which listeners: what the Gateway API calls Accepted (ParentReference, CommonRouteSpec). */
import { commonHost } from "../table/listener.ts";
import type { Field } from "./field.ts";
import { hostnameOf, isRoute, type Listener, listenerSetsOf, listenersOf, parentOf } from "./listeners.ts";
import { byAge, type Resource, sameObject } from "./manifests.ts";
import { Namespaces } from "./namespaces.ts";

export interface AttachedRoute {
  readonly route: Resource;
  /** In the order of the Gateway's listeners. */
  readonly listeners: readonly Listener[];
  /** Those of the route that any of the listeners serves; absent: all that the listeners serve. */
  readonly hostnames: readonly string[] | undefined;
}

export interface Attachment {
  readonly gateway: Resource;
  readonly listeners: readonly Listener[];
  /** In the order in which the Gateway API prefers them. */
  readonly routes: readonly AttachedRoute[];
}

export function attach(gateway: Resource, resources: readonly Resource[]): Attachment {
  const namespaces = new Namespaces(resources);
  const sets = listenerSetsOf(gateway, resources, namespaces);
  const allowed = [...sets].flatMap(([set, isAllowed]) => (isAllowed ? [set] : []));
  const listeners = listenersOf(gateway, allowed, namespaces);
  const routes = resources
    .filter(isRoute)
    .sort(byAge)
    .map((route) => attachRoute(route, gateway, sets, listeners));
  return { gateway, listeners, routes: separateKinds(routes).filter((one) => one.listeners.length > 0) };
}

function attachRoute(
  route: Resource,
  gateway: Resource,
  sets: ReadonlyMap<Resource, boolean>,
  listeners: readonly Listener[],
): AttachedRoute {
  const spec = route.root.required("spec");
  const given = spec?.items("hostnames") ?? [];
  const usable = given.filter((field) => hostnameOf(field) !== undefined);
  const hostnames = given.length > 0 ? usable.map((field) => field.content as string) : undefined;
  const attached = new Set<Listener>();
  const tryAll = (relevant: readonly Listener[]): string[] =>
    relevant.flatMap((listener) => {
      const refusal = refusalOf(listener, route, hostnames);
      if (refusal === undefined) attached.add(listener);
      return refusal ?? [];
    });

  let concerned = false;
  for (const ref of spec?.items("parentRefs") ?? []) {
    const parent = parentOf(ref, route);
    const section = ref.at("sectionName")?.text() || undefined;
    const port = ref.at("port")?.integer(1, 65_535);
    const owner = [gateway, ...sets.keys()].find((one) => sameObject(one, parent));
    if (!owner) {
      ref.ignore(`is for ${parent.kind} ${parent.namespace}/${parent.name}`);
      continue;
    }
    concerned = true;
    const relevant = listeners.filter(
      (one) => one.owner === owner && (section ?? one.section) === one.section && (port ?? one.port) === one.port,
    );
    const refusals = tryAll(relevant);
    if (sets.get(owner) === false) ref.refuse(`${owner.subject} is not attached to the Gateway`);
    else if (relevant.length === 0) ref.refuse(`${owner.subject} has no such listener that can be served`);
    else if (refusals.length === relevant.length) ref.refuse([...new Set(refusals)].join("; "));
  }
  const scope = spec?.at("useDefaultGateways");
  if (scope?.choice("All", "None") === "All" && isDefault(gateway)) {
    concerned = true;
    const refusals = tryAll(listeners.filter(({ owner }) => owner === gateway));
    if (attached.size === 0) scope.refuse([...new Set(refusals)].join("; "));
  }

  if (!concerned) route.root.ignore("is for none of this Gateway's listeners");
  else if (attached.size === 0) route.root.ignore("is attached to no listener");
  return {
    route,
    listeners: listeners.filter((listener) => attached.has(listener)),
    hostnames: hostnames && servedOf(usable, attached),
  };
}

const isDefault = (gateway: Resource): boolean =>
  gateway.root.at("spec")?.at("defaultScope")?.choice("All", "None") === "All";

function servedOf(hostnames: readonly Field[], listeners: ReadonlySet<Listener>): string[] {
  return hostnames.flatMap((field) => {
    const hostname = field.content as string;
    if ([...listeners].some((listener) => intersect(listener.hostname, hostname))) return [hostname];
    field.ignore("none of the route's listeners is for it");
    return [];
  });
}

/** Why the listener does not take the route; undefined: it does. */
function refusalOf(listener: Listener, route: Resource, hostnames: readonly string[] | undefined): string | undefined {
  const { section, kinds, hostname } = listener;
  if (!kinds.includes(route.kind)) return `listener ${section} takes no ${route.kind}`;
  const refusal = listener.allows(route.namespace);
  if (refusal) return `listener ${section}: ${refusal}`;
  if (hostnames && !hostnames.some((one) => intersect(hostname, one)))
    return `listener ${section} is for ${hostname ?? "any host"}, and the route is not`;
  return undefined;
}

/** Whether both stand for a common host. `*.example.com` is every name that ends so, whatever the number of labels. */
export const intersect = (a = "*", b = "*"): boolean => commonHost(a, b) !== undefined;

/**
 * An HTTPRoute and a GRPCRoute with a common host cannot both be attached to a listener: the one that goes first in `routes` stays
 * (GRPCRouteSpec.hostnames).
 */
function separateKinds(routes: readonly AttachedRoute[]): readonly AttachedRoute[] {
  if (new Set(routes.map(({ route }) => route.kind)).size < 2) return routes;
  const kept: AttachedRoute[] = [];
  for (const attached of routes) {
    const { route } = attached;
    const inTheWay = (listener: Listener) =>
      kept.find(
        (one) =>
          one.route.kind !== route.kind && one.listeners.includes(listener) && shareHost(listener, one, attached),
      );
    const listeners = attached.listeners.filter((listener) => !inTheWay(listener));
    kept.push({ ...attached, listeners });
    if (listeners.length === attached.listeners.length) continue;
    const others = new Set(attached.listeners.flatMap((listener) => inTheWay(listener)?.route.subject ?? []));
    const reason = `a host of a listener is for HTTPRoutes or for GRPCRoutes, and ${[...others].join(", ")} goes first`;
    (route.root.at("spec")?.at("parentRefs") ?? route.root).refuse(reason);
    if (listeners.length === 0) route.root.ignore("is attached to no listener");
  }
  return kept;
}

const shareHost = ({ hostname }: Listener, a: AttachedRoute, b: AttachedRoute): boolean =>
  (a.hostnames ?? [undefined]).some((one) =>
    (b.hostnames ?? [undefined]).some(
      (other) => intersect(hostname, one) && intersect(hostname, other) && intersect(one, other),
    ),
  );
