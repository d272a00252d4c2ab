/** A rule's regex, ready for the engine: how it is run, so that no value can make it slow, and what its matches must hold. */
import { type Clause, literalsOfPlain, requiredLiterals } from "./regex-literals.ts";
import { NotLinearError, regexProgram } from "./regex-program.ts";
import { regexSource } from "./regex-source.ts";
import { parseRegex } from "./regex-syntax.ts";
import { safeWindow } from "./regex-window.ts";

export interface CompiledRegex {
  /** The regex as V8 would run it, on latin1 strings. */
  readonly source: string;
  readonly flags: string;
  /** `linear`: src/waf/linear-regex.ts runs `program`. `v8`: src/waf/windowed-regex.ts runs `source`, on `window` characters at a time. */
  readonly engine: "linear" | "v8";
  readonly program?: Uint16Array;
  /** Characters at a time; matches longer than half of it may be missed. 0: the whole value, as its time grows linearly. */
  readonly window?: number;
  /** Why the linear engine cannot run it. */
  readonly reason?: string;
  /** Capturing groups, without the whole match; and, for V8, which of its groups each of them is. */
  readonly groups: number;
  readonly groupsInV8: readonly number[];
  /** Every match holds a word of each clause, in any ASCII case; the most telling first. None: any value might match. */
  readonly literals: readonly Clause[];
  /** The same of values without an unusual byte (regex-literals.ts); absent: none of those matches. */
  readonly literalsOfPlain?: readonly Clause[];
}

/**
 * @param pattern as in a rules file: PCRE or RE2, on bytes
 * @throws {RegexSyntaxError} where it says nothing, or what neither engine can run
 * @throws {UnboundedRegexError} where only backtracking could run it, and takes too long even on short values
 */
export function compileRegex(pattern: string): CompiledRegex {
  const parsed = parseRegex(pattern);
  const { source, flags, groups: groupsInV8 } = regexSource(parsed);
  const plain = literalsOfPlain(parsed.node);
  const common = {
    source,
    flags,
    groups: parsed.groups,
    groupsInV8,
    literals: requiredLiterals(parsed.node),
    ...(plain && { literalsOfPlain: plain }),
  };
  try {
    return { ...common, engine: "linear", program: regexProgram(parsed) };
  } catch (error) {
    if (!(error instanceof NotLinearError)) throw error;
    return { ...common, engine: "v8", window: safeWindow(parsed, common.literals), reason: error.message };
  }
}
