/** What the gateway puts around a policy, for tests that run one policy by itself. */
import { Hono } from "hono";
import {
  type CompileContext,
  type Exchange,
  type GatewayEnv,
  type GatewayRuntime,
  type MakeAuthenticator,
  NotConfigured,
  type PolicyRun,
} from "../../src/policies/contract.ts";
import { problemResponse } from "../../src/table/problems.ts";
import type { PolicyMode, PolicyName, RouteTable, TableRoute } from "../../src/table/table.ts";
import type { RulePack } from "../../src/waf/pack.ts";

const route: TableRoute = {
  id: "orders/list",
  api: "orders",
  hosts: ["*"],
  matches: [],
  policies: [0],
  action: { kind: "forward", backends: [0] },
};

/** The exchange that a request begins with: nothing decided yet, identity headers of the client removed. */
export function exchangeFor(request: Request, overrides: Partial<Exchange> = {}): Exchange {
  const url = new URL(request.url);
  const upstream = new Headers(request.headers);
  for (const name of [...upstream.keys()]) if (/^x-(?:consumer|portcullis)-/.test(name)) upstream.delete(name);
  return {
    route,
    path: url.pathname,
    search: url.search,
    host: url.hostname,
    scheme: url.protocol.slice(0, -1),
    clientAddress: "192.0.2.1",
    received: [...request.headers],
    upstream,
    responseEdits: [],
    record: {
      v: 1,
      time: "2026-11-23T00:00:00Z",
      id: "test",
      table: "0",
      method: request.method,
      host: url.hostname,
      path: url.pathname,
      client: "192.0.2.1",
      policies: [],
      attempts: [],
      status: 0,
      upstreamMs: 0,
      totalMs: 0,
    },
    waitUntil: () => {},
    ...overrides,
  };
}

export interface PolicyOptions {
  /** Default: `enforce`. */
  readonly mode?: PolicyMode;
  readonly clientAddress?: string;
  /** What references are read from. */
  readonly env?: Readonly<Record<string, unknown>>;
  /** Milliseconds since the epoch; a function for a clock that moves. Default: the real one. */
  readonly now?: number | (() => number);
  readonly table?: RouteTable;
  readonly middleware?: GatewayRuntime["middleware"];
  /** Rules, by id. */
  readonly packs?: Readonly<Record<string, RulePack>>;
  /** Of policies within the policy. */
  // biome-ignore lint/suspicious/noExplicitAny: each knows its own configuration's type
  readonly authenticators?: Partial<Record<PolicyName, MakeAuthenticator<any>>>;
  /** Of the exchange, beyond what follows from the request. */
  readonly exchange?: Partial<Exchange>;
  /** Default: 200 with the text `origin`. */
  readonly origin?: (exchange: Exchange, request: Request) => Response | Promise<Response>;
}

export interface PolicyResult {
  readonly response: Response;
  readonly exchange: Exchange;
  /** Whether the policy let the request through. */
  readonly passed: boolean;
  /** Settles when all that was handed to `waitUntil` has. */
  readonly background: Promise<unknown>;
}

/** Starts `run` as an isolate does, once, for any number of requests. Errors other than NotConfigured reject, as a 500 would be. */
export function startPolicy<Config>(
  run: PolicyRun<Config>,
  config: Config,
  options: PolicyOptions = {},
): (request: Request, overrides?: Partial<Exchange>) => Promise<PolicyResult> {
  const { mode = "enforce", env = {}, now = Date.now } = options;
  const runtime: GatewayRuntime = {
    table: options.table ?? ({ consumers: {} } as RouteTable),
    middleware: options.middleware ?? {},
    authenticator: ({ policy, config }) => {
      const make = options.authenticators?.[policy];
      if (!make) throw new Error(`the test gives no authenticator of ${policy}`);
      return make(config, runtime);
    },
    text: (reference, environment) => {
      const name = Object.values(reference)[0] as string;
      const value = (environment as Record<string, unknown>)[name];
      if (typeof value !== "string" || value === "") throw new NotConfigured(name);
      return value;
    },
    rulePack: (id) => {
      const pack = options.packs?.[id];
      if (!pack) throw new Error(`the test gives no rules ${id}`);
      return pack;
    },
    now: typeof now === "number" ? () => now : now,
  };
  // What a table holds has been through JSON.
  const middleware = run(JSON.parse(JSON.stringify(config)), runtime, mode);
  return async (request, overrides) => {
    const background: Promise<unknown>[] = [];
    const exchange = exchangeFor(request, {
      ...(options.clientAddress !== undefined && { clientAddress: options.clientAddress }),
      waitUntil: (work) => background.push(work),
      ...options.exchange,
      ...overrides,
    });
    let passed = false;
    const app = new Hono<GatewayEnv>();
    app.use(async (c, next) => {
      c.set("exchange", exchange);
      await next();
    });
    app.use(middleware);
    app.all("*", (c) => {
      passed = true;
      return options.origin?.(exchange, c.req.raw) ?? c.text("origin");
    });
    app.onError((error) => {
      if (error instanceof NotConfigured) return problemResponse("not-configured", exchange.record.id);
      throw error;
    });
    const response = await app.fetch(request, env);
    return { response, exchange, passed, background: Promise.all(background) };
  };
}

/** One request through one policy. */
export const runPolicy = <Config>(
  run: PolicyRun<Config>,
  config: Config,
  request: Request,
  options?: PolicyOptions,
): Promise<PolicyResult> => startPolicy(run, config, options)(request);

/** A CompileContext that keeps what it is told. */
export function compileContext(
  compileMember: (policy: PolicyName, options: Readonly<Record<string, unknown>>) => unknown = () => {
    throw new Error("this policy has no policies within it");
  },
): CompileContext & {
  readonly problems: string[];
  readonly references: string[];
  readonly claimed: string[];
} {
  const problems: string[] = [];
  const references: string[] = [];
  const claimed: string[] = [];
  return {
    place: "orders/list#0",
    problems,
    references,
    claimed,
    problem: (message, fix) => void problems.push(`${message}; fix: ${fix}`),
    reference: (value) => {
      references.push(`${value.kind}:${value.name}`);
      return { [value.kind]: value.name } as ReturnType<CompileContext["reference"]>;
    },
    ruleSet: () => undefined,
    identityHeaders: (names) => void claimed.push(...names),
    member: ({ policy, options }) => ({ policy, config: compileMember(policy, options) }),
  };
}
