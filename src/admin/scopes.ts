import { SCOPE_TOKEN } from "../policies/claims.ts";

/** Of an option, separated by blanks. Throws where one of them is none. */
export function scopesOf(text: string): string[] {
  const scopes = text.split(" ").filter((one) => one !== "");
  const odd = scopes.find((one) => !SCOPE_TOKEN.test(one));
  if (odd !== undefined) throw new Error(`${JSON.stringify(odd)} is no scope; they are words without quotes or \\`);
  return scopes;
}
