/**
 * A distinguished name (RFC 4514, which keeps the form of RFC 2253) in one spelling: types in upper case, values in lower case with
 * single blanks, escapes undone, so that names which mean the same are the same text. The order of the parts means something and stays.
 * Undefined for what is none.
 */
export function normalName(text: string): string | undefined {
  // Escaped characters are kept from being taken for separators by another kind of escape.
  const escaped = text.replace(/%|\\([0-9A-Fa-f]{2})|\\(.)/gs, (_, hex?: string, character?: string) =>
    hex ? `%${hex}` : percentEncoded(character ?? "%"),
  );
  const parts = escaped.split(/[,;]/).map((part) => part.split("+").map(attribute));
  if (escaped.includes("\\") || parts.some((part) => part.includes(undefined))) return undefined;
  // Of several values in one part the order means nothing.
  return JSON.stringify(parts.map((part) => [...(part as string[])].sort()));
}

const percentEncoded = (character: string): string =>
  Array.from(new TextEncoder().encode(character), (byte) => `%${byte.toString(16).padStart(2, "0")}`).join("");

function attribute(text: string): string | undefined {
  const [, type, value] = /^\s*([A-Za-z][A-Za-z0-9-]*|[0-9]+(?:\.[0-9]+)*)\s*=\s*(.*?)\s*$/s.exec(text) ?? [];
  if (!type || value === undefined) return undefined;
  try {
    return `${type.toUpperCase()}=${decodeURIComponent(value).trim().replace(/\s+/g, " ").toLowerCase()}`;
  } catch {
    // Bytes that are written as \xx and are no UTF-8.
    return undefined;
  }
}
