/**
 * What the check of a known API key costs, without the rest of a request: `/none?n=1000` makes what a policy gets of a request, a
 * thousand times over; `/key?n=1000` also runs the policy on it. The store answers from here, once.
 */

import { compile, run } from "../../src/policies/api-key.ts";
import type { Exchange, GatewayContext, GatewayRuntime } from "../../src/policies/contract.ts";
import type { RouteTable, TableRoute } from "../../src/table/table.ts";

// A good checksum; random numbers are not to be had in the global scope.
const key = "key_00000000000000000000000000000000_0PkCtI";
const record = JSON.stringify({ id: "bench", consumer: "partner", created: 0, scopes: ["orders:read"] });
globalThis.fetch = async () => Response.json({ result: record });

const runtime: GatewayRuntime = {
  table: {
    gateway: { store: { url: { env: "URL" }, token: { secret: "TOKEN" } } },
    consumers: { partner: { name: "partner", groups: ["partners"] } },
  } as unknown as RouteTable,
  text: () => "https://store.example.com",
  middleware: {},
  now: () => Date.now(),
  rulePack: () => {
    throw new Error("not asked for");
  },
  authenticator: () => {
    throw new Error("not asked for");
  },
};
const told = (message: string): never => {
  throw new Error(message);
};
const config = compile(
  {},
  {
    place: "",
    problem: told,
    reference: () => told("no references"),
    identityHeaders: () => {},
    ruleSet: () => undefined,
    member: () => undefined,
  },
);
const policy = run(config, runtime, "enforce");
const next = () => Promise.resolve();

export default {
  async fetch(request: Request): Promise<Response> {
    const url = new URL(request.url);
    const headers = new Headers(request.headers);
    headers.set("x-api-key", key);
    const asked = new Request("https://api.example.com/v1/orders", { headers });
    const received = [...headers];
    const checks = url.pathname === "/key";
    for (let left = Number(url.searchParams.get("n")); left > 0; left--) {
      const context = contextOf(asked, received);
      const answer = checks ? await policy(context, next) : await next();
      if (answer) return answer;
    }
    return new Response("done");
  },
};

function contextOf(request: Request, received: Exchange["received"]): GatewayContext {
  const exchange = {
    route: { api: "orders" } as TableRoute,
    search: "",
    received,
    upstream: new Headers(request.headers),
    responseEdits: [],
    record: { policies: [] },
    waitUntil: () => {},
  } as unknown as Exchange;
  return { req: { raw: request }, env: {}, get: () => exchange } as unknown as GatewayContext;
}
