/**
 * Conditions on a request, who sends it, from where and when: `when(caller.groups.has("staff"), client.country.is("DE", "AT"))`. What
 * the builders make is plain data; the edge evaluates it (policies/condition.ts), and nothing of a routes module runs there for it.
 */
import type { ConsumerDeclaration, PlanDeclaration } from "./consumer.ts";

/** Where a value comes from. */
export type Operand =
  | { readonly of: "method" | "path" | "host" | "scheme" }
  | { readonly of: "header" | "query" | "cookie" | "param"; readonly name: string }
  | { readonly of: "consumer" | "plan" | "subject" | "scopes" | "groups" | "credential" }
  | { readonly of: "claim" | "metadata"; readonly name: string }
  | { readonly of: "address" | "country" | "continent" | "region" | "asn" | "botScore" };

export type Literal = string | number | boolean;

export type Condition =
  | { readonly all: readonly Condition[] }
  | { readonly any: readonly Condition[] }
  | { readonly not: Condition }
  | { readonly value: Operand; readonly is: readonly (Literal | { readonly value: Operand })[] }
  | { readonly value: Operand; readonly has: readonly string[] }
  | { readonly value: Operand; readonly startsWith: readonly string[] }
  | { readonly value: Operand; readonly endsWith: readonly string[] }
  | { readonly value: Operand; readonly contains: readonly string[] }
  | { readonly value: Operand; readonly fits: readonly string[] }
  | { readonly value: Operand; readonly within: readonly string[] }
  | { readonly value: Operand; readonly atLeast: number }
  | { readonly value: Operand; readonly atMost: number }
  | { readonly value: Operand; readonly exists: true }
  | { readonly time: TimeWindow };

/** Minutes since midnight, from `from` to just before `until`; one that ends earlier than it begins goes over midnight. */
export interface TimeWindow {
  readonly from: number;
  readonly until: number;
  /** 0 is Sunday; of a window over midnight, the day on which it begins. Absent: every day. */
  readonly days?: readonly number[];
  /** As the IANA names it. */
  readonly zone: string;
}

interface Value {
  readonly value: Operand;
  /** Whether the value is there at all. */
  exists(): Condition;
}

export interface TextValue extends Value {
  /** One of these, exactly; another value of the request may stand among them. */
  is(...values: readonly (string | TextValue)[]): Condition;
  startsWith(...texts: readonly string[]): Condition;
  endsWith(...texts: readonly string[]): Condition;
  contains(...texts: readonly string[]): Condition;
}

export interface PathValue extends TextValue {
  /** `/v1/{*}/items/{**}`: `{*}` is one segment of any value, `{**}` at the end all that follows, if anything. */
  fits(...patterns: readonly string[]): Condition;
}

export interface NumberValue extends Value {
  is(...values: readonly number[]): Condition;
  atLeast(value: number): Condition;
  atMost(value: number): Condition;
}

export interface ListValue extends Value {
  /** At least one of these. */
  has(...values: readonly string[]): Condition;
}

export interface AddressValue extends Value {
  /** In one of these CIDR ranges. */
  within(...ranges: readonly string[]): Condition;
}

/** A claim or a member of metadata may be anything. */
export interface AnyValue extends Value {
  is(...values: readonly (Literal | TextValue)[]): Condition;
  has(...values: readonly string[]): Condition;
  startsWith(...texts: readonly string[]): Condition;
  endsWith(...texts: readonly string[]): Condition;
  contains(...texts: readonly string[]): Condition;
  atLeast(value: number): Condition;
  atMost(value: number): Condition;
}

type Named<D> = Omit<TextValue, "is"> & { is(...values: readonly (string | D)[]): Condition };

/** All that a value can be asked; its type tells what makes sense. */
const valued = (value: Operand) => ({
  value,
  exists: (): Condition => ({ value, exists: true }),
  is: (...values: readonly (Literal | { readonly value: Operand } | { readonly name: string })[]): Condition => ({
    value,
    is: values.map((one) => (typeof one !== "object" ? one : "value" in one ? { value: one.value } : one.name)),
  }),
  has: (...values: readonly string[]): Condition => ({ value, has: values }),
  startsWith: (...texts: readonly string[]): Condition => ({ value, startsWith: texts }),
  endsWith: (...texts: readonly string[]): Condition => ({ value, endsWith: texts }),
  contains: (...texts: readonly string[]): Condition => ({ value, contains: texts }),
  fits: (...patterns: readonly string[]): Condition => ({ value, fits: patterns }),
  within: (...ranges: readonly string[]): Condition => ({ value, within: ranges }),
  atLeast: (least: number): Condition => ({ value, atLeast: least }),
  atMost: (most: number): Condition => ({ value, atMost: most }),
});

