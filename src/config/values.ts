import { type Declaration, declaredAt } from "./declaration.ts";

/**
 * What differs between environments is a typed reference, never a literal: its value is read at the edge, from the Worker's
 * environment. The build checks each name against wrangler.toml.
 */
export interface EnvReference extends Partial<Declaration> {
  readonly kind: "env";
  readonly name: string;
  /** Used where the environment does not have it. */
  readonly otherwise?: string;
}

export interface SecretReference extends Partial<Declaration> {
  readonly kind: "secret";
  readonly name: string;
}

export interface BindingReference extends Partial<Declaration> {
  readonly kind: "binding";
  readonly name: string;
}

export type Reference = EnvReference | SecretReference | BindingReference;

/** A plain variable: `[vars]` in wrangler.toml. With `otherwise`, the environment need not have it. */
export const env = (name: string, otherwise?: string): EnvReference => ({
  kind: "env",
  name,
  ...(otherwise !== undefined && { otherwise }),
  declaredAt: declaredAt(env),
});

/** A secret: listed under `[secrets] required` in wrangler.toml, set with `wrangler secret put`, locally in `.dev.vars`. */
export const secret = (name: string): SecretReference => ({ kind: "secret", name, declaredAt: declaredAt(secret) });

/** Something with a `fetch` of its own: a VPC service, a service binding or an mTLS certificate in wrangler.toml. */
export const binding = (name: string): BindingReference => ({ kind: "binding", name, declaredAt: declaredAt(binding) });
