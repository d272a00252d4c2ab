import { describe, expect, it } from "vitest";
import * as headers from "../../src/policies/headers.ts";
import * as ipFilter from "../../src/policies/ip-filter.ts";
import * as requestId from "../../src/policies/request-id.ts";
import * as securityHeaders from "../../src/policies/security-headers.ts";
import { compileContext, runPolicy } from "./exchange.ts";

const request = (init: Record<string, string> = {}) => new Request("https://api.example.com/v1", { headers: init });

describe("headers", () => {
  it("removes, then sets, then adds, in both directions", async () => {
    const config = headers.compile(
      {
        request: { remove: ["X-Drop"], set: { "X-Set": "new" }, add: { "X-Add": "b" } },
        response: { remove: ["Server"], set: { "Cache-Control": "no-store" }, add: { Vary: "Accept" } },
      },
      compileContext(),
    );
    const { exchange } = await runPolicy(headers.run, config, request({ "x-drop": "1", "x-set": "old", "x-add": "a" }));
    expect(Object.fromEntries(exchange.upstream)).toEqual({ "x-set": "new", "x-add": "a,b" });
    expect(exchange.responseEdits.map(({ action, name }) => `${action} ${name}`)).toEqual([
      "remove server",
      "set cache-control",
      "add vary",
    ]);
  });

  it("reads references at the edge, and tells when the environment lacks them", async () => {
    const context = compileContext();
    const config = headers.compile({ request: { set: { "x-region": { kind: "env", name: "REGION" } } } }, context);
    expect(context.references).toEqual(["env:REGION"]);
    const { exchange } = await runPolicy(headers.run, config, request(), { env: { REGION: "eu" } });
    expect(exchange.upstream.get("x-region")).toBe("eu");
    expect((await runPolicy(headers.run, config, request())).response.status).toBe(503);
  });

  it.each(["host", "Content-Length", "X-Forwarded-For", "x-consumer-name", "Connection"])(
    "refuses to set %s",
    (name) => {
      const context = compileContext();
      headers.compile({ request: { set: { [name]: "x" } } }, context);
      expect(context.problems).toHaveLength(1);
    },
  );

  it("refuses values that would end the header field", () => {
    expect(headers.schema().safeParse({ request: { set: { "x-a": "a\r\nx-b: c" } } }).success).toBe(false);
    expect(headers.schema().safeParse({ request: { set: { "x a": "a" } } }).success).toBe(false);
  });
});

describe("ipFilter", () => {
  const asked = async (
    options: ipFilter.IpFilterOptions,
    clientAddress: string,
    mode: "enforce" | "report" = "enforce",
  ) => runPolicy(ipFilter.run, ipFilter.compile(options, compileContext()), request(), { clientAddress, mode });

  it.each([
    [{ allow: ["10.0.0.0/8"] }, "10.1.2.3", 200],
    [{ allow: ["10.0.0.0/8"] }, "11.1.2.3", 403],
    [{ allow: ["2001:db8::/32"] }, "2001:DB8::1", 200],
    [{ allow: ["10.0.0.0/8"], deny: ["10.1.0.0/16"] }, "10.1.2.3", 403],
    [{ deny: ["10.0.0.0/8"] }, "::ffff:10.1.2.3", 403],
    [{ deny: ["10.0.0.0/8"] }, "192.0.2.1", 200],
    [{ allow: ["0.0.0.0/0", "::/0"] }, "", 403],
    [{ deny: ["10.0.0.0/8"] }, "10.0.0.1, 192.0.2.1", 403],
  ])("%j and %s: %i", async (options, address, status) => {
    expect((await asked(options, address)).response.status).toBe(status);
  });

  it("in report mode lets pass and says what it would have done", async () => {
    const { response, exchange } = await asked({ allow: ["10.0.0.0/8"] }, "192.0.2.1", "report");
    expect(response.status).toBe(200);
    expect(exchange.record.policies).toEqual([{ policy: "ipFilter", verdict: "would-deny", reason: "address-denied" }]);
  });

  it("refuses lists that mean nothing", () => {
    const context = compileContext();
    ipFilter.compile({}, context);
    ipFilter.compile({ allow: ["10.0.0.1/8", "office"] }, context);
    expect(context.problems).toHaveLength(3);
  });
});

describe("requestId", () => {
  const asked = (accept: boolean, sent?: string) =>
    runPolicy(requestId.run, requestId.compile({ accept }), request(sent ? { "x-request-id": sent } : {}));

  it("tells the id to the origin and to the client", async () => {
    const { exchange } = await asked(false, "from-the-client");
    expect(exchange.upstream.get("x-request-id")).toBe("test");
    expect(exchange.responseEdits).toEqual([{ action: "set", name: "x-request-id", value: "test" }]);
  });

  it("takes over a client's id only when told to, and only when it is one", async () => {
    expect((await asked(true, "from-the-client")).exchange.record.id).toBe("from-the-client");
    for (const odd of ["short", "with blank in it", "x".repeat(65), "a{}<>:abcdef"]) {
      expect((await asked(true, odd)).exchange.record.id).toBe("test");
    }
  });
});

it("securityHeaders are those of an API, and each can be left out", () => {
  const names = (options: securityHeaders.SecurityHeadersOptions) =>
    securityHeaders
      .compile(options)
      .edits.filter(({ action }) => action === "set")
      .map(({ name }) => name);
  expect(names({})).toEqual([
    "strict-transport-security",
    "x-content-type-options",
    "referrer-policy",
    "content-security-policy",
  ]);
  expect(names({ hsts: 0, contentSecurityPolicy: "" })).toEqual(["x-content-type-options", "referrer-policy"]);
});
