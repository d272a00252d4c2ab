import { describe, expect, it } from "vitest";
import { type CorsOptions, compile, run } from "../../src/policies/cors.ts";
import { compileContext, runPolicy } from "./exchange.ts";

const answers = async (options: CorsOptions, headers: Record<string, string>, method = "GET") => {
  const context = compileContext();
  const config = compile(options, context);
  expect(context.problems).toEqual([]);
  const result = await runPolicy(run, config, new Request("https://api.example.com/v1", { method, headers }));
  // What the client would see: the edits applied to what the origin said.
  const response = new Response(result.response.body, result.response);
  for (const { action, name, value = "" } of result.exchange.responseEdits) {
    if (action === "remove") response.headers.delete(name);
    else if (action === "set") response.headers.set(name, value);
    else response.headers.append(name, value);
  }
  return { ...result, response, header: (name: string) => response.headers.get(`access-control-${name}`) };
};
const preflight = { "access-control-request-method": "PUT", "access-control-request-headers": "x-a, x-b" };

describe("which origins", () => {
  const options = { origins: ["https://shop.example.com", "https://*.bar.com", "http://localhost:3000"] };
  it.each([
    ["https://shop.example.com", true],
    ["http://shop.example.com", false],
    ["https://shop.example.com:8443", false],
    ["https://a.bar.com", true],
    ["https://a.b.bar.com", true],
    ["https://bar.com", false],
    ["https://.bar.com", false],
    ["https://evilbar.com", false],
    ["http://localhost:3000", true],
    ["null", false],
  ])("%s: %s", async (origin, allowed) => {
    const { header, response, passed } = await answers(options, { origin });
    expect(header("allow-origin")).toBe(allowed ? origin : null);
    expect(response.headers.get("vary")).toBe("Origin");
    expect(passed).toBe(true);
  });
});

describe("preflight", () => {
  it("is answered without asking the origin, with what was configured", async () => {
    const options = { origins: ["*"], methods: ["GET", "PUT"], headers: ["x-a"], expose: ["x-total"], maxAge: 60 };
    const { response, header, passed, exchange } = await answers(
      options,
      { origin: "https://a.b", ...preflight },
      "OPTIONS",
    );
    expect(passed).toBe(false);
    expect(response.status).toBe(204);
    expect(exchange.record.reason).toBe("preflight");
    expect([header("allow-origin"), header("allow-methods"), header("allow-headers"), header("max-age")]).toEqual([
      "*",
      "GET, PUT",
      "x-a",
      "60",
    ]);
    expect(header("expose-headers")).toBe("x-total");
    expect(header("allow-credentials")).toBeNull();
  });

  it("says what was asked for where nothing is configured, and never * with credentials", async () => {
    const options = { origins: ["https://a.b"], methods: ["*"], headers: ["*"], credentials: true };
    const { header } = await answers(options, { origin: "https://a.b", ...preflight }, "OPTIONS");
    expect([header("allow-origin"), header("allow-methods"), header("allow-headers")]).toEqual([
      "https://a.b",
      "PUT",
      "x-a, x-b",
    ]);
    expect(header("allow-credentials")).toBe("true");
  });

  it("of an origin that is not allowed gets no CORS header", async () => {
    const { response, passed } = await answers(
      { origins: ["https://a.b"] },
      { origin: "https://x.y", ...preflight },
      "OPTIONS",
    );
    expect([...response.headers.keys()].filter((name) => name.startsWith("access-control"))).toEqual([]);
    expect(passed).toBe(false);
  });

  it("needs both headers: another OPTIONS goes to the origin", async () => {
    expect((await answers({ origins: ["*"] }, { origin: "https://a.b" }, "OPTIONS")).passed).toBe(true);
  });
});

it.each([
  ["application/grpc-web-text+proto", ["x-total"], "x-total, grpc-status, grpc-message, grpc-status-details-bin"],
  ["application/grpc-web", undefined, "grpc-status, grpc-message, grpc-status-details-bin"],
  ["application/grpc-web", ["*"], "grpc-status, grpc-message, grpc-status-details-bin"],
  ["application/json", ["x-total"], "x-total"],
  ["application/json", undefined, null],
])("lets scripts read the status of gRPC-Web: %s with %o", async (type, expose, exposed) => {
  const options = { origins: ["https://a.b"], credentials: true, ...(expose && { expose }) };
  const { header } = await answers(options, { origin: "https://a.b", "content-type": type }, "POST");
  expect(header("expose-headers")).toBe(exposed);
});

it("takes away what the origin says about CORS itself", async () => {
  const config = compile({ origins: ["https://a.b"] }, compileContext());
  const { exchange } = await runPolicy(run, config, new Request("https://h/", { headers: { origin: "https://x.y" } }));
  expect(exchange.responseEdits).toContainEqual({ action: "remove", name: "access-control-allow-origin" });
});

it("refuses at build what browsers would refuse", () => {
  const context = compileContext();
  compile({ origins: ["*"], credentials: true }, context);
  compile({ origins: ["https://a.b/path", "a.b"] }, context);
  expect(context.problems).toHaveLength(3);
});
