import { cloudflareTest } from "@cloudflare/vitest-plugin";
import { defineConfig } from "vitest/config";

/**
          include: ["test/{config,build,import,traffic,simulation,dev,e2e,cli,conformance}/**/*.test.ts"],
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
