/** The listeners of a Gateway and of the ListenerSets that are attached to it (GEP-1713). */
import type { Problems } from "../build/problem.ts";
import type { Field } from "./field.ts";
import { byAge, GATEWAY_API, type Reference, type Resource, sameObject } from "./manifests.ts";
import { Names, nameFrom } from "./names.ts";
import type { NamespaceRule, Namespaces } from "./namespaces.ts";

export interface Listener {
  /** Unique among all listeners: its own name, in front of which stands the ListenerSet's where that is needed. */
  readonly name: string;
  readonly section: string;
  /** The Gateway or ListenerSet that has it. */
  readonly owner: Resource;
  readonly port: number;
  readonly protocol: "http" | "https";
  /** Absent: any. */
  readonly hostname: string | undefined;
  readonly allows: NamespaceRule;
  /** Kinds of routes that it takes. */
  readonly kinds: readonly string[];
}

type ObjectKind = Pick<Reference, "group" | "kind">;

const ROUTES = ["HTTPRoute", "GRPCRoute"];

export const isGateway = ({ group, kind }: ObjectKind): boolean => group === GATEWAY_API && kind === "Gateway";
export const isRoute = ({ group, kind }: ObjectKind): boolean => group === GATEWAY_API && ROUTES.includes(kind);
export const isListenerSet = ({ group, kind }: ObjectKind): boolean =>
  (group === GATEWAY_API && kind === "ListenerSet") ||
  (group === "gateway.networking.x-k8s.io" && kind === "XListenerSet");

/** The Gateway `wanted` ("namespace/name"), or the only one. Undefined after a problem. */
export function chooseGateway(
  resources: readonly Resource[],
  wanted: string | undefined,
  problems: Problems,
): Resource | undefined {
  const gateways = resources.filter(isGateway);
  const named = gateways.find(({ namespace, name }) => `${namespace}/${name}` === wanted);
  const found = named ?? (wanted === undefined && gateways.length === 1 ? gateways[0] : undefined);
  if (found) return found;
  const has = wanted !== undefined ? `no Gateway ${wanted}` : gateways.length > 1 ? "several Gateways" : "no Gateway";
  const choices = gateways.map(({ namespace, name }) => `--gateway ${namespace}/${name}`).sort();
  const fix = choices.length > 0 ? `choose one: ${choices.join(", ")}` : "give the file that has one as well";
  problems.add(undefined, "manifests", `have ${has}`, fix);
  return undefined;
}

/** What a parentRef of `from` refers to. */
export const parentOf = (ref: Field, from: Resource): Reference => ({
  group: ref.at("group")?.text() ?? GATEWAY_API,
  kind: ref.at("kind")?.text() ?? "Gateway",
  namespace: ref.at("namespace")?.text() ?? from.namespace,
  name: ref.required("name")?.text() ?? "",
});

/** ListenerSets whose parent is `gateway`, in the order of precedence, and whether it lets them in. */
export function listenerSetsOf(
  gateway: Resource,
  resources: readonly Resource[],
  namespaces: Namespaces,
): ReadonlyMap<Resource, boolean> {
  const allowed = gateway.root.at("spec")?.at("allowedListeners")?.at("namespaces");
  const allows = namespaces.rule(allowed, "None", gateway.namespace);
  const sets = new Map<Resource, boolean>();
  for (const set of resources.filter(isListenerSet).sort(byAge)) {
    const ref = set.root.required("spec")?.required("parentRef");
    if (!ref) continue;
    const parent = parentOf(ref, set);
    if (!sameObject(parent, gateway)) {
      set.root.ignore(`is for ${parent.kind} ${parent.namespace}/${parent.name}`);
      continue;
    }
    const refusal = allows(set.namespace);
    if (refusal) {
      set.root.ignore("is not attached");
      ref.refuse(`the Gateway's allowedListeners do not let it in: ${refusal}`);
    }
    sets.set(set, refusal === undefined);
  }
  return sets;
}

interface Candidate extends Listener {
  readonly field: Field;
}

/** All listeners of `gateway` and `sets` that can be served, in the order of precedence (ListenerSetSpec.listeners). */
export function listenersOf(gateway: Resource, sets: readonly Resource[], namespaces: Namespaces): Listener[] {
  const candidatesOf = (owner: Resource) => {
    const fields = owner.root.required("spec")?.items("listeners") ?? [];
    const candidates = fields.flatMap((field) => candidateOf(field, owner, gateway, namespaces));
    return candidates.filter((one, at) => {
      const isFirst = candidates.findIndex(({ section }) => section === one.section) === at;
      if (!isFirst) one.field.refuse(`has the name of another listener, ${one.section}`);
      return isFirst;
    });
  };
  const own = candidatesOf(gateway);
  // Of a Gateway's own that are not distinct none may be picked (GatewaySpec.listeners). After that the first stays (GEP-1713).
  const accepted = own.filter((one) => !conflicts(one, own));
  for (const candidate of sets.flatMap(candidatesOf)) if (!conflicts(candidate, accepted)) accepted.push(candidate);
  return withUniqueNames(accepted);
}

