/**
 * What a policy is. One policy is one file in this folder, with four exports:
 * - the builder that `routes/` calls, e.g. `jwt({ ... })`, which returns a PolicyDeclaration
 * - `schema`: a function that returns the zod schema of its options. Lazy, so that the schema library stays out of the Worker
 *   (measured: 92 bytes in the bundle against 90 KB for a schema at top level)
 * - `compile` (build): checked options to the JSON that the table holds
 * - `run` (edge): that JSON to a Hono middleware. Called once per isolate and policy, when a route first needs it
 *
 * Policies that find out who is calling have a fifth, `authenticator`, of which their `run` is made (authentication.ts).
 *
 * order.ts says when each runs. Files here import table/, config/ and each other's types; never edge/ or build/.
 */
import type { Context, MiddlewareHandler } from "hono";
import type { Fix } from "../config/declaration.ts";
import type { PolicyDeclaration } from "../config/policy.ts";
import type { Reference } from "../config/values.ts";
import { type ProblemCode, type ProblemExtras, problemResponse } from "../table/problems.ts";
import type { EdgeTable, PolicyMode, PolicyName, TableMatch, TablePolicy, TableRoute } from "../table/table.ts";
import type { PackExclusion } from "../waf/engine.ts";
import type { RulePack } from "../waf/pack.ts";
import type { WafOptions } from "./waf.ts";

/** What `compile` may ask of the build. */
export interface CompileContext {
  /** Where a function stands among the functions of its list: `orders/list#0` (config/entries.ts). */
  readonly place: string;
  /** Of the gateway; absent: those of hand-written routes. */
  readonly semantics?: "gateway-api";
  /** Reports a problem with these options; compilation goes on, so that all problems are listed. */
  problem(message: string, fix: Fix): void;
  /** Notes that the environment must hold the referenced name, and gives its form in the table. */
  reference(value: Reference): import("../table/table.ts").Reference;
  /** Claims request headers that only the gateway may set: they are removed from every request that comes in, on all routes. */
  identityHeaders(names: readonly string[]): void;
  /** Compiles a set of rules for the waf; undefined where it has problems, which are told. */
  ruleSet(options: WafOptions): CompiledRuleSet | undefined;
  /** Compiles a policy that stands within this one; undefined for what is `off` or has problems, which are told. */
  member(declared: PolicyDeclaration): MemberPolicy | undefined;
}

/** Rules that a waf runs, in the bundle once for all policies that have them. */
export interface CompiledRuleSet {
  /** Of the pack, for `GatewayRuntime.rulePack`. */
  readonly id: string;
  /** What the policy leaves out. */
  readonly exclusions: readonly PackExclusion[];
  /** Bytes, by the rules' own setting. */
  readonly responseBodyLimit: number;
}

/** What the isolate offers to `run`. */
export interface GatewayRuntime {
  readonly table: EdgeTable;
  /** The value behind a reference. Throws `NotConfigured` (503) when the environment lacks it. */
  text(reference: import("../table/table.ts").Reference, env: unknown): string;
  /** Functions of the routes module, by place (middleware.ts). */
  readonly middleware: Readonly<Record<string, MiddlewareHandler>>;
  /** Of a policy that stands in anyOf or allOf. */
  authenticator(member: MemberPolicy): Authenticator;
  /** The rules of that id. */
  rulePack(id: string): RulePack;
  /** Now, in milliseconds since the epoch. */
  now(): number;
}

/** A policy within a policy. */
export type MemberPolicy = Pick<TablePolicy, "policy" | "config">;

export type PolicyRun<Config> = (
  config: Config,
  runtime: GatewayRuntime,
  mode: PolicyMode,
) => MiddlewareHandler<GatewayEnv>;

export interface GatewayEnv {
  // biome-ignore lint/suspicious/noExplicitAny: each deployment has bindings of its own
  Bindings: any;
  Variables: { exchange: Exchange };
}

export type GatewayContext = Context<GatewayEnv>;

