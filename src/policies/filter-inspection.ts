/** What `filter` finds in one request: its rules' matches on names and values, and what it counts itself. */
import type { Operator } from "../waf/operate.ts";
import type { PackOperator, PackTarget, RulePack } from "../waf/pack.ts";
import type { Found } from "../waf/prefilter.ts";
import { type Gate, type Reading, SingleRules } from "../waf/single-rules.ts";
import type { Transformations } from "../waf/transformations.ts";
import { asMarkup, asShell, asSql, MARKUP_TRIGGERS, SHELL_TRIGGERS, SQL_TRIGGERS } from "../waf/transforms/readings.ts";
import { lowercase } from "../waf/transforms/text.ts";
import { WindowedRegex } from "../waf/windowed-regex.ts";
import { asBinary } from "./binary.ts";
import type { Exchange } from "./contract.ts";
import { type BodyFormat, percentDecoded, readBody, readCookies, readParameters } from "./filter-fields.ts";

/** Of the rule pack, for `GatewayRuntime.rulePack`. */
export const FILTER_PACK = "filter";

/** 5 critical, 4 error, 3 warning, 2 notice: the anomaly scores of the OWASP Core Rule Set. */
export type Score = 5 | 4 | 3 | 2;
/** The severities that stand for them in a pack. */
export const SEVERITIES: Readonly<Record<Score, number>> = { 5: 2, 4: 3, 3: 4, 2: 5 };

/** Parts of a request, as records and exclusions call them. */
export type Part = "path" | "query" | "header" | "cookie" | "body";

/**
 * Where a rule looks. `agent` is the User-Agent, whose parentheses and semicolons are not those of other headers; `name` are names
 * of parameters and JSON members; `encoded` is a path, query or form before percent escapes are undone.
 */
export type Place = "path" | "query" | "header" | "agent" | "cookie" | "body" | "name" | "encoded";

export const PARTS: Readonly<Record<Place, readonly Part[]>> = {
  path: ["path"],
  query: ["query"],
  header: ["header"],
  agent: ["header"],
  cookie: ["cookie"],
  body: ["body"],
  name: ["query", "body"],
  encoded: ["path", "query", "body"],
};

/** As the pack calls them. ARGS_POST also is what else a body holds; REQUEST_URI_RAW also is a form. */
export const VARIABLES: Readonly<Record<Place, PackTarget>> = {
  path: { collection: "REQUEST_FILENAME" },
  query: { collection: "ARGS_GET" },
  header: { collection: "REQUEST_HEADERS", except: [{ name: "user-agent" }] },
  agent: { collection: "REQUEST_HEADERS", name: "user-agent" },
  cookie: { collection: "REQUEST_COOKIES" },
  body: { collection: "ARGS_POST" },
  name: { collection: "ARGS_NAMES" },
  encoded: { collection: "REQUEST_URI_RAW" },
};

/** Rules that are decided here, by counting or comparing. */
export const checks = [
  { id: "method", score: 5, places: [] },
  { id: "header-count", score: 5, places: [] },
  { id: "header-size", score: 5, places: ["header"] },
  { id: "query-size", score: 5, places: [] },
  // Two lengths for one message are how requests are smuggled (RFC 9112, 6.3).
  { id: "framing", score: 5, places: [] },
  // utf-7, utf-16 and EBCDIC spell an attack in other bytes than the rules know.
  { id: "body-charset", score: 5, places: [] },
  // Compressed: what it holds is not looked at.
  { id: "body-encoded", score: 2, places: [] },
] as const satisfies readonly { readonly id: string; readonly score: Score; readonly places: readonly Place[] }[];

type Check = (typeof checks)[number]["id"];

/** The pack, ready for any number of requests. */
export interface Armed {
  readonly rules: SingleRules;
  readonly readings: Readonly<Record<Place, Reading>>;
  /** Whether a value may match a rule; any parameter of so many; any cookie. Not of User-Agents, which all have to be asked about. */
  readonly tells: Gate;
  readonly tellsInQuery: Gate;
  readonly tellsInCookies: Gate;
  /** By the rule's place in the pack. */
  readonly ids: readonly string[];
  readonly scores: readonly number[];
}

const packs = new WeakMap<RulePack, Armed>();

