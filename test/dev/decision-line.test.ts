import { describe, expect, it } from "vitest";
import { decisionLine, errorLine, eventLine } from "../../src/dev/decision-line.ts";
import { painter } from "../../src/dev/paint.ts";
import type { DecisionRecord } from "../../src/policies/contract.ts";

const record: DecisionRecord = {
  v: 1,
  time: "2026-11-23T02:13:02.559Z",
  id: "6430cd25-d149-4186-9bd7-d3e6ebc8c5e5",
  table: "4265cd1aafcda681",
  method: "GET",
  host: "api.example.com",
  path: "/v1/orders",
  client: "192.0.2.1",
  policies: [],
  attempts: [],
  status: 200,
  upstreamMs: 10,
  totalMs: 12,
};

const line = (more: Partial<DecisionRecord>, colour = false) =>
  decisionLine(JSON.stringify({ ...record, ...more }), painter(colour));

describe("a decision record on one line", () => {
  it("says who answered", () => {
    const attempts = [{ backend: "eu/orders", status: 200, ms: 10 }];
    expect(line({ route: "orders/list", arm: "canary", backend: "eu/orders", attempts })).toBe(
      "GET /v1/orders 200 orders/list eu/orders canary 12 ms",
    );
  });

  it("says whom else was asked, and what came of it", () => {
    const attempts = [
      { backend: "eu/orders", error: "upstream-timeout", ms: 5 },
      { backend: "us/orders", status: 200, ms: 5 },
    ];
    expect(line({ route: "orders/list", backend: "us/orders", attempts })).toBe(
      "GET /v1/orders 200 orders/list eu/orders upstream-timeout -> us/orders 12 ms",
    );
  });

  it("says why the gateway answered, and what policies in report mode would have done", () => {
    const policies = [{ policy: "filter", verdict: "would-deny", reason: "request-filtered" } as const];
    expect(line({ status: 404, reason: "not-found", policies })).toBe(
      "GET /v1/orders 404 - not-found (would-deny filter request-filtered) 12 ms",
    );
  });

  it("has colours only where they are wanted, and none of the client's", () => {
    expect(line({ path: "/\u001b[31m\u009b" })).toBe("GET /?[31m? 200 - 12 ms");
    expect(line({}, true)).toContain("\u001b[32m200\u001b[39m");
  });

  it("is nothing for other lines", () => {
    for (const other of ["", "hello", "{", '{"v":2,"status":200}', '"{}"', "[1]"]) {
      expect(decisionLine(other, painter(false))).toBeUndefined();
    }
  });
});

it("an error of a request is told with its stack", () => {
  const message = JSON.stringify({ id: "1-2", error: "Error: no", stack: "Error: no\n    at x (worker.js:1:2)" });
  expect(errorLine(message, painter(false))).toBe("failed  request 1-2: Error: no\n    at x (worker.js:1:2)");
  expect(errorLine("no", painter(false))).toBeUndefined();
});

describe("an event on one line", () => {
  it("says what happened", () => {
    const event = {
      v: 1,
      time: record.time,
      event: "websocket-closed",
      route: "shop/feed",
      why: "idle",
      client: { messages: 2 },
    };
    expect(eventLine(JSON.stringify(event), painter(false))).toBe(
      'websocket-closed route=shop/feed why=idle client={"messages":2}',
    );
  });

  it("is nothing for other lines", () => {
    for (const other of ["", "{", '{"event":"listen"}', JSON.stringify(record)])
      expect(eventLine(other, painter(false))).toBeUndefined();
  });
});
