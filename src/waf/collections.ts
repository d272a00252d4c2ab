/** ModSecurity's variables: from a request and its response to the names and values that rules look at. */

import type { Argument, BodyLimits } from "./bodies/body.ts";
import { readJson } from "./bodies/json.ts";
import type { MultipartBody, MultipartFlags } from "./bodies/multipart.ts";
import { readMultipart, strictError } from "./bodies/multipart.ts";
import { readUrlencoded, type UrlencodedBody } from "./bodies/urlencoded.ts";
import { readXml, type XmlBody } from "./bodies/xml.ts";
import type { BodyProcessor, Collection, PackSettings } from "./pack.ts";
import type { WafRequest, WafResponse } from "./request.ts";

/** One member of a collection; a collection of one has a member whose name is "". */
export interface Variable {
  /** In lower case: what selectors are held against. */
  readonly key: string;
  /** As it came. */
  readonly name: string;
  readonly value: string;
}

const NO_VARIABLES: readonly Variable[] = [];
const one = (value: string): readonly Variable[] => [{ key: "", name: "", value }];
const flag = (raised: boolean | undefined): readonly Variable[] => one(raised ? "1" : "0");
const variable = ([name, value]: readonly [string, string]): Variable => ({ key: lower(name), name, value });
const lower = (text: string): string => (/[A-Z]/.test(text) ? text.toLowerCase() : text);
const named = ({ key, name }: Variable): Variable => ({ key, name, value: name });

/** What is known of one request, collection by collection, each made when a rule first looks at it. */
export class Collections {
  readonly request: WafRequest;
  response: WafResponse | undefined;
  processor: BodyProcessor | "";
  /** REQUEST_BODY is there for bodies that no processor reads, too. */
  forcesBodyVariable = false;
  readsBody: boolean;
  bodyLimit: number;
  readonly #settings: PackSettings;
  /** By the collection's number. */
  readonly #made: (readonly Variable[] | undefined)[] = new Array(NUMBER_OF.size).fill(undefined);
  #relative: string | undefined;
  #filename: string | undefined;
  #query: UrlencodedBody | undefined;
  #bodyRead = false;
  #bodyText = "";
  truncated = false;
  #body: Body = NO_BODY;

  constructor(request: WafRequest, settings: PackSettings) {
    this.request = request;
    this.#settings = settings;
    this.readsBody = settings.requestBody;
    this.bodyLimit = settings.requestBodyLimit;
    this.processor = processorOf(this.header("content-type"));
  }

  /** The first header of that name, which is in lower case; "" when there is none. */
  header(name: string): string {
    for (const [held, value] of this.request.headers)
      if (held.length === name.length && lower(held) === name) return value;
    return "";
  }

  /** The headers of that name, which is in lower case: without making all of them members of a collection. */
  headers(name: string): readonly Variable[] {
    const { headers } = this.request;
    let members = NO_VARIABLES;
    for (let i = 0; i < headers.length; i++) {
      const [held, value] = headers[i] as readonly [string, string];
      if (held.length !== name.length || lower(held) !== name) continue;
      members = [...members, { key: name, name: held, value }];
    }
    return members;
  }

  of(collection: Collection): readonly Variable[] {
    const number = NUMBER_OF.get(collection);
    return number === undefined ? [] : this.at(number);
  }

