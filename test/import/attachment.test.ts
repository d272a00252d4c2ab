/** Which routes reach which listeners, by the Gateway API's rules. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { intersect } from "../../src/import/attachment.ts";
import { code, GATEWAY, ignored, imported, NAMESPACES, problemsOf, refusals } from "./convert.ts";

/** An HTTPRoute `namespace/name` whose only rule answers 500, with more of its spec. */
const route = (name: string, spec: string, kind = "HTTPRoute", metadata = ""): string => `
---
apiVersion: gateway.networking.k8s.io/v1
kind: ${kind}
metadata: { namespace: ${name.split("/")[0]}, name: ${name.split("/")[1]}${metadata} }
spec: { ${spec}, rules: [{ backendRefs: [] }] }`;

const gateway = (listeners: string, more = ""): string => `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: public, namespace: infra }
spec: { gatewayClassName: any, listeners: [${listeners}]${more} }`;

const listenerSet = (name: string, listeners: string, metadata = "", kind = "ListenerSet"): string => `
---
apiVersion: ${kind === "ListenerSet" ? "gateway.networking.k8s.io/v1" : "gateway.networking.x-k8s.io/v1alpha1"}
kind: ${kind}
metadata: { namespace: ${name.split("/")[0]}, name: ${name.split("/")[1]}${metadata} }
spec: { parentRef: { name: public, namespace: infra }, listeners: [${listeners}] }`;

const ALL = "allowedRoutes: { namespaces: { from: All } }";
const TO_PUBLIC = "parentRefs: [{ name: public, namespace: infra }]";

