import { z } from "zod";
import type { Duration } from "../config/api.ts";
import type { ConsumerDeclaration } from "../config/consumer.ts";
import { type Deciding, policyBuilder } from "../config/policy.ts";
import { isKey, type KeyRecord, PREFIX, parseRecord, recordKey, sha256 } from "./api-key-format.ts";
import { admissionOf, authenticating, challenge, consumerFacts } from "./authentication.ts";
import { BoundedMemory } from "./bounded-memory.ts";
import type {
  Admission,
  Authentication,
  CompileContext,
  Exchange,
  GatewayContext,
  GatewayRuntime,
  MakeAuthenticator,
  PolicyRun,
  Refusal,
} from "./contract.ts";
import { type CredentialPlace, placeOf, placeSchema, readCredential } from "./credential-place.ts";
import { durationOption } from "./durations.ts";
import { storeOf } from "./store.ts";

export interface ApiKeyOptions extends Deciding {
  /** What keys begin with: lower case letters and digits, such as `shop` or `shop_live`. Default: `key`. */
  readonly prefix?: string;
  /** Default: `[{ header: "x-api-key" }]`. Different keys in one request are refused. */
  readonly keyFrom?: readonly CredentialPlace[];
  /** Whose keys are good here. Default: those of all consumers that keys were made for. */
  readonly consumers?: readonly ConsumerDeclaration[];
  /** Beside `consumers`, which then only tell of groups, metadata and plans, all others. Default: false where there are `consumers`. */
  readonly anyConsumer?: boolean;
  /** Requests without a key pass, with no caller; a key that is there must be valid. Default: false. */
  readonly optional?: boolean;
  /** Whether the origin gets the key too. Default: false. */
  readonly forwardKey?: boolean;
  /**
   * How long the store's answer about a key holds in an isolate, and so the longest time until a revocation counts everywhere. A key
   * in use is looked up again in the background after half of it. Default: `30s`.
   */
  readonly maxAge?: Duration;
  /** How long an isolate remembers that the store does not know a key. Default: `10s`. */
  readonly unknownFor?: Duration;
  /** While the store cannot be asked, how long a key that was good goes on; 503 for all others. `0s`: not at all. Default: `10m`. */
  readonly grace?: Duration;
  /** For one call of the store. Default: `500ms`. */
  readonly timeout?: Duration;
  /** How many good keys an isolate remembers; 0: none. Default: 10000, some 10 MB. */
  readonly remember?: number;
}

/**
 * Lets requests through by an API key and tells the origin whose it is. The store holds the SHA-256 of keys, never a key. 401
 * `credentials-missing` or `credentials-invalid`; 503 `credentials-unavailable` when the store cannot be asked about an unknown key.
 */
export const apiKey = policyBuilder<ApiKeyOptions>("apiKey");

export const schema = () =>
  z.strictObject({
    mode: z.enum(["enforce", "report", "off"]).optional(),
    prefix: z.string().regex(PREFIX, "must be lower case letters and digits, such as shop or shop_live").optional(),
    keyFrom: z.array(placeSchema()).min(1).optional(),
    consumers: z.array(z.looseObject({ kind: z.literal("consumer"), name: z.string() })).optional(),
    anyConsumer: z.boolean().optional(),
    optional: z.boolean().optional(),
    forwardKey: z.boolean().optional(),
    maxAge: z.string().optional(),
    unknownFor: z.string().optional(),
    grace: z.string().optional(),
    timeout: z.string().optional(),
    remember: z.int().min(0).max(100_000).optional(),
  });

/** Durations are in milliseconds. */
export interface ApiKeyConfig {
  readonly prefix: string;
  readonly keyFrom: readonly CredentialPlace[];
  /** By name; absent: any. */
  readonly consumers?: readonly string[];
  readonly optional: boolean;
  readonly forwardKey: boolean;
  readonly maxAge: number;
  readonly unknownFor: number;
  readonly grace: number;
  readonly timeout: number;
  readonly remember: number;
}

export function compile(options: ApiKeyOptions, context: CompileContext): ApiKeyConfig {
  const { consumers, anyConsumer = consumers === undefined } = options;
  if (consumers?.length === 0 && !anyConsumer)
    context.problem("apiKey accepts the keys of nobody", "list consumers, or leave `consumers` out");
  return {
    prefix: options.prefix ?? "key",
    keyFrom: options.keyFrom ?? [{ header: "x-api-key" }],
    ...(!anyConsumer && { consumers: [...new Set((consumers ?? []).map(({ name }) => name))].sort() }),
    optional: options.optional ?? false,
    forwardKey: options.forwardKey ?? false,
    maxAge: durationOption(context, "maxAge", options.maxAge, 30_000, 1_000),
    unknownFor: durationOption(context, "unknownFor", options.unknownFor, 10_000, 0),
    grace: durationOption(context, "grace", options.grace, 600_000, 0),
    timeout: durationOption(context, "timeout", options.timeout, 500, 1, 25_000),
    remember: options.remember ?? 10_000,
  };
}

