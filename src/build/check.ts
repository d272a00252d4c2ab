/**
 * check: everything that is wrong with a configuration, told at once. First the shape of each declaration (schemas, since a routes
 * module may be JavaScript), then what the parts say to each other. What policies know of their own options they check themselves,
 * in `plan`.
 */
import { checkSync } from "recheck";
import { z } from "zod";
import type { ApiDeclaration, GatewayDeclaration, Match, RouteDeclaration } from "../config/api.ts";
import type { Backend, ClusterDeclaration, Endpoint, Redirect, Split } from "../config/cluster.ts";
import type { Declaration } from "../config/declaration.ts";
import { parseDuration } from "../config/duration.ts";
import { parseRange } from "../table/cidr.ts";
import { isParameter, segmentsOf } from "../table/match.ts";
import { normalisePath } from "../table/path.ts";
import type { Problems } from "./problem.ts";
import { checkTimeouts } from "./timeouts.ts";

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;
const HOST = /^(?:\*\.)?(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
const METHOD = /^[A-Z]{2,20}$/;
const HEADER = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;

const duration = z
  .string()
  .refine((text) => parseDuration(text) !== undefined, "is no duration such as 250ms, 5s or 1m30s");
const timeouts = z.strictObject({
  connect: duration.optional(),
  firstByte: duration.optional(),
  total: duration.optional(),
});
const reference = (...kinds: string[]) =>
  z.custom<object>(
    (value) =>
      kinds.includes((value as { kind?: string } | null)?.kind ?? "") &&
      /^[A-Za-z_]\w*$/.test((value as { name?: string }).name ?? ""),
    `must be ${kinds.map((kind) => `${kind}("NAME")`).join(" or ")}`,
  );
const policies = z.array(
  z.custom(
    (value) =>
      typeof value === "function" || ["policy", "without"].includes((value as { kind?: string } | null)?.kind ?? ""),
    "must be a policy, a Hono middleware or without(...)",
  ),
);
const conditions = z.record(z.string(), z.union([z.string(), z.instanceof(RegExp), z.literal(true)]));

const shapes = {
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
      (value) => ["backend", "split", "redirect"].includes((value as { kind?: string } | null)?.kind ?? ""),
      "must be a cluster, a cluster's service, split(...) or redirect(...)",
    ),
    policies: policies.optional(),
    timeouts: timeouts.optional(),
    websocket: z.boolean().optional(),
  }),
  match: z.strictObject({
    path: z.union([z.string().startsWith("/", "must begin with /"), z.instanceof(RegExp)]).optional(),
    methods: z.array(z.string().regex(METHOD, "is no method in upper case")).min(1).optional(),
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
      .strictObject({ host: z.string().min(1).optional(), path: z.string().startsWith("/").optional() })
      .optional(),
    scheme: z.enum(["http", "https"]).optional(),
    assertion: z.boolean().optional(),
  }),
  split: z.strictObject({
    sticky: z
      .union([
        z.enum(["subject", "client"]),
        z.strictObject({ cookie: z.string().regex(HEADER), maxAge: z.int().min(1).optional() }),
        z.strictObject({ header: z.string().regex(HEADER) }),
      ])
      .optional(),
    override: z
      .strictObject({
        header: z.string().regex(HEADER).optional(),
        cookie: z.string().regex(HEADER).optional(),
        secret: reference("secret"),
      })
      .optional(),
    salt: z.string().optional(),
  }),
  redirect: z.strictObject({
    status: z.union([z.literal(301), z.literal(302), z.literal(303), z.literal(307), z.literal(308)]).optional(),
    scheme: z.enum(["http", "https"]).optional(),
    host: z.string().regex(HOST).optional(),
    port: z.int().min(1).max(65_535).optional(),
    path: z
      .union([
        z.strictObject({ prefix: z.string().startsWith("/") }),
        z.strictObject({ full: z.string().startsWith("/") }),
      ])
      .optional(),
  }),
};

