/**
 * Everything that `routes/` declares remembers where it was declared, so that each problem can name file and line. The build
 * resolves the place from the captured stack, only for what it has to report.
 */
export interface Declaration {
  /** Its stack's first frame outside of the builders is the declaration. */
  readonly declaredAt: Place;
}

export interface Place {
  readonly stack?: string;
}

/** What to do about a problem, as a phrase: `add EU_INGRESS to [vars]`. */
export type Fix = string;

/** Captures the caller of `builder`. Formatting waits until somebody reads `stack`. */
export function declaredAt(builder: (...args: never[]) => unknown): Place {
  const place: Place = {};
  // V8's own; elsewhere a problem goes without its line.
  (Error as { captureStackTrace?: (target: object, above: unknown) => void }).captureStackTrace?.(place, builder);
  return place;
}
