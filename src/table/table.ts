/**
 * The RouteTable: what the build makes of `routes/`, and all that passes between the build and the edge. Plain JSON: `gateway
 * build` writes it as `table.json`, the Worker holds it frozen, `explain` and `diff` read it.
 *
 * It does not depend on the order in which things are declared: names sort routes, clusters and consumers, and policies are
 * numbered in the order of that sorted list. Line numbers are no part of it (`sources.json` beside it has them).
 */
export const TABLE_VERSION = 1;

export interface RouteTable {
  readonly version: typeof TABLE_VERSION;
  /** First 16 hex digits of the SHA-256 of everything else in the table: changes if and only if the configuration does. */
  readonly id: string;
  readonly gateway: GatewaySettings;
  /** Names that the Worker's environment must provide; checked against wrangler.toml at build, and at the edge on first use. */
  readonly environment: EnvironmentNames;
  readonly clusters: Readonly<Record<string, TableCluster>>;
  readonly consumers: Readonly<Record<string, TableConsumer>>;
  /** Absent: there are none. */
  readonly plans?: Readonly<Record<string, TablePlan>>;
  /** Every distinct policy with its compiled configuration; routes refer to them by position. */
  readonly policies: readonly TablePolicy[];
  /** Every distinct place to send a request; actions refer to them by position. */
  readonly backends: readonly TableBackend[];
  /** Every distinct group of backends that load is divided over; actions refer to them by position. */
  readonly pools: readonly TablePool[];
  /** Absent: one listener for everything. Sorted by name. */
  readonly listeners?: readonly TableListener[];
  /** Sorted by id. */
  readonly routes: readonly TableRoute[];
  /** Positions in `policies` of those that the gateway declares for all routes: they also run when no route matches. */
  readonly unmatched: readonly number[];
  /**
   * Request headers that no origin gets from a client, in lower case: those that policies set and those of overrides. More are so in
   * every table (gateway-headers.ts).
   */
  readonly identityHeaders: readonly string[];
  /** Cookies that carry a split's override and its secret: no origin gets them. */
  readonly overrideCookies: readonly string[];
}

/** The table as the edge has it: its routes are read when they are first asked for (routes.ts). */
export interface EdgeTable extends Omit<RouteTable, "routes"> {
  readonly routes: Routes;
}

/** Routes by position. */
export type Routes = Pick<RouteTable["routes"], "at">;

export interface EnvironmentNames {
  readonly vars: readonly string[];
  /** Variables that the environment may provide as well: each has something that is used otherwise. Absent: none. */
  readonly optional?: readonly string[];
  readonly secrets: readonly string[];
  readonly bindings: readonly string[];
}

/** `env()`, `secret()` and `binding()` in JSON: the name of something that the environment holds, never its value. */
export type Reference =
  | { readonly env: string; readonly otherwise?: string }
  | { readonly secret: string }
  | { readonly binding: string };

export interface GatewaySettings {
  /** Exactly the Gateway API's rules, where hand-written routes have friendlier ones; absent: the friendlier ones. */
  readonly semantics?: "gateway-api";
  readonly escapedSlashes: "refuse" | "keep";
  readonly forwardedFor: "overwrite" | "append";
  /** CIDR ranges of peers whose CF-Connecting-IP is believed where the runtime tells the peer's address (workerd by itself). */
  readonly trustedProxies: readonly string[];
  readonly store?: { readonly url: Reference; readonly token: Reference };
  readonly debug?: { readonly secret: Reference };
  readonly assertion?: TableAssertion;
  /** Longest URL that is served, scheme and host included, in characters; longer: 414. */
  readonly maxUrl: number;
  /** Largest request body that is forwarded, in bytes; larger: 413. */
  readonly maxBody: number;
  readonly timeouts: Timeouts;
}

/** A short-lived JWT in `X-Portcullis-Assertion`, by which a cluster knows that a request came through this gateway. */
export interface TableAssertion {
  readonly key: Reference;
  readonly issuer: string;
  /** Seconds that one assertion is valid. */
  readonly lifetime: number;
}

export interface Timeouts {
  /** Milliseconds until the TCP connection must stand. */
  readonly connect: number;
  /** Milliseconds until the response's headers must be there, for one attempt; 0: no limit. */
  readonly firstByte: number;
  /** Milliseconds for the whole exchange, attempts and response body included; 0: no limit. */
  readonly total: number;
  /** Milliseconds that an endless answer may be silent; absent: no limit. */
  readonly idle?: number;
}

