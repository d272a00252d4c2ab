/** endpoints.yaml, and the clusters that come of it. */
import { describe, expect, it } from "vitest";
import { code, GATEWAY, imported, problemsOf, service, withRules } from "./convert.ts";

/** A route for each of these Services, `namespace/name:port`. */
const routesTo = (...services: string[]): string => {
  const names = [...new Set(services.map((name) => name.split(":")[0] as string))];
  const route = (name: string, at: number) => {
    const [, namespace, backend, port] = /^(.*)\/(.*):(.*)$/.exec(name) ?? [];
    return `
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: r${at}, namespace: ${namespace} }
spec:
  parentRefs: [{ name: public, namespace: infra }]
  rules: [{ matches: [{ path: { value: /${at} } }], backendRefs: [{ name: ${backend}, port: ${port} }] }]`;
  };
  const all = names.map((name) => {
    const ports = services.filter((one) => one.startsWith(`${name}:`)).map((one) => `{ port: ${one.split(":")[1]} }`);
    return service(name).replace("{ port: 80 }", ports.join(", "));
  });
  return `${GATEWAY}${services.map(route).join("")}\n---\n${all.join("---\n")}`;
};
const clusters = (endpoints: string | undefined, ...services: string[]): string =>
  code(imported(routesTo(...services), endpoints === undefined ? {} : { endpoints }).files.get("clusters.ts")).replace(
    /^import .*? from "portcullis"; /,
    "",
  );

describe("the usual case, one cluster behind one ingress", () => {
  it("by host", () => {
    const endpoints = 'default: { url: https://ingress.eu.example.com, host: "{service}.{namespace}.eu.internal" }';
    expect(clusters(endpoints, "shop/a:80", "shop/b:8080")).toBe(
      `export const ingressEuExampleCom = cluster("ingress-eu-example-com", { ingress: env("INGRESS_EU_EXAMPLE_COM", "https://ingress.eu.example.com"), services: { host: "{service}.shop.eu.internal" } }); ` +
        'export const a = ingressEuExampleCom.service("a"); export const b = ingressEuExampleCom.service("b");',
    );
  });

  it("by path, and with a name of the operator's", () => {
    const endpoints = 'default: { cluster: eu, url: https://eu.example.com, path: "/{namespace}/{service}" }';
    expect(clusters(endpoints, "shop/a:80", "crm/a:80", "crm/b:80")).toBe(
      'export const eu = cluster("eu", { ingress: env("EU_INGRESS", "https://eu.example.com") }); ' +
        'export const crmA = eu.service("crm-a", { path: "/crm/a" }); ' +
        'export const b = eu.service("b", { path: "/crm/b" }); ' +
        'export const shopA = eu.service("shop-a", { path: "/shop/a" });',
    );
  });

  it("without any endpoints: by path, at an address that is to be given", () => {
    expect(clusters(undefined, "shop/a:80")).toBe(
      'export const kubernetes = cluster("kubernetes", { ingress: env("CLUSTER_INGRESS"), services: { path: "/shop/{service}" } }); ' +
        'export const a = kubernetes.service("a");',
    );
    expect(imported(routesTo("shop/a:80")).report.notes[0]).toMatch(/^CLUSTER_INGRESS is to hold the URL/);
  });
});

describe("bindings", () => {
  it("one for each Service, by names that are no identifiers", () => {
    expect(clusters('default: { binding: "{namespace}/{service}:{port}" }', "shop/a:80", "shop/a:81")).toBe(
      'export const a = cluster("a", { ingress: binding("shop/a:80") }); ' +
        'export const a81 = cluster("a-81", { ingress: binding("shop/a:81") });',
    );
  });

  it("one for all: the ingress tells them apart by the Host that the client sent", () => {
    expect(clusters("default: { binding: EU_VPC }", "shop/a:80", "shop/b:80")).toBe(
      'export const euVpc = cluster("eu-vpc", { ingress: binding("EU_VPC") });',
    );
  });

  it("several, of which each is one cluster", () => {
    const endpoints = `
default: { binding: EU, host: "{service}.{namespace}.svc" }
crm/b: { binding: US, path: /b }
"crm/b:81": { binding: EU, host: b-admin.crm.svc }`;
    expect(clusters(endpoints, "crm/a:80", "crm/b:80", "crm/b:81")).toBe(
      'export const eu = cluster("eu", { ingress: binding("EU") }); ' +
        'export const a = eu.service("a", { host: "a.crm.svc" }); ' +
        'export const b = eu.service("b", { host: "b-admin.crm.svc" }); ' +
        'export const us = cluster("us", { ingress: binding("US") }); ' +
        'export const bService = us.service("b", { path: "/b" });',
    );
  });
});

