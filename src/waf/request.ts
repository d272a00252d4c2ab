/**
 * What the engine sees of a request and of its response. All strings are "binary": one character per byte (latin1), as ModSecurity's
 * rules are written against bytes; V8 keeps such strings one byte per character, and compiles a regex for them once.
 */
export interface WafRequest {
  /** As in the request line. */
  readonly method: string;
  /** The request target as it came, with its query and its escapes: `/a%20b?c=d`. */
  readonly uri: string;
  /** `HTTP/1.1`. */
  readonly protocol: string;
  /** In the order in which they came, names in any case; a name may come twice. */
  readonly headers: readonly (readonly [name: string, value: string])[];
  /** What is known of the body; "" when there is none. */
  readonly body: string;
  /** The body was longer than the limit, and `body` is its beginning. */
  readonly truncated?: boolean;
  /** Of the client; "" when it is not known. */
  readonly clientAddress: string;
  /** As in a log: hexadecimal or a UUID. Sampling by rule goes by it. */
  readonly id?: string;
}

export interface WafResponse {
  readonly status: number;
  /** Default: `HTTP/1.1`. */
  readonly protocol?: string;
  readonly headers: readonly (readonly [name: string, value: string])[];
  /** What is known of the body; absent: it is not looked at. */
  readonly body?: string;
}

/** What the rules say of a request, or of as much of it as has been seen. */
export interface Verdict {
  /** The rules that matched, in the order in which they did, each once; not those with `nolog`, such as those that count. */
  readonly matches: readonly RuleMatch[];
  /** The variables of `tx` that end in `_score` and are not 0, such as `blocking_inbound_anomaly_score`. */
  readonly scores: Readonly<Record<string, number>>;
  /** Absent: the request passes. In detection only: what would have been done. */
  readonly interruption?: Interruption;
}

export interface RuleMatch {
  readonly id: number;

  readonly severity?: number;
  /** What the last link matched on. Values are for tools alone; a record must not hold them. */
  readonly on: readonly MatchedVariable[];
  /** `msg` and `logdata`, where the pack has them: with values of the request, for tools alone. */
  readonly message?: string;
  readonly data?: string;
}

export interface MatchedVariable {
  /** `ARGS:q`, `REQUEST_HEADERS:user-agent`, `REQUEST_FILENAME`. */
  readonly name: string;
  /** As the operator saw it, transformed. */
  readonly value: string;
  /** What a rule that captures took out of it: TX.0. */
  readonly captured?: string;
}

export interface Interruption {
  readonly rule: number;
  readonly phase: Phase;
  readonly action: "deny" | "drop" | "redirect";
  readonly status: number;
  /** Of a redirect. */
  readonly location?: string;
}

export type Phase = 1 | 2 | 3 | 4 | 5;
