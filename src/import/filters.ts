/** Filters of a rule or of one of its backendRefs (HTTPRouteFilter, GRPCRouteFilter), in the language of routes/. */
import type { CompileContext } from "../policies/contract.ts";
import { compile as compileCors, schema as corsSchema } from "../policies/cors.ts";
import { compile as compileHeaders, schema as headersSchema } from "../policies/headers.ts";
import { normalisePath } from "../table/path.ts";
import type { Clusters } from "./clusters.ts";
import { type Code, call, type Properties, properties } from "./code.ts";
import type { Field } from "./field.ts";
import { hostnameOf } from "./listeners.ts";
import type { Resource } from "./manifests.ts";
import type { References } from "./references.ts";

export interface Filters {
  /** `{ request, response }` of the headers policy. */
  readonly headers?: Properties;
  readonly cors?: Code;
  readonly redirect?: Code;
  readonly rewrite?: Properties;
  readonly mirrors?: readonly Code[];
  /** Why none of this may be done: a filter that cannot be carried must not be skipped (HTTPRouteFilter.type). */
  readonly unsupported?: string;
}

/** What filters stand in. */
export interface Surroundings {
  readonly route: Resource;
  readonly references: References;
  readonly clusters: Clusters;
  /** Whether all matches of the rule are prefixes, which can be replaced. */
  readonly canReplacePrefix: boolean;
}

const HTTP_RULE = [
  "RequestHeaderModifier",
  "ResponseHeaderModifier",
  "RequestMirror",
  "RequestRedirect",
  "URLRewrite",
  "CORS",
];
const SUPPORTED = {
  HTTPRoute: { rule: HTTP_RULE, backendRef: HTTP_RULE.filter((type) => type !== "CORS") },
  GRPCRoute: { rule: HTTP_RULE.slice(0, 3), backendRef: HTTP_RULE.slice(0, 3) },
};

/** The filters of `owner`, a rule or a backendRef. */
export function filtersOf(owner: Field, place: "rule" | "backendRef", around: Surroundings): Filters {
  const supported = SUPPORTED[around.route.kind as keyof typeof SUPPORTED][place];
  const found: { -readonly [Name in keyof Filters]: Filters[Name] } = {};
  const headers: Record<string, Properties | undefined> = {};
  const mirrors: Code[] = [];
  const seen = new Set<string>();
  const listed = owner.items("filters").map((field) => ({ field, type: field.required("type")?.text() }));
  const redirects = listed.some(({ type }) => type === "RequestRedirect");
  const fails = listed.some(({ type }) => type !== undefined && !supported.includes(type));
  for (const { field, type } of listed) {
    if (type === undefined) continue;
    if (!supported.includes(type)) {
      const extension = field.at("extensionRef");
      const which = extension && ` (${[extension.at("kind")?.text(), extension.at("name")?.text()].join(" ")})`;
      found.unsupported ??= `filter ${type}${which ?? ""} cannot be carried`;
      field.refuse(`cannot be carried on a ${place}: requests answer 500`);
      continue;
    }
    if (seen.has(type) && type !== "RequestMirror") {
      field.refuse(`${type} is there already, and cannot be repeated`);
      continue;
    }
    seen.add(type);
    if ((redirects || fails) && (type === "RequestMirror" || type === "URLRewrite")) {
      if (fails) field.ignore("requests answer 500");
      else field.refuse("there is a redirect, so nothing is sent on");
      continue;
    }
    const options = field.required(
      `${type[0]?.toLowerCase()}${type.slice(1)}`.replace(/^uRL/, "url").replace(/^cORS/, "cors"),
    );
    if (!options) continue;
    if (type === "RequestHeaderModifier") headers.request = headerChanges(options, "request");
    else if (type === "ResponseHeaderModifier") headers.response = headerChanges(options, "response");
    else if (type === "RequestMirror") mirrors.push(...mirrorOf(options, around));
    else {
      const made = OTHERS[type]?.(options, around);
      if (made) Object.assign(found, made);
      else found.unsupported ??= `filter ${type} cannot be carried`;
    }
  }
  if (headers.request || headers.response) found.headers = properties(headers);
  if (mirrors.length > 0) found.mirrors = mirrors;
  return found;
}

