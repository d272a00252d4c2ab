import type { PolicyName } from "../table/table.ts";
import { type Declaration, declaredAt } from "./declaration.ts";

/** What every policy that decides something takes besides its own options. */
export interface Deciding {
  /** `report` records what it would have refused and lets the request pass; `off` takes it out. Default: `enforce`. */
  readonly mode?: "enforce" | "report" | "off";
}

/** A policy with its options, as `routes/` holds it. One value may stand on many routes; it is then one policy. */
export interface PolicyDeclaration extends Declaration {
  readonly kind: "policy";
  readonly policy: PolicyName;
  readonly options: Readonly<Record<string, unknown>>;
}

/** Makes the builder of the policy `name`. */
export function policyBuilder<Options extends object>(name: PolicyName): (options: Options) => PolicyDeclaration {
  const builder = (options: Options): PolicyDeclaration => ({
    kind: "policy",
    policy: name,
    options: options as Readonly<Record<string, unknown>>,
    declaredAt: declaredAt(builder),
  });
  return builder;
}

/** Takes the policies of these kinds, inherited from the gateway or the API, off a route or an API: `without("jwt")`. */
export interface WithoutDeclaration extends Declaration {
  readonly kind: "without";
  readonly policies: readonly PolicyName[];
}

export function without(...policies: PolicyName[]): WithoutDeclaration {
  return { kind: "without", policies, declaredAt: declaredAt(without) };
}
