import type { Timeouts } from "../table/table.ts";
import { type Declaration, declaredAt } from "./declaration.ts";
import type { HeaderChanges } from "./headers.ts";
import type { BindingReference, EnvReference, SecretReference } from "./values.ts";

export interface ClusterOptions {
  /**
   * Where the cluster's ingress is reached: `env("EU_INGRESS")`, whose value is a public https URL, or `binding("EU_VPC")`, a VPC
   * service or a service binding. Plain http is for loopback addresses only.
   */
  readonly ingress: EnvReference | BindingReference;
  /** The mTLS certificate binding with which a public ingress is asked. */
  readonly certificate?: BindingReference;
  /** Cloudflare's location hint for where it stands: `wnam`, `enam`, `sam`, `weur`, `eeur`, `apac`, `oc`, `afr`, `me`. In records, and what `nearest` goes by. */
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
  /** Backends of this cluster that keep failing are passed over for a time. Default: none is. */
  readonly outlier?: OutlierOptions;
  /** Stops asking a backend of this cluster that fails too often, at once and with 503. Default: never. */
  readonly breaker?: BreakerOptions;
  /** Requests that one isolate may have under way at each backend of this cluster; more go to others, or get 503. Default: no limit. */
  readonly concurrency?: number;
  /** Asked from the Worker's cron trigger; what it finds is shared by all locations through the store. Default: not asked. */
  readonly health?: HealthOptions;
}

/** Envoy's outlier detection, names and defaults. The state is each isolate's own. */
export interface OutlierOptions {
  /** Answers of 500 and more, or none, in a row. Default: 5; 0: does not count. */
  readonly consecutive5xx?: number;
  /** Answers of 502, 503, 504, or none, in a row. Default: 5; 0: does not count. */
  readonly consecutiveGatewayErrors?: number;
  /** What `minimumRequests` is counted over; each one without an ejection takes one `baseEjectionTime` off the next. Default: `10s`. */
  readonly interval?: Duration;
  /** How long the first ejection lasts; the second one twice as long, and so on, at most `maxEjectionTime`. Default: `30s`, `300s`. */
  readonly baseEjectionTime?: Duration;
  readonly maxEjectionTime?: Duration;
  /** Of the backends of one pool, how many percent may be out at once; one always may. Default: 10. */
  readonly maxEjectionPercent?: number;
  /** Requests within `interval` below which nothing is ejected: few requests say little. Default: 5. */
  readonly minimumRequests?: number;
  /**
   * When fewer percent of the backends of one priority than this are in, it counts as failed; when all priorities have, the first is
   * asked with all of its backends, since a wrong guess then costs less. Default: 50; 0: never, 503 instead.
   */
  readonly panicThreshold?: number;
}

/** Closed, open, half-open with a ramp. The state is each isolate's own. */
export interface BreakerOptions {
  /** It opens when so many percent of the answers within `window` are failures (5xx, none, or none in time). Default: 50. */
  readonly errorPercent?: number;
  /** Default: `10s`. */
  readonly window?: Duration;
  /** Answers within `window` below which it stays closed. Default: 20. */
  readonly minimumRequests?: number;
  /** How long it is open. Default: `10s`. */
  readonly open?: Duration;
  /** How long it then takes until all requests pass again, evenly rising from the first. Default: `10s`. */
  readonly recovery?: Duration;
}

export interface HealthOptions {
  /** Asked with GET, at every backend of the cluster that a route uses. Default: `/healthz`. */
  readonly path?: string;
  /** Default: 200 to 299. */
  readonly expect?: readonly number[];
  /** Default: `5s`. */
  readonly timeout?: Duration;
  /** Failures in a row after which it counts as unhealthy. Default: 3. */
  readonly unhealthy?: number;
  /** Answers in a row after which it counts as healthy again. Default: 2. */
  readonly healthy?: number;
}

type Duration = string;