export interface TableCluster {
  readonly name: string;
  readonly ingress: Reference;
  /** An mTLS certificate binding whose `fetch` is used for a public ingress. */
  readonly certificate?: Reference;
  readonly region?: string;
  /** Scheme of the URL handed to a binding. */
  readonly scheme: "http" | "https";
  readonly assertion: boolean;
  readonly outlier?: TableOutlier;
  readonly breaker?: TableBreaker;
  /** Requests under way at one backend, in one isolate. */
  readonly concurrency?: number;
  readonly health?: TableHealth;
}

/** Times in milliseconds; what each means is told at OutlierOptions. */
export interface TableOutlier {
  readonly consecutive5xx: number;
  readonly consecutiveGatewayErrors: number;
  readonly interval: number;
  readonly baseEjectionTime: number;
  readonly maxEjectionTime: number;
  readonly maxEjectionPercent: number;
  readonly minimumRequests: number;
  readonly panicThreshold: number;
}

/** Times in milliseconds; what each means is told at BreakerOptions. */
export interface TableBreaker {
  readonly errorPercent: number;
  readonly window: number;
  readonly minimumRequests: number;
  readonly open: number;
  readonly recovery: number;
}

export interface TableHealth {
  readonly path: string;
  /** Absent: 200 to 299. */
  readonly expect?: readonly number[];
  /** Milliseconds. */
  readonly timeout: number;
  readonly unhealthy: number;
  readonly healthy: number;
}

export interface TableListener {
  readonly name: string;
  readonly port: number;
  readonly protocol: "http" | "https";
  /** Absent: any. */
  readonly host?: string;
}

/** Levels of priority, the first to be asked first. */
export interface TablePool {
  readonly levels: readonly TableLevel[];
  /** Levels go by how near their clusters are to the client. */
  readonly nearest?: true;
}

export interface TableLevel {
  /** Positions in the table's backends. */
  readonly backends: readonly number[];
  /** In the same order; absent: all alike. */
  readonly weights?: readonly number[];
  readonly by: "round-robin" | "least-request" | { readonly hash: TableHashKey };
  readonly affinity?: { readonly cookie: string; readonly maxAge: number };
}

export type TableHashKey =
  | "subject"
  | "client"
  | { readonly header: string }
  | { readonly cookie: string }
  | { readonly query: string };

/** Members that are absent are empty. */
export interface TableConsumer {
  readonly name: string;
  /** Sorted. */
  readonly groups?: readonly string[];
  readonly metadata?: Readonly<Record<string, unknown>>;
  /** A name in the table's plans. */
  readonly plan?: string;
}

export interface TablePlan {
  readonly name: string;
  /** As declared; what policies count by is in their own configuration. */
  readonly limits: readonly { readonly limit: number; readonly window: string }[];
}

export interface TableBackend {
  /** `cluster` or `cluster/service`: how records and headers name it. */
  readonly name: string;
  readonly cluster: string;
  /** Host that the request carries, instead of the client's (bindings) or the ingress URL's own. */
  readonly host?: string;
  /** Path put before the request's; no trailing slash. */
  readonly path?: string;
  readonly headers?: {
    readonly request: readonly TableHeaderChange[];
    readonly response: readonly TableHeaderChange[];
  };
  readonly rewrite?: TableRewrite;
  readonly mirrors?: readonly TableMirror[];
}

export interface TableHeaderChange {
  readonly action: "remove" | "set" | "add";
  /** In lower case. */
  readonly name: string;
  readonly value?: string | Reference;
}

export interface TableRewrite {
  readonly host?: string;
  readonly path?: { readonly prefix: string } | { readonly full: string };
}

export interface TableMirror {
  /** Position in the table's backends. */
  readonly backend: number;
  /** Of the requests, from 0 to 1; absent: all. */
  readonly ratio?: number;
  /** Absent: any. */
  readonly methods?: readonly string[];
  readonly maxBody: number;
}

export interface TableRetry {
  /** After the first try. */
  readonly attempts: number;
  /** Single statuses, and what else counts as failed. */
  readonly on: readonly (number | "connection" | "timeout")[];
  /** Absent: any. */
  readonly methods?: readonly string[];
  /** Milliseconds. */
  readonly backoff: { readonly minimum?: number; readonly base: number; readonly max: number };
  readonly maxBody: number;
  readonly budget: { readonly percent: number; readonly minimum: number };
}

