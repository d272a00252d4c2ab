/** The way through workerd, with a Worker in the gateway's place that is known to be right, and with one that is known to be wrong. */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { Case } from "./cases.ts";
import { DeploymentFailed, Gateway } from "./deployment.ts";
import { EchoOrigin } from "./echo.ts";
import { copyWithout, readServices } from "./manifests.ts";
import { probe } from "./probe.ts";
import { subjectOn } from "./suite.ts";

const MANIFESTS = `
apiVersion: v1
kind: Service
metadata: { name: web-v1, namespace: infra }
spec:
  selector: { app: web }
  ports:
  - { name: http, port: 8080, targetPort: 3000 }
  - { name: dns, port: 53, protocol: UDP, targetPort: 53 }
---
# Slices of its own
apiVersion: v1
kind: Service
metadata: { name: manual, namespace: infra }
spec:
  ports: [{ port: 8080 }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: { name: grant, namespace: infra }
`;

let folder: string;
let origins: readonly EchoOrigin[];
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "portcullis-conformance-"));
  await writeFile(join(folder, "manifests.yaml"), MANIFESTS);
  origins = await Promise.all(readServices([join(folder, "manifests.yaml")]).map((served) => EchoOrigin.start(served)));
});
afterAll(async () => {
  await Promise.all(origins.map((origin) => origin.close()));
  await rm(folder, { recursive: true });
});

let gateway: Gateway | undefined;
afterEach(async () => {
  await gateway?.close();
  gateway = undefined;
});

async function start(worker: string): Promise<Gateway> {
  await mkdir(join(folder, "out"), { recursive: true });
  await writeFile(join(folder, "out", "worker.js"), worker);
  gateway = await Gateway.start(folder, origins);
  return gateway;
}

const ANSWERED: Case["expect"] = { statusCodes: [200], backend: "web", namespace: "infra" };

const caseOf = (kind: string, parts: Partial<Case> = {}): Case => ({
  kind,
  name: "made up",
  gateway: { namespace: "infra", name: "g", port: 8080, protocol: "HTTP" },
  scheme: "http",
  request: { method: "GET", host: "a.example", path: "/a?b" },
  expect: ANSWERED,
  ...parts,
});

describe("a Worker that forwards", () => {
  const FORWARD = `export default { fetch: (request, env) => env.INFRA_WEB_V1_8080.fetch(request) };`;
  const steps: Case["steps"] = [
    { send: "text", data: "a" },
    { send: "binary", data: [255] },
  ];
  const service = "gateway_api_conformance.echo_basic.grpcecho.GrpcEcho";

  it.each([
    caseOf("http"),
    caseOf("retry", { request: { method: "GET", path: "/retry/a?succeedAfter=0&uuid={{uuid}}" } }),
    caseOf("websocket", { request: { method: "GET", path: "/ws" }, steps }),
    caseOf("grpc", { request: { service, method: "Echo", path: "/" } }),
    caseOf("weight", { weights: { web: 1 } }),
  ])("passes a case of kind $kind", async (tested) => {
    expect(await probe(tested, subjectOn(await start(FORWARD), origins))).toEqual({ fault: undefined, tries: 1 });
  });

  it("fails where it should not have forwarded, or not there", async () => {
    const subject = subjectOn(await start(FORWARD), origins);
    const wrong = { ...ANSWERED, backend: "infra-backend-v1" };
    expect((await probe(caseOf("http", { expect: wrong }), subject)).fault).toMatch(/^pod "web-/);
    expect((await probe(caseOf("http", { expect: { statusCodes: [404], backend: "" } }), subject)).fault).toBe(
      "status 200, expected 404",
    );
  });
});

it("tells the Worker the listener's scheme and port", async () => {
  const REDIRECT = `export default { fetch: ({ url }) => new Response(null, { status: 302, headers: { location: url } }) };`;
  const subject = subjectOn(await start(REDIRECT), origins);
  const redirect = { scheme: "https", host: "a.example", port: "8443", path: "/a" };
  const tested = caseOf("http", {
    gateway: { namespace: "infra", name: "g", port: 8443, protocol: "HTTPS" },
    scheme: "https",
    expect: { statusCodes: [302], backend: "", redirect },
  });
  expect((await probe(tested, subject)).fault).toBeUndefined();
  expect((await probe({ ...tested, scheme: "http" }, subject)).fault).toMatch(/^redirect scheme "http"/);
});

it("finds the copies of mirrored requests", async () => {
  const MIRROR = `export default {
    async fetch(request, env, ctx) {
      const answer = await env.INFRA_WEB_V1_8080.fetch(request);
      ctx.waitUntil(env.INFRA_MANUAL_8080.fetch(new Request(request.url)).then((copy) => copy.text()));
      return answer;
    },
  };`;
  const subject = subjectOn(await start(MIRROR), origins);
  const expected = { ...ANSWERED, mirroredTo: [{ name: "manual", namespace: "infra" }] };
  expect((await probe(caseOf("mirror", { expect: expected }), subject)).fault).toBeUndefined();
});

it("tells why a Worker does not start", async () => {
  const failed = await start(`throw new Error("no such table");`).catch((error) => error);
  expect(failed).toBeInstanceOf(DeploymentFailed);
  expect([failed.stage, failed.message]).toEqual(["start", expect.stringContaining("no such table")]);
});

describe("manifests", () => {
  it("name Services by their TCP ports, and pods by what is selected", () => {
    expect(origins.map(({ served }) => served)).toEqual([
      { namespace: "infra", service: "web-v1", port: 8080, targetPort: 3000, backend: "web" },
      { namespace: "infra", service: "manual", port: 8080, targetPort: 8080, backend: "infra-backend-v1" },
    ]);
  });

  it("can be copied without one object", async () => {
    const [file, copy] = [join(folder, "manifests.yaml"), join(folder, "copy.yaml")];
    expect(copyWithout(file, { kind: "Service", namespace: "infra", name: "manual" }, copy)).toBe(true);
    expect(readServices([copy]).map(({ service }) => service)).toEqual(["web-v1"]);
    expect(copyWithout(file, { kind: "Service", namespace: "other", name: "manual" }, copy)).toBe(false);
    expect(readServices([copy])).toHaveLength(2);
  });
});
