/**
 * Active health checks. One cron trigger asks every watched endpoint and writes what it found into the store; every isolate everywhere
 * reads it from there, off the path of its requests. Only Workers whose table has health checks carry this file.
 */
import { Redis } from "@upstash/redis/cloudflare";
import type { EdgeTable, TableBackend, TableCluster, TableHealth } from "../table/table.ts";
import { type Endpoints, endpointKey } from "../traffic/endpoint.ts";
import { type Ingress, ingressOf, textOf } from "./environment.ts";

/** By endpoint: whether it counts as healthy, and how many findings in a row say the opposite. */
type Findings = Record<string, Finding>;
type Finding = readonly [healthy: 0 | 1, against: number];

const KEY = "portcullis:health";
// Seconds. When the trigger no longer runs, what it once found must not hold for ever: then all count as healthy.
const LIFETIME = 600;
// Milliseconds for the store. Nobody waits for it but the check itself.
const PATIENCE = 5_000;
// Connections that a Worker may wait for at once (Workers, "Simultaneous open connections").
const AT_ONCE = 6;

/** Asks all endpoints of clusters with health checks once. Logs each that changes. Throws when the store is away. */
export async function checkHealth(table: EdgeTable, env: unknown): Promise<void> {
  const store = storeOf(table, env);
  const before = await store.get(KEY);
  const after: Findings = {};
  const waiting = watched(table);
  const ingresses = new Map<string, Ingress>();
  const work = async () => {
    for (let next = waiting.pop(); next; next = waiting.pop()) {
      const { key, backend, cluster, health } = next;
      const [healthy, against] = findingOf(before, key);
      const good = await answersWell(backend, cluster, health, env, ingresses);
      const contrary = good === Boolean(healthy) ? 0 : against + 1;
      const turned = contrary >= (good ? health.healthy : health.unhealthy);
      after[key] = turned ? [good ? 1 : 0, 0] : [healthy, contrary];
      if (turned) log(backend, good);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  await store.set(KEY, after, { ex: LIFETIME });
}

/** Tells `endpoints` what was found last. Keeps what they know when the store is away. */
export async function readHealth(table: EdgeTable, env: unknown, endpoints: Endpoints): Promise<void> {
  try {
    const findings = await storeOf(table, env).get(KEY);
    const now = Date.now();
    for (const { key, backend } of watched(table)) endpoints.setHealth(backend, findingOf(findings, key)[0] === 1, now);
  } catch (error) {
    console.error(JSON.stringify({ event: "health-unread", error: (error as Error).name }));
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
  readonly cluster: TableCluster;
  readonly health: TableHealth;
}

/** Each address once, though many backends may differ in what is done to their requests. */
function watched({ backends, clusters }: EdgeTable): Watched[] {
  const found = new Map<string, Watched>();
  for (const backend of backends) {
    const cluster = clusters[backend.cluster] as TableCluster;
    const key = endpointKey(backend);
    if (cluster.health) found.set(key, { key, backend, cluster, health: cluster.health });
  }
  return [...found.values()];
}

async function answersWell(
  backend: TableBackend,
  cluster: TableCluster,
  { path, expect, timeout }: TableHealth,
  env: unknown,
  ingresses: Map<string, Ingress>,
): Promise<boolean> {
  try {
    const ingress = ingressOf(cluster, env, ingresses);
    const scheme = ingress.origin?.split(":", 1)[0] ?? cluster.scheme;
    // A binding knows where to go; it needs a Host all the same, and there is no client's.
    const origin = backend.host ? `${scheme}://${backend.host}` : (ingress.origin ?? `${scheme}://${cluster.name}`);
    const response = await ingress.fetch(`${origin}${ingress.path}${backend.path ?? ""}${path}`, {
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

const log = ({ name }: TableBackend, healthy: boolean) =>
  console.log(JSON.stringify({ v: 1, time: new Date().toISOString(), event: "health", backend: name, healthy }));
