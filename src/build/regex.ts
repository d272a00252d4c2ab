/** Whether a regex of routes/ can be trusted with what strangers send: V8 backtracks, and `(a+)+` takes seconds on 30 characters. */
import { checkSync } from "recheck";

// recheck would start a native program, or Java, where it finds one; its own JavaScript gives the same verdict on every machine.
process.env.RECHECK_SYNC_BACKEND = "pure";

/**
 * Milliseconds for one regex, by the clock on the wall. Those that people write take 5 to 100 (Node 26, 2 cores), and on a machine that
 * has other work many times that: its load must not decide whether routes are good.
 */
const PATIENCE = 10_000;
const LONGEST = 1_000;

const verdicts = new Map<string, string | undefined>();

/** Why `regex`, matched against whole values, may take more than linear time; undefined: it never does. */
export function backtracking(regex: RegExp): string | undefined {
  const key = String(regex);
  if (!verdicts.has(key)) verdicts.set(key, isLinear(regex) ? undefined : judge(regex));
  return verdicts.get(key);
}

function judge({ source, flags }: RegExp): string | undefined {
  if (source.length > LONGEST)
    return `is longer than ${LONGEST} characters, too long to be proved safe from backtracking`;
  const found = checkSync(`^(?:${source})$`, flags, { timeout: PATIENCE });
  if (found.status === "safe") return undefined;
  if (found.status === "vulnerable") {
    const time = found.complexity.type === "polynomial" ? "more than linear" : "exponential";
    return `backtracks: it takes ${time} time on input such as ${found.attack.pattern}`;
  }
  return "could not be proved to be safe from backtracking";
}

// One step of a regex without alternatives and lookaround: a group's bracket, or one character or class, perhaps repeated.
const BRACKET = /\((?:\?:|\?<\w+>)?(?!\?)|\)(?![*+?{])/y;
const STEP =
  /(?<one>(?<literal>[^\\^$.*+?()[\]{}|]|\\[^\w])|\\[dDwWsS]|\.|\[(?:[^\]\\]|\\.)+\])(?:(?<times>[*+]|\{[1-9]\d?\})(?!\?)|(?![*+?{]))/y;

/**
 * The ordinary case, proved here since 10,000 routes may have 10,000 regexes: every endless repetition, but for the last, is followed
 * by a character that it cannot take itself, so there is only one way to go on. What is not of that form is for recheck to judge.
 */
export function isLinear({ source, flags }: RegExp): boolean {
  const text = source.replace(/^\^/, "").replace(/(?<!\\)\$$/, "");
  let endless: RegExp | undefined;
  let ambiguous = false;
  for (let at = 0; at < text.length; ) {
    BRACKET.lastIndex = STEP.lastIndex = at;
    const bracket = BRACKET.exec(text)?.[0];
    const { one, literal, times } = (bracket === undefined && STEP.exec(text)?.groups) || {};
    if (bracket === undefined && one === undefined) return false;
    at += bracket?.length ?? (one as string).length + (times?.length ?? 0);
    if (one === undefined) continue;
    if (endless && (literal === undefined || times === "*" || endless.test(literal.at(-1) as string))) ambiguous = true;
    endless = undefined;
    if (times === "*" || times === "+") {
      if (ambiguous) return false;
      endless = new RegExp(`^${one}$`, flags);
    }
  }
  return true;
}
