import type { MiddlewareHandler } from "hono";
import { z } from "zod";
import { policyBuilder } from "../config/policy.ts";
import type { CompileContext, PolicyRun } from "./contract.ts";

export interface MiddlewareOptions {
  /** Any Hono middleware. `c.get("exchange")` is the request on its way through the gateway. */
  // biome-ignore lint/suspicious/noExplicitAny: middleware is written for environments of its own
  readonly handler: MiddlewareHandler<any, any, any>;
  /** How records name it. Default: the function's name. */
  readonly name?: string;
}

/** A Hono middleware with a name. In a list of policies the bare function does as well. */
export const middleware = policyBuilder<MiddlewareOptions>("middleware");

export const schema = () =>
  z.strictObject({
    handler: z.custom<MiddlewareHandler>((value) => typeof value === "function", "is no function"),
    name: z.string().min(1).optional(),
  });

/** `place` names the function in the routes module: a function is no JSON, so the Worker looks it up by its place. */
export interface MiddlewareConfig {
  readonly name: string;
  readonly place: string;
}

export const compile = ({ handler, name }: MiddlewareOptions, { place }: CompileContext): MiddlewareConfig => ({
  name: name ?? (handler.name || "middleware"),
  place,
});

export const run: PolicyRun<MiddlewareConfig> = ({ name, place }, runtime) => {
  const handler = runtime.middleware[place];
  if (!handler) throw new Error(`middleware ${name} (${place}) is not in the bundle`);
  return async (c, next) => {
    const { record } = c.get("exchange");
    const answer = await handler(c, next);
    // Hono's convention: a middleware that returns a response before it calls next() has answered.
    if (answer instanceof Response && !c.finalized) {
      record.policies.push({ policy: `middleware:${name}`, verdict: "deny" });
      record.reason = "policy";
    }
    return answer;
  };
};
