/**
 * check: everything that is wrong with a configuration, told at once. First the shape of each declaration (schemas, since a routes
 * module may be JavaScript), then what the parts say to each other. What policies know of their own options they check themselves,
 * in `plan`.
 */
import { types } from "node:util";
import { z } from "zod";
import type {
  ApiDeclaration,
  GatewayDeclaration,
  GatewayOptions,
  Match,
  RouteDeclaration,
  RouteOptions,
} from "../config/api.ts";
import type { Backend, ClusterDeclaration, Endpoint, Redirect, Split, Target } from "../config/cluster.ts";
import type { Declaration } from "../config/declaration.ts";
import { parseDuration } from "../config/duration.ts";
import { policyLists } from "../config/entries.ts";
import * as portcullis from "../index.ts";
import { parseRange } from "../table/cidr.ts";
import { segmentsOf } from "../table/match.ts";
import { normalisePath } from "../table/path.ts";
import { type Problems, quoted } from "./problem.ts";
import { backtracking } from "./regex.ts";
import { checkTimeouts } from "./timeouts.ts";

export const isName = (value: unknown): value is string =>
  typeof value === "string" && /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(value);
export const NAME_FIX = "use letters, digits, - . _; 63 at most";
const BACKEND_FIX = "use a cluster or cluster.service(name)";
const HOST = /^(?:\*\.)?(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
// CONNECT, TRACE and TRACK cannot be sent with `fetch`.
const METHOD = /^(?!(?:CONNECT|TRACE|TRACK)$)[A-Z]{2,20}$/;
// The token of RFC 9110, 5.6.2: names of headers and cookies.
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;

const duration = z
  .string()
  .refine((text) => parseDuration(text) !== undefined, "is no duration such as 250ms, 5s or 1m30s");
const timeouts = z.strictObject({
  connect: duration.optional(),
  firstByte: duration.optional(),
  total: duration.optional(),
});
const ofKind = (value: unknown, ...kinds: string[]): boolean =>
  kinds.some((kind) => (value as { kind?: unknown } | null | undefined)?.kind === kind);
const reference = (...kinds: string[]) =>
  z.custom<object>(
    (value) => ofKind(value, ...kinds) && typeof (value as { name?: unknown }).name === "string",
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
const regex = z.custom<RegExp>(types.isRegExp);
const conditions = z.custom(
  (value) =>
    typeof value === "object" &&
    value !== null &&
    Object.values(value).every((wanted) => typeof wanted === "string" || wanted === true || types.isRegExp(wanted)),
  "must map each name to a text, a RegExp or true",
);

export const shapes = {
  gateway: z.strictObject({
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
  api: z.strictObject({
    hosts: z
      .array(z.string().regex(HOST, "is no host such as api.example.com or *.example.com, in lower case"))
      .min(1)
      .optional(),
    policies: policies.optional(),
    timeouts: timeouts.optional(),
  }),
  route: z.strictObject({
    to: z.custom<object>(
      (value) => ofKind(value, "backend", "split", "redirect"),
      "must be a cluster, a cluster's service, split(...) or redirect(...)",
    ),
    policies: policies.optional(),
    timeouts: timeouts.optional(),
    websocket: z.boolean().optional(),
  }),
  match: z.strictObject({
    path: z
      .union([z.string().startsWith("/", "must begin with /"), regex], "must be a text that begins with /, or a RegExp")
      .optional(),
    methods: z.array(z.string().regex(METHOD, "is no method in upper case that can be forwarded")).min(1).optional(),
    headers: conditions.optional(),
    query: conditions.optional(),
    cookies: conditions.optional(),
  }),
  cluster: z.strictObject({
    ingress: reference("env", "binding"),
    certificate: reference("binding").optional(),
    region: z.enum(["wnam", "enam", "sam", "weur", "eeur", "apac", "oc", "afr", "me"]).optional(),
    host: z.string().regex(HOST).optional(),
    services: z
      .strictObject({
        host: z.string().min(1).optional(),
        path: z.string().startsWith("/", "must begin with /").optional(),
      })
      .optional(),
    scheme: z.enum(["http", "https"]).optional(),
    assertion: z.boolean().optional(),
  }),
  /** What a policy's options may refer to; checked where they are planned. */
  consumer: z.strictObject({
    claims: z.record(z.string(), z.string()),
  }),
  endpoint: z.strictObject({
    cluster: z.custom<ClusterDeclaration>((value) => ofKind(value, "cluster"), "must be a cluster"),
    service: z
      .string()
      .regex(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/, "must be lower case letters, digits and hyphens")
      .optional(),
    host: z.string().min(1).optional(),
    path: z.string().startsWith("/", "must begin with /").optional(),
  }),
  split: z.strictObject({
    sticky: z
      .union(
        [
          z.enum(["subject", "client"]),
          z.strictObject({ cookie: z.string().regex(TOKEN), maxAge: z.int().min(1).optional() }),
          z.strictObject({ header: z.string().regex(TOKEN) }),
        ],
        'must be "subject", "client", { cookie: "name" } or { header: "name" }',
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
    path: z
      .union(
        [z.strictObject({ prefix: z.string().startsWith("/") }), z.strictObject({ full: z.string().startsWith("/") })],
        'must be { prefix: "/..." } or { full: "/..." }',
      )
      .optional(),
  }),
};

/**
 * Adds to `problems` all that `check` finds, and gives what is left of the configuration without that, so that `plan` can tell its
 * own at the same time.
 */
export function checkConfiguration(gateway: GatewayDeclaration, problems: Problems): GatewayDeclaration {
  const options = sound(problems, gateway, "gateway", shapes.gateway, gateway.options);
  checkTimeouts(problems, gateway, "gateway", options.timeouts);
  if (!Array.isArray(gateway.apis) || gateway.apis.length === 0) {
    problems.add(gateway, "gateway", "has no APIs", "give it a list of api(...)");
    return { ...gateway, options, apis: [] };
  }
  const apis = unique<ApiDeclaration>(problems, gateway, "api", gateway.apis).map((api) => {
    const own = sound(problems, api, `api "${api.name}"`, shapes.api, api.options);
    // Hosts that are not known are not any host.
    return { ...api, options: own === api.options ? own : { ...own, hosts: own.hosts ?? [] } };
  });
  const around = {
    gateway: options,
    targets: new Map<object, boolean>(),
    hosts: new Set(apis.flatMap((api) => api.options.hosts ?? [])),
  };
  const checked = { ...gateway, options, apis: apis.map((api) => checkApi(problems, api, around)) };
  if (gateway.options?.store === undefined) refuseLimits(checked, problems);
  return checked;
}

/** Of a gateway that has no store. */
function refuseLimits(gateway: GatewayDeclaration, problems: Problems): void {
  for (const entry of new Set(policyLists(gateway).flatMap(({ entries }) => entries))) {
    if (typeof entry === "function" || entry.kind !== "policy" || entry.policy !== "rateLimit") continue;
    if (entry.options?.mode === "off") continue;
    const fix = "give gateway({ store: { url: env(...), token: secret(...) } })";
    problems.add(entry, "policy rateLimit", "has no store to count in", fix);
  }
}

/** What stands around an API. */
interface Surroundings {
  readonly gateway: GatewayOptions;
  /** Clusters, backends, splits and redirects that have been looked at, and whether they are sound: each is told once. */
  readonly targets: Map<object, boolean>;
  /** All that any API declares. */
  readonly hosts: ReadonlySet<string>;
}

function checkApi(problems: Problems, api: ApiDeclaration, around: Surroundings): ApiDeclaration {
  const subject = `api "${api.name}"`;
  const { timeouts } = api.options;
  checkTimeouts(problems, api, subject, timeouts, around.gateway.timeouts);
  if (!Array.isArray(api.routes) || api.routes.length === 0) {
    problems.add(api, subject, "has no list of routes", "give route(...)s as the third argument");
    return { ...api, routes: [] };
  }
  const routes = unique<RouteDeclaration>(problems, api, "route", api.routes, `${api.name}/`);
  return { ...api, routes: routes.map((route) => checkRoute(problems, route, api, around)) };
}

/** Those of `declarations` that are of the kind and whose names are unique; tells of the others. */
function unique<D extends Declaration & { readonly kind: string; readonly name: string }>(
  problems: Problems,
  parent: Declaration,
  kindName: string,
  declarations: readonly D[],
  prefix = "",
): D[] {
  const named = new Map<string, D>();
  for (const [position, declaration] of declarations.entries()) {
    if (!ofKind(declaration, kindName)) {
      const message = `number ${position + 1} of the list is ${quoted(declaration)}, no ${kindName}`;
      problems.add(parent, `${kindName}s`, message, `make each with ${kindName}(...)`);
      continue;
    }
    const { name } = declaration;
    if (!isName(name)) {
      problems.add(declaration, `${kindName} ${quoted(name)}`, "is no usable name", NAME_FIX);
      continue;
    }
    const other = named.get(name);
    const subject = `${kindName} "${prefix}${name}"`;
    if (other === declaration) problems.add(declaration, subject, "is listed twice", "list it once");
    else if (other) {
      const fix = "name it differently: records and policies go by the name";
      problems.add(declaration, subject, "has the name of another", fix);
    } else named.set(name, declaration);
  }
  return [...named.values()];
}

function checkRoute(
  problems: Problems,
  route: RouteDeclaration,
  api: ApiDeclaration,
  around: Surroundings,
): RouteDeclaration {
  const subject = `route "${api.name}/${route.name}"`;
  const tell: Tell = (message, fix) => problems.add(route, subject, message, fix);
  const matches: Match[] = [];
  if (!Array.isArray(route.matches) || route.matches.length === 0)
    tell("matches nothing", 'give a match such as { path: "/v1/orders" }');
  else {
    for (const match of route.matches) {
      const before = problems.count;
      if (shape(problems, route, subject, shapes.match, match)) checkMatch(tell, match, around.gateway.escapedSlashes);
      if (problems.count === before) matches.push(match);
    }
  }
  const { to, ...options } = sound(problems, route, subject, shapes.route, route.options);
  checkTimeouts(problems, route, subject, options.timeouts, api.options.timeouts, around.gateway.timeouts);
  const reachable = to !== undefined && checkTarget(problems, route, subject, to, around);
  return { ...route, matches, options: reachable ? { ...options, to } : (options as RouteOptions) };
}

type Tell = (message: string, fix: string) => void;

function checkMatch(tell: Tell, match: Match, escapedSlashes?: "refuse" | "keep"): void {
  const { path = "/*", headers = {}, query = {}, cookies = {} } = match;
  if (typeof path === "string") checkPath(tell, path, escapedSlashes);
  else if (/^\^?\w[^|]*$/.test(path.source))
    tell(`path ${path} can never match: every path begins with /`, "begin it with \\/");
  else checkRegex(tell, path);
  const seen = new Set<string>();
  for (const name of Object.keys(headers)) {
    if (!TOKEN.test(name)) tell(`"${name}" is no header name`, "use letters, digits and hyphens");
    else if (seen.has(name.toLowerCase()))
      tell(`has two conditions on the header "${name.toLowerCase()}"`, "keep one of them");
    seen.add(name.toLowerCase());
  }
  for (const name of Object.keys(cookies)) {
    if (!TOKEN.test(name)) tell(`"${name}" is no cookie name`, "use letters, digits and hyphens");
  }
  for (const condition of [headers, query, cookies].flatMap((conditions) => Object.values(conditions))) {
    if (types.isRegExp(condition)) checkRegex(tell, condition);
  }
}

function checkPath(tell: Tell, path: string, escapedSlashes: "refuse" | "keep" = "refuse"): void {
  const value = path.endsWith("/*") ? path.slice(0, -2) || "/" : path;
  if (value.includes("*")) {
    const fix = "end a prefix with /*, write one segment as {name}, or use a RegExp";
    tell(`path "${path}" has a * that is not its last segment`, fix);
    return;
  }
  const names = segmentsOf(value).filter((segment) => /[{}]/.test(segment));
  for (const segment of names) {
    if (!/^\/\{[A-Za-z_]\w*\}$/.test(segment))
      tell(`path "${path}" has "${segment.slice(1)}"`, "a parameter is a whole segment: {name}");
  }
  if (new Set(names).size !== names.length) tell(`path "${path}" names a parameter twice`, "name each parameter once");
  const plain = value.replace(/\{\w*\}/g, "parameter");
  const normal = normalisePath(plain, { escapedSlashes });
  if (normal.refused) {
    const message = `path "${path}" can never match: requests for it answer 400 ${normal.refused}`;
    tell(message, "write the path as clients should ask for it");
  } else if (normal.path !== plain) {
    const spelled =
      value === plain
        ? `write "${normal.path}${path.endsWith("/*") ? "/*" : ""}"`
        : "write it without escapes, dots and double slashes";
    tell(`path "${path}" is not in the form in which requests are matched`, spelled);
  }
  if (`${value}/`.startsWith("/.well-known/portcullis/"))
    tell(`path "${path}" is the gateway's own`, "choose another path");
}

function checkRegex(tell: Tell, regex: RegExp): void {
  if (/[^is]/.test(regex.flags)) {
    tell(`${regex} has flags that a match does not know`, "keep only i and s");
    return;
  }
  // In a match `.` is any character, as with the s flag (plan.ts).
  const unsafe = backtracking(new RegExp(regex.source, `${regex.flags.replace("s", "")}s`));
  if (unsafe) tell(`${regex} ${unsafe}`, "avoid repeating what itself repeats, e.g. write [^/]+ instead of (.*)+");
}

/** Whether requests can be sent there. */
function checkTarget(
  problems: Problems,
  route: RouteDeclaration,
  subject: string,
  to: Target,
  { targets, hosts }: Surroundings,
): boolean {
  const known = targets.get(to);
  if (known !== undefined) return known;
  const before = problems.count;
  let reachable = true;
  if (to.kind === "backend") reachable = checkBackend(problems, route, subject, to, targets);
  else if (to.kind === "split") reachable = checkSplit(problems, to, subject, targets);
  else checkRedirect(problems, to, subject, hosts);
  reachable &&= problems.count === before;
  targets.set(to, reachable);
  return reachable;
}

function checkBackend(
  problems: Problems,
  declaration: Declaration,
  subject: string,
  { endpoints }: Backend,
  targets: Map<object, boolean>,
): boolean {
  if (!Array.isArray(endpoints) || endpoints.length === 0) {
    problems.add(declaration, subject, "leads to a backend without endpoints", BACKEND_FIX);
    return false;
  }
  let reachable = true;
  for (const endpoint of endpoints) {
    const whole = shape(problems, declaration, subject, shapes.endpoint, endpoint);
    if (whole && checkCluster(problems, endpoint.cluster, targets))
      checkService((message, fix) => problems.add(declaration, subject, message, fix), endpoint);
    else reachable = false;
  }
  return reachable;
}

/** Whether the cluster can be used; what is wrong with it is told when it is met for the first time. */
function checkCluster(problems: Problems, cluster: ClusterDeclaration, targets: Map<object, boolean>): boolean {
  const known = targets.get(cluster);
  if (known !== undefined) return known;
  const before = problems.count;
  const subject = `cluster ${quoted(cluster.name)}`;
  const tell: Tell = (message, fix) => problems.add(cluster, subject, message, fix);
  if (!isName(cluster.name)) tell("is no usable name", NAME_FIX);
  else if (
    [...targets.keys()].some((other) => ofKind(other, "cluster") && (other as typeof cluster).name === cluster.name)
  )
    tell("has the name of another cluster", "name it differently");
  if (shape(problems, cluster, subject, shapes.cluster, cluster.options)) {
    const { ingress, certificate, scheme } = cluster.options;
    if (ofKind(ingress, "env") && scheme)
      tell("`scheme` is for bindings", "write the scheme into the URL in the environment");
    if (ofKind(ingress, "binding") && certificate) {
      const message = "has a certificate and a binding, and only one can make the connection";
      tell(message, "use ingress: env(...) with the certificate");
    }
  }
  const usable = problems.count === before;
  targets.set(cluster, usable);
  return usable;
}

function checkService(tell: Tell, { cluster, service, host, path }: Endpoint): void {
  if (service === undefined) return;
  const template = cluster.options.services;
  if (!host && !path && !template?.host && !template?.path) {
    tell(
      `nothing tells service "${service}" apart at the ingress of cluster "${cluster.name}"`,
      `give the cluster services: { host: "{service}.example.com" } or { path: "/{service}" }`,
    );
  }
  const address = (host ?? template?.host ?? "a").replaceAll("{service}", "service");
  if (!HOST.test(address) || address.startsWith("*"))
    tell(`"${host ?? template?.host}" is no host`, "write a host name in lower case, with {service} for the service");
  const prefix = (path ?? template?.path ?? "/").replaceAll("{service}", "service");
  if (!isNormal(prefix)) tell(`"${path ?? template?.path}" is no usable path prefix`, "write it as /prefix");
}

function checkSplit(problems: Problems, split: Split, subject: string, targets: Map<object, boolean>): boolean {
  const tell: Tell = (message, fix) => problems.add(split, subject, message, fix);
  const { override } = sound(problems, split, subject, shapes.split, split.options);
  const arms = Object.entries(typeof split.arms === "object" ? (split.arms ?? {}) : {});
  if (arms.length === 0) tell("the split has no arms", "name at least one backend");
  let reachable = true;
  for (const [name, arm] of arms) {
    if (!isName(name)) tell(`"${name}" is no usable arm name`, NAME_FIX);
    if (!ofKind(arm, "backend")) tell(`arm "${name}" is no backend`, BACKEND_FIX);
    else if (!checkBackend(problems, split, subject, arm, targets)) reachable = false;
  }
  const shares = arms.map(([, arm]) => (arm as Partial<Backend> | null)?.share);
  shares.forEach((share, position) => {
    if (!isWeight(share) && ofKind(arms[position]?.[1], "backend"))
      tell(`arm "${arms[position]?.[0]}" has no weight of 0 or more`, "give it one: .weight(5)");
  });
  if (arms.length > 0 && shares.every((share) => share === 0))
    tell("the arms' weights sum to 0, so no request could be sent anywhere", "give one arm a weight");
  if (override && !override.header && !override.cookie)
    tell("the override names neither header nor cookie", "say where the client states its wish");
  return reachable;
}

const isWeight = (share: unknown): share is number => typeof share === "number" && share >= 0 && share <= 1e9;

function checkRedirect(problems: Problems, redirect: Redirect, subject: string, hosts: ReadonlySet<string>): void {
  if (!shape(problems, redirect, subject, shapes.redirect, redirect.options)) return;
  const tell: Tell = (message, fix) => problems.add(redirect, subject, message, fix);
  const { host, path, scheme, port } = redirect.options;
  const declared = (name: string) =>
    hosts.has(name) || [...hosts].some((known) => known.startsWith("*.") && name.endsWith(known.slice(1)));
  if (host && !declared(host)) {
    const fix = "declare the host on an api, so that no redirect leads elsewhere by accident";
    tell(`redirects to "${host}", which no API declares`, fix);
  }
  if (!host && !path && !scheme && !port) tell("redirects to itself", "change host, path, scheme or port");
  const target = path && ("prefix" in path ? path.prefix : path.full);
  if (target && !isNormal(target))
    tell(`"${target}" is not a normal path`, "write it without escapes, dots and double slashes");
}

const isNormal = (path: string): boolean => {
  const normal = normalisePath(path);
  return !normal.refused && normal.path === path;
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
function sound<Options extends object>(
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
