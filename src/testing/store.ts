/**
 * A Redis in this process, on the test's clock: Lua as js-redis-server runs it, and as many of Redis' commands as the gateway's
 * policies and their scripts call. Gone with the test.
 */
import { createHash } from "node:crypto";
import type { LuaWasmEngine } from "lua-redis-wasm";
import type { Clock } from "../offline/clock.ts";

type Reply = number | null | string | readonly Reply[];

interface Entry {
  readonly value: string | Map<string, string>;
  /** Milliseconds since the epoch. */
  readonly expires: number;
}

/** One for all stores of the process, since it takes 100 ms to start; scripts run to their end at once, so that one is running at a time. */
let lua: Promise<LuaWasmEngine> | undefined;
let running: TestStore;

async function startLua(): Promise<LuaWasmEngine> {
  const { LuaWasmEngine } = await import("lua-redis-wasm");
  const call = (args: Buffer[]) => running.called(args.map(String));
  return LuaWasmEngine.create({ host: { redisCall: call, redisPcall: call, log: () => {} } as never });
}

export class TestStore {
  /** While it is true nobody can reach the store. */
  away = false;
  readonly #clock: Clock;
  readonly #entries = new Map<string, Entry>();
  readonly #scripts = new Map<string, string>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Upstash's REST protocol: one command, or a list of them at `/pipeline` and `/multi-exec`. */
  async answer(path: string, body: unknown): Promise<Response> {
    if (this.away) throw new TypeError("the store cannot be reached");
    if (path === "/") {
      const said = await this.#said(body as readonly unknown[]);
      return Response.json(said, { status: "error" in said ? 400 : 200 });
    }
    const replies: object[] = [];
    for (const command of body as readonly (readonly unknown[])[]) replies.push(await this.#said(command));
    return Response.json(replies);
  }

  /** Runs one command, such as `["GET", "key"]`. Throws what Redis would call an error. */
  async command(given: readonly unknown[]): Promise<Reply> {
    const [name = "", ...rest] = given.map(String);
    const upper = name.toUpperCase();
    if (upper !== "EVAL" && upper !== "EVALSHA") return this.#run([upper, ...rest]);
    const [script = "", count = "0", ...args] = rest;
    const text = upper === "EVAL" ? script : this.#scripts.get(script);
    if (text === undefined) throw new Error("NOSCRIPT No matching script. Please use EVAL.");
    this.#scripts.set(createHash("sha1").update(text).digest("hex"), text);
    return this.#evaluate(text, args.slice(0, Number(count)), args.slice(Number(count)));
  }

  async #said(command: readonly unknown[]): Promise<{ result: Reply } | { error: string }> {
    try {
      return { result: await this.command(command) };
    } catch (error) {
      return { error: (error as Error).message };
    }
  }

