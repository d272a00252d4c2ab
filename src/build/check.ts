/**
 * check: everything that is wrong with a configuration, told at once. First the shape of each declaration, then what the parts say
 * to each other. What policies know of their own options they check themselves, in `plan`.
 */
import { types } from "node:util";
import type {
  ApiDeclaration,
  GatewayDeclaration,
  GatewayOptions,
  Match,
  RouteDeclaration,
  RouteOptions,
} from "../config/api.ts";
import type { ClusterDeclaration } from "../config/cluster.ts";
import type { Declaration } from "../config/declaration.ts";
import { policyLists } from "../config/entries.ts";
import type { ListenerDeclaration } from "../config/listener.ts";
import type { PolicyDeclaration } from "../config/policy.ts";
import { type Step, unwatched } from "../prove/step.ts";
import { commonHost } from "../table/listener.ts";
import { segmentsOf } from "../table/match.ts";
import { normalisePath } from "../table/path.ts";
import type { PolicyName } from "../table/table.ts";
import { checkMirror, checkRewrite, checkTarget, type Surroundings, type Tell } from "./check-target.ts";
import { type Problems, quoted } from "./problem.ts";
import { backtracking } from "./regex.ts";
import { isName, NAME_FIX, ofKind, shape, shapes, sound, TOKEN } from "./shapes.ts";
import { checkRetryTime, checkTimeouts } from "./timeouts.ts";

/**
 * Adds to `problems` all that `check` finds, and gives what is left of the configuration without that, so that `plan` can tell its
 * own at the same time.
 */
