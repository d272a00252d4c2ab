/** A rule of an HTTPRoute or GRPCRoute as a route of an API. */
import { parseDuration } from "../config/duration.ts";
import {
  type Call,
  type Code,
  type Commented,
  type Constant,
  call,
  method,
  type Properties,
  properties,
} from "./code.ts";
import type { Field } from "./field.ts";
import { type Filters, filtersOf, type Surroundings } from "./filters.ts";
import { EVERY_CALL, EVERY_REQUEST, grpcMatch, httpMatch, type Match } from "./match.ts";
import { Names, nameFrom } from "./names.ts";
import { refusalsIn } from "./report.ts";

/** What stands around the rules of one route. */
export interface RouteSurroundings extends Omit<Surroundings, "canReplacePrefix"> {
  readonly api: string;
  /** Another gRPC match is by a method alone. */
  readonly amongMethods: boolean;
}

/** The routes of the API that `around.route` becomes. None where no rule can be carried. */
export function routesOf(around: RouteSurroundings): Commented[] {
  const { route } = around;
  const names = new Names();
  const rules = route.root.at("spec")?.items("rules") ?? [];
  // An HTTPRoute without rules has one that takes everything, and no backends (HTTPRouteSpec.rules).
  if (rules.length === 0 && route.kind === "HTTPRoute")
    return [
      {
        kind: "commented",
        lines: ["no rules"],
        code: routeCode("all", [EVERY_REQUEST], { to: nowhere("the route has no rules") }),
      },
    ];
  return rules.flatMap((rule) => routeOf(rule, names, around));
}

function routeOf(rule: Field, names: Names, around: RouteSurroundings): Commented[] {
  const isHttp = around.route.kind === "HTTPRoute";
  const given = rule.items("matches");
  const matches = given.flatMap((field) => (isHttp ? httpMatch(field) : grpcMatch(field, around.amongMethods)) ?? []);
  const named = rule.at("name")?.text();
  if (given.length > 0 && matches.length === 0) {
    rule.ignore("none of its matches can be carried");
    return [];
  }
  if (matches.length === 0) matches.push(isHttp ? EVERY_REQUEST : EVERY_CALL);
  const name = names.take(nameFrom(named ?? (matches[0] as Match).hint));
  const surroundings = { ...around, canReplacePrefix: matches.every(({ isPrefix }) => isPrefix) };
  const filters = filtersOf(rule, "rule", surroundings);
  const to = targetOf(rule, filters, name, surroundings);
  const policies = [filters.cors, filters.headers && call("headers", filters.headers)].filter(
    (one) => one !== undefined,
  );
  const forwards = !(isCall(to) && (to.callee === "redirect" || to.callee === "missing"));
  const options = {
    policies: policies.length > 0 ? policies : undefined,
    rewrite: forwards ? filters.rewrite : undefined,
    mirrors: forwards ? filters.mirrors : undefined,
    to,
    ...timing(rule, forwards),
  };
  const lines = [rule.path.replace("spec.", ""), ...refusalsIn(rule).filter(isUntold).map(comment)];
  return [{ kind: "commented", lines, code: routeCode(name, matches, options) }];
}

/** What `missing(...)` says needs no comment. */
const isUntold = ({ path }: Field): boolean => !/\.backendRefs\[\d+\]/.test(path);

const comment = ({ path, verdict }: { path: string; verdict: { note: string } }): string => {
  const line = `${path.replace("spec.", "")}: ${verdict.note}`.replaceAll(/[\s\p{C}]+/gu, " ");
  return line.length <= 110 ? line : `${line.slice(0, 109)}…`;
};

const isCall = (code: Code): code is Call => typeof code === "object" && "kind" in code && code.kind === "call";

function routeCode(name: string, matches: readonly Match[], options: Readonly<Record<string, Code | undefined>>): Call {
  const [first, ...others] = matches.map(({ code }) => code) as [Properties, ...Properties[]];
  return call("route", name, others.length === 0 ? first : [first, ...others], properties(options));
}

const nowhere = (reason: string): Call => call("missing", reason);

interface Arm {
  readonly name: string;
  readonly weight: number;
  readonly to: Call | Constant;
}