/** By API: the listeners that it names (none: all of them) and its hosts. */
const attached = (manifests: string): Record<string, string> => {
  const { files } = imported(manifests);
  const apis = [...files].filter(([file]) => !/^(?:index|clusters|listeners|REPORT)\./.test(file));
  return Object.fromEntries(
    apis.map(([file, text]) => [file.replace(".ts", ""), /api\("[^"]*", (\{.*?\}), \[/.exec(code(text))?.[1] ?? ""]),
  );
};
const listeners = (manifests: string): string => code(imported(manifests).files.get("listeners.ts"));

describe("the Gateway", () => {
  const second = GATEWAY.replace("name: public", "name: internal");

  it("is the only one, or the one that is asked for", () => {
    expect(imported(GATEWAY).report.gateway).toBe("infra/public");
    expect(imported(`${GATEWAY}---${second}`, { gateway: "infra/internal" }).report.gateway).toBe("infra/internal");
  });

  it("must be named among several, and exist", () => {
    expect(problemsOf(`${GATEWAY}---${second}`)).toEqual(["manifests: have several Gateways"]);
    expect(problemsOf(GATEWAY, { gateway: "infra/other" })).toEqual(["manifests: have no Gateway infra/other"]);
    expect(problemsOf(NAMESPACES)).toEqual(["manifests: have no Gateway"]);
  });

  it("is one of the group's own", () => {
    expect(problemsOf(GATEWAY.replace("gateway.networking.k8s.io/v1", "networking.istio.io/v1"))).toEqual([
      "manifests: have no Gateway",
    ]);
  });
});

describe("a listener", () => {
  it("that says nothing is not written", () => {
    const { files } = imported(GATEWAY + route("shop/a", TO_PUBLIC));
    expect([...files.keys()]).toEqual(["a.ts", "index.ts", "REPORT.md"]);
    expect(code(files.get("index.ts"))).toContain('gateway({ semantics: "gateway-api" }, [a])');
  });

  it.each([
    ["another port", `{ name: a, port: 8080, protocol: HTTP }`, '{ port: 8080, protocol: "http" }'],
    ["https", `{ name: a, port: 443, protocol: HTTPS }`, '{ port: 443, protocol: "https" }'],
    [
      "a host",
      `{ name: a, port: 80, protocol: HTTP, hostname: "*.a.com" }`,
      '{ port: 80, protocol: "http", host: "*.a.com" }',
    ],
    [
      "an empty host, which is none",
      `{ name: a, port: 81, protocol: HTTP, hostname: "" }`,
      '{ port: 81, protocol: "http" }',
    ],
  ])("with %s is", (_, given, written) => {
    expect(listeners(gateway(given))).toContain(`export const a = listener("a", ${written});`);
  });

  it.each([
    ["{ name: a, port: 9000, protocol: TCP }", "speaks TCP: a Worker gets HTTP requests alone"],
    ["{ name: a, port: 53, protocol: UDP }", "speaks UDP: a Worker gets HTTP requests alone"],
    [
      "{ name: a, port: 443, protocol: TLS, tls: { mode: Passthrough } }",
      "speaks TLS: a Worker gets HTTP requests alone",
    ],
    [
      "{ name: a, port: 443, protocol: HTTPS, tls: { mode: Passthrough } }",
      "has TLS mode Passthrough: a Worker gets requests, not TLS",
    ],
    ["{ name: a, port: 80, protocol: HTTP, hostname: A_B }", "has no usable hostname"],
  ])("%s is refused", (given, reason) => {
    const result = imported(gateway(given) + route("infra/a", TO_PUBLIC));
    expect(refusals(result)).toContain(`5 spec.listeners[0]: ${reason}`);
    expect(result.totals).toMatchObject({ listeners: 0, apis: 0 });
  });

  it("that asks clients for certificates is refused, for they would not be asked here", () => {
    const tls = (mode: string) =>
      gateway(
        "{ name: a, port: 443, protocol: HTTPS }, { name: b, port: 444, protocol: HTTPS }",
        `, tls: { frontend: { default: { validation: { caCertificateRefs: []${mode} } }, perPort: [{ port: 444, tls: {} }] } }`,
      );
    expect(imported(tls("")).totals.listeners).toBe(1);
    expect(imported(tls(", mode: AllowInsecureFallback")).totals.listeners).toBe(2);
  });

  it("of two of a Gateway that cannot be told apart, neither is served", () => {
    const result = imported(
      gateway(
        "{ name: a, port: 80, protocol: HTTP }, { name: b, port: 80, protocol: HTTP }, { name: c, port: 81, protocol: HTTP }",
      ),
    );
    expect(refusals(result)).toEqual([
      "5 spec.listeners[0]: conflicts with listener b of Gateway infra/public: both are for any host on port 80",
      "5 spec.listeners[1]: conflicts with listener a of Gateway infra/public: both are for any host on port 80",
    ]);
    expect(code(result.files.get("listeners.ts"))).toContain("export const c");
  });

  it("of two with one name the first is served", () => {
    const result = imported(gateway("{ name: a, port: 81, protocol: HTTP }, { name: a, port: 82, protocol: HTTP }"));
    expect(refusals(result)).toEqual(["5 spec.listeners[1]: has the name of another listener, a"]);
  });

  it("cannot share its port with one of another protocol", () => {
    const both = "{ name: a, port: 80, protocol: HTTP }, { name: b, port: 80, protocol: HTTPS, hostname: b.com }";
    expect(imported(gateway(both)).totals.listeners).toBe(0);
  });
});

describe("a ListenerSet", () => {
  const allowing = (from: string) =>
    gateway(
      "{ name: a, port: 80, protocol: HTTP, hostname: a.com }",
      `, allowedListeners: { namespaces: { ${from} } }`,
    );
  const set = listenerSet("shop/set", "{ name: b, port: 80, protocol: HTTP, hostname: b.com }");

  it.each([
    ["nothing, which is None", gateway("{ name: a, port: 80, protocol: HTTP, hostname: a.com }"), 1],
    ["None", allowing("from: None"), 1],
    ["Same", allowing("from: Same"), 1],
    ["All", allowing("from: All"), 2],
    ["a selector of its namespace", allowing("from: Selector, selector: { matchLabels: { team: shop } }"), 2],
    ["a selector of another", allowing("from: Selector, selector: { matchLabels: { team: platform } }"), 1],
  ])("is attached if allowedListeners is %s", (_, manifests, count) => {
    expect(imported(`${NAMESPACES}---${manifests}${set}`).totals.listeners).toBe(count);
  });

  it("of the experimental kind is one too", () => {
    const experimental = listenerSet("shop/set", "{ name: b, port: 81, protocol: HTTP }", "", "XListenerSet");
    expect(imported(allowing("from: All") + experimental).totals.listeners).toBe(2);
  });

  it("takes routes of its own namespace, not of the Gateway's, where it says nothing", () => {
    const ref = "parentRefs: [{ kind: ListenerSet, name: set, namespace: shop }]";
    expect(attached(allowing("from: All") + set + route("shop/own", ref) + route("infra/other", ref))).toEqual({
      own: "{ listeners: [b] }",
    });
  });

  it("has listeners of its own, which a reference to the Gateway does not mean", () => {
    const open = `${allowing("from: All").replace("hostname: a.com", `hostname: a.com, ${ALL}`)}${set}`;
    const manifests =
      open +
      route("shop/to-gateway", TO_PUBLIC) +
      route("shop/to-section", "parentRefs: [{ name: public, namespace: infra, sectionName: b }]") +
      route("shop/to-set", "parentRefs: [{ kind: ListenerSet, name: set }]") +
      route("shop/to-both", "parentRefs: [{ name: public, namespace: infra }, { kind: ListenerSet, name: set }]");
    expect(attached(manifests)).toEqual({
      "to-gateway": "{ listeners: [a] }",
      "to-set": "{ listeners: [b] }",
      "to-both": "{}",
    });
    expect(refusals(imported(manifests))).toEqual([
      "20 spec.parentRefs[0]: Gateway infra/public has no such listener that can be served",
    ]);
  });

  it("gives way to the Gateway, the later one to the earlier one, then by name", () => {
    const at = (name: string, time: string, hostname: string) =>
      listenerSet(
        name,
        `{ name: x, port: 80, protocol: HTTP, hostname: ${hostname} }`,
        time && `, creationTimestamp: "${time}"`,
      );
    const result = imported(
      allowing("from: All") +
        at("shop/young", "2026-02-01T00:00:00Z", "b.com") +
        at("shop/old", "2026-01-01T00:00:00Z", "b.com") +
        at("shop/z", "", "c.com") +
        at("shop/y", "", "c.com") +
        at("shop/like-the-gateway", "2020-01-01T00:00:00Z", "a.com"),
    );
    const conflicts = refusals(result).map((line) => line.replace(/^\d+ spec\.listeners\[0\]: conflicts with /, ""));
    expect(conflicts).toEqual([
      "listener x of ListenerSet shop/old: both are for b.com on port 80",
      "listener x of ListenerSet shop/y: both are for c.com on port 80",
      "listener a of Gateway infra/public: both are for a.com on port 80",
    ]);
    expect(code(result.files.get("listeners.ts"))).toContain('listener("old.x"');
    expect(code(result.files.get("listeners.ts"))).toContain('listener("y.x"');
  });

  it("of another Gateway is none of this one's", () => {
    const other = set.replace("name: public, namespace: infra", "name: public, namespace: elsewhere");
    const result = imported(
      allowing("from: All") + other + route("shop/a", "parentRefs: [{ kind: ListenerSet, name: set }]"),
    );
    expect(ignored(result)).toContain("7 : is for Gateway elsewhere/public");
    expect(ignored(result)).toContain("12 : is for none of this Gateway's listeners");
    expect(refusals(result)).toEqual([]);
  });
});

describe("a route", () => {
  const open = gateway(
    `{ name: http, port: 80, protocol: HTTP, ${ALL} }, { name: https, port: 443, protocol: HTTPS, ${ALL} }, { name: alt, port: 8443, protocol: HTTPS, ${ALL} }`,
  );

  it.each([
    ["no section and port: all", "", "{}"],
    ["an empty section: all", ", sectionName: ''", "{}"],
    ["a section", ", sectionName: http", "{ listeners: [http] }"],
    ["a port", ", port: 443", "{ listeners: [https] }"],
    ["both", ", sectionName: alt, port: 8443", "{ listeners: [alt] }"],
    ["both, of different listeners", ", sectionName: alt, port: 443", undefined],
    ["a section that is not there", ", sectionName: tcp", undefined],
  ])("with %s", (_, ref, options) => {
    const manifests = open + route("shop/a", `parentRefs: [{ name: public, namespace: infra${ref} }]`);
    expect(attached(manifests).a).toBe(options);
  });

  it("is in its own namespace's Gateway where it names none", () => {
    expect(attached(open + route("infra/a", "parentRefs: [{ name: public }]"))).toEqual({ a: "{}" });
    expect(attached(open + route("shop/a", "parentRefs: [{ name: public }]"))).toEqual({});
  });

  it("for a Service, as meshes have it, is not for the Gateway", () => {
    expect(attached(open + route("infra/a", "parentRefs: [{ name: public, kind: Service, group: '' }]"))).toEqual({});
  });

  it.each([
    ["Same (default)", "", "infra/a", true],
    ["Same (default)", "", "shop/a", false],
    ["Same", ", allowedRoutes: { namespaces: { from: Same } }", "shop/a", false],
    ["All", `, ${ALL}`, "shop/a", true],
    ["None", ", allowedRoutes: { namespaces: { from: None } }", "infra/a", false],
    [
      "a selector without terms, which takes all",
      ", allowedRoutes: { namespaces: { from: Selector, selector: {} } }",
      "shop/a",
      true,
    ],
    ["Selector without one", ", allowedRoutes: { namespaces: { from: Selector } }", "shop/a", false],
    [
      "matchLabels",
      ", allowedRoutes: { namespaces: { from: Selector, selector: { matchLabels: { team: shop } } } }",
      "shop/a",
      true,
    ],
    [
      "matchLabels",
      ", allowedRoutes: { namespaces: { from: Selector, selector: { matchLabels: { team: shop } } } }",
      "infra/a",
      false,
    ],
    [
      "the label that Kubernetes puts on all",
      ", allowedRoutes: { namespaces: { from: Selector, selector: { matchLabels: { kubernetes.io/metadata.name: unknown } } } }",
      "unknown/a",
      true,
    ],
  ])("where namespaces are %s %s, from %s: %s", (_, allowed, name, isAttached) => {
    const manifests = `${NAMESPACES}---${gateway(`{ name: http, port: 80, protocol: HTTP${allowed} }`)}${route(name, TO_PUBLIC)}`;
    expect(Object.keys(attached(manifests))).toEqual(isAttached ? ["a"] : []);
  });

  it.each([
    ["In, values: [shop, other]", ["shop"]],
    ["NotIn, values: [shop]", ["infra", "unknown"]],
    ["Exists", ["infra", "shop"]],
    ["DoesNotExist", ["unknown"]],
  ])("where matchExpressions are { key: team, operator: %s }", (expression, namespaces) => {
    const selector = `{ matchExpressions: [{ key: team, operator: ${expression} }] }`;
    const listener = `{ name: http, port: 80, protocol: HTTP, allowedRoutes: { namespaces: { from: Selector, selector: ${selector} } } }`;
    const manifests = `${NAMESPACES}---${gateway(listener)}${["infra", "shop", "unknown"].map((name) => route(`${name}/in-${name}`, TO_PUBLIC)).join("")}`;
    expect(
      Object.keys(attached(manifests))
        .map((name) => name.slice(3))
        .sort(),
    ).toEqual(namespaces);
  });

  it("is of an allowed kind", () => {
    const kinds = (list: string) =>
      gateway(`{ name: http, port: 80, protocol: HTTP, allowedRoutes: { kinds: [${list}] } }`);
    const routes =
      route("infra/http", TO_PUBLIC) + route("infra/grpc", `${TO_PUBLIC}, hostnames: [grpc.com]`, "GRPCRoute");
    expect(Object.keys(attached(kinds("{ kind: HTTPRoute }") + routes))).toEqual(["http"]);
    expect(Object.keys(attached(kinds("{ kind: GRPCRoute }") + routes))).toEqual(["grpc"]);
    expect(Object.keys(attached(kinds("{ kind: GRPCRoute, group: other.io }, { kind: TCPRoute }") + routes))).toEqual(
      [],
    );
    expect(refusals(imported(kinds("{ kind: TCPRoute }") + routes))).toContain(
      "5 spec.listeners[0].allowedRoutes.kinds[0]: TCPRoute is no kind of route that a Worker can serve",
    );
  });

  it("has those hosts that a listener of its has", () => {
    const hosts = gateway(
      `{ name: one, port: 80, protocol: HTTP, hostname: very.specific.com, ${ALL} }, { name: any, port: 80, protocol: HTTP, hostname: "*.wild.io", ${ALL} }`,
    );
    const manifests =
      hosts +
      route("shop/specific", `${TO_PUBLIC}, hostnames: ["*.specific.com", non.matching.com, "*.com"]`) +
      route("shop/wild", `${TO_PUBLIC}, hostnames: [foo.wild.io, foo.bar.wild.io, wild.io]`) +
      route("shop/nowhere", `${TO_PUBLIC}, hostnames: [specific.com, "*.very.specific.com"]`) +
      route("shop/all", TO_PUBLIC);
    expect(attached(manifests)).toEqual({
      specific: '{ hosts: ["*.specific.com", "*.com"], listeners: [one] }',
      wild: '{ hosts: ["foo.wild.io", "foo.bar.wild.io"], listeners: [any] }',
      all: "{}",
    });
    const result = imported(manifests);
    expect(refusals(result)).toEqual([
      "20 spec.parentRefs[0]: listener one is for very.specific.com, and the route is not; listener any is for *.wild.io, and the route is not",
    ]);
    expect(ignored(result)).toContain("10 spec.hostnames[1]: none of the route's listeners is for it");
    expect(ignored(result)).toContain("17 : is attached to no listener");
  });

  it("whose hosts are all wrong is not for any host instead", () => {
    expect(attached(open + route("shop/a", `${TO_PUBLIC}, hostnames: [UPPER.com]`))).toEqual({});
  });

  it("asks for a default Gateway, where that wants to be one", () => {
    const manifests =
      open.replace("gatewayClassName", "defaultScope: All, gatewayClassName") +
      route("shop/a", "useDefaultGateways: All");
    expect(attached(manifests)).toEqual({ a: "{}" });
    expect(attached(open + route("shop/a", "useDefaultGateways: All"))).toEqual({});
    expect(attached(manifests.replace("useDefaultGateways: All", "useDefaultGateways: None"))).toEqual({});
  });

  it("goes by age, then by namespace and name, whatever the order of the manifests", () => {
    const routes = [
      route("b/young", TO_PUBLIC, "HTTPRoute", ', creationTimestamp: "2026-02-01T00:00:00Z"'),
      route("z/old", TO_PUBLIC, "HTTPRoute", ', creationTimestamp: "2026-01-01T09:00:00+09:00"'),
      route("b/new-2", TO_PUBLIC),
      route("b/new-1", TO_PUBLIC),
      route("a/same", TO_PUBLIC, "HTTPRoute", ', creationTimestamp: "2026-02-01T00:00:00Z"'),
    ];
    const order = (list: readonly string[]) =>
      /\}, (\[.*\])\)/.exec(code(imported(GATEWAY + list.join("")).files.get("index.ts")))?.[1];
    expect(order(routes)).toBe("[old, same, young, new1, new2]");
    expect(order(routes.toReversed())).toBe("[old, same, young, new1, new2]");
  });
});

