/** Copies of requests for other clusters: what they hold, and that whoever asked never notices. */
import { randomBytes } from "node:crypto";
import type { ServerResponse } from "node:http";
import { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Answer } from "./client.ts";
import { Clusters, inParallel, pathBelow, status } from "./clusters.ts";
import { describeWithRealParts } from "./fixture.ts";
import { digest, type Handler } from "./origin.ts";
import { until } from "./process.ts";

const ROUTES = `
import { api, cluster, env, filter, gateway, headers, mirror, requestId, route, secret } from "portcullis";
const primary = cluster("primary", { ingress: env("PRIMARY") });
const unsigned = cluster("unsigned", { ingress: env("PRIMARY"), assertion: false });
const capped = cluster("capped", { ingress: env("PRIMARY"), concurrency: 1 });
const first = cluster("first", { ingress: env("FIRST") });
const second = cluster("second", { ingress: env("SECOND") });
const held = cluster("held", { ingress: env("FIRST") });
const direct = cluster("direct", { ingress: env("FIRST_SERVICE") });
const to = (name, mirrors, options = {}) => route(name, { path: "/" + name + "/*" }, { to: primary, mirrors, ...options });
const changes = headers({ request: { set: { "x-set": "by the route" }, remove: ["x-removed"] } });
export default gateway({
  policies: [requestId({})],
  assertion: { key: secret("ASSERTION_KEY"), issuer: "https://api.example.com" },
}, [
  api("shop", {}, [
    to("all", [mirror(first)], { policies: [changes] }),
    to("percent", [mirror(first, { percent: 20 }), mirror(second, { fraction: [1, 2] })]),
    to("both", [mirror(first), mirror(second, { methods: ["GET", "POST"] })]),
    to("any", [mirror(first, { methods: "any" }), mirror(second, { methods: ["PUT"], maxBody: 1_000 })]),
    to("filtered", [mirror(first, { methods: "any" })], { policies: [filter({})] }),
    to("retried", [mirror(first, { methods: "any" })], { to: unsigned, retry: { methods: "any", maxBody: 100_000 } }),
    to("held", [mirror(held)]),
    to("brief", [mirror(first)], { timeouts: { firstByte: "300ms", total: "400ms" } }),
    to("capped", [mirror(first)], { to: capped }),
    to("direct", [mirror(direct)]),
    to("backends", [], { to: primary.with({ mirrors: [mirror(second)] }) }),
  ]),
]);`;

/** Of that many bytes, and of a kind that no filter minds. */
const letters = (size: number) => Buffer.from(randomBytes(Math.ceil(size / 2)).toString("hex")).subarray(0, size);

const names = ["primary", "first", "second"] as const;
type Name = (typeof names)[number];

