import { describe, expect, it } from "vitest";
import { type CorsOptions, compile, run } from "../../src/policies/cors.ts";
import { compileContext, runPolicy } from "./exchange.ts";

const answers = async (
  options: CorsOptions,
  headers: Record<string, string>,
  method = "GET",
  semantics?: "gateway-api",
) => {
  const context = { ...compileContext(), ...(semantics && { semantics }) };
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

describe("ports and wildcards", () => {
  it.each([
    ["https://a.b:443", "https://a.b", true],
    ["https://a.b", "https://a.b:443", true],
    ["http://a.b:80", "http://a.b", true],
    ["http://a.b:443", "http://a.b", false],
    ["http://a.b:8080", "http://a.b:8080", true],
    ["http://a.b:8080", "http://a.b", false],
    ["http://a.b", "http://a.b:8080", false],
    ["https://*", "https://a.b", true],
    ["https://*", "https://localhost", true],
    ["https://*", "https://a.b:8443", false],
    ["https://*", "http://a.b", false],
    ["http://*:8080", "http://a.b:8080", true],
    ["http://*:8080", "http://a.b", false],
    ["https://*.b:8443", "https://x.a.b:8443", true],
    ["https://*.b:8443", "https://x.a.b", false],
    ["https://*.b", "https://a.b:8443", false],
    ["https://*.b", "https://a:1.b", false],
    ["*", "null", true],
  ])("%s, origin %s: %s", async (allowed, origin, expected) => {
    const { header } = await answers({ origins: [allowed] }, { origin });
    expect(header("allow-origin")).toBe(expected ? (allowed === "*" ? "*" : origin) : null);
  });
});

// What the Gateway API asks of HTTPCORSFilter, each on a preflight.
describe("the Gateway API's", () => {
  const NAMES = ["origin", "methods", "headers", "credentials"].map((name) => `allow-${name}`);
  const asked = { origin: "https://www.foo.com", ...preflight };
  const preflightOf = async (options: CorsOptions, headers: Record<string, string> = asked) => {
    const { header, response, passed } = await answers(options, headers, "OPTIONS", "gateway-api");
    expect([response.status, passed]).toEqual([204, false]);
    return [...NAMES, "expose-headers", "max-age"].map(header);
  };
  const listed = {
    origins: ["https://www.foo.com", "https://*.bar.com", "http://www.port.com:8080"],
    methods: ["GET", "OPTIONS"],
    headers: ["x-header-1", "x-header-2"],
    expose: ["x-header-3", "x-header-4"],
    maxAge: 3600,
  };
  const any = { origins: ["*"], methods: ["*"], headers: ["*"], expose: ["*"] };

  it.each([
    ["https://www.foo.com", true],
    ["https://www.bar.com", true],
    ["https://very.long.bar.com", true],
    ["https://bar.com", false],
    ["http://www.foo.com", false],
    ["https://www.foo.com:12345", false],
    ["http://www.port.com:8080", true],
    ["http://www.port.com", false],
    ["https://www.nowhere.com", false],
  ])("lists, for %s: %s", async (origin, allowed) => {
    const answer = [origin, "GET, OPTIONS", "x-header-1, x-header-2", null, "x-header-3, x-header-4", "3600"];
    expect(await preflightOf(listed, { ...asked, origin })).toEqual(allowed ? answer : answer.map(() => null));
  });

  it("list of origins with credentials", async () => {
    const [origin, , , credentials] = await preflightOf({ ...listed, credentials: true });
    expect([origin, credentials]).toEqual(["https://www.foo.com", "true"]);
  });

  it("wildcards without credentials, which need not be told apart", async () => {
    expect(await preflightOf(any)).toEqual(["*", "*", "*", null, "*", "5"]);
    expect(await preflightOf({ ...any, credentials: false })).toEqual(["*", "*", "*", null, "*", "5"]);
  });

  it("wildcards with credentials, of which none is ever sent", async () => {
    const options = { ...any, credentials: true };
    expect(await preflightOf(options)).toEqual(["https://www.foo.com", "PUT", "x-a, x-b", "true", null, "5"]);
    const { "access-control-request-headers": _, ...fewer } = asked;
    expect(await preflightOf(options, fewer)).toEqual(["https://www.foo.com", "PUT", null, "true", null, "5"]);
    const named = await preflightOf({ ...options, expose: ["x-c", "*"] });
    expect(named[4]).toBe("x-c");
  });

  it("response to the request itself, which tells only what concerns it", async () => {
    const { header, passed } = await answers(listed, { origin: "https://www.foo.com" }, "GET", "gateway-api");
    expect(passed).toBe(true);
    expect([...NAMES, "expose-headers", "max-age"].map(header)).toEqual([
      "https://www.foo.com",
      null,
      null,
      null,
      "x-header-3, x-header-4",
      null,
    ]);
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
