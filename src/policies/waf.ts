import { z } from "zod";
import { type Deciding, policyBuilder } from "../config/policy.ts";
import { Engine, type PackExclusion } from "../waf/engine.ts";
import type { RulePack } from "../waf/pack.ts";
import type { Interruption, Verdict, WafRequest } from "../waf/request.ts";
import type { Transaction } from "../waf/transaction.ts";
import { asBinary, binaryOf } from "./binary.ts";
import {
  type CompileContext,
  type Exchange,
  type GatewayContext,
  type PolicyRun,
  type PolicyVerdict,
  pass,
  refuse,
} from "./contract.ts";
import { type Held, hold } from "./held-body.ts";

export interface WafOptions extends Deciding {
  /**
   * The folder of rules, seen from the file that this is written in: a checkout of the OWASP Core Rule Set, or one of *.conf files of
   * your own.
   */
  readonly rules: string;
  /** A file in place of the folder's crs-setup.conf. */
  readonly setup?: string;
  /** Files of rules that run before those of the folder, and after them. */
  readonly before?: readonly string[];
  readonly after?: readonly string[];
  /** How strict: rules of levels up to this one count. Default: the setup's, which is 1. */
  readonly paranoia?: 1 | 2 | 3 | 4;
  /** Rules of levels up to this one are asked and recorded, those above `paranoia` without counting. Default: `paranoia`. */
  readonly detection?: 1 | 2 | 3 | 4;
  /** The score from which a request is refused. Default: the setup's, which is 5: one critical match. */
  readonly threshold?: number;
  /** What the setup sets in `tx`, by name, such as `{ allowed_methods: "GET HEAD" }`. */
  readonly variables?: Readonly<Record<string, string | number>>;
  /** What is not looked at, as narrowly as possible. `gateway waf tune` proposes these. */
  readonly exclude?: readonly WafExclusion[];
  /** Of a hundred requests, how many are looked at. Default: 100. */
  readonly sample?: number;
  /** `false`: bodies are not looked at. */
  readonly body?: WafBody | false;
  /** Looks at answers too, which are then held. Default: false. */
  readonly response?: boolean | WafResponseOptions;
  /** Rules that cannot be compiled are left out, and listed by `gateway waf compile`. Default: false, they are errors. */
  readonly allowUnsupported?: boolean;
}

/** At least `rule`, `tag` or `target`; a rule is left out where all that are given apply. */
export interface WafExclusion {
  /** An id, or a range such as `942100-942199`. */
  readonly rule?: number | string;
  /** A tag of the rules, such as `attack-sqli`. */
  readonly tag?: string;
  /** What they do not look at: `ARGS:description`, `REQUEST_COOKIES:/^ga_/`, `REQUEST_HEADERS:Referer`. Absent: anything. */
  readonly target?: string;
}

export interface WafBody {
  /**
   * Bytes that are looked at, and so the most that is held: the origin gets nothing before these have come, or all. At most 1 MiB.
   * Default: the rules' SecRequestBodyLimit, which is 131072.
   */
  readonly inspect?: number;
  /** What becomes of a longer one: its rest passes unseen, or 413 `body-too-large`. Default: `pass`. */
  readonly tooLarge?: "pass" | "refuse";
  /**
   * The kinds of bodies that this API reads. Rules that only other kinds can trigger are gone, and bodies of other kinds are refused,
   * 403 `request-filtered`. Default: all of them.
   */
  readonly kinds?: readonly WafBodyKind[];
}

export type WafBodyKind = "form" | "multipart" | "json" | "xml";

export interface WafResponseOptions {
  /** The score from which an answer is refused. Default: the setup's, which is 4. */
  readonly threshold?: number;
  /** Bytes of the body that are looked at and held. At most 1 MiB. Default: the rules' SecResponseBodyLimit, which is 524288. */
  readonly inspect?: number;
}

/**
 * A web application firewall that runs rules in ModSecurity's language, such as the OWASP Core Rule Set, compiled at build: refuses what
 * they refuse, 403 `request-filtered` or the status that the rule names. The record tells which rules matched on which variables, never a value.
 */
export const waf = policyBuilder<WafOptions>("waf");

const MOST_HELD = 1 << 20;

