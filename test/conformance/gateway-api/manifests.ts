/** What the harness itself reads in Kubernetes manifests: the Services, in whose place the origins stand. */
import { readFileSync, writeFileSync } from "node:fs";
import { parseAllDocuments } from "yaml";
import { z } from "zod";
import type { ServicePort } from "./echo.ts";

const service = z.object({
  kind: z.literal("Service"),
  metadata: z.object({ name: z.string(), namespace: z.string() }),
  spec: z.object({
    selector: z.record(z.string(), z.string()).default({}),
    ports: z.array(
      z.object({
        port: z.number(),
        protocol: z.string().default("TCP"),
        targetPort: z.union([z.number(), z.string()]).optional(),
      }),
    ),
  }),
});

/**
 * Deployments are named as the `app` that their pods are selected by. A Service without a selector has EndpointSlices of its own,
 * which the suite fills with the addresses of this one's pods.
 */
const BACKEND_OF_MANUAL_SLICES = "infra-backend-v1";

/** Every TCP port of every Service in the files; one that is in several of them counts once. */
export function readServices(files: readonly string[]): ServicePort[] {
  const found = new Map<string, ServicePort>();
  for (const document of files.flatMap(documentsOf)) {
    const read = service.safeParse(document);
    if (!read.success) continue;
    const { metadata, spec } = read.data;
    for (const { port, protocol, targetPort = port } of spec.ports) {
      if (protocol !== "TCP") continue;
      found.set(`${metadata.namespace}/${metadata.name}:${port}`, {
        namespace: metadata.namespace,
        service: metadata.name,
        port,
        targetPort: typeof targetPort === "number" ? targetPort : port,
        backend: spec.selector.app ?? BACKEND_OF_MANUAL_SLICES,
      });
    }
  }
  return [...found.values()];
}

export interface ObjectName {
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
}

/** Writes the objects of `file` into `copy`, but for one. Returns whether that was there. */
export function copyWithout(file: string, { kind, namespace, name }: ObjectName, copy: string): boolean {
  const documents = parseAllDocuments(readFileSync(file, "utf8"));
  const kept = documents.filter((document) => {
    const object = document.toJS() as { kind?: string; metadata?: { namespace?: string; name?: string } } | null;
    const { metadata } = object ?? {};
    return !(object?.kind === kind && metadata?.namespace === namespace && metadata.name === name);
  });
  writeFileSync(copy, kept.map(String).join("---\n"));
  return kept.length < documents.length;
}

function documentsOf(file: string): unknown[] {
  return parseAllDocuments(readFileSync(file, "utf8")).map((document) => {
    if (document.errors[0]) throw new Error(`${file}: ${document.errors[0].message}`);
    return document.toJS();
  });
}
