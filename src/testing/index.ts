/**
 * `portcullis/testing`: the operator's routes in a test file, in the same code as the edge, with clusters, issuers, the store and the
 * clock in the test's hands (docs/testing.md).
 */
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { type Compiled, compileRoutes } from "../build/compile.ts";
import { parseWrangler } from "../build/environment.ts";
import { parseDuration } from "../config/duration.ts";
import { middlewareByPlace } from "../config/entries.ts";
import type { AssumedCaller } from "../offline/callers.ts";
import { Clock } from "../offline/clock.ts";
import { type ClusterRequest, OfflineGateway, type Passage } from "../offline/gateway.ts";
import { usualHost } from "../offline/host.ts";
import { Issuer } from "../offline/issuer.ts";
import { type KeyRecord, makeKey, recordKey, sha256 } from "../policies/api-key-format.ts";
import type { DecisionRecord, MemberPolicy } from "../policies/contract.ts";
import type { MembersConfig } from "../policies/members.ts";
import type { SignedTokenConfig } from "../policies/signed-token.ts";
import type { Reference, RouteTable } from "../table/table.ts";
import { TestStore } from "./store.ts";

export type { AssumedCaller, DecisionRecord };

export interface TestGatewayOptions {
  /** Answers for every cluster. Default: 200 without a body. It may throw, as a connection that fails, or never answer. */
  readonly upstream?: (request: UpstreamRequest) => Response | Promise<Response>;
  /** When the test begins. Default: now. */
  readonly now?: Date | number | string;
  /** Variables and secrets; the rest is that of wrangler's configuration, and stand-ins. */
  readonly env?: Readonly<Record<string, string>>;
  /** Of requests that are given by their path. Default: the first host of the routes that is a name. */
  readonly host?: string;
  /** Answers for whomever policies ask: introspection, forwardAuth, token endpoints. Undefined: the test's issuer answers. */
  readonly provider?: (request: Request) => Response | undefined | Promise<Response | undefined>;
  /** wrangler's configuration. Default: the one beside the routes. */
  readonly config?: string;
}

export interface TestRequest {
  readonly headers?: Readonly<Record<string, string>> | readonly (readonly [name: string, value: string])[];
  /** An object is sent as JSON. */
  readonly body?: string | Uint8Array | object;
  /** Who calls, with a good credential of whatever kind the route wants: a consumer's name, or more of it. */
  readonly as?: string | AssumedCaller;
  /** Default: `203.0.113.7`. */
  readonly client?: string;
  /** What Cloudflare tells of the request: `{ country: "DE" }`. */
  readonly cf?: Readonly<Record<string, unknown>>;
}

/** What a cluster got. */
export interface UpstreamRequest {
  /** Of the routes. "": nobody can tell by the address. */
  readonly cluster: string;
  readonly method: string;
  readonly url: string;
  readonly headers: Headers;
  readonly bytes: Uint8Array;
  text(): string;
  // biome-ignore lint/suspicious/noExplicitAny: each test knows what it has sent
  json(): any;
}

export interface TestAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly response: Response;
  text(): Promise<string>;
  // biome-ignore lint/suspicious/noExplicitAny: each test knows what it has asked for
  json(): Promise<any>;
  /** As it is in the gateway's log (docs/records.md). */
  readonly record: DecisionRecord;
  /** The route's id; undefined: none matches. */
  readonly route: string | undefined;
  /** Why the gateway answered itself, a code of docs/errors.md; undefined: a cluster answered. */
  readonly reason: string | undefined;
  /** What clusters were asked, one try after the other, and after them the copies for mirrors. */
  readonly upstream: readonly UpstreamRequest[];
  /** What the gateway printed beside the record: events, errors. */
  readonly events: readonly Readonly<Record<string, unknown>>[];
}

export interface TokenClaims {
  readonly sub?: string;
  /** A list becomes the `scope` claim. */
  readonly scopes?: readonly string[];
  readonly [claim: string]: unknown;
}

