/** The tests and their cases, as cases/*.json has them. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";

/** Several values of a header are one value with commas between them. */
const headers = z.record(z.string(), z.union([z.string(), z.array(z.string()).transform((values) => values.join())]));

const upstreamRequest = z.looseObject({
  method: z.string().optional(),
  host: z.string().optional(),
  path: z.string().optional(),
  headers: headers.optional(),
  absentHeaders: z.array(z.string()).optional(),
  httpPort: z.coerce.string().optional(),
});

const redirect = z.looseObject({
  scheme: z.string().optional(),
  host: z.string().optional(),
  port: z.coerce.string().optional(),
  path: z.string().optional(),
});

const mirrorTarget = z.looseObject({ name: z.string(), namespace: z.string(), percent: z.number().optional() });

const expectation = z.looseObject({
  statusCodes: z.array(z.number()).default([200]),
  /** With this the name of the pod that answers begins. */
  backend: z.string().default(""),
  /** "": no backend answers, the gateway itself does. */
  namespace: z.string().optional(),
  answeredByGateway: z.boolean().optional(),
  upstreamRequest: upstreamRequest.optional(),
  /** Whether it was written down, or is the request again. */
  upstreamRequestExplicit: z.boolean().optional(),
  responseHeaders: headers.optional(),
  responseHeaderOneOf: z.record(z.string(), z.array(z.string())).optional(),
  responseAbsentHeaders: z.array(z.string()).optional(),
  ignoreWhitespace: z.boolean().optional(),
  redirect: redirect.optional(),
  mirroredTo: z.array(mirrorTarget).optional(),
  /** gRPC: the status by its name in Go. */
  code: z.string().optional(),
  /** The suite's source. What it has of gRPC's headers the suite does not look at either. */
  raw: z.unknown().optional(),
});

const testCase = z.looseObject({
  kind: z.string(),
  name: z.string(),
  gateway: z.looseObject({
    namespace: z.string(),
    name: z.string(),
    port: z.number().default(80),
    protocol: z.string().default("HTTP"),
  }),
  scheme: z.string().optional(),
  request: z.looseObject({
    method: z.string().default("GET"),
    host: z.string().optional(),
    path: z.string().default("/"),
    headers: headers.optional(),
    body: z.string().optional(),
    protocol: z.string().optional(),
    /** gRPC. */
    service: z.string().optional(),
    authority: z.string().optional(),
    metadata: headers.optional(),
    /** WebSocket. */
    origin: z.string().optional(),
  }),
  backendSetResponseHeaders: headers.optional(),
  expect: expectation.default({ statusCodes: [200], backend: "" }),
  precondition: z.looseObject({}).optional(),
  steps: z
    .array(z.looseObject({ send: z.enum(["text", "binary"]), data: z.union([z.string(), z.array(z.number())]) }))
    .optional(),
  weights: z.record(z.string(), z.number()).optional(),
  totalRequests: z.number().optional(),
  tolerance: z.union([z.number(), z.string()]).optional(),
  maxRetries: z.number().optional(),
  maxChecks: z.number().optional(),
});

const test = z.looseObject({
  name: z.string(),
  description: z.string(),
  manifests: z.array(z.string()),
  features: z.array(z.string()),
  conformance: z.string(),
  cases: z.array(testCase),
});

export type ConformanceTest = z.infer<typeof test>;
export type Case = z.infer<typeof testCase>;
export type Expectation = z.infer<typeof expectation>;

/** This folder: the cases and manifests in the repository. */
export const SHIPPED = import.meta.dirname;

/** The tests in a folder of cases, by file name. Throws when a file is no test, with its name and the place in it. */
export function readTests(folder = join(SHIPPED, "cases")): ConformanceTest[] {
  const files = readdirSync(folder).filter((name) => name.endsWith(".json"));
  if (files.length === 0) throw new Error(`${folder} has no cases: give the folder with the suite's *.json`);
  return files.sort().map((name) => {
    const file = join(folder, name);
    // A null says as much as nothing does; a reviver's undefined leaves the name out.
    const read = test.safeParse(JSON.parse(readFileSync(file, "utf8"), (_, value) => value ?? undefined));
    if (!read.success) throw new Error(`${file} is no conformance test:\n${z.prettifyError(read.error)}`);
    return read.data;
  });
}

/** What a case expects that nobody here looks at: names of fields that are not in the format. */
export function unjudged({ expect }: Case): string[] {
  const beyond = (value: object | undefined, shape: object, at: string) =>
    Object.keys(value ?? {}).flatMap((name) => (name in shape ? [] : [`${at}.${name}`]));
  return [
    ...beyond(expect, expectation.shape, "expect"),
    ...beyond(expect.upstreamRequest, upstreamRequest.shape, "expect.upstreamRequest"),
    ...beyond(expect.redirect, redirect.shape, "expect.redirect"),
    ...(expect.mirroredTo ?? []).flatMap((target) => beyond(target, mirrorTarget.shape, "expect.mirroredTo")),
  ];
}
