/** Whether requests can be sent where a route leads: backends and their clusters, splits, mirrors, redirects. */
import type { GatewayOptions } from "../config/api.ts";
import type {
  Backend,
  ClusterDeclaration,
  Endpoint,
  Level,
  Mirror,
  Missing,
  Redirect,
  Rewrite,
  Split,
  Target,
} from "../config/cluster.ts";
import type { Declaration, Fix } from "../config/declaration.ts";
import { headerChanges } from "../policies/headers.ts";
import { normalisePath } from "../table/path.ts";
import { ingressFault } from "./environment.ts";
import { type Problems, quoted } from "./problem.ts";
import { resolveOutlier } from "./resilience.ts";
import { HOST, isName, NAME_FIX, ofKind, shape, shapes, sound } from "./shapes.ts";

const BACKEND_FIX = "use a cluster or cluster.service(name)";

export type Tell = (message: string, fix: Fix) => void;

/** What stands around a route. */
export interface Surroundings {
  readonly gateway: GatewayOptions;
  /** Clusters, backends, splits, mirrors and redirects that have been looked at, and whether they are sound: each is told once. */
  readonly targets: Map<object, boolean>;
  /** All that any API declares. */
  readonly hosts: ReadonlySet<string>;
}

/** By whose problem it is told. */
interface Told {
  readonly problems: Problems;
  readonly declaration: Declaration;
  readonly subject: string;
  readonly tell: Tell;
}

const toldBy = (problems: Problems, declaration: Declaration, subject: string): Told => ({
  problems,
  declaration,
  subject,
  tell: (message, fix) => problems.add(declaration, subject, message, fix),
});

/** Whether requests can be sent there. */
export function checkTarget(
  problems: Problems,
  route: Declaration,
  subject: string,
  to: Target,
  around: Surroundings,
): boolean {
  return once(around.targets, to, () => {
    const before = problems.count;
    const reachable =
      to.kind === "backend"
        ? checkBackend(toldBy(problems, route, subject), to, around)
        : to.kind === "split"
          ? checkSplit(problems, to, subject, around)
          : checkOther(problems, to, subject, around);
    return reachable && problems.count === before;
  });
}

/** Whether copies can be sent there. */
export function checkMirror(problems: Problems, mirror: Mirror, subject: string, around: Surroundings): boolean {
  return once(around.targets, mirror, () => {
    if (!shape(problems, mirror, subject, shapes.mirror, mirror)) return false;
    const before = problems.count;
    const told = toldBy(problems, mirror, subject);
    if (mirror.options.percent !== undefined && mirror.options.fraction)
      told.tell("the mirror has a percentage and a fraction", "keep one of them");
    const { fraction: [numerator, denominator] = [0, 1] } = mirror.options;
    if (numerator > denominator) told.tell("the mirror's fraction is more than all requests", "write 1 of 3 as [1, 3]");
    const reachable = checkBackend(told, mirror.to, around);
    if (reachable) {
      const endpoints = mirror.to.levels.flatMap(({ endpoints }) => endpoints);
      if (endpoints.length > 1) told.tell("copies go to one backend, and this is several", "mirror to each of them");
      if (endpoints.some(({ mirrors }) => mirrors))
        told.tell("a mirror's backend has mirrors itself", "list all mirrors on the route");
    }
    return reachable && problems.count === before;
  });
}

export function checkRewrite(tell: Tell, { path }: Rewrite): void {
  checkNewPath(tell, path);
}

function once(targets: Map<object, boolean>, value: object, check: () => boolean): boolean {
  const known = targets.get(value);
  if (known !== undefined) return known;
  const verdict = check();
  targets.set(value, verdict);
  return verdict;
}

function checkOther(
  problems: Problems,
  target: Redirect | Missing,
  subject: string,
  { gateway, hosts }: Surroundings,
): boolean {
  if (target.kind === "missing") return shape(problems, target, subject, shapes.missing, target);
  const before = problems.count;
  checkRedirect(problems, target, subject, gateway.semantics === "gateway-api" ? undefined : hosts);
  return problems.count === before;
}

function checkBackend(told: Told, backend: Backend, around: Surroundings): boolean {
  const { problems, declaration, subject, tell } = told;
  if (!Array.isArray(backend.levels) || backend.levels.length === 0) {
    tell("leads to a backend without endpoints", BACKEND_FIX);
    return false;
  }
  if (!shape(problems, declaration, subject, shapes.backend, backend)) return false;
  let reachable = true;
  for (const level of backend.levels) {
    let sound = true;
    for (const endpoint of level.endpoints) sound = checkEndpoint(told, endpoint, around) && sound;
    if (sound) checkLevel(tell, level, backend.nearest === true);
    reachable &&= sound;
  }
  return reachable;
}

