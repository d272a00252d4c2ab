/** The environment of a gateway that runs here: what is known of it, and stand-ins for the rest. No secret is ever asked for. */
import { generateKeyPairSync } from "node:crypto";
import type { EnvironmentNames, RouteTable, TableCluster } from "../table/table.ts";

/** As a header or an address can carry it, and long enough for any key that is made of a text. */
export const standInFor = (name: string): string => `[secret ${name}]`.padEnd(64, ".");

/** `text` without stand-ins in full, as people are shown it. */
export const withShortStandIns = (text: string): string => text.replace(/(\[secret \w+\])\.+/g, "$1");

/**
 * Every name that the table asks for. `texts` wins; a variable that is not in it becomes an address that nobody has (RFC 6761, 6.4).
 * `bindings` answers for all bindings.
 */
export function offlineEnvironment(
  { environment, gateway }: Pick<RouteTable, "environment" | "gateway">,
  texts: Readonly<Record<string, unknown>>,
  binding: (name: string, url: string, init: RequestInit) => Promise<Response>,
): Record<string, unknown> {
  const { vars, secrets, bindings }: EnvironmentNames = environment;
  const env: Record<string, unknown> = {};
  for (const name of vars) env[name] = texts[name] ?? `https://${name.toLowerCase().replaceAll("_", "-")}.invalid`;
  for (const name of secrets) env[name] = texts[name] ?? standInFor(name);
  for (const [name, value] of Object.entries(texts)) env[name] ??= value;
  const { assertion } = gateway;
  if (assertion && "secret" in assertion.key && texts[assertion.key.secret] === undefined)
    env[assertion.key.secret] = signingKey();
  for (const name of bindings) {
    env[name] = { fetch: (url: string, init: RequestInit) => binding(name, String(url), init ?? {}) };
  }
  return env;
}

function signingKey(): string {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return JSON.stringify({ ...privateKey.export({ format: "jwk" }), alg: "ES256", kid: "stand-in" });
}

/** Whether an address is a cluster's, which is asked without a binding, and not an issuer's or the store's. */
export function clusterAddresses(table: RouteTable, env: Readonly<Record<string, unknown>>): (url: URL) => boolean {
  const ingresses = new Set<string>();
  for (const { ingress } of Object.values(table.clusters) as TableCluster[]) {
    if ("binding" in ingress) continue;
    const name = "env" in ingress ? ingress.env : ingress.secret;
    const text = env[name] ?? ("env" in ingress ? ingress.otherwise : undefined);
    const url = URL.parse(String(text));
    if (url) ingresses.add(url.host);
  }
  // Of these the port is the ingress'.
  const names = new Set([
    ...table.backends.flatMap(({ host, rewrite }) => [host, rewrite?.host]),
    ...table.routes.map(({ rewrite }) => rewrite?.host),
  ]);
  return ({ host, hostname }) => ingresses.has(host) || names.has(hostname);
}
