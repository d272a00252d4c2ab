/** Limits in the time of a log let through what the store's own scripts let through, in the edge's own code. */
import fc from "fast-check";
import { testGateway } from "portcullis/testing";
import { expect, test } from "vitest";
import type { RateLimitConfig } from "../../src/policies/rate-limit.ts";
import { Counting } from "../../src/replay/counting.ts";

const routes = new URL("../testing/routes.ts", import.meta.url);
const env = { EU: "https://eu.test", US: "https://us.test", STORE: "https://store.test" };
const unknown = () => undefined;

test.each(["/fixed", "/sliding", "/several"])("%s", async (path) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat(25_000), fc.constantFrom("203.0.113.1", "203.0.113.2")), {
        minLength: 5,
        maxLength: 40,
      }),
      async (requests) => {
        const gateway = await testGateway(routes, { env, now: "2026-11-28T10:00:07.5Z" });
        const route = gateway.table.routes.find(({ id }) => id === `all${path}`);
        const limiter = gateway.table.policies[route?.policies.at(-1) ?? -1]?.config as RateLimitConfig;
        const counting = new Counting();
        for (const [pause, client] of requests) {
          await gateway.advance(pause);
          const { status } = await gateway.fetch("GET", path, { client });
          const logged = {
            method: "GET",
            url: "",
            client,
            time: gateway.now,
            header: unknown,
            query: unknown,
            cookie: unknown,
          };
          expect([gateway.now, counting.admits(limiter, limiter.limits, "here", logged)]).toEqual([
            gateway.now,
            status === 200,
          ]);
        }
      },
    ),
    { numRuns: 10 },
  );
});