export const schema = () => {
  const level = z.int().min(1).max(4);
  const bytes = z.int().min(1).max(MOST_HELD);
  const files = z.array(z.string().min(1)).optional();
  return z.strictObject({
    mode: z.enum(["enforce", "report", "off"]).optional(),
    rules: z.string().min(1),
    setup: z.string().min(1).optional(),
    before: files,
    after: files,
    paranoia: level.optional(),
    detection: level.optional(),
    threshold: z.int().min(1).optional(),
    variables: z
      .record(
        z.string().regex(/^\w+$/, "is no name of a variable such as allowed_methods"),
        z.union([z.string(), z.number()]),
      )
      .optional(),
    exclude: z
      .array(
        z
          .strictObject({
            rule: z
              .union([z.int().min(1), z.string().regex(/^\d+(?:-\d+)?$/, "is no id or range such as 942100-942199")])
              .optional(),
            tag: z.string().min(1).optional(),
            target: z.string().min(1).optional(),
          })
          .refine(({ rule, tag, target }) => rule ?? tag ?? target, "names no rule, tag or target"),
      )
      .optional(),
    sample: z.number().min(0).max(100).optional(),
    body: z
      .union([
        z.literal(false),
        z.strictObject({
          inspect: bytes.optional(),
          tooLarge: z.enum(["pass", "refuse"]).optional(),
          kinds: z
            .array(z.enum(["form", "multipart", "json", "xml"]))
            .min(1)
            .optional(),
        }),
      ])
      .optional(),
    response: z
      .union([z.boolean(), z.strictObject({ threshold: z.int().min(1).optional(), inspect: bytes.optional() })])
      .optional(),
    allowUnsupported: z.boolean().optional(),
  });
};

export interface WafConfig {
  /** The rule pack's id. */
  readonly pack: string;
  readonly exclusions: readonly PackExclusion[];
  /** Percent. */
  readonly sample: number;
  /** Absent: bodies are not looked at. */
  readonly body?: {
    readonly inspect?: number;
    readonly tooLarge: "pass" | "refuse";
    readonly kinds?: readonly WafBodyKind[];
  };
  /** Bytes of the answer; absent: answers are not looked at. */
  readonly response?: number;
}

export function compile(options: WafOptions, context: CompileContext): WafConfig | undefined {
  if (options.detection !== undefined && options.detection < (options.paranoia ?? 1))
    context.problem("`detection` is below `paranoia`", "take `detection` out, or raise it");
  const compiled = context.ruleSet(options);
  if (!compiled) return undefined;
  const { body = {}, response } = options;
  return {
    pack: compiled.id,
    exclusions: compiled.exclusions,
    sample: options.sample ?? 100,
    ...(body && { body: { tooLarge: "pass", ...body } }),
    ...(response && { response: (response !== true && response.inspect) || compiled.responseBodyLimit }),
  };
}

const engines = new WeakMap<RulePack, Engine>();

/** One for all policies with these rules. */
function engineOf(pack: RulePack): Engine {
  let engine = engines.get(pack);
  if (!engine) {
    engine = new Engine(pack);
    engines.set(pack, engine);
  }
  return engine;
}

/** Called when the isolate starts: what is made then no request waits for. */
export const warm = (pack: RulePack): void => engineOf(pack).warm();