/** Adds to `problems` all that `check` finds. `true`: the declaration has the right shape, so that it can be planned. */
export function checkConfiguration(gateway: GatewayDeclaration, problems: Problems): boolean {
  const before = problems.list.length;
  shape(problems, gateway, "gateway", shapes.gateway, gateway.options);
  checkTimeouts(problems, gateway, "gateway", gateway.options?.timeouts);
  if (!Array.isArray(gateway.apis) || gateway.apis.length === 0) {
    problems.add(gateway, "gateway", "has no APIs", "give it a list of api(...)");
    return false;
  }
  const clusters = new Map<string, ClusterDeclaration>();
  const apis = unique<ApiDeclaration>(problems, "api", gateway.apis);
  const hosts = new Set(gateway.apis.flatMap((api) => (Array.isArray(api?.options?.hosts) ? api.options.hosts : [])));
  for (const api of apis) {
    const subject = `api "${api.name}"`;
    const whole = shape(problems, api, subject, shapes.api, api.options);
    if (whole) checkTimeouts(problems, api, subject, api.options.timeouts, gateway.options?.timeouts);
    if (!Array.isArray(api.routes)) {
      problems.add(api, subject, "has no list of routes", "give route(...)s as the third argument");
      continue;
    }
    for (const route of unique<RouteDeclaration>(problems, "route", api.routes, `${api.name}/`))
      checkRoute(problems, gateway, api, route, clusters, hosts);
  }
  return problems.list.length === before;
}

/** Those of `declarations` that are of the kind and whose names are unique; tells of the others. */
function unique<D extends Declaration & { readonly kind: string; readonly name: string }>(
  problems: Problems,
  kindName: string,
  declarations: readonly D[],
  prefix = "",
): D[] {
  const named = new Map<string, D>();
  const taken = new Map<D, string>();
  for (const declaration of declarations) {
    if ((declaration as { kind?: string } | null)?.kind !== kindName) {
      problems.add(
        undefined,
        `${kindName}s`,
        `the list holds something that is no ${kindName}`,
        `make each with ${kindName}(...)`,
      );
    } else if (taken.has(declaration)) {
      problems.add(declaration, `${kindName} "${prefix}${declaration.name}"`, "is listed twice", "list it once");
    } else if (typeof declaration.name !== "string" || !NAME.test(declaration.name)) {
      problems.add(
        declaration,
        `${kindName} ${JSON.stringify(declaration.name)}`,
        "is no usable name",
        "use letters, digits, - . _; 63 at most",
      );
    } else if (named.has(declaration.name)) {
      problems.add(
        declaration,
        `${kindName} "${prefix}${declaration.name}"`,
        "has the name of another",
        `name it differently: records and policies go by the name`,
      );
    } else {
      named.set(declaration.name, declaration);
      taken.set(declaration, declaration.name);
    }
  }
  return [...named.values()];
}

function checkRoute(
  problems: Problems,
  gateway: GatewayDeclaration,
  api: ApiDeclaration,
  route: RouteDeclaration,
  clusters: Map<string, ClusterDeclaration>,
  hosts: ReadonlySet<string>,
): void {
  const subject = `route "${api.name}/${route.name}"`;
  const whole = shape(problems, route, subject, shapes.route, route.options);
  if (!Array.isArray(route.matches) || route.matches.length === 0) {
    problems.add(route, subject, "matches nothing", 'give a match such as { path: "/v1/orders" }');
  } else {
    for (const match of route.matches) {
      if (shape(problems, route, subject, shapes.match, match))
        checkMatch(problems, route, subject, match, gateway.options?.escapedSlashes);
    }
  }
  if (!whole) return;
  checkTimeouts(problems, route, subject, route.options.timeouts, api.options?.timeouts, gateway.options?.timeouts);
  const { to } = route.options;
  if (to.kind === "backend") checkBackend(problems, route, subject, to, clusters);
  else if (to.kind === "split") checkSplit(problems, to, subject, clusters);
  else checkRedirect(problems, to, subject, hosts);
}

function checkMatch(
  problems: Problems,
  route: RouteDeclaration,
  subject: string,
  match: Match,
  escapedSlashes?: "refuse" | "keep",
): void {
  const { path = "/*", headers = {}, query = {}, cookies = {} } = match;
  if (path instanceof RegExp) checkRegex(problems, route, subject, path);
  else checkPath(problems, route, subject, path, escapedSlashes);
  for (const name of Object.keys(headers)) {
    if (!HEADER.test(name))
      problems.add(route, subject, `"${name}" is no header name`, "use letters, digits and hyphens");
  }
  for (const condition of [...Object.values(headers), ...Object.values(query), ...Object.values(cookies)]) {
    if (condition instanceof RegExp) checkRegex(problems, route, subject, condition);
  }
}

