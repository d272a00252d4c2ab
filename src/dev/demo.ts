/** Everything that the gateway of the demo talks to: two clusters, the issuer, Redis behind its REST bridge. */
import { startEu, startUs } from "./demo-clusters.ts";
import type { DemoEnvironment } from "./environment.ts";
import { type DevKeys, startIssuer } from "./issuer.ts";
import { type RunningRedis, redisServerAvailable, startEmbeddedRedis, startRedisServer } from "./redis.ts";
import { startUpstashBridge } from "./upstash-bridge.ts";

export interface Demo {
  readonly environment: DemoEnvironment;
  /** Name, address and a remark, for the banner. */
  readonly running: readonly (readonly [name: string, address: string, remark: string])[];
  /** Twice is fine. */
  close(): Promise<void>;
}

/** Rejects when a part does not start; then none is left running. */
export async function startDemo(keys: DevKeys, redisKind: "embedded" | "real"): Promise<Demo> {
  const parts: { close(): Promise<void> }[] = [];
  let closing: Promise<void> | undefined;
  const close = () => (closing ??= Promise.all(parts.map((part) => part.close())).then(() => {}));
  const part = async <Part extends { close(): Promise<void> }>(starting: Promise<Part>): Promise<Part> => {
    const running = await starting;
    parts.push(running);
    return running;
  };
  const starting = [part(startEu()), part(startUs()), part(startIssuer()), part(startRedis(redisKind))] as const;
  try {
    const [eu, us, issuer, redis] = await Promise.all(starting);
    const bridge = await part(startUpstashBridge({ redis, token: keys.redisToken }));
    return {
      environment: {
        EU_INGRESS: eu.url,
        US_CLUSTER: us.url,
        ISSUER_JWKS: issuer.jwksUrl,
        UPSTASH_REDIS_REST_URL: bridge.url,
        UPSTASH_REDIS_REST_TOKEN: keys.redisToken,
        ASSERTION_KEY: JSON.stringify(keys.assertion),
        DEBUG_KEY: keys.debug,
        CANARY_KEY: keys.canary,
      },
      running: [
        ["eu", eu.url, "an ingress that finds the service by path: /{service}/..."],
        ["us", us.url, "an ingress that finds the service by Host: {service}.us.shop.internal"],
        ["issuer", issuer.jwksUrl, ""],
        ["redis", `${redis.host}:${redis.port}`, `${redisKind}, as Upstash's REST at ${bridge.url}`],
      ],
      close,
    };
  } catch (error) {
    await Promise.allSettled(starting);
    await close();
    throw error;
  }
}

async function startRedis(kind: "embedded" | "real"): Promise<RunningRedis> {
  if (kind === "embedded") return startEmbeddedRedis();
  if (redisServerAvailable()) return startRedisServer();
  throw new Error(
    "there is no redis-server on the PATH; install one (Debian: apt install redis-server) or leave out --redis real",
  );
}