export function checkConfiguration(
  gateway: GatewayDeclaration,
  problems: Problems,
  step: Step = unwatched,
): GatewayDeclaration {
  const { listeners: declared, ...rest } = sound(problems, gateway, "gateway", shapes.gateway, gateway.options);
  const listeners = declared && checkListeners(problems, gateway, declared);
  const options: GatewayOptions = { ...rest, ...(listeners && { listeners }) };
  checkTimeouts(problems, gateway, "gateway", options.timeouts);
  // A Gateway to which no route is attached answers 404, and is imported as what it is.
  const mayBeEmpty = options.semantics === "gateway-api" && Array.isArray(gateway.apis);
  if (!Array.isArray(gateway.apis) || (gateway.apis.length === 0 && !mayBeEmpty)) {
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
  const checkedApis = apis.map((api, number) => {
    step("checking APIs", number, apis.length);
    return checkApi(problems, api, around);
  });
  const checked = { ...gateway, options, apis: checkedApis };
  if (gateway.options?.store === undefined) {
    refuseStored(checked, problems);
    refuseHealth(around.targets, problems);
  }
  return checked;
}

/** Those that can be used. */
function checkListeners(
  problems: Problems,
  gateway: Declaration,
  declared: readonly ListenerDeclaration[],
): ListenerDeclaration[] {
  const places = new Map<string, ListenerDeclaration>();
  for (const listener of unique<ListenerDeclaration>(problems, gateway, "listener", declared)) {
    const subject = `listener "${listener.name}"`;
    if (!shape(problems, listener, subject, shapes.listener, listener.options)) continue;
    const { protocol, port, host = "*" } = listener.options;
    const place = `${protocol}://${host}:${port}`;
    const other = places.get(place);
    if (other) {
      const message = `listens where listener "${other.name}" does: ${place}`;
      problems.add(listener, subject, message, "give it another port or host, or take one out");
    } else places.set(place, listener);
  }
  return [...places.values()];
}

/** Policies that cannot be without a store, and what for. */
const STORED: Partial<Record<PolicyName, (options: Readonly<Record<string, unknown>>) => string | undefined>> = {
  rateLimit: () => "count in",
  concurrency: () => "count in",
  penaltyBox: () => "count failures in",
  apiKey: () => "look keys up in",
  basic: ({ store }) => (store === true ? "look users up in" : undefined),
  hmac: ({ nonce }) => (nonce === false ? undefined : "remember nonces in"),
};

/** Of a gateway that has no store. */
function refuseStored(gateway: GatewayDeclaration, problems: Problems): void {
  const entries = policyLists(gateway).flatMap(({ entries }) => entries);
  for (const entry of new Set(entries.flatMap(withMembers))) {
    const purpose = Object.hasOwn(STORED, entry.policy) && STORED[entry.policy]?.(entry.options ?? {});
    if (!purpose || entry.options?.mode === "off") continue;
    const fix = "give gateway({ store: { url: env(...), token: secret(...) } })";
    problems.add(entry, `policy ${entry.policy}`, `has no store to ${purpose}`, fix);
  }
}

/** The policy, and those that stand within it. */
function withMembers(entry: unknown, depth = 0): PolicyDeclaration[] {
  if (!ofKind(entry, "policy") || depth > MAX_DEPTH) return [];
  const members = (entry as PolicyDeclaration).options?.members;
  const within = Array.isArray(members) ? members.flatMap((member) => withMembers(member, depth + 1)) : [];
  return [entry as PolicyDeclaration, ...within];
}

// A policy that holds itself goes on for ever; nobody means more than this.
const MAX_DEPTH = 8;

/** Of a gateway that has no store. */
function refuseHealth(targets: Surroundings["targets"], problems: Problems): void {
  for (const target of targets.keys()) {
    const { name, options } = target as ClusterDeclaration;
    if (!ofKind(target, "cluster") || !targets.get(target) || !options.health) continue;
    const fix = "give gateway({ store: { url: env(...), token: secret(...) } })";
    problems.add(target as ClusterDeclaration, `cluster "${name}"`, "has no store to keep its health in", fix);
  }
}

function checkApi(problems: Problems, api: ApiDeclaration, around: Surroundings): ApiDeclaration {
  const subject = `api "${api.name}"`;
  const { timeouts } = api.options;
  checkTimeouts(problems, api, subject, timeouts, around.gateway.timeouts);
  const listeners = checkAttachment(problems, api, subject, around.gateway);
  const options = listeners ? { ...api.options, listeners } : api.options;
  if (!Array.isArray(api.routes) || api.routes.length === 0) {
    problems.add(api, subject, "has no list of routes", "give route(...)s as the third argument");
    return { ...api, options, routes: [] };
  }
  const routes = unique<RouteDeclaration>(problems, api, "route", api.routes, `${api.name}/`);
  return { ...api, options, routes: routes.map((route) => checkRoute(problems, route, api, around)) };
}

/** Those of the API's listeners that the gateway has; undefined: it names none. */
function checkAttachment(
  problems: Problems,
  api: ApiDeclaration,
  subject: string,
  gateway: GatewayOptions,
): readonly ListenerDeclaration[] | undefined {
  const { listeners: all = [], semantics } = gateway;
  const { listeners = all, hosts = ["*"] } = api.options;
  const known = listeners.filter((listener) => {
    if (all.includes(listener)) return true;
    const message = `is for listener ${quoted(listener.name)}, which is none of the gateway's`;
    problems.add(api, subject, message, "list it in gateway({ listeners: [...] })");
    return false;
  });
  // By the Gateway API such routes are not attached, and nothing is wrong with them.
  if (semantics !== "gateway-api" && known.length > 0 && hosts.length > 0) {
    const served = hosts.some((host) => known.some(({ options }) => commonHost(host, options.host ?? "*")));
    if (!served)
      problems.add(api, subject, "has hosts that none of its listeners has", "correct the hosts on one side");
  }
  return api.options.listeners && known;
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
  const { mirrors, rewrite, retry } = options;
  if (rewrite) checkRewrite(tell, rewrite);
  const copies = mirrors?.filter((mirror) => checkMirror(problems, mirror, subject, around));
  if (around.gateway.semantics !== "gateway-api") {
    if (retry) checkRetryTime(tell, retry, options.timeouts, api.options.timeouts, around.gateway.timeouts);
    for (const name of ["rewrite", "mirrors", "retry"] as const) {
      if (options[name] && ofKind(to, "redirect", "missing"))
        tell(`has \`${name}\`, but sends nothing to any cluster`, "take it out");
    }
  }
  const reachable = to !== undefined && checkTarget(problems, route, subject, to, around);
  const left = { ...options, ...(copies && { mirrors: copies }) };
  return { ...route, matches, options: reachable ? { ...left, to } : (left as RouteOptions) };
}

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
