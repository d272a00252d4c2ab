import { cloudflareTest } from "@cloudflare/vitest-plugin";
import { defineConfig } from "vitest/config";

/**
 * Two projects, by what the code under test runs in. `edge`: table/, policies/ and edge/, inside workerd. `node`: build/, import/,
 * traffic/, dev/ and the command line, in Node; and test/e2e and test/conformance, which start workerd, Redis and nginx as processes
 * of their own.
 */
export default defineConfig({
  test: {
    projects: [
      {
        plugins: [
          cloudflareTest({
            miniflare: { compatibilityDate: "2026-10-20", compatibilityFlags: ["enable_request_signal"] },
          }),
        ],
        test: {
          name: "edge",
          include: ["test/{table,policies,edge}/**/*.test.ts"],
          testTimeout: 30_000,
        },
      },
      {
        test: {
          name: "node",
          environment: "node",
          include: ["test/{config,build,import,traffic,simulation,dev,e2e,cli,conformance}/**/*.test.ts"],
          testTimeout: 30_000,
          hookTimeout: 60_000,
        },
      },
    ],
  },
});