  /** The same, by its number. */
  at(number: number): readonly Variable[] {
    return (this.#made[number] ??= (MAKERS[number] as Maker)(this));
  }

  /** The target without scheme and host, which a proxy's has. */
  get relative(): string {
    return (this.#relative ??= relativeOf(this.request.uri));
  }

  /** Decoded once, as a server does before it looks for a file (both ModSecurities). */
  get filename(): string {
    return (this.#filename ??= decoded(/^[^?#]*/.exec(this.relative)?.[0] ?? ""));
  }

  get query(): UrlencodedBody {
    return (this.#query ??= readUrlencoded(query(this), this.limits, this.separator));
  }

  /** Why some of the arguments or of the body was not read, so that no rule sees it. */
  get error(): string | undefined {
    return this.#body.error ?? this.query.error;
  }

  /** From here on there is a body: what depends on it is made again. Absent: what the request came with. */
  readBody(body = this.request.body, truncated = this.request.truncated): void {
    this.#bodyRead = true;
    this.#bodyText = body;
    this.truncated = truncated === true;
    for (const number of OF_BODY) this.#made[number] = undefined;
    this.#body = this.#readBody();
  }

  respond(response: WafResponse): void {
    this.response = response;
    for (const number of OF_RESPONSE) this.#made[number] = undefined;
  }

  get body(): Body {
    return this.#body;
  }

  get bodyText(): string {
    return this.#bodyRead && this.readsBody ? this.#bodyText : "";
  }

  get separator(): string {
    return this.#settings.argumentSeparator;
  }

  get limits(): BodyLimits {
    return { arguments: this.#settings.argumentsLimit, depth: this.#settings.jsonDepth };
  }

  #readBody(): Body {
    const text = this.bodyText;
    if (text === "") return NO_BODY;
    switch (this.processor) {
      case "URLENCODED":
        return this.#judged(readUrlencoded(text, this.limits, this.separator));
      case "MULTIPART": {
        const multipart = this.#judged(readMultipart(text, this.header("content-type"), this.limits));
        return { ...multipart, multipart };
      }
      case "JSON":
        return this.#judged(readJson(text, this.limits));
      case "XML": {
        const xml = this.#judged(readXml(text, this.limits));
        return { ...xml, xml };
      }
      default:
        return NO_BODY;
    }
  }

  /** What was cut off at the limit ends early without being wrong: what becomes of its rest is not for the rules to say. */
  #judged<Read extends { readonly error?: string }>(read: Read): Read | Omit<Read, "error"> {
    if (!this.truncated) return read;
    const { error: _, ...begun } = read;
    return begun;
  }
}

interface Body {
  readonly args: readonly Argument[];
  readonly error?: string;
  readonly invalidEncoding?: boolean;
  readonly multipart?: MultipartBody;
  readonly xml?: XmlBody;
}

const NO_BODY: Body = { args: [] };

function processorOf(contentType: string): BodyProcessor | "" {
  if (/^application\/x-www-form-urlencoded/i.test(contentType)) return "URLENCODED";
  if (/^multipart\/form-data/i.test(contentType)) return "MULTIPART";
  // As ModSecurity's recommended configuration chooses them.
  if (/^application\/(?:[a-z0-9.-]+\+)?json/i.test(contentType)) return "JSON";
  return /^(?:application(?:\/soap\+|\/)|text\/)xml/i.test(contentType) ? "XML" : "";
}

function query({ request: { uri } }: Collections): string {
  const at = uri.indexOf("?");
  const fragment = uri.indexOf("#");
  return at === -1 ? "" : uri.slice(at + 1, fragment > at ? fragment : undefined);
}

function relativeOf(uri: string): string {
  if (uri.startsWith("/")) return uri;
  const absolute = /^[a-z][a-z0-9+.-]*:\/\/[^/?#]*/i.exec(uri)?.[0];
  if (absolute === undefined) return uri;
  const rest = uri.slice(absolute.length);
  return rest.startsWith("/") ? rest : `/${rest}`;
}

const basename = (path: string): string => path.slice(Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\")) + 1);

const decoded = (path: string): string =>
  path.includes("%")
    ? path.replace(/%([0-9a-f]{2})/gi, (_, byte: string) => String.fromCharCode(Number.parseInt(byte, 16)))
    : path;

function cookies(of: Collections): Variable[] {
  const members: Variable[] = [];
  for (const header of of.of("REQUEST_HEADERS")) {
    if (header.key !== "cookie") continue;
    const { value } = header;
    for (let from = 0; from < value.length; ) {
      const found = value.indexOf(";", from);
      const to = found === -1 ? value.length : found;
      while (from < to && isSpace(value.charCodeAt(from))) from++;
      if (from < to) {
        const equals = value.indexOf("=", from);
        const end = equals === -1 || equals > to ? to : equals;
        members.push(variable([value.slice(from, end), value.slice(end + 1, to)]));
      }
      from = to + 1;
    }
  }
  return members;
}

/** C's isspace. */
const isSpace = (code: number): boolean => code === 0x20 || (code >= 0x09 && code <= 0x0d);

const multipartFlag = (name: keyof MultipartFlags) => (of: Collections) => flag(of.body.multipart?.flags[name]);

const responseHeader = (of: Collections, name: string): string =>
  of.response?.headers.find(([held]) => lower(held) === name)?.[1] ?? "";

const total = (members: readonly Variable[], length: (member: Variable) => number): string =>
  String(members.reduce((sum, member) => sum + length(member), 0));

/** Known from the request's line and who sends it: the same in all phases. */
export const OF_LINE: ReadonlySet<Collection> = new Set([
  "ARGS_GET",
  "ARGS_GET_NAMES",
  "QUERY_STRING",
  "REMOTE_ADDR",
  "REMOTE_HOST",
  "REQUEST_BASENAME",
  "REQUEST_FILENAME",
  "REQUEST_LINE",
  "REQUEST_METHOD",
  "REQUEST_PROTOCOL",
  "REQUEST_URI",
  "REQUEST_URI_RAW",
]);

/** Known from its headers: the same in all phases. */
export const OF_HEADERS: ReadonlySet<Collection> = new Set([
  "AUTH_TYPE",
  "REQUEST_COOKIES",
  "REQUEST_COOKIES_NAMES",
  "REQUEST_HEADERS",
  "REQUEST_HEADERS_NAMES",
  "SERVER_NAME",
]);

/** Of phase 2: empty before. */
const BODY_COLLECTIONS: readonly Collection[] = [
  "ARGS",
  "ARGS_NAMES",
  "ARGS_POST",
  "ARGS_POST_NAMES",
  "ARGS_COMBINED_SIZE",
  "FILES",
  "FILES_NAMES",
  "FILES_SIZES",
  "FILES_COMBINED_SIZE",
  "MULTIPART_FILENAME",
  "MULTIPART_NAME",
  "MULTIPART_PART_HEADERS",
  "MULTIPART_STRICT_ERROR",
  "MULTIPART_UNMATCHED_BOUNDARY",
  "MULTIPART_BOUNDARY_QUOTED",
  "MULTIPART_BOUNDARY_WHITESPACE",
  "MULTIPART_DATA_BEFORE",
  "MULTIPART_DATA_AFTER",
  "MULTIPART_HEADER_FOLDING",
  "MULTIPART_LF_LINE",
  "REQBODY_ERROR",
  "REQBODY_ERROR_MSG",
  "REQBODY_PROCESSOR",
  "REQBODY_PROCESSOR_ERROR",
  "REQUEST_BODY",
  "REQUEST_BODY_LENGTH",
  "FULL_REQUEST",
  "FULL_REQUEST_LENGTH",
  "URLENCODED_ERROR",
  "INBOUND_DATA_ERROR",
  "XML",
];

type Maker = (of: Collections) => readonly Variable[];

const head = ({ request: { method, uri, protocol, headers } }: Collections): string =>
  `${method} ${uri} ${protocol}\n${headers.map(([name, value]) => `${name}: ${value}\n`).join("")}\n`;

/** By name, how each is made. Those of rules (TX, MATCHED_VAR ...) are the engine's, and only named here. */
export const COLLECTIONS: ReadonlyMap<Collection, Maker> = new Map(
  Object.entries<Maker>({
    ARGS: (of) => [...of.of("ARGS_GET"), ...of.of("ARGS_POST")],
    ARGS_NAMES: (of) => of.of("ARGS").map(named),
    ARGS_GET: (of) => of.query.args.map(variable),
    ARGS_GET_NAMES: (of) => of.of("ARGS_GET").map(named),
    ARGS_POST: (of) => of.body.args.map(variable),
    ARGS_POST_NAMES: (of) => of.of("ARGS_POST").map(named),
    ARGS_COMBINED_SIZE: (of) => one(total(of.of("ARGS"), ({ name, value }) => name.length + value.length)),
    AUTH_TYPE: (of) => {
      const scheme = /^\S+(?=\s)/.exec(of.header("authorization"))?.[0];
      return scheme ? one(scheme) : [];
    },
    DURATION: () => one("0"),
    FILES: (of) => (of.body.multipart?.files ?? []).map((file) => variable([file.name, file.filename])),
    FILES_NAMES: (of) => (of.body.multipart?.files ?? []).map((file) => variable([file.name, file.name])),
    FILES_SIZES: (of) => (of.body.multipart?.files ?? []).map((file) => variable([file.name, String(file.size)])),
    FILES_COMBINED_SIZE: (of) => one(total(of.of("FILES_SIZES"), ({ value }) => Number(value))),
    FULL_REQUEST: (of) => one(head(of) + of.bodyText),
    FULL_REQUEST_LENGTH: (of) => one(String(head(of).length + of.bodyText.length)),
    INBOUND_DATA_ERROR: (of) => flag(of.truncated),
    MULTIPART_FILENAME: (of) => (of.body.multipart?.files ?? []).map((file) => variable([file.name, file.filename])),
    MULTIPART_NAME: (of) => (of.body.multipart?.files ?? []).map((file) => variable([file.name, file.name])),
    MULTIPART_PART_HEADERS: (of) => (of.body.multipart?.partHeaders ?? []).map(variable),
    MULTIPART_STRICT_ERROR: ({ body: { multipart } }) => flag(multipart && strictError(multipart)),
    MULTIPART_UNMATCHED_BOUNDARY: multipartFlag("unmatchedBoundary"),
    MULTIPART_BOUNDARY_QUOTED: multipartFlag("boundaryQuoted"),
    MULTIPART_BOUNDARY_WHITESPACE: multipartFlag("boundaryWhitespace"),
    MULTIPART_DATA_BEFORE: multipartFlag("dataBefore"),
    MULTIPART_DATA_AFTER: multipartFlag("dataAfter"),
    MULTIPART_HEADER_FOLDING: multipartFlag("headerFolding"),
    MULTIPART_LF_LINE: multipartFlag("lfLine"),
    QUERY_STRING: (of) => one(query(of)),
    REMOTE_ADDR: ({ request }) => one(request.clientAddress),
    REMOTE_HOST: ({ request }) => one(request.clientAddress),
    // Arguments beyond the limit raise it, wherever they stand (ModSecurity 2).
    REQBODY_ERROR: ({ error }) => flag(error !== undefined),
    REQBODY_ERROR_MSG: ({ error }) => one(error ?? ""),
    REQBODY_PROCESSOR_ERROR: ({ body }) => flag(body.error !== undefined),
    REQBODY_PROCESSOR: ({ processor }) => one(processor),
    // The last part, after either slash.
    REQUEST_BASENAME: (of) => one(basename(of.filename)),
    // Of a body that a processor has read something else is to be looked at (ModSecurity 2).
    REQUEST_BODY: (of) =>
      one(of.processor === "URLENCODED" || (of.processor === "" && of.forcesBodyVariable) ? of.bodyText : ""),
    REQUEST_BODY_LENGTH: (of) => one(String(of.bodyText.length)),
    REQUEST_COOKIES: cookies,
    REQUEST_COOKIES_NAMES: (of) => of.of("REQUEST_COOKIES").map(named),
    REQUEST_FILENAME: (of) => one(of.filename),
    REQUEST_HEADERS: ({ request }) => request.headers.map(variable),
    REQUEST_HEADERS_NAMES: (of) => of.of("REQUEST_HEADERS").map(named),
    REQUEST_LINE: ({ request: { method, uri, protocol } }) => one(`${method} ${uri} ${protocol}`),
    REQUEST_METHOD: ({ request }) => one(request.method),
    REQUEST_PROTOCOL: ({ request }) => one(request.protocol),
    REQUEST_URI: (of) => one(of.relative),
    REQUEST_URI_RAW: ({ request }) => one(request.uri),
    RESPONSE_BODY: ({ response }) => (response?.body === undefined ? [] : one(response.body)),
    RESPONSE_CONTENT_LENGTH: (of) => one(responseHeader(of, "content-length")),
    RESPONSE_CONTENT_TYPE: (of) => one(responseHeader(of, "content-type")),
    RESPONSE_HEADERS: ({ response }) => (response?.headers ?? []).map(variable),
    RESPONSE_HEADERS_NAMES: (of) => of.of("RESPONSE_HEADERS").map(named),
    RESPONSE_PROTOCOL: ({ response }) => (response ? one(response.protocol ?? "HTTP/1.1") : []),
    RESPONSE_STATUS: ({ response }) => (response ? one(String(response.status)) : []),
    SERVER_NAME: (of) => one(of.header("host").replace(/:\d*$/, "")),
    UNIQUE_ID: ({ request }) => one(request.id ?? ""),
    URLENCODED_ERROR: (of) => flag(of.body.invalidEncoding || of.query.invalidEncoding),
    XML: ({ body: { xml } }) =>
      xml
        ? [
            { key: "/*", name: "/*", value: xml.text },
            ...xml.attributes.map((value) => ({ key: "//@*", name: "//@*", value })),
          ]
        : [],
    GLOBAL: () => [],
    IP: () => [],
    MATCHED_VAR: () => [],
    MATCHED_VAR_NAME: () => [],
    MATCHED_VARS: () => [],
    MATCHED_VARS_NAMES: () => [],
    RESOURCE: () => [],
    SESSION: () => [],
    TX: () => [],
    USER: () => [],
  }),
);

const MAKERS: readonly Maker[] = [...COLLECTIONS.values()];
/** Of each collection its number: a request has some thirty, and looks at most of them. */
export const NUMBER_OF: ReadonlyMap<Collection, number> = new Map([...COLLECTIONS.keys()].map((name, i) => [name, i]));
const OF_BODY: readonly number[] = BODY_COLLECTIONS.map((name) => NUMBER_OF.get(name) as number);
const OF_RESPONSE: readonly number[] = [...NUMBER_OF].flatMap(([name, i]) => (name.startsWith("RESPONSE_") ? [i] : []));
