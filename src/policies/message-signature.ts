/** HTTP message signatures (RFC 9421) and content digests (RFC 9530), as far as a request is verified by them. */
import { type InnerList, type Item, parseDictionary, serializeMember } from "./structured-fields.ts";

/** What of a request can be signed, as the client sent it. */
export interface SignedMessage {
  readonly method: string;
  readonly scheme: string;
  /** With the port, as it came. */
  readonly authority: string;
  /** Before any normalisation. */
  readonly path: string;
  /** With its `?`; "" when there is none. */
  readonly search: string;
  readonly headers: Headers;
}

export interface MessageSignature {
  readonly label: string;
  readonly input: InnerList;
  readonly signature: Uint8Array;
}

/** A component of the message that cannot be told, or must not be signed so. */
export class ComponentRefused extends Error {
  override readonly name = "ComponentRefused";
}

/** The signatures that a message carries, in their order; undefined when the two headers do not go together. */
export function signaturesOf(headers: Headers): MessageSignature[] | undefined {
  const inputs = parseDictionary(headers.get("signature-input") ?? "");
  const signatures = parseDictionary(headers.get("signature") ?? "");
  if (!inputs || !signatures) return undefined;
  const found: MessageSignature[] = [];
  for (const [label, input] of inputs) {
    const signature = signatures.get(label);
    // A signature and its input come in pairs (RFC 9421, 4.2).
    if (!("items" in input) || !signature || "items" in signature || !(signature.value instanceof Uint8Array))
      return undefined;
    found.push({ label, input, signature: signature.value });
  }
  return found;
}

/** The covered components as they are written: `"@query-param";name="page"`. */
export const componentsOf = ({ items }: InnerList): string[] => items.map(serializeMember);

/** What is signed (RFC 9421, 2.5). Throws ComponentRefused. */
export function signatureBase(input: InnerList, message: SignedMessage): string {
  const lines: string[] = [];
  const seen = new Set<string>();
  for (const item of input.items) {
    const identifier = serializeMember(item);
    if (seen.has(identifier)) throw new ComponentRefused("a component is covered twice");
    seen.add(identifier);
    const value = componentValue(item, message);
    // A line of the value's own would be a component that nobody covered.
    if (/[\r\n]/.test(value)) throw new ComponentRefused("a component has a line break");
    lines.push(`${identifier}: ${value}`);
  }
  return [...lines, `"@signature-params": ${serializeMember(input)}`].join("\n");
}

function componentValue({ value: name, parameters }: Item, message: SignedMessage): string {
  if (typeof name !== "string" || name !== name.toLowerCase()) throw new ComponentRefused("a component has no name");
  if (name === "@query-param") return queryParameter(parameters.get("name"), parameters.size, message.search);
  if (name.startsWith("@")) {
    if (parameters.size > 0) throw new ComponentRefused("a component has parameters that it cannot have");
    return derived(name, message);
  }
  const field = message.headers.get(name);
  if (field === null) throw new ComponentRefused("a covered header is not there");
  if (parameters.size === 0) return field.trim();
  // `sf` needs to know each header's type, `bs` its single lines, which the runtime has joined; `req` and `tr` are for responses and
  // trailers.
  const key = parameters.get("key");
  const member = parameters.size === 1 && typeof key === "string" ? parseDictionary(field)?.get(key) : undefined;
  if (!member) throw new ComponentRefused("a component has parameters that the gateway does not know");
  return serializeMember(member);
}

/** RFC 9421, 2.2. */
function derived(name: string, { method, scheme, authority, path, search }: SignedMessage): string {
  const port = scheme === "https" ? ":443" : ":80";
  const host = authority.toLowerCase();
  const normal = host.endsWith(port) ? host.slice(0, -port.length) : host;
  switch (name) {
    case "@method":
      return method;
    case "@scheme":
      return scheme;
    case "@authority":
      return normal;
    case "@path":
      return path;
    case "@query":
      return search || "?";
    case "@request-target":
      return path + search;
    case "@target-uri":
      return `${scheme}://${normal}${path}${search}`;
    default:
      throw new ComponentRefused("a component is none of a request");
  }
}

