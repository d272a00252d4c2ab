/**
 * Requests as logs tell of them: decision records (docs/records.md), the combined log of nginx and ingress-nginx, HAR. What a log does
 * not say is unknown, which is not the same as absent.
 */
import { cookieValue, queryValue } from "../edge/request-target.ts";
import type { DecisionRecord } from "../policies/contract.ts";

/** A value, null where the request has none, undefined where the log does not say. */
export type Known = string | null | undefined;

export interface LoggedRequest {
  readonly method: string;
  /** Scheme, authority and path as they came, with the query where the log has it. */
  readonly url: string;
  /** "": unknown. */
  readonly client: string;
  /** Milliseconds since the epoch. */
  readonly time: number;
  /** By a name in lower case. */
  header(name: string): Known;
  query(name: string): Known;
  cookie(name: string): Known;
  /** What the gateway itself said of it. */
  readonly record?: DecisionRecord;
}

const unknown = () => undefined;

/** A line of a log. `host` is that of requests to which the log gives none. Undefined: it tells of no request. */
export function readLine(line: string, host: string): LoggedRequest | undefined {
  return line.charCodeAt(0) === 0x7b ? readRecord(line) : readCombined(line, host);
}

/** Whether the line is one that there may be between others: empty, or what the gateway notes beside requests. */
export const isOther = (line: string): boolean =>
  line.trim() === "" || (line.startsWith("{") && /"event":|"error":/.test(line));

function readRecord(line: string): LoggedRequest | undefined {
  let record: Partial<DecisionRecord>;
  try {
    record = JSON.parse(line);
  } catch {
    return undefined;
  }
  const { v, method, host, path, client, time, policies } = record;
  if (v !== 1 || typeof method !== "string" || typeof path !== "string" || typeof record.status !== "number")
    return undefined;
  // A line that was cut or made by somebody else: what it says of policies is looked at without asking again.
  if (![host, client, time].every((one) => one === undefined || typeof one === "string")) return undefined;
  if (!Array.isArray(policies) || !policies.every((one) => typeof one?.policy === "string")) return undefined;
  // Of what was refused as it came, the path is the URL.
  const url = host ? `https://${host}${path}` : path;
  return {
    method,
    url,
    client: client ?? "",
    time: Date.parse(time ?? "") || 0,
    header: unknown,
    query: unknown,
    cookie: unknown,
    record: record as DecisionRecord,
  };
}

// remote_addr - remote_user [time_local] "request" status bytes "referer" "user agent"; what ingress-nginx adds comes after it.
const COMBINED =
  /^(\S+) \S+ \S+ \[([^\]]+)\] "([A-Z]+) (\S+)[^"]*" \d{3} \S+(?: "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.)*)")?/;

function readCombined(line: string, host: string): LoggedRequest | undefined {
  const found = COMBINED.exec(line);
  if (!found) return undefined;
  const [, client = "", time = "", method = "", logged = "", referer, agent] = found;
  // nginx writes quotes, backslashes and what is no visible ASCII as `\xE9`.
  const target = logged.replace(/\\x([0-9A-F]{2})/g, "%$1");
  const url = target.startsWith("/") ? `https://${host}${target}` : target;
  if (!/^https?:\/\//.test(url)) return undefined;
  const said: Record<string, Known> = { referer: absent(referer), "user-agent": absent(agent), host: undefined };
  return {
    method,
    url,
    client,
    time: timeOf(time),
    header: (name) => said[name],
    query: queryOf(url),
    cookie: unknown,
  };
}

const absent = (text: string | undefined): Known =>
  text === "-"
    ? null
    : text?.replace(/\\x([0-9A-F]{2})/g, (_, code: string) => String.fromCharCode(Number.parseInt(code, 16)));

function queryOf(url: string): LoggedRequest["query"] {
  const question = url.indexOf("?");
  if (question === -1) return () => null;
  const [search = ""] = url.slice(question + 1).split("#", 1);
  return (name) => queryValue(search, name);
}

let lastText = "";
let lastTime = 0;

/** `10/Oct/2026:13:55:36 +0200`; lines of one second follow each other. */
function timeOf(text: string): number {
  if (text === lastText) return lastTime;
  const [, day, month, year, clock, zone = "+0000"] = /^(\d+)\/(\w+)\/(\d+):([\d:]+) ?([+-]\d{4})?$/.exec(text) ?? [];
  lastText = text;
  lastTime = Date.parse(`${day} ${month} ${year} ${clock} GMT${zone}`) || 0;
  return lastTime;
}

interface HarEntry {
  readonly startedDateTime?: string;
  readonly request?: {
    readonly method?: string;
    readonly url?: string;
    readonly headers?: readonly { readonly name: string; readonly value: string }[];
  };
}

/**
 * HAR 1.2. Throws for what is none. Undefined stands for an entry that tells of no request; what never leaves a browser, such as
 * `data:`, is left out. The client's address is in no HAR.
 */
export function readHar(text: string): (LoggedRequest | undefined)[] {
  const har = JSON.parse(text) as { log?: { entries?: readonly HarEntry[] } } | null;
  const entries = har?.log?.entries;
  if (!Array.isArray(entries)) throw new Error("it has no log.entries");
  return (entries as readonly (HarEntry | null)[]).flatMap((entry) => {
    const { method, url: given } = entry?.request ?? {};
    if (typeof method !== "string" || typeof given !== "string") return [undefined];
    // WebSockets begin as requests (RFC 6455, 4.1); browsers write them by their own scheme.
    const url = given.replace(/^ws(s?):/, "http$1:");
    if (!/^https?:\/\//.test(url)) return /^[a-z][a-z0-9+.-]*:/i.test(url) ? [] : [undefined];
    // HTTP/2 calls it :authority, which no header of HTTP/1.1 can be named.
    const headers = new Map<string, string>();
    const named = entry?.request?.headers;
    for (const one of Array.isArray(named) ? named : []) {
      if (typeof one?.name !== "string" || typeof one.value !== "string") continue;
      const key = one.name.toLowerCase();
      const before = headers.get(key);
      // One line for each cookie is one header (RFC 9113, 8.2.3), and so is any other that is repeated (RFC 9110, 5.3).
      headers.set(key, before === undefined ? one.value : `${before}${key === "cookie" ? "; " : ", "}${one.value}`);
    }
    const header = (name: string) => headers.get(name) ?? null;
    const cookie = (name: string) => cookieValue(header("cookie"), name);
    const time = Date.parse(entry?.startedDateTime ?? "") || 0;
    return [{ method, url, client: "", time, header, query: queryOf(url), cookie }];
  });
}
