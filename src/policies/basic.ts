import { z } from "zod";
import type { Duration } from "../config/api.ts";
import type { ConsumerDeclaration } from "../config/consumer.ts";
import { type Deciding, policyBuilder } from "../config/policy.ts";
import type { SecretReference } from "../config/values.ts";
import type { Reference } from "../table/table.ts";
import { Answers, NoAnswer } from "./answers.ts";
import { sha256 } from "./api-key-format.ts";
import { admissionOf, authenticating, challenge, consumerFacts, headerText } from "./authentication.ts";
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
import { checkPassword, NOBODY, parseHash } from "./password.ts";
import { storeOf } from "./store.ts";

export interface BasicUser {
  /** Without a colon (RFC 7617, 2). */
  readonly name: string;
  /** The hash of the password, as `gateway users hash` prints it. */
  readonly password: SecretReference;
  /** Default: the user by itself, as nobody's consumer. */
  readonly consumer?: ConsumerDeclaration;
  readonly scopes?: readonly string[];
}

export interface BasicOptions extends Deciding {
  readonly users?: readonly BasicUser[];
  /** Whether users may also be in the gateway's store, as `gateway users set` puts them there. Default: false. */
  readonly store?: boolean;
  /** Requests without a password pass, with no caller; one that is there must be right. Default: false. */
  readonly optional?: boolean;
  /** Whether the origin gets the password too. Default: false. */
  readonly forwardPassword?: boolean;
  /**
   * How long an isolate believes that a password is right, and so the longest time until a change of it counts everywhere. Default:
   * `5m`.
   */
  readonly maxAge?: Duration;
  /** How long it believes that one is wrong. Default: `10s`. */
  readonly wrongFor?: Duration;
  /** For one call of the store. Default: `500ms`. */
  readonly timeout?: Duration;
}

/**
 * Lets requests through by name and password (RFC 7617), of which only hashes are kept. 401 `credentials-missing` or
 * `credentials-invalid`, which takes as long for a name that there is not; 503 `credentials-unavailable` when the store cannot be asked.
 */
export const basic = policyBuilder<BasicOptions>("basic");

export const schema = () => {
  const text = z.string().min(1);
  return z.strictObject({
    mode: z.enum(["enforce", "report", "off"]).optional(),
    users: z
      .array(
        z.strictObject({
          name: z.string().regex(USER, "must be 1 to 128 visible characters without a colon"),
          password: z.looseObject({ kind: z.literal("secret"), name: z.string() }),
          consumer: z.looseObject({ kind: z.literal("consumer"), name: z.string() }).optional(),
          scopes: z.array(text).optional(),
        }),
      )
      .optional(),
    store: z.boolean().optional(),
    optional: z.boolean().optional(),
    forwardPassword: z.boolean().optional(),
    maxAge: text.optional(),
    wrongFor: text.optional(),
    timeout: text.optional(),
  });
};

/** What a user may be called. */
export const USER = /^[\x21-\x39\x3b-\x7e]{1,128}$/;

interface UserConfig {
  readonly password: Reference;
  readonly consumer?: string;
  readonly scopes: readonly string[];
}

/** Durations are in milliseconds. */
export interface BasicConfig {
  /** By name. */
  readonly users: Readonly<Record<string, UserConfig>>;
  readonly store: boolean;
  readonly optional: boolean;
  readonly forwardPassword: boolean;
  readonly maxAge: number;
  readonly wrongFor: number;
  readonly timeout: number;
}

export function compile(options: BasicOptions, context: CompileContext): BasicConfig {
  const { users = [], store = false } = options;
  if (users.length === 0 && !store) context.problem("basic knows nobody", "list `users`, or set store: true");
  const named = new Map<string, UserConfig>();
  for (const { name, password, consumer, scopes = [] } of users) {
    if (named.has(name)) context.problem(`there are two users "${name}"`, "keep one of them");
    named.set(name, { password: context.reference(password), ...(consumer && { consumer: consumer.name }), scopes });
  }
  return {
    users: Object.fromEntries([...named].sort(([a], [b]) => (a < b ? -1 : 1))),
    store,
    optional: options.optional ?? false,
    forwardPassword: options.forwardPassword ?? false,
    maxAge: durationOption(context, "maxAge", options.maxAge, 300_000, 1_000),
    wrongFor: durationOption(context, "wrongFor", options.wrongFor, 10_000),
    timeout: durationOption(context, "timeout", options.timeout, 500, 1, 25_000),
  };
}

/** Where the store has a user, as JSON of a StoredUser. */
export const userKey = (name: string): string => `user:${name}`;

export interface StoredUser {
  readonly password: string;
  readonly consumer?: string;
  readonly scopes?: readonly string[];
}

class StoreAway extends Error {
  readonly why: string;
  constructor(why: string) {
    super(why);
    this.why = why;
  }
}

class WrongPassword extends Error {}

const ANONYMOUS: Admission = Object.freeze({ headers: [], facts: Object.freeze({ anonymous: true }) });

const CREDENTIALS = /^Basic +([A-Za-z0-9+/]+={0,2})$/i;
// Repeated headers arrive joined by commas. Another reader may see a password there, so it must not count as none.
const ANYWHERE = /(?:^|,)[ \t]*Basic(?:[ \t,]|$)/i;
// A password of a megabyte would be hashed 100,000 times in the time of a short one, but read, decoded and kept.
const LONGEST = 1_024;