const REASONS = {
  malformed: "the key is not written as keys are",
  unknown: "the key is not known",
  expired: "the key has expired",
  consumer: "the key is for another API",
  conflict: "the request carries different keys",
} as const;

/** What the store said of a key. */
interface Answered {
  readonly admission: Admission;
  readonly expires: number;
  /** Milliseconds since the epoch. */
  readonly asked: number;
  /** Until then somebody is asking again. */
  asking: number;
}

export const authenticator: MakeAuthenticator<ApiKeyConfig> = (config, runtime) => {
  const { prefix, maxAge, unknownFor, grace, timeout } = config;
  const places = config.keyFrom.map(placeOf);
  const known = new BoundedMemory<Answered>(config.remember);
  // By itself, so that who makes keys up pushes none of the good ones out.
  const unknown = new BoundedMemory<number>(Math.min(config.remember, MAX_UNKNOWN));

  const deny = (exchange: Exchange, why: keyof typeof REASONS, facts?: object): Refusal => ({
    refused: "credentials-invalid",
    extras: {
      detail: REASONS[why],
      headers: { "www-authenticate": challenge(exchange, "ApiKey") },
      facts: { why, ...facts },
    },
  });

  /** What is known of the key, as long as that holds. */
  const judge = (exchange: Exchange, { admission, expires }: Answered): Authentication => {
    const { consumer = "", credential } = admission.caller ?? {};
    if (runtime.now() >= expires) return deny(exchange, "expired", { id: credential?.id });
    if (config.consumers && !config.consumers.includes(consumer)) {
      return deny(exchange, "consumer", { id: credential?.id });
    }
    return admission;
  };

  const ask = async (c: GatewayContext, key: string, before: Answered | undefined): Promise<Authentication> => {
    const exchange = c.get("exchange");
    const store = storeOf(runtime, c.env);
    const started = runtime.now();
    const hash = await sha256(key);
    const answer = await store.ask(exchange, timeout, (redis) => redis.get<string>(recordKey(hash)));
    if ("value" in answer && answer.value === null) {
      known.delete(key);
      unknown.put(key, started + unknownFor);
      return deny(exchange, "unknown");
    }
    const record = "value" in answer ? parseRecord(answer.value as string) : undefined;
    if (record) {
      const { expires = Number.POSITIVE_INFINITY } = record;
      const answered = { admission: admissionByKey(record, runtime), expires, asked: started, asking: 0 };
      known.put(key, answered);
      return judge(exchange, answered);
    }
    const failure = "failure" in answer ? answer.failure : "no record";
    if (before && started < before.asked + Math.max(maxAge, grace)) {
      const judged = judge(exchange, before);
      return "refused" in judged ? judged : { ...judged, facts: { store: "failed", why: failure } };
    }
    return {
      refused: "credentials-unavailable",
      extras: { headers: { "retry-after": String(store.retryAfter) }, facts: { store: "failed", why: failure } },
    };
  };

  return {
    authenticate(c: GatewayContext): Authentication | Promise<Authentication> {
      const exchange = c.get("exchange");
      const key = readCredential(places, exchange);
      if (key === undefined) return config.optional ? ANONYMOUS : keyMissing(exchange);
      if (typeof key === "object") return deny(exchange, "conflict");
      const now = runtime.now();
      const answered = known.get(key);
      if (answered && now < answered.asked + maxAge) {
        if (now >= answered.asked + maxAge / 2 && now >= answered.asking) {
          answered.asking = now + timeout + 1_000;
          // What goes wrong here will go wrong again for a request that waits for it.
          exchange.waitUntil(ask(c, key, answered).catch(() => {}));
        }
        return judge(exchange, answered);
      }
      if (!answered) {
        if (!isKey(key, prefix)) return deny(exchange, "malformed");
        const until = unknown.get(key);
        if (until !== undefined && now < until) return deny(exchange, "unknown");
      }
      return ask(c, key, answered);
    },
    ...(!config.forwardKey && {
      withhold: (exchange: Exchange) => {
        for (const place of places) place.remove(exchange);
      },
    }),
  };
};

export const run: PolicyRun<ApiKeyConfig> = authenticating("apiKey", authenticator);

// Who makes up keys with good checksums can fill this, and no more: some 1 MB.
const MAX_UNKNOWN = 10_000;

const ANONYMOUS: Admission = Object.freeze({ headers: [], facts: Object.freeze({ anonymous: true }) });

const keyMissing = (exchange: Exchange): Refusal => ({
  refused: "credentials-missing",
  absent: true,
  extras: { headers: { "www-authenticate": challenge(exchange, "ApiKey") } },
});

function admissionByKey({ id, consumer, scopes = [], groups, plan }: KeyRecord, runtime: GatewayRuntime): Admission {
  const own = Object.hasOwn(runtime.table.consumers, consumer)
    ? consumerFacts(runtime, consumer)
    : { consumer, ...(groups && { groups }), ...(plan !== undefined && { plan }) };
  return admissionOf({
    ...own,
    subject: `consumer:${consumer}`,
    scopes,
    claims: {},
    credential: { kind: "apiKey", id },
  });
}
