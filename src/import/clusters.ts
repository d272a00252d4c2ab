/** clusters.ts of the module: one cluster per ingress, and each Service that a route names behind it. */
import { type Code, type Constant, call, constant, method, properties, type Statement } from "./code.ts";
import type { Address, Endpoints } from "./endpoints.ts";
import { type Identifiers, Names, nameFrom } from "./names.ts";
import { nameOf, type ServicePort } from "./references.ts";

export const CLUSTERS_FILE = "clusters.ts";

interface Backend {
  readonly service: ServicePort;
  readonly address: Address;
  readonly constant: Constant;
  /** All that it stands for: ports of one Service may be reached alike. */
  readonly ports: ServicePort[];
}

interface Cluster {
  readonly ingress: Address["ingress"];
  /** By Service and address. */
  readonly backends: Map<string, Backend>;
}

export class Clusters {
  readonly #endpoints: Endpoints;
  readonly #clusters = new Map<string, Cluster>();
  readonly #unmapped = new Map<string, ServicePort>();

  constructor(endpoints: Endpoints) {
    this.#endpoints = endpoints;
  }

  /** The constant for a Service's port. It has its name once `statements` has been called. */
  backend(service: ServicePort): Constant {
    const address = this.#endpoints.find(service);
    if (!address) {
      this.#unmapped.set(nameOf(service), service);
      return constant(`./${CLUSTERS_FILE}`);
    }
    const { ingress, host, path } = address;
    const reach = JSON.stringify(ingress);
    const cluster: Cluster = this.#clusters.get(reach) ?? { ingress, backends: new Map() };
    this.#clusters.set(reach, cluster);
    // What nothing tells apart at the ingress is the ingress itself.
    const key = host || path ? JSON.stringify([service.namespace, service.service, host, path]) : "";
    const backend = cluster.backends.get(key) ?? {
      service,
      address,
      constant: constant(`./${CLUSTERS_FILE}`),
      ports: [],
    };
    cluster.backends.set(key, backend);
    if (!backend.ports.some((known) => nameOf(known) === nameOf(service))) backend.ports.push(service);
    return backend.constant;
  }

  /** What is to be known when the Service's requests get another Host; undefined: that is all that happens. */
  hostNote(service: ServicePort): string | undefined {
    const address = this.#endpoints.find(service);
    if (address?.host) return `takes the place of ${address.host}, by which the ingress tells the Service apart`;
    if (!address || "binding" in address.ingress) return undefined;
    return "at a URL it is the host that requests are sent to as well, so it must lead to the ingress; behind a binding it is Host alone";
  }

