/** A cluster that goes away in the middle of a run, and comes back. */
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import type { Answer } from "./client.ts";
import { describeWithRealParts, Fixture } from "./fixture.ts";
import { until } from "./process.ts";

const ROUTES = `
const timeouts = { connect: "400ms", firstByte: "800ms", total: "5s" };
const both = eu.service("orders").or(us.service("orders"));
export default gateway(settings, [
  api("shop", {}, [
    route("orders", { path: "/orders/*" }, { to: both, timeouts }),
    route("held", { path: "/held/*" }, { policies: [filter({})], to: both, timeouts }),
    route("alone", { path: "/alone/*" }, { to: eu.service("orders"), timeouts }),
    route("canary", { path: "/canary/*" },
      { to: split({ stable: us.service("orders").weight(0), canary: eu.service("orders-next").or(us.service("orders-next")).weight(1) }, { sticky: "client" }), timeouts }),
  ]),
]);`;

describeWithRealParts("failover", () => {
  let on: Fixture;
  beforeAll(async () => {
    on = await Fixture.start({ routes: ROUTES });
  });
  afterAll(() => on?.close());

  let restore: (() => unknown)[] = [];
  afterEach(async () => {
    for (const undo of restore) await undo();
    restore = [];
  });

  async function kill(cluster: "eu" | "us"): Promise<void> {
    await on[cluster].kill();
    restore.push(() => on[cluster].start());
  }

  /** What both services in `cluster` answer on `path`, until the test is over. */
  function answerIn(cluster: "eu" | "us", path: string, status: number): void {
    const origin = on.origins[`${cluster}/orders`];
    origin.on(path, (_, response) => response.writeHead(status).end(`${status} of ${cluster}`));
    restore.push(() => origin.off(path));
  }

  const servedBy = (answer: Answer) => (answer.status === 200 ? answer.echo().servedBy : answer.status);

  it("answers every GET while the first cluster is killed and started again, and then asks it again", async () => {
    const seen: (string | number)[] = [];
    let stop = false;
    const client = async () => {
      while (!stop) seen.push(servedBy(await on.ask("/orders/run")));
    };
    const clients = Array.from({ length: 8 }, client);
    const since = (from: number, by: string) => until(`${by} answers`, () => seen.slice(from).includes(by));
    await since(0, "eu/orders");
    await on.eu.kill();
    await since(seen.length, "us/orders");
    const down = seen.length;
    await until("a hundred more answers", () => seen.length > down + 100);
    expect(new Set(seen.slice(down))).toEqual(new Set(["us/orders"]));
    await on.eu.start();
    await since(seen.length, "eu/orders");
    stop = true;
    await Promise.all(clients);
    expect(new Set(seen)).toEqual(new Set(["eu/orders", "us/orders"]));
    expect(servedBy(await on.ask("/orders/after"))).toBe("eu/orders");
  });

  it("records both attempts", async () => {
    await kill("eu");
    const record = await on.gateway.recordOf(await on.ask("/orders/x"));
    expect(record).toMatchObject({
      status: 200,
      backend: "us/orders",
      attempts: [
        { backend: "eu/orders", error: "upstream-unreachable" },
        { backend: "us/orders", status: 200 },
      ],
    });
    expect(record).not.toHaveProperty("reason");
  });

  it("sends the assertion and the path that are meant for the other cluster", async () => {
    await kill("eu");
    const { url, headers } = (await on.ask("/orders/x?a=1")).echo();
    const { aud } = JSON.parse(atob((headers["x-portcullis-assertion"] as string).split(".")[1] as string));
    expect({ url, host: headers.host, aud }).toEqual({
      url: "/orders/x?a=1",
      host: "orders.us.shop.internal",
      aud: "us",
    });
  });

  it("repeats what may be repeated, and only that", async () => {
    await kill("eu");
    for (const method of ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]) {
      const answer = await on.ask("/orders/x", { method });
      expect([method, answer.status]).toEqual([method, 200]);
    }
    for (const [method, body] of [
      ["POST", ""],
      ["POST", "{}"],
      ["PATCH", "{}"],
      ["PUT", "{}"],
    ] as const) {
      const before = on.origins["us/orders"].arrived.length;
      const answer = await on.ask("/orders/x", { method, body });
      expect([method, answer.status, answer.json().code]).toEqual([method, 502, "upstream-unreachable"]);
      expect(answer.headers["retry-after"]).toBe("5");
      expect(on.origins["us/orders"].arrived.length).toBe(before);
      expect((await on.gateway.recordOf(answer)).attempts).toHaveLength(1);
    }
  });

  it("repeats a PUT whose body the filter holds, with that body", async () => {
    await kill("eu");
    const body = JSON.stringify({ note: "ordinary" });
    const headers = { "content-type": "application/json" };
    const answer = await on.ask("/held/x", { method: "PUT", body, headers });
    expect(servedBy(answer)).toBe("us/orders");
    expect(answer.echo().body.bytes).toBe(body.length);
    expect((await on.ask("/held/x", { method: "POST", body, headers })).status).toBe(502);
  });

  it("asks the other cluster also when the first dies over the request", async () => {
    const arriving = new Promise<void>((resolve) =>
      on.origins["eu/orders"].on("/orders/orders/dying", () => resolve()),
    );
    const asked = on.ask("/orders/dying");
    await arriving;
    await kill("eu");
    expect(servedBy(await asked)).toBe("us/orders");
    on.origins["eu/orders"].off("/orders/orders/dying");
  });

  it.each([502, 503, 504])("takes %i of the first cluster's ingress for a reason to ask the other", async (status) => {
    answerIn("eu", "/orders/orders/busy", status);
    const answer = await on.ask("/orders/busy");
    expect(servedBy(answer)).toBe("us/orders");
    expect((await on.gateway.recordOf(answer)).attempts).toMatchObject([
      { backend: "eu/orders", status },
      { backend: "us/orders", status: 200 },
    ]);
    const post = await on.ask("/orders/busy", { method: "POST", body: "{}" });
    expect([post.status, post.text()]).toEqual([status, `${status} of eu`]);
  });

  it.each([400, 404, 429, 500, 501])("takes %i for the first cluster's answer", async (status) => {
    answerIn("eu", "/orders/orders/wrong", status);
    const answer = await on.ask("/orders/wrong");
    expect([answer.status, answer.text()]).toEqual([status, `${status} of eu`]);
  });

  it("gives the last cluster's own answer when both are busy", async () => {
    answerIn("eu", "/orders/orders/none", 503);
    answerIn("us", "/orders/none", 503);
    const answer = await on.ask("/orders/none");
    expect([answer.status, answer.text()]).toEqual([503, "503 of us"]);
  });

  it("answers 502 when nobody is there, and recovers by itself", async () => {
    await on.eu.kill();
    await on.us.kill();
    const answer = await on.ask("/orders/x");
    expect([answer.status, answer.json().code]).toEqual([502, "upstream-unreachable"]);
    expect((await on.gateway.recordOf(answer)).attempts).toMatchObject([
      { backend: "eu/orders", error: "upstream-unreachable" },
      { backend: "us/orders", error: "upstream-unreachable" },
    ]);
    await on.us.start();
    expect(servedBy(await on.ask("/orders/x"))).toBe("us/orders");
    await on.eu.start();
    expect(servedBy(await on.ask("/orders/x"))).toBe("eu/orders");
    expect(servedBy(await on.ask("/orders/x", { method: "POST", body: "{}" }))).toBe("eu/orders");
  });

  it("does not wait longer than the deadline for a cluster that is frozen", async () => {
    on.eu.freeze();
    restore.push(() => on.eu.thaw());
    const started = Date.now();
    const answer = await on.ask("/orders/x");
    expect(servedBy(answer)).toBe("us/orders");
    expect(Date.now() - started).toBeLessThan(3_000);
    expect((await on.gateway.recordOf(answer)).attempts).toMatchObject([
      { backend: "eu/orders", error: "upstream-timeout" },
      { backend: "us/orders", status: 200 },
    ]);
    const alone = await on.ask("/alone/x");
    expect([alone.status, alone.json().code]).toEqual([504, "upstream-timeout"]);
    const post = await on.ask("/orders/x", { method: "POST", body: "{}" });
    expect([post.status, post.json().code]).toEqual([504, "upstream-timeout"]);
    on.eu.thaw();
    await until("the cluster is asked again", async () => servedBy(await on.ask("/orders/x")) === "eu/orders");
  });

  it("stays on its arm of a split", async () => {
    expect(servedBy(await on.ask("/canary/x"))).toBe("eu/orders-next");
    await kill("eu");
    const answer = await on.ask("/canary/x");
    expect([servedBy(answer), answer.headers["x-portcullis-arm"]]).toEqual(["us/orders-next", "canary"]);
  });

  it("leaves no secret in the log", () => {
    expect(on.gateway.records.length).toBeGreaterThan(100);
    expect(on.leaked()).toEqual([]);
  });
});
