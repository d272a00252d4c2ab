/** Whether a regex of routes/ can be trusted with what strangers send: V8 backtracks, and `(a+)+` takes seconds on 30 characters. */
import { checkSync } from "recheck";
import { MANY_WAYS, regexWays } from "../prove/regex-ways.ts";

// recheck would start a native program, or Java, where it finds one; its own JavaScript gives the same verdict on every machine.
process.env.RECHECK_SYNC_BACKEND = "pure";

/** Ways of which a matcher may have to try all at each place: for the longest URL of 8 KB, some 10 ms. */
const MOST_WAYS = 250;

/**
 * Milliseconds that recheck has for one regex, by the clock on the wall. It takes 50 to 100 (Node 26, 2 cores), and on a machine that
 * has other work many times that: its load must not decide whether routes are good.
 */
const PATIENCE = 10_000;
const LONGEST = 1_000;

const verdicts = new Map<string, string | undefined>();

/** Why `regex`, matched against whole values, may take more than linear time; undefined: it never does. */
export function backtracking(regex: RegExp): string | undefined {
  const key = String(regex);
  if (!verdicts.has(key)) verdicts.set(key, judge(regex));
  return verdicts.get(key);
}

/** Nearly all are proved by counting; recheck is for lookaround and backreferences, and finds the text on which others hang. */
function judge({ source, flags }: RegExp): string | undefined {
  if (source.length > LONGEST)
    return `is longer than ${LONGEST} characters, too long to be proved safe from backtracking`;
  const found = regexWays(source, { i: flags.includes("i"), s: flags.includes("s") });
  if (found.kind === "at-most" && found.ways <= MOST_WAYS) return undefined;
  const checked = checkSync(`^(?:${source})$`, flags, { timeout: PATIENCE });
  if (checked.status === "vulnerable") {
    const time = checked.complexity.type === "polynomial" ? "more than linear" : "exponential";
    return `backtracks: it takes ${time} time on input such as ${checked.attack.pattern}`;
  }
  // To recheck what ends is linear: also `(?:a|a){25}b`, which takes seconds on 25 characters.
  if (found.kind === "many" && found.beginning.length <= SHORT)
    return `backtracks: there are more than ${MANY_WAYS} ways through values that begin with ${JSON.stringify(found.beginning)}`;
  return checked.status === "safe" ? undefined : "could not be proved to be safe from backtracking";
}

/** Characters. Where so many ways need more, they are as many as the value is long, which is what recheck tells. */
const SHORT = 100;