/** Where the rule's requests go (HTTPRouteRule.backendRefs). */
function targetOf(rule: Field, filters: Filters, name: string, around: Surroundings & { readonly api: string }): Code {
  const refs = rule.items("backendRefs");
  const sessions = rule.at("sessionPersistence");
  if (filters.unsupported !== undefined) {
    for (const field of [rule.at("backendRefs"), sessions]) field?.ignore("requests answer 500");
    return nowhere(filters.unsupported);
  }
  if (filters.redirect) {
    const unsent = refs.length > 0 ? [rule.at("backendRefs"), sessions] : [sessions];
    for (const field of unsent) field?.refuse("there is a redirect, so nothing is sent on");
    return filters.redirect;
  }
  const names = new Names();
  const arms = refs.map((ref) => armOf(ref, rule, names, around));
  const fault = noneOf(arms);
  if (fault) {
    sessions?.ignore("requests answer 500");
    return nowhere(fault);
  }
  if (arms.length === 1) {
    sessions?.refuse("keeps clients at one pod of the Service, which is for the ingress in front of it");
    return (arms[0] as Arm).to;
  }
  const weighted = arms.map(({ name, to, weight }) => [name, method(to, "weight", weight)] as const);
  const cookie = sessions && stickyCookie(sessions, `${around.api}-${name}`);
  return call("split", properties(weighted), properties({ sticky: cookie ?? "request" }));
}

/** Why no request can be sent to any of them. */
function noneOf(arms: readonly Arm[]): string | undefined {
  if (arms.length === 0) return "the rule has no backendRefs";
  if (arms.every(({ weight }) => weight === 0)) return "the weights of all backendRefs are 0";
  const reasons = arms.map(({ to }) => (isCall(to) && to.callee === "missing" ? (to.args[0] as string) : undefined));
  return reasons.includes(undefined) ? undefined : [...new Set(reasons)].join("; ");
}

/** Those that are carried. */
const rewrittenHosts = (owner: Field): readonly Field[] =>
  owner.items("filters").flatMap((filter) => {
    const host = filter.at("urlRewrite")?.at("hostname");
    return host && (host.verdict?.kind === "carried" || host.verdict?.kind === "differs") ? [host] : [];
  });

/** HTTPBackendRef or GRPCBackendRef of `rule`. */
function armOf(ref: Field, rule: Field, names: Names, around: Surroundings): Arm {
  const weight = ref.at("weight") ? (ref.at("weight")?.integer(0, 1_000_000) ?? 1) : 1;
  const resolved = around.references.resolve(ref, around.route);
  const name = names.take(nameFrom(ref.at("name")?.text() ?? "backend"));
  if ("missing" in resolved) return { name, weight, to: nowhere(resolved.missing) };
  const filters = filtersOf(ref, "backendRef", around);
  if (filters.unsupported !== undefined) return { name, weight, to: nowhere(filters.unsupported) };
  if (filters.redirect) return { name, weight, to: filters.redirect as Call };
  const backend = around.clusters.backend(resolved.to);
  const note = around.clusters.hostNote(resolved.to);
  if (note) for (const host of [...rewrittenHosts(rule), ...rewrittenHosts(ref)]) host.differ(note);
  const { headers, rewrite, mirrors } = filters;
  const own = properties({ headers, rewrite, mirrors });
  return { name, weight, to: own.entries.length > 0 ? method(backend, "with", own) : backend };
}

/** SessionPersistence by cookie, as an arm that a client stays on. Undefined, and refused, for other kinds. */
function stickyCookie(field: Field, name: string): Properties | undefined {
  const type = field.at("type") ? field.at("type")?.choice("Cookie", "Header") : "Cookie";
  if (type !== "Cookie") {
    field.refuse("only sessions by cookie are carried");
    return undefined;
  }
  const cookie = field.at("cookie");
  // Until version 1.4 the name stood outside.
  const given = cookie?.at("name") ?? field.at("sessionName");
  const isUsable = given === undefined || /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(given.text() ?? "");
  if (!isUsable) given.refuse("is no name of a cookie");
  const path = cookie?.at("path");
  if (path && path.text() !== "/") path.refuse("the cookie is for every path");
  cookie?.at("lifetimeType")?.choice("Permanent", "Session");
  const lifetime = field.at("absoluteTimeout");
  const milliseconds = lifetime && durationOf(lifetime);
  const ends =
    cookie?.at("lifetimeType")?.content === "Permanent" ? "" : "; the browser keeps the cookie after the session";
  field.differ(`keeps clients at one of the backendRefs, not at one of its pods${ends}`);
  const maxAge = milliseconds && Math.ceil(milliseconds / 1000);
  const cookieName = given && isUsable ? (given.content as string) : nameFrom(name);
  return properties({ cookie: cookieName, maxAge: maxAge || undefined });
}

