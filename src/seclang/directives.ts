/** The first step: from the text of a configuration file to its directives, each with the place where it stands. */

export interface SourcePlace {
  readonly file: string;
  readonly line: number;
}

export interface Directive extends SourcePlace {
  readonly name: string;
  readonly args: readonly string[];
}

/** What is wrong with a rule set, for people: what, where and how to fix it. */
export interface RuleProblem extends SourcePlace {
  /** Absent: the directive is no rule. */
  readonly rule?: number;
  readonly message: string;
  readonly fix: string;
}

/** A line that ends in a backslash goes on in the next one. Comments are whole lines. */
export function readDirectives(text: string, file: string, problem: (problem: RuleProblem) => void): Directive[] {
  const lines = text.split(/\r?\n/);
  const directives: Directive[] = [];
  for (let i = 0; i < lines.length; i++) {
    const line = i + 1;
    let whole = lines[i] as string;
    if (/^\s*(?:#|$)/.test(whole)) continue;
    if (whole.endsWith("\\")) {
      const parts: string[] = [];
      while (whole.endsWith("\\") && i + 1 < lines.length) {
        parts.push(whole.slice(0, -1));
        whole = lines[++i] as string;
      }
      whole = parts.join("") + whole;
    }
    const words = wordsOf(whole.trim());
    if (!words) {
      problem({ file, line, message: "a quotation mark is never closed", fix: 'end the argument with "' });
      continue;
    }
    const [name = "", ...args] = words;
    directives.push({ file, line, name, args });
  }
  return directives;
}

/** Arguments are separated by white space, or stand in quotation marks, in which \" is one and \\ a backslash. Undefined: one is never closed. */
function wordsOf(text: string): string[] | undefined {
  const words: string[] = [];
  let at = 0;
  while (at < text.length) {
    if (/\s/.test(text[at] as string)) {
      at++;
      continue;
    }
    const quote = text[at];
    if (quote === '"' || quote === "'") {
      let word = "";
      for (at++; text[at] !== quote; at++) {
        if (at >= text.length) return undefined;
        // As Apache reads its configuration, for which the Core Rule Set is written.
        if (text[at] === "\\" && (text[at + 1] === quote || text[at + 1] === "\\")) at++;
        word += text[at];
      }
      at++;
      words.push(word);
    } else {
      const end = at + (text.slice(at).match(/^\S+/)?.[0].length ?? 0);
      words.push(text.slice(at, end));
      at = end;
    }
  }
  return words;
}
