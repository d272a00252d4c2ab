/**
 * What the tests stand on: the gateway in workerd, real nginx as the ingress of two clusters, a real redis-server behind the bridge,
 * an issuer, and the services in the clusters.
 */
import { exportJWK, generateKeyPair } from "jose";
import { describe } from "vitest";
import { type RunningRedis, redisServerAvailable, startRedisServer } from "../../src/dev/redis.ts";
import { startUpstashBridge } from "../../src/dev/upstash-bridge.ts";
import { isThere } from "../real-parts.ts";
import { type Answer, type Asking, ask, open, type RawAnswer, write } from "./client.ts";
import { Gateway } from "./gateway.ts";
import { Ingress, nginx } from "./ingress.ts";
import { AUDIENCE, ISSUER, Issuer } from "./issuer.ts";
import { Origin } from "./origin.ts";

/** `describe` for tests that need nginx and redis-server, and what else is named. */
export function describeWithRealParts(
  title: string,
  body: () => void,
  others: Readonly<Record<string, boolean>> = {},
): void {
  const parts = { nginx: nginx !== undefined, "redis-server": redisServerAvailable(), ...others };
  const missing = Object.entries(parts).flatMap(([part, present]) => (present ? [] : [part]));
  if (isThere(missing.join(" and no "), missing.length === 0)) {
    describe(title, body);
  } else {
    console.warn(`skipped: there is no ${missing.join(" and no ")} on the PATH`);
    describe.skip(title, body);
  }
}

/** What none of the logs may show. */
export const secrets = {
  store: "the-token-of-the-redis-bridge",
  debug: "the-key-of-the-debug-header",
  canary: "the-key-of-the-canary",
};

/**
 * The head of every routes module here. `eu` finds services by path, `us` stands behind a binding and finds them by Host, and
 * `origin` is a service without an ingress in front, for what an ingress would change.
 */
export const PREAMBLE = `
import { api, binding, cluster, concurrency, consumer, cors, env, filter, gateway, headers, ipFilter, jwt, rateLimit, redirect, requestId,
  route, scopes, secret, securityHeaders, split, without } from "portcullis";
const eu = cluster("eu", { ingress: env("EU_INGRESS"), services: { path: "/{service}" } });
const us = cluster("us", { ingress: binding("US_CLUSTER"), services: { host: "{service}.us.shop.internal" } });
const origin = cluster("origin", { ingress: env("ORIGIN") });
const storefront = consumer("storefront", { claims: { client_id: "storefront" } });
const token = jwt({
  issuer: ${JSON.stringify(ISSUER)}, audience: ${JSON.stringify(AUDIENCE)}, jwks: env("ISSUER_JWKS"), consumers: [storefront],
  claimsToHeaders: { sub: "x-user-id", email: "x-user-email" }, keySet: { coolDown: "1s" },
});
const settings = {
  policies: [requestId({})],
  store: { url: env("REDIS_URL"), token: secret("REDIS_TOKEN") },
  debug: secret("DEBUG_KEY"),
  assertion: { key: secret("ASSERTION_KEY"), issuer: ${JSON.stringify(AUDIENCE)} },
};
`;

export interface FixtureParts {
  /** What stands below PREAMBLE; must export the gateway. */
  readonly routes: string;
  readonly texts?: Readonly<Record<string, string>>;
  /** Whether requests tell `request.cf` in CF_HEADER (gateway.ts). */
  readonly cf?: boolean;
}

/** What the tests of one file stand on. */
export class Fixture {
  readonly gateway: Gateway;
  readonly issuer: Issuer;
  readonly eu: Ingress;
  readonly us: Ingress;
  /** The cluster `origin`. */
  readonly origin: Origin;
  /** By cluster and service. */
  readonly origins: Readonly<Record<"eu/orders" | "eu/orders-next" | "us/orders" | "us/orders-next", Origin>>;
  redis: RunningRedis;
  readonly #parts: Parts;
  readonly #others: Gateway[] = [];

  private constructor(gateway: Gateway, parts: Parts) {
    this.gateway = gateway;
    ({
      issuer: this.issuer,
      eu: this.eu,
      us: this.us,
      origin: this.origin,
      origins: this.origins,
      redis: this.redis,
    } = parts);
    this.#parts = parts;
  }