export type PolicyName =
  | "requestId"
  | "securityHeaders"
  | "cors"
  | "ipFilter"
  | "penaltyBox"
  | "jwt"
  | "oidc"
  | "introspection"
  | "apiKey"
  | "basic"
  | "clientCertificate"
  | "hmac"
  | "forwardAuth"
  | "oidcLogin"
  | "anyOf"
  | "allOf"
  | "anonymous"
  | "scopes"
  | "authorize"
  | "rateLimit"
  | "concurrency"
  | "filter"
  | "waf"
  | "upstreamToken"
  | "headers"
  | "middleware";

export interface TablePolicy {
  readonly policy: PolicyName;
  readonly mode: PolicyMode;
  readonly config: unknown;
}

/** `report` records what the policy would have done and lets the request pass; `off` policies never reach the table. */
export type PolicyMode = "enforce" | "report";

export interface TableRoute {
  /** `api/route`. */
  readonly id: string;
  readonly api: string;
  readonly hosts: readonly string[];
  /** Positions in the table's listeners; absent: all of them. */
  readonly listeners?: readonly number[];
  /** Decides between matches that nothing else parts, the lower first; absent: the id does. */
  readonly order?: number;
  readonly matches: readonly TableMatch[];
  /** Positions in `policies`, in the order in which they run. */
  readonly policies: readonly number[];
  readonly action: TableAction;
  readonly timeouts?: Timeouts;
  readonly rewrite?: TableRewrite;
  readonly mirrors?: readonly TableMirror[];
  readonly retry?: TableRetry;
  /** Whether the answer may be an upgraded connection; such a route keeps the Upgrade header. Limits in milliseconds. */
  readonly websocket?: true | { readonly idle: number; readonly lifetime: number };
}

export type TableAction = ArmAction | SplitAction;
export type ArmAction = ForwardAction | PoolAction | RedirectAction | MissingAction;

export interface ForwardAction {
  readonly kind: "forward";
  /** Positions in `backends`: the first is asked, the others take over when it fails. */
  readonly backends: readonly number[];
}

export interface PoolAction {
  readonly kind: "pool";
  /** Position in `pools`. */
  readonly pool: number;
}

/** There is no backend: 500. */
export interface MissingAction {
  readonly kind: "missing";
  readonly reason: string;
}

export interface SplitAction {
  readonly kind: "split";
  readonly salt: string;
  readonly arms: readonly TableArm[];
  readonly sticky: StickyKey;
  readonly override?: { readonly header?: string; readonly cookie?: string; readonly secret: Reference };
}

export interface TableArm {
  readonly name: string;
  readonly weight: number;
  readonly action: ArmAction;
}

/** What keeps a caller on one arm; `request`: nothing does. */
export type StickyKey =
  | { readonly by: "request" }
  | { readonly by: "subject" }
  | { readonly by: "client" }
  | { readonly by: "header"; readonly name: string }
  | { readonly by: "cookie"; readonly name: string; readonly maxAge: number };

export interface RedirectAction {
  readonly kind: "redirect";
  readonly status: 301 | 302 | 303 | 307 | 308;
  readonly scheme?: "http" | "https";
  readonly host?: string;
  readonly port?: number;
  /** `prefix` replaces what the route's path prefix matched, `full` the whole path; the query is kept. */
  readonly path?: { readonly prefix: string } | { readonly full: string };
}

export interface TableMatch {
  readonly path: PathMatch;
  /** Upper case, sorted; absent: any method. */
  readonly methods?: readonly string[];
  /** Conditions, each list by name. Absent: none (an empty list in each of 10,000 routes is a fifth of what the table takes to load). */
  readonly headers?: readonly ValueMatch[];
  readonly query?: readonly ValueMatch[];
  readonly cookies?: readonly ValueMatch[];
}

/**
 * `exact` and `prefix` values are normal paths (path.ts), whose segments may be parameters written `{name}`; a prefix matches
 * whole segments. A `regex` (JavaScript) matches the whole path, here and in the conditions on headers, query and cookies.
 */
export type PathMatch =
  | { readonly kind: "exact" | "prefix"; readonly value: string }
  | { readonly kind: "regex"; readonly value: string };

/** Header names are in lower case. Neither `exact` nor `regex`: the name must be present. */
export interface ValueMatch {
  readonly name: string;
  readonly exact?: string;
  readonly regex?: string;
}
