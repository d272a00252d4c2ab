/** Lua scripts as Redis runs them, on a clock of the test's: the Lua of js-redis-server, and as much of Redis as the scripts call. */
import { LuaWasmEngine } from "lua-redis-wasm";

type Reply = number | null | Buffer | Reply[];

export class LuaRedis {
  /** Milliseconds since the epoch. */
  now = 0;
  calls = 0;
  readonly #keys = new Map<string, { readonly fields: Map<string, Buffer>; expires: number }>();
  #engine: LuaWasmEngine | undefined;

  static async create(): Promise<LuaRedis> {
    const redis = new LuaRedis();
    const call = (args: Buffer[]) => redis.#command(args.map(String));
    redis.#engine = await LuaWasmEngine.create({
      host: { redisCall: call, redisPcall: call, log: () => {} } as never,
    });
    return redis;
  }

  /** What EVAL replies. Throws the script's error. */
  eval(script: string, key: string, args: readonly (string | number)[]): unknown {
    this.calls += 1;
    const engine = this.#engine as LuaWasmEngine;
    const buffers = args.map((arg) => Buffer.from(String(arg)));
    const reply = engine.evalWithArgs(script, [Buffer.from(key)], buffers) as unknown;
    if (typeof reply === "object" && reply !== null && "err" in reply) throw new Error(String(reply.err));
    return reply;
  }

  /** A restart without persistence. */
  forget(): void {
    this.#keys.clear();
  }

  get size(): number {
    return this.#keys.size;
  }

  #command([name, key = "", ...args]: string[]): Reply {
    let entry = this.#keys.get(key);
    if (entry && entry.expires <= this.now) {
      this.#keys.delete(key);
      entry = undefined;
    }
    switch (name) {
      case "TIME": {
        const seconds = Math.floor(this.now / 1_000);
        return [seconds, Math.floor((this.now - seconds * 1_000) * 1_000)].map((part) => Buffer.from(String(part)));
      }
      case "HMGET":
        return args.map((field) => entry?.fields.get(field) ?? null);
      case "HSET": {
        entry ??= { fields: new Map(), expires: Number.POSITIVE_INFINITY };
        for (let i = 0; i < args.length; i += 2)
          entry.fields.set(args[i] as string, Buffer.from(args[i + 1] as string));
        this.#keys.set(key, entry);
        return args.length / 2;
      }
      case "PEXPIRE":
        if (entry) entry.expires = this.now + Number(args[0]);
        return entry ? 1 : 0;
      default:
        throw new Error(`no command ${name}`);
    }
  }
}
