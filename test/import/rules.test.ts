/** What rules become: matches, filters, backends, timeouts and retries. */
import { describe, expect, it } from "vitest";
import { code, differences, GATEWAY, ignored, imported, problemsOf, refusals, service, withRules } from "./convert.ts";

/** The routes that these rules become, one after the other. */
const routes = (rules: string, kind?: string): string => {
  const text = code(imported(withRules(rules, kind)).files.get("orders.ts"));
  return /api\("orders", \{\}, \[(.*)\]\)/.exec(text)?.[1] ?? "";
};
const told = (rules: string, kind?: string) => imported(withRules(rules, kind));

describe("a match", () => {
  const match = (yaml: string, kind?: string): string =>
    /^route\("[^"]*", (.*), \{ to: missing/.exec(routes(`- { matches: [${yaml}] }`, kind))?.[1] ?? "none";

  it.each([
    ["{}", '{ path: "/*" }'],
    ["{ path: {} }", '{ path: "/*" }'],
    ["{ path: { value: /a } }", '{ path: "/a/*" }'],
    ["{ path: { type: PathPrefix, value: /a/ } }", '{ path: "/a/*" }'],
    ["{ path: { type: PathPrefix, value: / } }", '{ path: "/*" }'],
    ["{ path: { type: Exact, value: /a } }", '{ path: "/a" }'],
    ["{ path: { type: Exact, value: /a/ } }", '{ path: "/a/" }'],
    ["{ path: { type: Exact } }", '{ path: "/" }'],
    ["{ path: { type: Exact, value: '/%41%2a%7e' } }", '{ path: "/A%2A~" }'],
    ["{ path: { type: Exact, value: '/a/*' } }", "{ path: /\\/a\\/\\*/ }"],
    ["{ path: { value: '/a*b' } }", "{ path: /\\/a\\*b(?:\\/.*)?/ }"],
    ["{ path: { value: '/a(1)/:id@x' } }", '{ path: "/a(1)/:id@x/*" }'],
    ["{ path: { type: RegularExpression, value: '/v[0-9]+/.*' } }", "{ path: /\\/v[0-9]+\\/.*/ }"],
    ["{ path: { type: RegularExpression, value: '(?i)/a' } }", "{ path: /\\/a/i }"],
    ["{ method: GET }", '{ path: "/*", methods: ["GET"] }'],
    [
      "{ headers: [{ name: X-A, value: a }, { name: b, value: '1' }] }",
      '{ path: "/*", headers: { "X-A": "a", b: "1" } }',
    ],
    [
      "{ headers: [{ name: x-a, value: first }, { name: X-A, value: second }] }",
      '{ path: "/*", headers: { "x-a": "first" } }',
    ],
    [
      "{ headers: [{ type: RegularExpression, name: a, value: '[a-z]+' }] }",
      '{ path: "/*", headers: { a: /[a-z]+/ } }',
    ],
    [
      "{ queryParams: [{ name: animal, value: whale }, { name: ANIMAL, value: Whale }] }",
      '{ path: "/*", query: { animal: "whale", ANIMAL: "Whale" } }',
    ],
    [
      "{ queryParams: [{ name: a, value: first }, { name: a, value: second }] }",
      '{ path: "/*", query: { a: "first" } }',
    ],
    [
      "{ queryParams: [{ type: RegularExpression, name: a, value: '[0-9]+' }] }",
      '{ path: "/*", query: { a: /[0-9]+/ } }',
    ],
    [
      "{ path: { value: /a }, method: PUT }, { path: { value: /b } }",
      '[{ path: "/a/*", methods: ["PUT"] }, { path: "/b/*" }]',
    ],
  ])("%s", (yaml, written) => {
    expect(match(yaml)).toBe(written);
  });

  it.each([
    ["{ method: { service: foo.Bar, method: Login } }", '{ path: "/foo.Bar/Login", methods: ["POST"] }'],
    ["{ method: { type: Exact, service: foo.Bar } }", '{ path: "/foo.Bar/*", methods: ["POST"] }'],
    ["{ method: { method: Login } }", '{ path: /\\/[^/]+\\/Login/, methods: ["POST"] }'],
    [
      "{ method: { type: RegularExpression, service: 'foo\\.[A-Z]+' } }",
      '{ path: /\\/foo\\.[A-Z]+\\/[^/]+/, methods: ["POST"] }',
    ],
    [
      "{ method: { type: RegularExpression, service: 'a|b', method: c } }",
      '{ path: /\\/(?:a|b)\\/c/, methods: ["POST"] }',
    ],
    ["{}", '{ path: "/*", methods: ["POST"] }'],
    ["{ headers: [{ name: version, value: one }] }", '{ path: "/*", methods: ["POST"], headers: { version: "one" } }'],
  ])("of gRPC %s", (yaml, written) => {
    expect(match(yaml, "GRPCRoute")).toBe(written);
  });

  it("of a gRPC service are written so that they go before those of a method of whatever service", () => {
    const rules = "- { matches: [{ method: { method: Login } }] }\n- { matches: [{ method: { service: foo.Bar } }] }";
    expect(routes(rules, "GRPCRoute")).toContain('{ path: /\\/foo\\.Bar\\/[^/]+/, methods: ["POST"] }');
    expect(differences(told(rules, "GRPCRoute"))).toEqual([]);
  });

  it.each([
    ["{ path: { type: Glob, value: /a } }", "path.type", '"Glob" is none of Exact, PathPrefix, RegularExpression'],
    ["{ path: { value: a } }", "path.value", '"a" is not a path that requests can have'],
    ["{ path: { value: /a//b } }", "path.value", '"/a//b" is not a path that requests can have'],
    ["{ path: { value: /a/../b } }", "path.value", '"/a/../b" is not a path that requests can have'],
    ["{ path: { value: '/a{b}' } }", "path.value", '"/a{b}" is not a path that requests can have'],
    ["{ path: { value: '/a%2Fb' } }", "path.value", '"/a%2Fb" is not a path that requests can have'],
    ["{ path: { value: '/%00' } }", "path.value", '"/%00" is not a path that requests can have'],
    ["{ path: { value: /.well-known/portcullis/x } }", "path.value", "/.well-known/portcullis/ is the gateway's own"],
    ["{ path: { type: RegularExpression, value: '(a' } }", "path.value", '"(a" is no regex of JavaScript'],
    ["{ path: { type: RegularExpression, value: '/\\pL' } }", "path.value", "\\p is of RE2 and not of JavaScript"],
    ["{ path: { type: RegularExpression, value: 'abc' } }", "path.value", "never matches: every path begins with /"],
    ["{ path: { type: RegularExpression, value: '/(a+)+' } }", "path.value", /^backtracks: it takes exponential time/],
    ["{ method: CONNECT }", "method", "a Worker cannot forward CONNECT"],
    ["{ method: get }", "method", /^"get" is none of GET, HEAD/],
    [
      "{ headers: [{ name: X-Forwarded-Proto, value: http }] }",
      "headers[0]",
      /^X-Forwarded-Proto is for the gateway alone/,
    ],
    ["{ headers: [{ name: 'a b', value: x }] }", "headers[0]", '"a b" is no usable name'],
    ["{ queryParams: [{ name: __proto__, value: x }] }", "queryParams[0]", '"__proto__" is no usable name'],
    ["{ headers: [{ type: Prefix, name: a, value: x }] }", "headers[0].type", /^"Prefix" is none of Exact/],
  ])("%s is refused, and not made wider", (yaml, field, reason) => {
    const result = told(`- { matches: [${yaml}] }\n- { matches: [{ path: { value: /rest } }] }`);
    const [refusal, ...more] = refusals(result);
    expect(more).toEqual([]);
    expect(refusal?.split(": ")[0]?.replace(/^\d+ spec\.rules\[0\]\.matches\[0\]\./, "")).toBe(field);
    expect(refusal?.slice(refusal.indexOf(": ") + 2)).toEqual(
      typeof reason === "string" ? reason : expect.stringMatching(reason),
    );
    expect(ignored(result)).toContain("17 spec.rules[0]: none of its matches can be carried");
    expect(code(result.files.get("orders.ts"))).toContain('[route("rest", { path: "/rest/*" }');
  });

  it("that cannot be carried leaves the others of its rule", () => {
    expect(match("{ method: TRACE }, { path: { value: /b } }")).toBe('{ path: "/b/*" }');
  });

  it("is every request, or every call, where there is none", () => {
    expect(routes("- backendRefs: []")).toContain('route("all", { path: "/*" }');
    expect(routes("- { matches: [], backendRefs: [] }")).toContain('route("all", { path: "/*" }');
    expect(routes("- backendRefs: []", "GRPCRoute")).toContain('route("all", { path: "/*", methods: ["POST"] }');
  });
});

