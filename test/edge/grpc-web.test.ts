/** What gRPC clients get from the gateway itself. */
import { describe, expect, it } from "vitest";
import { endingAt, grpcDeadline } from "../../src/edge/grpc-web.ts";
import { ask, routeOf, tableOf } from "./cluster-stub.ts";

const table = tableOf({
  backends: [
    { name: "eu", cluster: "eu" },
    { name: "away", cluster: "away" },
  ],
  clusters: {
    eu: { name: "eu", ingress: { env: "EU" }, scheme: "https", assertion: false },
    away: { name: "away", ingress: { env: "NOWHERE" }, scheme: "https", assertion: false },
  },
  routes: [
    routeOf("/shop.Orders"),
    routeOf("/shop.Missing", { action: { kind: "missing", reason: "no such service" } }),
    routeOf("/shop.Away", { action: { kind: "forward", backends: [1] } }),
  ],
});
const GRPC = { "content-type": "application/grpc-web+proto" };
const call = (service: string, headers: Record<string, string> = {}, origin?: () => Response | Promise<Response>) =>
  ask(table, `https://api.example.com/${service}/Get`, { method: "POST", headers: { ...GRPC, ...headers } }, origin);
const never = () => new Promise<Response>(() => {});

describe("a gRPC client gets", () => {
  it.each([
    ["shop.Nothing", "12", "not-found", undefined],
    ["shop.Missing", "14", "backend-missing", undefined],
    ["shop.Away", "14", "not-configured", undefined],
    ["shop.Orders", "4", "upstream-timeout", never],
    ["shop.Orders", "14", "upstream-unreachable", () => Promise.reject(new Error("away"))],
  ])("from %s the status %s for %s", async (service, status, code, origin) => {
    const { response, record } = await call(service, { "grpc-timeout": "100m" }, origin);
    expect([response.status, response.headers.get("grpc-status")]).toEqual([200, status]);
    expect(response.headers.get("grpc-message")).toContain(`(${code}, request `);
    expect(response.headers.get("content-type")).toBe(GRPC["content-type"]);
    expect(await response.text()).toBe("");
    expect(record).toMatchObject({ status: 200, grpcStatus: Number(status), reason: code });
  });

  it("the cluster's own answer as it is", async () => {
    const { response } = await call("shop.Orders", {}, () => new Response("no gRPC at all", { status: 503 }));
    expect([response.status, await response.text()]).toEqual([503, "no gRPC at all"]);
  });
});

describe("a gRPC deadline", () => {
  const deadline = (timeout: string, method = "POST", headers: Record<string, string> = GRPC) =>
    grpcDeadline(new Request("https://a/", { method, headers: { ...headers, "grpc-timeout": timeout } }), 1_000);

  it.each([
    ["1H", 3_601_000],
    ["2M", 121_000],
    ["3S", 4_000],
    ["4m", 1_004],
    ["1u", 1_001],
    ["99999999n", 1_100],
    ["0S", 1_000],
    ["123456789S", undefined],
    ["1.5S", undefined],
    ["-1S", undefined],
    ["1s", undefined],
    ["", undefined],
  ])("of %s ends at %s", (timeout, end) => expect(deadline(timeout)).toBe(end));

  it("is for gRPC alone", () => {
    expect(deadline("1S", "POST", { "content-type": "application/json" })).toBeUndefined();
    expect(deadline("1S", "PUT")).toBeUndefined();
  });

  it("makes the total shorter, never longer, and leaves some of it", () => {
    const timeouts = { connect: 1, firstByte: 1, total: 500 };
    expect(endingAt(1_400, timeouts, 1_000)).toEqual({ ...timeouts, total: 400 });
    expect(endingAt(1_600, timeouts, 1_000)).toBe(timeouts);
    expect(endingAt(1_600, { ...timeouts, total: 0 }, 1_000).total).toBe(600);
    expect(endingAt(900, timeouts, 1_000).total).toBe(1);
  });
});
