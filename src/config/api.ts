import type { MiddlewareHandler } from "hono";
import type { Mirror, Rewrite, Target } from "./cluster.ts";
import { type Declaration, declaredAt } from "./declaration.ts";
import type { ListenerDeclaration } from "./listener.ts";
import type { PolicyDeclaration, WithoutDeclaration } from "./policy.ts";
import type { EnvReference, SecretReference } from "./values.ts";

/**
 * In a list of policies may stand: a policy, any Hono middleware as it is, or `without(...)`. The order of the list means nothing:
 * src/policies/order.ts says which policy runs when. Only middleware runs in the order in which it is listed.
 */
// biome-ignore lint/suspicious/noExplicitAny: middleware is written for environments of its own
export type PolicyEntry = PolicyDeclaration | WithoutDeclaration | MiddlewareHandler<any, any, any>;

export type Method = "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" | (string & {});

/** A condition on one value: exactly this text, the whole value matched by this regex, or `true`: present at all. */
export type ValueCondition = string | RegExp | true;

export interface Match {
  /**
   * `/v1/orders`: exactly this path. `/v1/catalog/*`: this path and everything below it, by whole segments. `/v1/orders/{id}`:
   * one segment of any value. A RegExp matches the whole path. Default: `/*`.
   */
  readonly path?: string | RegExp;
  /** Default: any. A GET route also answers HEAD. */
  readonly methods?: readonly Method[];
  readonly headers?: Readonly<Record<string, ValueCondition>>;
  /** By the first value of each parameter, decoded. Names are case-sensitive. */
  readonly query?: Readonly<Record<string, ValueCondition>>;
  readonly cookies?: Readonly<Record<string, ValueCondition>>;
}

/** Durations: `250ms`, `5s`, `1m30s`, `1h`. */
export type Duration = string;

export interface TimeoutOptions {
  /** Until the TCP connection to a public ingress must stand. Default: `5s`. */
  readonly connect?: Duration;
  /** Until one attempt's response headers must be there; `0s` is no limit. Default: `15s`. */
  readonly firstByte?: Duration;
  /** For the whole exchange, all attempts and the response's body; `0s` is none, for streams. Default: `60s`. */
  readonly total?: Duration;
  /** Of an endless answer (event streams, NDJSON, WebSockets): how long nothing may come; `0s` is no limit. Default: `0s`. */
  readonly idle?: Duration;
}

/** What may be asked again. `connection`: no answer came at all; `timeout`: none in time; a number: the cluster answered so. */
export type RetryCondition = "connection" | "timeout" | "gateway-error" | "5xx" | number;

export interface RetryOptions {
  /** After the first try. Default: 2. */
  readonly attempts?: number;
  /** Default: `["connection", 503]`, what Envoy takes for safe. `gateway-error` is 502, 503 and 504. */
  readonly on?: readonly RetryCondition[];
  /** Default: those that may be repeated without asking (RFC 9110, 9.2.2). `any`: the origin copes with a request that comes twice. */
  readonly methods?: "idempotent" | "any" | readonly Method[];
  /**
   * Before each further try: `minimum`, and a random time up to `base`, then up to twice that and so on, at most `max`. Default: `0s`,
   * `25ms`, ten times `base`.
   */
  readonly backoff?: { readonly minimum?: Duration; readonly base?: Duration; readonly max?: Duration };
  /** Largest body that is kept in memory for another try, in bytes. Default: 65536. A larger one is sent once. */
  readonly maxBody?: number;
  /**
   * Of the requests of this route in one isolate, how many percent may be tried again, and how many further tries there may be in ten
   * seconds in any case. Default: 20 and 3 (Envoy's retry budget; docs/resilience.md says how it is counted).
   */
  readonly budget?: { readonly percent?: number; readonly minimum?: number };
}

export interface WebSocketOptions {
  /** Closed when neither side has sent a message for so long. Default: `0s`, never. */
  readonly idle?: Duration;
  /** Closed after so long, whatever is said. Default: `0s`, never. */
  readonly lifetime?: Duration;
}

export interface RouteOptions {
  readonly to: Target;
  /** Added to the API's and the gateway's: docs/policies.md says which add up and which replace. */
  readonly policies?: readonly PolicyEntry[];
  readonly timeouts?: TimeoutOptions;
  /** What the cluster is asked for instead of what the client asked for. */
  readonly rewrite?: Rewrite;
  /** Copies of the request, whose answers nobody waits for. */
  readonly mirrors?: readonly Mirror[];
  /** Default: none; what `or` names is asked all the same when the first fails. */
  readonly retry?: RetryOptions;
  /** The route answers WebSocket upgrades, with limits if options are given. Default: false, and the Upgrade header is not forwarded. */
  readonly websocket?: boolean | WebSocketOptions;
}