describe("backendRefs", () => {
  const to = (refs: string): string => /\{ to: (.*?) \}\)$/.exec(routes(`- { backendRefs: ${refs} }`))?.[1] ?? "none";

  it.each([
    ["[{ name: a, port: 80 }]", "a"],
    ["[{ name: a, port: 80, weight: 7 }]", "a"],
    ["[{ name: a, port: 80, group: '', kind: Service, namespace: shop }]", "a"],
    [
      "[{ name: a, port: 80, weight: 70 }, { name: b, port: 80 }]",
      'split({ a: a.weight(70), b: b.weight(1) }, { sticky: "request" })',
    ],
    [
      "[{ name: a, port: 80, weight: 0 }, { name: b, port: 80, weight: 2 }]",
      'split({ a: a.weight(0), b: b.weight(2) }, { sticky: "request" })',
    ],
    [
      "[{ name: a, port: 80 }, { name: a, port: 80 }]",
      'split({ a: a.weight(1), "a-2": a.weight(1) }, { sticky: "request" })',
    ],
    ["[]", 'missing("the rule has no backendRefs")'],
    ["null", 'missing("the rule has no backendRefs")'],
    ["[{ name: a, port: 80, weight: 0 }]", 'missing("the weights of all backendRefs are 0")'],
    ["[{ name: none, port: 80 }]", 'missing("Service shop/none does not exist")'],
    ["[{ name: a, port: 81 }]", 'missing("Service shop/a has no port 81")'],
    ["[{ name: a }]", 'missing("the reference to Service shop/a has no port")'],
    [
      "[{ name: a, port: 80, kind: Bucket, group: storage.io }]",
      'missing("Bucket.storage.io is no kind that requests can be sent to")',
    ],
    ["[{ name: A_, port: 80 }]", `missing('"shop/A_" is no name of a Service')`],
    [
      "[{ name: c, port: 80, namespace: other }]",
      'missing("no ReferenceGrant in other lets HTTPRoutes of shop refer to Service c")',
    ],
    [
      "[{ name: a, port: 80, weight: 9 }, { name: none, port: 80, weight: 1 }]",
      'split({ a: a.weight(9), none: missing("Service shop/none does not exist").weight(1) }, { sticky: "request" })',
    ],
    [
      "[{ name: none, port: 80 }, { name: gone, port: 80 }]",
      'missing("Service shop/none does not exist; Service shop/gone does not exist")',
    ],
  ])("%s", (refs, written) => {
    expect(to(refs)).toBe(written);
  });

  it("that are invalid are refused with their place", () => {
    expect(refusals(told("- backendRefs:\n    - { name: a, port: 80 }\n    - { name: none, port: 80 }"))).toEqual([
      "19 spec.rules[0].backendRefs[1]: Service shop/none does not exist",
    ]);
  });

  it("are taken for existing where the manifests have no Service at all, which is said", () => {
    const [gateway, route] = withRules("- backendRefs: [{ name: none, port: 80 }]").split("---\n");
    const result = imported(`${gateway}---\n${route}`);
    expect(code(result.files.get("orders.ts"))).toContain("{ to: none }");
    expect(result.report.notes[0]).toBe(
      "The manifests have no Services, so that those of the routes exist is taken for granted.",
    );
  });

  it("of an ExternalName is invalid", () => {
    const external = "spec: { type: ExternalName, externalName: metadata.internal, ports: [{ port: 80 }] }";
    const manifests = withRules("- backendRefs: [{ name: a, port: 80 }]").replace(
      "spec: { ports: [{ port: 80 }] }",
      external,
    );
    expect(code(imported(manifests).files.get("orders.ts"))).toContain(
      'missing("Service shop/a is an ExternalName, which leads out of the cluster")',
    );
  });

  it("of a port for another protocol than TCP is invalid", () => {
    const manifests = withRules("- backendRefs: [{ name: dns, port: 53 }]").replace(
      /---\napiVersion: v1/,
      "---\napiVersion: v1\nkind: Service\nmetadata: { name: dns, namespace: shop }\nspec: { ports: [{ port: 53, protocol: UDP }] }\n---\napiVersion: v1",
    );
    expect(code(imported(manifests).files.get("orders.ts"))).toContain(
      'missing("port 53 of Service shop/dns is not for TCP")',
    );
  });

  it("without any rule: everything answers 500", () => {
    const manifests = withRules("[]").replace(/rules:\n.*\n/, "rules: []\n");
    expect(code(imported(manifests).files.get("orders.ts"))).toContain(
      'route("all", { path: "/*" }, { to: missing("the route has no rules") })',
    );
  });
});

