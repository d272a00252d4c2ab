import { z } from "zod";
import type { Duration } from "../config/api.ts";
import type { ConsumerDeclaration } from "../config/consumer.ts";
import { type Deciding, policyBuilder } from "../config/policy.ts";
import type { SecretReference } from "../config/values.ts";
import type { Reference } from "../table/table.ts";
import { sha256 } from "./api-key-format.ts";
import { admissionOf, authenticating, challenge, consumerFacts } from "./authentication.ts";
import {
  type Admission,
  type Authentication,
  type CompileContext,
  type Exchange,
  type GatewayContext,
  type MakeAuthenticator,
  NotConfigured,
  type PolicyRun,
  type Refusal,
} from "./contract.ts";
import { durationOption } from "./durations.ts";
import { hold } from "./held-body.ts";
import {
  ALGORITHMS,
  ComponentRefused,
  componentsOf,
  digestMatches,
  importKey,
  type MessageSignature,
  type SignatureAlgorithm,
  signatureBase,
  signaturesOf,
} from "./message-signature.ts";
import { storeOf } from "./store.ts";
import type { Parameters } from "./structured-fields.ts";

export interface SigningKey {
  /** The signature's `keyid`. */
  readonly id: string;
  /** Default: `hmac-sha256`. */
  readonly algorithm?: SignatureAlgorithm;
  /** Base64 of 32 bytes or more for `hmac-sha256`; else the public key, as PEM (SPKI) or JWK. */
  readonly key: SecretReference;
  readonly consumer: ConsumerDeclaration;
  readonly scopes?: readonly string[];
}

export interface HmacOptions extends Deciding {
  readonly keys: readonly SigningKey[];
  /**
   * What a signature must cover at least, written as in RFC 9421. `@target-uri` also covers `@authority`, `@path` and `@query`, and
   * `@request-target` the last two. Default: `@method`, `@authority`, `@path` and `@query`.
   */
  readonly components?: readonly string[];
  /** Whether a request with a body must cover `content-digest`. One that is covered is always checked. Default: true. */
  readonly digest?: boolean;
  /** Longest time since `created`. Default: `5m`. */
  readonly maxAge?: Duration;
  /** How far a signer's clock may be off, at most `60s`. Default: `5s`. */
  readonly leeway?: Duration;
  /** Whether each signature needs a `nonce`, which counts once, as the gateway's store remembers. Default: true. */
  readonly nonce?: boolean;
  /** The signature's `tag`. Default: any. */
  readonly tag?: string;
  /** Largest body whose digest is checked, in bytes; a larger one: 413. Default: 1048576. */
  readonly maxBody?: number;
  /** Requests without a signature pass, with no caller; one that is there must be good. Default: false. */
  readonly optional?: boolean;
  /** Whether the origin gets the signature too. Default: false. */
  readonly forwardSignature?: boolean;
  /** For one call of the store. Default: `500ms`. */
  readonly timeout?: Duration;
}

/**
 * Lets requests through by a signature over the message itself (RFC 9421), with a shared key or a public one, and over its body
 * (RFC 9530). 401 `credentials-missing` or `credentials-invalid`; 503 `credentials-unavailable` when the store cannot tell whether a
 * nonce was seen before.
 */
export const hmac = policyBuilder<HmacOptions>("hmac");

export const schema = () => {
  const text = z.string().min(1);
  return z.strictObject({
    mode: z.enum(["enforce", "report", "off"]).optional(),
    keys: z
      .array(
        z.strictObject({
          id: text,
          algorithm: z.enum(Object.keys(ALGORITHMS) as SignatureAlgorithm[]).optional(),
          key: z.looseObject({ kind: z.literal("secret"), name: z.string() }),
          consumer: z.looseObject({ kind: z.literal("consumer"), name: z.string() }),
          scopes: z.array(text).optional(),
        }),
      )
      .min(1),
    components: z.array(text).optional(),
    digest: z.boolean().optional(),
    maxAge: text.optional(),
    leeway: text.optional(),
    nonce: z.boolean().optional(),
    tag: text.optional(),
    maxBody: z.int().min(0).max(100_000_000).optional(),
    optional: z.boolean().optional(),
    forwardSignature: z.boolean().optional(),
    timeout: text.optional(),
  });
};

