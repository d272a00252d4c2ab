/** Whether a regex of routes/ can be trusted with what strangers send: V8 backtracks, and `(a+)+` takes seconds on 30 characters. */
import { checkSync } from "recheck";
import { MANY_WAYS, regexWays } from "../prove/regex-ways.ts";

// recheck would start a native program, or Java, where it finds one; its own JavaScript gives the same verdict on every machine.
process.env.RECHECK_SYNC_BACKEND = "pure";

/** Milliseconds that recheck has to find a text. Whether a regex is good does not depend on it, nor on how busy the machine is. */
const PATIENCE = 3_000;
const LONGEST = 1_000;

const verdicts = new Map<string, string | undefined>();

/** Why `regex`, matched against whole values, may take more than linear time; undefined: it never does. */
export function backtracking(regex: RegExp): string | undefined {
  const key = String(regex);
  if (!verdicts.has(key)) verdicts.set(key, judge(regex));
  return verdicts.get(key);
}

/** Only what is counted is proved. recheck finds the text on which others hang; what it calls safe may take seconds, as `(?:a|a){25}b`. */
function judge({ source, flags }: RegExp): string | undefined {
  if (source.length > LONGEST)
    return `is longer than ${LONGEST} characters, too long to be proved safe from backtracking`;
  const found = regexWays(source, { i: flags.includes("i"), s: flags.includes("s") });
  if (found.kind === "at-most") return undefined;
  const checked = checkSync(`^(?:${source})$`, flags, { timeout: PATIENCE });
  if (checked.status === "vulnerable") {
    const time = checked.complexity.type === "polynomial" ? "more than linear" : "exponential";
    return `backtracks: it takes ${time} time on input such as ${checked.attack.pattern}`;
  }
  if (found.kind === "unknown") return "could not be proved to be safe from backtracking";
  const shown = found.beginning.slice(0, SHOWN);
  return `backtracks: there are more than ${MANY_WAYS} ways through values that begin with ${JSON.stringify(shown)}${
    shown === found.beginning ? "" : "..."
  }`;
}

const SHOWN = 100;