  static async start({ routes, texts = {}, cf = false }: FixtureParts): Promise<Fixture> {
    const parts = await startParts(texts, cf);
    return new Fixture(await parts.gateway(routes), parts);
  }

  /** Another gateway in front of the same parts, for what a whole gateway decides. The caller closes it. */
  async another(routes: string): Promise<Gateway> {
    const gateway = await this.#parts.gateway(routes);
    this.#others.push(gateway);
    return gateway;
  }

  ask(path: string, asking?: Asking): Promise<Answer> {
    return ask(this.gateway.port, path, asking);
  }

  open(path: string, asking?: Asking): ReturnType<typeof open> {
    return open(this.gateway.port, path, asking);
  }

  write(bytes: string | Uint8Array, end?: boolean): Promise<RawAnswer> {
    return write(this.gateway.port, bytes, end);
  }

  /** The secrets that the logs of all gateways show: there must be none. */
  leaked(): string[] {
    const log = [this.gateway, ...this.#others].map((gateway) => gateway.log()).join("");
    const signatures = this.issuer.minted.map((token) => token.slice(token.lastIndexOf(".") + 1));
    return [...Object.values(secrets), this.#parts.assertionKey, ...signatures].filter((secret) =>
      log.includes(secret),
    );
  }

  /** Where the gateway finds its store; the token is `secrets.store`. */
  get storeUrl(): string {
    return this.#parts.bridge.url;
  }

  /** Asks Redis over the bridge, as the gateway does. */
  async redisCommand(command: readonly (string | number)[]): Promise<unknown> {
    const response = await fetch(this.#parts.bridge.url, {
      method: "POST",
      headers: { authorization: `Bearer ${secrets.store}` },
      body: JSON.stringify(command),
    });
    return response.json();
  }

  async killRedis(): Promise<void> {
    await this.redis.close();
  }

  /** On the port that it had, and empty. */
  async startRedis(): Promise<void> {
    this.redis = await startRedisServer({ port: this.redis.port });
  }

  async close(): Promise<void> {
    await this.gateway.close();
    await this.redis.close();
    await this.#parts.close();
  }
}

type Parts = Awaited<ReturnType<typeof startParts>>;

async function startParts(texts: Readonly<Record<string, string>>, cf: boolean) {
  const names = ["origin", "eu/orders", "eu/orders-next", "us/orders", "us/orders-next"] as const;
  const services = await Promise.all(names.map((name) => Origin.start(name)));
  const [origin, euOrders, euNext, usOrders, usNext] = services as [Origin, Origin, Origin, Origin, Origin];
  const [eu, us, issuer, redis, assertionKey] = await Promise.all([
    Ingress.start("eu", { paths: { orders: euOrders.port, "orders-next": euNext.port } }),
    Ingress.start("us", {
      hosts: {
        "orders.us.shop.internal": usOrders.port,
        "orders-next.us.shop.internal": usNext.port,
        "api.example.com": usOrders.port,
      },
    }),
    Issuer.start(),
    startRedisServer(),
    generateKeyPair("ES256", { extractable: true }).then(({ privateKey }) => exportJWK(privateKey)),
  ]);
  const bridge = await startUpstashBridge({ redis, token: secrets.store });
  const environment = {
    EU_INGRESS: eu.url,
    ORIGIN: `http://127.0.0.1:${origin.port}`,
    ISSUER_JWKS: issuer.jwksUrl,
    REDIS_URL: bridge.url,
    REDIS_TOKEN: secrets.store,
    DEBUG_KEY: secrets.debug,
    CANARY_KEY: secrets.canary,
    ASSERTION_KEY: JSON.stringify({ ...assertionKey, kid: "assertion-1", alg: "ES256" }),
    ...texts,
  };
  return {
    issuer,
    eu,
    us,
    origin,
    origins: { "eu/orders": euOrders, "eu/orders-next": euNext, "us/orders": usOrders, "us/orders-next": usNext },
    redis,
    bridge,
    assertionKey: assertionKey.d as string,
    gateway: (routes: string) =>
      Gateway.start({
        routes: PREAMBLE + routes,
        texts: environment,
        services: { US_CLUSTER: us.port },
        cf,
      }),
    async close() {
      await bridge.close();
      await Promise.all([eu, us, issuer, ...services].map((part) => part.close()));
    },
  };
}