describe("an HTTPRoute and a GRPCRoute", () => {
  const at = (time: string) => `, creationTimestamp: "${time}"`;
  const hosts = (list: string) => `${TO_PUBLIC}, hostnames: [${list}]`;

  it("with a common host and listener: the older one stays", () => {
    const manifests =
      GATEWAY +
      route("shop/http", hosts("'*.a.com'"), "HTTPRoute", at("2026-01-02T00:00:00Z")) +
      route("shop/grpc", hosts("b.a.com"), "GRPCRoute", at("2026-01-01T00:00:00Z"));
    expect(Object.keys(attached(manifests))).toEqual(["grpc"]);
    expect(refusals(imported(manifests))).toEqual([
      "14 spec.parentRefs: a host of a listener is for HTTPRoutes or for GRPCRoutes, and GRPCRoute shop/grpc goes first",
    ]);
  });

  it("without a common host both do", () => {
    const manifests =
      GATEWAY + route("shop/http", hosts("a.com")) + route("shop/grpc", hosts("'*.a.com'"), "GRPCRoute");
    expect(Object.keys(attached(manifests)).sort()).toEqual(["grpc", "http"]);
  });

  it("of one name are told apart", () => {
    const manifests = GATEWAY + route("shop/a", hosts("a.com")) + route("shop/a", hosts("b.com"), "GRPCRoute");
    expect(Object.keys(attached(manifests)).sort()).toEqual(["shop.a.grpcroute", "shop.a.httproute"]);
  });
});

