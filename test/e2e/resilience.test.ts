/** What one cluster's failure does to requests that another could answer: nothing, as far as retries, ejections and breakers reach. */
import type { ServerResponse } from "node:http";
import { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { DecisionRecord } from "../../src/policies/contract.ts";
import type { Answer } from "./client.ts";
import { Clusters, harmless, inParallel, pathBelow, status } from "./clusters.ts";
import { type DeafServer, startDeafServer } from "./deaf-server.ts";
import { describeWithRealParts } from "./fixture.ts";
import { CF_HEADER } from "./gateway.ts";
import { digest, type Handler } from "./origin.ts";
import { until } from "./process.ts";

// A cluster's state is that of its name, so each group of tests has clusters of its own at the same three ingresses.
const ROUTES = `
import { api, balance, cluster, env, filter, gateway, nearest, requestId, route, secret } from "portcullis";
const one = (kind, name, options = {}) => cluster(kind + "-" + name, { ingress: env(name.toUpperCase()), ...options });
const three = (kind, options) => ["a", "b", "c"].map((name) => one(kind, name, options));
const to = (name, target, options = {}) =>
  route(name, { path: "/" + name + "/*" }, { to: target, timeouts: { firstByte: "1s", total: "10s" }, ...options });
const brief = { firstByte: "250ms", total: "2s" };
const quick = { base: "5ms", max: "5ms" };
const generous = { percent: 100, minimum: 100 };
const outlier = { baseEjectionTime: "1s" };

const weighted = ["a", "b", "c"].map((name, i) => one("weighted", name).weight([5, 3, 2][i]));
const ranked = balance([one("ranked", "a"), one("ranked", "b")]).or(one("ranked", "c"));
const regions = { a: "weur", b: "enam", c: "apac" };
const near = Object.entries(regions).map(([name, region]) => one("near", name, { region }));

export default gateway({
  policies: [requestId({})],
  assertion: { key: secret("ASSERTION_KEY"), issuer: "https://api.example.com" },
}, [
  api("shop", {}, [
    to("killed", balance(three("killed", { outlier })), { retry: { methods: "idempotent" } }),
    to("slow", balance(three("slow", { outlier: { baseEjectionTime: "2s" } })), { retry: { on: ["connection", "timeout"] }, timeouts: brief }),
    to("storm", balance(three("storm")), { retry: { attempts: 3 } }),
    to("storm-of-one", balance(three("storm-of-one")), { retry: { attempts: 3, backoff: { base: "1ms" } } }),
    to("retried", balance(three("retried")), {
      retry: { attempts: 2, on: ["connection", 500, 503], backoff: quick, budget: generous, maxBody: 100_000 } }),
    to("filtered", balance(three("filtered")), {
      policies: [filter({})], retry: { backoff: quick, budget: generous, maxBody: 100_000 } }),
    to("filtered-brief", one("filtered-brief", "a"), { policies: [filter({})], timeouts: { firstByte: "1s", total: "1s" } }),
    to("any-method", balance(three("any-method")), { retry: { methods: "any", backoff: quick, budget: generous } }),
    to("deaf", cluster("deaf", { ingress: env("DEAF") }).or(one("deaf", "a")), {
      timeouts: { connect: "300ms", firstByte: "3s", total: "10s" }, retry: { methods: "any" } }),
    to("jitter", one("jitter", "a"), { retry: { attempts: 1, backoff: { base: "200ms" }, budget: generous } }),
    to("later", one("later", "a"), { retry: { attempts: 1, budget: { percent: 0, minimum: 5 } } }),
    to("brief", balance(three("brief")), {
      timeouts: { firstByte: "200ms", total: "1s" },
      retry: { attempts: 2, on: [503, "timeout"], backoff: quick, budget: generous } }),
    to("unread", cluster("unread", { ingress: env("A_SERVICE") }), { timeouts: { firstByte: "500ms", total: "1s" } }),
    to("whole", one("whole", "a"), { timeouts: { firstByte: "0s", total: "500ms" } }),
    to("ranked", ranked),
    to("ranked-retry", ranked, {
      retry: { attempts: 1, on: ["gateway-error", "connection"], backoff: quick, budget: generous } }),
    to("breaker", one("breaker", "a", { breaker: { minimumRequests: 10, open: "1s", recovery: "1s" } })),
    to("patient", one("patient", "a", { breaker: { minimumRequests: 5 } }), { timeouts: { firstByte: "300ms", total: "600ms" } }),
    to("open", one("open", "a", { breaker: { minimumRequests: 10 } }).or(one("open", "b"))),
    to("capped", one("capped", "a", { concurrency: 3 })),
    to("spilled", one("spilled", "a", { concurrency: 1 }).or(one("spilled", "b"))),
    to("weighted", balance(weighted)),
    to("hashed", balance(three("hashed"), { by: { hash: { header: "x-user" } } }), { retry: { backoff: quick, budget: generous } }),
    to("sticky", balance(three("sticky"), { affinity: { cookie: "shop", maxAge: 600 } }), { retry: { backoff: quick } }),
    to("least", balance(three("least"), { by: "least-request" })),
    to("near", nearest(...near), { retry: { backoff: quick, budget: generous } }),
  ]),
]);`;

const names = ["a", "b", "c"] as const;
type Name = (typeof names)[number];

const delayed =
  (milliseconds: number, handler: Handler): Handler =>
  (request, response, arrived) => {
    request.resume();
    setTimeout(() => handler(request, response, arrived), milliseconds);
  };

/** Fails the first `failures` requests with this status, and says in the answer which one it was. */
const failing = (failures: number, code = 503): Handler => {
  let seen = 0;
  return async (request, response) => {
    const { bytes, sha256 } = await digest(request);
    seen++;
    response.writeHead(seen > failures ? 200 : code).end(JSON.stringify({ seen, bytes, sha256 }));
  };
};

const servedBy = (answer: Answer) => answer.echo().servedBy as Name;

const backends = ({ attempts }: DecisionRecord) => attempts.map(({ backend }) => backend);

describeWithRealParts("resilience", () => {
  let on: Clusters<Name>;
  let deaf: DeafServer;
  beforeAll(async () => {
    deaf = await startDeafServer();
    on = await Clusters.start(names, ROUTES, { texts: { DEAF: `http://127.0.0.1:${deaf.port}` } });
  });
  afterAll(async () => {
    await on?.close();
    await deaf?.close();
  });

  const recordsAt = (path: string) => on.gateway.records.filter((record) => record.path === path);
  /** The records of `count` requests at this path. */
  const recorded = (path: string, count: number) =>
    until(`${count} records of ${path}`, () => recordsAt(path).length >= count && recordsAt(path));

  describe("of three ingresses", () => {
    it("one that is killed under load loses no idempotent request, and is asked again when it is back", async () => {
      const path = pathBelow("/killed");
      const wrong: unknown[] = [];
      const seen: Name[] = [];
      let stop = false;
      const methods = ["GET", "PUT", "DELETE", "OPTIONS"];
      const client = async () => {
        for (let n = 0; !stop; n++) {
          const method = methods[n % methods.length] as string;
          const body = method === "PUT" ? harmless(2_000) : "";
          const answer = await on.ask(path, { method, body }).catch((error) => ({ status: 0, text: () => `${error}` }));
          if (answer.status !== 200) wrong.push([method, answer.status, answer.text()]);
          else {
            const echo = (answer as Answer).echo();
            if (echo.method !== method || echo.body.bytes !== body.length) wrong.push(echo);
            seen.push(echo.servedBy as Name);
          }
        }
      };
      const clients = Array.from({ length: 12 }, client);
      const more = (count: number, from = seen.length) => until(`${count} answers`, () => seen.length > from + count);
      await more(200);
      const revive = await on.kill("b");
      await more(20);
      const without = seen.length;
      await more(400);
      const meanwhile = seen.slice(without);
      await revive();
      const back = seen.length;
      await until("b serves again", () => seen.slice(back).includes("b"));
      stop = true;
      await Promise.all(clients);
      expect(wrong).toEqual([]);
      expect(new Set(seen.slice(0, 200))).toEqual(new Set(names));
      expect(meanwhile).not.toContain("b");
      const failed = (await recorded(path, seen.length)).flatMap(({ attempts }) =>
        attempts.filter(({ error }) => error),
      );
      // Those that it took along, and five in a row for each time that it was ejected: some 500 requests met it otherwise.
      expect(failed.length).toBeGreaterThan(0);
      expect(failed.length).toBeLessThan(60);
      expect(new Set(failed.map(({ backend }) => backend))).toEqual(new Set(["killed-b"]));
    });

    it("one that gets ten times as slow is ejected, and comes back after its time", async () => {
      const path = pathBelow("/slow");
      on.answer(path, delayed(40, status(200)), ["a", "c"]);
      let delay = 40;
      on.answer(path, (...all) => delayed(delay, status(200))(...all), ["b"]);
      let stop = false;
      const statuses = new Set<number>();
      const client = async () => {
        while (!stop) statuses.add((await on.ask(path)).status);
      };
      const clients = Array.from({ length: 9 }, client);
      const asked = () => on.arrived(path).b;
      await until("b is asked", () => asked() > 5);
      delay = 400;
      const timeouts = () =>
        recordsAt(path).flatMap(({ time, attempts }) =>
          attempts.flatMap(({ error, ms }) => (error ? [{ error, at: Date.parse(time) + ms }] : [])),
        );
      await until("five time out", () => timeouts().length >= 5);
      // What was on its way when the fifth one timed out.
      await sleep(600);
      delay = 40;
      const ejected = asked();
      const before = recordsAt(path).length;
      await until("others serve", () => recordsAt(path).length > before + 30);
      expect(asked()).toBe(ejected);
      const back = await until("b is asked again", () => asked() > ejected && Date.now());
      await until("b serves", () => asked() > ejected + 10);
      stop = true;
      await Promise.all(clients);
      expect(statuses).toEqual(new Set([200]));
      expect(new Set(timeouts().map(({ error }) => error))).toEqual(new Set(["upstream-timeout"]));
      const fifth = timeouts()[4]?.at as number;
      expect(back - fifth).toBeGreaterThan(1_950);
      expect(back - fifth).toBeLessThan(4_000);
    });
  });

  describe("a retry", () => {
    it("storm is bounded by the budget", async () => {
      const path = pathBelow("/storm");
      on.answer(path, delayed(5, status(503)));
      const answers: Answer[] = [];
      const requests = 1_000;
      await inParallel(30, requests, async () => answers.push(await on.ask(path)));
      expect(new Set(answers.map((answer) => `${answer.status} ${answer.text()}`))).toEqual(new Set(["503 503"]));
      expect(on.allArrived(path)).toBeLessThanOrEqual(1.2 * requests + 3);
      expect(on.allArrived(path)).toBeGreaterThan(1.1 * requests);
      const notRetried = recordsAt(path).flatMap(({ attempts }) => attempts.at(-1)?.notRetried ?? "none");
      expect(notRetried.filter((why) => why === "budget").length).toBeGreaterThan(0.7 * requests);
    });

    it("storm of one caller is bounded as well", async () => {
      const path = pathBelow("/storm-of-one");
      on.answer(path, status(503));
      const requests = 200;
      for (let n = 0; n < requests; n++) expect((await on.ask(path)).status).toBe(503);
      expect(on.allArrived(path)).toBeLessThanOrEqual(1.2 * requests + 3);
    });

    it.each([
      [503, 1, 200, 2],
      [503, 2, 200, 3],
      [503, 3, 503, 3],
      [500, 2, 200, 3],
      [501, 1, 501, 1],
      [404, 1, 404, 1],
    ])("after %i: %i failures make it %i after %i tries", async (code, failures, expected, tries) => {
      const path = pathBelow("/retried");
      on.answer(path, failing(failures, code));
      const answer = await on.ask(path);
      // The last status and body are the cluster's own.
      expect([answer.status, answer.json().seen]).toEqual([expected, tries]);
      expect(on.allArrived(path)).toBe(tries);
      const told = names.flatMap((name) =>
        on
          .at(name)
          .origin.arrivedAt(path)
          .map(({ headers }) => headers["x-portcullis-attempt"]),
      );
      expect(told.sort()).toEqual(
        ["2", "3", undefined]
          .slice(0, tries - 1)
          .concat(undefined)
          .slice(0, tries),
      );
    });

    it("goes to another cluster than the one that has just failed", async () => {
      for (let n = 0; n < 12; n++) {
        const path = pathBelow("/retried");
        on.answer(path, status(503));
        await on.ask(path);
        const [{ attempts } = { attempts: [] }] = await recorded(path, 1);
        expect(new Set(attempts.map(({ backend }) => backend)).size).toBe(3);
      }
    });

    it("is in the record, try by try", async () => {
      await on.kill("a");
      const path = pathBelow("/retried");
      on.answer(path, status(500), ["b", "c"]);
      const answer = await on.ask(path);
      const { attempts, ...record } = await on.gateway.recordOf(answer);
      // And why there was no fourth.
      expect(attempts.map(({ notRetried }) => notRetried)).toEqual([undefined, undefined, "attempts"]);
      const asked = attempts.map(({ notRetried: _, ...attempt }) => attempt);
      expect(asked.toSorted((x, y) => (x.backend < y.backend ? -1 : 1))).toEqual([
        { backend: "retried-a", error: "upstream-unreachable", ms: expect.any(Number) },
        { backend: "retried-b", status: 500, ms: expect.any(Number) },
        { backend: "retried-c", status: 500, ms: expect.any(Number) },
      ]);
      // Whose turn was last gives the answer.
      const dead = attempts.at(-1)?.backend === "retried-a";
      expect([record.status, record.reason]).toEqual(dead ? [502, "upstream-unreachable"] : [500, undefined]);
    });

    it("is made when no connection stands in time", async () => {
      const path = pathBelow("/deaf");
      const answer = await on.ask(path, { method: "POST", body: "{}" });
      expect([servedBy(answer), answer.echo().body.bytes]).toEqual(["a", 2]);
      expect((await on.gateway.recordOf(answer)).attempts).toMatchObject([
        { backend: "deaf", error: "upstream-connect-timeout" },
        { backend: "deaf-a", status: 200 },
      ]);
    });

    it.each(["POST", "PATCH"])("of %s is made only where the route says so", async (method) => {
      const path = pathBelow("/retried");
      on.answer(path, failing(1));
      expect((await on.ask(path, { method, body: "{}" })).status).toBe(503);
      expect(on.allArrived(path)).toBe(1);
      const other = pathBelow("/any-method");
      on.answer(other, failing(1));
      expect((await on.ask(other, { method, body: "{}" })).status).toBe(200);
      expect(on.allArrived(other)).toBe(2);
    });

    it.each([
      ["of a stated length", true, 100_000],
      ["of a stated length", true, 1],
      ["in chunks", false, 100_000],
      ["in chunks", false, 50_000],
    ])("sends a body %s again, byte for byte: %s %i", async (_, stated, size) => {
      const path = pathBelow("/retried");
      const body = harmless(size);
      const got: unknown[] = [];
      on.answer(path, async (request, response) => {
        const { "content-length": length, "transfer-encoding": encoding } = request.headers;
        got.push({ ...(await digest(request)), length, encoding });
        response.writeHead(got.length > 2 ? 200 : 503).end();
      });
      const headers = stated ? { "content-length": size } : { "transfer-encoding": "chunked" };
      expect((await on.ask(path, { method: "PUT", headers, body })).status).toBe(200);
      const sent = { ...(await digest(Readable.from([body]))), length: String(size), encoding: undefined };
      expect(got).toEqual([sent, sent, sent]);
    });

    it.each([60_000, 80_000, 200_000])("comes together with a filter that has held the body: %i", async (size) => {
      const path = pathBelow("/filtered");
      on.answer(path, failing(1));
      const body = Buffer.alloc(size, "to be or not to be ");
      const answer = await on.ask(path, { method: "PUT", headers: { "content-type": "text/plain" }, body });
      const { sha256 } = await digest(Readable.from([body]));
      expect(answer.json()).toEqual({ seen: size > 100_000 ? 1 : 2, bytes: size, sha256 });
    });

    it.each([
      ["of a stated length", { "content-length": 200_001 }],
      ["in chunks", { "transfer-encoding": "chunked" }],
    ])("is not made with a body over `maxBody` %s, which streams", async (_, headers) => {
      const path = pathBelow("/retried");
      const body = harmless(200_001);
      let begun = 0;
      let whole: unknown;
      on.answer(path, async (request, response) => {
        request.once("data", () => begun++);
        whole = await digest(request);
        response.writeHead(503).end();
      });
      const { sent, response } = on.open(path, { method: "PUT", headers });
      sent.write(body.subarray(0, 150_000));
      await until("the cluster has the beginning", () => begun > 0);
      sent.end(body.subarray(150_000));
      expect((await response).statusCode).toBe(503);
      expect(whole).toEqual(await digest(Readable.from([body])));
      expect(on.allArrived(path)).toBe(1);
    });

    it("waits up to the backoff, each one for a time of its own", async () => {
      const path = pathBelow("/jitter");
      const gaps: number[] = [];
      const first = new Map<string, number>();
      on.answer(path, (request, response) => {
        const id = request.headers["x-request-id"] as string;
        const begun = first.get(id);
        if (begun === undefined) first.set(id, Date.now());
        else gaps.push(Date.now() - begun);
        response.writeHead(begun === undefined ? 503 : 200).end();
      });
      await inParallel(30, 30, () => on.ask(path));
      expect(gaps).toHaveLength(30);
      expect(Math.max(...gaps)).toBeLessThan(350);
      // Evenly drawn from 0 to 200 ms: the mean of 30 is within these bounds but for one run in 10,000.
      const mean = gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length;
      expect(mean).toBeGreaterThan(55);
      expect(Math.min(...gaps)).toBeLessThan(mean / 2);
    });

    it("waits as long as the cluster's Retry-After asks for", async () => {
      const path = pathBelow("/later");
      const at: number[] = [];
      on.answer(path, (_, response) => {
        at.push(Date.now());
        response.writeHead(at.length > 1 ? 200 : 503, { "retry-after": "1" }).end();
      });
      expect((await on.ask(path)).status).toBe(200);
      expect((at[1] as number) - (at[0] as number)).toBeGreaterThanOrEqual(990);
    });

    it("is left to the client where Retry-After asks for long", async () => {
      const path = pathBelow("/later");
      on.answer(path, status(503, { "retry-after": "60" }));
      const started = Date.now();
      const answer = await on.ask(path);
      expect([answer.status, answer.text(), answer.headers["retry-after"]]).toEqual([503, "503", "60"]);
      expect(Date.now() - started).toBeLessThan(900);
      expect(on.allArrived(path)).toBe(1);
    });

    it("is not made for a client that goes away while it is waited for", async () => {
      const path = pathBelow("/later");
      on.answer(path, status(503, { "retry-after": "1" }));
      for (let n = 1; n <= 3; n++) {
        const { sent } = on.open(path);
        sent.end();
        await until("the first try", () => on.allArrived(path) === n);
        await sleep(50);
        sent.socket?.resetAndDestroy();
        const gone = Date.now();
        const record = (await recorded(path, n)).at(-1);
        expect(Date.now() - gone).toBeLessThan(500);
        expect(record).toMatchObject({ status: 499, reason: "client-closed", attempts: [{ status: 503 }] });
      }
      await sleep(1_000);
      expect(on.allArrived(path)).toBe(3);
      const other = pathBelow("/later");
      on.answer(other, failing(1));
      expect((await on.ask(other)).status).toBe(200);
    });
  });

  describe("time", () => {
    it("for one try ends that try, and the last one with 504", async () => {
      const path = pathBelow("/brief");
      on.answer(path, delayed(5_000, status(200)));
      const started = Date.now();
      const answer = await on.ask(path);
      const took = Date.now() - started;
      expect([answer.status, answer.json().code]).toEqual([504, "upstream-timeout"]);
      expect(took).toBeGreaterThanOrEqual(595);
      expect(took).toBeLessThan(950);
      const { attempts } = await on.gateway.recordOf(answer);
      expect(attempts.map(({ error }) => error)).toEqual(Array(3).fill("upstream-timeout"));
      for (const { ms } of attempts) expect(Math.abs(ms - 200)).toBeLessThan(150);
      await until("all clusters see that nobody waits", () =>
        names.every((name) =>
          on
            .at(name)
            .origin.arrivedAt(path)
            .every(({ aborted }) => aborted),
        ),
      );
    });

    it("for one try is a reason to try again", async () => {
      const path = pathBelow("/brief");
      let seen = 0;
      on.answer(path, (...all) => delayed(++seen === 1 ? 5_000 : 0, status(200))(...all));
      expect((await on.ask(path)).status).toBe(200);
      expect(seen).toBe(2);
    });

    it("for the whole exchange ends the series with 504", async () => {
      const path = pathBelow("/brief");
      // Has answered within the time for one try, and never gets to the end.
      on.answer(path, (_, response) => void response.writeHead(503, { "content-length": 10 }).write("half"));
      const started = Date.now();
      const answer = await on.ask(path);
      expect([answer.status, answer.json().code]).toEqual([504, "upstream-timeout"]);
      expect(Date.now() - started).toBeGreaterThanOrEqual(990);
      expect(Date.now() - started).toBeLessThan(1_500);
    });

    it("for the whole exchange counts where one try has no time of its own", async () => {
      const path = pathBelow("/whole");
      // So that no connection need be tried, which has a deadline of its own.
      expect((await on.ask(path)).status).toBe(200);
      on.answer(path, () => {});
      const answer = await on.ask(path);
      expect([answer.status, answer.json().code]).toEqual([504, "upstream-timeout"]);
    });

    it.each([
      ["PUT", "is taken in for another try", { "content-length": 10 }, 0],
      ["POST", "streams", { "content-length": 10 }, 1],
      ["POST", "streams in chunks", { "transfer-encoding": "chunked" }, 1],
    ])("for the whole exchange counts while a body comes, at %s, where it %s", async (method, _, headers, arrived) => {
      const path = pathBelow("/brief");
      // So that no connection need be tried, which has a deadline of its own.
      for (let n = 0; n < 3; n++) await on.ask(path);
      const before = on.allArrived(path);
      const started = Date.now();
      const { sent, response } = on.open(path, { method, headers });
      sent.write("half");
      const answer = await response;
      expect(answer.statusCode).toBe(408);
      expect(Date.now() - started).toBeGreaterThanOrEqual(990);
      expect(Date.now() - started).toBeLessThan(1_500);
      expect(on.allArrived(path) - before).toBe(arrived);
      const record = (await recorded(path, 4)).at(-1);
      expect(record).toMatchObject({
        reason: "request-timeout",
        attempts: Array(arrived).fill({ error: "request-timeout" }),
      });
    });

    it("for the whole exchange counts while a policy waits for the body", async () => {
      const path = pathBelow("/filtered-brief");
      const headers = { "content-type": "application/json", "content-length": 10 };
      const { sent, response } = on.open(path, { method: "POST", headers });
      sent.write("{");
      const started = Date.now();
      expect((await response).statusCode).toBe(408);
      expect(Date.now() - started).toBeLessThan(1_500);
      expect((await recorded(path, 1))[0]).toMatchObject({ reason: "request-timeout", attempts: [] });
    });

    it.each([
      ["of a stated length", { "content-length": 50_000_000 }],
      ["in chunks", { "transfer-encoding": "chunked" }],
    ])("is the cluster's where that does not take the body: %s", async (_, headers) => {
      const path = pathBelow("/unread");
      on.answer(path, () => {});
      const { sent, response } = on.open(path, { method: "POST", headers });
      sent.end(Buffer.alloc(50_000_000));
      expect((await response).statusCode).toBe(504);
      expect((await recorded(path, 1))[0]).toMatchObject({ reason: "upstream-timeout" });
    });
  });

  describe("a breaker", () => {
    it("answers at once while it is open, then lets more and more pass, and closes", async () => {
      const path = pathBelow("/breaker");
      on.answer(path, status(500));
      for (let n = 0; n < 10; n++) expect((await on.ask(path)).status).toBe(500);
      const opened = Date.now();
      const answers: Answer[] = [];
      // It stays open for a second.
      while (answers.length < 50 && Date.now() - opened < 700) answers.push(await on.ask(path));
      for (const answer of answers) {
        expect([answer.status, answer.json().code]).toEqual([503, "breaker-open"]);
        expect(answer.headers["retry-after"]).toBe("1");
      }
      expect(on.allArrived(path)).toBe(10);
      const records = (await recorded(path, 10 + answers.length)).slice(10);
      // Nothing is waited for; a busy machine alone takes a while.
      expect(median(records.map(({ totalMs }) => totalMs))).toBeLessThan(50);
      expect(records[0]).toMatchObject({ reason: "breaker-open", attempts: [] });

      on.answer(path, status(200));
      const first = await until(
        "the first request passes",
        async () => (await on.ask(path)).status === 200 && Date.now(),
      );
      expect(first - opened).toBeGreaterThanOrEqual(990);
      const passed: [at: number, passed: boolean][] = [];
      while (Date.now() < first + 1_100) {
        passed.push([Date.now() - first, (await on.ask(path)).status === 200]);
        await sleep(3);
      }
      const share = (from: number, to: number) => {
        const those = passed.filter(([at]) => at >= from && at < to);
        return those.filter(([, passed]) => passed).length / those.length;
      };
      expect(share(0, 300)).toBeLessThan(0.4);
      expect(share(300, 700)).toBeGreaterThan(0.25);
      expect(share(300, 700)).toBeLessThan(0.75);
      expect(share(700, 1_000)).toBeGreaterThan(0.6);
      expect(share(1_010, 2_000)).toBe(1);
    });

    it("takes no client's word for it that the cluster is slow", async () => {
      const path = pathBelow("/patient");
      on.answer(path, async (request, response) => {
        await digest(request);
        setTimeout(() => response.end(), 100);
      });
      const deadline = { "content-type": "application/grpc-web", "grpc-timeout": "10m" };
      for (let n = 0; n < 10; n++) {
        const answer = await on.ask(path, { method: "POST", headers: deadline, body: "x" });
        expect(answer.headers["grpc-status"]).toBe("4");
      }
      const stalled = Array.from({ length: 10 }, () => {
        const { sent, response } = on.open(path, { method: "POST", headers: { "content-length": 10 } });
        sent.write("half");
        return response;
      });
      for (const response of stalled) expect((await response).statusCode).toBe(408);
      expect((await on.ask(path)).status).toBe(200);
      // The cluster's own slowness it does count.
      on.answer(path, delayed(1_000, status(200)));
      await Promise.all(Array.from({ length: 10 }, () => on.ask(path, { method: "POST", body: "x" })));
      expect((await on.ask(path)).json().code).toBe("breaker-open");
    });

    it("that is open leaves the request to the next priority", async () => {
      const path = pathBelow("/open");
      on.answer(path, status(500), ["a"]);
      for (let n = 0; n < 10; n++) expect((await on.ask(path)).status).toBe(500);
      for (let n = 0; n < 5; n++) expect(servedBy(await on.ask(path, { method: "POST" }))).toBe("b");
      expect(on.arrived(path)).toEqual({ a: 10, b: 5, c: 0 });
    });
  });

  describe("the next priority", () => {
    it.each([
      ["/ranked", 1],
      ["/ranked-retry", 2],
    ])("is asked when places of the one before have failed, at %s after %i", async (below, failed) => {
      const path = pathBelow(below);
      on.answer(path, status(503), ["a", "b"]);
      for (let n = 1; n <= 6; n++) {
        const answer = await on.ask(path);
        expect(servedBy(answer)).toBe("c");
        const { attempts } = await on.gateway.recordOf(answer);
        expect(attempts.map(({ status }) => status)).toEqual([...Array(failed).fill(503), 200]);
      }
    });

    it("is asked once, however many there are", async () => {
      for (const [below, tries] of [
        ["/ranked", 2],
        ["/ranked-retry", 3],
      ] as const) {
        const path = pathBelow(below);
        on.answer(path, status(503));
        expect((await on.ask(path)).status).toBe(503);
        expect([on.allArrived(path), on.arrived(path).c]).toEqual([tries, 1]);
      }
    });

    it("is not asked for what must not be repeated", async () => {
      const path = pathBelow("/ranked");
      on.answer(path, status(503), ["a", "b"]);
      expect((await on.ask(path, { method: "POST" })).status).toBe(503);
      expect(on.allArrived(path)).toBe(1);
    });
  });

  describe("a cap on concurrency", () => {
    /** Requests that the clusters hold until `release`. */
    const holding = (path: string, at: Name[]) => {
      const held: ServerResponse[] = [];
      on.answer(path, (_, response) => void held.push(response), at);
      return { held, release: () => held.map((response) => response.end("released")) };
    };

    it("is kept by a burst, whose rest gets 503 at once", async () => {
      const path = pathBelow("/capped");
      const { held, release } = holding(path, ["a"]);
      const asked = Array.from({ length: 10 }, () => on.ask(path));
      await until("each is held or refused", () => held.length + recordsAt(path).length === 10);
      expect(held).toHaveLength(3);
      release();
      const answers = await Promise.all(asked);
      expect(answers.filter((answer) => answer.status === 200)).toHaveLength(3);
      for (const answer of answers.filter((answer) => answer.status !== 200)) {
        expect([answer.status, answer.json().code]).toEqual([503, "backend-overloaded"]);
        expect(answer.headers["retry-after"]).toBe("1");
        expect(await on.gateway.recordOf(answer)).toMatchObject({ reason: "backend-overloaded", attempts: [] });
      }
      on.answer(path, status(200));
      expect((await on.ask(path)).status).toBe(200);
    });

    it("gets its place back from a client that goes away", async () => {
      const path = pathBelow("/capped");
      const { held } = holding(path, ["a"]);
      for (let n = 1; n <= 6; n++) {
        const { sent } = on.open(path);
        sent.end();
        await until("the cluster has it", () => held.length === n);
        sent.socket?.resetAndDestroy();
        await recorded(path, n);
      }
    });

    it("leaves what is over to the next priority", async () => {
      const path = pathBelow("/spilled");
      const { held, release } = holding(path, ["a"]);
      const first = on.ask(path);
      await until("a has it", () => held.length === 1);
      expect(servedBy(await on.ask(path, { method: "POST" }))).toBe("b");
      release();
      await first;
    });
  });

  describe("of several, a request gets", () => {
    it("one in turn, by exact weights", async () => {
      for (let cycle = 0; cycle < 5; cycle++) {
        const path = pathBelow("/weighted");
        for (let n = 0; n < 10; n++) await on.ask(path);
        expect(on.arrived(path)).toEqual({ a: 5, b: 3, c: 2 });
      }
    });

    it("the one with fewer requests under way", async () => {
      const path = pathBelow("/least");
      const held: ServerResponse[] = [];
      on.answer(path, (_, response) => void held.push(response), ["b"]);
      const waiting: Promise<Answer>[] = [];
      while (held.length === 0) {
        const answer = on.ask(path);
        if ((await Promise.race([answer, until("b has it", () => held.length > 0)])) === true) waiting.push(answer);
      }
      const before = on.arrived(path);
      for (let n = 0; n < 40; n++) await on.ask(path);
      const { a, b, c } = on.arrived(path);
      expect(b).toBe(1);
      expect(Math.min(a - before.a, c - before.c)).toBeGreaterThan(8);
      for (const response of held) response.end();
      await Promise.all(waiting);
    });

    it("the one for its key, and another only while that one is away", async () => {
      const users = Array.from({ length: 60 }, (_, n) => `user-${n}`);
      const path = pathBelow("/hashed");
      const homes = async () => {
        const entries = users.map(async (user) => [
          user,
          servedBy(await on.ask(path, { headers: { "x-user": user } })),
        ]);
        return Object.fromEntries(await Promise.all(entries)) as Record<string, Name>;
      };
      const before = await homes();
      expect(new Set(Object.values(before))).toEqual(new Set(names));
      expect(await homes()).toEqual(before);
      const revive = await on.kill("b");
      const without = await homes();
      for (const user of users) {
        if (before[user] === "b") expect(without[user]).not.toBe("b");
        else expect(without[user]).toBe(before[user]);
      }
      expect(new Set(users.filter((user) => before[user] === "b").map((user) => without[user])).size).toBe(2);
      await revive();
      expect(await homes()).toEqual(before);
    });

    it("the one that its cookie names, and a new cookie while that one is away", async () => {
      const path = pathBelow("/sticky");
      const first = await on.ask(path);
      const home = servedBy(first);
      const [cookie = ""] = first.headers["set-cookie"] ?? [];
      expect(cookie).toMatch(/^shop=\w+; Path=\/; Max-Age=600; HttpOnly; SameSite=Lax$/);
      const headers = { cookie: `theme=dark; ${cookie.split(";", 1)[0]}` };
      for (let n = 0; n < 8; n++) {
        const answer = await on.ask(path, { headers });
        expect([servedBy(answer), answer.headers["set-cookie"]]).toEqual([home, undefined]);
      }
      await on.kill(home);
      const moved = await on.ask(path, { headers });
      expect(servedBy(moved)).not.toBe(home);
      expect(moved.headers["set-cookie"]?.[0]).toMatch(/^shop=/);
      expect(moved.headers["set-cookie"]?.[0]).not.toBe(cookie);
    });

    it.each([
      [{ colo: "FRA", continent: "EU" }, ["a", "b", "c"]],
      [{ colo: "EWR", continent: "NA" }, ["b", "a", "c"]],
      [{ colo: "NRT", continent: "AS" }, ["c", "a", "b"]],
      [{ continent: "AS" }, ["c", "a", "b"]],
      [undefined, ["a", "b", "c"]],
    ])("the nearest to where it came in, %j, and then the others", async (cf, order) => {
      const path = pathBelow("/near");
      on.answer(path, status(503));
      await on.ask(path, { headers: cf ? { [CF_HEADER]: JSON.stringify(cf) } : {} });
      const [record] = await recorded(path, 1);
      expect(record && backends(record)).toEqual(order.map((name) => `near-${name}`));
    });
  });
});

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1] as number;