const WORK_MS = 5_000;

export const authenticator: MakeAuthenticator<BasicConfig> = (config, runtime) => {
  // Right ones and wrong ones apart, so that guesses push no right one out.
  const right = new Answers<Admission>(1_000, runtime.now);
  const wrong = new Answers<undefined>(1_000, runtime.now);
  // Passwords are guessable, so even hashes of them are kept in a form that is of no use elsewhere.
  let salt: string | undefined;

  const deny = (exchange: Exchange, why: "malformed" | "wrong"): Refusal => ({
    refused: "credentials-invalid",
    extras: {
      // The same for a wrong name as for a wrong password.
      detail: why === "wrong" ? "the name or the password is wrong" : "the header is not written as RFC 7617 has it",
      headers: { "www-authenticate": asked(exchange) },
      facts: { why },
    },
  });

  const userOf = async (c: GatewayContext, name: string): Promise<StoredUser | undefined> => {
    const stored = config.store ? await storedUser(c, name) : undefined;
    // Only now, so that a name that is declared does not answer sooner than another one.
    const declared = Object.hasOwn(config.users, name) ? config.users[name] : undefined;
    if (declared) return { ...declared, password: runtime.text(declared.password, c.env) };
    if (stored && "failure" in stored) throw new StoreAway(stored.failure);
    return stored?.value;
  };

  const storedUser = async (c: GatewayContext, name: string) => {
    const answer = await storeOf(runtime, c.env).ask(c.get("exchange"), config.timeout, (redis) =>
      redis.get<string>(userKey(name)),
    );
    if ("failure" in answer || answer.value === null) return "failure" in answer ? answer : undefined;
    return { value: JSON.parse(answer.value) as StoredUser };
  };

  const check = async (c: GatewayContext, name: string, password: string): Promise<Admission | undefined> => {
    const user = await userOf(c, name);
    const hash = user && parseHash(user.password);
    if (user && !hash) throw new NotConfigured(`the password of the user ${name} is no hash that can be checked`);
    const fits = await checkPassword(password, hash ?? NOBODY);
    if (!user || !hash || !fits) return undefined;
    const { consumer, scopes = [] } = user;
    const caller = {
      ...consumerFacts(runtime, consumer),
      subject: `user:${name}`,
      scopes,
      claims: {},
      credential: { kind: "basic" as const, id: name },
    };
    return admissionOf(caller, [["x-consumer-subject", headerText(name) ?? ""]]);
  };

  const judge = async (c: GatewayContext, name: string, password: string): Promise<Authentication> => {
    const exchange = c.get("exchange");
    salt ??= crypto.randomUUID();
    const hash = await sha256(`${salt}${name}:${password}`);
    if (wrong.known(hash)) return deny(exchange, "wrong");
    const known = right.known(hash);
    if (known) return known.value;
    try {
      return await right.find(exchange, hash, config.timeout + WORK_MS, async () => {
        const admission = await check(c, name, password);
        if (admission) return { value: admission, until: runtime.now() + config.maxAge };
        wrong.put(hash, { value: undefined, until: runtime.now() + config.wrongFor });
        throw new WrongPassword();
      });
    } catch (error) {
      if (error instanceof WrongPassword) return deny(exchange, "wrong");
      const facts = error instanceof StoreAway ? { store: "failed", why: error.why } : { why: "cancelled" };
      if (!(error instanceof StoreAway || error instanceof NoAnswer)) throw error;
      // Whether it is right nobody knows, so it must not be told, nor counted, as wrong.
      const retryAfter = config.store ? storeOf(runtime, c.env).retryAfter : 1;
      return {
        refused: "credentials-unavailable",
        extras: { headers: { "retry-after": String(retryAfter) }, facts },
      };
    }
  };

  return {
    authenticate(c: GatewayContext): Authentication | Promise<Authentication> {
      const exchange = c.get("exchange");
      const value = c.req.raw.headers.get("authorization");
      if (value === null || !ANYWHERE.test(value)) {
        if (config.optional) return ANONYMOUS;
        return {
          refused: "credentials-missing",
          absent: true,
          extras: { headers: { "www-authenticate": asked(exchange) } },
        };
      }
      const pair = decode(CREDENTIALS.exec(value)?.[1]);
      const colon = pair?.indexOf(":") ?? -1;
      if (pair === undefined || colon === -1) return deny(exchange, "malformed");
      return judge(c, pair.slice(0, colon), pair.slice(colon + 1));
    },
    ...(!config.forwardPassword && {
      withhold: ({ upstream }: Exchange) => {
        if (ANYWHERE.test(upstream.get("authorization") ?? "")) upstream.delete("authorization");
      },
    }),
  };
};

export const run: PolicyRun<BasicConfig> = authenticating("basic", authenticator);

/** Names and passwords are UTF-8 (RFC 7617, 2.1). */
const asked = (exchange: Exchange): string => challenge(exchange, "Basic", { charset: "UTF-8" });

function decode(base64: string | undefined): string | undefined {
  if (base64 === undefined || base64.length > LONGEST) return undefined;
  try {
    const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}
