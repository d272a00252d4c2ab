/** What all policies that find out who is calling have in common: what comes of an admission or a refusal, and what origins are told. */
import type { Next } from "hono";
import type { ProblemCode, ProblemExtras } from "../table/problems.ts";
import type { PolicyName } from "../table/table.ts";
import {
  type Admission,
  type Authentication,
  type Caller,
  type Exchange,
  type GatewayContext,
  type GatewayRuntime,
  type MakeAuthenticator,
  type PolicyRun,
  pass,
  refuse,
} from "./contract.ts";

/** The `run` of an authenticating policy. In report mode who is refused passes, as nobody. */
export function authenticating<Config>(policy: PolicyName, make: MakeAuthenticator<Config>): PolicyRun<Config> {
  return (config, runtime, mode) => {
    const authenticator = make(config, runtime);
    const settle = (exchange: Exchange, outcome: Authentication): Response | undefined => {
      authenticator.withhold?.(exchange);
      if ("step" in outcome) {
        exchange.record.reason = outcome.step;
        pass(exchange, policy, { step: outcome.step });
        return outcome.answer(exchange);
      }
      if (!("refused" in outcome)) {
        admit(exchange, policy, outcome);
        return undefined;
      }
      const { refused, extras, answer } = outcome;
      const refusal = refuse(exchange, policy, mode, refused, extras);
      if (!refusal) needs(exchange, extras?.headers?.["www-authenticate"]);
      return refusal && (answer?.(exchange) ?? refusal);
    };
    // Not async functions, so that a request whose credential is known awaits nothing here.
    const later = async (exchange: Exchange, pending: Promise<Authentication>, next: Next) =>
      settle(exchange, await pending) ?? next();
    return (c: GatewayContext, next: Next) => {
      const exchange = c.get("exchange");
      const outcome = authenticator.authenticate(c);
      if (outcome instanceof Promise) return later(exchange, outcome, next);
      const answer = settle(exchange, outcome);
      return answer === undefined ? next() : Promise.resolve(answer);
    };
  };
}

function needs(exchange: Exchange, challenge: string | undefined): void {
  if (challenge !== undefined) exchange.challenge = challenge;
}

function admit(exchange: Exchange, policy: PolicyName, { caller, headers, facts, challenge }: Admission): void {
  const { record, upstream } = exchange;
  if (caller) {
    exchange.caller = caller;
    record.subject = caller.subject;
    if (caller.consumer !== undefined) record.consumer = caller.consumer;
    if (caller.credential) record.credential = caller.credential;
  }
  for (const [name, value] of headers) upstream.set(name, value);
  needs(exchange, challenge);
  pass(exchange, policy, facts);
}

/** What the table says of a consumer, as members of a Caller. Nothing of one that the table does not know. */
export function consumerFacts(
  { table }: GatewayRuntime,
  name: string | undefined,
): Pick<Caller, "consumer" | "groups" | "metadata" | "plan"> {
  if (name === undefined) return {};
  const declared = Object.hasOwn(table.consumers, name) ? table.consumers[name] : undefined;
  if (!declared) return { consumer: name };
  const { groups, metadata, plan } = declared;
  return {
    consumer: name,
    ...(groups && { groups }),
    ...(metadata && { metadata }),
    ...(plan !== undefined && { plan }),
  };
}

/** The admission of `caller`, ready to be shared between requests; `more` goes beside the headers that every caller gets. */
export function admissionOf(
  caller: Caller,
  more: Admission["headers"] = [],
  facts?: Admission["facts"],
): Required<Pick<Admission, "caller">> & Admission {
  const headers = [...more];
  const tell = (name: string, value: string | readonly string[] | undefined) => {
    const text = headerText(value);
    if (text) headers.push([name, text]);
  };
  tell("x-consumer-name", caller.consumer);
  tell("x-consumer-groups", caller.groups);
  tell("x-consumer-plan", caller.plan);
  tell("x-consumer-scopes", caller.scopes.join(" "));
  return deepFreeze({ caller, headers, ...(facts && { facts }) });
}

/** Code and extras of the 401 for a request of nobody, where a policy behind authentication needs to know who calls. */
export function callerMissing(exchange: Exchange): [ProblemCode, ProblemExtras] {
  const asked = exchange.challenge ?? challenge(exchange, "Bearer");
  return [
    asked.startsWith("Bearer ") ? "token-missing" : "credentials-missing",
    { headers: { "www-authenticate": asked } },
  ];
}

/**
 * A value of WWW-Authenticate (RFC 9110, 11.6.1) for the realm of the route's API. Attributes must need no escapes in a quoted
 * string.
 */
export function challenge(
  exchange: Exchange,
  scheme: string,
  attributes: Readonly<Record<string, string>> = {},
): string {
  const realm = exchange.route.api.replace(/[^\x20-\x7e]|["\\]/g, "") || "portcullis";
  return `${scheme} ${Object.entries({ realm, ...attributes })
    .map(([name, value]) => `${name}="${value}"`)
    .join(", ")}`;
}

/**
 * A value as a header can carry it: visible ASCII and inner spaces as they are, all else and `%` percent-encoded as UTF-8, so that
 * decodeURIComponent gives the text back and no two texts look the same. Arrays are joined by commas, those within items being
 * encoded too. "", which stands for no header, for what is absent, null or empty; undefined for what no header can carry.
 */
export function headerText(value: unknown): string | undefined {
  if (value === undefined || value === null) return "";
  if (!Array.isArray(value)) return atomText(value);
  const items = value.map((item) => atomText(item)?.replaceAll(",", "%2C"));
  return items.includes(undefined) ? undefined : items.join(",");
}

function atomText(value: unknown): string | undefined {
  if (typeof value !== "string" && typeof value !== "number" && typeof value !== "boolean") return undefined;
  const text = String(value);
  if (!text.isWellFormed()) return undefined;
  // Spaces at the ends would be trimmed on the way.
  return text.replace(/[^\x20-\x24\x26-\x7e]|^ +| +$/gu, encodeURIComponent);
}

export function deepFreeze<T>(value: T): T {
  if (typeof value === "object" && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const member of Object.values(value)) deepFreeze(member);
  }
  return value;
}
