/**
 * A shop of services with ten routes each, as the benchmark asks for it: `services: 1` is 10 routes, `services: 1000` is 10,000.
 * The services are numbered around 500, so that `/v1/orders-500/...` exists in every size and lies in the middle of the large one.
 */
import {
  api,
  type Backend,
  balance,
  type ClusterOptions,
  cluster,
  env,
  filter,
  gateway,
  headers,
  jwt,
  type PolicyEntry,
  type RouteOptions,
  requestId,
  route,
  secret,
  securityHeaders,
  split,
} from "portcullis";

const token = jwt({
  issuer: "https://login.example.com",
  audience: "https://api.example.com",
  jwks: env("ISSUER_JWKS"),
  claimsToHeaders: { sub: "x-user-id", email: "x-user-email" },
});

const changes = headers({
  request: { remove: ["x-debug", "x-internal"], set: { "x-api-version": "1" }, add: { via: "portcullis" } },
  response: { remove: ["x-backend"], set: { "x-api-version": "1" }, add: { vary: "authorization" } },
});

export interface Shop {
  readonly services: number;
  /** Policies of every route, besides the ones that all sizes have. */
  readonly policies?: readonly PolicyEntry[];
  /** Between which every route balances, all at the same address. Default: one. */
  readonly clusters?: readonly string[];
  /** What all clusters have besides their address. */
  readonly cluster?: Partial<ClusterOptions>;
  /** What every route has besides its target. */
  readonly route?: Partial<RouteOptions>;
}

export function shop({ services, policies = [], clusters = ["eu"], cluster: options, route: settings }: Shop) {
  const first = services === 1 ? 500 : 0;
  const declared = clusters.map((name) =>
    cluster(name, { ingress: env("ORIGIN"), services: { path: "/{service}" }, ...options }),
  );
  const service = (name: string): Backend => {
    const all = declared.map((cluster) => cluster.service(name));
    return all.length === 1 ? (all[0] as Backend) : balance(all);
  };
  return gateway(
    {
      policies: [requestId({}), securityHeaders({}), filter({})],
      store: { url: env("REDIS_URL"), token: secret("REDIS_TOKEN") },
    },
    Array.from({ length: services }, (_, i) => orders(`orders-${first + i}`)),
  );

  function orders(name: string) {
    const to = split({ stable: service(name).weight(95), canary: service(`${name}-next`).weight(5) });
    const one = (verb: string, method: string, path: string) =>
      route(verb, { path: `/v1/${name}${path}`, methods: [method] }, { to, ...settings });
    return api(name, { hosts: ["api.example.com"], policies: [token, changes, ...policies] }, [
      one("list", "GET", ""),
      one("create", "POST", ""),
      one("read", "GET", "/{id}"),
      one("replace", "PUT", "/{id}"),
      one("cancel", "DELETE", "/{id}"),
      one("items", "GET", "/{id}/items"),
      one("add-item", "POST", "/{id}/items"),
      one("read-item", "GET", "/{id}/items/{item}"),
      one("remove-item", "DELETE", "/{id}/items/{item}"),
      one("invoices", "GET", "/{id}/invoices/*"),
    ]);
  }
}