export const run: PolicyRun<WafConfig> = (config, runtime, mode) => {
  const engine = engineOf(runtime.rulePack(config.pack));
  const options = { detectionOnly: mode === "report", exclusions: config.exclusions };
  return async (c, next) => {
    if (config.sample < 100 && Math.random() * 100 >= config.sample) return next();
    const exchange = c.get("exchange");
    const transaction = engine.begin(requestOf(c, exchange), options);
    transaction.requestHead();
    const refused = await body(c, exchange, transaction);
    const verdict = transaction.verdict();
    const { interruption } = verdict;
    if (refused || interruption) {
      const facts = factsOf(verdict);
      const answer = refuse(exchange, "waf", mode, refused ?? "request-filtered", {
        ...(facts && { facts }),
        ...(!refused && statusOf(interruption)),
      });
      if (answer) {
        // Nobody will read the rest; a source that has failed by then is no news.
        if (exchange.body instanceof ReadableStream) await exchange.body.cancel().catch(() => {});
        if (interruption?.location === undefined) return answer;
        return new Response(null, { status: interruption.status, headers: { location: interruption.location } });
      }
    } else if (config.response === undefined) {
      pass(exchange, "waf", factsOf(verdict));
    }
    if (config.response === undefined) return next();
    // What is compressed cannot be looked at.
    exchange.upstream.delete("accept-encoding");
    await next();
    return answered(c, exchange, transaction, config.response);
  };

  /** Phase 2, over as much of the body as the rules want. The code to refuse the request with, where it is not theirs to say. */
  async function body(c: GatewayContext, exchange: Exchange, transaction: Transaction) {
    const request = c.req.raw;
    if (!config.body || !request.body || (transaction.interruption && mode === "enforce")) {
      transaction.requestBody("");
      return undefined;
    }
    const { inspect, tooLarge, kinds } = config.body;
    const kind = transaction.bodyKind;
    if (kinds && !kinds.some((known) => KINDS[known] === kind)) return "request-filtered";
    const wanted = Math.min(transaction.wantedBody, inspect ?? MOST_HELD, MOST_HELD);
    if (wanted === 0) {
      transaction.requestBody("");
      return undefined;
    }
    const held = await hold(request.body, wanted, request.headers.get("content-length"), exchange.total);
    exchange.body = held.body;
    if (held.more && tooLarge === "refuse") return "body-too-large";
    transaction.requestBody(latin1(held, wanted), held.more);
    return undefined;
  }

  /** Phases 3 and 4. */
  async function answered(c: GatewayContext, exchange: Exchange, transaction: Transaction, inspect: number) {
    const response = c.res;
    const headers = [...response.headers] as [string, string][];
    const type = /^[^;\s]*/.exec(response.headers.get("content-type") ?? "")?.[0].toLowerCase() ?? "";
    const { responseTypes } = engine.pack.settings;
    const readable = response.body && responseTypes.includes(type) && !response.headers.has("content-encoding");
    let held: Held | undefined;
    if (readable && response.body) held = await hold(response.body, inspect, response.headers.get("content-length"));
    const asked = transaction.verdict().matches.length;
    transaction.response({ status: response.status, headers, body: held ? latin1(held, inspect) : "" });
    const verdict = transaction.verdict();
    const { interruption, matches } = verdict;
    // A record that tells of the request already gets what the response adds.
    const told = exchange.record.policies.some(({ policy }) => policy === "waf");
    const facts = factsOf(told ? { ...verdict, matches: matches.slice(asked) } : verdict);
    const refuses = interruption && (interruption.phase > 2 || !told);
    const answer = refuses
      ? refuse(exchange, "waf", mode, "response-filtered", { ...(facts && { facts }), ...statusOf(interruption) })
      : undefined;
    if (!refuses && (facts || !told)) pass(exchange, "waf", facts);
    if (!answer && !held) return;
    if (answer && held?.body instanceof ReadableStream) await held.body.cancel().catch(() => {});
    c.res = undefined;
    c.res = answer ?? new Response(held?.body as ReadableStream<Uint8Array> | undefined, response);
  }
};

/** A redirect has no problem document. */
const statusOf = (interruption: Interruption | undefined) =>
  interruption && interruption.action !== "redirect" ? { status: interruption.status } : undefined;

const KINDS: Readonly<Record<WafBodyKind, string>> = {
  form: "URLENCODED",
  multipart: "MULTIPART",
  json: "JSON",
  xml: "XML",
};

function requestOf(c: GatewayContext, exchange: Exchange): WafRequest {
  const { method, url, cf } = c.req.raw as Request & { cf?: { httpProtocol?: string } };
  const path = url.indexOf("/", url.indexOf("//") + 2);
  return {
    method,
    uri: path === -1 ? "/" : asBinary(url.slice(path)),
    protocol: cf?.httpProtocol ?? "HTTP/1.1",
    headers: exchange.received.map(([name, value]) => [name, asBinary(value)] as const),
    body: "",
    clientAddress: exchange.clientAddress,
    id: exchange.record.id,
  };
}

const latin1 = ({ begun }: Held, most: number): string =>
  binaryOf(begun.length > most ? begun.subarray(0, most) : begun);

// Names that the record may tell: the API's own vocabulary. Others might be values, as in `?a.person@example.com`.
const TELLABLE = /^[A-Z_]+(?::(?!.*[0-9]{3})[A-Za-z_$[][\w.$[\]-]{0,63})?$/;

function factsOf({ matches, scores }: Verdict): PolicyVerdict["facts"] | undefined {
  if (matches.length === 0) return undefined;
  return {
    score: scores.blocking_inbound_anomaly_score ?? scores.anomaly_score ?? 0,
    rules: matches.map(({ id, on }) => ({
      rule: id,
      targets: [...new Set(on.map(({ name }) => (TELLABLE.test(name) ? name : (name.split(":", 1)[0] as string))))],
    })),
  };
}