describe("a ReferenceGrant", () => {
  const grant = (from: string, to: string, namespace = "other", version = "v1beta1") => `
---
apiVersion: gateway.networking.k8s.io/${version}
kind: ReferenceGrant
metadata: { name: ${namespace}-${from.length}-${to.length}, namespace: ${namespace} }
spec: { from: [${from}], to: [${to}] }`;
  const FROM = "{ group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop }";
  const TO = '{ group: "", kind: Service }';
  const permits = (...grants: string[]): boolean => {
    const rules = "- backendRefs: [{ name: c, namespace: other, port: 80 }]";
    return code(imported(withRules(rules) + grants.join("")).files.get("orders.ts")).includes("{ to: c }");
  };

  it.each([
    ["of all Services", grant(FROM, TO)],
    ["of the one Service", grant(FROM, '{ group: "", kind: Service, name: c }')],
    ["of a Service with an empty name, which is none", grant(FROM, '{ group: "", kind: Service, name: "" }')],
    ["in the latest version", grant(FROM, TO, "other", "v1")],
    ["among others", grant(`{ group: "", kind: Secret, namespace: x }, ${FROM}`, `{ group: "", kind: Secret }, ${TO}`)],
  ])("%s lets the route refer to it", (_, given) => {
    expect(permits(given)).toBe(true);
  });

  it.each([
    ["in the route's namespace", grant(FROM, TO, "shop")],
    ["in a third namespace", grant(FROM, TO, "third")],
    ["for another group", grant(FROM.replace("gateway.networking.k8s.io", "other.io"), TO)],
    ["for the core group", grant(FROM.replace("gateway.networking.k8s.io", '""'), TO)],
    ["for another kind of route", grant(FROM.replace("HTTPRoute", "GRPCRoute"), TO)],
    ["for another namespace", grant(FROM.replace("shop", "other"), TO)],
    ["to another group", grant(FROM, "{ group: other.io, kind: Service }")],
    ["to another kind", grant(FROM, '{ group: "", kind: Secret }')],
    ["to another name", grant(FROM, '{ group: "", kind: Service, name: d }')],
  ])("%s does not", (_, given) => {
    expect(permits(given)).toBe(false);
  });

  it("is not put together from two that are half right", () => {
    expect(permits(grant(FROM, '{ group: "", kind: Secret }'), grant(FROM.replace("shop", "x"), TO))).toBe(false);
  });

  it("does not tell what another namespace has", () => {
    const rules = "- backendRefs: [{ name: nothing, namespace: other, port: 80 }]";
    expect(refusals(told(rules))[0]).toContain("no ReferenceGrant in other");
  });
});