it("a URL for each Service is a cluster for each", () => {
  expect(clusters("default: { url: 'https://{service}.{namespace}.example.com:{port}' }", "shop/a:8443")).toBe(
    'export const a = cluster("a", { ingress: env("A_INGRESS", "https://a.shop.example.com:8443") });',
  );
});

it("ports that are reached alike are one backend, others are told apart", () => {
  const endpoints = (host: string) => `default: { binding: EU, host: "${host}" }`;
  expect(clusters(endpoints("{service}.svc"), "shop/a:80", "shop/a:81")).toContain(
    'services: { host: "{service}.svc" } }); export const a = eu.service("a");',
  );
  expect(clusters(endpoints("p{port}.{service}.svc"), "shop/a:80", "shop/a:81")).toContain(
    'export const a80 = eu.service("a-80", { host: "p80.a.svc" }); export const a81 = eu.service("a-81", { host: "p81.a.svc" });',
  );
});

describe("mistakes", () => {
  it("Services that nobody mapped are told all at once, with the line to add", () => {
    expect(
      problemsOf(routesTo("shop/a:80", "shop/b:80", "crm/c:81"), { endpoints: "shop/a: { binding: EU }" }),
    ).toEqual([
      "endpoints.yaml: do not say how to reach crm/c:81",
      "endpoints.yaml: do not say how to reach shop/b:80",
    ]);
  });

  it("only of Services that are used", () => {
    const refused = withRules("- backendRefs: [{ name: none, port: 80 }]");
    expect(problemsOf(refused, { endpoints: "shop/a: { binding: EU }" })).toEqual([]);
  });

  it.each([
    ["shop: { binding: A }", "`shop` is neither a service nor `default`"],
    ["default: { bindnig: A, binding: B }", "`default.bindnig` is unknown here"],
    ["default: { host: a.com }", "`default` has neither url nor binding"],
    ["default: { url: https://a.com, binding: A }", "`default` has both url and binding"],
    ["default: { binding: 5 }", '`default.binding` must be a text: put it in quotes, "5"'],
    ["default: 5", "`default` must be a map"],
    ["default: { binding: A, host: '{pod}.a' }", "`default.host` has {pod}"],
    ["default: { url: 'ftp://a' }", '`default` gives "ftp://a", which is no ingress URL'],
    ["default: { url: 'http://a.com' }", '`default` gives "http://a.com", which would carry requests over plain http'],
    ["default: { url: 'https://u:p@a.com' }", '`default` gives "https://…@a.com", which is no ingress URL'],
    ["default: { binding: 'a b' }", '`default` gives "a b", which is no name of a binding'],
    ["default: { binding: A, host: 'UPPER' }", '`default` gives "UPPER", which is no host'],
    ["default: { binding: A, path: a }", '`default` gives "a", which is no path'],
    ["default: { binding: A, cluster: 1a }", "`default.cluster` is no usable name"],
    ["[]", "must be a map"],
  ])("%s", (endpoints, message) => {
    expect(problemsOf(routesTo("shop/a:80"), { endpoints })[0]).toBe(`endpoints.yaml:1  endpoints: ${message}`);
  });

  it("of one line are told once, however many Services go by it", () => {
    const endpoints = 'default: { binding: A, host: "{service}_x", path: a }\nshop/c: { url: "http://127.0.0.1:80" }';
    expect(problemsOf(routesTo("shop/a:80", "shop/b:80", "shop/c:80"), { endpoints })).toEqual([
      'endpoints.yaml:1  endpoints: `default` gives "a_x", which is no host',
      'endpoints.yaml:1  endpoints: `default` gives "a", which is no path',
    ]);
  });

  it("of YAML have their line", () => {
    expect(problemsOf(routesTo("shop/a:80"), { endpoints: "default:\n  url: 'https://a.com\n" })[0]).toMatch(
      /^endpoints\.yaml:\d {2}endpoints: is no YAML: /,
    );
  });
});
