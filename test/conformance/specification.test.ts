/**
 * What the Gateway API's type comments say and none of the repository's conformance cases asks: from manifests through import, build and
 * workerd to echo servers, as the cases are.
 */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { runSuite, type TestResult } from "./gateway-api/suite.ts";

const API = "apiVersion: gateway.networking.k8s.io/v1";
const document = (kind: string, namespace: string, name: string, rest: string, metadata = "") =>
  `${API}\nkind: ${kind}\nmetadata: { namespace: ${namespace}, name: ${name}${metadata} }\n${rest}\n`;

const service = (namespace: string, name: string) => `apiVersion: v1
kind: Service
metadata: { namespace: ${namespace}, name: ${name} }
spec: { selector: { app: ${name} }, ports: [{ port: 8080 }] }
`;
const namespace = (name: string, label: string) =>
  `apiVersion: v1\nkind: Namespace\nmetadata: { name: ${name}, labels: { team: ${label} } }\n`;

const INFRA = [
  namespace("infra", "platform"),
  namespace("shop", "shop"),
  namespace("guest", "guest"),
  ...["a", "b", "c"].map((name) => service("infra", name)),
  service("shop", "d"),
  service("guest", "e"),
  document(
    "Gateway",
    "infra",
    "public",
    `spec:
  gatewayClassName: any
  allowedListeners: { namespaces: { from: Selector, selector: { matchLabels: { team: shop } } } }
  listeners:
    - { name: http, port: 80, protocol: HTTP, allowedRoutes: { namespaces: { from: All } } }
    - { name: other, port: 8080, protocol: HTTP, allowedRoutes: { namespaces: { from: All } } }
    - { name: wild, port: 8081, protocol: HTTP, hostname: "*.wild.example" }
    - { name: very, port: 8081, protocol: HTTP, hostname: very.wild.example }
    - { name: secure, port: 443, protocol: HTTPS, hostname: secure.example, tls: { certificateRefs: [{ name: t }] } }
    - { name: team, port: 8082, protocol: HTTP, allowedRoutes: { namespaces: { from: Selector, selector: { matchExpressions: [{ key: team, operator: In, values: [shop] }] } } } }
    - { name: grpc-only, port: 8083, protocol: HTTP, allowedRoutes: { kinds: [{ kind: GRPCRoute }] } }`,
  ),
];

interface Asking {
  readonly name: string;
  readonly [field: string]: unknown;
}

let routes: string[] = [];
let cases: Asking[] = [];
let host = "";
let [made, count] = [0, 0];

/** An HTTPRoute with these rules, for a host of its own unless `spec` says otherwise. */
function route(rules: string, { spec = "", kind = "HTTPRoute", in: where = "infra", metadata = "" } = {}): void {
  const name = `r${++made}`;
  host = `${name}.example`;
  const parents = spec.includes("parentRefs")
    ? ""
    : "parentRefs: [{ name: public, namespace: infra, sectionName: http }], ";
  const hosts = spec.includes("hostnames") ? "" : `hostnames: [${host}], `;
  routes.push(document(kind, where, name, `spec: { ${parents}${hosts}${spec}rules: [${rules}] }`, metadata));
}

interface Asked {
  readonly method?: string;
  readonly headers?: Record<string, string>;
  readonly host?: string;
  readonly port?: number;
  readonly scheme?: string;
  readonly body?: string;
  readonly kind?: string;
  readonly set?: Record<string, string>;
}

/** The request's path is answered so. */
function asks(
  path: string,
  expected: object | number,
  { kind = "http", port = 80, scheme = "http", set, ...asked }: Asked = {},
) {
  const expect = typeof expected === "number" ? { statusCodes: [expected] } : expected;
  cases.push({
    kind,
    name: `${++count} ${asked.method ?? "GET"} ${asked.host ?? host}${path}`,
    gateway: { namespace: "infra", name: "public", port, protocol: scheme === "https" ? "HTTPS" : "HTTP" },
    scheme,
    request: { path, host, ...asked },
    ...(set && { backendSetResponseHeaders: set }),
    expect,
  });
}
const to = (backend: string, upstream: object = {}, more: object = {}) => ({
  backend,
  ...(Object.keys(upstream).length > 0 && { upstreamRequest: upstream }),
  ...more,
});
const A = "backendRefs: [{ name: a, port: 8080 }]";
const ref = (name: string, more = "") => `{ name: ${name}, port: 8080${more} }`;