/** One request on its way through the gateway. */
export interface Exchange {
  readonly route: TableRoute;
  /** The one of the route's matches that fits best; absent: no route fits. */
  readonly match?: TableMatch;
  /** The normal path (table/path.ts). */
  readonly path: string;
  /** The query with its `?`, as it came; "" when there is none. */
  readonly search: string;
  /** Host without port, in lower case. */
  readonly host: string;
  /** `https` or `http`, as the client spoke to the gateway. */
  readonly scheme: string;
  /** Milliseconds that the exchange may take, the time for its body to come in included. Absent or 0: any. */
  readonly total?: number;
  /** The trusted client address; "" when the runtime does not tell. */
  readonly clientAddress: string;
  /** The request's headers as they came, names in lower case. Each pass over a Headers object takes 0.1 of a bare request (measured). */
  readonly received: readonly (readonly [name: string, value: string])[];
  /**
   * Headers for the origin: a copy of the request's, without hop-by-hop, forwarding and identity headers. Policies read what
   * the client sent from the request, and write what the origin gets here.
   */
  readonly upstream: Headers;
  /** Applied to whatever answer is given, also to problem documents, once, in this order. */
  readonly responseEdits: HeaderEdit[];
  /** The query that the origin gets, where it is not `search`: a policy took a credential out. */
  upstreamSearch?: string;
  /** Who is calling; set by the authenticating policy. */
  caller?: Caller;
  /** WWW-Authenticate for policies that need a caller where there is none; absent: Bearer. */
  challenge?: string;
  /** The body, where a policy had to read it: what was held, or a stream that begins with it. */
  body?: ReadableStream<Uint8Array> | Uint8Array | null;
  readonly record: DecisionRecord;
  /** Work that goes on after the response. */
  waitUntil(work: Promise<unknown>): void;
}

/** Shared between the requests of an isolate, hence frozen. Members that are absent are empty. */
export interface Caller {
  /** Name of the consumer; absent for a valid credential of none. */
  readonly consumer?: string;
  /** Who it is, over all kinds of credentials: `<issuer>|<sub>` of a token, `consumer:<name>` of what only a consumer has. */
  readonly subject: string;
  readonly scopes: readonly string[];
  /** What the credential says of the caller; {} for credentials that say nothing. */
  readonly claims: Readonly<Record<string, unknown>>;
  /** Of the consumer, by name. */
  readonly plan?: string;
  /** Of the consumer, and those that the credential adds. */
  readonly groups?: readonly string[];
  /** Of the consumer. */
  readonly metadata?: Readonly<Record<string, unknown>>;
  /** What made it known; absent for the anonymous consumer. */
  readonly credential?: Credential;
}

/** A credential as records and origins may know it: nothing here helps to make one. */
export interface Credential {
  /** The policy that read it, such as `jwt` or `apiKey`. */
  readonly kind: PolicyName;
  /** Which one of its kind: the key's id, the certificate's fingerprint, the name of the user. */
  readonly id?: string;
}

/**
 * Finds out who is calling, by one kind of credential. Authenticating policies export what makes one, `authenticator`, so that
 * anyOf and allOf can ask several; made once per isolate and policy.
 */
export interface Authenticator {
  /** No promise where the answer is known already: one costs every request more than the rest of the check. */
  authenticate(c: GatewayContext): Authentication | Promise<Authentication>;
  /** Takes the credential out of what the origin gets, whatever came of it. Absent: the origin gets it. */
  withhold?(exchange: Exchange): void;
}

export type Authentication = Admission | Refusal | Step;

/** A step on the way to a credential, such as the end of a login: the policy answers, and nobody is let in or refused. */
export interface Step {
  readonly step: "login" | "logout";
  readonly answer: (exchange: Exchange) => Response;
}

/** Shared between requests, hence frozen. */
export interface Admission {
  /** Absent: the request passes, but nobody is known to be calling. */
  readonly caller?: Caller;
  /** Identity headers for the origin; names in lower case. */
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly facts?: PolicyVerdict["facts"];
  /** WWW-Authenticate for when a policy behind this one needs to know more; absent: Bearer. */
  readonly challenge?: string;
}

export interface Refusal {
  readonly refused: ProblemCode;
  /** The request shows no such credential at all, so that another one may do. */
  readonly absent?: true;
  readonly extras?: ProblemExtras & { facts?: PolicyVerdict["facts"] };
  /** Given in place of the problem document, such as a redirect to where one signs in. */
  readonly answer?: (exchange: Exchange) => Response;
}

export type MakeAuthenticator<Config> = (config: Config, runtime: GatewayRuntime) => Authenticator;

export interface HeaderEdit {
  readonly action: "remove" | "set" | "add";
  /** In lower case. */
  readonly name: string;
  readonly value?: string;
}

