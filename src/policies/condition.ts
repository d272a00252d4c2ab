/** Conditions (config/condition.ts) at the edge: from data to functions, once per isolate. */
import type { Condition, Literal, Operand, TimeWindow } from "../config/condition.ts";
import { inRange, parseAddress, parseRange } from "../table/cidr.ts";
import { claimAt, type Exchange } from "./contract.ts";

/** What conditions are asked about. */
export interface Situation {
  readonly exchange: Exchange;
  readonly request: Request;
  /** Milliseconds since the epoch. */
  readonly now: number;
}

/**
 * Whether the condition holds; undefined when that cannot be told, because a value is not there or of another kind. Then its opposite
 * cannot be told either: who is not known to be outside is not inside.
 */
export type Test = (situation: Situation) => boolean | undefined;

export function testOf(condition: Condition): Test {
  if ("all" in condition) return allOf(condition.all.map(testOf));
  if ("any" in condition) return anyOf(condition.any.map(testOf));
  if ("not" in condition) {
    const test = testOf(condition.not);
    return (situation) => {
      const holds = test(situation);
      return holds === undefined ? undefined : !holds;
    };
  }
  if ("time" in condition) return timeTest(condition.time);
  const read = readerOf(condition.value);
  if ("exists" in condition) return (situation) => read(situation) !== undefined;
  if ("is" in condition) {
    const values = condition.is.map((one) => (typeof one === "object" ? readerOf(one.value) : () => one));
    return known(read, (value, situation) => values.some((other) => other(situation) === value), isLiteral);
  }
  if ("has" in condition) return known(read, (list) => condition.has.some((one) => list.includes(one)), isList);
  if ("startsWith" in condition)
    return known(read, (text) => condition.startsWith.some((one) => text.startsWith(one)), isText);
  if ("endsWith" in condition)
    return known(read, (text) => condition.endsWith.some((one) => text.endsWith(one)), isText);
  if ("contains" in condition)
    return known(read, (text) => condition.contains.some((one) => text.includes(one)), isText);
  if ("fits" in condition) {
    const patterns = condition.fits.map(patternOf);
    return known(read, (path) => patterns.some((pattern) => pattern.test(path)), isText);
  }
  if ("within" in condition) {
    const ranges = condition.within.map((text) => parseRange(text)).filter((range) => range !== undefined);
    return known(
      read,
      (text) => {
        const address = parseAddress(text);
        return address === undefined ? undefined : ranges.some((range) => inRange(address, range));
      },
      isText,
    );
  }
  if ("atLeast" in condition) return known(read, (number) => number >= condition.atLeast, isNumber);
  return known(read, (number) => number <= condition.atMost, isNumber);
}

/** False as soon as one does not hold, else unknown as soon as one is. */
const allOf =
  (tests: readonly Test[]): Test =>
  (situation) => {
    let holds: boolean | undefined = true;
    for (const test of tests) {
      const one = test(situation);
      if (one === false) return false;
      if (one === undefined) holds = undefined;
    }
    return holds;
  };

const anyOf =
  (tests: readonly Test[]): Test =>
  (situation) => {
    let holds: boolean | undefined = false;
    for (const test of tests) {
      const one = test(situation);
      if (one) return true;
      if (one === undefined) holds = undefined;
    }
    return holds;
  };

function known<Kind>(
  read: Reader,
  test: (value: Kind, situation: Situation) => boolean | undefined,
  is: (value: unknown) => value is Kind,
): Test {
  return (situation) => {
    const value = read(situation);
    return is(value) ? test(value, situation) : undefined;
  };
}

const isText = (value: unknown): value is string => typeof value === "string";
const isNumber = (value: unknown): value is number => typeof value === "number";
const isList = (value: unknown): value is readonly unknown[] => Array.isArray(value);
const isLiteral = (value: unknown): value is Literal => ["string", "number", "boolean"].includes(typeof value);

type Reader = (situation: Situation) => unknown;

function readerOf(operand: Operand): Reader {
  switch (operand.of) {
    case "method":
      return ({ request }) => request.method;
    case "path":
    case "host":
    case "scheme": {
      const { of } = operand;
      return ({ exchange }) => exchange[of];
    }
    case "header":
      return ({ request }) => request.headers.get(operand.name) ?? undefined;
    case "query":
      return ({ exchange }) => new URLSearchParams(exchange.search).get(operand.name) ?? undefined;
    case "cookie":
      return ({ request }) => cookieOf(request.headers.get("cookie") ?? "", operand.name);
    case "param":
      return ({ exchange: { parameters } }) =>
        Object.hasOwn(parameters, operand.name) ? parameters[operand.name] : undefined;
    case "consumer":
    case "plan":
    case "subject": {
      const { of } = operand;
      return ({ exchange: { caller } }) => caller?.[of];
    }
    // A caller without groups has none of them; without a caller nothing is known of groups.
    case "groups":
      return ({ exchange: { caller } }) => caller && (caller.groups ?? []);
    case "scopes":
      return ({ exchange: { caller } }) => caller?.scopes;
    case "credential":
      return ({ exchange: { caller } }) => caller?.credential?.kind;
    case "claim":
      return ({ exchange: { caller } }) => caller && (claimAt(caller.claims, operand.name) ?? undefined);
    case "metadata":
      return ({ exchange: { caller } }) => claimAt(caller?.metadata ?? {}, operand.name) ?? undefined;
    case "address":
      return ({ exchange }) => exchange.clientAddress || undefined;
    case "botScore":
      return ({ request }) => (cf(request).botManagement as { score?: unknown } | undefined)?.score;
    case "region":
      return ({ request }) => cf(request).regionCode;
    default: {
      const { of } = operand;
      return ({ request }) => cf(request)[of];
    }
  }
}

const cf = (request: Request): Readonly<Record<string, unknown>> =>
  (request as { cf?: Readonly<Record<string, unknown>> }).cf ?? {};

function cookieOf(header: string, name: string): string | undefined {
  for (const pair of header.split(";")) {
    const equals = pair.indexOf("=");
    if (equals !== -1 && pair.slice(0, equals).trim() === name) return pair.slice(equals + 1).trim();
  }
  return undefined;
}

/** `{*}` is one segment; `{**}` is the rest, also nothing. */
function patternOf(pattern: string): RegExp {
  const rest = pattern.endsWith("/{**}");
  const segments = (rest ? pattern.slice(0, -5) : pattern)
    .split("/")
    .map((segment) => (segment === "{*}" ? "[^/]+" : segment.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&")));
  return new RegExp(`^${segments.join("/")}${rest ? "(?:/.*)?" : ""}$`, "s");
}

function timeTest({ from, until, days, zone }: TimeWindow): Test {
  const format = new Intl.DateTimeFormat("en-US", {
    timeZone: zone,
    weekday: "short",
    hour: "2-digit",
    minute: "2-digit",
    hourCycle: "h23",
  });
  const isOn = (day: number) => !days || days.includes((day + 7) % 7);
  return ({ now }) => {
    const parts = Object.fromEntries(format.formatToParts(now).map(({ type, value }) => [type, value]));
    const day = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"].indexOf(parts.weekday ?? "");
    const minute = Number(parts.hour) * 60 + Number(parts.minute);
    if (from <= until) return isOn(day) && minute >= from && minute < until;
    return (isOn(day) && minute >= from) || (isOn(day - 1) && minute < until);
  };
}