  async #evaluate(script: string, keys: readonly string[], args: readonly string[]): Promise<Reply> {
    const engine = await (lua ??= startLua());
    running = this;
    const buffers = (texts: readonly string[]) => texts.map((text) => Buffer.from(text));
    // What Redis 7 takes from a first line such as `#!lua flags=...` is none of Lua's.
    const said = engine.evalWithArgs(script.replace(/^#!.*/, ""), buffers(keys), buffers(args)) as unknown;
    return textsOf(said);
  }

  /** What a script calls. */
  called(command: readonly string[]): unknown {
    return buffersOf(this.#run(command));
  }

  #run([name = "", key = "", ...args]: readonly string[]): Reply {
    const [first = "", second = ""] = args;
    switch (name.toUpperCase()) {
      case "TIME": {
        const now = this.#clock.now();
        return [String(Math.floor(now / 1_000)), String(Math.floor((now % 1_000) * 1_000))];
      }
      case "GET": {
        const value = this.#look(key)?.value;
        return typeof value === "string" ? value : null;
      }
      case "SET":
        return this.#set(key, first, args.slice(1));
      case "DEL":
        return this.#entries.delete(key) ? 1 : 0;
      case "EXISTS":
        return this.#look(key) ? 1 : 0;
      case "INCRBY": {
        const entry = this.#look(key);
        const value = Number(entry?.value ?? 0) + Number(first);
        this.#entries.set(key, { value: String(value), expires: entry?.expires ?? Number.POSITIVE_INFINITY });
        return value;
      }
      case "PEXPIRE":
        return this.#expire(key, Number(first));
      case "EXPIRE":
        return this.#expire(key, Number(first) * 1_000);
      case "PTTL": {
        const { expires } = this.#look(key) ?? {};
        return expires === undefined ? -2 : expires === Number.POSITIVE_INFINITY ? -1 : expires - this.#clock.now();
      }
      case "HGET":
        return this.#fields(key)?.get(first) ?? null;
      case "HMGET": {
        const fields = this.#fields(key);
        return args.map((field) => fields?.get(field) ?? null);
      }
      case "HGETALL":
        return [...(this.#fields(key) ?? [])].flat();
      case "HSET":
        return this.#add(key, args);
      case "HDEL":
      case "ZREM":
        return args.filter((field) => this.#fields(key)?.delete(field)).length;
      // A sorted set is kept as a hash of its members, by whose scores nobody here asks for an order.
      case "ZADD":
        return this.#add(key, [second, first]);
      case "ZCARD":
        return this.#fields(key)?.size ?? 0;
      case "ZREMRANGEBYSCORE": {
        const members = this.#fields(key);
        const [low, high] = [first, second].map((bound) => Number(bound.replace("inf", "Infinity"))) as [
          number,
          number,
        ];
        const gone = [...(members ?? [])].filter(([, score]) => Number(score) >= low && Number(score) <= high);
        for (const [member] of gone) members?.delete(member);
        return gone.length;
      }
      default:
        throw new Error(`ERR the test's store does not know the command ${name}`);
    }
  }

  #look(key: string): Entry | undefined {
    const entry = this.#entries.get(key);
    if (entry && entry.expires <= this.#clock.now()) {
      this.#entries.delete(key);
      return undefined;
    }
    return entry;
  }

  #fields(key: string): Map<string, string> | undefined {
    const value = this.#look(key)?.value;
    return value instanceof Map ? value : undefined;
  }

  #add(key: string, pairs: readonly string[]): number {
    let fields = this.#fields(key);
    if (!fields) this.#entries.set(key, { value: (fields = new Map()), expires: Number.POSITIVE_INFINITY });
    const before = fields.size;
    for (let i = 0; i < pairs.length; i += 2) fields.set(pairs[i] as string, pairs[i + 1] as string);
    return fields.size - before;
  }

  #set(key: string, value: string, options: readonly string[]): Reply {
    const upper = options.map((option) => option.toUpperCase());
    if (upper.includes("NX") && this.#look(key)) return null;
    const after = (name: string, unit: number) => {
      const at = upper.indexOf(name);
      return at === -1 ? undefined : Number(options[at + 1]) * unit;
    };
    const life = after("PX", 1) ?? after("EX", 1_000);
    this.#entries.set(key, {
      value,
      expires: life === undefined ? Number.POSITIVE_INFINITY : this.#clock.now() + life,
    });
    return "OK";
  }

  #expire(key: string, life: number): number {
    const entry = this.#look(key);
    if (entry) this.#entries.set(key, { ...entry, expires: this.#clock.now() + life });
    return entry ? 1 : 0;
  }
}

/** As Lua gets it: texts as bytes. */
const buffersOf = (reply: Reply): unknown =>
  typeof reply === "string" ? Buffer.from(reply) : Array.isArray(reply) ? reply.map(buffersOf) : reply;

function textsOf(said: unknown): Reply {
  if (Buffer.isBuffer(said)) return said.toString();
  if (Array.isArray(said)) return said.map(textsOf);
  if (typeof said === "object" && said !== null && "err" in said) throw new Error(String(said.err));
  return said as Reply;
}
