/** What routes refer to: Services, whether they are there, and whether ReferenceGrants let a route refer to them. */
import type { Field } from "./field.ts";
import { GATEWAY_API, type Reference, type Resource } from "./manifests.ts";

/** A port of a Service, which a route sends requests to. */
export interface ServicePort {
  readonly namespace: string;
  readonly service: string;
  readonly port: number;
}

/** `shop/orders:8080`, as endpoints.yaml names it. */
export const nameOf = ({ namespace, service, port }: ServicePort): string => `${namespace}/${service}:${port}`;

export type Resolved = { readonly to: ServicePort } | { readonly missing: string };

export class References {
  readonly #grants: readonly Grant[];
  /** By "namespace/name". */
  readonly #services: ReadonlyMap<string, Resource>;

  constructor(resources: readonly Resource[]) {
    this.#services = new Map(
      resources
        .filter(({ group, kind }) => group === "" && kind === "Service")
        .map((service) => [`${service.namespace}/${service.name}`, service]),
    );
    this.#grants = resources
      .filter(({ group, kind }) => group === GATEWAY_API && kind === "ReferenceGrant")
      .map(grantOf);
  }

  /** Without any Service among the manifests there is no telling which exist; then all do. */
  get knowsServices(): boolean {
    return this.#services.size > 0;
  }

  /**
   * What the backendRef `ref` of `route` leads to, or why nowhere; then the field is refused with the reason. In the order of the
   * specification's reasons: InvalidKind, RefNotPermitted, BackendNotFound. The second goes before the third, so that nobody learns
   * what other namespaces have.
   */
  resolve(ref: Field, route: Resource): Resolved {
    const missing = (reason: string): Resolved => {
      ref.refuse(reason);
      return { missing: reason };
    };
    const group = ref.at("group")?.text() ?? "";
    const kind = ref.at("kind")?.text() ?? "Service";
    const service = ref.required("name")?.text() ?? "";
    const namespace = ref.at("namespace")?.text() ?? route.namespace;
    const port = ref.at("port")?.integer(1, 65_535);
    if (![service, namespace].every((name) => /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/.test(name)))
      return missing(`${JSON.stringify(`${namespace}/${service}`)} is no name of a Service`);
    if (group !== "" || kind !== "Service")
      return missing(`${kind}${group && `.${group}`} is no kind that requests can be sent to`);
    if (namespace !== route.namespace && !this.#permits(route, { group, kind, namespace, name: service }))
      return missing(
        `no ReferenceGrant in ${namespace} lets ${route.kind}s of ${route.namespace} refer to Service ${service}`,
      );
    if (port === undefined) return missing(`the reference to Service ${namespace}/${service} has no port`);
    const found = this.#services.get(`${namespace}/${service}`);
    if (found) {
      const fault = portFault(found, port, ref);
      if (fault) return missing(fault);
    } else if (this.knowsServices) return missing(`Service ${namespace}/${service} does not exist`);
    return { to: { namespace, service, port } };
  }

  #permits(from: Resource, to: Reference): boolean {
    return this.#grants.some(
      (grant) =>
        grant.namespace === to.namespace &&
        grant.from.some(
          ({ group, kind, namespace }) => group === from.group && kind === from.kind && namespace === from.namespace,
        ) &&
        grant.to.some(
          ({ group, kind, name }) => group === to.group && kind === to.kind && (name === undefined || name === to.name),
        ),
    );
  }
}

interface Grant {
  readonly namespace: string;
  readonly from: readonly Omit<Reference, "name">[];
  readonly to: readonly { readonly group: string; readonly kind: string; readonly name: string | undefined }[];
}

function grantOf({ namespace, root }: Resource): Grant {
  const spec = root.required("spec");
  const text = (field: Field, name: string) => field.required(name)?.text() ?? "";
  return {
    namespace,
    from: (spec?.items("from") ?? []).map((from) => ({
      group: text(from, "group"),
      kind: text(from, "kind"),
      namespace: text(from, "namespace"),
    })),
    // An empty name is none (ReferenceGrantTo).
    to: (spec?.items("to") ?? []).map((to) => ({
      group: text(to, "group"),
      kind: text(to, "kind"),
      name: to.at("name")?.text() || undefined,
    })),
  };
}

/** How the gateway speaks to a port is for the ingress behind which the Service is. */
const PROTOCOLS = new Map([
  ["kubernetes.io/ws", undefined],
  ["http", undefined],
  ["kubernetes.io/wss", "the ingress in front of the Service must speak TLS to it"],
  ["https", "the ingress in front of the Service must speak TLS to it"],
  [
    "kubernetes.io/h2c",
    "requests leave as HTTP/1.1 or HTTP/2, as the platform has it; the ingress must speak HTTP/2 to the Service",
  ],
]);

/** Why the Service cannot be reached at `number`. */
function portFault({ root, namespace, name }: Resource, number: number, ref: Field): string | undefined {
  // Not to be supported, since whoever may write Services could reach any host by them (BackendObjectReference.kind, CVE-2021-25740).
  if (root.at("spec")?.at("type")?.text() === "ExternalName")
    return `Service ${namespace}/${name} is an ExternalName, which leads out of the cluster`;
  const ports = (root.at("spec")?.items("ports") ?? []).filter((one) => one.at("port")?.integer(1, 65_535) === number);
  if (ports.length === 0) return `Service ${namespace}/${name} has no port ${number}`;
  const port = ports.find((one) => (one.at("protocol")?.text() ?? "TCP") === "TCP");
  if (!port) return `port ${number} of Service ${namespace}/${name} is not for TCP`;
  const application = port.at("appProtocol");
  const note = PROTOCOLS.get(application?.text() ?? "http");
  if (note) {
    application?.differ(note);
    ref.at("port")?.differ(note);
  }
  return undefined;
}
