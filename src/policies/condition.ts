/** Conditions (config/condition.ts) at the edge: from data to functions, once per isolate. */
import type { Condition, Literal, Operand, TimeWindow } from "../config/condition.ts";
import { inRange, parseAddress, parseRange } from "../table/cidr.ts";
import { parametersOf } from "../table/match.ts";
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

/**
 * Of a parameter, cookie or header that is there more than once, nobody knows which one the origin reads. So what lets pass must hold for
 * `every` one of them, and what refuses need hold for `some` one alone; and under `not` the other way round.
 */
export type Quantifier = "every" | "some";

const OPPOSITE = { every: "some", some: "every" } as const;

export function testOf(condition: Condition, quantifier: Quantifier): Test {
  const within = (one: Condition) => testOf(one, quantifier);
  if ("all" in condition) return allOf(condition.all.map(within));
  if ("any" in condition) return anyOf(condition.any.map(within));
  if ("not" in condition) {
    const test = testOf(condition.not, OPPOSITE[quantifier]);
    return (situation) => {
      const holds = test(situation);
      return holds === undefined ? undefined : !holds;
    };
  }
  if ("time" in condition) return timeTest(condition.time);
  const read = readerOf(condition.value, quantifier);
  const known = <Kind>(test: KnownTest<Kind>, is: (value: unknown) => value is Kind) =>
    knownTest(read, test, is, quantifier);
  if ("exists" in condition) return (situation) => read(situation) !== undefined;
  if ("is" in condition) {
    const values = condition.is.map((one) => (typeof one === "object" ? readerOf(one.value, quantifier) : () => one));
    return known((value, situation) => values.some((other) => isSame(other(situation), value, quantifier)), isLiteral);
  }
  if ("has" in condition) return known((list) => condition.has.some((one) => list.includes(one)), isList);
  if ("startsWith" in condition)
    return known((text) => condition.startsWith.some((one) => text.startsWith(one)), isText);
  if ("endsWith" in condition) return known((text) => condition.endsWith.some((one) => text.endsWith(one)), isText);
  if ("contains" in condition) return known((text) => condition.contains.some((one) => text.includes(one)), isText);
  if ("fits" in condition) {
    const patterns = condition.fits.map(patternOf);
    return known((path) => patterns.some((pattern) => pattern.test(path)), isText);
  }
  if ("within" in condition) {
    const ranges = condition.within.map((text) => parseRange(text)).filter((range) => range !== undefined);
    return known((text) => {
      const address = parseAddress(text);
      return address === undefined ? undefined : ranges.some((range) => inRange(address, range));
    }, isText);
  }
  if ("atLeast" in condition) return known((number) => number >= condition.atLeast, isNumber);
  return known((number) => number <= condition.atMost, isNumber);
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

type KnownTest<Kind> = (value: Kind, situation: Situation) => boolean | undefined;

function knownTest<Kind>(
  read: Reader,
  test: KnownTest<Kind>,
  is: (value: unknown) => value is Kind,
  quantifier: Quantifier,
): Test {
  const of = (value: unknown, situation: Situation) => (is(value) ? test(value, situation) : undefined);
  const combined = quantifier === "every" ? allOf : anyOf;
  return (situation) => {
    const value = read(situation);
    if (!(value instanceof Repeated)) return of(value, situation);
    return combined(value.values.map((one) => () => of(one, situation)))(situation);
  };
}

/** What is there more than once. */
class Repeated {
  readonly values: readonly string[];
  constructor(values: readonly string[]) {
    this.values = values;
  }
}

const once = (values: readonly string[]): string | Repeated | undefined =>
  values.length > 1 ? new Repeated(values) : values[0];

const isSame = (other: unknown, value: unknown, quantifier: Quantifier): boolean =>
  other instanceof Repeated ? other.values[quantifier]((one) => one === value) : other === value;

const isText = (value: unknown): value is string => typeof value === "string";
const isNumber = (value: unknown): value is number => typeof value === "number";
const isList = (value: unknown): value is readonly unknown[] => Array.isArray(value);
const isLiteral = (value: unknown): value is Literal => ["string", "number", "boolean"].includes(typeof value);

type Reader = (situation: Situation) => unknown;

function readerOf(operand: Operand, quantifier: Quantifier): Reader {
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
      return ({ request }) => headerOf(request.headers.get(operand.name), quantifier);
    case "query":
      return ({ exchange }) => once(new URLSearchParams(exchange.search).getAll(operand.name));
    case "cookie":
      return ({ request }) => once(cookiesOf(request.headers.get("cookie") ?? "", operand.name));
    case "param":
      return ({ exchange: { match, path } }) =>
        match && match.path.kind !== "regex" ? parametersOf(match.path.value, path)[operand.name] : undefined;
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

/** Lines of one name arrive joined by commas, which values may have as well. What lets pass must be all that there is. */
function headerOf(value: string | null, quantifier: Quantifier): string | Repeated | undefined {
  if (value === null) return undefined;
  if (quantifier === "every" || !value.includes(",")) return value;
  return new Repeated([value, ...value.split(",").map((part) => part.trim())]);
}

function cookiesOf(header: string, name: string): string[] {
  return header.split(";").flatMap((pair) => {
    const equals = pair.indexOf("=");
    return equals !== -1 && pair.slice(0, equals).trim() === name ? [pair.slice(equals + 1).trim()] : [];
  });
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