/** What the gateway itself gives an answer at most: build/timeouts.ts. */
const FIRST_BYTE = 15_000;
const TOTAL = 60_000;

/** HTTPRouteTimeouts and HTTPRouteRetry, which say something together. */
function timing(rule: Field, forwards: boolean): { timeouts?: Properties; retry?: Properties } {
  const timeouts = rule.at("timeouts");
  const [total, attempt] = [timeouts?.at("request"), timeouts?.at("backendRequest")];
  const request = total && durationOf(total);
  let backendRequest = attempt && durationOf(attempt);
  if (attempt && backendRequest && request && backendRequest > request) {
    attempt.refuse("is longer than the timeout of the whole request");
    backendRequest = undefined;
  }
  const retry = rule.at("retry");
  const retries = retry && retryOf(retry);
  if (!forwards) return {};
  if (backendRequest !== undefined)
    attempt?.differ("until the response's headers are there; the body has until `request`");
  const firstByte =
    backendRequest !== undefined
      ? text(attempt, backendRequest)
      : request !== undefined && (request === 0 || request > FIRST_BYTE)
        ? text(total, request)
        : undefined;
  // An attempt that may take longer than the gateway's own limit must not be cut off by that.
  const tries = 1 + (retries?.attempts ?? 0);
  const longest = backendRequest === 0 ? Number.POSITIVE_INFINITY : (backendRequest ?? 0) * tries;
  const whole = request !== undefined ? text(total, request) : longest >= TOTAL ? "0s" : undefined;
  const stated = properties({ firstByte, total: whole });
  return {
    ...(stated.entries.length > 0 && { timeouts: stated }),
    ...(retries && { retry: retries.code }),
  };
}

const text = (field: Field | undefined, milliseconds: number): string =>
  milliseconds === 0 ? "0s" : (field?.content as string);

/** Milliseconds of a Duration (GEP-2257). */
function durationOf(field: Field): number | undefined {
  const text = field.text();
  if (text === undefined) return undefined;
  const milliseconds = /^(?:[0-9]{1,5}(?:h|m|s|ms)){1,4}$/.test(text) ? parseDuration(text) : undefined;
  if (milliseconds === undefined) field.problem("is no duration", "write it as 500ms, 10s or 1h30m");
  return milliseconds;
}

const MOST_ATTEMPTS = 100;

// GEP-3388's default: ten a second.
const MINIMUM_RETRIES = 100;

/** HTTPRouteRetry. It does not know of methods, so the ones that may not be repeated are repeated as well. */
function retryOf(field: Field): { attempts: number; code: Properties } {
  const attempts = field.at("attempts")?.integer(0, 2 ** 31 - 1);
  if (attempts && attempts > MOST_ATTEMPTS) field.at("attempts")?.differ(`at most ${MOST_ATTEMPTS}`);
  const backoff = field.at("backoff");
  const minimum = backoff && durationOf(backoff);
  const codes = field.items("codes").flatMap((item) => item.integer(400, 599) ?? []);
  if (minimum) backoff.differ("and a random time on top, up to 25 ms, twice as much each time");
  field.differ(
    "at most 20 % of the requests, or 100 in ten seconds in each isolate, are retries; bodies of more than 64 KiB are sent once",
  );
  return {
    attempts: attempts ?? 2,
    code: properties({
      attempts: attempts === undefined ? undefined : Math.min(attempts, MOST_ATTEMPTS),
      on: [...new Set(codes), "connection", "timeout"],
      methods: "any",
      backoff: minimum ? properties({ minimum: backoff.content as string }) : undefined,
      budget: properties({ minimum: MINIMUM_RETRIES }),
    }),
  };
}
