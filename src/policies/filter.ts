import { z } from "zod";
import { type Deciding, policyBuilder } from "../config/policy.ts";
import { type CompileContext, type Exchange, type PolicyRun, pass, refuse } from "./contract.ts";
import {
  BARE_WORDS,
  checks,
  type Place,
  type Reading,
  type Rule,
  type RuleId,
  readings,
  rules,
  unescapeMarkup,
} from "./filter-rules.ts";
import { hold } from "./held-body.ts";

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
 * A small web application firewall: refuses what scores as an attack, 403 `request-filtered`. Its rules are in filter-rules.ts;
 * the record tells which matched and where, never the value.
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

type Part = "path" | "query" | "header" | "cookie" | "body";

const PARTS: Readonly<Record<Place, readonly Part[]>> = {
  path: ["path"],
  query: ["query"],
  header: ["header"],
  agent: ["header"],
  cookie: ["cookie"],
  body: ["body"],
  name: ["query", "body"],
  encoded: ["path", "query", "body"],
};

export function compile(options: FilterOptions, context: CompileContext): FilterConfig {
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

export const run: PolicyRun<FilterConfig> = (config, _runtime, mode) => {
  const engine = arm(config.exclude);
  return async (c, next) => {
    const exchange = c.get("exchange");
    const request = c.req.raw;
    const findings = new Findings(engine);
    lookAtHead(findings, request.method, exchange, config);
    let tooLarge = false;
    if (config.body && request.body) {
      const { inspect, types } = config.body;
      const format = bodyFormat(findings, request.headers, types);
      if (format && findings.score < config.threshold) {
        const held = await hold(request.body, inspect, request.headers.get("content-length"), exchange.total);
        exchange.body = held.body;
        tooLarge = held.more && config.body.tooLarge === "refuse";
        if (!tooLarge) lookAtBody(findings, lenientUtf8.decode(held.begun), format);
      }
    }
    if (!tooLarge && findings.score < config.threshold) {
      pass(exchange, "filter", findings.facts());
      return next();
    }
    const facts = findings.facts();
    const answer = refuse(exchange, "filter", mode, tooLarge ? "body-too-large" : "request-filtered", {
      ...(facts && { facts }),
    });
    if (!answer) return next();
    // Nobody will read the rest; a source that has failed by then is no news.
    if (exchange.body instanceof ReadableStream) await exchange.body.cancel().catch(() => {});
    return answer;
  };
};

interface ArmedRule extends Rule {
  readonly id: RuleId;
  readonly marks: number;
}

/** The rules for one place, and the marks that any of them needs. */
interface RuleSet {
  readonly rules: readonly ArmedRule[];
  readonly marks: number;
}

interface Engine {
  readonly places: Readonly<Record<Place, RuleSet>>;
  readonly exclude: FilterConfig["exclude"];
}

function arm(exclude: FilterConfig["exclude"]): Engine {
  const armed: ArmedRule[] = rules
    .filter(({ id }) => exclude[id] !== true)
    .map((rule) => ({ ...rule, marks: rule.needs === "" ? ANY : marksOf(rule.needs + ADDED[rule.reads]) }));
  const places = {} as Record<Place, RuleSet>;
  for (const place of Object.keys(PARTS) as Place[]) {
    const those = armed.filter((rule) => rule.places.includes(place));
    places[place] = { rules: those, marks: those.reduce((all, { marks }) => all | marks, 0) };
  }
  return { places, exclude };
}

// One bit per character that a rule may need. Found by one pass over a value, they say which rules can match at all; most values
// on the wire hold none. Measured for a User-Agent: 0.1 µs, as much as one pattern.
const MARKED = [...new Set(rules.flatMap(({ needs }) => [...needs]))]
  .filter((character) => character !== " " && character !== "\0")
  .join("");
const BLANK = 1 << MARKED.length;
const CONTROL = BLANK << 1;
const ANY = CONTROL << 1;
const MARKS = Int32Array.from({ length: 128 }, (_, code) => {
  const character = String.fromCharCode(code);
  const at = MARKED.indexOf(character);
  return (
    (at === -1 ? 0 : 1 << at) |
    (/\s/.test(character) ? BLANK : 0) |
    ((code < 0x20 && character !== "\t") || code === 0x7f ? CONTROL : 0)
  );
});
// Characters from which a reading makes some that a rule may need.
const ADDED: Readonly<Record<Reading, string>> = { text: "", sql: "", html: "&\\", shell: "" };
// What is ordinary in a place is no mark there, unless something else is: slashes in a normal path, which leads nowhere else; a
// User-Agent's comments; the punctuation of URLs and lists in other headers.
const ORDINARY: Partial<Record<Place, number>> = {
  path: marksOf("/"),
  agent: marksOf("(/; )+"),
  header: marksOf("/?=&#;, +*"),
};
const ORDINARY_QUERY = marksOf("=&");
const ORDINARY_COOKIES = marksOf("=; ");

function marksOf(text: string): number {
  let marks = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    // Beyond ASCII only white space matters; any such character may be some.
    marks |= code < 128 ? (MARKS[code] as number) : BLANK;
  }
  return marks;
}