const tests: { name: string; routes: string[]; cases: Asking[] }[] = [];
function test(name: string, describeIt: () => void): void {
  [routes, cases] = [[], []];
  describeIt();
  tests.push({ name, routes, cases });
}

test("Paths", () => {
  // HTTPPathModifier.replacePrefixMatch, the whole table, for rewrites and for redirects.
  for (const [path, prefix, replacement, modified] of [
    ["/foo/bar", "/foo", "/xyz", "/xyz/bar"],
    ["/foo/bar", "/foo", "/xyz/", "/xyz/bar"],
    ["/foo/bar", "/foo/", "/xyz", "/xyz/bar"],
    ["/foo/bar", "/foo/", "/xyz/", "/xyz/bar"],
    ["/foo", "/foo", "/xyz", "/xyz"],
    ["/foo/", "/foo", "/xyz", "/xyz/"],
    ["/foo/bar", "/foo", "", "/bar"],
    ["/foo/", "/foo", "", "/"],
    ["/foo", "/foo", "", "/"],
    ["/foo/", "/foo", "/", "/"],
    ["/foo", "/foo", "/", "/"],
  ] as const) {
    const change = `path: { type: ReplacePrefixMatch, replacePrefixMatch: "${replacement}" }`;
    route(
      `{ matches: [{ path: { value: ${prefix} } }], ${A}, filters: [{ type: URLRewrite, urlRewrite: { ${change} } }] },
       { matches: [{ path: { value: /r${prefix} } }], filters: [{ type: RequestRedirect, requestRedirect: { ${change} } }] }`,
    );
    asks(`${path}?q=1&r=%2F`, to("a", { path: `${modified}?q=1&r=%2F` }));
    asks(`/r${path}`, { statusCodes: [302], redirect: { path: modified } });
  }
  route(
    `{ matches: [{ path: { value: /one } }], ${A}, filters: [{ type: URLRewrite, urlRewrite: { hostname: b.internal, path: { type: ReplaceFullPath, replaceFullPath: /full } } }] },
     { matches: [{ path: { type: Exact, value: /exact } }, { path: { type: RegularExpression, value: "/v[0-9]+/x" } }], backendRefs: [${ref("b")}] },
     { matches: [{ path: { value: /v } }, { path: { value: /two/three } }], backendRefs: [${ref("c")}] },
     { ${A} }`,
  );
  asks("/one/two?q=1", to("a", { path: "/full?q=1", host: "b.internal" }));
  asks("/exact", to("b"));
  asks("/exact/", to("a"));
  asks("/EXACT", to("a"));
  asks("/v1/x", to("b"));
  asks("/v1/x/y", to("a"));
  asks("/v/x", to("c"));
  asks("/two/threefour", to("a"));
  asks("/two/three/four", to("c"));
});

