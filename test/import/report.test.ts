/** The report: nothing of a manifest is passed over in silence. */
import { readFile } from "node:fs/promises";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseAllDocuments, stringify } from "yaml";
import { count, markdown, summary } from "../../src/import/report.ts";
import { GATEWAY, ignored, imported, NAMESPACES, refusals, withRules } from "./convert.ts";

type Json = null | string | number | boolean | Json[] | { [name: string]: Json };

const shop = async (): Promise<Json[]> => {
  const texts = await Promise.all(
    ["gateway.yaml", "routes.yaml", "services.json"].map((file) =>
      readFile(`test/import/fixtures/shop/${file}`, "utf8"),
    ),
  );
  return texts.flatMap((text) => parseAllDocuments(text)).map((document) => document.toJS() as Json);
};
const ENDPOINTS = "default: { url: https://ingress.example.com, host: '{service}.{namespace}.example.com' }";
const importOf = (documents: readonly Json[]) =>
  imported(documents.map((document) => stringify(document)).join("---\n"), { endpoints: ENDPOINTS });

/** Every map in `value`, with the way to it. */
function* maps(value: Json, path: readonly (string | number)[] = []): Generator<(string | number)[]> {
  if (typeof value !== "object" || value === null) return;
  if (!Array.isArray(value)) yield [...path];
  for (const [name, member] of Object.entries(value))
    yield* maps(member, [...path, Array.isArray(value) ? Number(name) : name]);
}

/** As the report writes it, from the resource's root. */
const fieldAt = (place: readonly (string | number)[]): string =>
  place.reduce<string>((path, step) => {
    if (typeof step === "number") return `${path}[${step}]`;
    return path === "" ? step : /^[\w-]+$/.test(step) ? `${path}.${step}` : `${path}[${JSON.stringify(step)}]`;
  }, "");

it("tells of every field that nobody knows, wherever it stands", async () => {
  const documents = await shop();
  const places = documents.flatMap((document, at) => [...maps(document, [at])]);
  const outcomes = new Map<string, number>();
  for (const place of places) {
    const changed = structuredClone(documents);
    const owner = place.reduce<Json>((value, step) => (value as Record<string | number, Json>)[step] as Json, changed);
    Object.assign(owner as object, { tpyo: "x" });
    if ((owner as Record<string, Json>).items) continue;
    const { report } = importOf(changed);
    const field = fieldAt([...place.slice(place[1] === "items" ? 3 : 1), "tpyo"]);
    const told = report.entries.find((entry) => entry.field === field);
    // Else the whole that it is part of is not carried, and is told of.
    const whole = report.entries.find(
      (entry) => ["refused", "ignored"].includes(entry.verdict) && field.startsWith(entry.field),
    );
    const verdict = told?.verdict ?? (whole && "of a whole") ?? "untold";
    outcomes.set(verdict, (outcomes.get(verdict) ?? 0) + 1);
    // Labels may have any name; the rest of Services and Namespaces is the cluster's.
    if (verdict === "carried") expect(field).toMatch(/abels\.tpyo$/);
    else if (verdict === "ignored") expect(told?.resource).toMatch(/^(?:Service|Namespace) /);
    else expect(["refused", "of a whole"], `${told?.resource} ${field}`).toContain(verdict);
  }
  expect(outcomes.get("refused")).toBeGreaterThan(80);
});

it("has one verdict for every value, in the order of the manifests", async () => {
  const { report } = importOf(await shop());
  const seen = new Set(report.entries.map(({ resource, field }) => `${resource} ${field}`));
  expect(seen.size).toBe(report.entries.length);
  const lines = report.entries.map(({ line }) => line);
  expect(lines).toEqual(lines.toSorted((a, b) => a - b));
});

describe("kinds", () => {
  const other = (kind: string, apiVersion: string, spec = "{}") =>
    imported(`${GATEWAY}---\napiVersion: ${apiVersion}\nkind: ${kind}\nmetadata: { name: x }\nspec: ${spec}`);

  it("that say nothing to a gateway are ignored", () => {
    const result = other("Deployment", "apps/v1");
    expect(ignored(result)).toContain("10 : a kind that is not read");
    expect(refusals(result)).toEqual([]);
  });

  it.each([
    ["TCPRoute", "gateway.networking.k8s.io/v1alpha2", "{}"],
    ["SecurityPolicy", "gateway.envoyproxy.io/v1alpha1", "{ targetRefs: [{ kind: Gateway, name: public }] }"],
    ["BackendTLSPolicy", "gateway.networking.k8s.io/v1", "{ targetRefs: [] }"],
    ["RateLimitPolicy", "kuadrant.io/v1", "{ targetRef: {} }"],
  ])("that would have an effect are refused: %s", (kind, apiVersion, spec) => {
    expect(refusals(other(kind, apiVersion, spec))).toHaveLength(1);
  });
});

