/** What the readers of bodies have in common. Bodies are strings of one character (U+0000 to U+00FF) for each byte. */

/** Names and values are bytes too: what a body writes in escapes becomes its UTF-8. */
export type Argument = readonly [name: string, value: string];

export interface ReadBody {
  /** In the body's order, as many as the limits allow. */
  readonly args: readonly Argument[];
  /** What is wrong with the body, for REQBODY_ERROR_MSG. What was read before and, where it can be, after it is there nevertheless. */
  readonly error?: string;
}

export interface BodyLimits {
  /** Arguments of one body; of a multipart body also its files. */
  readonly arguments: number;
  /** How deep arrays, objects and elements may nest. */
  readonly depth: number;
}

/** Those of ModSecurity's recommended configuration (SecArgumentsLimit, SecRequestBodyJsonDepthLimit). */
export const BODY_LIMITS: BodyLimits = { arguments: 1000, depth: 512 };

export const tooManyArguments = (limits: BodyLimits): string => `more than ${limits.arguments} arguments`;
