/** What a large body costs while it goes through: the isolate holds a small part of it, whatever the route could do with a smaller one. */
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Clusters } from "./clusters.ts";
import { describeWithRealParts } from "./fixture.ts";
import { digest } from "./origin.ts";

const ROUTES = `
import { api, balance, cluster, env, filter, gateway, mirror, requestId, route } from "portcullis";
const [a, b] = ["a", "b"].map((name) =>
  cluster(name, { ingress: env(name.toUpperCase()), outlier: {}, breaker: {}, concurrency: 100 }));
const everything = {
  to: balance([a, b]), retry: { methods: "any", on: ["connection", "timeout", "5xx"] }, mirrors: [mirror(b, { methods: "any" })] };
export default gateway({ policies: [requestId({})] }, [
  api("shop", {}, [
    route("plain", { path: "/plain/*" }, { to: a }),
    route("everything", { path: "/everything/*" }, everything),
    route("filtered", { path: "/filtered/*" }, { ...everything, policies: [filter({})] }),
    route("holding", { path: "/holding/*" }, { to: a, retry: { methods: "any", maxBody: 20_000_000 } }),
  ]),
]);`;

const SIZE = 10_000_000;
const PIECE = 100_000;
const MEGABYTE = 1_000_000;

describeWithRealParts("a body of 10 MB", () => {
  let on: Clusters<"a" | "b">;
  beforeAll(async () => {
    on = await Clusters.start(["a", "b"], ROUTES, { inspected: true });
  });
  afterAll(() => on?.close());

  /** Bytes that the isolate and the process hold at the most, beyond what they held before, while `transfer` goes on. */
  async function measured(path: string, transfer: () => Promise<void>): Promise<{ isolate: number; process: number }> {
    // Small ones first, so that code, buffers and connections that any request needs are there already.
    for (let n = 0; n < 100; n++) await on.ask(path, { method: "POST", body: Buffer.alloc(20_000, "x") });
    const before = { isolate: await on.gateway.heap(), process: on.gateway.memory() };
    const most = { isolate: 0, process: 0 };
    let done = false;
    const transferred = transfer().finally(() => {
      done = true;
    });
    while (!done) {
      most.isolate = Math.max(most.isolate, (await on.gateway.heap()) - before.isolate);
      most.process = Math.max(most.process, on.gateway.memory() - before.process);
    }
    await transferred;
    return most;
  }

  async function upload(path: string, headers: Record<string, string | number>): Promise<void> {
    const { sent, response } = on.open(path, { method: "POST", headers });
    for (let bytes = 0; bytes < SIZE; bytes += PIECE) {
      if (!sent.write(Buffer.alloc(PIECE, "x"))) await once(sent, "drain");
      // At the pace of 100 MB a second, so that there is something to be seen in between.
      await sleep(1);
    }
    sent.end();
    const reading = await response;
    const echo = JSON.parse(String(Buffer.concat(await reading.toArray())));
    expect(echo.body.bytes).toBe(SIZE);
  }

  async function download(path: string, headers: Record<string, string | number>): Promise<void> {
    const { sent, response } = on.open(`${path}/large`);
    on.answer(`${path}/large`, async (_, writing) => {
      writing.writeHead(200, headers);
      for (let bytes = 0; bytes < SIZE; bytes += PIECE) {
        if (!writing.write(Buffer.alloc(PIECE, "x"))) await once(writing, "drain");
        await sleep(1);
      }
      writing.end();
    });
    sent.end();
    expect((await digest(await response)).bytes).toBe(SIZE);
  }

  const lengths = [{ "content-length": SIZE }, { "transfer-encoding": "chunked" }];

  it.each(
    ["/plain", "/everything", "/filtered"].flatMap((prefix) =>
      lengths.flatMap((headers) => [upload, download].map((way) => [way.name, prefix, headers, way] as const)),
    ),
  )("as %s at %s, %o, adds at most 2 MB to the isolate", async (_, prefix, headers, way) => {
    const path = `${prefix}/body`;
    const most = await measured(path, () => way(path, headers));
    expect(most.isolate).toBeLessThan(2 * MEGABYTE);
    // Native buffers and what V8 has reserved come and go with it.
    expect(most.process).toBeLessThan(6 * MEGABYTE);
  });

  it("that is held for another try is seen by that measure", async () => {
    const path = "/holding/body";
    const most = await measured(path, () => upload(path, { "content-length": SIZE }));
    expect(most.isolate).toBeGreaterThan(SIZE - MEGABYTE);
  });
});
