/**
 * The edge's own code in this process: one table, clusters that somebody here answers for, a store and a clock of the caller's. What
 * each policy did on the way is noted beside it.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import type { MiddlewareHandler } from "hono";
import { HTTPException } from "hono/http-exception";
import { createGateway } from "../edge/gateway.ts";
import type { Caller, DecisionRecord, Exchange, HeaderEdit, PolicyRun, PolicyVerdict } from "../policies/contract.ts";
import { authenticates } from "../policies/order.ts";
import type { WafConfig } from "../policies/waf.ts";
import { indexMatches, type MatchIndex } from "../table/match.ts";
import type { PolicyMode, PolicyName, RouteTable, TableMatch } from "../table/table.ts";
import { decodePack, type EncodedPack } from "../waf/pack-encoding.ts";
import { type AssumedCaller, assuming, refuseUnknown } from "./callers.ts";
import type { Clock } from "./clock.ts";
import { clusterAddresses, offlineEnvironment } from "./environment.ts";
import { authenticators, runs } from "./policies.ts";
import { inWorld, outside, type World } from "./world.ts";

export interface OfflineParts {
  readonly table: RouteTable;
  /** Of the table. Default: it is made. */
  readonly index?: MatchIndex;
  /** Variables and secrets; what is absent gets stand-ins. */
  readonly texts: Readonly<Record<string, unknown>>;
  readonly clock: Clock;
  /** Functions of the routes module, by place; of a table that has come without them, `next()` alone. */
  readonly middleware?: Readonly<Record<string, MiddlewareHandler>>;
  /** Rules of the table's wafs, by id; of a table that has come without them, every request passes. */
  readonly packs?: ReadonlyMap<string, EncodedPack>;
  /** Answers for a cluster. */
  cluster(request: ClusterRequest): Response | Promise<Response>;
  /** Answers for the store, in Upstash's REST protocol. */
  store(path: string, body: unknown): Promise<Response>;
  /** Answers for issuers and all others that policies ask. */
  provider(request: Request): Response | Promise<Response>;
}

export interface OfflineRequest {
  readonly method: string;
  /** As it would come over the wire: it is the gateway that makes sense of it. */
  readonly url: string;
  readonly headers?: readonly (readonly [name: string, value: string])[];
  readonly body?: string | Uint8Array | undefined;
  /** The client's address. */
  readonly client: string;
  /** What Cloudflare tells of where the request came in. */
  readonly cf?: Readonly<Record<string, unknown>>;
  readonly as?: AssumedCaller | undefined;
}

/** What a cluster was asked. */
export interface ClusterRequest {
  readonly method: string;
  readonly url: string;
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly body: Uint8Array;
  /** By which it was asked, where not by its address. */
  readonly binding?: string;
}

/** What a policy did with one request. */
export interface PolicyStep {
  readonly policy: PolicyName;
  readonly mode: PolicyMode;
  readonly config: unknown;
  readonly verdicts: readonly PolicyVerdict[];
  readonly limits: NonNullable<DecisionRecord["limits"]>;
  /** Of the headers for the origin, with the value after it; absent: it was taken out. */
  readonly upstream: readonly { readonly name: string; readonly value?: string }[];
  readonly response: readonly HeaderEdit[];
  /** It gave the answer itself. */
  readonly answered: boolean;
}

export interface Passage {
  readonly response: Response;
  readonly record: DecisionRecord;
  /** Of the route that answered; absent: none did. */
  readonly match?: TableMatch;
  readonly caller?: Caller;
  readonly steps: readonly PolicyStep[];
  /** In the order in which they were asked, copies for mirrors last. More may come while the body is read. */
  readonly asked: readonly ClusterRequest[];
  /** All lines that the gateway printed, parsed: the record, events, errors. */
  readonly lines: readonly Readonly<Record<string, unknown>>[];
  /** Resolves when the work that goes on after the answer is done. */
  settled(): Promise<void>;
}

interface Trace {
  /** Answers of clusters that are waited for. */
  awaited: number;
  readonly as: AssumedCaller | undefined;
  readonly steps: PolicyStep[];
  readonly asked: ClusterRequest[];
  readonly lines: Record<string, unknown>[];
  match?: TableMatch;
  caller?: Caller;
}

/** Milliseconds. Signatures and the like are made by other threads, and take their time on a busy machine. */
const MOMENT = 500;

