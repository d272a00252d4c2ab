import { z } from "zod";
import type { Duration } from "../config/api.ts";
import { type Deciding, policyBuilder } from "../config/policy.ts";
import { inRange, parseAddress, parseRange, subscriberOf } from "../table/cidr.ts";
import { type ProblemCode, problems } from "../table/problems.ts";
import { sha256 } from "./api-key-format.ts";
import { BoundedMemory } from "./bounded-memory.ts";
import { type CompileContext, type Exchange, type GatewayContext, type PolicyRun, pass, refuse } from "./contract.ts";
import { TOKEN } from "./credential-place.ts";
import { durationOption } from "./durations.ts";
import { storeOf } from "./store.ts";

export interface PenaltyBoxOptions extends Deciding {
  /** As many within `window` are forgiven; the next one blocks. Default: 10. */
  readonly failures?: number;
  /** Default: `5m`. */
  readonly window?: Duration;
  /** The first block; each further one is twice as long. Default: `1m`. */
  readonly block?: Duration;
  /** The longest. Default: `1h`. */
  readonly maxBlock?: Duration;
  /** How long after a block it is remembered, so that the next one is longer. Default: `1d`. */
  readonly memory?: Duration;
  /**
   * Which answers count. Default: `credentials-invalid`, `token-invalid`, `token-conflict`, `login-failed`, `rate-limited` and
   * `request-filtered`.
   */
  readonly count?: readonly ProblemCode[];
  /**
   * Headers with credentials: who guesses the password of one user from many addresses, or uses one key too much, is known by that.
   * Default: `authorization`, `x-api-key`.
   */
  readonly credentials?: readonly string[];
  /** CIDR ranges of clients that are never blocked by their address, such as an office that shares one. Default: none. */
  readonly exempt?: readonly string[];
  /** For one call of the store, of which no request waits. Default: `1s`. */
  readonly timeout?: Duration;
}

/**
 * Keeps out for a while, and longer each time, who keeps failing: by client address (IPv6: its /64), and by user name or credential.
 * Failures are counted in the gateway's store, after the answer. 429 `client-blocked` with Retry-After, before anything is checked.
 */
export const penaltyBox = policyBuilder<PenaltyBoxOptions>("penaltyBox");

export const schema = () =>
  z.strictObject({
    mode: z.enum(["enforce", "report", "off"]).optional(),
    failures: z.int().min(1).max(1_000_000).optional(),
    window: z.string().optional(),
    block: z.string().optional(),
    maxBlock: z.string().optional(),
    memory: z.string().optional(),
    count: z
      .array(z.enum(Object.keys(problems) as ProblemCode[], "must be codes of docs/errors.md"))
      .min(1)
      .optional(),
    credentials: z.array(z.string().regex(TOKEN, "is no name of a header")).optional(),
    exempt: z.array(z.string()).optional(),
    timeout: z.string().optional(),
  });

/** Durations are in milliseconds. */
export interface PenaltyBoxConfig {
  readonly failures: number;
  readonly window: number;
  readonly block: number;
  readonly maxBlock: number;
  readonly memory: number;
  readonly count: readonly ProblemCode[];
  /** In lower case. */
  readonly credentials: readonly string[];
  readonly exempt: readonly string[];
  readonly timeout: number;
}

export function compile(options: PenaltyBoxOptions, context: CompileContext): PenaltyBoxConfig {
  for (const text of options.exempt ?? []) {
    if (!parseRange(text))
      context.problem(`"${text}" is no address or CIDR range`, "write it as 10.0.0.0/8 or 2001:db8::/32");
  }
  const block = durationOption(context, "block", options.block, 60_000, 1_000);
  const maxBlock = durationOption(context, "maxBlock", options.maxBlock, 3_600_000, 1_000);
  if (maxBlock < block) context.problem("`maxBlock` is shorter than `block`", "make it as long or longer");
  return {
    failures: options.failures ?? 10,
    window: durationOption(context, "window", options.window, 300_000, 1_000),
    block,
    maxBlock,
    memory: durationOption(context, "memory", options.memory, 86_400_000, 1_000),
    count: [...new Set(options.count ?? COUNTED)].sort(),
    credentials: [
      ...new Set((options.credentials ?? ["authorization", "x-api-key"]).map((name) => name.toLowerCase())),
    ].sort(),
    exempt: [...(options.exempt ?? [])].sort(),
    timeout: durationOption(context, "timeout", options.timeout, 1_000, 1, 25_000),
  };
}

const COUNTED: readonly ProblemCode[] = [
  "credentials-invalid",
  "token-invalid",
  "token-conflict",
  "login-failed",
  "rate-limited",
  "request-filtered",
];

/** What is known of one who fails. Times in milliseconds since the epoch. */
export interface Penalty {
  /** Failures in the window that ends at `ends`. */
  readonly count: number;
  readonly ends: number;
  /** Blocks so far. */
  readonly level: number;
  readonly until: number;
}

const CLEAN: Penalty = { count: 0, ends: 0, level: 0, until: 0 };