/**
 * A gateway of these routes: a folder or file, relative to the working directory, or its URL. Throws ConfigurationRefused, with all that
 * is wrong, when they do not compile.
 */
export async function testGateway(routes: string | URL, options: TestGatewayOptions = {}): Promise<TestGateway> {
  const path = routes instanceof URL ? fileURLToPath(routes) : routes;
  const { config } = options;
  const compiled = await compiledOnce(path, config);
  const { module, wrangler } = compiled;
  const vars = wrangler ? (parseWrangler(wrangler, await readFile(wrangler, "utf8")).vars ?? {}) : {};
  return new TestGateway(compiled, middlewareByPlace(module.exported), { ...vars, ...options.env }, options);
}

const MOST_TURNS = 20;

const known = new Map<string, ReturnType<typeof compileRoutes>>();

/** Each routes module, once for a test file: it takes longer than most tests. */
function compiledOnce(routes: string, config: string | undefined): ReturnType<typeof compileRoutes> {
  const key = JSON.stringify([resolve(routes), config]);
  const compiled = known.get(key) ?? compileRoutes({ routes, ...(config !== undefined && { config }) });
  known.set(key, compiled);
  return compiled;
}

export class TestGateway {
  readonly table: RouteTable;
  /** Empty as the test begins. `away = true`: it cannot be reached. */
  readonly store: TestStore;
  readonly #gateway: OfflineGateway;
  readonly #clock: Clock;
  readonly #issuer = new Issuer();
  readonly #texts: Readonly<Record<string, unknown>>;
  readonly #host: string;
  #upstream: TestGatewayOptions["upstream"];