/** The request as it was matched: the normal path, the host in lower case. */
export const request = {
  method: valued({ of: "method" }) as TextValue,
  path: valued({ of: "path" }) as PathValue,
  host: valued({ of: "host" }) as TextValue,
  scheme: valued({ of: "scheme" }) as TextValue,
  header: (name: string): TextValue => valued({ of: "header", name: name.toLowerCase() }),
  /** The first one of this name, decoded. */
  query: (name: string): TextValue => valued({ of: "query", name }),
  cookie: (name: string): TextValue => valued({ of: "cookie", name }),
  /** Of the route's path: `{id}`. */
  param: (name: string): TextValue => valued({ of: "param", name }),
} as const;

/** Who sends it, as the authenticating policy found out. */
export const caller = {
  consumer: valued({ of: "consumer" }) as Named<ConsumerDeclaration>,
  plan: valued({ of: "plan" }) as Named<PlanDeclaration>,
  /** As the record names it: `<issuer>|<sub>` of a token. */
  subject: valued({ of: "subject" }) as TextValue,
  scopes: valued({ of: "scopes" }) as ListValue,
  groups: valued({ of: "groups" }) as ListValue,
  /** The policy that read the credential: `jwt`, `apiKey`. */
  credential: valued({ of: "credential" }) as TextValue,
  /** Dots lead into objects, unless a claim has that very name. */
  claim: (name: string): AnyValue => valued({ of: "claim", name }),
  /** Of the consumer; dots lead into objects. */
  metadata: (name: string): AnyValue => valued({ of: "metadata", name }),
} as const;

/** Where it comes from, as Cloudflare tells (`request.cf`). */
export const client = {
  /** The trusted client address. */
  address: valued({ of: "address" }) as AddressValue,
  /** ISO 3166-1 alpha 2; `T1` is Tor. */
  country: valued({ of: "country" }) as TextValue,
  /** `AF AN AS EU NA OC SA`. */
  continent: valued({ of: "continent" }) as TextValue,
  /** ISO 3166-2, without the country. */
  region: valued({ of: "region" }) as TextValue,
  /** The number of the autonomous system. */
  asn: valued({ of: "asn" }) as NumberValue,
  /** 1 is surely automated, 99 surely a person. Only with Cloudflare's Bot Management. */
  botScore: valued({ of: "botScore" }) as NumberValue,
} as const;

const DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"] as const;

export const clock = {
  /**
   * From `from` to just before `until`, such as `clock.between("08:00", "18:00", { zone: "Europe/Berlin", days: ["mon", "tue"] })`.
   * Default: UTC, every day.
   */
  between(
    from: string,
    until: string,
    { zone = "UTC", days }: { readonly zone?: string; readonly days?: readonly (typeof DAYS)[number][] } = {},
  ): Condition {
    return {
      time: {
        from: minutesOf(from),
        until: minutesOf(until),
        zone,
        ...(days && { days: [...new Set(days.map((day) => DAYS.indexOf(day)))].sort() }),
      },
    };
  },
} as const;

/** NaN for what is no time of day; the build tells of it. */
function minutesOf(text: string): number {
  const [, hours, minutes] = /^([01][0-9]|2[0-4]):([0-5][0-9])$/.exec(text) ?? [];
  return Number(hours) * 60 + Number(minutes);
}

/** All of them hold. */
export const when = (...conditions: readonly Condition[]): Condition =>
  conditions.length === 1 ? (conditions[0] as Condition) : { all: conditions };

/** At least one holds. */
export const either = (...conditions: readonly Condition[]): Condition => ({ any: conditions });

/** It can be told, and does not hold. */
export const not = (condition: Condition): Condition => ({ not: condition });

export interface Rule {
  readonly effect: "allow" | "deny";
  /** In records. */
  readonly name: string;
  readonly condition: Condition;
}

/** Lets requests pass for which `condition` holds, unless a `deny` holds as well. */
export const allow = (name: string, condition: Condition): Rule => ({ effect: "allow", name, condition });

/** Refuses requests for which `condition` holds, whatever else allows them. */
export const deny = (name: string, condition: Condition): Rule => ({ effect: "deny", name, condition });