describe("filters", () => {
  const options = (filters: string, refs = "[{ name: a, port: 80 }]", matches = "[{ path: { value: /x } }]"): string =>
    /^route\("x", \{ path: "\/x\/\*" \}, (.*)\)$/.exec(
      routes(`- { matches: ${matches}, filters: [${filters}], backendRefs: ${refs} }`),
    )?.[1] ?? "none";

  it.each([
    [
      "{ type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: A, value: '1' }], add: [{ name: B, value: '2' }], remove: [C] } }",
      '{ policies: [headers({ request: { remove: ["C"], set: { A: "1" }, add: { B: "2" } } })], to: a }',
    ],
    [
      "{ type: ResponseHeaderModifier, responseHeaderModifier: { set: [{ name: A, value: '1' }] } }, { type: RequestHeaderModifier, requestHeaderModifier: { remove: [C] } }",
      '{ policies: [headers({ response: { set: { A: "1" } }, request: { remove: ["C"] } })], to: a }',
    ],
    ["{ type: RequestHeaderModifier, requestHeaderModifier: {} }", "{ to: a }"],
    ["{ type: URLRewrite, urlRewrite: { hostname: b.example.com } }", '{ rewrite: { host: "b.example.com" }, to: a }'],
    [
      "{ type: URLRewrite, urlRewrite: { path: { type: ReplaceFullPath, replaceFullPath: /y } } }",
      '{ rewrite: { path: { full: "/y" } }, to: a }',
    ],
    [
      "{ type: URLRewrite, urlRewrite: { path: { type: ReplacePrefixMatch, replacePrefixMatch: /y/ } } }",
      '{ rewrite: { path: { prefix: "/y/" } }, to: a }',
    ],
    [
      "{ type: URLRewrite, urlRewrite: { path: { type: ReplacePrefixMatch, replacePrefixMatch: '' } } }",
      '{ rewrite: { path: { prefix: "/" } }, to: a }',
    ],
    ["{ type: URLRewrite, urlRewrite: {} }", "{ to: a }"],
    [
      "{ type: RequestMirror, requestMirror: { backendRef: { name: b, port: 80 } } }",
      '{ mirrors: [mirror(b, { methods: "any" })], to: a }',
    ],
    [
      "{ type: RequestMirror, requestMirror: { backendRef: { name: b, port: 80 }, percent: 0 } }, { type: RequestMirror, requestMirror: { backendRef: { name: a, port: 80 }, fraction: { numerator: 1, denominator: 3 } } }",
      '{ mirrors: [mirror(b, { percent: 0, methods: "any" }), mirror(a, { fraction: [1, 3], methods: "any" })], to: a }',
    ],
    [
      "{ type: RequestMirror, requestMirror: { backendRef: { name: b, port: 80 }, fraction: { numerator: 5 } } }",
      '{ mirrors: [mirror(b, { fraction: [5, 100], methods: "any" })], to: a }',
    ],
    [
      "{ type: CORS, cors: { allowOrigins: ['https://A.com', 'http://*.a.com:8080'], allowMethods: ['*'], allowHeaders: [X-A], exposeHeaders: [X-B], allowCredentials: true, maxAge: 60 } }",
      '{ policies: [cors({ origins: ["https://a.com", "http://*.a.com:8080"], methods: ["*"], headers: ["X-A"], expose: ["X-B"], credentials: true, maxAge: 60 })], to: a }',
    ],
    [
      "{ type: CORS, cors: { allowOrigins: ['no origin'] } }",
      '{ policies: [cors({ origins: [], methods: ["GET", "HEAD", "POST"], headers: [] })], to: a }',
    ],
    [
      "{ type: CORS, cors: { allowOrigins: ['*'], allowCredentials: false } }",
      '{ policies: [cors({ origins: ["*"], methods: ["GET", "HEAD", "POST"], headers: [] })], to: a }',
    ],
  ])("%s", (filters, written) => {
    expect(options(filters)).toBe(written);
  });

  it.each([
    ["{}", "redirect({})"],
    ["{ statusCode: 308 }", "redirect({ status: 308 })"],
    ["{ scheme: https, port: 8443 }", 'redirect({ scheme: "https", port: 8443 })'],
    [
      "{ hostname: b.com, path: { type: ReplacePrefixMatch, replacePrefixMatch: /y } }",
      'redirect({ host: "b.com", path: { prefix: "/y" } })',
    ],
    ["{ path: { type: ReplaceFullPath, replaceFullPath: y } }", 'redirect({ path: { full: "/y" } })'],
  ])("RequestRedirect %s", (redirect, written) => {
    expect(options(`{ type: RequestRedirect, requestRedirect: ${redirect} }`, "[]")).toBe(`{ to: ${written} }`);
  });

  it.each([
    [
      "{ type: ExtensionRef, extensionRef: { group: acme.io, kind: RateLimit, name: slow } }",
      "ExtensionRef (RateLimit slow)",
    ],
    ["{ type: ExternalAuth, externalAuth: {} }", "ExternalAuth"],
    ["{ type: FromTheFuture }", "FromTheFuture"],
    ["{ type: RequestRedirect, requestRedirect: { statusCode: 305 } }", "RequestRedirect"],
    ["{ type: RequestRedirect, requestRedirect: { scheme: ftp } }", "RequestRedirect"],
    ["{ type: RequestRedirect, requestRedirect: { hostname: '*.a.com' } }", "RequestRedirect"],
    ["{ type: URLRewrite, urlRewrite: { path: { type: ReplaceSuffix } } }", "URLRewrite"],
    ["{ type: URLRewrite, urlRewrite: { path: { type: ReplaceFullPath, replaceFullPath: '/a?b=c' } } }", "URLRewrite"],
  ])("%s cannot be carried, so its requests answer 500", (filter, name) => {
    expect(options(filter)).toBe(`{ to: missing("filter ${name} cannot be carried") }`);
    expect(refusals(told(`- { filters: [${filter}] }`)).length).toBeGreaterThan(0);
  });

  it("replace a prefix only where each match is one", () => {
    const rewrite = "{ type: URLRewrite, urlRewrite: { path: { type: ReplacePrefixMatch, replacePrefixMatch: /y } } }";
    expect(options(rewrite, undefined, "[{ path: { value: /x } }]")).toContain("prefix");
    const rules = `- { matches: [{ path: { value: /x } }, { path: { type: Exact, value: /x } }], filters: [${rewrite}], backendRefs: [{ name: a, port: 80 }] }`;
    expect(routes(rules)).toContain('missing("filter URLRewrite cannot be carried")');
  });

  it("that are invalid in part are carried for the rest", () => {
    const filter =
      "{ type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: Host, value: a }, { name: X-Forwarded-Proto, value: https }, { name: A, value: '1' }], remove: [a, X-B] } }";
    expect(options(filter)).toBe('{ policies: [headers({ request: { remove: ["X-B"], set: { A: "1" } } })], to: a }');
    expect(refusals(told(`- { filters: [${filter}] }`)).map((line) => line.replace(/^.*Modifier\./, ""))).toEqual([
      'set[0]: headers cannot set "host" in the request: the gateway decides it',
      'set[1]: headers cannot set "x-forwarded-proto" in the request: the gateway decides it',
      "remove[0]: another action on this header is there already",
    ]);
  });

  it("of one sort count once", () => {
    const rewrite = (host: string) => `{ type: URLRewrite, urlRewrite: { hostname: ${host} } }`;
    expect(options(`${rewrite("a.com")}, ${rewrite("b.com")}`)).toBe('{ rewrite: { host: "a.com" }, to: a }');
  });

  it("say where another Host is more than another Host", () => {
    const filters = "filters: [{ type: URLRewrite, urlRewrite: { hostname: b.com } }]";
    const own = "{ name: b, port: 80, filters: [{ type: URLRewrite, urlRewrite: { hostname: c.com } }] }";
    const rules = withRules(`- { ${filters}, backendRefs: [{ name: a, port: 80, weight: 0 }, ${own}] }`);
    const notes = (endpoints: string) => differences(imported(rules, { endpoints }));
    const [ofRule, ofBackend] = ["filters[0]", "backendRefs[1].filters[0]"].map(
      (filter) => `17 spec.rules[0].${filter}.urlRewrite.hostname`,
    );
    const atUrl =
      "at a URL it is the host that requests are sent to as well, so it must lead to the ingress; behind a binding it is Host alone";
    expect(notes("default: { binding: EU, path: '/{service}' }")).toEqual([]);
    expect(notes("default: { url: https://a.com, path: '/{service}' }")).toEqual([
      `${ofRule}: ${atUrl}`,
      `${ofBackend}: ${atUrl}`,
    ]);
    const apart = (host: string) => `takes the place of ${host}, by which the ingress tells the Service apart`;
    expect(notes("shop/a: { binding: EU }\nshop/b: { binding: EU, host: b.eu }")).toEqual([
      `${ofRule}: ${apart("b.eu")}`,
      `${ofBackend}: ${apart("b.eu")}`,
    ]);
  });

  it("mirror to nowhere where the reference is invalid, and the request is served", () => {
    const filter = "{ type: RequestMirror, requestMirror: { backendRef: { name: none, port: 80 } } }";
    expect(options(filter)).toBe("{ to: a }");
    expect(refusals(told(`- { filters: [${filter}], backendRefs: [{ name: a, port: 80 }] }`))).toEqual([
      "17 spec.rules[0].filters[0].requestMirror.backendRef: Service shop/none does not exist",
    ]);
  });

  it("redirect before anything is sent", () => {
    const redirect = "{ type: RequestRedirect, requestRedirect: { hostname: b.com } }";
    const mirror = "{ type: RequestMirror, requestMirror: { backendRef: { name: b, port: 80 } } }";
    const result = told(`- { filters: [${mirror}, ${redirect}], backendRefs: [{ name: a, port: 80 }] }`);
    expect(code(result.files.get("orders.ts"))).toContain('{ to: redirect({ host: "b.com" }) }');
    expect(refusals(result).map((line) => line.split(" ")[1])).toEqual([
      "spec.rules[0].filters[0]:",
      "spec.rules[0].backendRefs:",
    ]);
    expect(result.files.has("clusters.ts")).toBe(false);
  });

  it.each([
    [
      "{ type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: A, value: '1' }] } }",
      'a.with({ headers: { request: { set: { A: "1" } } } })',
    ],
    [
      "{ type: URLRewrite, urlRewrite: { hostname: b.com } }, { type: RequestMirror, requestMirror: { backendRef: { name: b, port: 80 } } }",
      'a.with({ rewrite: { host: "b.com" }, mirrors: [mirror(b, { methods: "any" })] })',
    ],
    ["{ type: RequestRedirect, requestRedirect: { port: 8080 } }", "redirect({ port: 8080 })"],
    ["{ type: CORS, cors: { allowOrigins: ['*'] } }", 'missing("filter CORS cannot be carried")'],
    [
      "{ type: ExtensionRef, extensionRef: { group: a, kind: B, name: c } }",
      'missing("filter ExtensionRef (B c) cannot be carried")',
    ],
  ])("of a backendRef: %s", (filters, written) => {
    const refs = `[{ name: a, port: 80, filters: [${filters}] }]`;
    expect(options("", refs)).toBe(`{ to: ${written} }`);
    expect(options("", `${refs.slice(0, -1)}, { name: b, port: 80 }]`)).toBe(
      `{ to: split({ a: ${written}.weight(1), b: b.weight(1) }, { sticky: "request" }) }`,
    );
  });

  it("of GRPCRoutes are fewer", () => {
    const filter = "{ type: URLRewrite, urlRewrite: { hostname: b.com } }";
    expect(routes(`- { filters: [${filter}] }`, "GRPCRoute")).toContain(
      'missing("filter URLRewrite cannot be carried")',
    );
  });
});

