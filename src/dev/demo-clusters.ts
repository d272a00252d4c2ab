/**
 * Two clusters for the demo, each one server that stands for an ingress with its services behind it. `eu` finds a service by the
 * path in front (`/orders/v1/orders`), `us` by Host (`orders.us.shop.internal`), as routes/clusters.ts says.
 *
 * What they do for demonstrations, on any service: every JSON answer has under `received` the headers by which the gateway tells the
 * origin who is calling; `?fail=eu` makes that cluster answer 503; `?delay=500` makes it wait, in milliseconds, at most 10 s.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { setTimeout as wait } from "node:timers/promises";
import { decodeJwt } from "jose";
import { type WebSocket, WebSocketServer } from "ws";
import { close, listen } from "./loopback.ts";

export interface RunningCluster {
  readonly name: string;
  readonly port: number;
  readonly url: string;
  close(): Promise<void>;
}

interface Call {
  readonly method: string;
  /** As the service sees it, without what the ingress routes by. */
  readonly path: string;
  readonly query: URLSearchParams;
  readonly request: IncomingMessage;
  /** The subject, as the gateway says. */
  readonly user: string | undefined;
}

interface Answer {
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body: Readonly<Record<string, unknown>>;
}

type Service = (call: Call) => Answer | Promise<Answer>;

const PRODUCTS = [
  { sku: "kettle-12", name: "Stovetop kettle, 1.2 l", price: "39.00", currency: "EUR", stock: 42 },
  { sku: "pan-28", name: "Carbon steel pan, 28 cm", price: "54.50", currency: "EUR", stock: 17 },
  { sku: "knife-18", name: "Chef's knife, 18 cm", price: "89.00", currency: "EUR", stock: 8 },
  { sku: "board-oak", name: "Chopping board, oak", price: "32.90", currency: "EUR", stock: 63 },
  { sku: "grinder-1", name: "Coffee grinder, hand-cranked", price: "74.00", currency: "EUR", stock: 0 },
] as const;

const notFound = (what: string): Answer => ({ status: 404, body: { error: `no ${what}` } });

const catalog: Service = ({ path }) => {
  const sku = /^\/v1\/products\/([^/]+)$/.exec(path)?.[1];
  if (!sku) return /^\/v1\/products\/?$/.test(path) ? { body: { products: PRODUCTS } } : notFound("such page");
  const product = PRODUCTS.find((candidate) => candidate.sku === sku);
  return product ? { body: { ...product } } : notFound("such product");
};

const search: Service = ({ query }) => {
  const words = (query.get("q") ?? "").toLowerCase();
  return { body: { q: words, results: PRODUCTS.filter(({ name }) => name.toLowerCase().includes(words)) } };
};

interface Order {
  readonly id: string;
  readonly sku: string;
  readonly quantity: number;
}

/** Orders live as long as the demo: the newest 20 of a caller, of at most 1,000 callers. */
function ordersService(version: "v1" | "v2"): Service {
  const placed = new Map<string, Order[]>();
  const track = version === "v1" ? "stable" : "canary";
  const shown = ({ id, sku, quantity }: Order) => {
    const product = PRODUCTS.find((candidate) => candidate.sku === sku);
    const total = (Number(product?.price ?? 0) * quantity).toFixed(2);
    // The rewrite knows the name and the sum, so that the two versions can be told apart by what they say.
    return version === "v1" ? { id, sku, quantity } : { id, quantity, product: product?.name, total };
  };
  return async ({ method, path, request, user }) => {
    if (!user) return { status: 401, body: { error: "no x-user-id: this request did not come through the gateway" } };
    const orders = placed.get(user) ?? [{ id: "1001", sku: "kettle-12", quantity: 1 }];
    if (method === "POST") {
      const { sku, quantity = 1 } = await bodyOf(request);
      if (!PRODUCTS.some((product) => product.sku === sku)) return { status: 422, body: { error: "no such product" } };
      const order: Order = {
        id: String(1001 + orders.length),
        sku: String(sku),
        quantity: Math.max(1, Number(quantity) || 1),
      };
      if (placed.size < 1000 || placed.has(user)) placed.set(user, [...orders, order].slice(-20));
      return {
        status: 201,
        headers: { location: `/v1/orders/${order.id}` },
        body: { version, track, order: shown(order) },
      };
    }
    const id = /^\/v1\/orders\/([^/]+)$/.exec(path)?.[1];
    if (!id) return { body: { version, track, customer: user, orders: orders.map(shown) } };
    const order = orders.find((candidate) => candidate.id === id);
    return order ? { body: { version, track, order: shown(order) } } : notFound("such order");
  };
}

const admin: Service = ({ path, user }) => ({
  body: { page: path, staff: user, soldOut: PRODUCTS.filter(({ stock }) => stock === 0).map(({ sku }) => sku) },
});