describeWithRealParts("a mirror", () => {
  let on: Clusters<Name>;
  beforeAll(async () => {
    on = await Clusters.start(names, ROUTES);
  });
  afterAll(() => on?.close());

  const arrivedAt = (name: Name, path: string) => on.at(name).origin.arrivedAt(path);
  const copied = (name: Name, path: string, count = 1) =>
    until(`${count} copies at ${name}`, () => arrivedAt(name, path).length >= count && arrivedAt(name, path));
  /** Long enough for a copy to come that should not. */
  const noMore = () => sleep(100);

  /** Notes what arrives with which body. */
  const noting =
    (bodies: object[]): Handler =>
    async (request, response) => {
      bodies.push(await digest(request));
      response.end();
    };

  it("gets the request as the route has made it, after the primary has answered", async () => {
    const path = pathBelow("/all");
    const held: ServerResponse[] = [];
    on.answer(path, (_, response) => void held.push(response), ["primary"]);
    const asked = on.ask(`${path}?a=1&b=%20`, { headers: { "x-own": "yes", "x-removed": "1", cookie: "a=1" } });
    await until("the primary has it", () => held.length === 1);
    await noMore();
    expect(on.arrived(path)).toEqual({ primary: 1, first: 0, second: 0 });
    held[0]?.end("primary");
    const answer = await asked;
    expect(answer.text()).toBe("primary");
    const [copy] = await copied("first", path);
    const [original] = arrivedAt("primary", path);
    expect(copy).toMatchObject({ method: "GET", url: `${path}?a=1&b=%20` });
    expect(copy?.headers).toMatchObject({ "x-own": "yes", "x-set": "by the route", cookie: "a=1" });
    // What differs is made for each cluster, and by its ingress.
    const { "x-portcullis-assertion": own, host, "x-ingress": at, ...headers } = copy?.headers ?? {};
    const { "x-portcullis-assertion": others, host: _, "x-ingress": primary, ...originals } = original?.headers ?? {};
    expect(headers).toEqual(originals);
    expect([audience(own), at, audience(others), primary]).toEqual(["first", "first", "primary", "primary"]);
    expect(await on.gateway.recordOf(answer)).toMatchObject({
      backend: "primary",
      mirrors: ["first"],
      attempts: [{ backend: "primary", status: 200 }],
    });
  });

  it("gets its share of the requests", async () => {
    const path = pathBelow("/percent");
    await inParallel(10, 400, () => on.ask(path));
    await noMore();
    const { primary, first, second } = on.arrived(path);
    expect(primary).toBe(400);
    // Four standard deviations of the binomial: 32 of 80, and 40 of 200.
    expect(Math.abs(first - 80)).toBeLessThan(32);
    expect(Math.abs(second - 200)).toBeLessThan(40);
    const records = on.gateway.records.filter((record) => record.path === path);
    for (const [name, count] of Object.entries({ first, second }))
      expect(records.filter(({ mirrors }) => mirrors?.includes(name))).toHaveLength(count);
  });

  it("is one of several, each by its own methods", async () => {
    const path = pathBelow("/both");
    const mirrors: unknown[] = [];
    for (const method of ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH"]) {
      const answer = await on.ask(path, { method, body: method.startsWith("P") ? "{}" : "" });
      mirrors.push([method, (await on.gateway.recordOf(answer)).mirrors]);
    }
    await noMore();
    const methods = (name: Name) => arrivedAt(name, path).map(({ method }) => method);
    expect(methods("first").sort()).toEqual(["GET", "HEAD", "OPTIONS"]);
    expect(methods("second").sort()).toEqual(["GET", "POST"]);
    expect(mirrors).toEqual([
      ["GET", ["first", "second"]],
      ["HEAD", ["first"]],
      ["OPTIONS", ["first"]],
      ["POST", ["second"]],
      ["PUT", undefined],
      ["DELETE", undefined],
      ["PATCH", undefined],
    ]);
  });

  it("of one backend gets what that backend gets", async () => {
    const path = pathBelow("/backends");
    expect(await on.gateway.recordOf(await on.ask(path))).toMatchObject({ mirrors: ["second"] });
    await copied("second", path);
    expect(on.arrived(path)).toEqual({ primary: 1, first: 0, second: 1 });
  });

  describe("gets the body", () => {
    const sizes = [0, 1, 30_000, 65_536] as const;
    it.each(
      ["/any", "/filtered", "/retried"].flatMap((prefix) =>
        [true, false].flatMap((stated) => sizes.map((size) => [prefix, stated ? "stated" : "chunked", size] as const)),
      ),
    )("at %s, %s, %i bytes", async (prefix, length, size) => {
      const path = pathBelow(prefix);
      const body = letters(size);
      const got: Record<"primary" | "first", object[]> = { primary: [], first: [] };
      on.answer(path, noting(got.primary), ["primary"]);
      on.answer(path, noting(got.first), ["first"]);
      const headers = length === "stated" ? { "content-length": size } : { "transfer-encoding": "chunked" };
      expect((await on.ask(path, { method: "POST", headers, body })).status).toBe(200);
      await until("the copy is whole", () => got.first.length === 1);
      const sent = await digest(Readable.from([body]));
      expect(got).toEqual({ primary: [sent], first: [sent] });
    });

    it.each(
      ["/any", "/filtered", "/retried"].flatMap((prefix) => ["stated", "chunked"].map((length) => [prefix, length])),
    )("at %s, %s, or no copy where it is larger than `maxBody`", async (prefix, length) => {
      const path = pathBelow(prefix);
      const body = letters(65_537);
      const headers = length === "stated" ? { "content-length": body.length } : { "transfer-encoding": "chunked" };
      const answer = await on.ask(path, { method: "POST", headers, body });
      expect(answer.echo().body).toEqual(await digest(Readable.from([body])));
      await noMore();
      expect(on.arrived(path)).toEqual({ primary: 1, first: 0, second: 0 });
      // While it streams nobody knows how large it gets, so then the record names who was to have it.
      if (length === "stated") expect(await on.gateway.recordOf(answer)).not.toHaveProperty("mirrors");
    });

    it("or no copy where that mirror takes less than another", async () => {
      const path = pathBelow("/any");
      const answer = await on.ask(path, {
        method: "PUT",
        headers: { "content-length": 1_001 },
        body: letters(1_001),
      });
      expect(await on.gateway.recordOf(answer)).toMatchObject({ mirrors: ["first"] });
      const chunked = { "transfer-encoding": "chunked" };
      await on.ask(path, { method: "PUT", headers: chunked, body: letters(1_001) });
      await copied("first", path, 2);
      await noMore();
      expect(on.arrived(path).second).toBe(0);
      const small = await on.ask(path, { method: "PUT", headers: chunked, body: letters(1_000) });
      expect((await on.gateway.recordOf(small)).mirrors).toEqual(["first", "second"]);
      await copied("second", path);
    });

    it("or no copy where the client breaks off", async () => {
      const path = pathBelow("/any");
      const { sent } = on.open(path, { method: "POST", headers: { "transfer-encoding": "chunked" } });
      sent.write("half");
      await until("the primary has the beginning", () => arrivedAt("primary", path).length > 0);
      sent.socket?.resetAndDestroy();
      const record = await on.gateway.record("of it", (record) => record.path === path);
      expect(record).toMatchObject({ status: 499 });
      expect(record).not.toHaveProperty("mirrors");
      await noMore();
      expect(on.arrived(path).first).toBe(0);
    });
  });

  describe("costs the client nothing", () => {
    /** Milliseconds until each of twenty answers, which must be the primary's. */
    async function timed(path: string): Promise<number[]> {
      const took: number[] = [];
      for (let n = 0; n < 20; n++) {
        const started = performance.now();
        const answer = await on.ask(path);
        took.push(performance.now() - started);
        expect([answer.status, answer.echo().servedBy]).toEqual([200, "primary"]);
        expect((await on.gateway.recordOf(answer)).mirrors).toEqual(["first"]);
      }
      return took;
    }

    it("when nobody listens there", async () => {
      await on.kill("first");
      await timed(pathBelow("/all"));
    });

    it("when it is deaf", async () => {
      const { ingress } = on.at("first");
      ingress.freeze();
      try {
        expect(Math.max(...(await timed(pathBelow("/all"))))).toBeLessThan(200);
      } finally {
        ingress.thaw();
      }
    });

    it("when it does not answer, nor once it has answered with anything at all", async () => {
      const path = pathBelow("/all");
      on.answer(path, () => {}, ["first"]);
      expect(Math.max(...(await timed(path)))).toBeLessThan(200);
      for (const code of [500, 301, 204]) {
        on.answer(path, status(code, { "set-cookie": "spy=1", location: `${path}/elsewhere` }), ["first"]);
        const answer = await on.ask(path);
        expect(answer.echo().servedBy).toBe("primary");
        expect(answer.headers).not.toHaveProperty("set-cookie");
      }
      await copied("first", path, 23);
      // A redirect is no request to copy.
      await noMore();
      expect(on.arrived(path).first).toBe(23);
    });

    it("when it does not answer a hundred, and gets no more until it does", async () => {
      const path = pathBelow("/held");
      const held: ServerResponse[] = [];
      on.answer(path, (_, response) => void held.push(response), ["first"]);
      const send = async (count: number) => {
        const answers: Answer[] = [];
        await inParallel(10, count, async () => answers.push(await on.ask(path)));
        expect(answers.map((answer) => answer.status)).toEqual(Array(count).fill(200));
        return Promise.all(answers.map((answer) => on.gateway.recordOf(answer)));
      };
      const records = await send(130);
      await copied("first", path, 100);
      await noMore();
      expect(held).toHaveLength(100);
      expect(records.filter(({ mirrors }) => mirrors?.includes("held"))).toHaveLength(100);
      on.answer(path, status(200), ["first"]);
      for (const response of held) response.end();
      await noMore();
      await send(5);
      await copied("first", path, 105);
    });

    it("and is not waited for longer than the route's total time", async () => {
      const path = pathBelow("/brief");
      on.answer(path, () => {}, ["first"]);
      const started = Date.now();
      expect((await on.ask(path)).status).toBe(200);
      const [copy] = await copied("first", path);
      await until("it sees that nobody waits", () => copy?.aborted);
      expect(Date.now() - started).toBeGreaterThanOrEqual(390);
      expect(Date.now() - started).toBeLessThan(1_000);
    });

    it("and what it answers is not taken in", async () => {
      const path = pathBelow("/all");
      let written = 0;
      on.answer(
        path,
        (_, response) => {
          const write = () => {
            while (written < 50_000_000 && !response.destroyed) {
              written += 100_000;
              if (!response.write(Buffer.alloc(100_000))) return void response.once("drain", write);
            }
          };
          write();
        },
        ["first"],
      );
      await on.ask(path);
      const [copy] = await copied("first", path);
      await until("it sees that nobody reads", () => copy?.aborted);
      expect(written).toBeLessThan(20_000_000);
    });
  });

  it("keeps its connection from copy to copy", async () => {
    const path = pathBelow("/direct");
    for (let n = 1; n <= 30; n++) {
      await on.ask(path);
      await copied("first", path, n);
    }
    const connections = new Set(arrivedAt("first", path).map(({ connection }) => connection));
    expect(connections.size).toBeLessThan(5);
  });

  it("gets one copy of a request that was sent several times, as of the first time", async () => {
    const path = pathBelow("/retried");
    let seen = 0;
    on.answer(
      path,
      async (request, response) => {
        await digest(request);
        response.writeHead(++seen > 2 ? 200 : 503).end();
      },
      ["primary"],
    );
    const got: object[] = [];
    on.answer(path, noting(got), ["first"]);
    expect((await on.ask(path, { method: "POST", body: "{}" })).status).toBe(200);
    const [copy] = await copied("first", path);
    await noMore();
    expect(on.arrived(path)).toEqual({ primary: 3, first: 1, second: 0 });
    expect(got).toEqual([await digest(Readable.from([Buffer.from("{}")]))]);
    expect(copy?.headers).not.toHaveProperty("x-portcullis-attempt");
  });

  it("gets no copy of what the gateway has refused", async () => {
    const path = pathBelow("/capped");
    const held: ServerResponse[] = [];
    on.answer(path, (_, response) => void held.push(response), ["primary"]);
    const first = on.ask(path);
    await until("the primary has one", () => held.length === 1);
    const refused = await on.ask(path);
    expect([refused.status, refused.json().code]).toEqual([503, "backend-overloaded"]);
    expect(await on.gateway.recordOf(refused)).not.toHaveProperty("mirrors");
    held[0]?.end();
    await first;
    await copied("first", path);
    await noMore();
    expect(on.arrived(path).first).toBe(1);
  });
});

const audience = (assertion: unknown): string =>
  JSON.parse(Buffer.from(String(assertion).split(".")[1] ?? "", "base64url").toString()).aud;