/** Whether no part of `text` can match a rule, given which marks are its own punctuation. */
const isPlain = (text: string, ordinary: number) => (marksOf(text) & ~ordinary) === 0 && !BARE_WORDS.test(text);

// Names that the record may tell: the API's own vocabulary. Others might be values, as in `?a.person@example.com`.
const TELLABLE = /^(?!.*[0-9]{3})[A-Za-z_$[][\w.$[\]-]{0,31}$/;

/** What one request has shown so far, each rule once. */
class Findings {
  score = 0;
  readonly #engine: Engine;
  readonly #rules: { id: RuleId; target: string }[] = [];

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  facts(): Record<string, unknown> | undefined {
    return this.score === 0 ? undefined : { score: this.score, rules: this.#rules };
  }

  /** Counts a rule that the caller has decided. */
  check(id: (typeof checks)[number]["id"], part: Part | "method", name = ""): void {
    this.#add(checks.find((check) => check.id === id) as (typeof checks)[number], part, name);
  }

  /** Holds `value`, which the variable `name` of `part` has, against the rules for `place`. */
  look(place: Place, part: Part, name: string, value: string): void {
    const set = this.#engine.places[place];
    let marks = marksOf(value);
    marks = ((marks & ~(ORDINARY[place] ?? 0)) === 0 ? 0 : marks) | ANY;
    const bare = BARE_WORDS.test(value);
    if ((marks & set.marks) === 0 && !bare) return;
    const read: Partial<Record<Reading, string>> = {};
    for (const rule of set.rules) {
      if ((rule.marks & marks) === 0 && !(bare && rule.bare)) continue;
      const text = (read[rule.reads] ??= readings[rule.reads](value));
      if (rule.pattern.test(text)) this.#add(rule, part, name);
    }
  }

  /** The same for a value that may hold percent escapes for whoever reads it next. */
  lookTwice(place: Place, part: Part, name: string, value: string): void {
    this.look(place, part, name, value);
    const decoded = percentDecoded(value);
    if (decoded !== value) this.look(place, part, name, decoded);
  }

  #add(rule: { readonly id: RuleId; readonly score: number }, part: Part | "method", name: string): void {
    const except = this.#engine.exclude[rule.id];
    if (except === true || except?.includes(part) || except?.includes(`${part}:${name}`)) return;
    if (this.#rules.some(({ id }) => id === rule.id)) return;
    this.#rules.push({ id: rule.id, target: TELLABLE.test(name) ? `${part}:${name}` : part });
    this.score += rule.score;
  }
}

const lenientUtf8 = new TextDecoder();

/** Percent escapes decoded as the most lenient origin would: IIS's %uXXXX, overlong UTF-8, broken escapes left alone. */
function percentDecoded(text: string): string {
  if (!text.includes("%")) return text;
  // Only where it cannot fail: an exception for each field of a form would cost 70 ms for 64 KB.
  if (!/%(?![0-7][0-9a-f])/i.test(text)) return decodeURIComponent(text);
  return (/%(?:u|c[01])/i.test(text) ? oddEscapesDecoded(text) : text).replace(/(?:%[0-9a-f]{2})+/gi, (run) => {
    const bytes = new Uint8Array(run.length / 3);
    for (let i = 0; i < bytes.length; i++) bytes[i] = Number.parseInt(run.slice(3 * i + 1, 3 * i + 3), 16);
    return lenientUtf8.decode(bytes);
  });
}

const oddEscapesDecoded = (text: string) =>
  text
    .replace(/%u([0-9a-f]{4})/gi, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 16)))
    .replace(/%c([01])%([89ab][0-9a-f])/gi, (_, high: string, low: string) =>
      String.fromCharCode((Number(high) << 6) | (Number.parseInt(low, 16) & 0x3f)),
    );