export interface ClusterDeclaration extends Declaration {
  readonly kind: "cluster";
  readonly name: string;
  readonly options: ClusterOptions;
}

/** One address behind a cluster's ingress, with all that is done for it alone. */
export interface Endpoint extends BackendFilters {
  readonly cluster: ClusterDeclaration;
  readonly service?: string;
  /** Replace what the cluster's `services` say, for this one. */
  readonly host?: string;
  readonly path?: string;
  /** Share among the endpoints that are balanced. */
  readonly weight?: number;
}

/** What the request asks the cluster for: another Host, another path. */
export interface Rewrite {
  readonly host?: string;
  /** `prefix` replaces what the route's path prefix matched, by whole segments; `full` the whole path. The query is kept. */
  readonly path?: { readonly prefix: string } | { readonly full: string };
}

/** Done when the backend has been chosen, after the route's own. */
export interface BackendFilters {
  readonly headers?: { readonly request?: HeaderChanges; readonly response?: HeaderChanges };
  readonly rewrite?: Rewrite;
  readonly mirrors?: readonly Mirror[];
}

export interface ServiceOptions {
  /** Share in a split or among balanced endpoints, relative to the others'. */
  readonly weight?: number;
  readonly host?: string;
  readonly path?: string;
}

/** Endpoints of one priority. */
export interface Level {
  readonly endpoints: readonly Endpoint[];
  /** Default, where there is more than one: by weight in turn. */
  readonly balance?: BalanceOptions;
}

/** One or more endpoints that serve the same: those of the first level are asked, those of the next ones when it fails. */
export interface Backend {
  readonly kind: "backend";
  readonly levels: readonly Level[];
  /** Levels go by how near they are to the client, and in their own order among equally near ones. */
  readonly nearest?: boolean;
  readonly share?: number;
  /** When this one fails, ask `other`. */
  or(other: Backend): Backend;
  /** This backend's share in a split or among balanced ones, relative to the others': 95 and 5, or 19 and 1. */
  weight(share: number): Backend;
  /** The same backend, with changes made for it alone. */
  with(filters: BackendFilters): Backend;
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
    ...backend({ levels: [{ endpoints: [{ cluster: declaration }] }] }),
    declaration,
    service: (service, { weight, ...address } = {}) =>
      backend({
        levels: [{ endpoints: [{ cluster: declaration, service, ...address }] }],
        ...(weight !== undefined && { share: weight }),
      }),
  };
}

type BackendState = Pick<Backend, "levels" | "nearest" | "share">;

function backend(state: BackendState): Backend {
  return {
    kind: "backend",
    ...state,
    or: (other) => backend({ ...state, levels: [...state.levels, ...other.levels] }),
    weight: (share) => backend({ ...state, share }),
    with: (filters) =>
      backend({
        ...state,
        levels: state.levels.map(({ endpoints, ...level }) => ({
          ...level,
          endpoints: endpoints.map((endpoint) => ({ ...endpoint, ...filters })),
        })),
      }),
  };
}

/** What two requests must have in common to reach the same endpoint. */
export type HashKey =
  | "subject"
  | "client"
  | { readonly header: string }
  | { readonly cookie: string }
  | { readonly query: string };

export interface BalanceOptions {
  /**
   * `round-robin`: in turn, by weight. `least-request`: of two drawn by weight, the one with fewer requests under way. `{ hash }`:
   * requests with the same key reach the same endpoint while that is there. Default: `round-robin`.
   */
  readonly by?: "round-robin" | "least-request" | { readonly hash: HashKey };
  /**
   * A cookie that the gateway sets keeps a client at the endpoint that first answered it, while that is there. `maxAge` in seconds.
   * Default: 86400, a day.
   */
  readonly affinity?: { readonly cookie: string; readonly maxAge?: number };
}

