/**
 * Active health checks. One cron trigger asks every watched endpoint and writes what it found into the store; every isolate everywhere
 * reads it from there, off the path of its requests. Only Workers whose table has health checks carry this file.
 */
import { Redis } from "@upstash/redis/cloudflare";
import { hash32 } from "../table/split.ts";
import type { EdgeTable, TableBackend, TableCluster, TableHealth } from "../table/table.ts";
import { type Endpoints, endpointKey, HEALTH_LIFETIME } from "../traffic/endpoint.ts";
import { type Ingress, ingressOf, textOf } from "./environment.ts";

/** By endpoint: whether it counts as healthy, and how many findings in a row say the opposite. */
type Findings = Readonly<Record<string, Finding>>;
type Finding = readonly [healthy: 0 | 1, against: number];

// Milliseconds for the store. Nobody waits for it but the check itself.
const PATIENCE = 5_000;
// Connections that a Worker may wait for at once (Workers, "Simultaneous open connections").
const AT_ONCE = 6;

/**
 * Asks all endpoints of clusters with health checks once, and logs each that changes. Throws when the store is away: what was found
 * last holds then, and the platform shows that the trigger failed.
 */
export async function checkHealth(table: EdgeTable, env: unknown): Promise<void> {
  const store = storeOf(table, env);
  const watched = watchedBy(table, env);
  const key = keyFor(watched);
  const before = await store.get(key);
  const after: Record<string, Findings[string]> = {};
  const turned: Watched[] = [];
  const waiting = [...watched];
  const work = async () => {
    for (let next = waiting.pop(); next; next = waiting.pop()) {
      const [healthy, against] = findingOf(before, next.key);
      const good = await answersWell(next);
      const contrary = good === Boolean(healthy) ? 0 : against + 1;
      const turns = contrary >= (good ? next.health.healthy : next.health.unhealthy);
      after[next.key] = turns ? [good ? 1 : 0, 0] : [healthy, contrary];
      if (turns) turned.push(next);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  await store.set(key, after, { px: HEALTH_LIFETIME });
  for (const { key, backend } of turned)
    console.log(line({ event: "health", backend: backend.name, healthy: after[key]?.[0] === 1 }));
}

/** Tells `endpoints` what was found last. When the store is away, they keep what they know until it is too old. */
export async function readHealth(table: EdgeTable, env: unknown, endpoints: Endpoints): Promise<void> {
  try {
    const watched = watchedBy(table, env);
    const findings = await storeOf(table, env).get(keyFor(watched));
    const now = Date.now();
    for (const { key, backend } of watched) endpoints.setHealth(backend, findingOf(findings, key)[0] === 1, now);
  } catch (error) {
    console.error(line({ event: "health-unread", error: (error as Error).name }));
  }
}

/** What the store holds may be of another hand or another version: what cannot be understood is as if nothing had been found. */
function findingOf(stored: unknown, key: string): Finding {
  const [healthy, against] = [(stored as Partial<Findings> | null)?.[key]].flat();
  return (healthy === 0 || healthy === 1) && Number.isInteger(against) ? [healthy, against as number] : [1, 0];
}

interface Watched {
  readonly key: string;
  readonly backend: TableBackend;
  readonly health: TableHealth;
  readonly ingress: Ingress;
  readonly url: string;
}

/** Each address once, though many backends may differ in what is done to their requests. */
function watchedBy({ backends, clusters }: EdgeTable, env: unknown): Watched[] {
  const found = new Map<string, Watched>();
  const ingresses = new Map<string, Ingress>();
  for (const backend of backends) {
    const cluster = clusters[backend.cluster] as TableCluster;
    const { health } = cluster;
    const key = endpointKey(backend);
    if (!health || found.has(key)) continue;
    const ingress = ingressOf(cluster, env, ingresses);
    const url = `${originOf(backend, cluster, ingress)}${ingress.path}${backend.path ?? ""}${health.path}`;
    found.set(key, { key, backend, health, ingress, url });
  }
  return [...found.values()];
}

function originOf({ host }: TableBackend, { name, scheme }: TableCluster, { origin }: Ingress): string {
  if (host === undefined) return origin ?? `${scheme}://${name}`;
  const { protocol, port } = origin ? new URL(origin) : { protocol: `${scheme}:`, port: "" };
  return `${protocol}//${host}${port && `:${port}`}`;
}

/**
 * One for whatever is asked: two environments that share a store and differ in their addresses do not take each other's findings for
 * their own, and a deployment that asks the same goes on with them.
 */
const keyFor = (watched: readonly Watched[]): string => {
  const asked = watched.map(({ key, url }) => `${key}\n${url}`).sort();
  return `portcullis:health:${hash32(asked.join("\n")).toString(36)}`;
};

async function answersWell({ url, ingress, health: { expect, timeout } }: Watched): Promise<boolean> {
  try {
    const response = await ingress.fetch(url, {
      headers: { "user-agent": "Portcullis-Health" },
      redirect: "manual",
      signal: AbortSignal.timeout(timeout),
    });
    await response.body?.cancel();
    return expect ? expect.includes(response.status) : response.ok;
  } catch {
    return false;
  }
}

function storeOf({ gateway: { store } }: EdgeTable, env: unknown): Redis {
  if (!store) throw new Error("health checks need the gateway's store");
  return new Redis({
    url: textOf(store.url, env),
    token: textOf(store.token, env),
    enableTelemetry: false,
    retry: false,
    signal: () => AbortSignal.timeout(PATIENCE),
  });
}

const line = (facts: Readonly<Record<string, unknown>>): string =>
  JSON.stringify({ v: 1, time: new Date().toISOString(), ...facts });
