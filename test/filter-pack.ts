/** Compiles the rules of `filter`, in Node, for tests that run in workerd. */
import type { TestProject } from "vitest/node";
import { filterPack } from "../src/build/filter-pack.ts";

export default function setup({ provide }: TestProject): void {
  const { json, bytes } = filterPack();
  provide("filterPack", { json, bytes: Array.from(bytes) });
}