test("Precedence", () => {
  // HTTPRouteRule.matches: path, then method, then headers, then queries; whichever route or rule they are in.
  const shared = "hostnames: [shared.example], ";
  route(`{ matches: [{ path: { value: /p } }], ${A} }, { matches: [{ method: POST }], backendRefs: [${ref("c")}] }`, {
    spec: shared,
  });
  route(
    `{ matches: [{ path: { value: /p }, method: PUT }], backendRefs: [${ref("b")}] },
     { matches: [{ path: { value: /p }, headers: [{ name: X-One, value: "1" }, { name: x-two, value: "2" }] }], backendRefs: [${ref("c")}] },
     { matches: [{ path: { value: /p }, headers: [{ name: x-one, value: "1" }], queryParams: [{ name: q, value: "1" }, { name: r, value: "1" }] }], backendRefs: [${ref("b")}] }`,
    { spec: shared },
  );
  const shares = { host: "shared.example" };
  asks("/p", to("a"), shares);
  asks("/p/x", to("a", { method: "POST", path: "/p/x" }), { ...shares, method: "POST" });
  asks("/", to("c", { method: "POST" }), { ...shares, method: "POST" });
  asks("/p?q=1&r=1", to("b", { method: "PUT", path: "/p?q=1&r=1" }), {
    ...shares,
    method: "PUT",
    headers: { "X-One": "1", "X-Two": "2" },
  });
  asks("/p?q=1&r=1", to("c"), { ...shares, headers: { "x-one": "1", "X-TWO": "2" } });
  asks("/p?q=1&r=1", to("b"), { ...shares, headers: { "x-one": "1" } });
  asks("/p?q=1&R=1", to("a"), { ...shares, headers: { "x-one": "1" } });
  asks("/p?q=2&q=1&r=1", to("a"), { ...shares, headers: { "x-one": "1" } });
  asks("/p?q=%31&r=1", to("b"), { ...shares, headers: { "x-one": "1" } });
  asks("/p", to("a"), { ...shares, headers: { "x-one": "11", "x-two": "2" } });

  // A tie: the oldest route, then by "{namespace}/{name}", then the first rule in its list.
  route(`{ backendRefs: [${ref("b")}] }`, {
    spec: "hostnames: [old.example], ",
    metadata: `, creationTimestamp: "2024-02-01T00:00:00Z"`,
  });
  route(`{ ${A} }, { backendRefs: [${ref("c")}] }`, {
    spec: "hostnames: [old.example], ",
    metadata: `, creationTimestamp: "2024-01-01T00:00:00Z"`,
  });
  asks("/", to("a"), { host: "old.example" });
  route(`{ backendRefs: [{ name: d, port: 8080 }] }`, { spec: "hostnames: [alike.example], ", in: "shop" });
  route(`{ ${A} }`, { spec: "hostnames: [alike.example], " });
  asks("/", to("a"), { host: "alike.example" });

  // Hostnames: the most characters in one without a wildcard, then in one with.
  route(`{ ${A} }`, { spec: 'hostnames: ["*.hosts.example"], ' });
  route(`{ matches: [{ path: { value: /only } }], backendRefs: [${ref("b")}] }`, {
    spec: 'hostnames: ["*.deep.hosts.example"], ',
  });
  route(`{ matches: [{ path: { value: /only } }], backendRefs: [${ref("c")}] }`, {
    spec: "hostnames: [x.deep.hosts.example], ",
  });
  asks("/only", to("c"), { host: "x.deep.hosts.example" });
  asks("/only", to("b"), { host: "y.deep.hosts.example" });
  asks("/only", to("a"), { host: "y.hosts.example" });
  asks("/only", 404, { host: "hosts.example" });

  // GRPCRouteRule.matches: characters of the service, then of the method, then headers.
  route(
    `{ matches: [{ method: { method: Echo } }], backendRefs: [${ref("a")}] },
     { matches: [{ method: { service: gateway_api_conformance.echo_basic.grpcecho.GrpcEcho } }], backendRefs: [${ref("b")}] },
     { matches: [{ method: { service: gateway_api_conformance.echo_basic.grpcecho.GrpcEcho, method: EchoTwo } }], backendRefs: [${ref("c")}] },
     { matches: [{ headers: [{ name: version, value: two }] }], backendRefs: [${ref("c")}] }`,
    { kind: "GRPCRoute" },
  );
  const SERVICE = "gateway_api_conformance.echo_basic.grpcecho.GrpcEcho";
  for (const [method, backend] of [
    ["Echo", "b"],
    ["EchoTwo", "c"],
  ])
    cases.push({
      kind: "grpc",
      name: `gRPC ${method}`,
      gateway: { namespace: "infra", name: "public", port: 80, protocol: "HTTP" },
      request: { host, authority: host, service: SERVICE, method },
      expect: { code: "OK", backend },
    });
});

