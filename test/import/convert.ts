/** Manifests as text, imported without files. */
import { ConfigurationRefused, type Problem } from "../../src/build/problem.ts";
import { convert, type Imported } from "../../src/import/import.ts";
import type { Entry } from "../../src/import/report.ts";

export interface Given {
  readonly gateway?: string;
  /** endpoints.yaml. */
  readonly endpoints?: string;
}

export function imported(manifests: string, { gateway, endpoints }: Given = {}): Imported {
  return convert([{ file: "m.yaml", text: manifests }], {
    ...(gateway !== undefined && { gateway }),
    ...(endpoints !== undefined && { endpoints: { file: "endpoints.yaml", text: endpoints } }),
  });
}

/** What is refused, as `line field: note`. */
export const refusals = ({ report }: Imported): string[] => told(report.entries, "refused");
export const differences = ({ report }: Imported): string[] => told(report.entries, "differs");
export const ignored = ({ report }: Imported): string[] => told(report.entries, "ignored");

const told = (entries: readonly Entry[], verdict: Entry["verdict"]): string[] =>
  entries.filter((entry) => entry.verdict === verdict).map(({ line, field, note }) => `${line} ${field}: ${note}`);

/** The problems with which the import ends, as `place  subject: message`. */
export function problemsOf(manifests: string, given: Given = {}): string[] {
  try {
    imported(manifests, given);
    return [];
  } catch (error) {
    if (!(error instanceof ConfigurationRefused)) throw error;
    return error.problems.map(
      ({ file, line, subject, message }: Problem) => `${file ? `${file}:${line}  ` : ""}${subject}: ${message}`,
    );
  }
}

/** Without the comments and the layout, so that what is expected can be written on lines of any length. */
export const code = (text: string | undefined): string =>
  (text ?? "")
    .replaceAll(/^\s*(?:\/\/|\/\*\*).*$/gm, "")
    .replaceAll(/\s+/g, " ")
    .replaceAll(/([([]) /g, "$1")
    .replaceAll(/,? ([)\]])/g, "$1")
    .replaceAll(", }", " }")
    .trim();

export const NAMESPACES = `
apiVersion: v1
kind: Namespace
metadata: { name: infra, labels: { team: platform } }
---
apiVersion: v1
kind: Namespace
metadata: { name: shop, labels: { team: shop } }
`;

/** A Gateway `infra/public` that takes routes of every namespace at one listener for everything. */
export const GATEWAY = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: public, namespace: infra }
spec:
  gatewayClassName: any
  listeners:
    - { name: http, port: 80, protocol: HTTP, allowedRoutes: { namespaces: { from: All } } }
`;

/** An HTTPRoute `shop/orders` with these rules, and Services `shop/a`, `shop/b` and `other/c`, each at port 80. */
export const withRules = (rules: string, kind = "HTTPRoute"): string => `${GATEWAY}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ${kind}
metadata: { name: orders, namespace: shop }
spec:
  parentRefs: [{ name: public, namespace: infra }]
  rules:
${rules.replaceAll(/^/gm, "    ")}
---
${["shop/a", "shop/b", "other/c"].map(service).join("---\n")}`;

export const service = (name: string): string => `apiVersion: v1
kind: Service
metadata: { namespace: ${name.split("/")[0]}, name: ${name.split("/")[1]} }
spec: { ports: [{ port: 80 }] }
`;