/** RFC 9421, 2.2.8. Of several parameters of one name none can be told from the others. */
function queryParameter(name: unknown, count: number, search: string): string {
  if (typeof name !== "string" || count !== 1) throw new ComponentRefused("a query parameter has no name");
  const values = [...new URLSearchParams(search)].filter(([one]) => formEncoded(one) === name);
  if (values.length !== 1) throw new ComponentRefused("a covered query parameter is not there once");
  return formEncoded((values[0] as [string, string])[1]);
}

/** The application/x-www-form-urlencoded percent-encode set (WHATWG URL, 1.3), with %20 for a space. */
const formEncoded = (text: string): string =>
  encodeURIComponent(text).replace(/[!'()~]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`);

/** How each algorithm of RFC 9421, 3.3 is called by WebCrypto, to import a key and to verify with it. */
export const ALGORITHMS = {
  "hmac-sha256": [{ name: "HMAC", hash: "SHA-256" }, { name: "HMAC" }],
  "ecdsa-p256-sha256": [
    { name: "ECDSA", namedCurve: "P-256" },
    { name: "ECDSA", hash: "SHA-256" },
  ],
  ed25519: [{ name: "Ed25519" }, { name: "Ed25519" }],
  "rsa-pss-sha512": [
    { name: "RSA-PSS", hash: "SHA-512" },
    { name: "RSA-PSS", saltLength: 64 },
  ],
} as const;

export type SignatureAlgorithm = keyof typeof ALGORITHMS;

/** Throws what WebCrypto throws for what is no key. `text`: base64 of a shared key, PEM (SPKI) or a JWK of a public one. */
export async function importKey(algorithm: SignatureAlgorithm, text: string): Promise<CryptoKey> {
  const [parameters] = ALGORITHMS[algorithm];
  if (algorithm === "hmac-sha256") {
    const bytes = bytesOf(text);
    // The length of the hash, as RFC 7518, 3.2 wants it for JWTs; RFC 9421, 7.3.1 leaves it to us.
    if (bytes.length < 32) throw new TypeError("the key is shorter than 32 bytes");
    return crypto.subtle.importKey("raw", bytes, parameters, false, ["verify"]);
  }
  if (text.trimStart().startsWith("{")) {
    const { kty, crv, x, y, n, e } = JSON.parse(text) as JsonWebKey;
    // Only what a public key has: a private one would be imported for signing, and `alg` and `key_ops` are for others.
    const members = Object.entries({ kty, crv, x, y, n, e }).filter(([, value]) => value !== undefined);
    const jwk = Object.fromEntries(members) as unknown as JsonWebKey;
    return crypto.subtle.importKey("jwk", jwk, parameters, false, ["verify"]);
  }
  return crypto.subtle.importKey("spki", bytesOf(text.replace(/-----[^-]+-----/g, "")), parameters, false, ["verify"]);
}

const bytesOf = (base64: string): Uint8Array<ArrayBuffer> =>
  Uint8Array.from(atob(base64.replace(/\s/g, "")), (character) => character.charCodeAt(0));

const DIGESTS: Readonly<Record<string, string>> = { "sha-256": "SHA-256", "sha-512": "SHA-512" };

/** Whether a Content-Digest is that of `body`: of all its algorithms that count (RFC 9530, 5), of which there must be one. */
export async function digestMatches(field: string | null, body: Uint8Array): Promise<boolean> {
  const members = parseDictionary(field ?? "");
  let matches = false;
  for (const [name, member] of members ?? []) {
    const algorithm = Object.hasOwn(DIGESTS, name) ? DIGESTS[name] : undefined;
    if (!algorithm) continue;
    if ("items" in member || !(member.value instanceof Uint8Array)) return false;
    const { value } = member;
    const digest = new Uint8Array(await crypto.subtle.digest(algorithm, body as BufferSource));
    if (digest.length !== value.length || !digest.every((byte, i) => byte === value[i])) return false;
    matches = true;
  }
  return matches;
}
