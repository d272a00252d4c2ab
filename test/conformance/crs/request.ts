/** The bytes that go-ftw sends for a test's input: they are meant to break HTTP, so no client library could send them. */

export interface Input {
  readonly method?: string;
  readonly uri?: string;
  readonly version?: string;
  readonly headers?: Readonly<Record<string, unknown>>;
  readonly ordered_headers?: readonly { readonly name: string; readonly value: string }[];
  readonly data?: unknown;
  /** Base64. */
  readonly encoded_data?: string;
  /** Base64 of the whole request. */
  readonly encoded_request?: string;
  readonly raw_request?: string;
  readonly autocomplete_headers?: boolean;
  /** The same the other way round, in the tests of the Core Rule Set 3.3. */
  readonly stop_magic?: boolean;
}

/** One character for each byte. `version` is the format's: when 1 was in use, go-ftw sent no Content-Length for no data. */
export function rawRequest(input: Input, version: 1 | 2 = 2): string {
  if (input.encoded_request) return Buffer.from(input.encoded_request, "base64").toString("latin1");
  if (input.raw_request) return bytesOf(input.raw_request);

  const headers = headersOf(input);
  const has = (name: string): boolean => headers.some(([other]) => other.toLowerCase() === name);
  const valueHas = (name: string, value: string): boolean =>
    headers.some(([other, text]) => other.toLowerCase() === name && text.toLowerCase().includes(value));
  const autocomplete = input.autocomplete_headers ?? !input.stop_magic;
  const method = bytesOf(input.method ?? "GET");

  let data = dataOf(input);
  if (data !== "" && autocomplete) {
    if (!has("content-type")) headers.push(["Content-Type", FORM]);
    if (headers.some(([name, value]) => name.toLowerCase() === "content-type" && value.toLowerCase() === FORM))
      data = formEncoded(data);
  }
  // Parsers of multipart want CRLF; the older tests write it themselves.
  if (valueHas("content-type", "multipart/form-data;")) data = data.replace(/(?<!\r)\n/g, "\r\n");
  if (autocomplete) {
    if (!has("connection")) headers.push(["Connection", "close"]);
    if (!has("content-length") && (data !== "" || (version === 2 && /^POST|PUT|PATCH|DELETE$/.test(method))))
      headers.push(["Content-Length", String(data.length)]);
  }
  const line = `${method} ${bytesOf(input.uri ?? "/")} ${bytesOf(input.version ?? "HTTP/1.1")}`;
  return `${[line, ...headers.map(([name, value]) => `${name}: ${value}`)].join("\r\n")}\r\n\r\n${data}`;
}

const FORM = "application/x-www-form-urlencoded";

/** In the order of their names, as go-ftw writes what YAML leaves without an order. */
function headersOf({ headers = {}, ordered_headers: ordered }: Input): [string, string][] {
  const listed = ordered?.map(({ name, value }): [string, unknown] => [name, value]);
  const sorted = Object.entries(headers ?? {}).sort(([a], [b]) => (a < b ? -1 : 1));
  return (listed ?? sorted).map(([name, value]) => [bytesOf(name), bytesOf(value === null ? "" : String(value))]);
}

function dataOf({ data, encoded_data: encoded }: Input): string {
  if (encoded !== undefined) return Buffer.from(encoded, "base64").toString("latin1");
  if (data === undefined || data === null) return "";
  return bytesOf(templated(Array.isArray(data) ? data.join("\r\n") : String(data)));
}

/** Of Go's templates the one that tests use: `{{ "1" | repeat 152 }}`. */
const templated = (text: string): string =>
  text.replace(/\{\{ *"([^"]*)" *\| *repeat +([0-9]+) *\}\}/g, (_, what: string, times: string) =>
    what.repeat(Number(times)),
  );

/** As it is when something in it is escaped already; else each name and value is escaped. */
function formEncoded(data: string): string {
  if (/%|\+/.test(data)) return data;
  return data
    .split("&")
    .map((pair) => {
      const equals = pair.indexOf("=");
      return equals < 0
        ? queryEscaped(pair)
        : `${queryEscaped(pair.slice(0, equals))}=${queryEscaped(pair.slice(equals + 1))}`;
    })
    .join("&");
}

const queryEscaped = (text: string): string =>
  text.replace(/[^A-Za-z0-9_.~-]/g, (character) =>
    character === " " ? "+" : `%${character.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`,
  );

/** The UTF-8 of a text, one character for each byte. */
export const bytesOf = (text: string): string => Buffer.from(text, "utf8").toString("latin1");
