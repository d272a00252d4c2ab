import { z } from "zod";
import type { Duration } from "../config/api.ts";
import type { ConsumerDeclaration } from "../config/consumer.ts";
import { parseDuration } from "../config/duration.ts";
import { type Deciding, policyBuilder } from "../config/policy.ts";
import { type CompileContext, type PolicyRun, pass, refuse } from "./contract.ts";
import { callerKey, type LimitKey, limitKeySchema, limitKeys, plain } from "./limit-key.ts";
import { type Failure, type LimitStore, limitStore, type Script } from "./limit-store.ts";
import type { Plan } from "./rate-limit.ts";

export interface ConcurrencyOptions extends Deciding {
  /** Requests under way at the same time. */
  readonly limit: number;
  /** Whose requests are counted together; several keys are one composite key. Default: `client`. */
  readonly per?: LimitKey | readonly LimitKey[];
  /** Other limits for declared consumers, whatever `per` is. */
  readonly consumers?: readonly (readonly [ConsumerDeclaration, number])[];
  /** And for consumers of these plans, unless they have one of their own. */
  readonly plans?: readonly (readonly [Plan, number])[];
  /** In keys; caps on one route need different ones. Default: `default`. */
  readonly name?: string;
  /** A cap of that name for all routes that use it, in place of one for each route. */
  readonly shared?: string;
  /**
   * Until when a request is under way: until its answer's `headers` are there, or until all of its `body` has been sent, also to a
   * slow client. `body` makes the answer run through the gateway's code. Default: `body`.
   */
  readonly until?: "headers" | "body";
  /**
   * After that, a request counts no more, though it may still be under way: otherwise those of an isolate that died would count for
   * ever. Longer than the longest answer. Default: `60s`.
   */
  readonly expiry?: Duration;
  /** When the store fails or is late, as for rateLimit; `local` counts what is under way in the isolate. Default: `local`. */
  readonly onStoreFailure?: "open" | "closed" | "local";
  /** For one call of the store. Default: `500ms`. */
  readonly timeout?: Duration;
}

/**
 * Lets so many requests be under way at a time; 429 `concurrency-limited` for the others. Counted exactly in the gateway's store, with
 * a call before and one after each request: it is for what is dear, beside which a millisecond is nothing. (A lease of places would
 * have to be renewed while nobody asks, which an isolate without requests cannot do.)
 */
export const concurrency = policyBuilder<ConcurrencyOptions>("concurrency");

export const schema = () => {
  const amount = z.int().min(1).max(1_000_000);
  const word = z.string().regex(/^[\w.-]{1,64}$/, "must be 1 to 64 letters, digits, `_`, `.` or `-`");
  const key = limitKeySchema();
  const named = (kind: string) => z.looseObject({ kind: z.literal(kind), name: z.string().min(1) });
  return z.strictObject({
    mode: z.enum(["enforce", "report", "off"]).optional(),
    limit: amount,
    per: z.union([key, z.array(key).min(1)]).optional(),
    consumers: z.array(z.tuple([named("consumer"), amount])).optional(),
    plans: z.array(z.tuple([named("plan"), amount])).optional(),
    name: word.optional(),
    shared: word.optional(),
    until: z.enum(["headers", "body"]).optional(),
    expiry: z.string().optional(),
    onStoreFailure: z.enum(["open", "closed", "local"]).optional(),
    timeout: z.string().optional(),
  });
};

/** Durations are in milliseconds. */
export interface ConcurrencyConfig {
  readonly limit: number;
  readonly per: readonly LimitKey[];
  readonly consumers: Readonly<Record<string, number>>;
  readonly plans: Readonly<Record<string, number>>;
  readonly name: string;
  readonly shared?: string;
  readonly until: "headers" | "body";
  readonly expiry: number;
  readonly onStoreFailure: "open" | "closed" | "local";
  readonly timeout: number;
}

export function compile(options: ConcurrencyOptions, context: CompileContext): ConcurrencyConfig {
  const { limit, consumers = [], plans = [], name = "default", shared, until = "body" } = options;
  const milliseconds = (option: "expiry" | "timeout", otherwise: string): number => {
    const text = options[option] ?? otherwise;
    const duration = parseDuration(text);
    if (duration) return duration;
    context.problem(`${option} "${text}" is no duration`, 'write it as "250ms", "30s" or "5m"');
    return 1;
  };
  const byName = (kind: string, entries: readonly (readonly [{ readonly name: string }, number])[]) => {
    const names = entries.map(([declared]) => declared.name);
    const twice = names.find((one, i) => names.indexOf(one) !== i);
    if (twice !== undefined) context.problem(`the ${kind} "${twice}" has two limits`, "keep one of them");
    return Object.fromEntries(entries.map(([declared, own]) => [declared.name, own] as const).sort());
  };
  return {
    limit,
    per: limitKeys(options.per),
    consumers: byName("consumer", consumers),
    plans: byName("plan", plans),
    name,
    ...(shared !== undefined && { shared }),
    until,
    expiry: milliseconds("expiry", "60s"),
    onStoreFailure: options.onStoreFailure ?? "local",
    timeout: milliseconds("timeout", "500ms"),
  };
}

