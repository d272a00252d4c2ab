/** Everything that differs between environments, named once. The values stand in wrangler.toml, secrets in the secret store. */
import { binding, env, secret } from "portcullis";

export const euIngress = env("EU_INGRESS");
export const usCluster = binding("US_CLUSTER");

export const issuerKeys = env("ISSUER_JWKS");

export const redisUrl = env("UPSTASH_REDIS_REST_URL");
export const redisToken = secret("UPSTASH_REDIS_REST_TOKEN");

export const assertionKey = secret("ASSERTION_KEY");
export const debugKey = secret("DEBUG_KEY");
export const canaryKey = secret("CANARY_KEY");