test("Filters", () => {
  route(
    `{ ${A}, filters: [
       { type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: X-Set, value: new }], add: [{ name: x-add, value: two }], remove: [X-GONE] } },
       { type: ResponseHeaderModifier, responseHeaderModifier: { set: [{ name: x-set, value: new }], add: [{ name: X-Add, value: two }], remove: [x-gone] } }] }`,
  );
  asks("/", to("a", { headers: { "x-set": "new", "x-add": "one,two" }, absentHeaders: ["x-gone"] }), {
    headers: { "x-set": "old", "X-Add": "one", "x-gone": "here" },
  });
  asks("/", to("a", {}, { responseHeaders: { "X-Set": "new", "x-add": "two" }, responseAbsentHeaders: ["X-Gone"] }), {
    set: { "X-Set": "old", "x-gone": "here" },
  });
  // Of the rule and of the backendRef together.
  route(
    `{ backendRefs: [${ref("b", ", filters: [{ type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: x-backend, value: b }] } }, { type: URLRewrite, urlRewrite: { path: { type: ReplaceFullPath, replaceFullPath: /own } } }]")}],
       filters: [{ type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: x-rule, value: r }] } }] }`,
  );
  asks("/x?y", to("b", { path: "/own?y", headers: { "x-backend": "b", "x-rule": "r" } }));

  // HTTPRequestRedirectFilter.
  for (const status of [301, 302, 303, 307, 308]) {
    route(`{ filters: [{ type: RequestRedirect, requestRedirect: { statusCode: ${status}, hostname: to.example } }] }`);
    asks(
      "/a/b",
      { statusCodes: [status], redirect: { host: "to.example" } },
      { method: status === 303 ? "POST" : "GET" },
    );
  }
  const every = "parentRefs: [{ name: public, namespace: infra }], ";
  for (const [redirect, port, scheme, expected] of [
    ["", 80, "http", { scheme: "http" }],
    ["", 8080, "http", { scheme: "http", port: "8080" }],
    ["scheme: https", 80, "http", { scheme: "https" }],
    ["scheme: https", 8080, "http", { scheme: "https" }],
    ["scheme: http", 8080, "http", { scheme: "http" }],
    ["scheme: https, port: 8443", 80, "http", { scheme: "https", port: "8443" }],
    ["scheme: http, port: 443", 80, "http", { scheme: "http", port: "443" }],
    ["port: 80", 8080, "http", { scheme: "http" }],
    ["port: 8083", 8080, "http", { scheme: "http", port: "8083" }],
  ] as const) {
    route(`{ filters: [{ type: RequestRedirect, requestRedirect: { ${redirect} } }] }`, { spec: every });
    asks("/p", { statusCodes: [302], redirect: expected }, { port, scheme });
  }
  route(`{ filters: [{ type: RequestRedirect, requestRedirect: { hostname: to.example } }] }`, {
    spec: "hostnames: [secure.example], parentRefs: [{ name: public, sectionName: secure }], ",
  });
  asks(
    "/p",
    { statusCodes: [302], redirect: { scheme: "https", host: "to.example" } },
    { host: "secure.example", port: 443, scheme: "https" },
  );

  // HTTPRequestMirrorFilter: several; an invalid one is dropped.
  route(
    `{ ${A}, filters: [{ type: RequestMirror, requestMirror: { backendRef: { name: b, port: 8080 } } }, { type: RequestMirror, requestMirror: { backendRef: { name: c, port: 8080 }, percent: 100 } }, { type: RequestMirror, requestMirror: { backendRef: { name: nowhere, port: 8080 } } }] }`,
  );
  asks(
    "/m",
    to(
      "a",
      {},
      {
        mirroredTo: [
          { namespace: "infra", name: "b" },
          { namespace: "infra", name: "c" },
        ],
      },
    ),
    { kind: "mirror" },
  );

  // "MUST NOT be skipped": an unknown or unusable filter fails the request.
  route(`{ ${A}, filters: [{ type: ExtensionRef, extensionRef: { group: x.io, kind: Y, name: z } }] }`);
  asks("/", 500);
});

