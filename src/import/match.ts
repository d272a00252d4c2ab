/** What a match of a route asks for, in the language of routes/. */
import { backtracking } from "../build/regex.ts";
import { gatewayHeaders } from "../table/gateway-headers.ts";
import { normalisePath } from "../table/path.ts";
import { type Code, type Properties, properties } from "./code.ts";
import type { Field } from "./field.ts";

export interface Match {
  readonly code: Properties;
  /** Out of which the route's name is made. */
  readonly hint: string;
  /** Only a prefix can be replaced. */
  readonly isPrefix: boolean;
}

interface Path {
  readonly code: string | RegExp;
  readonly hint: string;
  readonly isPrefix: boolean;
}

const EVERY_PATH: Path = { code: "/*", hint: "all", isPrefix: true };
export const EVERY_REQUEST: Match = { code: properties({ path: "/*" }), hint: "all", isPrefix: true };

/** HTTPRouteMatch. Undefined, and refused, where any part of it cannot be carried: without it the match would take more. */
export function httpMatch(field: Field): Match | undefined {
  const path = pathOf(field.at("path"));
  const method = field
    .at("method")
    ?.choice("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE");
  if (method === "CONNECT" || method === "TRACE") field.at("method")?.refuse(`a Worker cannot forward ${method}`);
  const headers = conditionsOf(field, "headers");
  const query = conditionsOf(field, "queryParams");
  if (!path || !headers || !query || field.at("method")?.verdict?.kind === "refused") return undefined;
  return {
    code: properties({ path: path.code, methods: method && [method], headers: some(headers), query: some(query) }),
    hint: method ? `${method.toLowerCase()}-${path.hint}` : path.hint,
    isPrefix: path.isPrefix,
  };
}

/**
 * GRPCRouteMatch: a call of a method is a POST to /service/method (gRPC over HTTP/2, Requests). `amongMethods`: another match is by a
 * method alone (byMethodAlone).
 */
export function grpcMatch(field: Field, amongMethods: boolean): Match | undefined {
  const path = grpcPath(field.at("method"), amongMethods);
  const headers = conditionsOf(field, "headers");
  if (!path || !headers) return undefined;
  return {
    code: properties({ path: path.code, methods: ["POST"], headers: some(headers) }),
    hint: path.hint,
    isPrefix: path.isPrefix,
  };
}

export const EVERY_CALL: Match = {
  code: properties({ path: "/*", methods: ["POST"] }),
  hint: "all",
  isPrefix: true,
};

const some = (conditions: readonly (readonly [string, Code])[]): Properties | undefined =>
  conditions.length > 0 ? properties(conditions) : undefined;

// What HTTPPathMatch lets through for Exact and PathPrefix.
const PLAIN_PATH = /^\/(?!.*(?:\/\/|\/\.\.?(?:\/|$)|%2[fF]))(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})*$/;
/** Served by the gateway itself. */
const OWN_PATH = "/.well-known/portcullis/";

