import { z } from "zod";
import type { HeaderChanges } from "../config/headers.ts";
import { policyBuilder } from "../config/policy.ts";
import type { Reference } from "../table/table.ts";
import type { CompileContext, PolicyRun } from "./contract.ts";

export interface HeadersOptions {
  /** Of the request that the origin gets. */
  readonly request?: HeaderChanges;
  /** Of the response that the client gets, also when the gateway itself answers. */
  readonly response?: HeaderChanges;
}

/** Changes headers: first remove, then set, then add. */
export const headers = policyBuilder<HeadersOptions>("headers");

// A token of RFC 9110, 5.6.2.
const NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;

export const schema = () => {
  const name = z.string().regex(NAME, "is no header name");
  const reference = z.looseObject({ kind: z.enum(["env", "secret"]), name: z.string() });
  const text = z.string().regex(/^[\t\x20-\x7e\x80-\xff]*$/, "has characters that a header cannot carry");
  const values = z.record(name, z.union([text, reference]));
  const changes = z.strictObject({ remove: z.array(name).optional(), set: values.optional(), add: values.optional() });
  return z.strictObject({ request: changes.optional(), response: changes.optional() });
};

interface Change {
  readonly action: "remove" | "set" | "add";
  readonly name: string;
  readonly value?: string | Reference;
}

export interface HeadersConfig {
  readonly request: readonly Change[];
  readonly response: readonly Change[];
}

// Decided by the connection or by the gateway itself; to set them here would be undone or would break the message.
const FIXED =
  /^(?:connection|keep-alive|te|trailer|transfer-encoding|upgrade|content-length|host|forwarded|x-forwarded-.*|x-consumer-.*|x-portcullis-.*)$/;

export function compile(options: HeadersOptions, context: CompileContext): HeadersConfig {
  const changes = (direction: HeaderChanges = {}, which: string): Change[] => {
    const all: Change[] = (direction.remove ?? []).map((name) => ({ action: "remove", name: name.toLowerCase() }));
    for (const action of ["set", "add"] as const) {
      for (const [name, value] of Object.entries(direction[action] ?? {})) {
        all.push({
          action,
          name: name.toLowerCase(),
          value: typeof value === "string" ? value : context.reference(value),
        });
      }
    }
    for (const { name, action } of all) {
      if (FIXED.test(name) && (action !== "remove" || which === "request")) {
        context.problem(
          `headers cannot ${action} "${name}" in the ${which}: the gateway decides it`,
          "take it out of the list",
        );
      }
    }
    return all;
  };
  return { request: changes(options.request, "request"), response: changes(options.response, "response") };
}

export const run: PolicyRun<HeadersConfig> = (config, runtime) => {
  return (c, next) => {
    const { upstream, responseEdits } = c.get("exchange");
    const text = (value: Change["value"]) => (typeof value === "object" ? runtime.text(value, c.env) : (value ?? ""));
    for (const { action, name, value } of config.request) {
      if (action === "remove") upstream.delete(name);
      else if (action === "set") upstream.set(name, text(value));
      else upstream.append(name, text(value));
    }
    for (const { action, name, value } of config.response) responseEdits.push({ action, name, value: text(value) });
    return next();
  };
};