function lookAtHead(
  findings: Findings,
  method: string,
  { path, search, received }: Exchange,
  config: FilterConfig,
): void {
  if (!config.methods.includes(method)) findings.check("method", "method");
  if (search.length - 1 > config.maxQueryBytes) findings.check("query-size", "query");
  else lookAtQuery(findings, search.slice(1));
  findings.look("encoded", "path", "", path);
  findings.lookTwice("path", "path", "", percentDecoded(path));
  lookAtHeaders(findings, received, config);
}

// Their values are the protocol's or a credential's. What is meant for a logger or a shell instead (${jndi:...}, () {...},
// %{...}) has a brace, which none of these has.
const QUIET = new Set(
  (
    "accept accept-charset accept-encoding accept-language authorization cache-control connection content-length content-type " +
    "date dnt expect host if-match if-modified-since if-none-match if-range if-unmodified-since keep-alive origin pragma " +
    "priority proxy-authorization range te traceparent tracestate transfer-encoding upgrade upgrade-insecure-requests via " +
    "x-api-key x-csrf-token x-xsrf-token"
  ).split(" "),
);

function lookAtHeaders(findings: Findings, received: Exchange["received"], config: FilterConfig): void {
  let lengths = 0;
  for (const [name, value] of received) {
    if (value.length > config.maxHeaderBytes) findings.check("header-size", "header", name);
    if (name === "content-length" || name === "transfer-encoding") lengths++;
    if (name === "cookie") {
      lookAtCookies(findings, value);
    } else if (name === "user-agent") {
      findings.look("agent", "header", name, value);
    } else if (!(QUIET.has(name) || name.startsWith("sec-") || name.startsWith("cf-")) || value.includes("{")) {
      findings.lookTwice("header", "header", name, value);
    }
  }
  if (received.length > config.maxHeaders) findings.check("header-count", "header");
  if (lengths === 2) findings.check("framing", "header");
}

function lookAtCookies(findings: Findings, header: string): void {
  if (isPlain(header, ORDINARY_COOKIES)) return;
  for (const cookie of header.split(";")) {
    const at = cookie.indexOf("=");
    findings.lookTwice(
      "cookie",
      "cookie",
      cookie.slice(0, Math.max(at, 0)).trim(),
      percentDecoded(cookie.slice(at + 1)),
    );
  }
}

function lookAtQuery(findings: Findings, query: string): void {
  if (!isPlain(query, ORDINARY_QUERY)) lookAtParameters(findings, "query", query);
}

/** `a=1&b=2`, as in a query or a form. */
function lookAtParameters(findings: Findings, part: "query" | "body", text: string): void {
  findings.look("encoded", part, "", text);
  for (const pair of text.split("&")) {
    const at = pair.indexOf("=");
    const [name = "", value = ""] = [pair.slice(0, Math.max(at, 0)), pair.slice(at + 1)].map((raw) =>
      percentDecoded(raw.includes("+") ? raw.replaceAll("+", " ") : raw),
    );
    if (name) findings.look("name", part, "", name);
    findings.lookTwice(part, part, name, value);
  }
}

type BodyFormat =
  | { readonly kind: "json" | "form" | "xml" | "text" }
  | { readonly kind: "multipart"; readonly boundary: string };

// Supersets of ASCII: whatever else they hold, an attack's characters are where UTF-8 has them.
const ASCII_LIKE =
  /^(?:utf-?8|us-ascii|ascii|latin1|iso-8859-[0-9]{1,2}|windows-[0-9]{3,4}|koi8-[ru]|gb[0-9k]{2,5}|big5|euc-[a-z]{2})$/;

const FORMATS: readonly (readonly [type: RegExp, kind: BodyFormat["kind"]])[] = [
  [/json/, "json"],
  [/^application\/x-www-form-urlencoded$/, "form"],
  [/^multipart\/form-data$/, "multipart"],
  [/[/+]xml$/, "xml"],
  [/^text\/|graphql|javascript|yaml/, "text"],
];

