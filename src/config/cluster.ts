import type { Timeouts } from "../table/table.ts";
import { type Declaration, declaredAt } from "./declaration.ts";
import type { BindingReference, EnvReference, SecretReference } from "./values.ts";

export interface ClusterOptions {
  /**
   * Where the cluster's ingress is reached: `env("EU_INGRESS")`, whose value is a public https URL, or `binding("EU_VPC")`, a VPC
   * service or a service binding. Plain http is for loopback addresses only.
   */
  readonly ingress: EnvReference | BindingReference;
  /** The mTLS certificate binding with which a public ingress is asked. */
  readonly certificate?: BindingReference;
  /** Cloudflare's location hint for where it stands: `wnam`, `enam`, `sam`, `weur`, `eeur`, `apac`, `oc`, `afr`, `me`. In records. */
  readonly region?: string;
  /**
   * The Host that the ingress sees. Default: through a binding the one that the client asked for; at a public URL that URL's own,
   * since `fetch` sends no other. The client's is always in X-Forwarded-Host.
   */
  readonly host?: string;
  /** How `cluster.service(name)` is told apart at the ingress; `{service}` stands for the name. */
  readonly services?: {
    /** A host name of its own, which must resolve to the ingress: `{service}.eu.example.com`. */
    readonly host?: string;
    /** A path in front of the request's: `/{service}`. */
    readonly path?: string;
  };
  /** Scheme of the URL handed to a binding. Default: `https`. */
  readonly scheme?: "http" | "https";
  /** Whether requests carry the gateway's assertion, where the gateway has one. Default: true. */
  readonly assertion?: boolean;
}

export interface ClusterDeclaration extends Declaration {
  readonly kind: "cluster";
  readonly name: string;
  readonly options: ClusterOptions;
}

export interface Endpoint {
  readonly cluster: ClusterDeclaration;
  readonly service?: string;
  /** Replace what the cluster's `services` say, for this one. */
  readonly host?: string;
  readonly path?: string;
}

export interface ServiceOptions {
  /** Share in a split, relative to the other arms'. */
  readonly weight?: number;
  readonly host?: string;
  readonly path?: string;
}

/** One or more endpoints that serve the same: the first is asked, the next ones when it fails. */
export interface Backend {
  readonly kind: "backend";
  readonly endpoints: readonly Endpoint[];
  readonly share?: number;
  /** When this one fails, ask `other`. */
  or(other: Backend): Backend;
  /** This backend's share in a split, relative to the other arms': 95 and 5, or 19 and 1. */
  weight(share: number): Backend;
}

export interface Cluster extends Backend {
  readonly declaration: ClusterDeclaration;
  /** One service behind the cluster's ingress. */
  service(name: string, options?: ServiceOptions): Backend;
}

/** A Kubernetes cluster, by its ingress endpoint. As a backend it is the ingress itself, which routes by its own rules. */
export function cluster(name: string, options: ClusterOptions): Cluster {
  const declaration: ClusterDeclaration = { kind: "cluster", name, options, declaredAt: declaredAt(cluster) };
  return {
    ...backend([{ cluster: declaration }]),
    declaration,
    service: (service, { weight, ...address } = {}) => backend([{ cluster: declaration, service, ...address }], weight),
  };
}

function backend(endpoints: readonly Endpoint[], share?: number): Backend {
  return {
    kind: "backend",
    endpoints,
    ...(share !== undefined && { share }),
    or: (other) => backend([...endpoints, ...other.endpoints], share),
    weight: (newShare) => backend(endpoints, newShare),
  };
}

export interface SplitOptions {
  /**
   * What keeps a caller on one arm. `subject`: the token's subject; `client`: address and User-Agent; `{ cookie }`: a cookie that
   * the gateway sets, on both arms; `{ header }`: a request header. A request without it falls back to `client`. Default: `subject`.
   */
  readonly sticky?:
    | "subject"
    | "client"
    | { readonly cookie: string; readonly maxAge?: number }
    | { readonly header: string };
  /**
   * Lets who knows the secret choose: the header or cookie holds `<arm>:<secret>`. It is taken out before the request is forwarded.
   */
  readonly override?: { readonly header?: string; readonly cookie?: string; readonly secret: SecretReference };
  /** Keeps two splits independent of each other. Default: the route's id, so that a caller's luck differs from route to route. */
  readonly salt?: string;
}

export interface Split extends Declaration {
  readonly kind: "split";
  readonly arms: Readonly<Record<string, Backend>>;
  readonly options: SplitOptions;
}

/** Divides callers over backends by weight: `split({ stable: a.weight(95), canary: b.weight(5) })`. */
export function split(arms: Readonly<Record<string, Backend>>, options: SplitOptions = {}): Split {
  return { kind: "split", arms, options, declaredAt: declaredAt(split) };
}

export interface RedirectOptions {
  /** 301 and 302 let clients turn POST into GET; 308 and 307 keep the method (RFC 9110, 15.4). Default: 302. */
  readonly status?: 301 | 302 | 303 | 307 | 308;
  readonly scheme?: "http" | "https";
  /** Must be a host that some API declares, so that no redirect leads elsewhere. */
  readonly host?: string;
  readonly port?: number;
  /** `prefix` replaces what the route's path prefix matched, `full` the whole path. The query is kept. */
  readonly path?: { readonly prefix: string } | { readonly full: string };
}

export interface Redirect extends Declaration {
  readonly kind: "redirect";
  readonly options: RedirectOptions;
}

export function redirect(options: RedirectOptions): Redirect {
  return { kind: "redirect", options, declaredAt: declaredAt(redirect) };
}

export type Target = Backend | Split | Redirect;
export type { Timeouts };