/** A sorted set of the requests under way, by when they count no more. Replies how many there are with this one, or 0. */
const ENTER: Script = {
  text: `
local limit, expiry, id = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local others = redis.call('ZCARD', KEYS[1])
if others >= limit then return 0 end
redis.call('ZADD', KEYS[1], now + expiry, id)
-- Policies that share the key may differ in their expiry.
redis.call('PEXPIRE', KEYS[1], math.max(expiry, redis.call('PTTL', KEYS[1])))
return others + 1
`,
};

const LEAVE: Script = { text: "return redis.call('ZREM', KEYS[1], ARGV[1])" };

export const run: PolicyRun<ConcurrencyConfig> = (config, runtime, mode) => {
  const { per, name, shared, until, expiry, onStoreFailure, timeout } = config;
  const underWay = new Map<string, number>();

  return async (c, next) => {
    const exchange = c.get("exchange");
    const { caller, record } = exchange;
    const store = limitStore(runtime, c.env);
    const own = config.consumers[caller?.consumer ?? ""] ?? config.plans[caller?.plan ?? ""];
    const limit = own ?? config.limit;
    const place = shared === undefined ? `${plain(exchange.route.id || "unmatched")}:${name}` : `shared:${shared}`;
    const key = `concurrency:${place}:${await callerKey(per, exchange, c.req.raw.headers)}`;
    const entered = await enter(store, key, limit);

    const facts =
      "failure" in entered ? { store: "failed", why: entered.failure, fallback: onStoreFailure } : undefined;
    if (facts && onStoreFailure === "closed") {
      const headers = { "retry-after": String(Math.max(1, Math.ceil(store.pausedFor / 1_000))) };
      return refuse(exchange, "concurrency", mode, "limiter-unavailable", { headers, facts }) ?? next();
    }
    let leave: () => void = () => {};
    if (!("failure" in entered)) {
      record.limits ??= [];
      const remaining = entered.count === 0 ? 0 : Math.max(0, limit - entered.count);
      record.limits.push({ name, key, remaining, reset: runtime.now() + 1_000 });
      if (entered.count === 0) return refused();
      leave = entered.leave;
    } else if (onStoreFailure === "local") {
      const before = underWay.get(key) ?? 0;
      if (before >= limit) return refused();
      underWay.set(key, before + 1);
      leave = () => {
        const left = (underWay.get(key) ?? 1) - 1;
        if (left > 0) underWay.set(key, left);
        else underWay.delete(key);
      };
    }
    pass(exchange, "concurrency", facts);
    try {
      await next();
    } catch (error) {
      leave();
      throw error;
    }
    const answer = c.res;
    // An upgraded connection is none of ours to touch (docs/forwarding.md).
    if (until === "headers" || !answer.body || answer.status === 101 || c.req.method === "HEAD") leave();
    else {
      c.res = undefined;
      const { moved, sent } = whenSent(answer, c.req.raw.signal);
      // Else the runtime would end the request together with its client, and nobody would say that it has left.
      exchange.waitUntil(sent.then(leave));
      c.res = moved;
    }
    return undefined;

    function refused() {
      const extras = {
        members: { "violated-policies": [name] },
        headers: { "retry-after": "1" },
        ...(facts && { facts }),
      };
      return refuse(exchange, "concurrency", mode, "concurrency-limited", extras) ?? next();
    }

    async function enter(
      store: LimitStore,
      key: string,
      limit: number,
    ): Promise<{ readonly count: number; leave(): void } | Failure> {
      const id = crypto.randomUUID();
      const gone = () => store.run(LEAVE, [{ key, args: [id] }], countOf, timeout);
      const work = async () => {
        const said = await store.run(ENTER, [{ key, args: [limit, expiry, id] }], countOf, timeout);
        return "failure" in said ? said : { count: said[0] as number, leave: () => exchange.waitUntil(gone()) };
      };
      // A store that was away is tried for its own sake: the request does not wait, so it must not count either.
      const trial = async () => {
        if (!("failure" in (await work()))) await gone();
      };
      return store.ask(work, (trying) => exchange.waitUntil(trying), trial);
    }
  };
};

function countOf(reply: unknown): number {
  if (!Number.isSafeInteger(reply)) throw new TypeError("no count");
  return reply as number;
}

/**
 * `response`, and when its body has been sent, or has broken off, or its client has gone. Its parts are moved by hand, since the
 * runtime does not tell when it has moved the last one.
 */
function whenSent(response: Response, signal: AbortSignal): { readonly moved: Response; readonly sent: Promise<void> } {
  const source = (response.body as ReadableStream<Uint8Array>).getReader();
  const { status, statusText, headers } = response;
  const length = headers.get("content-length");
  const { readable, writable } =
    length === null ? new IdentityTransformStream() : new FixedLengthStream(Number(length));
  const sink = writable.getWriter();
  const stop = (reason: unknown) => {
    source.cancel(reason).catch(() => {});
    sink.abort(reason).catch(() => {});
  };
  // A client that goes away is noticed by the stream only when there is more to send.
  const gone = new Promise<never>((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  const pump = async () => {
    for (let part = await source.read(); !part.done; part = await source.read()) await sink.write(part.value);
    await sink.close();
  };
  const sent = Promise.race([pump(), gone]).catch(stop);
  // What is encoded passes as it is.
  return { moved: new Response(readable, { status, statusText, headers, encodeBody: "manual" }), sent };
}
