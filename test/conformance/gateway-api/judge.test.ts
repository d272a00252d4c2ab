/** The judge against made-up answers: each rule of the README, once kept and once broken. */
import { describe, expect, it } from "vitest";
import { type Case, unjudged } from "./cases.ts";
import type { Echo } from "./echo.ts";
import { type Answer, wireRequest } from "./exchange.ts";
import type { Assertions, GrpcResult } from "./grpc-web.ts";
import { backendOf, judge, judgeGrpc } from "./judge.ts";

type Parts = Partial<Omit<Case, "request" | "expect">> & {
  readonly request?: Partial<Case["request"]>;
  readonly expect?: Partial<Case["expect"]>;
};

const caseOf = ({ request, expect: expected, ...rest }: Parts = {}): Case => ({
  kind: "http",
  name: "made up",
  gateway: { namespace: "infra", name: "same-namespace", port: 80, protocol: "HTTP" },
  scheme: "http",
  request: { method: "GET", path: "/one?x=1", ...request },
  expect: { statusCodes: [200], backend: "web", namespace: "infra", ...expected },
  ...rest,
});

type Headers = Readonly<Record<string, string | readonly string[]>>;

const answerOf = (status: number, headers: Headers = {}, body: unknown = ""): Answer => ({
  status,
  headers: new Map(Object.entries(headers).map(([name, value]) => [name, [value].flat()])),
  body: Buffer.from(typeof body === "string" ? body : JSON.stringify(body)),
});

const ECHO: Echo = {
  path: "/one?x=1",
  host: "192.0.2.10",
  method: "GET",
  proto: "HTTP/1.1",
  headers: { "X-One": ["a", "b"] },
  httpPort: "3000",
  namespace: "infra",
  ingress: "",
  service: "web",
  pod: "web-0123456789-abcde",
};

const echoed = (echo: Partial<Echo> = {}, headers: Headers = {}): Answer =>
  answerOf(200, { "content-type": "application/json", ...headers }, { ...ECHO, ...echo });

describe("a status", () => {
  it("is one of those expected", () => {
    expect(judge(caseOf({ expect: { statusCodes: [404, 410] } }), answerOf(410))).toBeUndefined();
    expect(judge(caseOf({ expect: { statusCodes: [404, 410] } }), echoed())).toBe("status 200, expected 404 or 410");
  });

  it("of a timeout is 408 or 504, whichever was expected", () => {
    expect(judge(caseOf({ expect: { statusCodes: [504] } }), answerOf(408))).toBeUndefined();
    expect(judge(caseOf({ expect: { statusCodes: [408] } }), answerOf(504))).toBeUndefined();
    expect(judge(caseOf({ expect: { statusCodes: [503] } }), answerOf(504))).toBe("status 504, expected 503");
  });

  it("of a refusal comes with the gateway's own explanation", () => {
    const problem = { type: "https://portcullis.dev/problems/not-found", title: "Not found", detail: "No route." };
    const answer = answerOf(404, { "content-type": "application/problem+json" }, problem);
    expect(judge(caseOf(), answer)).toBe("status 404 (not-found: No route.), expected 200");
  });

  it("other than 200, 204 and redirects is all that is looked at", () => {
    const expected = { statusCodes: [500], backend: "web", responseHeaders: { "x-one": "1" } };
    expect(judge(caseOf({ expect: expected }), answerOf(500))).toBeUndefined();
  });
});