it("no route at all: everything answers 404, and that is said", () => {
  const result = imported(GATEWAY);
  expect(code(result.files.get("index.ts"))).toContain('gateway({ semantics: "gateway-api" }, [])');
  expect(result.report.notes).toEqual(["No route is attached to the Gateway: every request answers 404."]);
});

it("two hosts intersect when there is a name that is meant by both", () => {
  const label = fc.constantFrom("a", "b");
  const name = fc.array(label, { minLength: 1, maxLength: 3 }).map((labels) => labels.join("."));
  const pattern = fc.oneof(
    name,
    name.map((suffix) => `*.${suffix}`),
  );
  // Deep enough for any two of the patterns.
  const deep = ["", "a", "b"].flatMap((x) => ["", "a", "b"].flatMap((y) => ["", "a", "b"].map((z) => [x, y, z])));
  const names = deep
    .flatMap((head) => deep.map((tail) => [...head, ...tail].filter(Boolean).join(".")))
    .filter(Boolean);
  const means = (one: string, host: string) =>
    one.startsWith("*.") ? host.endsWith(one.slice(1)) && host !== one.slice(2) : host === one;
  fc.assert(
    fc.property(pattern, pattern, (a, b) => {
      expect(intersect(a, b)).toBe(names.some((host) => means(a, host) && means(b, host)));
    }),
  );
});
