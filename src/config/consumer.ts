import type { Duration } from "./api.ts";
import { type Declaration, declaredAt } from "./declaration.ts";

/** What JSON can hold. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [name: string]: Json };

/** Plain data: what a limiter makes of it is told at rateLimit. */
export interface PlanLimit {
  readonly limit: number;
  /** Or a `day` or `month` of the calendar in UTC. */
  readonly window: Duration | "day" | "month";
}

export interface PlanOptions {
  /** What the plan's consumers may use. Default: nothing is said about limits. */
  readonly limits?: readonly PlanLimit[];
}

/** What a consumer has bought or was granted. Consumers and policies refer to it by value. */
export interface PlanDeclaration extends Declaration {
  readonly kind: "plan";
  readonly name: string;
  readonly options: PlanOptions;
}

export function plan(name: string, options: PlanOptions = {}): PlanDeclaration {
  return { kind: "plan", name, options, declaredAt: declaredAt(plan) };
}

export interface ConsumerOptions {
  /** By which tokens it is known: every listed claim must have this value. Default: by none; other credentials name it. */
  readonly claims?: Readonly<Record<string, string>>;
  /** What it belongs to; the origin gets them in `x-consumer-groups`. */
  readonly groups?: readonly string[];
  /** What conditions may go by (authorize), at most 4096 characters of JSON. It stays in the gateway. */
  readonly metadata?: Readonly<Record<string, Json>>;
  readonly plan?: PlanDeclaration;
}

/**
 * A named caller. Policies refer to it by value: `jwt({ consumers: [shop] })`, `rateLimit({ consumers: [[shop, 1000]] })`. Its
 * credentials are claims, or whatever an authenticating policy knows it by: API keys, a certificate, a signing key.
 */
export interface ConsumerDeclaration extends Declaration {
  readonly kind: "consumer";
  readonly name: string;
  readonly options: ConsumerOptions;
}

export function consumer(name: string, options: ConsumerOptions = {}): ConsumerDeclaration {
  return { kind: "consumer", name, options, declaredAt: declaredAt(consumer) };
}