describe("times", () => {
  const options = (yaml: string): string =>
    /\{ to: a(?:, (.*?))? \}\)$/.exec(routes(`- { backendRefs: [{ name: a, port: 80 }], ${yaml} }`))?.[1] ?? "";

  it.each([
    ["timeouts: {}", ""],
    ["timeouts: { request: 500ms }", 'timeouts: { total: "500ms" }'],
    ["timeouts: { request: 15s }", 'timeouts: { total: "15s" }'],
    // The gateway itself would wait 15 s for the headers.
    ["timeouts: { request: 30s }", 'timeouts: { firstByte: "30s", total: "30s" }'],
    ["timeouts: { request: 1h30m }", 'timeouts: { firstByte: "1h30m", total: "1h30m" }'],
    ["timeouts: { request: 0s }", 'timeouts: { firstByte: "0s", total: "0s" }'],
    ["timeouts: { request: 0h0m }", 'timeouts: { firstByte: "0s", total: "0s" }'],
    ["timeouts: { request: 10s, backendRequest: 2s }", 'timeouts: { firstByte: "2s", total: "10s" }'],
    ["timeouts: { request: 0s, backendRequest: 2s }", 'timeouts: { firstByte: "2s", total: "0s" }'],
    ["timeouts: { request: 10s, backendRequest: 0s }", 'timeouts: { firstByte: "0s", total: "10s" }'],
    ["timeouts: { backendRequest: 2s }", 'timeouts: { firstByte: "2s" }'],
    // It would itself end the whole exchange after 60 s.
    ["timeouts: { backendRequest: 2m }", 'timeouts: { firstByte: "2m", total: "0s" }'],
    ["timeouts: { backendRequest: 0s }", 'timeouts: { firstByte: "0s", total: "0s" }'],
    ["timeouts: { request: 1s, backendRequest: 2s }", 'timeouts: { total: "1s" }'],
    [
      "timeouts: { backendRequest: 20s }, retry: { attempts: 3 }",
      'timeouts: { firstByte: "20s", total: "0s" }, retry: { attempts: 3, on: ["connection", "timeout"], methods: "any", budget: { minimum: 100 } }',
    ],
    [
      "retry: { codes: [500, 503, 500], attempts: 2, backoff: 250ms }",
      'retry: { attempts: 2, on: [500, 503, "connection", "timeout"], methods: "any", backoff: { minimum: "250ms" }, budget: { minimum: 100 } }',
    ],
    ["retry: {}", 'retry: { on: ["connection", "timeout"], methods: "any", budget: { minimum: 100 } }'],
    [
      "retry: { attempts: 1000 }",
      'retry: { attempts: 100, on: ["connection", "timeout"], methods: "any", budget: { minimum: 100 } }',
    ],
  ])("%s", (yaml, written) => {
    expect(options(yaml)).toBe(written);
  });

  it("of one try longer than of all are refused", () => {
    expect(refusals(told("- { timeouts: { request: 1s, backendRequest: 2s } }"))).toEqual([
      "17 spec.rules[0].timeouts.backendRequest: is longer than the timeout of the whole request",
    ]);
  });

  it("say where they differ", () => {
    const rules =
      "- { backendRefs: [{ name: a, port: 80 }], timeouts: { backendRequest: 2s }, retry: { backoff: 1s } }";
    expect(differences(told(rules)).map((line) => line.split(":")[0])).toEqual([
      "17 spec.rules[0].timeouts.backendRequest",
      "17 spec.rules[0].retry",
      "17 spec.rules[0].retry.backoff",
    ]);
  });

  it.each(["10", "1.5s", "forever", "-1s", "1d"])("%j is no duration", (text) => {
    expect(problemsOf(withRules(`- { timeouts: { request: "${text}" } }`))).toEqual([
      "m.yaml:17  HTTPRoute shop/orders: `spec.rules[0].timeouts.request` is no duration",
    ]);
  });
});