export interface RouteDeclaration extends Declaration {
  readonly kind: "route";
  readonly name: string;
  readonly matches: readonly Match[];
  readonly options: RouteOptions;
}

/** One route: requests that match (any of) `match` go to `options.to`. */
export function route(name: string, match: Match | readonly Match[], options: RouteOptions): RouteDeclaration {
  const matches = Array.isArray(match) ? (match as readonly Match[]) : [match as Match];
  return { kind: "route", name, matches, options, declaredAt: declaredAt(route) };
}

export interface ApiOptions {
  /** `api.example.com`, or `*.example.com` for one or more labels. Default: any host. */
  readonly hosts?: readonly string[];
  /** Those of the gateway's listeners that these routes are for; hosts that a listener does not have, it does not serve. Default: all. */
  readonly listeners?: readonly ListenerDeclaration[];
  readonly policies?: readonly PolicyEntry[];
  readonly timeouts?: TimeoutOptions;
}

export interface ApiDeclaration extends Declaration {
  readonly kind: "api";
  readonly name: string;
  readonly options: ApiOptions;
  readonly routes: readonly RouteDeclaration[];
}

export function api(name: string, options: ApiOptions, routes: readonly RouteDeclaration[]): ApiDeclaration {
  return { kind: "api", name, options, routes, declaredAt: declaredAt(api) };
}

export interface GatewayOptions {
  /**
   * `gateway-api`: exactly as the Gateway API has it, where hand-written routes are friendlier. No 405 and no HEAD by GET; matches that
   * nothing parts go by the order of declaration; a cluster that cannot be reached answers 503; every route takes WebSockets. All of
   * it is in docs/matching.md. Default: `portcullis`.
   */
  readonly semantics?: "portcullis" | "gateway-api";
  /** Ports and hosts, of which a request takes the most specific, before any route is looked at. Default: one for everything. */
  readonly listeners?: readonly ListenerDeclaration[];
  /** Run on every route, unless taken off by `without(...)`. */
  readonly policies?: readonly PolicyEntry[];
  /** The Redis behind rate limits, by its Upstash REST endpoint. */
  readonly store?: { readonly url: EnvReference; readonly token: SecretReference };
  /** Who sends this secret in `X-Portcullis-Debug` gets the decision record in `X-Portcullis-Record`. Default: nobody. */
  readonly debug?: SecretReference;
  /**
   * The short-lived signed JWT that clusters check to refuse what did not come through here. `key`: a private JWK with `alg` and
   * `kid`, as JSON. Its public half is served at `/.well-known/portcullis/jwks.json`.
   */
  readonly assertion?: { readonly key: SecretReference; readonly issuer: string; readonly lifetime?: Duration };
  /** `overwrite` (default): X-Forwarded-For is the client's address. `append`: the address is put after what came in. */
  readonly forwardedFor?: "overwrite" | "append";
  /** `refuse` (default): `%2F` and `%5C` in a path answer 400. `keep`: they are ordinary characters of a segment. */
  readonly escapedSlashes?: "refuse" | "keep";
  /**
   * Peers whose CF-Connecting-IP is believed where the runtime tells the peer's address, as workerd by itself does. On Cloudflare
   * that header is always set by Cloudflare. Default: loopback.
   */
  readonly trustedProxies?: readonly string[];
  /** Longest URL, scheme and host included, in characters. Default: 8192. */
  readonly maxUrl?: number;
  /** Largest request body, in bytes. Default: 100 MB, Cloudflare's own limit on the Free and Pro plans. */
  readonly maxBody?: number;
  readonly timeouts?: TimeoutOptions;
}

export interface GatewayDeclaration extends Declaration {
  readonly kind: "gateway";
  readonly options: GatewayOptions;
  readonly apis: readonly ApiDeclaration[];
}

/** The whole configuration; the default export of `routes/index.ts`. */
export function gateway(options: GatewayOptions, apis: readonly ApiDeclaration[]): GatewayDeclaration {
  return { kind: "gateway", options, apis, declaredAt: declaredAt(gateway) };
}
