import { z } from "zod";
import type { HeaderChanges } from "../config/headers.ts";
import { policyBuilder } from "../config/policy.ts";
import type { TableHeaderChange } from "../table/table.ts";
import { type CompileContext, editHeader, type PolicyRun } from "./contract.ts";

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

export const schema = () =>
  z.strictObject({ request: changesSchema().optional(), response: changesSchema().optional() });

/** Of HeaderChanges. */
export const changesSchema = () => {
  const name = z.string().regex(NAME, "is no header name");
  const reference = z.looseObject({ kind: z.enum(["env", "secret"]), name: z.string() });
  const text = z.string().regex(/^[\t\x20-\x7e\x80-\xff]*$/, "has characters that a header cannot carry");
  const values = z.record(name, z.union([text, reference]));
  return z.strictObject({ remove: z.array(name).optional(), set: values.optional(), add: values.optional() });
};

export interface HeadersConfig {
  readonly request: readonly TableHeaderChange[];
  readonly response: readonly TableHeaderChange[];
}

// Decided by the connection or by the gateway itself; to set them here would be undone or would break the message.
const FIXED =
  /^(?:connection|keep-alive|te|trailer|transfer-encoding|upgrade|content-length|host|forwarded|x-forwarded-.*|x-consumer-.*|x-portcullis-.*)$/;

export const compile = (options: HeadersOptions, context: CompileContext): HeadersConfig => ({
  request: headerChanges(options.request, "request", context),
  response: headerChanges(options.response, "response", context),
});

/** In the order in which they are made, each kind by name. Tells of headers that only the gateway may change. */
export function headerChanges(
  changes: HeaderChanges = {},
  direction: "request" | "response",
  context: Pick<CompileContext, "problem" | "reference">,
): TableHeaderChange[] {
  const all: TableHeaderChange[] = (changes.remove ?? []).toSorted().map((name) => ({
    action: "remove",
    name: name.toLowerCase(),
  }));
  for (const action of ["set", "add"] as const) {
    for (const [name, value] of Object.entries(changes[action] ?? {}).sort(([a], [b]) => (a < b ? -1 : 1))) {
      all.push({
        action,
        name: name.toLowerCase(),
        value: typeof value === "string" ? value : name === "__proto__" ? "" : context.reference(value),
      });
    }
  }
  for (const { name, action } of all) {
    // zod passes over this name, and so over its value.
    if (name === "__proto__") context.problem(`headers cannot ${action} "${name}"`, "take it out of the list");
    if (FIXED.test(name) && (action !== "remove" || direction === "request")) {
      context.problem(
        `headers cannot ${action} "${name}" in the ${direction}: the gateway decides it`,
        "take it out of the list",
      );
    }
  }
  return all;
}

export const run: PolicyRun<HeadersConfig> = (config, runtime) => {
  return (c, next) => {
    const { upstream, responseEdits } = c.get("exchange");
    const text = (value: TableHeaderChange["value"]) =>
      typeof value === "object" ? runtime.text(value, c.env) : (value ?? "");
    for (const { action, name, value } of config.request) editHeader(upstream, { action, name, value: text(value) });
    for (const { action, name, value } of config.response) responseEdits.push({ action, name, value: text(value) });
    return next();
  };
};
