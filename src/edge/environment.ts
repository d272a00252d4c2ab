/** What stands behind the table's references: variables, secrets and bindings of this deployment. */
import { type HeaderEdit, NotConfigured } from "../policies/contract.ts";
import type { Reference, TableCluster, TableHeaderChange } from "../table/table.ts";

type Bindings = Readonly<Record<string, unknown>>;

export function textOf(reference: Reference, env: unknown): string {
  const name = nameOf(reference);
  const value = (env as Bindings | undefined)?.[name];
  if (typeof value === "string" && value !== "") return value;
  if ("env" in reference && reference.otherwise !== undefined) return reference.otherwise;
  throw new NotConfigured(`the Worker's environment has no text ${name}`);
}

/** The changes with their values. */
export const headerEdits = (changes: readonly TableHeaderChange[] | undefined, env: unknown): readonly HeaderEdit[] =>
  changes?.map(({ action, name, value = "" }) => ({
    action,
    name,
    value: typeof value === "string" ? value : textOf(value, env),
  })) ?? NONE;

const NONE: readonly HeaderEdit[] = [];

export interface Ingress {
  /** `https://host:port`; undefined for a binding that is asked with the client's own host. */
  readonly origin?: string;
  /** Put before every path; no trailing slash. */
  readonly path: string;
  readonly fetch: typeof fetch;
  /** The cluster may ask for a certificate of the gateway's: through a binding, or at a public ingress with one. */
  readonly certificate: boolean;
  /** Where a TCP connection can be tried; bindings have no such place. */
  readonly probe?: { readonly hostname: string; readonly port: number };
}

/** How a cluster is reached. `ingresses` keeps what was parsed, by the variable's value, since a value never changes in place. */
export function ingressOf(cluster: TableCluster, env: unknown, ingresses: Map<string, Ingress>): Ingress {
  if ("binding" in cluster.ingress) {
    const fetcher = fetcherOf(cluster.ingress, env);
    return {
      path: "",
      certificate: cluster.scheme === "https",
      fetch: (input, init) => fetcher.fetch(input as string, init as RequestInit),
    };
  }
  const text = textOf(cluster.ingress, env);
  const key = `${cluster.name}\n${text}`;
  const known = ingresses.get(key);
  if (known && !cluster.certificate) return known;
  const ingress = known ?? parseIngress(text, nameOf(cluster.ingress));
  ingresses.set(key, ingress);
  if (!cluster.certificate) return ingress;
  const fetcher = fetcherOf(cluster.certificate, env);
  return { ...ingress, certificate: true, fetch: (input, init) => fetcher.fetch(input as string, init as RequestInit) };
}

function parseIngress(text: string, name: string): Ingress {
  const url = URL.parse(text);
  if (!url || (url.protocol !== "https:" && url.protocol !== "http:") || url.username || url.search || url.hash) {
    throw new NotConfigured(`${name} must be a URL of the form https://host[:port][/path]`);
  }
  const port = url.port === "" ? (url.protocol === "https:" ? 443 : 80) : Number(url.port);
  return {
    origin: url.origin,
    path: url.pathname.replace(/\/$/, ""),
    certificate: false,
    fetch: (input, init) => fetch(input, init),
    probe: { hostname: url.hostname, port },
  };
}

function fetcherOf(reference: Reference, env: unknown): { fetch: typeof fetch } {
  const binding = (env as Bindings | undefined)?.[nameOf(reference)] as { fetch?: unknown } | undefined;
  if (typeof binding?.fetch !== "function")
    throw new NotConfigured(`the Worker's environment has no binding ${nameOf(reference)}`);
  return binding as { fetch: typeof fetch };
}

const nameOf = (reference: Reference): string =>
  "env" in reference ? reference.env : "secret" in reference ? reference.secret : reference.binding;