  /** @internal Made by `testGateway`. */
  constructor(
    { table, packs }: Pick<Compiled, "table" | "packs">,
    middleware: ReturnType<typeof middlewareByPlace>,
    texts: Readonly<Record<string, unknown>>,
    { now = Date.now(), host, upstream, provider }: TestGatewayOptions,
  ) {
    this.table = table;
    this.#texts = texts;
    this.#clock = new Clock(new Date(now).getTime());
    this.store = new TestStore(this.#clock);
    this.#upstream = upstream;
    this.#host = host ?? usualHost(table.routes.flatMap((route) => route.hosts));
    this.#gateway = new OfflineGateway({
      table,
      packs,
      texts,
      clock: this.#clock,
      middleware,
      cluster: (request) => this.#answer(request),
      store: (path, body) => this.store.answer(path, body),
      provider: async (request) =>
        (await provider?.(request.clone())) ?? this.#issuer.answer(request) ?? new Response("", { status: 503 }),
    });
  }

  /** `url` is a path, for the routes' own host by https, or absolute. */
  async fetch(method: string, url: string, request: TestRequest = {}): Promise<TestAnswer> {
    const { body, as, client = "203.0.113.7", cf } = request;
    const headers = new Headers(request.headers as Record<string, string> | undefined);
    const isJson = typeof body === "object" && !(body instanceof Uint8Array);
    if (isJson && !headers.has("content-type")) headers.set("content-type", "application/json");
    const passage = await this.#gateway.fetch({
      method,
      url: /^https?:\/\//i.test(url) ? url : `https://${this.#host}${url}`,
      headers: [...headers],
      body: isJson ? JSON.stringify(body) : (body as string | Uint8Array | undefined),
      client,
      ...(cf && { cf }),
      as: typeof as === "string" ? { consumer: as } : as,
    });
    // What goes on after the answer is done when the test looks, unless it waits for the test itself, as for who reads the body.
    let done = false;
    passage.settled().then(() => (done = true));
    for (let turn = 0; turn < MOST_TURNS && !done; turn++) await this.#clock.wait(0);
    return this.#told(passage);
  }

  /** From now on clusters answer so. */
  upstream(answer: TestGatewayOptions["upstream"] & object): void {
    this.#upstream = answer;
  }

  /** A token of the test's issuer, which every jwt and oidc policy believes; by default good for an hour, for whom the first such policy wants it. */
  token({ scopes, ...claims }: TokenClaims = {}): string {
    const config = this.table.policies.flatMap(withMembers).find(isSignedToken)?.config as
      | SignedTokenConfig
      | undefined;
    const text = (value: string | Reference | undefined) => (typeof value === "object" ? this.#textOf(value) : value);
    const issued = Math.floor(this.#clock.now() / 1_000);
    const audience = text(config?.audience?.[0]);
    return this.#issuer.token({
      iss: text(config?.issuer[0]) ?? "https://issuer.invalid",
      ...(audience !== undefined && { aud: audience }),
      sub: "somebody",
      iat: issued,
      exp: issued + 3_600,
      ...(scopes && { scope: scopes.join(" ") }),
      ...claims,
    });
  }

  /** An API key of the consumer's, known to the store. */
  async apiKey(consumer: string, more: Partial<KeyRecord> & { readonly prefix?: string } = {}): Promise<string> {
    const policy = this.table.policies.flatMap(withMembers).find((one) => one.policy === "apiKey");
    const { prefix = (policy?.config as { prefix?: string } | undefined)?.prefix ?? "key", ...rest } = more;
    const key = makeKey(prefix);
    const record: KeyRecord = { id: `test-${consumer}`, consumer, created: this.#clock.now(), ...rest };
    await this.store.command(["SET", recordKey(await sha256(key)), JSON.stringify(record)]);
    return key;
  }

  /** Milliseconds since the epoch. Time stands still but for `advance`, and for the pauses that the gateway itself makes between tries. */
  get now(): number {
    return this.#clock.now();
  }

  /** Lets time pass: milliseconds, or a duration such as `90s`. What becomes due on the way is done. */
  async advance(time: number | string): Promise<void> {
    const milliseconds = typeof time === "number" ? time : parseDuration(time);
    if (milliseconds === undefined) throw new TypeError(`${time} is no duration: write 500, "90s", "15m" or "1h30m"`);
    await this.#clock.advance(milliseconds, () => this.#gateway.idle());
  }

  async #answer(request: ClusterRequest): Promise<Response> {
    return (await this.#upstream?.(this.#shown(request))) ?? new Response(null, { status: 200 });
  }

  #told({ response, record, asked, lines }: Passage): TestAnswer {
    const events = () => lines.filter(({ v, event }) => event !== undefined || v !== 1);
    const upstream = () => asked.map((request) => this.#shown(request));
    return {
      status: response.status,
      headers: response.headers,
      response,
      text: () => response.text(),
      json: () => response.json(),
      record,
      route: record.route,
      reason: record.reason,
      get upstream() {
        return upstream();
      },
      get events() {
        return events();
      },
    };
  }

  #shown({ method, url, headers, body, binding }: ClusterRequest): UpstreamRequest {
    const text = () => new TextDecoder().decode(body);
    const all = new Headers(headers as [string, string][]);
    return {
      cluster: this.#clusterOf(url, binding),
      method,
      url,
      headers: all,
      bytes: body,
      text,
      json: () => JSON.parse(text()),
    };
  }

  #clusterOf(url: string, binding: string | undefined): string {
    const fits = ({ ingress }: RouteTable["clusters"][string]) =>
      "binding" in ingress
        ? ingress.binding === binding
        : binding === undefined && URL.parse(this.#textOf(ingress) ?? "")?.host === new URL(url).host;
    return Object.values(this.table.clusters).find(fits)?.name ?? "";
  }

  #textOf(reference: Reference): string | undefined {
    if ("binding" in reference) return undefined;
    const name = "env" in reference ? reference.env : reference.secret;
    const text = this.#texts[name] ?? ("env" in reference ? reference.otherwise : undefined);
    return text === undefined ? undefined : String(text);
  }
}

const withMembers = (policy: MemberPolicy): MemberPolicy[] => {
  const { members } = policy.config as Partial<MembersConfig>;
  return Array.isArray(members) ? [policy, ...members.flatMap(withMembers)] : [policy];
};

const isSignedToken = ({ policy }: MemberPolicy): boolean => policy === "jwt" || policy === "oidc";
