/**
 * Routes that meet, to be proved: services of ten routes each as in shop.ts, of which every one leaves something to another. Beside
 * literal paths there are parameters, prefixes within prefixes, regexes, conditions, two kinds of host, and routes for everything.
 */
import { api, cluster, env, filter, gateway, jwt, type Match, rateLimit, route, scopes, secret } from "portcullis";

const eu = cluster("eu", { ingress: env("ORIGIN"), services: { path: "/{service}" } });
const token = jwt({ issuer: "https://login.example.com", jwks: "https://login.example.com/keys" });

/** `changed`: one service of ten has other paths, limits and scopes. */
export function crossed({ services, changed = false }: { readonly services: number; readonly changed?: boolean }) {
  const everything = api("everything", {}, [
    route("rest", { path: "/*" }, { to: eu }),
    route("api", { path: "/v1/*", methods: ["GET", "POST"] }, { to: eu }),
  ]);
  return gateway({ policies: [filter({})], store: { url: env("REDIS_URL"), token: secret("REDIS_TOKEN") } }, [
    ...Array.from({ length: services }, (_, i) => service(i)),
    everything,
  ]);

  function service(i: number) {
    const other = changed && i % 10 === 0;
    const path = `/v1/orders-${i}`;
    const hosts = i % 3 === 0 ? ["*.example.com"] : ["api.example.com", "localhost"];
    const one = (name: string, match: Match) => route(name, match, { to: eu.service(`orders-${i}`) });
    const limited = rateLimit({ limit: other ? 500 : 100, window: "1m" });
    return api(`orders-${i}`, { hosts, policies: [token, limited, scopes(other ? "read" : "orders")] }, [
      one("list", { path, methods: ["GET"] }),
      one("create", { path, methods: ["POST"] }),
      one("read", { path: `${path}/{id}`, methods: ["GET"] }),
      one("latest", { path: `${path}/${other ? "newest" : "latest"}` }),
      one("beta", { path: `${path}/{id}`, methods: ["GET"], headers: { "x-beta": true } }),
      one("version", { path: `${path}/{id}`, headers: { "x-version": /v[0-9]+/ }, query: { full: "1" } }),
      one("number", { path: new RegExp(`${path}/[0-9]+/items`) }),
      one("word", { path: new RegExp(`${path}/[a-z]+/items/.*`), methods: ["GET"] }),
      one("items", { path: `${path}/{id}/*` }),
      one("rest", { path: `${path}/*` }),
    ]);
  }
}