function checkEndpoint(told: Told, endpoint: Endpoint, around: Surroundings): boolean {
  const { problems, declaration, subject, tell } = told;
  if (!shape(problems, declaration, subject, shapes.endpoint, endpoint)) return false;
  if (!checkCluster(problems, endpoint.cluster, around.targets)) return false;
  checkService(tell, endpoint);
  if (endpoint.rewrite) checkRewrite(tell, endpoint.rewrite);
  for (const direction of ["request", "response"] as const)
    headerChanges(endpoint.headers?.[direction], direction, { problem: tell, reference: () => ({ env: "" }) });
  return (endpoint.mirrors ?? []).every((mirror) => checkMirror(problems, mirror, subject, around));
}

function checkLevel(tell: Tell, { endpoints }: Level, nearest: boolean): void {
  if (endpoints.every(({ weight }) => weight === 0))
    tell("the balanced backends' weights sum to 0, so no request could be sent anywhere", "give one of them a weight");
  if (!nearest) return;
  for (const name of new Set(endpoints.filter((one) => !one.cluster.options.region).map((one) => one.cluster.name)))
    tell(`asks for the nearest, but cluster "${name}" has no region`, "give the cluster its region");
}

const NO_EJECTION = { baseEjectionTime: 0, maxEjectionTime: 0 };

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
    const { ingress, certificate, scheme, outlier, health } = cluster.options;
    if (ofKind(ingress, "env") && scheme)
      tell("`scheme` is for bindings", "write the scheme into the URL in the environment");
    if (ofKind(ingress, "binding") && certificate) {
      const message = "has a certificate and a binding, and only one can make the connection";
      tell(message, "use ingress: env(...) with the certificate");
    }
    const otherwise = ingress.kind === "env" ? ingress.otherwise : undefined;
    const fault = otherwise === undefined ? undefined : ingressFault(otherwise);
    if (fault) problems.add(ingress, `env(${quoted(ingress.name)})`, ...fault);
    const { baseEjectionTime, maxEjectionTime } = outlier ? resolveOutlier(outlier) : NO_EJECTION;
    if (baseEjectionTime > maxEjectionTime)
      tell("the first ejection lasts longer than any may", "make `baseEjectionTime` at most `maxEjectionTime`");
    if (health?.path && !isNormal(health.path.split("?", 1)[0] as string))
      tell(`"${health.path}" is not a normal path`, "write it without escapes, dots and double slashes");
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

function checkSplit(problems: Problems, split: Split, subject: string, around: Surroundings): boolean {
  const told = toldBy(problems, split, subject);
  const { tell } = told;
  const { override } = sound(problems, split, subject, shapes.split, split.options);
  const arms = Object.entries(typeof split.arms === "object" ? (split.arms ?? {}) : {});
  if (arms.length === 0) tell("the split has no arms", "name at least one backend");
  let reachable = true;
  for (const [name, arm] of arms) {
    if (!isName(name)) tell(`"${name}" is no usable arm name`, NAME_FIX);
    if (!ofKind(arm, "backend", "redirect", "missing")) tell(`arm "${name}" is no backend`, BACKEND_FIX);
    else if (arm.kind === "backend") reachable = checkBackend(told, arm, around) && reachable;
    else reachable = checkOther(problems, arm, subject, around) && reachable;
  }
  const shares = arms.map(([, arm]) => (arm as { share?: unknown } | null)?.share);
  shares.forEach((share, position) => {
    if (!isWeight(share) && ofKind(arms[position]?.[1], "backend", "redirect", "missing"))
      tell(`arm "${arms[position]?.[0]}" has no weight of 0 or more`, "give it one: .weight(5)");
  });
  if (arms.length > 0 && shares.every((share) => share === 0) && around.gateway.semantics !== "gateway-api")
    tell("the arms' weights sum to 0, so no request could be sent anywhere", "give one arm a weight");
  if (override && !override.header && !override.cookie)
    tell("the override names neither header nor cookie", "say where the client states its wish");
  return reachable;
}

const isWeight = (share: unknown): share is number => typeof share === "number" && share >= 0 && share <= 1e9;

/** `hosts` are those that it may lead to; undefined: any. */
function checkRedirect(
  problems: Problems,
  redirect: Redirect,
  subject: string,
  hosts: ReadonlySet<string> | undefined,
): void {
  if (!shape(problems, redirect, subject, shapes.redirect, redirect.options)) return;
  const tell: Tell = (message, fix) => problems.add(redirect, subject, message, fix);
  const { host, path, scheme, port } = redirect.options;
  const declared = (name: string) =>
    hosts?.has(name) || [...(hosts ?? [])].some((known) => known.startsWith("*.") && name.endsWith(known.slice(1)));
  if (hosts && host && !declared(host)) {
    const fix = "declare the host on an api, so that no redirect leads elsewhere by accident";
    tell(`redirects to "${host}", which no API declares`, fix);
  }
  if (hosts && !host && !path && !scheme && !port) tell("redirects to itself", "change host, path, scheme or port");
  checkNewPath(tell, path);
}

function checkNewPath(tell: Tell, path: Rewrite["path"]): void {
  const target = path && ("prefix" in path ? path.prefix : path.full);
  if (target && !isNormal(target))
    tell(`"${target}" is not a normal path`, "write it without escapes, dots and double slashes");
}

const isNormal = (path: string): boolean => {
  const normal = normalisePath(path);
  return !normal.refused && normal.path === path;
};
