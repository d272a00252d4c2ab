/** What is measured, each a process of its own: the same request to the same origin, by different ways. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import { redisServerAvailable, startEmbeddedRedis, startRedisServer } from "../src/dev/redis.ts";
import type { Row } from "./measure.ts";
import type { OriginOptions } from "./origin.ts";
import { type Running, startNginx, startWorkerd } from "./processes.ts";
import { HEADERS } from "./waf-requests.ts";

/**
 * - `bare`, `hono`, `nginx`: proxies that do nothing else
 * - `gateway`, `routes`: the gateway with 10 and with 10,000 routes; `miss` and `routes-miss` ask it for a path of no route
 * - `limiter`, `leased`: the gateway with 10 routes and a limit, counted exactly or in leases
 * - `resilient`: the gateway with 10 routes and all that there is for bad days, on a good one
 * - `far`, `mirrored`: the gateway with 10 routes before an origin that answers after DISTANCE, without and with a mirror; `far-again`
 *   is the first once more, in a process of its own
 */
export type RowName =
  | "bare"
  | "gateway"
  | "limiter"
  | "leased"
  | "resilient"
  | "far"
  | "far-again"
  | "mirrored"
  | "routes"
  | "miss"
  | "routes-miss"
  | "hono"
  | "nginx";

/** Milliseconds: another city's cluster. */
export const DISTANCE = 5;

/** Starts what the rows of these names need, and the origin that all of them ask. */
export async function startRows(names: readonly RowName[], nginx: boolean): Promise<Row[]> {
  const { token, jwks } = await issuer();
  const origin = await startOrigin(nginx);
  const far = names.includes("far") || names.includes("mirrored") ? await startThreadedOrigin(DISTANCE) : origin;
  const gatewayBindings = { ORIGIN: origin, ISSUER_JWKS: jwks, REDIS_URL: "http://127.0.0.1:9", REDIS_TOKEN: "unused" };
  const found = requestFor("/v1/orders-500/4711/items?page=2", token);
  const missing = requestFor("/v1/orders-500/4711/nothing?page=2", token);
  const row = async (name: RowName, running: Promise<Running>, request = found, status = 200): Promise<Row> => ({
    name,
    running: await running,
    request,
    status,
  });
  const worker = (name: string, bindings: Record<string, string>) => startWorkerd({ name, bindings });
  const rows: Record<RowName, () => Promise<Row>> = {
    bare: () => row("bare", worker("bare", { ORIGIN: origin })),
    gateway: () => row("gateway", worker("ten", gatewayBindings)),
    limiter: async () => row("limiter", worker("limited", { ...gatewayBindings, ...(await startStore()) })),
    resilient: () => row("resilient", worker("resilient", gatewayBindings)),
    far: () => row("far", worker("ten", { ...gatewayBindings, ORIGIN: far })),
    "far-again": () => row("far-again", worker("ten", { ...gatewayBindings, ORIGIN: far })),
    mirrored: () => row("mirrored", worker("mirrored", { ...gatewayBindings, ORIGIN: far, SHADOW: origin })),
    leased: async () => row("leased", worker("leased", { ...gatewayBindings, ...(await startStore()) })),
    routes: () => row("routes", worker("ten-thousand", gatewayBindings)),
    miss: () => row("miss", worker("ten", gatewayBindings), missing, 404),
    "routes-miss": () => row("routes-miss", worker("ten-thousand", gatewayBindings), missing, 404),
    hono: () => row("hono", worker("hono-proxy", { ORIGIN: origin })),
    nginx: () =>
      row(
        "nginx",
        startNginx(
          "proxy",
          `upstream origin { server ${new URL(origin).host}; keepalive 64; keepalive_requests 100000000; }
  server {
    listen 127.0.0.1:$PORT;
    location / { proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; }
  }`,
        ),
      ),
  };
  return Promise.all(names.map((name) => rows[name]()));
}

/** With one more header that browsers send, and the token. */
function requestFor(target: string, token: string): string {
  return [
    `GET ${target} HTTP/1.1`,
    ...HEADERS,
    "Sec-Fetch-Site: same-site",
    `Authorization: Bearer ${token}`,
    "",
    "",
  ].join("\r\n");
}

async function issuer(): Promise<{ token: string; jwks: string }> {
  const { privateKey, publicKey } = await generateKeyPair("ES256");
  const keys = JSON.stringify({ keys: [{ ...(await exportJWK(publicKey)), kid: "bench", alg: "ES256", use: "sig" }] });
  const server = createServer((_, response) => response.setHeader("content-type", "application/json").end(keys));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const token = await new SignJWT({ email: "alice@example.com", scope: "orders:read orders:write" })
    .setProtectedHeader({ alg: "ES256", kid: "bench", typ: "at+jwt" })
    .setIssuer("https://login.example.com")
    .setAudience("https://api.example.com")
    .setSubject("user-4711")
    .setIssuedAt()
    .setExpirationTime("2h")
    .sign(privateKey);
  return { token, jwks: `http://127.0.0.1:${(server.address() as AddressInfo).port}/jwks.json` };
}

/** Resolves to its URL. One answer for all paths, with headers of which the gateway takes some away. */
export async function startOrigin(nginx: boolean): Promise<string> {
  if (!nginx) return startThreadedOrigin();
  const added = Object.entries(ANSWER.headers)
    .slice(1)
    .map(([name, value]) => `add_header ${name} '${value}';`);
  const { port } = await startNginx(
    "origin",
    `server { listen 127.0.0.1:$PORT; location / { default_type application/json; ${added.join(" ")} return 200 '${ANSWER.body}'; } }`,
  );
  return `http://127.0.0.1:${port}`;
}

async function startThreadedOrigin(delay = 0): Promise<string> {
  const options: OriginOptions = { ...ANSWER, delay };
  return `http://127.0.0.1:${await startThread<number>("origin", options)}`;
}

const ANSWER = {
  headers: {
    "content-type": "application/json",
    "cache-control": "private, max-age=0",
    etag: '"5d8c72a5edda8d6a"',
    "x-powered-by": "Express",
    "x-backend": "orders-7d9f",
  },
  body: JSON.stringify({
    order: "4711",
    page: 2,
    items: [1, 2, 3, 4].map((id) => ({
      id,
      sku: `KB-${id}00-DE`,
      name: "Mechanical keyboard",
      quantity: id,
      price: "89.90",
    })),
  }),
};

async function startStore(): Promise<Record<"REDIS_URL" | "REDIS_TOKEN", string>> {
  const { host, port } = await (redisServerAvailable() ? startRedisServer() : startEmbeddedRedis());
  const token = "bench";
  return { REDIS_URL: await startThread<string>("bridge", { redis: { host, port }, token }), REDIS_TOKEN: token };
}

/** Starts a module of this folder in a thread; resolves to the first thing that it says. */
function startThread<Said>(name: string, workerData: object): Promise<Said> {
  return new Promise((resolve, reject) => {
    new Worker(join(import.meta.dirname, `${name}.ts`), { workerData }).once("message", resolve).once("error", reject);
  });
}
