/** What the Worker never runs of @upstash/ratelimit stays out of it: 3.1 kB of the bundle's gzip (measured). */
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import type { Plugin } from "esbuild";
import { SOURCES } from "./read.ts";

const require = createRequire(import.meta.url);

/**
 * The package's `main` is CommonJS, of which nothing can be left out, beside the same as a module. Both bring the library that records
 * analytics, which policies/limit-store.ts has none of. An import of the operator's own gets what the package says.
 */
export const leanRatelimit: Plugin = {
  name: "lean-ratelimit",
  setup(esbuild) {
    const file = join(dirname(require.resolve("@upstash/ratelimit")), "index.mjs");
    esbuild.onResolve({ filter: /^@upstash\/ratelimit$/ }, ({ importer }) =>
      importer.startsWith(SOURCES) ? { path: file, sideEffects: false } : undefined,
    );
    esbuild.onResolve({ filter: /^@upstash\/core-analytics$/ }, ({ importer }) =>
      importer === file ? { path: "no-analytics", namespace: "lean-ratelimit" } : undefined,
    );
    esbuild.onLoad({ filter: /^/, namespace: "lean-ratelimit" }, () => ({
      contents: "export const Analytics = undefined;",
    }));
  },
};