function checkPath(
  problems: Problems,
  route: RouteDeclaration,
  subject: string,
  path: string,
  escapedSlashes?: "refuse" | "keep",
): void {
  const value = path.endsWith("/*") ? path.slice(0, -2) || "/" : path;
  if (value.includes("*")) {
    problems.add(
      route,
      subject,
      `path "${path}" has a * that is not its last segment`,
      "end a prefix with /*, write one segment as {name}, or use a RegExp",
    );
    return;
  }
  const names = segmentsOf(value).filter((segment) => /[{}]/.test(segment));
  for (const segment of names) {
    if (!isParameter(segment) || !/^\/\{[A-Za-z_]\w*\}$/.test(segment)) {
      problems.add(
        route,
        subject,
        `path "${path}" has "${segment.slice(1)}"`,
        "a parameter is a whole segment: {name}",
      );
    }
  }
  if (new Set(names).size !== names.length)
    problems.add(route, subject, `path "${path}" names a parameter twice`, "name each parameter once");
  const plain = value.replace(/\{\w*\}/g, "parameter");
  const normal = normalisePath(plain, { ...(escapedSlashes && { escapedSlashes }) });
  if (normal.refused) {
    problems.add(
      route,
      subject,
      `path "${path}" can never match: requests for it answer 400 ${normal.refused}`,
      "write the path as clients should ask for it",
    );
  } else if (normal.path !== plain) {
    const spelled =
      value === plain
        ? `write "${normal.path}${path.endsWith("/*") ? "/*" : ""}"`
        : "write it without escapes, dots and double slashes";
    problems.add(route, subject, `path "${path}" is not in the form in which requests are matched`, spelled);
  }
  if (`${value}/`.startsWith("/.well-known/portcullis/")) {
    problems.add(route, subject, `path "${path}" is the gateway's own`, "choose another path");
  }
}

const safety = new Map<string, string | undefined>();

function checkRegex(problems: Problems, route: RouteDeclaration, subject: string, regex: RegExp): void {
  if (/[^imsu]/.test(regex.flags)) {
    problems.add(route, subject, `${regex} has flags that mean nothing in a match`, "keep only i, m, s, u");
    return;
  }
  const key = String(regex);
  if (!safety.has(key)) {
    const { status, ...found } = checkSync(`^(?:${regex.source})$`, regex.flags.replace("u", ""), { timeout: 5_000 });
    const attack = "attack" in found && found.attack ? ` on input such as ${found.attack.pattern}` : "";
    safety.set(
      key,
      status === "safe"
        ? undefined
        : status === "vulnerable"
          ? `can backtrack without end${attack}`
          : "could not be proved to be safe from backtracking",
    );
  }
  const unsafe = safety.get(key);
  if (unsafe)
    problems.add(
      route,
      subject,
      `${regex} ${unsafe}`,
      "avoid repeating what itself repeats, e.g. write [^/]+ instead of (.*)+",
    );
}

function checkBackend(
  problems: Problems,
  declaration: Declaration,
  subject: string,
  backend: Backend,
  clusters: Map<string, ClusterDeclaration>,
): void {
  if (!Array.isArray(backend.endpoints)) {
    problems.add(declaration, subject, "`to` is no backend", "use a cluster or cluster.service(name)");
    return;
  }
  for (const endpoint of backend.endpoints) {
    checkCluster(problems, endpoint.cluster, clusters);
    checkService(problems, declaration, subject, endpoint);
  }
}

function checkCluster(
  problems: Problems,
  cluster: ClusterDeclaration,
  clusters: Map<string, ClusterDeclaration>,
): void {
  const subject = `cluster ${JSON.stringify(cluster.name)}`;
  const known = clusters.get(cluster.name);
  if (known === cluster) return;
  if (known) problems.add(cluster, subject, "has the name of another cluster", "name it differently");
  clusters.set(cluster.name, cluster);
  if (typeof cluster.name !== "string" || !NAME.test(cluster.name)) {
    problems.add(cluster, subject, "is no usable name", "use letters, digits, - . _; 63 at most");
  }
  if (!shape(problems, cluster, subject, shapes.cluster, cluster.options)) return;
  const { ingress, certificate, scheme } = cluster.options;
  if (ingress.kind === "env" && scheme)
    problems.add(cluster, subject, "`scheme` is for bindings", "write the scheme into the URL in the environment");
  if (ingress.kind === "binding" && certificate) {
    problems.add(
      cluster,
      subject,
      "has a certificate and a binding, and only one can make the connection",
      "use ingress: env(...) with the certificate",
    );
  }
}