/** One for all policies. */
export function armed(pack: RulePack): Armed {
  let made = packs.get(pack);
  if (!made) {
    const rules = new SingleRules(pack, operatorOf, TRANSFORMATIONS);
    const reading = (place: Place, recurs: boolean) => rules.reading(VARIABLES[place], recurs);
    const { agent, encoded, ...gated } = VARIABLES;
    const [tells, tellsInQuery, tellsInCookies] = rules.gates(Object.values(gated), [
      { separators: "", escapes: "" },
      { separators: "=&", escapes: "%+" },
      { separators: "=;", escapes: "%" },
    ]) as [Gate, Gate, Gate];
    made = {
      rules,
      readings: {
        path: reading("path", false),
        query: reading("query", false),
        header: reading("header", true),
        agent: reading("agent", true),
        cookie: reading("cookie", false),
        body: reading("body", false),
        name: reading("name", false),
        encoded: reading("encoded", false),
      },
      tells,
      tellsInQuery,
      tellsInCookies,
      ids: pack.rules.map(({ message }) => String(message)),
      scores: pack.rules.map(({ severity = 5 }) => 7 - severity),
    };
    packs.set(pack, made);
  }
  return made;
}

function operatorOf(packed: PackOperator): Operator {
  if (packed.op !== "rx-backtracking") throw new Error(`filter has no operator ${packed.op}: build again`);
  const regex = new WindowedRegex(packed.source, packed.flags, packed.window, packed.groups);
  return { test: (value) => regex.test(value) };
}

// Those of filter-rules.ts's readings, and no others, so that the bundle has no others. A blank alone triggers none, as no value that is
// looked at has two of them.
const TRANSFORMATIONS: Transformations = {
  apply: { lowercase, asSql, asMarkup, asShell },
  triggers: {
    lowercase: "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    asSql: SQL_TRIGGERS.replace(" ", ""),
    asMarkup: MARKUP_TRIGGERS.replace(" ", ""),
    asShell: SHELL_TRIGGERS.replace(" ", ""),
  },
};

export interface InspectionSettings {
  readonly methods: readonly string[];
  readonly maxHeaders: number;
  /** Bytes. */
  readonly maxHeaderBytes: number;
  readonly maxQueryBytes: number;
  /** By rule: true, or the targets that it leaves alone, such as `header:referer` or `query`. */
  readonly exclude: Readonly<Record<string, true | readonly string[]>>;
}