/** Whether `one` cannot be told apart from another of `others`; then it is refused. */
function conflicts(one: Candidate, others: readonly Candidate[]): boolean {
  for (const other of others) {
    if (other === one || other.port !== one.port) continue;
    const reason =
      other.protocol !== one.protocol
        ? `port ${one.port} cannot be for both http and https`
        : other.hostname === one.hostname && `both are for ${one.hostname ?? "any host"} on port ${one.port}`;
    if (!reason) continue;
    one.field.refuse(`conflicts with listener ${other.section} of ${other.owner.subject}: ${reason}`);
    return true;
  }
  return false;
}

/** `listeners` begin with the Gateway's own, which keep their names. */
function withUniqueNames(listeners: readonly Listener[]): Listener[] {
  const names = new Names();
  return listeners.map((listener) => {
    const { section, owner } = listener;
    const alone = isGateway(owner) || listeners.every((one) => one === listener || one.section !== section);
    const choices = [`${owner.name}.${section}`, `${owner.namespace}.${owner.name}.${section}`];
    return { ...listener, name: names.take(...[...(alone ? [section] : []), ...choices].map(nameFrom)) };
  });
}

// Hostname of the Gateway API (apis/v1/shared_types.go), with labels of at most 63 characters (RFC 1035, 2.3.4).
const HOSTNAME =
  /^(?=.{1,253}$)(?:\*\.)?(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

/** The host name in `field`; undefined, and refused, for another text. */
export function hostnameOf(field: Field): string | undefined {
  const text = field.text();
  if (text === undefined || HOSTNAME.test(text)) return text;
  field.refuse("is no host name such as api.example.com or *.example.com, in lower case");
  return undefined;
}

/** A listener at which HTTP requests come in; of another none, refused with the reason. */
function candidateOf(field: Field, owner: Resource, gateway: Resource, namespaces: Namespaces): Candidate[] {
  const section = field.required("name")?.text();
  const port = field.required("port")?.integer(1, 65_535);
  const protocol = field.required("protocol")?.text();
  // An empty one is none.
  const host = field.at("hostname");
  const hostname = host?.text() ? hostnameOf(host) : undefined;
  const tls = field.at("tls");
  const mode = tls?.at("mode")?.text() || "Terminate";
  for (const ref of tls?.items("certificateRefs") ?? []) {
    for (const name of ["group", "kind", "namespace", "name"]) ref.at(name)?.text();
    ref.differ("certificates are the platform's: those of the Cloudflare zone, not of a Secret");
  }
  tls?.at("options")?.refuse("how TLS is spoken is set for the Cloudflare zone");
  const allowed = field.at("allowedRoutes");
  const allows = namespaces.rule(allowed?.at("namespaces"), "Same", owner.namespace);
  const kinds = kindsIn(allowed);
  if (section === undefined || port === undefined || protocol === undefined) return [];
  const fault =
    protocol !== "HTTP" && protocol !== "HTTPS"
      ? `speaks ${protocol}: a Worker gets HTTP requests alone`
      : protocol === "HTTPS" && mode !== "Terminate"
        ? `has TLS mode ${mode}: a Worker gets requests, not TLS`
        : protocol === "HTTPS" && asksForCertificates(gateway, port)
          ? "lets in only clients with a certificate, which is not checked here: use mTLS of the Cloudflare zone"
          : host?.verdict?.kind === "refused" && "has no usable hostname";
  if (fault) {
    field.refuse(fault);
    return [];
  }
  const scheme = protocol === "HTTP" ? "http" : "https";
  return [{ name: section, section, owner, port, protocol: scheme, hostname, allows, kinds, field }];
}

function kindsIn(allowed: Field | undefined): readonly string[] {
  const listed = allowed?.items("kinds") ?? [];
  const kinds = listed.flatMap((field) => {
    const group = field.at("group")?.text() ?? GATEWAY_API;
    const kind = field.required("kind")?.text() ?? "";
    if (isRoute({ group, kind })) return [kind];
    field.refuse(`${kind} is no kind of route that a Worker can serve`);
    return [];
  });
  return listed.length > 0 ? kinds : ROUTES;
}

/** Whether clients without a valid certificate are turned away at the port (FrontendTLSConfig). */
function asksForCertificates(gateway: Resource, port: number): boolean {
  const frontend = gateway.root.at("spec")?.at("tls")?.at("frontend");
  const own = frontend?.items("perPort").find((one) => one.at("port")?.integer(1, 65_535) === port);
  const validation = (own ? own.at("tls") : frontend?.at("default"))?.at("validation");
  return validation !== undefined && validation.at("mode")?.text() !== "AllowInsecureFallback";
}