describe("the request that the backend got", () => {
  it("is by default the one that was sent", () => {
    expect(judge(caseOf(), echoed())).toBeUndefined();
    expect(judge(caseOf(), echoed({ path: "/one" }))).toBe('upstream path "/one", expected "/one?x=1"');
    expect(judge(caseOf(), echoed({ method: "HEAD" }))).toBe('upstream method "HEAD", expected "GET"');
  });

  it("is at the backend of the namespace", () => {
    expect(judge(caseOf(), echoed({ namespace: "other" }))).toBe('namespace "other", expected "infra"');
    expect(judge(caseOf(), echoed({ pod: "api-1-2" }))).toBe('pod "api-1-2", expected one of "web"');
    expect(judge(caseOf(), answerOf(200, {}, "hello"))).toBe("the answer is no echo of a backend's");
  });

  it("has the listed headers, values joined by commas, and not the absent ones", () => {
    const upstream = (upstreamRequest: object) =>
      caseOf({ expect: { upstreamRequest: { path: "/one?x=1", ...upstreamRequest } } });
    expect(judge(upstream({ headers: { "x-one": "a,b" } }), echoed())).toBeUndefined();
    expect(judge(upstream({ headers: { "x-one": "a, b" } }), echoed())).toBe('upstream x-one "a,b", expected "a, b"');
    expect(judge(upstream({ headers: { "X-Two": "c" } }), echoed())).toBe('upstream X-Two absent, expected "c"');
    expect(judge(upstream({ absentHeaders: ["X-ONE"] }), echoed())).toBe('upstream X-ONE "a,b", expected none');
    expect(judge(upstream({ absentHeaders: ["X-Two"] }), echoed())).toBeUndefined();
    expect(judge(upstream({ httpPort: "8080" }), echoed())).toBe('upstream port "3000", expected "8080"');
  });

  it("has the Host, if one is expected, with the listener's port, if the client had to send that", () => {
    const rewritten = caseOf({ expect: { upstreamRequest: { host: "one.example", path: "/one?x=1" } } });
    expect(judge(rewritten, echoed({ host: "one.example" }))).toBeUndefined();
    expect(judge(rewritten, echoed())).toBe('upstream host "192.0.2.10", expected "one.example"');

    const on8080 = caseOf({
      gateway: { namespace: "infra", name: "g", port: 8080, protocol: "HTTP" },
      request: { host: "a.example" },
    });
    expect(judge(on8080, echoed({ host: "a.example:8080" }))).toBeUndefined();
    expect(judge(on8080, echoed({ host: "a.example" }))).toBe('upstream host "a.example", expected "a.example:8080"');
  });

  it("does not exist where the gateway itself answers", () => {
    for (const expected of [{ namespace: "" }, { answeredByGateway: true }]) {
      const preflight = caseOf({ expect: { statusCodes: [200, 204], backend: "", ...expected } });
      expect(judge(preflight, answerOf(204))).toBeUndefined();
      expect(judge(preflight, echoed())).toBe("web-0123456789-abcde answered, expected the gateway itself");
    }
  });
});

describe("the response's headers", () => {
  const vary = { responseHeaders: { Vary: "a,b" } };

  it("are compared as lines joined by commas, with blanks unless those are to be ignored", () => {
    expect(judge(caseOf({ expect: vary }), echoed({}, { vary: ["a", "b"] }))).toBeUndefined();
    expect(judge(caseOf({ expect: vary }), echoed({}, { vary: "a, b" }))).toBe('response Vary "a, b", expected "a,b"');
    expect(
      judge(caseOf({ expect: { ...vary, ignoreWhitespace: true } }), echoed({}, { vary: "a, b" })),
    ).toBeUndefined();
    expect(judge(caseOf({ expect: vary }), echoed())).toBe('response Vary absent, expected "a,b"');
  });

  it("may have one of several values", () => {
    const expected = { responseHeaderOneOf: { allow: ["GET, PUT", "PUT, GET"] }, ignoreWhitespace: true };
    expect(judge(caseOf({ expect: expected }), echoed({}, { allow: "PUT,GET" }))).toBeUndefined();
    expect(judge(caseOf({ expect: expected }), echoed({}, { allow: "PUT" }))).toBe(
      'response allow "PUT", expected "GET, PUT" or "PUT, GET"',
    );
  });

  it("are absent where they are to be, also in the gateway's own answers", () => {
    const expected = { statusCodes: [204], namespace: "", responseAbsentHeaders: ["Access-Control-Allow-Origin"] };
    const answer = answerOf(204, { "access-control-allow-origin": "*" });
    expect(judge(caseOf({ expect: expected }), answer)).toBe('response Access-Control-Allow-Origin "*", expected none');
    expect(judge(caseOf({ expect: expected }), answerOf(204))).toBeUndefined();
  });
});

describe("a redirect", () => {
  const redirected = (redirect: NonNullable<Case["expect"]["redirect"]>, location: string, parts: Parts = {}) =>
    judge(caseOf({ ...parts, expect: { statusCodes: [302], redirect } }), answerOf(302, { location }));

  it("keeps the request's scheme and path by default, and any host", () => {
    expect(redirected({}, "http://elsewhere.example/one")).toBeUndefined();
    expect(redirected({}, "/one?x=1")).toBeUndefined();
    expect(redirected({}, "https://elsewhere.example/one")).toMatch(/^redirect scheme "https", expected "http"/);
    expect(redirected({}, "/two")).toMatch(/^redirect path "\/two", expected "\/one"/);
  });

  it("is to the host, scheme, port and path that are expected", () => {
    const expected = { scheme: "https", host: "example.org", port: "8443", path: "/new" };
    expect(redirected(expected, "https://example.org:8443/new")).toBeUndefined();
    expect(redirected(expected, "https://example.com:8443/new")).toMatch(/^redirect host "example.com"/);
    expect(redirected(expected, "https://example.org/new")).toMatch(/^redirect port "", expected "8443"/);
    expect(redirected({ port: "443", scheme: "https" }, "https://example.org:443/one")).toBeUndefined();
  });

  it("has no port, or the scheme's own, where none is expected", () => {
    expect(redirected({}, "http://example.org:80/one")).toBeUndefined();
    expect(redirected({ scheme: "https" }, "https://example.org:443/one")).toBeUndefined();
    expect(redirected({}, "http://example.org:8080/one")).toMatch(/^redirect port "8080", expected "" or "80"/);
  });

  it("that is relative stays on the listener's port", () => {
    const gateway = { namespace: "infra", name: "g", port: 8080, protocol: "HTTP" };
    expect(redirected({ port: "8080" }, "/one", { gateway })).toBeUndefined();
    expect(redirected({}, "/one", { gateway })).toMatch(/^redirect port "8080"/);
  });

  it("needs a Location", () => {
    expect(judge(caseOf({ expect: { statusCodes: [302], redirect: {} } }), answerOf(302))).toBe(
      "Location absent, expected a URL",
    );
  });
});