// Names that the record may tell: the API's own vocabulary. Others might be values, as in `?a.person@example.com`.
const TELLABLE = /^(?!.*[0-9]{3})[A-Za-z_$[][\w.$[\]-]{0,31}$/;

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

/** What may lead to percent escapes, or more blanks than one, in the values of a JSON text. */
const UNPLAIN = /[%\\]| {2}/;

/** What a gate does not know of: a second `=` in one parameter, or cookie, which then is a part of its value; and more blanks than one. */
const BEYOND_QUERY_GATE = /=[^&=]*=| {2}/;
const BEYOND_COOKIE_GATE = /=[^;=]*=| {2}/;

/** One request, each rule once. */
export class Inspection {
  score = 0;
  readonly #armed: Armed;
  readonly #settings: InspectionSettings;
  readonly #found: { id: string; target: string }[] = [];

  constructor(armed: Armed, settings: InspectionSettings) {
    this.#armed = armed;
    this.#settings = settings;
  }

  /** For the record; undefined: nothing was found. */
  facts(): { score: number; rules: readonly { id: string; target: string }[] } | undefined {
    return this.score === 0 ? undefined : { score: this.score, rules: this.#found };
  }

  head(method: string, { path, search, received }: Pick<Exchange, "path" | "search" | "received">): void {
    const { methods, maxQueryBytes } = this.#settings;
    if (!methods.includes(method)) this.#check("method", "method");
    if (search.length - 1 > maxQueryBytes) this.#check("query-size", "query");
    else if (search.length > 1) this.#query(asBinary(search.slice(1)));
    this.#lookEncoded("path", path);
    this.#lookTwice("path", "path", "", percentDecoded(path));
    this.#headers(received);
  }

  #query(query: string): void {
    if (!BEYOND_QUERY_GATE.test(query) && !this.#armed.tellsInQuery(query)) return;
    readParameters(query, this.#fields("query", !/[%+]/.test(query)));
  }

  #headers(received: Exchange["received"]): void {
    const { maxHeaders, maxHeaderBytes } = this.#settings;
    let lengths = 0;
    for (const [name, text] of received) {
      if (text.length > maxHeaderBytes) this.#check("header-size", "header", name);
      if (name === "content-length" || name === "transfer-encoding") lengths++;
      const quiet = QUIET.has(name) || name.startsWith("sec-") || name.startsWith("cf-");
      if (quiet && !text.includes("{")) continue;
      const value = asBinary(text);
      if (name === "cookie") {
        if (BEYOND_COOKIE_GATE.test(value) || this.#armed.tellsInCookies(value))
          readCookies(value, this.#fields("cookie", !/%| {2}/.test(value)));
      } else if (name === "user-agent") {
        this.#look("agent", "header", name, foldBlanks(value));
      } else {
        this.#lookTwice("header", "header", name, value);
      }
    }
    if (received.length > maxHeaders) this.#check("header-count", "header");
    if (lengths === 2) this.#check("framing", "header");
  }

  /** How to read the body, or undefined where it is not to be looked at. A body without a type might be anything, so it is text. */
  bodyFormat(headers: Pick<Headers, "get">, types?: readonly string[]): BodyFormat | undefined {
    const contentType = headers.get("content-type") ?? "text/plain";
    const type = (contentType.split(";", 1)[0] as string).trim().toLowerCase();
    const kind = FORMATS.find(([known]) => known.test(type))?.[1];
    if (types ? !types.includes(type) : !kind) return undefined;
    const encoding = headers.get("content-encoding");
    if (encoding && encoding.toLowerCase() !== "identity") {
      this.#check("body-encoded", "body");
      return undefined;
    }
    const charset = /\bcharset\s{0,8}=\s{0,8}["']?([^"';\s]{1,40})/i.exec(contentType)?.[1];
    if (charset && !ASCII_LIKE.test(charset.toLowerCase())) this.#check("body-charset", "body");
    if (kind !== "multipart") return { kind: kind ?? "text" };
    const boundary = /\bboundary=(?:"([^"]{1,70})"|([^\s;,"]{1,70}))/i.exec(contentType);
    return boundary ? { kind, boundary: asBinary(boundary[1] ?? (boundary[2] as string)) } : { kind: "text" };
  }

  /** @param text as bytes */
  body(text: string, format: BodyFormat): void {
    // What no part of the text can hold need not be looked for in each.
    const plain = format.kind === "json" && !UNPLAIN.test(text);
    readBody(text, format, this.#fields("body", plain));
  }

  #fields(part: "query" | "body" | "cookie", plain: boolean) {
    return {
      encoded: (text: string) => this.#lookEncoded(part, text),
      name: (name: string) => this.#look("name", part, "", plain ? name : foldBlanks(name)),
      value: plain
        ? (name: string, value: string) => this.#look(part, part, name, value)
        : (name: string, value: string) => this.#lookTwice(part, part, name, value),
    };
  }

  /** What has no percent sign is not encoded. */
  #lookEncoded(part: Part, text: string): void {
    if (text.includes("%")) this.#look("encoded", part, "", text);
  }

  /** Holds `value`, which the variable `name` of `part` has, against the rules for `place`. */
  #look(place: Place, part: Part, name: string, value: string): void {
    const { rules, readings, ids, scores, tells } = this.#armed;
    if (place !== "agent" && place !== "encoded" && !tells(value)) return;
    const found = rules.look(readings[place], value);
    for (let i = 0; i < found.length; i++) {
      const { rule } = found[i] as Found;
      this.#add(ids[rule] as string, scores[rule] as number, part, name);
    }
  }

  /** The same for a value that may hold percent escapes for whoever reads it next. No reading tells more blanks from one. */
  #lookTwice(place: Place, part: Part, name: string, value: string): void {
    const folded = foldBlanks(value);
    this.#look(place, part, name, folded);
    if (!folded.includes("%")) return;
    const decoded = foldBlanks(percentDecoded(folded));
    if (decoded !== folded) this.#look(place, part, name, decoded);
  }

  /** Counts a rule that the caller has decided. */
  #check(id: Check, part: Part | "method", name = ""): void {
    this.#add(id, checks.find((check) => check.id === id)?.score as number, part, name);
  }

  #add(id: string, score: number, part: Part | "method", name: string): void {
    const except = this.#settings.exclude[id];
    if (except === true || except?.includes(part) || except?.includes(`${part}:${name}`)) return;
    if (this.#found.some((one) => one.id === id)) return;
    this.#found.push({ id, target: TELLABLE.test(name) ? `${part}:${name}` : part });
    this.score += score;
  }
}

const foldBlanks = (value: string) => (value.includes("  ") ? value.replace(/ {2,}/g, " ") : value);

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
