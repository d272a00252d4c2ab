import { availableParallelism } from "node:os";
import { cloudflareTest } from "@cloudflare/vitest-plugin";
import { defineConfig } from "vitest/config";

declare module "vitest" {
  interface ProvidedContext {
    fuzzSeed: number;
    filterPack: { json: string; bytes: number[] };
  }
}

const asked = process.env.PORTCULLIS_SEED ?? "20261128";
const fuzzSeed = asked === "random" ? Math.floor(Math.random() * 2 ** 31) : Number(asked);
if (!Number.isInteger(fuzzSeed)) throw new Error(`PORTCULLIS_SEED is "${asked}": write a whole number, or random`);
console.log(`property tests draw by seed ${fuzzSeed} (PORTCULLIS_SEED)`);
const drawn = { setupFiles: ["test/fuzz-seed.ts"], provide: { fuzzSeed } };

/**
 * Three projects, by what the code under test runs in. `edge`: table/, policies/ and edge/, inside workerd. `pure`: config/, import/ and
 * traffic/, which keep nothing and touch nothing outside, so that their files share one process and load what they test once. `node`:
 * all others, in Node; among them test/e2e and test/conformance, which start workerd, Redis and nginx as processes of their own.
 */
export default defineConfig({
  test: {
    // By itself vitest leaves one core to others, and a third of the time here is spent waiting for processes: 5 min on two cores, not 10.
    maxWorkers: availableParallelism() + 1,
    projects: [
      {
        plugins: [
          cloudflareTest({
            miniflare: { compatibilityDate: "2026-10-20", compatibilityFlags: ["enable_request_signal"] },
          }),
        ],
        test: {
          ...drawn,
          name: "edge",
          globalSetup: ["test/filter-pack.ts"],
          include: ["test/{table,policies,edge}/**/*.test.ts"],
          isolate: false,
          testTimeout: 30_000,
        },
      },
      {
        test: {
          ...drawn,
          name: "pure",
          environment: "node",
          include: ["test/{config,import,traffic}/**/*.test.ts"],
          isolate: false,
          testTimeout: 30_000,
        },
      },
      {
        test: {
          ...drawn,
          name: "node",
          environment: "node",
          include: ["test/**/*.test.ts"],
          exclude: ["test/{table,policies,edge,config,import,traffic}/**"],
          testTimeout: 30_000,
          hookTimeout: 60_000,
        },
      },
    ],
  },
});
