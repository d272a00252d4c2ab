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
  /** Every distinct policy with its compiled configuration; routes refer to them by position. */
  readonly policies: readonly TablePolicy[];
  /** Every distinct place to send a request; actions refer to them by position. */
  readonly backends: readonly TableBackend[];
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

export interface EnvironmentNames {
  readonly vars: readonly string[];
  readonly secrets: readonly string[];
  readonly bindings: readonly string[];
}

/** `env()`, `secret()` and `binding()` in JSON: the name of something that the environment holds, never its value. */
export type Reference = { readonly env: string } | { readonly secret: string } | { readonly binding: string };

export interface GatewaySettings {
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
  /** Milliseconds until the response's headers must be there, for one attempt. */
  readonly firstByte: number;
  /** Milliseconds for the whole exchange, attempts and response body included; 0: no limit. */
  readonly total: number;
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
}

export interface TableConsumer {
  readonly name: string;
}

export interface TableBackend {
  /** `cluster` or `cluster/service`: how records and headers name it. */
  readonly name: string;
  readonly cluster: string;
  /** Host that the request carries, instead of the client's (bindings) or the ingress URL's own. */
  readonly host?: string;
  /** Path put before the request's; no trailing slash. */
  readonly path?: string;
}

export type PolicyName =
  | "requestId"
  | "securityHeaders"
  | "cors"
  | "ipFilter"
  | "jwt"
  | "scopes"
  | "rateLimit"
  | "filter"
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
  readonly matches: readonly TableMatch[];
  /** Positions in `policies`, in the order in which they run. */
  readonly policies: readonly number[];
  readonly action: TableAction;
  readonly timeouts?: Timeouts;
  /** Whether the answer is an upgraded connection; such a route keeps the Upgrade header. */
  readonly websocket?: boolean;
}

export type TableAction = ForwardAction | SplitAction | RedirectAction;

export interface ForwardAction {
  readonly kind: "forward";
  /** Positions in `backends`: the first is asked, the others take over when it fails. */
  readonly backends: readonly number[];
}

export interface SplitAction {
  readonly kind: "split";
  readonly salt: string;
  readonly arms: readonly { readonly name: string; readonly weight: number; readonly backends: readonly number[] }[];
  readonly sticky: StickyKey;
  readonly override?: { readonly header?: string; readonly cookie?: string; readonly secret: Reference };
}

/** What keeps a caller on one arm. */
export type StickyKey =
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