/** Undefined for one that cannot be carried. */
const OTHERS: Readonly<Record<string, (options: Field, around: Surroundings) => Filters | undefined>> = {
  RequestRedirect: redirectOf,
  URLRewrite: rewriteOf,
  CORS: corsOf,
};

/** HTTPHeaderFilter. Of several actions on one header only the first is done, as more of them are invalid. */
function headerChanges(field: Field, direction: "request" | "response"): Properties | undefined {
  const seen = new Set<string>();
  const usable = (at: Field, name: string | undefined, action: "set" | "add" | "remove", value: string): boolean => {
    if (name === undefined) return false;
    const fault = headerFault(direction, action, name, value);
    if (fault) at.refuse(fault);
    else if (seen.has(name.toLowerCase())) at.refuse("another action on this header is there already");
    else {
      seen.add(name.toLowerCase());
      return true;
    }
    return false;
  };
  const values = (action: "set" | "add") => {
    const entries = field.items(action).flatMap((item): [string, string][] => {
      const name = item.required("name")?.text();
      const value = item.required("value")?.text() ?? "";
      return usable(item, name, action, value) ? [[name as string, value]] : [];
    });
    return entries.length > 0 ? properties(entries) : undefined;
  };
  const [set, add] = [values("set"), values("add")];
  const remove = field.items("remove").flatMap((item) => {
    const name = item.text();
    return usable(item, name, "remove", "") ? [name as string] : [];
  });
  if (!set && !add && remove.length === 0) return undefined;
  return properties({ remove: remove.length > 0 ? remove : undefined, set, add });
}

const HEADERS = headersSchema();
const CORS = corsSchema();

/** What the headers policy itself would say. */
function headerFault(direction: string, action: string, name: string, value: string): string | undefined {
  if (name === "__proto__") return "is no usable name";
  const options = { [direction]: { [action]: action === "remove" ? [name] : { [name]: value } } };
  const parsed = HEADERS.safeParse(options);
  if (!parsed.success) return `the header ${parsed.error.issues[0]?.message}`;
  return faultOf((context) => compileHeaders(options, context));
}

function faultOf(compile: (context: CompileContext) => unknown): string | undefined {
  let fault: string | undefined;
  compile({
    place: "",
    semantics: "gateway-api",
    problem: (message: string) => {
      fault ??= message;
    },
    reference: () => ({ env: "" }),
    identityHeaders: () => {},
    ruleSet: () => undefined,
    member: () => undefined as never,
  } as CompileContext);
  return fault;
}

/** HTTPRequestMirrorFilter; none where the reference is invalid, which then is dropped. */
function mirrorOf(field: Field, { route, references, clusters }: Surroundings): Code[] {
  const ref = field.required("backendRef");
  const resolved = ref && references.resolve(ref, route);
  const percent = field.at("percent")?.integer(0, 100);
  const fraction = field.at("fraction");
  const numerator = fraction?.required("numerator")?.integer(0, 2 ** 31 - 1);
  const denominator = fraction?.at("denominator")?.integer(1, 2 ** 31 - 1) ?? 100;
  if (percent !== undefined && fraction) fraction.refuse("there is a percentage already");
  else if (numerator !== undefined && numerator > denominator) {
    fraction?.refuse("is more than all requests");
    return [];
  }
  if (!resolved || "missing" in resolved) return [];
  field.differ("bodies of more than 64 KiB are not copied");
  const share = percent === undefined && numerator !== undefined ? { fraction: [numerator, denominator] } : {};
  // The Gateway API copies whatever the method is.
  return [call("mirror", clusters.backend(resolved.to), properties({ percent, ...share, methods: "any" }))];
}

