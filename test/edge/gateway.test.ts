/** The whole handler in workerd, on tables made by hand; the cluster is a stubbed `fetch`, since it is outside. e2e/ has real ones. */
import type { MiddlewareHandler } from "hono";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { createGateway } from "../../src/edge/gateway.ts";
import { run as middleware } from "../../src/policies/middleware.ts";
import { indexMatches } from "../../src/table/match.ts";
import type { RouteTable, TableAction, TableRoute } from "../../src/table/table.ts";

const route = (id: string, path: string, action: TableAction, policies: number[] = []): TableRoute => ({
  id,
  api: "test",
  hosts: ["*"],
  matches: [{ path: { kind: "prefix", value: path } }],
  policies,
  action,
});
const plain: TableAction = { kind: "forward", backends: [0] };
const split: TableAction = {
  kind: "split",
  salt: "s",
  arms: [
    { name: "canary", weight: 0, action: { kind: "forward", backends: [1] } },
    { name: "stable", weight: 1, action: plain },
  ],
  sticky: { by: "client" },
  override: { header: "x-arm", cookie: "arm", secret: { secret: "ARM" } },
};
const table: RouteTable = {
  version: 1,
  id: "0",
  gateway: {
    escapedSlashes: "refuse",
    forwardedFor: "overwrite",
    trustedProxies: [],
    debug: { secret: { secret: "DEBUG" } },
    maxUrl: 500,
    maxBody: 100,
    timeouts: { connect: 1_000, firstByte: 1_000, total: 1_000 },
  },
  environment: { vars: [], secrets: [], bindings: [] },
  clusters: { eu: { name: "eu", ingress: { env: "EU" }, region: "weur", scheme: "https", assertion: true } },
  consumers: {},
  policies: [{ policy: "middleware", mode: "enforce", config: { name: "own", place: "own" } }],
  backends: [
    { name: "eu/a", cluster: "eu", path: "/a" },
    { name: "eu/b", cluster: "eu", path: "/b" },
  ],
  pools: [],
  routes: [
    route("test/middleware", "/middleware", plain, [0]),
    route("test/plain", "/plain", plain),
    route("test/split", "/split", split),
  ],
  unmatched: [],
  identityHeaders: ["x-arm", "x-user-id"],
  overrideCookies: ["arm"],
};

let upstream: { url: string; init: RequestInit & { headers: Headers } } | undefined;
let records: Record<string, unknown>[];
beforeEach(() => {
  upstream = undefined;
  records = [];
  vi.spyOn(globalThis, "fetch").mockImplementation(async (url, init) => {
    upstream = { url: String(url), init: init as never };
    return new Response("origin");
  });
  vi.spyOn(console, "log").mockImplementation((line) => void records.push(JSON.parse(line)));
  vi.spyOn(console, "error").mockImplementation(() => {});
});
afterEach(() => vi.restoreAllMocks());

const ask = (url: string, init: RequestInit = {}, own: MiddlewareHandler = (_, next) => next()) => {
  const app = createGateway({ table, index: indexMatches(table.routes), runs: { middleware }, middleware: { own } });
  const context = { waitUntil: () => {}, passThroughOnException: () => {}, props: {} };
  return app.fetch(
    new Request(url, init),
    { EU: "https://eu.example.com/in", ARM: "key", DEBUG: "dbg" },
    context as never,
  );
};
const code = async (response: Response) => ((await response.json()) as { code: string }).code;

it("forwards the normal path behind ingress and service, and says who was asked", async () => {
  expect((await ask("https://api.example.com/plain/%7e?q=%zz")).status).toBe(200);
  expect(upstream?.url).toBe("https://eu.example.com/in/a/plain/~?q=%zz");
  expect(records[0]).toMatchObject({
    route: "test/plain",
    backend: "eu/a",
    attempts: [{ backend: "eu/a", region: "weur", status: 200 }],
  });
});

describe("the override", () => {
  it("chooses the arm for who knows the secret, and for nobody else", async () => {
    expect((await ask("https://h/split", { headers: { "x-arm": "canary:key" } })).headers.get("x-portcullis-arm")).toBe(
      "canary",
    );
    expect(
      (await ask("https://h/split", { headers: { cookie: "a=1; arm=canary:key" } })).headers.get("x-portcullis-arm"),
    ).toBe("canary");
    for (const wish of ["canary:wrong", "canary:", "canary", "other:key", ":key"]) {
      expect((await ask("https://h/split", { headers: { "x-arm": wish } })).headers.get("x-portcullis-arm")).toBe(
        "stable",
      );
    }
  });

  it.each(["/split", "/plain"])("reaches no origin, also on routes without it: %s", async (path) => {
    await ask(`https://h${path}`, {
      headers: { "x-arm": "canary:key", x_arm: "canary:key", cookie: "a=1; arm=canary:key; b=2" },
    });
    expect(upstream?.init.headers.get("cookie")).toBe("a=1; b=2");
    expect([...(upstream?.init.headers.values() ?? [])].join()).not.toContain("key");
  });
});

describe("refusals", () => {
  it.each([
    ["https://h/none", {}, 404, "not-found"],
    ["https://h/plain%2f", {}, 400, "path-encoded-slash"],
    [`https://h/${"x".repeat(600)}`, {}, 414, "url-too-long"],
    ["https://h/plain", { method: "POST", body: "x", headers: { "content-length": "101" } }, 413, "body-too-large"],
  ] as const)("%s %j: %i %s", async (url, init, status, expected) => {
    const response = await ask(url, init);
    expect([response.status, await code(response)]).toEqual([status, expected]);
    expect(upstream).toBeUndefined();
    expect(records[0]).toMatchObject({ status, reason: expected });
  });

  it("of the environment tell nothing but that", async () => {
    const app = createGateway({ table, index: indexMatches(table.routes), runs: {}, middleware: {} });
    const response = await app.fetch(new Request("https://h/plain"), {}, { waitUntil: () => {} } as never);
    expect([response.status, await code(response)]).toEqual([503, "not-configured"]);
  });
});

describe("middleware", () => {
  it("that neither answers nor goes on is an error, not an empty success", async () => {
    const response = await ask("https://h/middleware", {}, async () => {});
    expect([response.status, await code(response)]).toEqual([500, "internal"]);
  });

  it("that throws is a 500 without its words", async () => {
    const response = await ask("https://h/middleware", {}, () => Promise.reject(new Error("password=hunter2")));
    expect(response.status).toBe(500);
    expect(await response.text()).not.toContain("hunter2");
  });
});

describe("the debug header", () => {
  it("shows the record to who knows the secret", async () => {
    const shown = (await ask("https://h/plain/é", { headers: { "x-portcullis-debug": "dbg" } })).headers.get(
      "x-portcullis-record",
    );
    expect(JSON.parse(shown as string)).toMatchObject({ route: "test/plain", status: 200 });
    expect(
      (await ask("https://h/plain", { headers: { "x-portcullis-debug": "no" } })).headers.has("x-portcullis-record"),
    ).toBe(false);
  });
});
