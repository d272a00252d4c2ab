/**
 * endpoints.yaml: how the gateway, which is not in the cluster, reaches the Services that routes name.
 *
 *     default: { url: https://ingress.eu.example.com, host: "{service}.{namespace}.eu.example.com" }
 *     shop/orders: { binding: EU_CLUSTER }
 *     "shop/orders:8081": { binding: EU_CLUSTER, path: /admin }
 *
 * The most precise line counts, whole.
 */
import type { Node } from "yaml";
import type { Problems } from "../build/problem.ts";
import { normalisePath } from "../table/path.ts";
import { type Field, fieldOf, type Origin } from "./field.ts";
import { documentsIn, type Source } from "./manifests.ts";
import { nameOf, type ServicePort } from "./references.ts";

/** Where a Service is reached. */
export interface Address {
  /** What leads into the cluster. A `variable` holds a URL that the operator has yet to give. */
  readonly ingress: { readonly url: string } | { readonly binding: string } | { readonly variable: string };
  /** By which of these the ingress tells the Service apart; neither: by the request as it came. */
  readonly host?: string;
  readonly path?: string;
  /** The same, but for the Service's name, which still is `{service}`. */
  readonly template: { readonly host?: string; readonly path?: string };
  /** What the operator calls the cluster. */
  readonly cluster?: string;
}

export interface Endpoints {
  /** Undefined where nothing says how to reach it. */
  find(service: ServicePort): Address | undefined;
  /** Lines that no route has needed. */
  unused(): readonly Field[];
}

/** Without an endpoints.yaml: one cluster, whose ingress tells Services apart by the path in front. */
export const WITHOUT_ENDPOINTS: Endpoints = {
  find: (service) => address({ variable: "CLUSTER_INGRESS" }, { path: "/{namespace}/{service}" }, service, undefined),
  unused: () => [],
};

interface Line {
  readonly field: Field;
  readonly ingress: Readonly<Record<string, string>>;
  readonly templates: Templates;
  readonly cluster: string | undefined;
}

interface Templates {
  readonly host?: string;
  readonly path?: string;
}

const SUBJECT = "endpoints";
const KEY = /^[a-z0-9][a-z0-9.-]*\/[a-z0-9][a-z0-9.-]*(?::[0-9]{1,5})?$/;
const FIX = "write it as `namespace/service:port: { url: https://... }` or `{ binding: NAME }`, or as `default: ...`";

export function readEndpoints({ text, file }: Source, problems: Problems): Endpoints {
  const origin: Origin = { file, problems, subject: SUBJECT };
  const [first, ...more] = documentsIn(text, file, problems, SUBJECT);
  if (more.length > 0) problems.addAt(file, 1, SUBJECT, "are more than one document", "keep one");
  const root = first && fieldOf(first.document.contents as Node, first.document, first.lines, origin);
  const lines = new Map<string, Line>();
  for (const [key, field] of root?.members() ?? []) {
    if (key !== "default" && !KEY.test(key)) field.problem("is neither a service nor `default`", FIX);
    const line = lineOf(field);
    if (line) lines.set(key, line);
  }
  const used = new Set<Line>();
  const wrong = new Set<Line>();
  return {
    find(service) {
      const { namespace, service: name } = service;
      const line = lines.get(nameOf(service)) ?? lines.get(`${namespace}/${name}`) ?? lines.get("default");
      if (!line) return undefined;
      used.add(line);
      const found = address(
        fillAll(line.ingress, service) as Address["ingress"],
        line.templates,
        service,
        line.cluster,
      );
      // Hundreds of Services may go by one line: what is wrong with it is told of the first of them.
      const before = problems.count;
      if (!wrong.has(line)) checkAddress(found, line.field);
      if (problems.count > before) wrong.add(line);
      return found;
    },
    unused: () => [...lines.values()].flatMap((line) => (used.has(line) ? [] : [line.field])),
  };
}

function lineOf(field: Field): Line | undefined {
  const known = ["url", "binding", "host", "path", "cluster"];
  for (const [name, member] of field.members())
    if (!known.includes(name)) member.problem("is unknown here", `choose from ${known.join(", ")}`);
  const text = (name: string): string | undefined => {
    const member = field.at(name);
    const value = member?.text();
    const unknown = value?.match(/\{(?!(?:namespace|service|port)\})[^}]*\}?/)?.[0];
    if (unknown) member?.problem(`has ${unknown}`, "the templates are {namespace}, {service} and {port}");
    return value;
  };
  const [url, binding, host, path, cluster] = known.map(text);
  if (field.content instanceof Map && (url === undefined) === (binding === undefined))
    field.problem(url === undefined ? "has neither url nor binding" : "has both url and binding", FIX);
  if (cluster !== undefined && !/^[A-Za-z][A-Za-z0-9-]{0,40}$/.test(cluster))
    field.at("cluster")?.problem("is no usable name", "use letters, digits and -; 41 at most");
  if (url === undefined && binding === undefined) return undefined;
  const ingress = url !== undefined ? { url } : { binding: binding as string };
  return { field, ingress, templates: { ...(host && { host }), ...(path && { path }) }, cluster };
}

function address(
  ingress: Address["ingress"],
  templates: Templates,
  service: ServicePort,
  cluster: string | undefined,
): Address {
  const template = fillAll(templates, { ...service, service: "{service}" });
  return { ingress, ...fillAll(templates, service), template, ...(cluster && { cluster }) };
}

const fillAll = <Texts extends Readonly<Record<string, string>> | Templates>(
  texts: Texts,
  service: ServicePort,
): Texts =>
  Object.fromEntries(
    Object.entries(texts).map(([name, text]) => [
      name,
      (text as string).replace(/\{(namespace|service|port)\}/g, (_, part: keyof ServicePort) => String(service[part])),
    ]),
  ) as Texts;

const HOST = /^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

/** What `check` would refuse in the module later, told of the line that the person can correct. */
function checkAddress({ ingress, host, path }: Address, field: Field): void {
  if ("url" in ingress) {
    // Who writes a password there has not meant to read it in a log.
    const shown = JSON.stringify(ingress.url.replace(/\/\/.*@/s, "//…@"));
    if (!isIngressUrl(ingress.url))
      field.problem(`gives ${shown}, which is no ingress URL`, "write https://host[:port][/path]");
    else if (PLAIN_HTTP.test(new URL(ingress.url).origin))
      field.problem(
        `gives ${shown}, which would carry requests over plain http`,
        "use https, or a binding; http is for loopback addresses",
      );
  }
  if ("binding" in ingress && !/^[\w./:-]+$/.test(ingress.binding))
    field.problem(
      `gives ${JSON.stringify(ingress.binding)}, which is no name of a binding`,
      "use letters, digits and _ . / : -",
    );
  if (host !== undefined && !HOST.test(host))
    field.problem(`gives "${host}", which is no host`, "write a host name in lower case");
  const normal = path === undefined ? undefined : normalisePath(path);
  if (normal && (normal.refused || normal.path !== path || !path?.startsWith("/")))
    field.problem(`gives "${path}", which is no path`, "write it as /prefix");
}

// To elsewhere than a loopback address.
const PLAIN_HTTP = /^http:\/\/(?!(?:localhost|127\.\d+\.\d+\.\d+|\[::1\])(?::\d+)?$)/;

function isIngressUrl(text: string): boolean {
  const url = URL.parse(text);
  return url !== null && /^https?:$/.test(url.protocol) && !url.username && !url.password && !url.search && !url.hash;
}
