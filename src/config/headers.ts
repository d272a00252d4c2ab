import type { EnvReference, SecretReference } from "./values.ts";

/** Values are text, or a reference for what differs between environments. */
export type HeaderValues = Readonly<Record<string, string | EnvReference | SecretReference>>;

export interface HeaderChanges {
  readonly remove?: readonly string[];
  /** Replaces all values that the header has. */
  readonly set?: HeaderValues;
  /** Keeps the values that the header has. */
  readonly add?: HeaderValues;
}
