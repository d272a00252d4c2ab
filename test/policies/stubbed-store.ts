/**
 * The store as policies see it, by a stub of `fetch`: it stands outside of the gateway, and a stub can count, fail and hang at will.
 * test/e2e asks a real Redis.
 */
import { vi } from "vitest";
import type { RouteTable } from "../../src/table/table.ts";

export interface StubbedStore {
  readonly values: Map<string, string>;
  /** Commands that were sent, in order. */
  readonly asked: (readonly string[])[];
  /** What scripts give; the stub runs none. */
  evaluate: (command: readonly string[]) => unknown;
  /** Answers instead of the store. */
  answer: (() => Response | Promise<Response>) | undefined;
}

/** What the policy's runtime must have for the stub to be asked. */
export const storeEnv = { STORE_URL: "https://store.example.com", STORE_TOKEN: "the token of the store" };
export const tableWithStore = (consumers: RouteTable["consumers"] = {}): RouteTable =>
  ({
    gateway: { store: { url: { env: "STORE_URL" }, token: { secret: "STORE_TOKEN" } } },
    consumers,
  }) as unknown as RouteTable;

/** vi.restoreAllMocks() takes it away. Knows the commands that policies use. */
export function stubStore(): StubbedStore {
  const store: StubbedStore = { values: new Map(), asked: [], evaluate: () => null, answer: undefined };
  const run = ([name = "", key = "", value = "", ...options]: readonly string[]): unknown => {
    switch (name.toLowerCase()) {
      case "get":
        return store.values.get(key) ?? null;
      case "set":
        if (options.some((option) => String(option).toLowerCase() === "nx") && store.values.has(key)) return null;
        store.values.set(key, value);
        return "OK";
      case "eval":
        return store.evaluate([name, key, value, ...options]);
      default:
        throw new Error(`the stub does not know ${name}`);
    }
  };
  vi.spyOn(globalThis, "fetch").mockImplementation(async (_, init) => {
    const command = JSON.parse(String(init?.body)) as string[];
    store.asked.push(command);
    return store.answer?.() ?? Response.json({ result: run(command) });
  });
  return store;
}
