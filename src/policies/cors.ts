import { z } from "zod";
import { policyBuilder } from "../config/policy.ts";
import { isGrpc } from "../table/grpc.ts";
import type { CompileContext, HeaderEdit, PolicyRun } from "./contract.ts";

export interface CorsOptions {
  /**
   * `https://shop.example.com`, `https://*.example.com` for one or more labels, `https://*` for any host, or `*`. Scheme and port count;
   * without a port it is the scheme's own.
   */
  readonly origins: readonly string[];
  /** Default: the method that the browser asks for, which has matched a route. */
  readonly methods?: readonly string[];
  /** Request headers that scripts may set. Default: those that the browser asks for. */
  readonly headers?: readonly string[];
  /** Response headers that scripts may read. Those of gRPC-Web's status are always among them for gRPC-Web requests. */
  readonly expose?: readonly string[];
  /** Whether cookies and Authorization may come along. Default: false. */
  readonly credentials?: boolean;
  /** Seconds that a browser remembers a preflight's answer. Default: 5 (the Gateway API's and Fetch's default). */
  readonly maxAge?: number;
}

/**
 * Cross-origin access (Fetch, 3.2). Answers preflights itself, before authentication and limits. An origin that is not allowed
 * gets no CORS headers, also not those that the backend sets.
 */
export const cors = policyBuilder<CorsOptions>("cors");

export const schema = () =>
  z.strictObject({
    origins: z.array(z.string()),
    methods: z.array(z.string().regex(/^(?:[A-Z]+|\*)$/, "is no method in upper case")).optional(),
    headers: z.array(z.string().regex(/^(?:[A-Za-z0-9-_]+|\*)$/)).optional(),
    expose: z.array(z.string().regex(/^(?:[A-Za-z0-9-_]+|\*)$/)).optional(),
    credentials: z.boolean().optional(),
    maxAge: z.int().min(0).optional(),
  });

export type CorsConfig = Omit<CorsOptions, "credentials" | "maxAge"> & {
  readonly credentials: boolean;
  readonly maxAge: number;
};

export function compile(options: CorsOptions, context: CompileContext): CorsConfig {
  const { credentials = false, maxAge = 5, origins, ...lists } = options;
  // What is left of an imported filter may allow nobody; by itself nobody should write that either.
  if (origins.length === 0 && context.semantics !== "gateway-api")
    context.problem("cors allows no origin", "list at least one, or leave cors out");
  for (const origin of origins) {
    if (origin !== "*" && !/^[a-z][a-z0-9+.-]*:\/\/(?:\*|(?:\*\.)?[a-z0-9.-]+)(?::[0-9]+)?$/.test(origin)) {
      context.problem(
        `"${origin}" is no origin`,
        "write scheme://host, in lower case and without a path, e.g. https://*.example.com",
      );
    }
    // The Gateway API has it (HTTPCORSFilter.allowOrigins); by itself nobody should write it.
    if (origin === "*" && credentials && context.semantics !== "gateway-api") {
      context.problem("cors allows every origin with credentials", "list the origins that may send credentials");
    }
  }
  return { origins: origins.map(withoutOwnPort), ...lists, credentials, maxAge };
}

/** An origin as browsers write it (Fetch, 3.2.1; HTML, 7.1.1): without the scheme's own port. */
const withoutOwnPort = (origin: string): string => origin.replace(/^(?:(http:.*):80|(https:.*):443)$/, "$1$2");

const ALLOW = ["origin", "methods", "headers", "credentials"].map((part) => `access-control-allow-${part}`);
const MANAGED: readonly HeaderEdit[] = [...ALLOW, "access-control-expose-headers", "access-control-max-age"].map(
  (name) => ({
    action: "remove",
    name,
  }),
);

// Where an answer without messages has its status (gRPC over HTTP/2, "Trailers-Only"), and its details (google.rpc.Status).
const GRPC_STATUS = "grpc-status, grpc-message, grpc-status-details-bin";

export const run: PolicyRun<CorsConfig> = (config) => {
  const any = config.origins.includes("*");
  const exact = new Set(config.origins);
  const wildcards = config.origins
    .filter((origin) => origin.includes("://*"))
    .map((origin) => origin.split("*") as [scheme: string, rest: string]);
  // A `*` stands for labels of the host, of any number; never for what is none, such as a port.
  const fits = (origin: string, [scheme, rest]: [scheme: string, rest: string]) =>
    origin.startsWith(scheme) &&
    origin.endsWith(rest) &&
    /^[^:/]+$/.test(origin.slice(scheme.length, origin.length - rest.length));
  const allowed = (sent: string) => {
    const origin = withoutOwnPort(sent);
    return any || exact.has(origin) || wildcards.some((wildcard) => fits(origin, wildcard));
  };
  // With credentials a browser takes `*` for a name, so what was asked for is repeated instead (Fetch, 3.2.5).
  const list = (names: readonly string[] | undefined, asked: string | null) =>
    names && !(config.credentials && names.includes("*")) ? names.join(", ") : asked;
  const exposed = config.credentials ? config.expose?.filter((name) => name !== "*") : config.expose;

  return async (c, next) => {
    const exchange = c.get("exchange");
    const { headers, method } = c.req.raw;
    const edits = exchange.responseEdits;
    const set = (name: string, value: string | null | undefined) => {
      if (value) edits.push({ action: "set", name: `access-control-${name}`, value });
    };
    const origin = headers.get("origin");
    edits.push(...MANAGED, { action: "add", name: "vary", value: "Origin" });
    const asked = headers.get("access-control-request-method");
    const preflight = method === "OPTIONS" && origin !== null && asked !== null;
    if (origin !== null && allowed(origin)) {
      set("allow-origin", any && !config.credentials ? "*" : origin);
      set("allow-credentials", config.credentials ? "true" : null);
      const grpc = isGrpc(headers.get("content-type")) && GRPC_STATUS;
      set("expose-headers", [exposed?.join(", "), grpc].filter(Boolean).join(", "));
      if (preflight) {
        set("allow-methods", list(config.methods, asked));
        set("allow-headers", list(config.headers, headers.get("access-control-request-headers")));
        set("max-age", String(config.maxAge));
      }
    }
    if (!preflight) return next();
    edits.push({ action: "add", name: "vary", value: "Access-Control-Request-Method, Access-Control-Request-Headers" });
    exchange.record.reason = "preflight";
    return new Response(null, { status: 204 });
  };
};