function pathOf(field: Field | undefined): Path | undefined {
  if (!field) return EVERY_PATH;
  const type = field.at("type") ? field.at("type")?.choice("Exact", "PathPrefix", "RegularExpression") : "PathPrefix";
  const value = field.at("value");
  const text = value ? value.text() : "/";
  if (type === undefined || text === undefined) return undefined;
  if (type === "RegularExpression") {
    const code = regexOf(value ?? field, text, true);
    return code && { code, hint: text, isPrefix: false };
  }
  const normal = PLAIN_PATH.test(text) ? normalisePath(text) : { refused: "no path" };
  if (normal.refused !== undefined) {
    (value ?? field).refuse(`${JSON.stringify(text)} is not a path that requests can have`);
    return undefined;
  }
  const isPrefix = type === "PathPrefix";
  // A trailing slash of a prefix is ignored.
  const path = isPrefix ? normal.path.replace(/\/$/, "") : normal.path;
  if (`${path}/`.startsWith(OWN_PATH)) {
    (value ?? field).refuse(`${OWN_PATH} is the gateway's own`);
    return undefined;
  }
  if (normal.path !== text) value?.differ(`requests are matched in the spelling ${normal.path}`);
  const hint = path.replaceAll(/[^A-Za-z0-9]+/g, "-").replaceAll(/^-|-$/g, "") || (isPrefix ? "all" : "root");
  if (!path.includes("*")) return { code: isPrefix ? `${path}/*` : path, hint, isPrefix };
  // In a path of the language a star is the rest; as a regex it is a star.
  value?.differ("written as a regex, which goes after exact paths and before prefixes");
  const source = path.replaceAll(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
  return { code: new RegExp(isPrefix ? `${source}(?:\\/.*)?` : source), hint, isPrefix: false };
}

/** Whether a GRPCRoute has a match by a method, of whatever service. */
export const byMethodAlone = (route: Field): boolean =>
  (route.at("spec")?.items("rules") ?? []).some((rule) =>
    rule.items("matches").some((match) => {
      const method = match.at("method");
      return Boolean(method?.at("method")?.content) && !method?.at("service")?.content;
    }),
  );

function grpcPath(field: Field | undefined, amongMethods: boolean): Path | undefined {
  if (!field) return EVERY_PATH;
  const type = field.at("type") ? field.at("type")?.choice("Exact", "RegularExpression") : "Exact";
  // An empty one is none.
  const service = field.at("service")?.text() || undefined;
  const method = field.at("method")?.text() || undefined;
  if (type === undefined) return undefined;
  const hint = [service, method].filter(Boolean).join("-") || "all";
  if (type === "RegularExpression") {
    const parts = [service, method].map((part) =>
      part === undefined ? "[^/]+" : part.includes("|") ? `(?:${part})` : part,
    );
    const code = regexOf(field, `/${parts.join("/")}`, true);
    return code && { code, hint, isPrefix: false };
  }
  const named = [service, method].filter((part) => part !== undefined);
  if (!named.every((name) => /^\.?[A-Za-z_][\w.]*$/.test(name))) {
    field.refuse("names no gRPC service or method");
    return undefined;
  }
  if (service !== undefined && method !== undefined) return { code: `/${service}/${method}`, hint, isPrefix: false };
  // A service goes before a method (GRPCRouteRule.matches), and a regex with more leading segments before one with fewer, but any regex
  // before a prefix.
  if (service !== undefined && amongMethods)
    return { code: new RegExp(`\\/${service.replaceAll(".", "\\.")}\\/[^/]+`), hint, isPrefix: false };
  if (service !== undefined) return { code: `/${service}/*`, hint, isPrefix: true };
  if (method === undefined) return EVERY_PATH;
  return { code: new RegExp(`\\/[^/]+\\/${method}`), hint, isPrefix: false };
}

// A token of RFC 9110, 5.6.2.
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const isGateways = gatewayHeaders([]);

/** HTTPHeaderMatch, HTTPQueryParamMatch or GRPCHeaderMatch; of equal names only the first counts. Undefined where one is refused. */
function conditionsOf(match: Field, list: "headers" | "queryParams"): [string, string | RegExp][] | undefined {
  const seen = new Set<string>();
  const conditions: [string, string | RegExp][] = [];
  let refused = false;
  for (const field of match.items(list)) {
    const type = field.at("type") ? field.at("type")?.choice("Exact", "RegularExpression") : "Exact";
    const name = field.required("name")?.text();
    const value = field.required("value");
    const text = value?.text();
    if (name === undefined || value === undefined || text === undefined) continue;
    const known = list === "headers" ? name.toLowerCase() : name;
    if (seen.has(known)) {
      field.ignore("the first condition with this name counts");
      continue;
    }
    seen.add(known);
    const fault =
      name === "__proto__" || (list === "headers" && !TOKEN.test(name))
        ? `${JSON.stringify(name)} is no usable name`
        : list === "headers" &&
          isGateways(known) &&
          `${name} is for the gateway alone to say: here it is whatever the client sent`;
    if (fault) field.refuse(fault);
    const condition = type === "RegularExpression" ? regexOf(value, text, false) : text;
    if (fault || type === undefined || condition === undefined) refused = true;
    else conditions.push([name, condition]);
  }
  return refused ? undefined : conditions;
}

/** A regex of RE2, as Envoy and others take it, in JavaScript. Undefined, and refused, where that is another or none. */
function regexOf(field: Field, text: string, isPath: boolean): RegExp | undefined {
  const refuse = (reason: string): undefined => void field.refuse(reason);
  const [, flags = "", source = ""] = /^(?:\(\?([is]+)\))?(.*)$/s.exec(text) ?? [];
  const foreign = /\\[AzZQECpPG]|\(\?P|\[\[:|\(\?[a-zA-Z-]+[:)]/.exec(source)?.[0];
  if (foreign) return refuse(`${foreign} is of RE2 and not of JavaScript`);
  let regex: RegExp;
  try {
    regex = new RegExp(source, [...new Set(flags)].join(""));
  } catch {
    return refuse(`${JSON.stringify(text)} is no regex of JavaScript`);
  }
  if (isPath && !/^\^?(?:\\?\/|[.([])/.test(source)) return refuse("never matches: every path begins with /");
  const unsafe = backtracking(new RegExp(regex.source, `${regex.flags.replace("s", "")}s`));
  if (unsafe) return refuse(unsafe);
  field.differ("a regex of JavaScript, which must match the whole value");
  return regex;
}
