import { z } from "zod";
import { type Deciding, policyBuilder } from "../config/policy.ts";
import type { RulePack } from "../waf/pack.ts";
import { asBinary, binaryOf } from "./binary.ts";
import { type CompileContext, type PolicyRun, pass, refuse } from "./contract.ts";
import { armed, checks, FILTER_PACK, Inspection, PARTS, type Part, type Place } from "./filter-inspection.ts";
import { rules } from "./filter-rules.ts";
import { hold } from "./held-body.ts";

/** Of a rule of filter-rules.ts, or of a check. */
export type RuleId = (typeof rules)[number]["id"] | (typeof checks)[number]["id"];

/** A part of the request, or one variable in it: `query:q`, `header:referer`, `cookie:theme`, `body:description`. */
export type FilterTarget = Part | `${"query" | "header" | "cookie" | "body"}:${string}`;

export interface FilterOptions extends Deciding {
  /**
   * The score from which a request is refused. A rule scores 5 (critical), 4, 3 or 2 (notice), once per request. Default: 5, so
   * that one critical rule or two others refuse.
   */
  readonly threshold?: number;
  /** Default: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS. */
  readonly methods?: readonly string[];
  /** Most headers that a request may have. Default: 100. */
  readonly maxHeaders?: number;
  /** Longest value of one header, in bytes. Default: 8192. */
  readonly maxHeaderBytes?: number;
  /** Longest query, in bytes. Default: 8192. */
  readonly maxQueryBytes?: number;
  /** Default: looks at the first 65536 bytes of bodies that hold text. `false`: at none. */
  readonly body?: FilterBody | false;
  /** Takes a rule out, or one target of it. */
  readonly exclude?: readonly { readonly rule: RuleId; readonly target?: FilterTarget }[];
}

export interface FilterBody {
  /**
   * Bytes that are looked at, and so the most that is held: the origin gets nothing before these have come, or all. At most 1 MiB.
   * Default: 65536.
   */
  readonly inspect?: number;
  /** What becomes of a longer one: its rest passes unseen, or 413 `body-too-large`. Default: `pass`. */
  readonly tooLarge?: "pass" | "refuse";
  /** Media types to look at, such as `application/json`. Default: JSON, forms, XML, GraphQL, text, and bodies without a type. */
  readonly types?: readonly string[];
}

/**
 * A small web application firewall: refuses what scores as an attack, 403 `request-filtered`. Its rules (filter-rules.ts) are a pack
 * that the waf's engine runs; the record tells which matched and where, never the value.
 */
export const filter = policyBuilder<FilterOptions>("filter");

const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
const TARGET = /^(?:path|query|header|cookie|body|(?:query|header|cookie|body):.+)$/;

export const schema = () => {
  const count = z.int().min(1);
  return z.strictObject({
    mode: z.enum(["enforce", "report", "off"]).optional(),
    threshold: count.optional(),
    methods: z
      .array(z.string().regex(/^[A-Z]+$/, "is no method in upper case"))
      .min(1)
      .optional(),
    maxHeaders: count.optional(),
    maxHeaderBytes: count.optional(),
    maxQueryBytes: count.optional(),
    body: z
      .union([
        z.literal(false),
        z.strictObject({
          inspect: count.max(1 << 20).optional(),
          tooLarge: z.enum(["pass", "refuse"]).optional(),
          types: z
            .array(z.string().regex(/^[a-z0-9.+-]+\/[a-z0-9.+-]+$/, "is no media type in lower case"))
            .min(1)
            .optional(),
        }),
      ])
      .optional(),
    exclude: z
      .array(
        z.strictObject({
          rule: z.enum([...checks, ...rules].map(({ id }) => id)),
          target: z.string().regex(TARGET, "is no target such as path, query:q or header:referer").optional(),
        }),
      )
      .optional(),
  });
};

export interface FilterConfig {
  readonly threshold: number;
  readonly methods: readonly string[];
  readonly maxHeaders: number;
  readonly maxHeaderBytes: number;
  readonly maxQueryBytes: number;
  readonly body:
    | false
    | { readonly inspect: number; readonly tooLarge: "pass" | "refuse"; readonly types?: readonly string[] };
  /** By rule: true, or the targets that it leaves alone. */
  readonly exclude: Readonly<Record<string, true | readonly string[]>>;
}

export function compile(options: FilterOptions, context: Pick<CompileContext, "problem">): FilterConfig {
  const exclude: Record<string, true | string[]> = {};
  for (const { rule, target } of [...(options.exclude ?? [])].sort((a, b) => (a.rule < b.rule ? -1 : 1))) {
    const places: readonly Place[] = [...checks, ...rules].find(({ id }) => id === rule)?.places ?? [];
    if (target === undefined) {
      exclude[rule] = true;
    } else if (!places.some((place) => PARTS[place].includes(target.split(":", 1)[0] as Part))) {
      context.problem(`the rule ${rule} does not look at "${target}"`, "take the exclusion, or its target, out");
    } else if (exclude[rule] !== true) {
      const normal = target.startsWith("header:") ? target.toLowerCase() : target;
      exclude[rule] = [...new Set(exclude[rule]).add(normal)].sort();
    }
  }
  const { body } = options;
  const types = body ? body.types?.toSorted() : undefined;
  return {
    threshold: options.threshold ?? 5,
    methods: [...(options.methods ?? METHODS)].sort(),
    maxHeaders: options.maxHeaders ?? 100,
    maxHeaderBytes: options.maxHeaderBytes ?? 8192,
    maxQueryBytes: options.maxQueryBytes ?? 8192,
    body: body === false ? false : { inspect: 65536, tooLarge: "pass", ...body, ...(types && { types }) },
    exclude,
  };
}

/** Called when the isolate starts: what is made then no request waits for. Some 10 ms. */
export const warm = (pack: RulePack): void => void armed(pack);

/** With names as bytes, which is what those of requests are. */
const exclusionsOf = ({ exclude }: FilterConfig): FilterConfig["exclude"] =>
  Object.fromEntries(
    Object.entries(exclude).map(([rule, targets]) => [rule, targets === true ? true : targets.map(asBinary)]),
  );

export const run: PolicyRun<FilterConfig> = (config, runtime, mode) => {
  const engine = armed(runtime.rulePack(FILTER_PACK));
  const settings = { ...config, exclude: exclusionsOf(config) };
  return async (c, next) => {
    const exchange = c.get("exchange");
    const request = c.req.raw;
    const inspection = new Inspection(engine, settings);
    inspection.head(request.method, exchange);
    let tooLarge = false;
    if (config.body && request.body) {
      const { inspect, types } = config.body;
      const format = inspection.bodyFormat(request.headers, types);
      if (format && inspection.score < config.threshold) {
        const held = await hold(request.body, inspect, request.headers.get("content-length"), exchange.total);
        exchange.body = held.body;
        tooLarge = held.more && config.body.tooLarge === "refuse";
        if (!tooLarge) inspection.body(binaryOf(held.begun), format);
      }
    }
    const facts = inspection.facts();
    if (!tooLarge && inspection.score < config.threshold) {
      pass(exchange, "filter", facts);
      return next();
    }
    const answer = refuse(exchange, "filter", mode, tooLarge ? "body-too-large" : "request-filtered", {
      ...(facts && { facts }),
    });
    if (!answer) return next();
    // Nobody will read the rest; a source that has failed by then is no news.
    if (exchange.body instanceof ReadableStream) await exchange.body.cancel().catch(() => {});
    return answer;
  };
};