test("CORS", () => {
  const cors = (text: string) => `{ ${A}, filters: [{ type: CORS, cors: { ${text} } }] }`;
  const preflight = (origin: string, method = "PUT", headers = "x-a, x-b") => ({
    kind: "cors",
    method: "OPTIONS",
    headers: { Origin: origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers },
  });
  const own = (responseHeaders: object, absent: string[] = []) => ({
    statusCodes: [200, 204],
    namespace: "",
    responseHeaders,
    responseAbsentHeaders: absent,
    ignoreWhitespace: true,
  });
  const NONE = ["access-control-allow-origin", "access-control-allow-credentials", "access-control-allow-methods"];
  route(
    cors(
      `allowOrigins: [https://www.foo.com, "https://*.bar.com", "http://ports.com:8080"], allowMethods: [GET, PUT], allowHeaders: [x-a, x-b], exposeHeaders: [x-c, x-d], allowCredentials: true, maxAge: 600`,
    ),
  );
  const allowed = {
    "access-control-allow-methods": "GET,PUT",
    "access-control-allow-headers": "x-a,x-b",
    "access-control-expose-headers": "x-c,x-d",
    "access-control-allow-credentials": "true",
    "access-control-max-age": "600",
  };
  for (const origin of ["https://www.foo.com", "https://a.bar.com", "https://a.b.bar.com", "http://ports.com:8080"])
    asks("/", own({ ...allowed, "access-control-allow-origin": origin }), preflight(origin));
  for (const origin of [
    "https://foo.com",
    "http://www.foo.com",
    "https://www.foo.com:8443",
    "https://bar.com",
    "http://ports.com",
    "https://abar.com",
  ])
    asks("/", { statusCodes: [200, 204, 403], namespace: "", responseAbsentHeaders: NONE }, preflight(origin));
  asks(
    "/",
    to(
      "a",
      {},
      {
        responseHeaders: {
          "access-control-allow-origin": "https://a.bar.com",
          "access-control-allow-credentials": "true",
          "access-control-expose-headers": "x-c,x-d",
        },
        ignoreWhitespace: true,
      },
    ),
    {
      kind: "cors",
      headers: { Origin: "https://a.bar.com" },
    },
  );
  asks("/", to("a", {}, { responseAbsentHeaders: NONE }), { kind: "cors", headers: { Origin: "https://evil.com" } });

  route(cors(`allowOrigins: ["*"], allowMethods: ["*"], allowHeaders: ["*"]`));
  asks(
    "/",
    {
      ...own({ "access-control-max-age": "5" }, ["access-control-allow-credentials"]),
      responseHeaderOneOf: {
        "access-control-allow-origin": ["*", "https://any.com"],
        "access-control-allow-methods": ["*", "PUT"],
        "access-control-allow-headers": ["*", "x-a,x-b"],
      },
    },
    preflight("https://any.com"),
  );
  // Credentials and a star: what is asked for is said, never the star.
  route(
    cors(`allowOrigins: ["*"], allowMethods: ["*"], allowHeaders: ["*"], exposeHeaders: [x-c], allowCredentials: true`),
  );
  asks(
    "/",
    own({
      "access-control-allow-origin": "https://any.com",
      "access-control-allow-methods": "PUT",
      "access-control-allow-headers": "x-a,x-b",
      "access-control-allow-credentials": "true",
    }),
    preflight("https://any.com"),
  );
});

