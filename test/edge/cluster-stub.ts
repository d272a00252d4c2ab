/** The whole handler on a table made by hand, in front of a stubbed `fetch`: clusters are outside. */
import { vi } from "vitest";
import { createGateway } from "../../src/edge/gateway.ts";
import type { DecisionRecord } from "../../src/policies/contract.ts";
import { indexMatches } from "../../src/table/match.ts";
import type { RouteTable, TableRoute } from "../../src/table/table.ts";

/** What `fetch` was called with. */
export interface Asked {
  readonly url: string;
  readonly headers: Headers;
}

export interface Answered {
  readonly response: Response;
  readonly asked: readonly Asked[];
  readonly record: DecisionRecord;
}

/** A table with one cluster, whose ingress is `https://eu.example.com/in`. */
export const tableOf = (parts: Partial<RouteTable>): RouteTable => ({
  version: 1,
  id: "0",
  gateway: {
    escapedSlashes: "refuse",
    forwardedFor: "overwrite",
    trustedProxies: [],
    maxUrl: 500,
    maxBody: 100,
    timeouts: { connect: 1_000, firstByte: 1_000, total: 1_000 },
  },
  environment: { vars: [], secrets: [], bindings: [] },
  clusters: { eu: { name: "eu", ingress: { env: "EU" }, scheme: "https", assertion: false } },
  consumers: {},
  policies: [],
  backends: [{ name: "eu", cluster: "eu" }],
  pools: [],
  routes: [],
  unmatched: [],
  identityHeaders: [],
  overrideCookies: [],
  ...parts,
});

/** A route for everything below `path`, to the table's first backend. */
export const routeOf = (path: string, parts: Partial<TableRoute> = {}): TableRoute => ({
  id: `test${path}`,
  api: "test",
  hosts: ["*"],
  matches: [{ path: { kind: "prefix", value: path } }],
  policies: [],
  action: { kind: "forward", backends: [0] },
  ...parts,
});

/** One request. `origin` answers for the cluster; default: 200 with the text `origin`. */
export async function ask(
  table: RouteTable,
  url: string,
  init: RequestInit = {},
  origin: (asked: Asked) => Response | Promise<Response> = () => new Response("origin"),
): Promise<Answered> {
  const asked: Asked[] = [];
  const records: DecisionRecord[] = [];
  const spies = [
    vi.spyOn(globalThis, "fetch").mockImplementation(async (to, { headers } = {}) => {
      asked.push({ url: String(to), headers: new Headers(headers) });
      return origin(asked.at(-1) as Asked);
    }),
    vi.spyOn(console, "log").mockImplementation((line) => void records.push(JSON.parse(line))),
  ];
  try {
    const app = createGateway({
      table,
      index: indexMatches(table.routes, table.listeners),
      runs: {},
      middleware: {},
    });
    const context = { waitUntil: () => {}, passThroughOnException: () => {}, props: {} };
    const env = { EU: "https://eu.example.com/in", REGION: "weur" };
    const response = await app.fetch(new Request(url, { redirect: "manual", ...init }), env, context as never);
    return { response, asked, record: records[0] as DecisionRecord };
  } finally {
    for (const spy of spies) spy.mockRestore();
  }
}
