/** Active health checks: what one run finds and writes, and what isolates make of it, whatever stands in the store. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { checkHealth, readHealth } from "../../src/edge/health.ts";
import { Endpoints } from "../../src/traffic/endpoint.ts";
import { tableOf } from "./cluster-stub.ts";

const health = { path: "/healthz", timeout: 100, unhealthy: 2, healthy: 2 };
const plain = tableOf({});
const table = tableOf({
  gateway: { ...plain.gateway, store: { url: { env: "STORE" }, token: { secret: "TOKEN" } } },
  clusters: { eu: { name: "eu", ingress: { env: "EU" }, scheme: "https", assertion: false, health } },
  backends: [
    { name: "eu/a", cluster: "eu", path: "/a" },
    { name: "eu/b", cluster: "eu", host: "b.example.com" },
    { name: "eu/a, rewritten", cluster: "eu", path: "/a" },
  ],
});
const env = { EU: "https://eu.example.com/in", STORE: "https://store.example.com", TOKEN: "t" };

/** What is in the store, as JSON; undefined: it is away. */
let stored: string | null | undefined;
let statuses: Record<string, number>;
let asked: string[];

beforeEach(() => {
  stored = null;
  statuses = {};
  asked = [];
  vi.spyOn(console, "log").mockImplementation(() => {});
  vi.spyOn(console, "error").mockImplementation(() => {});
  vi.spyOn(globalThis, "fetch").mockImplementation(async (to, init) => {
    const url = String(to);
    if (!url.startsWith(env.STORE)) {
      asked.push(url);
      return new Response(null, { status: statuses[url] ?? 200 });
    }
    if (stored === undefined) throw new Error("away");
    // The client sends what it has as one pipeline, and wants values in base64.
    const [[command, , value] = []] = JSON.parse(String(init?.body)) as string[][];
    if (command === "set") stored = value as string;
    return Response.json([{ result: command === "set" ? "OK" : stored && btoa(stored) }]);
  });
});
afterEach(() => void vi.restoreAllMocks());

const A = "https://eu.example.com/in/a/healthz";
const B = "https://b.example.com/in/healthz";

async function healthOf(endpoints = new Endpoints(table.clusters)): Promise<boolean[]> {
  await readHealth(table, env, endpoints);
  return table.backends.slice(0, 2).map((backend) => endpoints.of(backend).unhealthyUntil <= Date.now());
}

describe("health checks", () => {
  it("ask each address once, and turn after so many findings in a row", async () => {
    statuses = { [B]: 503 };
    await checkHealth(table, env);
    expect(asked.toSorted()).toEqual([B, A]);
    expect(await healthOf()).toEqual([true, true]);
    await checkHealth(table, env);
    expect(await healthOf()).toEqual([true, false]);
    statuses = {};
    await checkHealth(table, env);
    expect(await healthOf()).toEqual([true, false]);
    await checkHealth(table, env);
    expect(await healthOf()).toEqual([true, true]);
  });

  it("leave what isolates know where the store is away", async () => {
    statuses = { [A]: 500 };
    await checkHealth(table, env);
    await checkHealth(table, env);
    const endpoints = new Endpoints(table.clusters);
    expect(await healthOf(endpoints)).toEqual([false, true]);
    stored = undefined;
    expect(await healthOf(endpoints)).toEqual([false, true]);
    await expect(checkHealth(table, env)).rejects.toThrow("away");
  });

  it.each([
    "nonsense",
    "[]",
    "7",
    '"text"',
    '{"eu\\n\\n/a":5,"eu\\nb.example.com\\n":["x"]}',
    '{"eu\\n\\n/a":[0,"x"]}',
    '{"eu\\n\\n/a":null}',
  ])("begin anew where the store holds %s", async (nonsense) => {
    stored = nonsense;
    expect((await healthOf())[1]).toBe(true);
    statuses = { [B]: 503 };
    await checkHealth(table, env);
    await checkHealth(table, env);
    expect(await healthOf()).toEqual([true, false]);
  });
});
