/** Requests to an issuer or another service that knows callers, by the addresses that the operator or its metadata name. */

/** `text` as an address of an issuer's: https, or http on a loopback address; undefined when it is neither. */
export function providerUrl(text: unknown): string | undefined {
  const url = typeof text === "string" ? URL.parse(text) : null;
  if (!url || url.username || url.password) return undefined;
  const loopback = /^(?:localhost|127(?:\.\d+){3}|\[::1\])$/.test(url.hostname);
  return url.protocol === "https:" || (url.protocol === "http:" && loopback) ? url.href : undefined;
}

// An RSA key with its certificate chain takes some 5 KB; the largest public key sets hold some dozens of keys.
const MAX_BYTES = 256 * 1024;

export interface ProviderAnswer {
  readonly status: number;
  readonly headers: Headers;
  /** Undefined where it is too long. */
  readonly body: Uint8Array<ArrayBuffer> | undefined;
}

/** Throws when there is no whole answer within `timeout` ms. Redirects are answers, not followed. */
export async function askService(url: string, timeout: number, init: RequestInit = {}): Promise<ProviderAnswer> {
  const headers = new Headers(init.headers);
  headers.set("user-agent", "portcullis");
  const response = await fetch(url, {
    ...init,
    headers,
    // What is asked for comes from where the operator said, and from nowhere that answer points to.
    redirect: "manual",
    signal: AbortSignal.timeout(timeout),
  });
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of (response.body ?? []) as ReadableStream<Uint8Array>) {
    size += chunk.byteLength;
    // Leaving the loop cancels the stream.
    if (size > MAX_BYTES) return { status: response.status, headers: response.headers, body: undefined };
    chunks.push(chunk);
  }
  const body = new Uint8Array(size);
  let at = 0;
  for (const chunk of chunks) {
    body.set(chunk, at);
    at += chunk.byteLength;
  }
  return { status: response.status, headers: response.headers, body };
}

/** Whether a status tells of the service itself, or of a proxy before it, rather than of the request (RFC 9110, 15.6). */
export const isAway = (status: number): boolean => status === 502 || status === 503 || status === 504;

/** The same, for answers that are text. Throws also for one that is too long or no UTF-8. */
export async function askProvider(
  url: string,
  timeout: number,
  init: RequestInit = {},
): Promise<{ readonly status: number; readonly text: string }> {
  const { status, body } = await askService(url, timeout, init);
  if (!body) throw new Error("too large");
  return { status, text: new TextDecoder("utf-8", { fatal: true, ignoreBOM: false }).decode(body) };
}

/** The JSON document at `url`. Throws when there is none. */
export async function downloadJson(url: string, timeout: number, accept: string): Promise<unknown> {
  const { status, text } = await askProvider(url, timeout, { headers: { accept } });
  if (status !== 200) throw new Error(`status ${status}`);
  return JSON.parse(text);
}

/** As RFC 6749, 2.3.1 wants a client's id and secret written before they go into HTTP Basic. */
export const formEncoded = (text: string): string => new URLSearchParams([["", text]]).toString().slice(1);
