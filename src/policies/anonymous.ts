import { z } from "zod";
import { type ConsumerDeclaration, consumer as declareConsumer } from "../config/consumer.ts";
import { declaredAt } from "../config/declaration.ts";
import type { PolicyDeclaration } from "../config/policy.ts";
import { admissionOf, authenticating, consumerFacts } from "./authentication.ts";
import type { CompileContext, MakeAuthenticator, PolicyRun } from "./contract.ts";

export interface AnonymousOptions {
  readonly consumer: ConsumerDeclaration;
}

const nobody = declareConsumer("anonymous");

/**
 * Lets requests without any credential in as `consumer`, by default one of the name `anonymous`: it has groups, a plan and limits as
 * any other. In anyOf, where it belongs, it counts only for requests that show no other credential, not even a bad one.
 */
export function anonymous(consumer: ConsumerDeclaration = nobody): PolicyDeclaration {
  return { kind: "policy", policy: "anonymous", options: { consumer }, declaredAt: declaredAt(anonymous) };
}

export const schema = () =>
  z.strictObject({ consumer: z.looseObject({ kind: z.literal("consumer"), name: z.string() }) });

export interface AnonymousConfig {
  readonly consumer: string;
}

export const compile = ({ consumer }: AnonymousOptions, _: CompileContext): AnonymousConfig => ({
  consumer: consumer.name,
});

export const authenticator: MakeAuthenticator<AnonymousConfig> = ({ consumer }, runtime) => {
  const caller = { ...consumerFacts(runtime, consumer), subject: `consumer:${consumer}`, scopes: [], claims: {} };
  const admission = admissionOf(caller, [], { anonymous: true });
  return { authenticate: () => admission };
};

export const run: PolicyRun<AnonymousConfig> = authenticating("anonymous", authenticator);