interface KeyConfig {
  readonly algorithm: SignatureAlgorithm;
  readonly key: Reference;
  readonly consumer: string;
  readonly scopes: readonly string[];
}

/** Durations are in milliseconds. */
export interface HmacConfig {
  /** By key id. */
  readonly keys: Readonly<Record<string, KeyConfig>>;
  /** Serialized. */
  readonly components: readonly string[];
  readonly digest: boolean;
  readonly maxAge: number;
  readonly leeway: number;
  readonly nonce: boolean;
  readonly tag?: string;
  readonly maxBody: number;
  readonly optional: boolean;
  readonly forwardSignature: boolean;
  readonly timeout: number;
}

export function compile(options: HmacOptions, context: CompileContext): HmacConfig {
  const keys = new Map<string, KeyConfig>();
  for (const { id, algorithm = "hmac-sha256", key, consumer, scopes = [] } of options.keys) {
    if (keys.has(id)) context.problem(`there are two keys "${id}"`, "give each an id of its own");
    keys.set(id, { algorithm, key: context.reference(key), consumer: consumer.name, scopes });
  }
  for (const component of options.components ?? []) {
    if (component !== component.toLowerCase() || !/^@?[!#$%&'*+\-.^_`|~0-9a-z]+$/.test(component)) {
      context.problem(`"${component}" is no component`, 'write it in lower case: "@method", "content-type"');
    }
  }
  const { tag } = options;
  return {
    keys: Object.fromEntries([...keys].sort(([a], [b]) => (a < b ? -1 : 1))),
    components: [...new Set(options.components ?? ["@method", "@authority", "@path", "@query"])].map(
      (one) => `"${one}"`,
    ),
    digest: options.digest ?? true,
    maxAge: durationOption(context, "maxAge", options.maxAge, 300_000, 1_000),
    leeway: durationOption(context, "leeway", options.leeway, 5_000, 0, 60_000),
    nonce: options.nonce ?? true,
    ...(tag !== undefined && { tag }),
    maxBody: options.maxBody ?? 1_048_576,
    optional: options.optional ?? false,
    forwardSignature: options.forwardSignature ?? false,
    timeout: durationOption(context, "timeout", options.timeout, 500, 1, 25_000),
  };
}

const REASONS = {
  malformed: "the signature is not written as RFC 9421 has it",
  key: "the key of the signature is not known",
  algorithm: "the algorithm is not the key's",
  created: "the signature does not say when it was made, or was made in the future",
  expired: "the signature is too old",
  nonce: "the signature has no nonce",
  components: "the signature does not cover enough",
  component: "a covered component cannot be told",
  signature: "the signature does not verify",
  digest: "the digest is not that of the body",
  replay: "the signature was used before",
} as const;

type Reason = keyof typeof REASONS;

class SignatureRefused extends Error {
  override readonly name = "SignatureRefused";
  readonly reason: Reason;

  constructor(reason: Reason) {
    super(REASONS[reason]);
    this.reason = reason;
  }
}

const ANONYMOUS: Admission = Object.freeze({ headers: [], facts: Object.freeze({ anonymous: true }) });

// What covers more than its name says (RFC 9421, 2.2.2 and 2.2.5).
const COVERED_BY: Readonly<Record<string, readonly string[]>> = {
  '"@authority"': ['"@target-uri"'],
  '"@scheme"': ['"@target-uri"'],
  '"@path"': ['"@target-uri"', '"@request-target"'],
  '"@query"': ['"@target-uri"', '"@request-target"'],
};

// Who sends more of them makes the gateway work for each.
const MOST_SIGNATURES = 4;

export const authenticator: MakeAuthenticator<HmacConfig> = (config, runtime) => {
  const keys = new Map<string, CryptoKey>();
  const admissions = new Map(
    Object.entries(config.keys).map(([id, { consumer, scopes }]) => [
      id,
      admissionOf({
        ...consumerFacts(runtime, consumer),
        subject: `consumer:${consumer}`,
        scopes,
        claims: {},
        credential: { kind: "hmac", id },
      }),
    ]),
  );
  const wanted = `sig=(${config.components.join(" ")});created;keyid${config.nonce ? ";nonce" : ""}`;

  const deny = (exchange: Exchange, reason: Reason, id?: unknown): Refusal => ({
    refused: "credentials-invalid",
    extras: {
      detail: REASONS[reason],
      headers: { "www-authenticate": challenge(exchange, "Signature"), "accept-signature": wanted },
      facts: { why: reason, ...(typeof id === "string" && Object.hasOwn(config.keys, id) && { id }) },
    },
  });

  /** The key, imported once for the isolate. */
  const keyOf = async (id: string, { algorithm, key }: KeyConfig, env: unknown): Promise<CryptoKey> => {
    const known = keys.get(id);
    if (known) return known;
    const text = runtime.text(key, env);
    const imported = await importKey(algorithm, text).catch(() => {
      throw new NotConfigured(`${Object.values(key)[0]} is no key for ${algorithm}`);
    });
    keys.set(id, imported);
    return imported;
  };

  /** What of the parameters does not hold. */
  const checkParameters = (parameters: Parameters, algorithm: SignatureAlgorithm) => {
    const seconds = runtime.now() / 1_000;
    const [created, expires, alg] = ["created", "expires", "alg"].map((name) => parameters.get(name));
    if (alg !== undefined && alg !== algorithm) throw new SignatureRefused("algorithm");
    if (!Number.isInteger(created) || (created as number) > seconds + config.leeway / 1_000)
      throw new SignatureRefused("created");
    if ((created as number) < seconds - (config.maxAge + config.leeway) / 1_000) throw new SignatureRefused("expired");
    if (expires !== undefined && !(typeof expires === "number" && expires > seconds - config.leeway / 1_000))
      throw new SignatureRefused("expired");
    if (config.nonce && (typeof parameters.get("nonce") !== "string" || parameters.get("nonce") === ""))
      throw new SignatureRefused("nonce");
  };

  const checkCoverage = (covered: readonly string[], hasBody: boolean) => {
    const needed = config.digest && hasBody ? [...config.components, '"content-digest"'] : config.components;
    const covers = (one: string) => [one, ...(COVERED_BY[one] ?? [])].some((way) => covered.includes(way));
    if (!needed.every(covers)) throw new SignatureRefused("components");
  };

  const verify = async (c: GatewayContext, id: string, { input, signature }: MessageSignature): Promise<void> => {
    const exchange = c.get("exchange");
    const request = c.req.raw;
    const key = config.keys[id] as KeyConfig;
    checkParameters(input.parameters, key.algorithm);
    const covered = componentsOf(input);
    checkCoverage(covered, request.body !== null);
    const base = new TextEncoder().encode(signatureBase(input, messageOf(request, exchange)));
    const [, algorithm] = ALGORITHMS[key.algorithm];
    const imported = await keyOf(id, key, c.env);
    if (!(await crypto.subtle.verify(algorithm, imported, signature as BufferSource, base)))
      throw new SignatureRefused("signature");
    if (covered.includes('"content-digest"')) await checkDigest(request, exchange);
  };

  const checkDigest = async (request: Request, exchange: Exchange): Promise<void> => {
    let body: Uint8Array = new Uint8Array();
    if (request.body) {
      const held = await hold(request.body, config.maxBody, request.headers.get("content-length"), exchange.total);
      exchange.body = held.body;
      if (held.more) throw new BodyTooLarge();
      body = held.begun;
    }
    if (!(await digestMatches(request.headers.get("content-digest"), body))) throw new SignatureRefused("digest");
  };

  /** Undefined where the nonce is new. */
  const refuseReplay = async (c: GatewayContext, id: string, parameters: Parameters): Promise<Refusal | undefined> => {
    if (!config.nonce) return undefined;
    const store = storeOf(runtime, c.env);
    const key = `nonce:${await sha256(`${id}\n${parameters.get("nonce")}`)}`;
    // As long as a signature with it could be good.
    const px = config.maxAge + 2 * config.leeway;
    const answer = await store.ask(
      c.get("exchange"),
      config.timeout,
      (redis) => redis.set(key, "1", { nx: true, px }),
      // A trial must not use the nonce up: its request gets 503, and may come again with it.
      (redis) => redis.get(key),
    );
    if ("failure" in answer) {
      return {
        refused: "credentials-unavailable",
        extras: {
          headers: { "retry-after": String(store.retryAfter) },
          facts: { store: "failed", why: answer.failure },
        },
      };
    }
    return answer.value === null ? deny(c.get("exchange"), "replay", id) : undefined;
  };

  const judge = async (c: GatewayContext): Promise<Authentication> => {
    const exchange = c.get("exchange");
    const signatures = signaturesOf(c.req.raw.headers);
    if (!signatures || signatures.length === 0) return deny(exchange, "malformed");
    let refusal: Refusal | undefined;
    for (const signature of signatures.filter(isOurs).slice(0, MOST_SIGNATURES)) {
      const { parameters } = signature.input;
      const id = parameters.get("keyid") as string;
      try {
        await verify(c, id, signature);
        return (await refuseReplay(c, id, parameters)) ?? (admissions.get(id) as Admission);
      } catch (error) {
        if (error instanceof BodyTooLarge) return { refused: "body-too-large" };
        if (error instanceof SignatureRefused) refusal ??= deny(exchange, error.reason, id);
        else if (error instanceof ComponentRefused) refusal ??= deny(exchange, "component", id);
        else throw error;
      }
    }
    return refusal ?? deny(exchange, "key");
  };

  /** Signatures of others may be on a message, too (RFC 9421, 4.3). */
  const isOurs = ({ input: { parameters } }: MessageSignature): boolean => {
    const id = parameters.get("keyid");
    return (
      typeof id === "string" &&
      Object.hasOwn(config.keys, id) &&
      (config.tag === undefined || parameters.get("tag") === config.tag)
    );
  };

  return {
    authenticate(c: GatewayContext): Authentication | Promise<Authentication> {
      const { headers } = c.req.raw;
      if (headers.has("signature") || headers.has("signature-input")) return judge(c);
      if (config.optional) return ANONYMOUS;
      return {
        refused: "credentials-missing",
        absent: true,
        extras: {
          headers: { "www-authenticate": challenge(c.get("exchange"), "Signature"), "accept-signature": wanted },
        },
      };
    },
    ...(!config.forwardSignature && {
      withhold: ({ upstream }: Exchange) => {
        upstream.delete("signature");
        upstream.delete("signature-input");
      },
    }),
  };
};

export const run: PolicyRun<HmacConfig> = authenticating("hmac", authenticator);

class BodyTooLarge extends Error {}

/** The runtime hands on the URL as it came over the wire. */
function messageOf(request: Request, { scheme, search }: Exchange) {
  const afterScheme = request.url.slice(request.url.indexOf("://") + 3).split("#", 1)[0] as string;
  const end = afterScheme.search(/[/?]/);
  const authority = end === -1 ? afterScheme : afterScheme.slice(0, end);
  const path = end === -1 ? "" : (afterScheme.slice(end).split("?", 1)[0] as string);
  return { method: request.method, scheme, authority, path: path || "/", search, headers: request.headers };
}
