import type { ExampleRequest } from "./request-set.ts";

/**
 * `error`: nobody can have meant it, and the build refuses it; `warning`: told by `check`; `note`: ordinary, in the listing of
 * `prove` alone.
 */
export type Severity = "error" | "warning" | "note";

/** Something that is true of the whole table, and that no single declaration shows. */
export interface Finding {
  readonly kind:
    | "unreachable"
    | "redundant"
    | "shadowed"
    | "tie"
    | "dead-policy"
    | "dead-retry"
    | "platform-limit"
    | "invariant"
    | "unknown";
  readonly severity: Severity;
  /** Id of the route that it is about; absent: the whole table. */
  readonly route?: string;
  readonly message: string;
  readonly fix: string;
  readonly example?: ExampleRequest;
  /** Of the route that answers the example. */
  readonly winner?: string;
  /** How many more of the kind the route has that are not listed. */
  readonly more?: number;
}
