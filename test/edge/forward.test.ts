/**
 * What is taken while a request is under way (a place at an endpoint, a share of the budget) is given back however it ends, and nobody
 * is asked twice without a retry.
 */
import { expect, it } from "vitest";
import { Departure } from "../../src/edge/departure.ts";
import { forward } from "../../src/edge/forward.ts";
import { Traffic } from "../../src/edge/tries.ts";
import type { RouteTable, TableRetry, Timeouts } from "../../src/table/table.ts";
import { exchangeFor } from "../policies/exchange.ts";

const rules: TableRetry = {
  attempts: 1,
  on: [503],
  backoff: { base: 1, max: 1 },
  maxBody: 0,
  budget: { percent: 0, minimum: 1 },
};

interface Backends {
  /** By name, in order of priority: how many requests may be under way at each. */
  readonly caps: Readonly<Record<string, number>>;
  /** Asked with a certificate of the gateway's. */
  readonly certificate?: boolean;
  readonly timeouts?: Timeouts;
  readonly retry?: TableRetry;
  /** Makes a try ready. */
  readonly prepare?: () => Promise<unknown>;
  readonly fetch?: (backend: string) => Promise<Response>;
}

/** Asks them; gives the status, or why there is none. */
function asking({ caps, retry, prepare = async () => {}, fetch = async () => new Response("ok"), ...own }: Backends) {
  const { certificate = false, timeouts = { connect: 1_000, firstByte: 1_000, total: 1_000 } } = own;
  const names = Object.keys(caps);
  const cluster = (name: string) => ({ name, ingress: { env: name }, scheme: "https", concurrency: caps[name] });
  const traffic = new Traffic({
    clusters: Object.fromEntries(names.map((name) => [name, cluster(name)])),
    backends: names.map((name) => ({ name, cluster: name })),
  } as never as RouteTable);
  const action = { kind: "forward", backends: names.map((_, backend) => backend) } as const;
  return async () => {
    const request = new Request("https://api.example.com/");
    const exchange = exchangeFor(request);
    const { answer } = await forward(exchange, request, {
      tries: traffic.triesOf(action, exchange, request),
      prepare: async ({ backend }) => {
        await prepare();
        const name = names[backend] as string;
        const ingress = { path: "", certificate, fetch: () => fetch(name) };
        return { backend: name, url: request.url, ingress, headers: new Headers() };
      },
      timeouts,
      departure: new Departure(request.signal),
      maxBody: 0,
      copied: 0,
      retry: retry && { rules: retry, budget: traffic.budgetOf(retry), cut: false },
    });
    return "failed" in answer ? answer.failed : answer.response.status;
  };
}

it("a place is taken from the moment at which it is chosen", async () => {
  const ask = asking({ caps: { eu: 2 }, prepare: () => scheduler.wait(5) });
  expect(await Promise.all([ask(), ask(), ask()])).toEqual([200, 200, "backend-overloaded"]);
  expect(await Promise.all([ask(), ask()])).toEqual([200, 200]);
});

it("a place is given back by a request that cannot be made ready", async () => {
  let ready = false;
  const prepare = async () => {
    if (!ready) throw new Error("not configured");
  };
  const ask = asking({ caps: { eu: 2 }, prepare });
  for (let n = 0; n < 3; n++) await expect(ask()).rejects.toThrow("not configured");
  ready = true;
  expect(await Promise.all([ask(), ask()])).toEqual([200, 200]);
});

it("a request that cannot be made ready is no longer under way for the retry budget", async () => {
  let [ready, asked] = [false, 0];
  const prepare = async () => {
    if (!ready) throw new Error("not configured");
  };
  const fetch = async () => {
    asked++;
    return new Response(null, { status: 503 });
  };
  const retry = { ...rules, attempts: 100, backoff: { base: 0, max: 0 }, budget: { percent: 100, minimum: 0 } };
  const ask = asking({ caps: { eu: 2 }, retry, prepare, fetch });
  for (let n = 0; n < 30; n++) await expect(ask()).rejects.toThrow("not configured");
  ready = true;
  expect(await ask()).toBe(503);
  // One for itself and ten; what those before have brought in has gone with them.
  expect(asked).toBe(1 + 11);
});

it("nobody is asked twice without a retry, also when the next one has no place left", async () => {
  const asked: string[] = [];
  let release: (response: Response) => void = () => {};
  const fetch = async (name: string) => {
    asked.push(name);
    if (name !== "us") return new Response(null, { status: 503 });
    return new Promise<Response>((resolve) => {
      release = resolve;
    });
  };
  const ask = asking({ caps: { eu: 10, asia: 10, us: 1 }, fetch });
  const first = ask();
  await scheduler.wait(1);
  expect(await ask()).toBe(503);
  expect(asked).toEqual(["eu", "asia", "us", "eu", "asia"]);
  release(new Response("us"));
  expect(await first).toBe(200);
});

it("a page that may refuse the gateway's certificate is not waited for any longer than another answer", async () => {
  const headers = { "content-type": "text/html", "content-length": "100" };
  const fetch = async () => new Response(new ReadableStream(), { status: 400, headers });
  const ask = asking({
    caps: { eu: 2 },
    certificate: true,
    timeouts: { connect: 50, firstByte: 50, total: 100 },
    fetch,
  });
  expect(await ask()).toBe("upstream-timeout");
});