/** How to read the body, or undefined where it is not to be looked at. A body without a type might be anything, so it is text. */
function bodyFormat(findings: Findings, headers: Headers, types?: readonly string[]): BodyFormat | undefined {
  const contentType = headers.get("content-type") ?? "text/plain";
  const type = (contentType.split(";", 1)[0] as string).trim().toLowerCase();
  const kind = FORMATS.find(([known]) => known.test(type))?.[1];
  if (types ? !types.includes(type) : !kind) return undefined;
  const encoding = headers.get("content-encoding");
  if (encoding && encoding.toLowerCase() !== "identity") {
    findings.check("body-encoded", "body");
    return undefined;
  }
  const charset = /\bcharset\s{0,8}=\s{0,8}["']?([^"';\s]{1,40})/i.exec(contentType)?.[1];
  if (charset && !ASCII_LIKE.test(charset.toLowerCase())) findings.check("body-charset", "body");
  if (kind !== "multipart") return { kind: kind ?? "text" };
  const boundary = /\bboundary=(?:"([^"]{1,70})"|([^\s;,"]{1,70}))/i.exec(contentType);
  return boundary ? { kind, boundary: boundary[1] ?? (boundary[2] as string) } : { kind: "text" };
}

function lookAtBody(findings: Findings, text: string, format: BodyFormat): void {
  if (format.kind === "form") {
    lookAtParameters(findings, "body", text);
  } else if (format.kind === "multipart") {
    lookAtMultipart(findings, text, format.boundary);
  } else if (format.kind === "json" && /^\s*[[{"\d.tfn-]/.test(text)) {
    lookAtJson(findings, text);
  } else {
    findings.lookTwice("body", "body", "", text);
    if (format.kind !== "xml") return;
    for (const piece of text.split(/[<>]/)) findings.lookTwice("body", "body", "", unescapeMarkup(piece));
  }
}

/**
 * The strings of a JSON text, by scanning: no depth to overflow, the end may be missing, and of a repeated member each value is
 * seen. A value goes by the name of the nearest member before it.
 */
function lookAtJson(findings: Findings, text: string): void {
  let name = "";
  let end: number;
  for (let start = text.indexOf('"'); start !== -1; start = text.indexOf('"', end + 1)) {
    end = start;
    do end = text.indexOf('"', end + 1);
    while (end !== -1 && isEscaped(text, end));
    if (end === -1) end = text.length;
    const value = unescapeJson(text.slice(start + 1, end));
    if (isMemberName(text, end + 1)) {
      name = value;
      findings.look("name", "body", "", value);
    } else {
      findings.lookTwice("body", "body", name, value);
    }
  }
}

function isEscaped(text: string, at: number): boolean {
  let backslashes = 0;
  while (text[at - 1 - backslashes] === "\\") backslashes++;
  return backslashes % 2 === 1;
}

function isMemberName(text: string, at: number): boolean {
  while (text[at] === " " || text[at] === "\n" || text[at] === "\r" || text[at] === "\t") at++;
  return text[at] === ":";
}

const JSON_ESCAPES: Readonly<Record<string, string>> = { b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" };

function unescapeJson(text: string): string {
  if (!text.includes("\\")) return text;
  return text.replace(/\\(?:u([0-9a-fA-F]{4})|(.))/gs, (_, digits: string | undefined, character: string) =>
    digits ? String.fromCharCode(Number.parseInt(digits, 16)) : (JSON_ESCAPES[character] ?? character),
  );
}

/** The fields of a form, and the names of its files; what the files hold is the origin's matter. */
function lookAtMultipart(findings: Findings, text: string, boundary: string): void {
  for (const piece of text.split(`--${boundary}`)) {
    const blankLine = /\r?\n\r?\n/.exec(piece);
    if (!blankLine) continue;
    const head = piece.slice(0, blankLine.index);
    const name = /\bname=(?:"([^"]{0,256})"|([^\s;]{1,256}))/i.exec(head);
    const file = /\bfilename\*?=(?:"([^"]{0,256})"|([^\r\n;]{0,256}))/i.exec(head);
    const field = name?.[1] ?? name?.[2] ?? "";
    findings.look("name", "body", "", field);
    findings.lookTwice(
      "body",
      "body",
      field,
      file ? (file[1] ?? (file[2] as string)) : piece.slice(blankLine.index).trim(),
    );
  }
}
