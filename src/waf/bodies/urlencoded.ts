/** application/x-www-form-urlencoded: bodies, and query strings. */
import { hexByte } from "../transforms/hex.ts";
import { urlDecode } from "../transforms/url.ts";
import { type Argument, BODY_LIMITS, type BodyLimits, type ReadBody, tooManyArguments } from "./body.ts";

export interface UrlencodedBody extends ReadBody {
  /** A percent sign without two hexadecimal digits after it: URLENCODED_ERROR. */
  readonly invalidEncoding: boolean;
}

/** Reads `a=b&c`. A pair without `=` has an empty value; nothing between two separators is no pair. */
export function readUrlencoded(text: string, limits: BodyLimits = BODY_LIMITS, separator = "&"): UrlencodedBody {
  const args: Argument[] = [];
  const invalidEncoding = hasInvalidEncoding(text);
  let from = 0;
  while (from < text.length) {
    const found = text.indexOf(separator, from);
    const to = found < 0 ? text.length : found;
    if (to > from) {
      if (args.length === limits.arguments) return { args, invalidEncoding, error: tooManyArguments(limits) };
      const pair = text.slice(from, to);
      const equals = pair.indexOf("=");
      args.push(
        equals < 0 ? [urlDecode(pair), ""] : [urlDecode(pair.slice(0, equals)), urlDecode(pair.slice(equals + 1))],
      );
    }
    from = to + 1;
  }
  return { args, invalidEncoding };
}

function hasInvalidEncoding(text: string): boolean {
  for (let at = text.indexOf("%"); at >= 0; at = text.indexOf("%", at + 1)) if (hexByte(text, at + 1) < 0) return true;
  return false;
}