async function bodyOf(request: IncomingMessage): Promise<Record<string, unknown>> {
  let text = "";
  for await (const chunk of request.setEncoding("utf8")) if (text.length < 10_000) text += chunk;
  try {
    return Object(JSON.parse(text));
  } catch {
    return {};
  }
}

/** `X-User-*`, `X-Consumer-*`, `X-Forwarded-*` and the like; of the gateway's assertion its claims, not the token. */
function received(request: IncomingMessage): Record<string, unknown> {
  const told = Object.entries(request.headers).filter(([name]) =>
    /^x-(?:user|consumer|forwarded|real-ip|request-id)/.test(name),
  );
  const assertion = request.headers["x-portcullis-assertion"];
  return {
    host: request.headers.host,
    ...Object.fromEntries(told),
    ...(typeof assertion === "string" && { "x-portcullis-assertion": decodeJwt(assertion) }),
  };
}

/** Stock levels each second; whatever a client sends comes back as it is. */
function serveFeed(socket: WebSocket): void {
  let seconds = 0;
  const timer = setInterval(() => {
    const { sku, stock } = PRODUCTS[seconds++ % PRODUCTS.length] as (typeof PRODUCTS)[number];
    socket.send(JSON.stringify({ sku, stock: Math.max(0, stock - (seconds % 7)) }));
  }, 1_000);
  socket.on("message", (message, binary) => socket.send(message, { binary }));
  socket.on("close", () => clearInterval(timer));
  socket.on("error", () => socket.terminate());
}

type Found = { readonly service: string; readonly url: URL };

/** `port` defaults to a free one. */
async function startCluster(
  name: string,
  services: Readonly<Record<string, Service>>,
  find: (request: IncomingMessage) => Found | undefined,
  port?: number,
): Promise<RunningCluster> {
  const feed = new WebSocketServer({ noServer: true });
  const server = createServer((request, response) => {
    // Whoever went away in the middle of a request, or wrote what no gateway writes, gets no answer; the cluster goes on.
    answer(request, response).catch(() => response.destroy());
  });

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const found = find(request);
    const service = found && services[found.service];
    if (!found || !service) return send(response, "ingress", request, notFound("such service"));
    const { pathname: path, searchParams: query } = found.url;
    const user = request.headers["x-user-id"]?.toString();
    const delay = Number(query.get("delay"));
    if (delay > 0) await wait(Math.min(delay, 10_000));
    const given =
      query.get("fail") === name
        ? { status: 503, body: { error: `${name} was asked to fail` } }
        : await service({ method: request.method ?? "GET", path, query, request, user });
    send(response, found.service, request, given);
  }

  function send(response: ServerResponse, service: string, request: IncomingMessage, given: Answer): void {
    const { status = 200, headers, body } = given;
    const document = { ...body, servedBy: `${name}/${service}`, received: received(request) };
    const text = `${JSON.stringify(document, null, 2)}\n`;
    response
      .writeHead(status, {
        "content-type": "application/json",
        "content-length": Buffer.byteLength(text),
        "x-served-by": `${name}/${service}`,
        ...headers,
      })
      .end(text);
  }

  server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    if (find(request)?.service !== "feed") return socket.end("HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n");
    feed.handleUpgrade(request, socket, head, serveFeed);
  });
  const actual = await listen(server, port);
  return {
    name,
    port: actual,
    url: `http://127.0.0.1:${actual}`,
    async close() {
      for (const client of feed.clients) client.terminate();
      await close(server);
    },
  };
}

const feedWithoutUpgrade: Service = () => ({
  status: 426,
  headers: { upgrade: "websocket" },
  body: { error: "the feed is a WebSocket" },
});

/** Frankfurt. */
export function startEu(port?: number): Promise<RunningCluster> {
  const services = {
    catalog,
    search,
    admin,
    orders: ordersService("v1"),
    "orders-next": ordersService("v2"),
    feed: feedWithoutUpgrade,
  };
  return startCluster(
    "eu",
    services,
    (request) => {
      const [, service = "", rest = "/"] = /^\/([^/?]+)(.*)$/s.exec(request.url ?? "") ?? [];
      const url = URL.parse(rest, "http://eu");
      return url ? { service, url } : undefined;
    },
    port,
  );
}

/** Virginia. Has neither the staff's pages nor the rewrite of the orders. */
export function startUs(port?: number): Promise<RunningCluster> {
  return startCluster(
    "us",
    { catalog, search, orders: ordersService("v1") },
    (request) => {
      const service = /^([a-z-]+)\.us\.shop\.internal$/.exec(request.headers.host ?? "")?.[1];
      const url = URL.parse(request.url ?? "/", "http://us");
      return service && url ? { service, url } : undefined;
    },
    port,
  );
}