test("Attachment", () => {
  const at = (sectionName: string, more = "") =>
    `parentRefs: [{ name: public, namespace: infra, sectionName: ${sectionName}${more} }], `;
  // Listener.hostname and HTTPRouteSpec.hostnames: what both have.
  route(`{ ${A} }`, { spec: `${at("wild")}hostnames: ["*.wild.example", other.example], ` });
  route(`{ backendRefs: [${ref("b")}] }`, { spec: `${at("very")}hostnames: ["*.wild.example"], ` });
  const on = { port: 8081 };
  asks("/", to("a"), { ...on, host: "one.wild.example" });
  asks("/", to("a"), { ...on, host: "one.two.wild.example" });
  asks("/", to("b"), { ...on, host: "very.wild.example" });
  asks("/", 404, { ...on, host: "wild.example" });
  asks("/", 404, { ...on, host: "other.example" });
  // ParentReference.port.
  route(`{ ${A} }`, { spec: "parentRefs: [{ name: public, namespace: infra, port: 8080 }], " });
  asks("/", to("a"), { port: 8080 });
  asks("/", 404);
  route(`{ ${A} }`, { spec: "parentRefs: [{ name: public, namespace: infra, port: 80, sectionName: other }], " });
  asks("/", 404, { port: 8080 });
  asks("/", 404);
  // AllowedRoutes: namespaces by label, kinds.
  route(`{ backendRefs: [${ref("d")}] }`, { spec: at("team"), in: "shop" });
  asks("/", to("d", {}, { namespace: "shop" }), { port: 8082 });
  route(`{ backendRefs: [${ref("e")}] }`, { spec: at("team"), in: "guest" });
  asks("/", 404, { port: 8082 });
  route(`{ ${A} }`, { spec: at("grpc-only") });
  asks("/", 404, { port: 8083 });
  // A ListenerSet of an allowed namespace; one of another.
  for (const [where, name, port] of [
    ["shop", "allowed", 9001],
    ["guest", "refused", 9002],
  ] as const)
    routes.push(
      document(
        "ListenerSet",
        where,
        name,
        `spec: { parentRef: { name: public, namespace: infra }, listeners: [{ name: extra, port: ${port}, protocol: HTTP }] }`,
      ),
    );
  const set = (name: string, where: string) =>
    `parentRefs: [{ group: gateway.networking.k8s.io, kind: ListenerSet, name: ${name}, namespace: ${where} }], `;
  route(`{ backendRefs: [${ref("d")}] }`, { spec: set("allowed", "shop"), in: "shop" });
  asks("/", to("d", {}, { namespace: "shop" }), { port: 9001 });
  asks("/", 404);
  route(`{ ${A} }`, { spec: set("allowed", "shop") });
  asks("/", 404, { port: 9001 });
  route(`{ backendRefs: [${ref("e")}] }`, { spec: set("refused", "guest"), in: "guest" });
  asks("/", 404, { port: 80 });

  // BackendRef and ReferenceGrant: in the namespace that is referred to, group, kind and namespace as they are, `to` with or without a name.
  const grant = (name: string, from: string, granted: string, where = "shop") =>
    routes.push(document("ReferenceGrant", where, name, `spec: { from: [${from}], to: [${granted}] }`));
  const FROM = "{ group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: infra }";
  const asked = (extra: string) => {
    routes.push(service("shop", extra));
    route(
      `{ backendRefs: [{ name: ${extra}, namespace: shop, port: 8080 }] }, { matches: [{ path: { value: /own } }], ${A} }`,
    );
  };
  for (const [name, from, granted, where, status] of [
    ["granted", FROM, '{ group: "", kind: Service, name: granted }', "shop", 200],
    ["other-name", FROM, '{ group: "", kind: Service, name: granted }', "shop", 500],
    ["other-from", FROM.replace("infra", "guest"), '{ group: "", kind: Service, name: other-from }', "shop", 500],
    [
      "other-kind",
      FROM.replace("HTTPRoute", "GRPCRoute"),
      '{ group: "", kind: Service, name: other-kind }',
      "shop",
      500,
    ],
    [
      "other-group",
      FROM.replace("gateway.networking.k8s.io", '""'),
      '{ group: "", kind: Service, name: other-group }',
      "shop",
      500,
    ],
    ["to-kind", FROM, '{ group: "", kind: Secret, name: to-kind }', "shop", 500],
    ["elsewhere", FROM, '{ group: "", kind: Service, name: elsewhere }', "infra", 500],
  ] as const) {
    grant(`g-${name}`, from, granted, where);
    asked(name);
    asks("/", status === 200 ? to(name, {}, { namespace: "shop" }) : status);
    asks("/own", to("a"));
  }
  // HTTPRouteRule.backendRefs: nobody to send it to.
  route(
    "{ matches: [{ path: { value: /none } }] }, { matches: [{ path: { value: /empty } }], backendRefs: [] }, " +
      `{ matches: [{ path: { value: /zero } }], backendRefs: [${ref("a", ", weight: 0")}, ${ref("b", ", weight: 0")}] }, ` +
      "{ matches: [{ path: { value: /kind } }], backendRefs: [{ group: x.io, kind: Bucket, name: a }] }, " +
      "{ matches: [{ path: { value: /gone } }], backendRefs: [{ name: gone, port: 8080 }] }, " +
      "{ matches: [{ path: { value: /port } }], backendRefs: [{ name: a, port: 1 }] }, " +
      `{ matches: [{ path: { value: /never } }], backendRefs: [${ref("a", ", weight: 0")}, ${ref("b")}] }`,
  );
  for (const path of ["/none", "/empty", "/zero", "/kind", "/gone", "/port"]) asks(path, 500);
  for (let n = 0; n < 3; n++) asks("/never", to("b"));
  asks("/nothing", 404);
});