/** One more failure. What happens in a block changes nothing: it neither ends it nor makes it longer. */
export function punished(
  before: Penalty,
  { failures, window, block, maxBlock, memory }: Omit<PenaltyBoxConfig, "count" | "credentials" | "exempt" | "timeout">,
  now: number,
): Penalty {
  if (before.until > now) return before;
  const { count, ends, level, until } = before.until + memory < now ? { ...before, level: 0 } : before;
  const failed = (ends > now ? count : 0) + 1;
  if (failed <= failures) return { count: failed, ends: ends > now ? ends : now + window, level, until };
  return { count: 0, ends: 0, level: level + 1, until: now + Math.min(block * 2 ** level, maxBlock) };
}

/** The same in Redis, for all isolates at once. */
const SCRIPT = `local now, failures, window, block, maxBlock, memory = unpack(ARGV)
now, failures, window, block, maxBlock, memory = tonumber(now), tonumber(failures), tonumber(window), tonumber(block), tonumber(maxBlock), tonumber(memory)
local kept = redis.call('HMGET', KEYS[1], 'count', 'ends', 'level', 'until')
local count, ends, level, untill = tonumber(kept[1]) or 0, tonumber(kept[2]) or 0, tonumber(kept[3]) or 0, tonumber(kept[4]) or 0
if untill > now then return {untill, level} end
if untill + memory < now then level = 0 end
if ends <= now then count, ends = 0, now + window end
count = count + 1
if count > failures then
  untill, count, ends = now + math.min(block * 2 ^ level, maxBlock), 0, 0
  level = level + 1
end
redis.call('HSET', KEYS[1], 'count', count, 'ends', string.format('%.0f', ends), 'level', level, 'until', string.format('%.0f', untill))
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.max(ends, untill + memory) - now))
return {untill, level}`;

// Who has many addresses can make the gateway report each of them; beyond this an isolate counts by itself.
const MOST_REPORTS = 100;
// Some 2 MB.
const REMEMBERED = 10_000;

export const run: PolicyRun<PenaltyBoxConfig> = (config, runtime, mode) => {
  const counted = new Set<string>(config.count);
  const exempt = config.exempt.map((text) => parseRange(text)).filter((range) => range !== undefined);
  /** Of those that have failed here, what this isolate has counted or was told. */
  const known = new BoundedMemory<Penalty>(REMEMBERED);
  let underway = 0;

  /** Until when the key is blocked, as far as this isolate knows. */
  const blockedUntil = (key: string): number => known.get(key)?.until ?? 0;

  const clientKey = ({ clientAddress }: Exchange): string[] => {
    const address = parseAddress(clientAddress);
    if (address !== undefined && exempt.some((range) => inRange(address, range))) return [];
    return [`client=${subscriberOf(clientAddress) || "unknown"}`];
  };

  const report = async (c: GatewayContext, key: string): Promise<void> => {
    const now = runtime.now();
    const before = known.get(key) ?? CLEAN;
    if (before.until > now) return;
    // Here and now, whatever the store will say; and should it say nothing.
    known.put(key, punished(before, config, now));
    if (underway >= MOST_REPORTS) return;
    underway++;
    try {
      const { failures, window, block, maxBlock, memory } = config;
      const name = `penalty:${await sha256(key)}`;
      const answer = await storeOf(runtime, c.env).askInBackground(config.timeout, (redis) =>
        redis.eval<number[], [number, number]>(SCRIPT, [name], [now, failures, window, block, maxBlock, memory]),
      );
      if (!("value" in answer) || !Array.isArray(answer.value)) return;
      const [until = 0, level = 0] = answer.value.map(Number);
      if (until > now) known.put(key, { count: 0, ends: 0, level, until });
    } catch {
      // There is no store to be had; what this isolate has counted stands.
    } finally {
      underway--;
    }
  };

  return async (c, next) => {
    const exchange = c.get("exchange");
    const keys = [...clientKey(exchange), ...credentialKeys(config.credentials, c.req.raw.headers)];
    const until = Math.max(0, ...keys.map(blockedUntil));
    const now = runtime.now();
    if (until > now) {
      const key = keys.find((one) => blockedUntil(one) === until) ?? "";
      const answer = refuse(exchange, "penaltyBox", mode, "client-blocked", {
        headers: { "retry-after": String(Math.ceil((until - now) / 1_000)) },
        // The kind of key alone: the rest may be a credential.
        facts: { by: key.slice(0, key.indexOf("=")), level: known.get(key)?.level },
      });
      if (answer) return answer;
    } else pass(exchange, "penaltyBox");
    await next();
    const { reason } = exchange.record;
    if (reason !== undefined && counted.has(reason)) {
      for (const key of keys) exchange.waitUntil(report(c, key));
    }
    return undefined;
  };
};

/** Of Basic the name alone, so that all passwords for one user count together; else the credential. */
function credentialKeys(names: readonly string[], headers: Headers): string[] {
  return names.flatMap((name) => {
    const value = headers.get(name);
    if (value === null) return [];
    const basic = /^Basic +([A-Za-z0-9+/]{1,1024})=*$/i.exec(value)?.[1];
    if (basic === undefined) return [`credential=${name}:${value}`];
    try {
      return [`user=${atob(basic).split(":", 1)[0]}`];
    } catch {
      return [];
    }
  });
}
