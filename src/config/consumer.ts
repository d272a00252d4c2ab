import { type Declaration, declaredAt } from "./declaration.ts";

export interface ConsumerOptions {
  /** By which tokens it is known: every listed claim must have this value. */
  readonly claims: Readonly<Record<string, string>>;
}

/** A named caller. Policies refer to it by value: `jwt({ consumers: [shop] })`, `rateLimit({ consumers: [[shop, 1000]] })`. */
export interface ConsumerDeclaration extends Declaration {
  readonly kind: "consumer";
  readonly name: string;
  readonly options: ConsumerOptions;
}

export function consumer(name: string, options: ConsumerOptions): ConsumerDeclaration {
  return { kind: "consumer", name, options, declaredAt: declaredAt(consumer) };
}
