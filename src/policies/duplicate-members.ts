/**
 * Whether an object in a JSON text has two members of one name. JSON.parse keeps the last of them and another reader the first, so of
 * such a token the gateway would believe one thing and the origin another (RFC 8259, 4; RFC 7515, 10.12).
 */

// Strings, and what parts them from each other. All else in a valid JSON text holds neither.
const TOKENS = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\],:]/gs;

/** `json` must be a valid JSON text. */
export function hasDuplicateMembers(json: string): boolean {
  // The names of each object that is open; undefined for an array.
  const open: (Set<string> | undefined)[] = [];
  let text: string | undefined;
  for (const [token] of json.matchAll(TOKENS)) {
    if (token === "{") open.push(new Set());
    else if (token === "[") open.push(undefined);
    else if (token === "}" || token === "]") open.pop();
    else if (token === ":") {
      // Escapes spell the same name in other ways.
      const name = JSON.parse(text as string) as string;
      const names = open.at(-1) as Set<string>;
      if (names.has(name)) return true;
      names.add(name);
    }
    text = token;
  }
  return false;
}