describe("gRPC", () => {
  const tested = caseOf({ kind: "grpc", request: { service: "p.S", method: "Echo" }, expect: { code: "OK" } });
  const result = (assertions: Partial<Assertions>): GrpcResult => ({
    code: "OK",
    message: "",
    assertions: {
      fullyQualifiedMethod: "/p.S/Echo",
      headers: [],
      authority: "",
      namespace: "infra",
      pod: "web-1-2",
      ...assertions,
    },
  });

  it("goes by the status, and with OK by method, namespace and pod", () => {
    expect(judgeGrpc(tested, result({}))).toBeUndefined();
    expect(judgeGrpc(tested, result({ fullyQualifiedMethod: "/p.S/Other" }))).toMatch(/^method/);
    expect(judgeGrpc(tested, result({ namespace: "other" }))).toMatch(/^namespace/);
    expect(judgeGrpc(tested, result({ pod: "api-1-2" }))).toMatch(/^pod/);
    expect(judgeGrpc(tested, { code: "Unavailable", message: "HTTP 503" })).toBe(
      "gRPC status Unavailable (HTTP 503), expected OK",
    );
    const refused = { ...tested, expect: { ...tested.expect, code: "Unimplemented" } };
    expect(judgeGrpc(refused, { code: "Unimplemented", message: "" })).toBeUndefined();
    expect(judgeGrpc(refused, result({}))).toBe("gRPC status OK, expected Unimplemented");
  });
});

describe("what is sent", () => {
  const on = (port: number, protocol: string, parts: Parts = {}) =>
    wireRequest(caseOf({ gateway: { namespace: "infra", name: "g", port, protocol }, ...parts }));

  it("has the listener's port in Host, unless that is the scheme's own or the case names one", () => {
    expect(on(80, "HTTP").host).toBe("192.0.2.10");
    expect(on(8080, "HTTP").host).toBe("192.0.2.10:8080");
    expect(on(8080, "HTTP", { request: { host: "a.example" } }).host).toBe("a.example:8080");
    expect(on(8080, "HTTP", { request: { host: "a.example:8090" } }).host).toBe("a.example:8090");
    expect(on(443, "HTTPS", { scheme: "https" }).host).toBe("192.0.2.10");
    expect(on(80, "HTTPS", { scheme: "https" }).host).toBe("192.0.2.10:80");
  });

  it("has the case's scheme, or else the listener's", () => {
    const withoutScheme = ({ scheme: _, ...rest }: Case) => rest;
    expect(on(443, "HTTPS", { scheme: "wss" }).scheme).toBe("https");
    expect(on(80, "HTTP", { scheme: "ws" }).scheme).toBe("http");
    const gateway = { namespace: "infra", name: "g", port: 443, protocol: "HTTPS" };
    expect(wireRequest(withoutScheme(caseOf({ gateway })) as Case).scheme).toBe("https");
  });

  it("asks the backend for response headers", () => {
    const asked = wireRequest(caseOf({ backendSetResponseHeaders: { "X-One": "1", "X-Two": "2" } }));
    expect(asked.headers).toEqual({ "X-Echo-Set-Header": "X-One:1,X-Two:2" });
  });
});

it("tells what a case expects that nobody looks at", () => {
  const odd = { upstreamRequest: { path: "/", sni: "a.example" }, trailers: {} } as Parts["expect"];
  expect(unjudged(caseOf({ expect: odd as NonNullable<typeof odd> }))).toEqual([
    "expect.trailers",
    "expect.upstreamRequest.sni",
  ]);
  expect(unjudged(caseOf())).toEqual([]);
});

it("reads the backend off a pod's name", () => {
  expect(backendOf("infra-backend-v1-0123456789-abcde")).toBe("infra-backend-v1");
});
