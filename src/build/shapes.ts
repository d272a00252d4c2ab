/** The shape of each declaration, as schemas: a routes module may be JavaScript, and hold anything anywhere. */
import { isDeepStrictEqual, types } from "node:util";
import { z } from "zod";
import type { ClusterDeclaration } from "../config/cluster.ts";
import type { Declaration } from "../config/declaration.ts";
import { parseDuration } from "../config/duration.ts";
import * as portcullis from "../index.ts";
import { changesSchema } from "../policies/headers.ts";
import { parseRange } from "../table/cidr.ts";
import type { Problems } from "./problem.ts";

export const isName = (value: unknown): value is string =>
  typeof value === "string" && /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(value);
export const NAME_FIX = "use letters, digits, - . _; 63 at most";
export const HOST = /^(?:\*\.)?(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
// CONNECT, TRACE and TRACK cannot be sent with `fetch`.
const METHOD = /^(?!(?:CONNECT|TRACE|TRACK)$)[A-Z]{2,20}$/;
// The token of RFC 9110, 5.6.2: names of headers and cookies.
export const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;

// As it goes into a header, among others.
const GROUP = /^[\x21-\x24\x26-\x2b\x2d-\x7e]{1,64}$/;
// Every isolate holds the table, and so the metadata of all declared consumers.
const MAX_METADATA = 4_096;
const isJsonObject = (value: unknown): boolean => {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  try {
    return isDeepStrictEqual(JSON.parse(JSON.stringify(value)), value);
  } catch {
    return false;
  }
};

export const ofKind = (value: unknown, ...kinds: string[]): boolean =>
  kinds.some((kind) => (value as { kind?: unknown } | null | undefined)?.kind === kind);
const declared = <D>(kind: string, message: string) => z.custom<D>((value) => ofKind(value, kind), message);

const duration = z
  .string()
  .refine((text) => parseDuration(text) !== undefined, "is no duration such as 250ms, 5s or 1m30s");
const period = duration.refine((text) => parseDuration(text) !== 0, "must be longer than nothing");
const planWindow = z
  .string()
  .refine(
    (text) => text === "day" || text === "month" || (parseDuration(text) ?? 0) > 0,
    'must be a duration such as "1m", "day" or "month"',
  );
const timeouts = z.strictObject({
  connect: duration.optional(),
  firstByte: duration.optional(),
  total: duration.optional(),
  idle: duration.optional(),
});
const reference = (...kinds: string[]) =>
  z.custom<object>(
    (value) =>
      ofKind(value, ...kinds) &&
      typeof (value as { name?: unknown }).name === "string" &&
      ["string", "undefined"].includes(typeof (value as { otherwise?: unknown }).otherwise),
    `must be ${kinds.map((kind) => `${kind}("NAME")`).join(" or ")}`,
  );
// To list `cors` where `cors({ ... })` is meant is easily done, and it is a function, as middleware is.
const builders = new Set<unknown>(Object.values(portcullis));
const isTextList = (value: unknown) => Array.isArray(value) && value.every((item) => typeof item === "string");
const policies = z.array(
  z.custom(
    (value) =>
      (typeof value === "function" && !builders.has(value)) ||
      (ofKind(value, "policy") && typeof (value as { policy?: unknown }).policy === "string") ||
      (ofKind(value, "without") && isTextList((value as { policies?: unknown }).policies)),
    "must be a policy such as cors({ ... }), a Hono middleware or without(...)",
  ),
);
const listeners = z.array(declared("listener", "must be a listener(...)")).min(1);
const regex = z.custom<RegExp>(types.isRegExp);
const conditions = z.custom(
  (value) =>
    typeof value === "object" &&
    value !== null &&
    Object.values(value).every((wanted) => typeof wanted === "string" || wanted === true || types.isRegExp(wanted)),
  "must map each name to a text, a RegExp or true",
);
const methods = z.array(z.string().regex(METHOD, "is no method in upper case that can be forwarded")).min(1);
const host = z.string().regex(HOST, "is no host such as api.example.com or *.example.com, in lower case");
const oneHost = host.refine((text) => !text.startsWith("*"), "must be one host, without *");
const path = z.string().startsWith("/", "must begin with /");
const newPath = z.union(
  [z.strictObject({ prefix: z.string().startsWith("/") }), z.strictObject({ full: z.string().startsWith("/") })],
  'must be { prefix: "/..." } or { full: "/..." }',
);
const token = z.string().regex(TOKEN, "is no name of a header or cookie");
const percent = z.number().min(0).max(100);
const count = z.int().min(0).max(1_000_000_000);
const weight = z.number().min(0).max(1_000_000_000);
const bytes = z.int().min(0);
const backend = declared<object>("backend", "must be a cluster or a cluster's service");
const rewrite = z.strictObject({ host: oneHost.optional(), path: newPath.optional() });
const mirrors = z.array(declared<object>("mirror", "must be a mirror(...)"));

export const shapes = {
  gateway: z.strictObject({
    semantics: z.enum(["portcullis", "gateway-api"]).optional(),
    listeners: listeners.optional(),
    policies: policies.optional(),
    store: z.strictObject({ url: reference("env"), token: reference("secret") }).optional(),
    debug: reference("secret").optional(),
    assertion: z
      .strictObject({ key: reference("secret"), issuer: z.string().min(1), lifetime: duration.optional() })
      .optional(),
    forwardedFor: z.enum(["overwrite", "append"]).optional(),
    escapedSlashes: z.enum(["refuse", "keep"]).optional(),
    trustedProxies: z
      .array(z.string().refine((text) => parseRange(text) !== undefined, "is no address or CIDR range"))
      .optional(),
    maxUrl: z.int().min(64).max(16_384).optional(),
    maxBody: z.int().min(0).optional(),
    timeouts: timeouts.optional(),
  }),
  listener: z.strictObject({
    port: z.int().min(1).max(65_535),
    protocol: z.enum(["http", "https"]),
    host: host.optional(),
  }),
  api: z.strictObject({
    hosts: z.array(host).min(1).optional(),
    listeners: listeners.optional(),
    policies: policies.optional(),
    timeouts: timeouts.optional(),
  }),
  route: z.strictObject({
    to: z.custom<object>(
      (value) => ofKind(value, "backend", "split", "redirect", "missing"),
      "must be a cluster, a cluster's service, split(...) or redirect(...)",
    ),
    policies: policies.optional(),
    timeouts: timeouts.optional(),
    rewrite: rewrite.optional(),
    mirrors: mirrors.optional(),
    retry: z
      .strictObject({
        attempts: z.int().min(0).max(100).optional(),
        on: z
          .array(
            z.union(
              [z.enum(["connection", "timeout", "gateway-error", "5xx"]), z.int().min(400).max(599)],
              'must be "connection", "timeout", "gateway-error", "5xx" or a status from 400 to 599',
            ),
          )
          .min(1)
          .optional(),
        methods: z
          .union([z.enum(["idempotent", "any"]), methods], 'must be "idempotent", "any" or a list of methods')
          .optional(),
        backoff: z
          .strictObject({ minimum: duration.optional(), base: duration.optional(), max: duration.optional() })
          .optional(),
        maxBody: bytes.optional(),
        budget: z.strictObject({ percent: percent.optional(), minimum: count.optional() }).optional(),
      })
      .optional(),
    websocket: z
      .union(
        [z.boolean(), z.strictObject({ idle: duration.optional(), lifetime: duration.optional() })],
        'must be true, false or { idle: "5m", lifetime: "1h" }',
      )
      .optional(),
  }),
  match: z.strictObject({
    path: z.union([path, regex], "must be a text that begins with /, or a RegExp").optional(),
    methods: methods.optional(),
    headers: conditions.optional(),
    query: conditions.optional(),
    cookies: conditions.optional(),
  }),
  cluster: z.strictObject({
    ingress: reference("env", "binding"),
    certificate: reference("binding").optional(),
    region: z.enum(["wnam", "enam", "sam", "weur", "eeur", "apac", "oc", "afr", "me"]).optional(),
    host: z.string().regex(HOST).optional(),
    services: z.strictObject({ host: z.string().min(1).optional(), path: path.optional() }).optional(),
    scheme: z.enum(["http", "https"]).optional(),
    assertion: z.boolean().optional(),
    outlier: z
      .strictObject({
        consecutive5xx: count.optional(),
        consecutiveGatewayErrors: count.optional(),
        interval: period.optional(),
        baseEjectionTime: period.optional(),
        maxEjectionTime: period.optional(),
        maxEjectionPercent: percent.optional(),
        minimumRequests: count.optional(),
        panicThreshold: percent.optional(),
      })
      .optional(),
    breaker: z
      .strictObject({
        errorPercent: percent.gt(0).optional(),
        window: period.optional(),
        minimumRequests: count.min(1).optional(),
        open: period.optional(),
        recovery: duration.optional(),
      })
      .optional(),
    concurrency: count.min(1).optional(),
    health: z
      .strictObject({
        path: path.optional(),
        expect: z.array(z.int().min(100).max(599)).min(1).optional(),
        timeout: period.optional(),
        unhealthy: count.min(1).optional(),
        healthy: count.min(1).optional(),
      })
      .optional(),
  }),
  /** What a policy's options may refer to; checked where they are planned. */
  consumer: z.strictObject({
    claims: z.record(z.string(), z.string()).optional(),
    groups: z.array(z.string().regex(GROUP, "is no group: 1 to 64 visible characters without commas and %")).optional(),
    metadata: z
      .custom<object>(isJsonObject, { message: "must be an object of what JSON can hold", abort: true })
      .refine(
        (value) => JSON.stringify(value).length <= MAX_METADATA,
        `is longer than ${MAX_METADATA} characters of JSON`,
      )
      .optional(),
    plan: declared<object>("plan", "must be a plan(...)").optional(),
  }),
  plan: z.strictObject({
    limits: z.array(z.strictObject({ limit: z.int().min(1).max(1_000_000_000), window: planWindow })).optional(),
  }),
  backend: z.looseObject({
    levels: z
      .array(
        z.strictObject({
          endpoints: z.array(z.unknown()).min(1),
          balance: z
            .strictObject({
              by: z
                .union(
                  [
                    z.enum(["round-robin", "least-request"]),
                    z.strictObject({
                      hash: z.union([
                        z.enum(["subject", "client"]),
                        z.strictObject({ header: token }),
                        z.strictObject({ cookie: token }),
                        z.strictObject({ query: z.string() }),
                      ]),
                    }),
                  ],
                  'must be "round-robin", "least-request" or { hash: "subject", "client", { header }, { cookie } or { query } }',
                )
                .optional(),
              affinity: z.strictObject({ cookie: token, maxAge: z.int().min(1).optional() }).optional(),
            })
            .optional(),
        }),
      )
      .min(1),
    nearest: z.boolean().optional(),
  }),
  endpoint: z.strictObject({
    cluster: declared<ClusterDeclaration>("cluster", "must be a cluster"),
    service: z
      .string()
      .regex(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/, "must be lower case letters, digits and hyphens")
      .optional(),
    host: z.string().min(1).optional(),
    path: path.optional(),
    weight: weight.optional(),
    headers: z.strictObject({ request: changesSchema().optional(), response: changesSchema().optional() }).optional(),
    rewrite: rewrite.optional(),
    mirrors: mirrors.optional(),
  }),
  mirror: z.looseObject({
    to: backend,
    options: z.strictObject({
      percent: percent.optional(),
      fraction: z.tuple([count, count.min(1)], "must be two numbers, such as [1, 3]").optional(),
      methods: z.union([z.literal("any"), methods], 'must be "any" or a list of methods').optional(),
      maxBody: bytes.optional(),
    }),
  }),
  split: z.strictObject({
    sticky: z
      .union(
        [
          z.enum(["subject", "client", "request"]),
          z.strictObject({ cookie: z.string().regex(TOKEN), maxAge: z.int().min(1).optional() }),
          z.strictObject({ header: z.string().regex(TOKEN) }),
        ],
        'must be "subject", "client", "request", { cookie: "name" } or { header: "name" }',
      )
      .optional(),
    override: z
      .strictObject({
        header: z.string().regex(TOKEN).optional(),
        cookie: z.string().regex(TOKEN).optional(),
        secret: reference("secret"),
      })
      .optional(),
    salt: z.string().optional(),
  }),
  redirect: z.strictObject({
    status: z.literal([301, 302, 303, 307, 308]).optional(),
    scheme: z.enum(["http", "https"]).optional(),
    host: z.string().regex(HOST).optional(),
    port: z.int().min(1).max(65_535).optional(),
    path: newPath.optional(),
  }),
  missing: z.looseObject({ reason: z.string().min(1, "must say why there is none") }),
};

/** Tells of everything in which `value` is not of `schema`'s shape; whether it is. */
export function shape(
  problems: Problems,
  declaration: Declaration | undefined,
  subject: string,
  schema: z.ZodType,
  value: unknown,
): boolean {
  const result = schema.safeParse(value);
  if (result.success) return true;
  for (const issue of result.error.issues) {
    const path = issue.path.map(String).join(".");
    problems.add(declaration, subject, path ? `\`${path}\`: ${issue.message}` : issue.message, fixFor(issue));
  }
  return false;
}

/** Tells of the same, and gives what is left of `value` without the members at fault; of a list, without its items at fault. */
export function sound<Options extends object>(
  problems: Problems,
  declaration: Declaration,
  subject: string,
  schema: z.ZodType,
  value: Options,
): Options {
  if (shape(problems, declaration, subject, schema, value)) return value;
  if (typeof value !== "object" || value === null) return {} as Options;
  const faults = schema.safeParse(value).error?.issues.map(({ path }) => path) ?? [];
  const members = Object.entries(value).flatMap(([name, member]): [string, unknown][] => {
    const items = faults.filter(([at]) => at === name).map(([, item]) => item);
    if (items.length === 0) return [[name, member]];
    if (items.includes(undefined) || !Array.isArray(member)) return [];
    return [[name, member.filter((_, position) => !items.includes(position))]];
  });
  return Object.fromEntries(members) as Options;
}

function fixFor(issue: z.core.$ZodIssue): string {
  if (issue.code === "unrecognized_keys") return "take it out, or correct the spelling";
  if (issue.code === "invalid_type") return `give ${/^[aeiou]/.test(issue.expected) ? "an" : "a"} ${issue.expected}`;
  if (issue.code === "invalid_value") return "choose one of them";
  return "correct the value";
}