/** Several backends of the same priority, between which load is divided: `balance([a.weight(2), b], { by: "least-request" })`. */
export function balance(backends: readonly Backend[], options: BalanceOptions = {}): Backend {
  const endpoints = backends.flatMap(({ levels, share }) =>
    levels.flatMap((level) =>
      level.endpoints.map((endpoint) => ({ ...endpoint, weight: share ?? endpoint.weight ?? 1 })),
    ),
  );
  return backend({ levels: [{ endpoints, balance: options }] });
}

/** Of several backends the one nearest to the client first, by the clusters' regions and where the request came in; then the others. */
export function nearest(...backends: readonly Backend[]): Backend {
  return backend({ levels: backends.flatMap(({ levels }) => levels), nearest: true });
}

/** In the place of a backend that there is none of, such as an invalid reference in an imported manifest: answers 500. */
export interface Missing extends Declaration {
  readonly kind: "missing";
  readonly reason: string;
  readonly share?: number;
  weight(share: number): Missing;
}

export function missing(reason: string): Missing {
  const place = declaredAt(missing);
  const made = (share?: number): Missing => ({
    kind: "missing",
    reason,
    ...(share !== undefined && { share }),
    weight: made,
    declaredAt: place,
  });
  return made();
}

export interface MirrorOptions {
  /** Of the requests, how many are copied. Default: all. */
  readonly percent?: number;
  /** In the place of `percent`: 1 of 3 is `[1, 3]`. */
  readonly fraction?: readonly [numerator: number, denominator: number];
  /** Methods that are copied; a copied write is written twice. Default: `["GET", "HEAD", "OPTIONS"]`. */
  readonly methods?: "any" | readonly string[];
  /** Largest body that is copied, in bytes. Default: 65536. */
  readonly maxBody?: number;
}

export interface Mirror extends Declaration {
  readonly kind: "mirror";
  readonly to: Backend;
  readonly options: MirrorOptions;
}

/** Sends copies of requests to `to` as well, after the client has its answer. What comes back is not looked at. */
export function mirror(to: Backend, options: MirrorOptions = {}): Mirror {
  return { kind: "mirror", to, options, declaredAt: declaredAt(mirror) };
}

export interface SplitOptions {
  /**
   * What keeps a caller on one arm. `subject`: the token's subject; `client`: address and User-Agent; `{ cookie }`: a cookie that
   * the gateway sets, on both arms; `{ header }`: a request header. A request without it falls back to `client`. `request`: nothing,
   * each request is drawn anew. Default: `subject`.
   */
  readonly sticky?:
    | "subject"
    | "client"
    | "request"
    | { readonly cookie: string; readonly maxAge?: number }
    | { readonly header: string };
  /**
   * Lets who knows the secret choose: the header or cookie holds `<arm>:<secret>`. It is taken out before the request is forwarded.
   */
  readonly override?: { readonly header?: string; readonly cookie?: string; readonly secret: SecretReference };
  /** Keeps two splits independent of each other. Default: the route's id, so that a caller's luck differs from route to route. */
  readonly salt?: string;
}

/** What a share of the callers gets. */
export type Arm = Backend | Redirect | Missing;

export interface Split extends Declaration {
  readonly kind: "split";
  readonly arms: Readonly<Record<string, Arm>>;
  readonly options: SplitOptions;
}

/** Divides callers over backends by weight: `split({ stable: a.weight(95), canary: b.weight(5) })`. */
export function split(arms: Readonly<Record<string, Arm>>, options: SplitOptions = {}): Split {
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
  /** Share in a split. */
  readonly share?: number;
  weight(share: number): Redirect;
}

export function redirect(options: RedirectOptions): Redirect {
  const place = declaredAt(redirect);
  const made = (share?: number): Redirect => ({
    kind: "redirect",
    options,
    ...(share !== undefined && { share }),
    weight: made,
    declaredAt: place,
  });
  return made();
}

export type Target = Backend | Split | Redirect | Missing;
export type { Timeouts };