export class OfflineGateway {
  readonly #parts: OfflineParts;
  readonly #app: ReturnType<typeof createGateway>;
  readonly #env: Record<string, unknown>;
  readonly #isCluster: (url: URL) => boolean;
  readonly #store: string | undefined;
  readonly #traces = new AsyncLocalStorage<Trace>();
  readonly #underWay = new Set<Trace>();

  constructor(parts: OfflineParts) {
    this.#parts = parts;
    const { table, index = indexMatches(table.routes, table.listeners), middleware, packs = new Map() } = parts;
    this.#env = offlineEnvironment(table, parts.texts, (binding, url, init) => this.#ask(url, init, binding));
    this.#isCluster = clusterAddresses(table, this.#env);
    const { store } = table.gateway;
    this.#store = store && "env" in store.url ? String(this.#env[store.url.env] ?? store.url.otherwise) : undefined;
    const unknown = new Proxy({}, { get: () => (_: unknown, next: () => Promise<void>) => next() });
    this.#app = createGateway({
      table,
      index,
      runs: this.#tracedRuns(packs),
      packs: Object.fromEntries([...packs].map(([id, { json, bytes }]) => [id, decodePack(json, bytes)])),
      authenticators,
      middleware: middleware
        ? Object.fromEntries(Object.entries(middleware).map(([place, handler]) => [place, withOurErrors(handler)]))
        : (unknown as Record<string, MiddlewareHandler>),
    });
  }

  /** Throws Error where it is asked as a consumer that nobody can be. */
  async fetch(asked: OfflineRequest): Promise<Passage> {
    refuseUnknown(this.#parts.table, asked.as);
    const trace: Trace = { awaited: 0, as: asked.as, steps: [], asked: [], lines: [] };
    const work: Promise<unknown>[] = [];
    const context = {
      waitUntil: (one: Promise<unknown>) => void work.push(one),
      passThroughOnException() {},
      props: {},
    };
    this.#underWay.add(trace);
    const response = await this.#traces
      .run(trace, () =>
        inWorld(this.#world(), async () => this.#app.fetch(requestOf(asked), this.#env, context as never)),
      )
      .finally(() => this.#underWay.delete(trace));
    const record = trace.lines.find(({ v, event }) => v === 1 && event === undefined);
    if (!record) throw new Error("the gateway has written no decision record");
    const { match, caller, steps, lines } = trace;
    const settled = async () => {
      for (let done = 0; done < work.length; ) {
        done = work.length;
        await Promise.allSettled(work);
      }
    };
    const shown = record as unknown as DecisionRecord;
    return {
      response,
      record: shown,
      ...(match && { match }),
      ...(caller && { caller }),
      steps,
      asked: trace.asked,
      lines,
      settled,
    };
  }

  /** Resolves when every request that is under way waits for a cluster; or, where one waits for the time alone, after a moment. */
  async idle(): Promise<void> {
    const patience = performance.now() + MOMENT;
    do await new Promise((resolve) => setImmediate(resolve));
    while ([...this.#underWay].some(({ awaited }) => awaited === 0) && performance.now() < patience);
  }

  #world(): World {
    return {
      clock: this.#parts.clock,
      fetch: (url, init) => this.#fetch(url, init),
      log: (line) => void this.#traces.getStore()?.lines.push(JSON.parse(line)),
    };
  }

  async #fetch(url: string, init: RequestInit): Promise<Response> {
    if (this.#store !== undefined && url.startsWith(this.#store)) {
      const body = JSON.parse(String(init.body));
      return outside(() => this.#parts.store(url.slice(this.#store?.length).replace(/^\/*/, "/"), body));
    }
    if (this.#isCluster(new URL(url))) return this.#ask(url, init);
    return outside(() => this.#parts.provider(new Request(url, init)));
  }

  async #ask(url: string, init: RequestInit, binding?: string): Promise<Response> {
    const body = init.body ? new Uint8Array(await new Response(init.body).arrayBuffer()) : new Uint8Array();
    const request: ClusterRequest = {
      method: init.method ?? "GET",
      url,
      headers: [...new Headers(init.headers)],
      body,
      ...(binding !== undefined && { binding }),
    };
    const trace = this.#traces.getStore();
    if (!trace) return outside(() => this.#parts.cluster(request));
    trace.asked.push(request);
    trace.awaited++;
    try {
      return await outside(() => this.#parts.cluster(request));
    } finally {
      trace.awaited--;
    }
  }

  #tracedRuns(packs: ReadonlyMap<string, EncodedPack>) {
    const assumed = () => this.#traces.getStore()?.as;
    // biome-ignore lint/suspicious/noExplicitAny: each run knows its own configuration's type
    const traced: Partial<Record<PolicyName, PolicyRun<any>>> = {};
    for (const [name, own] of Object.entries(runs) as [PolicyName, PolicyRun<unknown>][])
      traced[name] = this.#traced(name, authenticates(name) ? assuming(name, assumed) : own);
    const { waf } = runs;
    traced.waf = this.#traced("waf", (config, runtime, mode) =>
      packs.has((config as WafConfig).pack) ? waf(config, runtime, mode) : (_, next) => next(),
    );
    return traced;
  }

  #traced(policy: PolicyName, run: PolicyRun<unknown>): PolicyRun<unknown> {
    return (config, runtime, mode) => {
      const handler = run(config, runtime, mode);
      return async (c, next) => {
        const trace = this.#traces.getStore();
        const exchange = c.get("exchange");
        if (!trace) return handler(c, next);
        if (exchange.match) trace.match = exchange.match;
        const before = stateOf(exchange);
        let passed = false;
        const note = (answered: boolean) => {
          if (exchange.caller) trace.caller = exchange.caller;
          trace.steps.push({ policy, mode, config, ...changesSince(before, exchange), answered });
        };
        try {
          return await handler(c, async () => {
            passed = true;
            note(false);
            await next();
          });
        } finally {
          // It has answered, or thrown what becomes an answer.
          if (!passed) note(true);
        }
      };
    };
  }
}

/** Hono's own middleware refuses by an error, of a class that each bundle has a copy of; in the Worker there is one bundle. */
const withOurErrors =
  (handler: MiddlewareHandler): MiddlewareHandler =>
  async (c, next) => {
    try {
      return await handler(c, next);
    } catch (error) {
      if (error instanceof HTTPException) throw error;
      const { status, getResponse } = error as Partial<HTTPException>;
      if (status === undefined || typeof getResponse !== "function") throw error;
      throw new HTTPException(status, { res: getResponse.call(error) });
    }
  };

interface State {
  readonly verdicts: number;
  readonly limits: number;
  readonly edits: number;
  readonly upstream: ReadonlyMap<string, string>;
}

const stateOf = ({ record, upstream, responseEdits }: Exchange): State => ({
  verdicts: record.policies.length,
  limits: record.limits?.length ?? 0,
  edits: responseEdits.length,
  upstream: new Map(upstream),
});

function changesSince(before: State, { record, upstream, responseEdits }: Exchange) {
  const now = new Map(upstream);
  return {
    verdicts: record.policies.slice(before.verdicts),
    limits: (record.limits ?? []).slice(before.limits),
    response: responseEdits.slice(before.edits),
    upstream: [
      ...[...before.upstream.keys()].filter((name) => !now.has(name)).map((name) => ({ name })),
      ...[...now]
        .filter(([name, value]) => before.upstream.get(name) !== value)
        .map(([name, value]) => ({ name, value })),
    ],
  };
}

/** Node makes sense of a URL and refuses some methods; the gateway must see both as they came. */
function requestOf({ method, url, headers = [], body, client, cf = {} }: OfflineRequest): Request {
  // A token (RFC 9110, 9.1): nothing else can come as one.
  if (!/^[!#$%&'*+\-.^_`|~\w]+$/.test(method)) throw new TypeError(`"${method}" is no method: write GET, POST, ...`);
  const bodiless = method === "GET" || method === "HEAD" || body === undefined;
  const sent = new Headers();
  for (const [name, value] of headers) sent.append(name, value);
  sent.set("cf-connecting-ip", client);
  if (!sent.has("host")) sent.set("host", /^\w+:\/\/([^/?#]*)/.exec(url)?.[1] ?? "");
  if (body !== undefined && !sent.has("content-length"))
    sent.set("content-length", String(typeof body === "string" ? Buffer.byteLength(body) : body.byteLength));
  const request = new Request("http://offline.invalid/", {
    method: bodiless ? "GET" : "POST",
    headers: sent,
    ...(!bodiless && { body: typeof body === "string" ? new TextEncoder().encode(body) : (body as BodyInit) }),
  });
  for (const [name, value] of Object.entries({ method, url, cf })) Object.defineProperty(request, name, { value });
  return request;
}
