/** Whether what happened is what a stage expects. */
import type { Expected } from "./stages.ts";

/** What came of a request. */
export interface Outcome {
  /** Undefined: the connection broke without an answer. */
  readonly status?: number;
  /** The rules that matched and are told. */
  readonly matches: readonly Match[];
  /** Whether the rules saw the request at all. */
  readonly judged: boolean;
}

export interface Match {
  readonly id: number;
  /** The variables on which it did; what it took out of them and their values only where the engine was called itself. */
  readonly on: readonly { readonly name: string; readonly value?: string; readonly captured?: string }[];
  readonly message: string;
  /** What the rule's `logdata` says; absent: it is made of `on`, as most rules' is. */
  readonly data?: string;
}

/** What is wrong; undefined: the stage has passed. As in go-ftw, a stage that expects an error expects nothing else. */
export function faultOf(expected: Expected, outcome: Outcome): string | undefined {
  if (expected.error === true)
    return outcome.status === undefined ? undefined : `answered ${outcome.status}, not at all was expected`;
  if (outcome.status === undefined) return "no answer";
  const reached = outcome.judged ? "" : ` (refused with ${outcome.status} before the rules saw it)`;
  if (expected.statuses.length > 0 && !expected.statuses.includes(outcome.status))
    return `status ${outcome.status}, ${expected.statuses.join(" or ")} was expected`;
  const ids = new Set(outcome.matches.map(({ id }) => id));
  const missing = expected.ids.filter((id) => !ids.has(id));
  if (missing.length > 0) return `rule ${missing.join(", ")} did not match${reached}`;
  const wrong = expected.noIds.filter((id) => ids.has(id));
  if (wrong.length > 0) return `rule ${wrong.join(", ")} matched`;
  const log = logOf(outcome);
  if (expected.match && !expected.match.test(log)) return `the log has nothing like ${expected.match.source}${reached}`;
  if (expected.noMatch?.test(log)) return `the log has something like ${expected.noMatch.source}`;
  return undefined;
}

/** The lines that ModSecurity would write, as far as tests look at them. */
const logOf = ({ matches }: Outcome): string =>
  matches
    .flatMap(({ id, on, message, data }) => {
      const said = `[id "${id}"] [msg "${printable(message)}"]`;
      if (data !== undefined) return [`${said} [data "${printable(data)}"]`];
      return on.map((variable) => `${dataOf(variable)} ${said}`);
    })
    .join("\n");

const dataOf = ({ name, value = "", captured = "" }: Match["on"][number]): string =>
  printable(`Matched Data: ${captured} found within ${name}: ${value}`);

/** A log has no line breaks within its lines. */
const printable = (text: string): string => JSON.stringify(text).slice(1, -1);