  /** Services that nothing says how to reach. */
  get unmapped(): readonly ServicePort[] {
    return [...this.#unmapped.values()];
  }

  get count(): number {
    return this.#clusters.size;
  }

  /** Groups of Services, or of ports of one, that their ingress gets the same requests for. */
  get alike(): readonly (readonly ServicePort[])[] {
    const groups = [...this.#clusters.values()].flatMap(({ backends }) =>
      [...backends.values()].map(({ ports }) => ports),
    );
    return groups.filter((ports) => ports.length > 1);
  }

  /** Whether any is reached at a public URL, whose host is then the Host that the ingress sees. */
  get hasUrl(): boolean {
    return [...this.#clusters.values()].some(({ ingress }) => !("binding" in ingress));
  }

  statements(identifiers: Identifiers): Statement[] {
    const names = new Names();
    const clusters = [...this.#clusters.values()].sort((a, b) => (reachOf(a) < reachOf(b) ? -1 : 1));
    const variables = new Names();
    return clusters.flatMap((cluster) => clusterStatements(cluster, names, variables, identifiers));
  }
}

const byName = (a: ServicePort, b: ServicePort): number => {
  const [left, right] = [a, b].map(({ namespace, service, port }) =>
    [namespace, service, String(port).padStart(5)].join(" "),
  );
  return (left as string) < (right as string) ? -1 : 1;
};

const reachOf = ({ ingress }: Cluster): string => Object.values(ingress)[0] as string;

function clusterStatements(cluster: Cluster, names: Names, variables: Names, identifiers: Identifiers): Statement[] {
  const { ingress } = cluster;
  const backends = [...cluster.backends.values()].sort((a, b) => byName(a.service, b.service));
  const whole = cluster.backends.get("");
  const name = names.take(...clusterNames(cluster, whole).map(nameFrom));
  const self = whole?.constant ?? constant(`./${CLUSTERS_FILE}`);
  self.identifier = identifiers.take(name, "Cluster");
  const behind = backends.filter((backend) => backend !== whole);
  const template = commonTemplate(behind);
  const value = call(
    "cluster",
    name,
    properties({ ingress: ingressCode(ingress, name, variables), services: template && properties(template) }),
  );
  const comment = whole && [`${listed(whole.ports)}.`];
  const taken = new Names();
  const services = behind.map((backend): Statement => {
    const { service, address, ports } = backend;
    const service_ = taken.take(...(template ? [service.service] : serviceNames(service, behind)));
    backend.constant.identifier = identifiers.take(service_, "Service");
    const { host, path } = address;
    const own = template ? [] : [properties({ host, path })];
    return {
      comment: [`${listed(ports)}.`],
      exports: backend.constant,
      value: method(self, "service", service_, ...own),
    };
  });
  return [{ ...(comment && { comment }), exports: self, value }, ...services];
}

/** What the operator calls it; else the one Service that it is there for, the binding, or the URL's host. The first that is free counts. */
function clusterNames({ ingress, backends }: Cluster, whole: Backend | undefined): string[] {
  const given = [...backends.values()].find(({ address }) => address.cluster)?.address.cluster;
  if (given) return [given];
  if (whole && backends.size === 1 && whole.ports.length === 1) {
    const { namespace, service, port } = whole.service;
    return [service, `${service}-${port}`, `${namespace}-${service}`, `${namespace}-${service}-${port}`];
  }
  if ("variable" in ingress) return ["kubernetes"];
  return "binding" in ingress
    ? [ingress.binding.toLowerCase().replaceAll("_", "-")]
    : [(URL.parse(ingress.url)?.host ?? "ingress").replaceAll(/[.:[\]]+/g, "-")];
}

/** An address that the operator may still change: the module runs without the variable, and heeds it. */
function ingressCode(ingress: Address["ingress"], name: string, variables: Names): Code {
  if ("binding" in ingress) return call("binding", ingress.binding);
  if ("variable" in ingress) return call("env", ingress.variable);
  const upper = name
    .toUpperCase()
    .replaceAll(/[^A-Z0-9]+/g, "_")
    .replace(/^(?=[0-9])/, "_");
  return call(
    "env",
    variables.take(upper.includes("INGRESS") ? upper : `${upper}_INGRESS`).replaceAll("-", "_"),
    ingress.url,
  );
}

/** By which all of them are told apart, if that says everything about each. */
function commonTemplate(backends: readonly Backend[]): Record<string, string> | undefined {
  const [first, ...others] = backends.map(({ address }) => JSON.stringify(address.template));
  const template = backends[0]?.address.template;
  const distinct = new Set(backends.map(({ service }) => service.service)).size === backends.length;
  const tells = Object.values(template ?? {}).some((text) => text.includes("{service}"));
  if (!template || !distinct || !tells || others.some((other) => other !== first)) return undefined;
  return { ...template };
}

/** The Service's name, as far as needed with its namespace and port. Kubernetes' names are at most 63 characters long. */
function serviceNames({ namespace, service, port }: ServicePort, all: readonly Backend[]): string[] {
  const others = all.filter((other) => other.service.service === service);
  const spaces = new Set(others.map((other) => other.service.namespace));
  const full = spaces.size > 1 ? `${namespace}-${service}` : service;
  const ports = others.filter((other) => other.service.namespace === namespace).length > 1;
  return [nameFrom(ports ? `${full}-${port}` : full)];
}

function listed(ports: readonly ServicePort[]): string {
  const names = ports.map(nameOf).sort();
  return `Service${names.length > 1 ? "s" : ""} ${names.slice(0, 6).join(", ")}${names.length > 6 ? " and others" : ""}`;
}
