import { inject } from "vitest";
import { decodePack } from "../../src/waf/pack-encoding.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** Of test/filter-pack.ts. */
    filterPack: { json: string; bytes: number[] };
  }
}

const { json, bytes } = inject("filterPack");

/** The rules of `filter`, as the Worker gets them. */
export const filterRules = decodePack(json, Uint8Array.from(bytes));