describe("what the cluster keeps for itself", () => {
  const kept = `metadata:
  name: public
  namespace: infra
  uid: 1-2-3
  resourceVersion: "7"
  generation: 3
  creationTimestamp: "2026-01-01T00:00:00Z"
  labels: { app: edge }
  managedFields: [{ manager: kubectl, fieldsV1: { "f:spec": {} } }]
  annotations: { kubectl.kubernetes.io/last-applied-configuration: "{}" }
status: { conditions: [{ type: Programmed }] }`;

  it("is no reason to refuse anything", () => {
    expect(refusals(imported(GATEWAY.replace("metadata: { name: public, namespace: infra }", kept)))).toEqual([]);
  });

  it("does not hide other annotations", () => {
    const manifests = GATEWAY.replace("namespace: infra }", "namespace: infra, annotations: { acme.io/timeout: 5s } }");
    expect(refusals(imported(manifests))).toEqual([
      '4 metadata.annotations["acme.io/timeout"]: an annotation tells another program what to do',
    ]);
  });
});

describe("of a Gateway", () => {
  const spec = (more: string) =>
    refusals(imported(GATEWAY.replace("gatewayClassName: any", `gatewayClassName: any\n  ${more}`)));

  it.each([
    ["addresses: [{ value: 192.0.2.1 }]", "7 spec.addresses"],
    ["infrastructure: { labels: { a: b } }", "7 spec.infrastructure"],
    ["tls: { backend: { clientCertificateRef: { name: x } } }", "7 spec.tls.backend"],
    ["tls: { frontend: { default: { validation: {} } } }", "7 spec.tls.frontend"],
  ])("%s is refused", (more, place) => {
    expect(spec(more).map((line) => line.split(":")[0])).toEqual([place]);
  });

  it("certificates are the platform's, and how TLS is spoken", () => {
    const listener = GATEWAY.replace(
      "port: 80, protocol: HTTP",
      "port: 443, protocol: HTTPS, tls: { mode: Terminate, certificateRefs: [{ kind: Secret, name: x }], options: { a.io/x: y } }",
    );
    const { report } = imported(listener);
    const of = (field: string) => report.entries.find((entry) => entry.field === field)?.verdict;
    expect(of("spec.listeners[0].tls.certificateRefs[0]")).toBe("differs");
    expect(of("spec.listeners[0].tls.options")).toBe("refused");
    expect(of("spec.listeners[0].tls.mode")).toBe("carried");
  });
});

it("notes what Services cannot be told apart, and what endpoints nobody needs", () => {
  const manifests = withRules("- backendRefs: [{ name: a, port: 80 }, { name: b, port: 80 }]");
  const endpoints = "default: { binding: EU }\nshop/b2: { binding: US }\n";
  expect(imported(manifests, { endpoints }).report.notes).toEqual([
    "Nothing tells these apart where they are reached, give them a host or a path: shop/a:80, shop/b:80.",
    "endpoints.yaml:2  shop/b2: no route goes there.",
  ]);
});

it("notes what ports of a Service cannot be told apart", () => {
  const ports = "spec: { ports: [{ port: 80 }, { port: 81 }] }";
  const rules = "- backendRefs: [{ name: a, port: 80 }, { name: a, port: 81 }]";
  const manifests = withRules(rules).replaceAll("spec: { ports: [{ port: 80 }] }", ports);
  const notes = (host: string) =>
    imported(manifests, { endpoints: `default: { binding: EU, host: "${host}" }` }).report.notes;
  expect(notes("{service}.example.com")).toEqual([
    "Nothing tells these apart where they are reached, give them a host or a path: shop/a:80, shop/a:81.",
  ]);
  expect(notes("{service}-{port}.example.com")).toEqual([]);
});

describe("texts", () => {
  it("are one line each in the table and on the terminal, whatever the manifests hold", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (name) => {
        const manifests = `${NAMESPACES}---${GATEWAY}`
          .replace("gatewayClassName", `${JSON.stringify(`a|${name}`)}: 1, gatewayClassName`)
          .replace("spec:\n  ", "spec: {")
          .replace(/listeners:\n\s+- (.*)/, "listeners: [$1] }")
          .replace("any\n", "any, ");
        const { report, files } = imported(manifests);
        expect(count(report, "refused")).toBe(1);
        const lines = summary(report, (text) => text).split("\n");
        expect(lines).toHaveLength(3);
        const rows = (files.get("REPORT.md") ?? "").split("\n").filter((line) => line.startsWith("|"));
        for (const row of rows) expect(row).toMatch(/\|$/);
        expect(markdown(report)).toBe(files.get("REPORT.md"));
      }),
      { numRuns: 50 },
    );
  });

  it("say each refusal on a terminal, up to a number", () => {
    const rules = Array.from({ length: 30 }, (_, at) => `- backendRefs: [{ name: none-${at}, port: 80 }]`).join("\n");
    const lines = summary(imported(withRules(rules)).report, (text) => text).split("\n");
    expect(lines[0]).toBe(
      "refused  m.yaml:17  HTTPRoute shop/orders spec.rules[0].backendRefs[0]: Service shop/none-0 does not exist",
    );
    expect(lines[20]).toBe("10 more are in REPORT.md");
  });
});
