import type { MiddlewareHandler } from "hono";
import type { Target } from "./cluster.ts";
import { type Declaration, declaredAt } from "./declaration.ts";
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
  /** Until one attempt's response headers must be there. Default: `15s`. */
  readonly firstByte?: Duration;
  /** For the whole exchange, all attempts and the response's body; `0s` is none, for streams. Default: `60s`. */
  readonly total?: Duration;
}

export interface RouteOptions {
  readonly to: Target;
  /** Added to the API's and the gateway's: docs/policies.md says which add up and which replace. */
  readonly policies?: readonly PolicyEntry[];
  readonly timeouts?: TimeoutOptions;
  /** The route answers WebSocket upgrades. Default: false, and the Upgrade header is not forwarded. */
  readonly websocket?: boolean;
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