describe("sessionPersistence", () => {
  const persistence = (yaml: string, refs = "{ name: a, port: 80 }, { name: b, port: 80 }"): string =>
    routes(`- { backendRefs: [${refs}], sessionPersistence: ${yaml} }`);

  it.each([
    ["{}", 'sticky: { cookie: "orders-all" }'],
    ["{ type: Cookie, cookie: { name: sid } }", 'sticky: { cookie: "sid" }'],
    ["{ sessionName: sid }", 'sticky: { cookie: "sid" }'],
    ["{ absoluteTimeout: 90s, cookie: { lifetimeType: Permanent } }", 'sticky: { cookie: "orders-all", maxAge: 90 }'],
    ["{ type: Header, header: { name: X-Session } }", 'sticky: "request"'],
  ])("%s", (yaml, written) => {
    expect(persistence(yaml)).toContain(`{ ${written} }`);
  });

  it("of one Service is for what stands in front of its pods", () => {
    expect(persistence("{}", "{ name: a, port: 80 }")).toContain("{ to: a }");
    expect(refusals(told("- { backendRefs: [{ name: a, port: 80 }], sessionPersistence: {} }"))).toHaveLength(1);
  });
});

describe("names", () => {
  const names = (rules: string): string[] =>
    [...routes(rules).matchAll(/route\("([^"]*)"/g)].map(([, name]) => name as string);

  it("are the rules' own, or made of what they match, and unique", () => {
    expect(
      names(`- { name: first, matches: [{ path: { value: /x } }] }
- { matches: [{ path: { value: /v1/orders }, method: POST }] }
- { matches: [{ path: { value: /v1/orders/ }, method: POST }] }
- { matches: [{ path: { type: Exact, value: / } }] }
- {}
- { name: first }
- { matches: [{ path: { value: "/${"a".repeat(200)}" } }] }`),
    ).toEqual([
      "first",
      "post-v1-orders",
      "post-v1-orders-2",
      "root",
      "all",
      "first-2",
      expect.stringMatching(/^a{54}-[0-9a-f]{8}$/),
    ]);
  });

  it("of constants are no words of the language and of JavaScript", () => {
    const services = ["route", "class", "api-gateway", "api.gateway", "3d", "arguments"].filter((name) =>
      /^[a-z0-9-]+$/.test(name),
    );
    const rules = services.map((name) => `- backendRefs: [{ name: ${name}, port: 80 }]`).join("\n");
    const manifests = `${withRules(rules)}---\n${services.map((name) => service(`shop/${name}`)).join("---\n")}`;
    const text = imported(manifests).files.get("clusters.ts") ?? "";
    expect([...text.matchAll(/export const (\w+)/g)].map(([, name]) => name)).toEqual([
      "kubernetes",
      "_3d",
      "apiGateway",
      "argumentsService",
      "classService",
      "routeService",
    ]);
  });

  it("of a listener, a Service and a route are told apart where they meet", () => {
    const manifests = withRules("- backendRefs: [{ name: http, port: 80 }]")
      .replace("port: 80, protocol", "port: 8080, protocol")
      .replace("name: orders", "name: http");
    const { files } = imported(`${manifests}---\n${service("shop/http")}`);
    expect(files.get("http.ts")).toContain('import { httpService } from "./clusters.ts";');
    expect(code(files.get("index.ts"))).toContain(
      'import httpApi from "./http.ts"; import { http } from "./listeners.ts";',
    );
  });

  it("of routes in several namespaces say which", () => {
    const route = (namespace: string) => `
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: index, namespace: ${namespace} }
spec: { parentRefs: [{ name: public, namespace: infra }], rules: [{}] }`;
    expect([...imported(GATEWAY + route("a") + route("b")).files.keys()]).toEqual([
      "a.index.ts",
      "b.index.ts",
      "index.ts",
      "REPORT.md",
    ]);
    expect([...imported(GATEWAY + route("a")).files.keys()]).toContain("a.index.ts");
  });
});

it("a redirect needs the port of its listener, also where that is the only one", () => {
  const index = (filter: string) => code(told(`- { filters: [${filter}] }`).files.get("index.ts"));
  expect(index("{ type: RequestRedirect, requestRedirect: { hostname: b.com } }")).toContain("listeners: [http]");
  expect(index("")).not.toContain("listeners");
});
