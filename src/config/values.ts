/**
 * What differs between environments is a typed reference, never a literal: its value is read at the edge, from the Worker's
 * environment. The build checks each name against wrangler.toml.
 */
export interface EnvReference {
  readonly kind: "env";
  readonly name: string;
}

export interface SecretReference {
  readonly kind: "secret";
  readonly name: string;
}

export interface BindingReference {
  readonly kind: "binding";
  readonly name: string;
}

export type Reference = EnvReference | SecretReference | BindingReference;

/** A plain variable: `[vars]` in wrangler.toml. */
export const env = (name: string): EnvReference => ({ kind: "env", name });

/** A secret: listed under `[secrets] required` in wrangler.toml, set with `wrangler secret put`, locally in `.dev.vars`. */
export const secret = (name: string): SecretReference => ({ kind: "secret", name });

/** Something with a `fetch` of its own: a VPC service, a service binding or an mTLS certificate in wrangler.toml. */
export const binding = (name: string): BindingReference => ({ kind: "binding", name });