test("Time", () => {
  route(
    `{ matches: [{ path: { value: /request } }], ${A}, timeouts: { request: 300ms } },
     { matches: [{ path: { value: /attempt } }], ${A}, timeouts: { request: 10s, backendRequest: 300ms } },
     { matches: [{ path: { value: /off } }], ${A}, timeouts: { request: 0s, backendRequest: 0s } },
     { matches: [{ path: { value: /retry/codes } }], ${A}, retry: { codes: [500, 503], attempts: 2, backoff: 20ms } },
     { matches: [{ path: { value: /retry/any } }], ${A}, retry: { attempts: 2 } },
     { matches: [{ path: { value: /retry/once } }], ${A}, retry: { attempts: 1, codes: [502] } }`,
  );
  const timed = { kind: "timeout" };
  asks("/request?delay=1s", 504, timed);
  asks("/request?delay=10ms", to("a"), timed);
  asks("/attempt?delay=1s", 504, timed);
  asks("/off?delay=1s", to("a"), timed);
  const retry = { kind: "retry" };
  const tries = (rule: string, after: number, code: number | "" = "") =>
    `/retry/${rule}?uuid={{uuid}}&succeedAfter=${after}${code && `&responseCode=${code}`}`;
  asks(tries("codes", 2, 500), to("a"), retry);
  asks(tries("codes", 2, 503), to("a"), retry);
  asks(tries("codes", 3, 503), 503, retry);
  asks(tries("codes", 1, 501), 501, retry);
  asks(tries("codes", 2), to("a"), retry);
  asks(tries("any", 2), to("a"), retry);
  asks(tries("any", 3), { statusCodes: [500, 503] }, retry);
  asks(tries("any", 1, 500), 500, retry);
  asks(tries("once", 1, 502), to("a"), retry);
  asks(tries("once", 2, 502), 502, retry);
  asks(tries("codes", 1, 500), to("a", { method: "POST", path: tries("codes", 1, 500) }), {
    ...retry,
    method: "POST",
    body: "x",
  });
});

// What is about time has a gateway of its own, that nothing else is asked of meanwhile.
const gateways = [tests.filter(({ name }) => name !== "Time"), tests.filter(({ name }) => name === "Time")];

let results: readonly TestResult[] = [];
beforeAll(async () => {
  const folder = await mkdtemp(join(tmpdir(), "portcullis-specification-"));
  const [casesIn, manifests] = [join(folder, "cases"), join(folder, "manifests")];
  try {
    await mkdir(join(manifests, "base"), { recursive: true });
    await mkdir(casesIn);
    await writeFile(join(manifests, "base", "manifests.yaml"), INFRA.join("---\n"));
    for (const [i, sections] of gateways.entries()) {
      const names = sections.map(({ name }) => name);
      const about = {
        name: names.join(),
        description: "",
        manifests: [`${i}.yaml`],
        features: names,
        conformance: "Core",
      };
      const asked = sections.flatMap(({ cases }) => cases);
      await writeFile(join(manifests, `${i}.yaml`), sections.flatMap(({ routes }) => routes).join("---\n"));
      await writeFile(join(casesIn, `${i}.json`), JSON.stringify({ ...about, cases: asked }));
    }
    results = await runSuite({ cases: casesIn, manifests });
  } finally {
    await rm(folder, { recursive: true });
  }
}, 300_000);

for (const { name, cases } of tests)
  describe(name, () => {
    for (const tested of cases)
      it(tested.name, () => {
        const found = results.flatMap(({ cases }) => cases).find((result) => result.case.name === tested.name);
        expect(found?.fault).toBeUndefined();
        expect(found?.case.name).toBe(tested.name);
      });
  });