function checkService(
  problems: Problems,
  declaration: Declaration,
  subject: string,
  { cluster, service, host, path }: Endpoint,
): void {
  if (service === undefined) return;
  if (typeof service !== "string" || !/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(service)) {
    problems.add(
      declaration,
      subject,
      `${JSON.stringify(service)} is no service name`,
      "use lower case letters, digits and hyphens",
    );
  }
  const template = cluster.options?.services;
  if (!host && !path && !template?.host && !template?.path) {
    problems.add(
      declaration,
      subject,
      `nothing tells service "${service}" apart at the ingress of cluster "${cluster.name}"`,
      `give the cluster services: { host: "{service}.example.com" } or { path: "/{service}" }`,
    );
  }
  const address = (host ?? template?.host ?? "a").replace("{service}", "service");
  if (!HOST.test(address) || address.startsWith("*"))
    problems.add(
      declaration,
      subject,
      `"${host ?? template?.host}" is no host`,
      "write a host name in lower case, with {service} for the service",
    );
  const prefix = (path ?? template?.path ?? "/").replace("{service}", "service");
  if (!isNormal(prefix))
    problems.add(declaration, subject, `"${path ?? template?.path}" is no usable path prefix`, "write it as /prefix");
}

function checkSplit(
  problems: Problems,
  split: Split,
  subject: string,
  clusters: Map<string, ClusterDeclaration>,
): void {
  shape(problems, split, `${subject}, split`, shapes.split, split.options);
  const arms = Object.entries(split.arms ?? {});
  if (arms.length === 0) problems.add(split, subject, "the split has no arms", "name at least one backend");
  let sum = 0;
  for (const [name, arm] of arms) {
    if (!NAME.test(name)) problems.add(split, subject, `"${name}" is no usable arm name`, "use letters, digits, - . _");
    if ((arm as { kind?: string } | null)?.kind !== "backend") {
      problems.add(split, subject, `arm "${name}" is no backend`, "use a cluster or cluster.service(name)");
      continue;
    }
    if (typeof arm.share !== "number" || !Number.isFinite(arm.share) || arm.share < 0) {
      problems.add(split, subject, `arm "${name}" has no weight of 0 or more`, "give it one: .weight(5)");
    } else sum += arm.share;
    checkBackend(problems, split, subject, arm, clusters);
  }
  if (arms.length > 0 && sum === 0)
    problems.add(
      split,
      subject,
      "the arms' weights sum to 0, so no request could be sent anywhere",
      "give one arm a weight",
    );
  const override = split.options?.override;
  if (override && !override.header && !override.cookie) {
    problems.add(
      split,
      subject,
      "the override names neither header nor cookie",
      "say where the client states its wish",
    );
  }
}

function checkRedirect(problems: Problems, redirect: Redirect, subject: string, hosts: ReadonlySet<string>): void {
  if (!shape(problems, redirect, `${subject}, redirect`, shapes.redirect, redirect.options)) return;
  const { host, path, scheme, port } = redirect.options;
  if (
    host &&
    !hosts.has(host) &&
    ![...hosts].some((known) => known.startsWith("*.") && host.endsWith(known.slice(1)))
  ) {
    problems.add(
      redirect,
      subject,
      `redirects to "${host}", which no API declares`,
      "declare the host on an api, so that no redirect leads elsewhere by accident",
    );
  }
  if (!host && !path && !scheme && !port)
    problems.add(redirect, subject, "redirects to itself", "change host, path, scheme or port");
  const target = path && ("prefix" in path ? path.prefix : path.full);
  if (target && !isNormal(target))
    problems.add(
      redirect,
      subject,
      `"${target}" is not a normal path`,
      "write it without escapes, dots and double slashes",
    );
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

function fixFor(issue: z.core.$ZodIssue): string {
  if (issue.code === "unrecognized_keys") return "take it out, or correct the spelling";
  if (issue.code === "invalid_type") return `give ${issue.expected === "object" ? "an" : "a"} ${issue.expected}`;
  return "correct the value";
}