/** HTTPRequestRedirectFilter. */
function redirectOf(field: Field, around: Surroundings): Filters | undefined {
  const scheme = field.at("scheme")?.choice("http", "https");
  const host = field.at("hostname");
  const hostname = host && preciseHostname(host);
  const path = field.at("path");
  const newPath = path && pathModifier(path, around);
  const port = field.at("port")?.integer(1, 65_535);
  const code = field.at("statusCode");
  const status = code?.integer(100, 599);
  if (status !== undefined && ![301, 302, 303, 307, 308].includes(status))
    code?.refuse("is no status of a redirect here");
  const members = [field.at("scheme"), host, path, code];
  if (members.some((member) => member?.verdict?.kind === "refused") || (path && !newPath)) return undefined;
  return { redirect: call("redirect", properties({ status, scheme, host: hostname, port, path: newPath })) };
}

/** HTTPURLRewriteFilter. */
function rewriteOf(field: Field, around: Surroundings): Filters | undefined {
  const host = field.at("hostname");
  const hostname = host && preciseHostname(host);
  const path = field.at("path");
  const newPath = path && pathModifier(path, around);
  if ((host && !hostname) || (path && !newPath)) return undefined;
  const rewrite = properties({ host: hostname, path: newPath });
  return rewrite.entries.length > 0 ? { rewrite } : {};
}

function preciseHostname(field: Field): string | undefined {
  const hostname = hostnameOf(field);
  if (!hostname?.startsWith("*")) return hostname;
  field.refuse("is no single host");
  return undefined;
}

/** HTTPPathModifier. */
function pathModifier(field: Field, { canReplacePrefix }: Surroundings): Properties | undefined {
  const type = field.required("type")?.choice("ReplaceFullPath", "ReplacePrefixMatch");
  if (type === undefined) return undefined;
  const value = field.required(type === "ReplaceFullPath" ? "replaceFullPath" : "replacePrefixMatch");
  const text = value?.text();
  if (value === undefined || text === undefined) return undefined;
  if (type === "ReplacePrefixMatch" && !canReplacePrefix) {
    field.refuse("there is no prefix to replace: every match of the rule must be a PathPrefix");
    return undefined;
  }
  const absolute = text.startsWith("/") ? text : `/${text}`;
  const normal = /[?#]/.test(absolute) ? undefined : normalisePath(absolute);
  if (!normal || normal.refused !== undefined) {
    value.refuse(`${JSON.stringify(text)} is no path`);
    return undefined;
  }
  // An empty replacement of a prefix is the same as "/", by the table in HTTPPathModifier.
  if (text !== "" && normal.path !== text) value.differ(`written as ${normal.path}`);
  return properties({ [type === "ReplaceFullPath" ? "full" : "prefix"]: normal.path });
}

/** HTTPCORSFilter. What it does not list is not allowed, where the policy by itself would allow what the browser asks for. */
function corsOf(field: Field): Filters {
  const texts = (name: string, fault: (text: string) => string | undefined): string[] =>
    field.items(name).flatMap((item) => {
      const text = item.text();
      const reason = text === undefined ? undefined : fault(text);
      if (reason) item.refuse(reason);
      return text === undefined || reason ? [] : [text];
    });
  const optionFault = (options: Record<string, unknown>): string | undefined =>
    CORS.safeParse({ origins: ["*"], ...options }).error?.issues[0]?.message;
  // Browsers send it in lower case (Fetch, 3.2.1).
  const origins = texts("allowOrigins", (origin) =>
    faultOf((context) => compileCors({ origins: [origin.toLowerCase()] }, context)),
  ).map((origin) => origin.toLowerCase());
  const methods = texts("allowMethods", (text) => optionFault({ methods: [text] }));
  const headers = texts("allowHeaders", (text) => optionFault({ headers: [text] }));
  const expose = texts("exposeHeaders", (text) => optionFault({ expose: [text] }));
  const credentials = field.at("allowCredentials")?.flag();
  const maxAge = field.at("maxAge")?.integer(1, 2 ** 31 - 1);
  if (origins.length === 0) field.differ("allows no origin, so no answer has CORS headers, not even the Service's own");
  const options = properties({
    origins,
    // Those that need no asking (Fetch, CORS-safelisted method).
    methods: methods.length > 0 ? methods : ["GET", "HEAD", "POST"],
    headers,
    expose: expose.length > 0 ? expose : undefined,
    credentials: credentials || undefined,
    maxAge,
  });
  return { cors: call("cors", options) };
}