/** One per request: the log line, the debug header, the labels of metrics and what `explain` is held against. */
export interface DecisionRecord {
  readonly v: 1;
  /** RFC 3339. */
  readonly time: string;
  id: string;
  /** The RouteTable's id. */
  readonly table: string;
  readonly method: string;
  host: string;
  /** Without the query, which may hold secrets. Of a request whose target was refused: the URL as it came, 256 characters at most. */
  path: string;
  client: string;
  /** The one that the request came to; absent: the table has none, or none for this host. */
  listener?: string;
  route?: string;
  consumer?: string;
  subject?: string;
  credential?: Credential;
  /** In the order in which they ran. */
  readonly policies: PolicyVerdict[];
  /** `reset` is when more is there, in milliseconds since the epoch. */
  limits?: { name: string; key: string; remaining: number; reset: number }[];
  /** The arm of the split, and what it was chosen by. */
  arm?: string;
  armBy?: string;
  backend?: string;
  /** Backends that got, or are to get, a copy of the request. */
  mirrors?: readonly string[];
  /** `notRetried`: which condition of the route's `retry` kept one that failed from being tried again. */
  readonly attempts: {
    backend: string;
    region?: string;
    status?: number;
    error?: string;
    ms: number;
    notRetried?: string;
  }[];
  status: number;
  /** Of an answer that the gateway itself gave to a gRPC client, whose HTTP status is always 200. */
  grpcStatus?: number;
  /** Why the gateway itself gave this answer; absent when the origin did. */
  reason?: ProblemCode | "redirect" | "preflight" | "options" | "policy" | "login" | "logout";
  /** More of the reason, for the operator alone. */
  detail?: string;
  /** Milliseconds until the response's headers, in the cluster and in all. */
  upstreamMs: number;
  totalMs: number;
}

export interface PolicyVerdict {
  readonly policy: string;
  readonly verdict: "pass" | "deny" | "would-deny" | "error";
  readonly reason?: string;
  /** What it went by, e.g. the rules that matched; never a secret, never a value from the request's body. */
  readonly facts?: Readonly<Record<string, unknown>>;
}

/** Records that `policy` let the request pass. */
export function pass(exchange: Exchange, policy: string, facts?: PolicyVerdict["facts"]): void {
  exchange.record.policies.push({ policy, verdict: "pass", ...(facts && { facts }) });
}

/**
 * Records a refusal. In `enforce` it returns the answer to give; in `report` undefined, and the policy lets the request pass.
 */
export function refuse(
  exchange: Exchange,
  policy: string,
  mode: PolicyMode,
  code: ProblemCode,
  extras: ProblemExtras & { facts?: PolicyVerdict["facts"] } = {},
): Response | undefined {
  const enforced = mode === "enforce";
  exchange.record.policies.push({
    policy,
    verdict: enforced ? "deny" : "would-deny",
    reason: code,
    ...(extras.facts && { facts: extras.facts }),
  });
  if (!enforced) return undefined;
  exchange.record.reason = code;
  return problemResponse(code, exchange.record.id, extras);
}

/** The claim of that name, or where the dots lead; undefined when there is none. Never a property of Object.prototype. */
export function claimAt(claims: object, path: string): unknown {
  if (Object.hasOwn(claims, path)) return claims[path as keyof typeof claims];
  let value: unknown = claims;
  for (const name of path.split(".")) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, name)) return undefined;
    value = (value as Record<string, unknown>)[name];
  }
  return value;
}

/** A header of the request as it came; its name in lower case. A call of Headers takes ten times as long (measured). */
export function receivedHeader({ received }: Pick<Exchange, "received">, name: string): string | null {
  for (const header of received) if (header[0] === name) return header[1];
  return null;
}

/**
 * Makes a change. What is added goes behind a comma alone, as the Gateway API writes it (HTTPHeaderFilter.add: `foo,bar,baz`), cookies
 * behind a semicolon (RFC 6265, 4.2.1); each Set-Cookie is a field of its own (RFC 6265, 3).
 */
export function editHeader(headers: Headers, { action, name, value = "" }: HeaderEdit): void {
  if (action === "remove") headers.delete(name);
  else if (action === "set") headers.set(name, value);
  else if (name === "set-cookie") headers.append(name, value);
  else {
    const there = headers.get(name);
    headers.set(name, there === null ? value : `${there}${name === "cookie" ? "; " : ","}${value}`);
  }
}

/** Takes a cookie out of request headers, however often it is there. */
export function removeCookie(headers: Headers, name: string): void {
  const cookies = headers.get("cookie")?.split(";");
  const kept = cookies?.filter((pair) => pair.split("=", 1)[0]?.trim() !== name);
  if (!cookies || !kept || kept.length === cookies.length) return;
  if (kept.length === 0) headers.delete("cookie");
  else headers.set("cookie", kept.join(";").trim());
}

/** The environment lacks something that the table names. Becomes 503 `not-configured`. */
export class NotConfigured extends Error {
  override readonly name = "NotConfigured";
}
