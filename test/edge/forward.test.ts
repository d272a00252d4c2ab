/** What is taken while a request is under way (a place at an endpoint, a retry of the budget) is given back however it ends. */
import { expect, it } from "vitest";
import { type Attempt, type Course, forward } from "../../src/edge/forward.ts";
import { type Choice, Traffic } from "../../src/edge/tries.ts";
import type { RouteTable, TableRetry } from "../../src/table/table.ts";
import { exchangeFor } from "../policies/exchange.ts";

const action = { kind: "forward", backends: [0] } as const;
const rules: TableRetry = {
  attempts: 1,
  on: [503],
  backoff: { base: 1, max: 1 },
  maxBody: 0,
  budget: { percent: 0, minimum: 1 },
};

/** Asks the one backend, of which two requests may be under way, as `prepare` and `fetch` would have it. */
function gateway(
  prepare: () => Promise<unknown> = async () => {},
  fetch = async () => new Response("ok"),
  certificate = false,
) {
  const cluster = { name: "eu", ingress: { env: "EU" }, scheme: "https", assertion: false, concurrency: 2 } as const;
  const traffic = new Traffic({
    clusters: { eu: cluster },
    backends: [{ name: "eu", cluster: "eu" }],
  } as never as RouteTable);
  return async (course: Partial<Course> = {}) => {
    const request = new Request("https://api.example.com/");
    const exchange = exchangeFor(request);
    const { answer } = await forward(exchange, request, {
      tries: traffic.triesOf(action, exchange, request),
      prepare: async (_: Choice): Promise<Attempt> => {
        await prepare();
        const ingress = { path: "", certificate, fetch };
        return { backend: "eu", url: request.url, ingress, headers: new Headers() };
      },
      timeouts: { connect: 1_000, firstByte: 1_000, total: 1_000 },
      maxBody: 0,
      copied: 0,
      retry: { rules, budget: traffic.budgetOf(rules), cut: false },
      ...course,
    });
    return "failed" in answer ? answer.failed : answer.response.status;
  };
}

it("a place is taken from the moment at which it is chosen", async () => {
  const ask = gateway(() => scheduler.wait(5));
  expect(await Promise.all([ask(), ask(), ask()])).toEqual([200, 200, "backend-overloaded"]);
  expect(await Promise.all([ask(), ask()])).toEqual([200, 200]);
});

it("a place is given back by a request that cannot be made ready", async () => {
  let ready = false;
  const ask = gateway(async () => {
    if (!ready) throw new Error("not configured");
  });
  for (let n = 0; n < 3; n++) await expect(ask()).rejects.toThrow("not configured");
  ready = true;
  expect(await Promise.all([ask(), ask()])).toEqual([200, 200]);
});

it("a retry is given back to the budget by one that cannot be made ready", async () => {
  let prepared = 0;
  let failing = true;
  let asked = 0;
  const ask = gateway(
    async () => {
      if (failing && ++prepared % 2 === 0) throw new Error("not configured");
    },
    async () => new Response(null, { status: failing || ++asked % 2 === 1 ? 503 : 200 }),
  );
  for (let n = 0; n < 3; n++) await expect(ask()).rejects.toThrow("not configured");
  failing = false;
  expect(await ask()).toBe(200);
});

it("a page that may refuse the gateway's certificate is not waited for any longer than another answer", async () => {
  const headers = { "content-type": "text/html", "content-length": "100" };
  const page = async () => new Response(new ReadableStream(), { status: 400, headers });
  const ask = gateway(undefined, page, true);
  expect(await ask({ timeouts: { connect: 50, firstByte: 50, total: 100 } })).toBe("upstream-timeout");
});
