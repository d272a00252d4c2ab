/** The store of a gateway, for commands that change what is in it. */
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { parseEnv } from "node:util";
import { Redis } from "@upstash/redis";
import { type Compiled, compileRoutes } from "../build/compile.ts";
import { parseWrangler } from "../build/environment.ts";
import { runningStand } from "../dev/stand-file.ts";
import type { Reference } from "../table/table.ts";

export interface StoreOptions {
  readonly routes: string;
  readonly config?: string;
}

export interface OpenStore {
  readonly redis: Redis;
  readonly compiled: Compiled;
}

/** Does `work` on the store. Throws what that throws, with what the store or the network says in words of ours. */
export async function withStore<Result>(
  options: StoreOptions,
  work: (store: OpenStore) => Promise<Result>,
): Promise<Result> {
  const store = await openStore(options);
  try {
    return await work(store);
  } catch (error) {
    const { name, message, cause } = error as Error;
    // `fetch failed` says nothing; what the store says ends with the command, of which nobody has heard.
    const why = name === "TypeError" ? ((cause as Error | undefined)?.message ?? message) : message;
    if (name === "Error") throw error;
    throw new Error(`the store cannot be asked: ${why.replace(/, command was: .*$/s, "")}`);
  }
}

/**
 * The store that the routes name. Its address and token are the first of: the environment, `.dev.vars`, what a gateway that runs here by
 * `npm start` uses, and for the address `[vars]` of wrangler's configuration. Throws where one of them is not to be had.
 */
async function openStore(options: StoreOptions): Promise<OpenStore> {
  const compiled = await compileRoutes(options);
  const { store } = compiled.table.gateway;
  if (!store)
    throw new Error("the gateway has no store; give gateway({ store: { url: env(...), token: secret(...) } })");
  const [url, token] = await valuesOf([store.url, store.token], compiled);
  const redis = new Redis({
    url,
    token,
    enableTelemetry: false,
    // A person waits: better an error now than a success after half a minute.
    retry: { retries: 1 },
    signal: () => AbortSignal.timeout(5_000),
    automaticDeserialization: false,
  });
  return { redis, compiled };
}

async function valuesOf(
  [url, token]: readonly [Reference, Reference],
  { wrangler }: Compiled,
): Promise<[url: string, token: string]> {
  const developersOwn = join(wrangler ? dirname(wrangler) : process.cwd(), ".dev.vars");
  const own = parseEnv(await readFile(developersOwn, "utf8").catch(() => ""));
  const stand = await runningStand();
  const deployed = wrangler ? parseWrangler(wrangler, await readFile(wrangler, "utf8")).vars : {};
  const value = (reference: Reference): string => {
    const name = Object.values(reference)[0] as string;
    const found =
      process.env[name] ?? own[name] ?? stand?.[name] ?? ("env" in reference ? deployed?.[name] : undefined);
    if (typeof found === "string" && found !== "") return found;
    throw new Error(
      `there is no ${name}; set it in the environment or in ${developersOwn}, or run npm start beside this command`,
    );
  };
  return [value(url), value(token)];
}
