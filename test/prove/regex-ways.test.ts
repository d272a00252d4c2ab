/** What is counted must be no less than what V8 does: held against recheck, against known attacks, and against V8's own time. */
import { createContext, Script } from "node:vm";
import fc from "fast-check";
import { checkSync } from "recheck";
import { describe, expect, it } from "vitest";
import { regexWays } from "../../src/prove/regex-ways.ts";

process.env.RECHECK_SYNC_BACKEND = "pure";

const one = fc.constantFrom(
  "a",
  "b",
  "1",
  "\\/",
  "-",
  "[ab]",
  "[^/]",
  "[a-z-]",
  "[^ab]",
  "\\d",
  "\\w",
  "\\W",
  ".",
  "$",
  "\\b",
  "(?=a)",
  "(?!.*b)",
  "(?<!-)",
);
const times = fc.constantFrom("", "", "", "+", "*", "{2}", "{0,2}", "?", "+?", "{1,3}", "{2,}");
const regexes = fc.letrec<{ regex: string }>((tie) => ({
  regex: fc.oneof(
    { maxDepth: 3, depthSize: "small" },
    fc.tuple(one, times).map(([set, often]) => (/^(?:\$|\\b|\(.*)$/.test(set) ? set : set + often)),
    fc.array(tie("regex"), { minLength: 1, maxLength: 4 }).map((parts) => parts.join("")),
    fc.array(tie("regex"), { minLength: 2, maxLength: 3 }).map((parts) => `(?:${parts.join("|")})`),
    fc.tuple(tie("regex"), times).map(([inner, often]) => `(${inner})${often}`),
  ),
})).regex;

const waysOf = (source: string, flags = "s") => regexWays(source, { i: flags.includes("i"), s: flags.includes("s") });

describe("ways through a regex", () => {
  it("are few only where recheck finds no attack", () => {
    let proved = 0;
    fc.assert(
      fc.property(regexes, fc.constantFrom("s", "is"), (source, flags) => {
        if (waysOf(source, flags).kind !== "at-most") return;
        proved++;
        expect(checkSync(`^(?:${source})$`, flags, { timeout: 300 }).status).not.toBe("vulnerable");
      }),
      { numRuns: 40 },
    );
    expect(proved).toBeGreaterThan(12);
  });

  it("are few only where V8 takes no longer than for reading", () => {
    const LENGTH = 30_000;
    const script = new Script("new RegExp(source, 's').test(text)");
    const context = createContext({});
    const within = (source: string, text: string) => {
      Object.assign(context, { source: `^(?:${source})$`, text });
      script.runInContext(context, { timeout: 1_000 });
    };
    const word = fc.string({ unit: fc.constantFrom("a", "b", "1", "/", "-", "\n"), minLength: 1, maxLength: 4 });
    let proved = 0;
    fc.assert(
      fc.property(regexes, fc.array(fc.tuple(word, word, word), { minLength: 3, maxLength: 3 }), (source, pumped) => {
        if (waysOf(source).kind !== "at-most") return;
        proved++;
        for (const [before, pump, behind] of pumped)
          within(source, before + pump.repeat(LENGTH / pump.length) + behind);
      }),
      { numRuns: 250 },
    );
    expect(proved).toBeGreaterThan(60);
    // And that would be noticed.
    expect(() => within(".*a.*b", "a".repeat(LENGTH))).toThrow("timed out");
  });

  it.each([
    "(a+)+b",
    "(a|aa)+b",
    "(a|a?)+b",
    "(.*)*b",
    "(.*a){12}",
    "([a-zA-Z]+)*1",
    "(?:[a-z]|[a-m])+1",
    "(?:\\w+\\s?)*!",
    "(?:\\d+|\\w)+!",
    "([^/]+/?)+!",
    "a+a+b",
    "\\s*\\s*b",
    ".*,.*,.*!",
    "[a-z-]+-[a-z-]+!",
    "(?:/[^/]*)*/[a-z/]*!",
    "[\\w.+-]+@(?:[\\w-]+\\.?)+com",
    "(?:[^,]*,?)*;",
    "(?:(?:a*b)*c*)*d",
    "(?:ab?|a?b)+c",
    "(?:a|b|ab)*c",
    "(?:a?){30}a{30}",
    "(?:a|a){25}b",
    "(?:.*a|.*b)+c",
    "\\b(?:\\w|_)+\\b!",
    "(?:$|.)*(?:^|.)*b",
    "(?=a)(?:a|a){25}b",
    "(?<=\\/)(?:a|a){25}b",
    "(?:(?=a)a|a){25}b",
    "(?=(?:a|a){25}b).*",
    "(?:a|a){25}b(?:c?)*",
    "a{101}(?:a|a){25}b",
    "((a*)*)*b",
    "(?:a?b?)*c",
  ])("are not few through %s", (source) => {
    expect(waysOf(source).kind).not.toBe("at-most");
  });

  it.each([
    ["\\/s12\\/[a-z]+\\/(?:x|y)", 2],
    ["\\/files\\/.*\\.(?:png|jpe?g|gif)", 5],
    [".*", 1],
    [".*word.*", 3],
    [".*word.+", 4],
    ["(?:[a-z0-9]+-)*[a-z0-9]+", 4],
    ["[a-z]{1,63}[a-z]{1,63}", 125],
    ["(?:en|de|fr)(?:-[A-Z]{2})?", 3],
    ["\\bword\\b", 1],
    ["[a-z]{1,100}[0-9a-z]{1,100}", 199],
    [".*[0-9].{10}", 13],
    ["(?!internal-)[a-z-]+", 3],
    ["\\/(?!.*\\.\\.).*", 4],
    [".*(?<!\\.php)", 6],
    ["(?:a?)*b", 2],
  ])("through %s are %i at most", (source, ways) => {
    expect(waysOf(source)).toEqual({ kind: "at-most", ways });
  });

  it.each(["(a)\\1", "(?<!a+)b", ".*[0-9].{20}", "("])("are not known of %s", (source) => {
    expect(waysOf(source)).toEqual({ kind: "unknown" });
  });

  it("are counted of thousands of nodes in a row", () => {
    expect(waysOf("a{0,1990}")).toEqual({ kind: "at-most", ways: 2 });
    expect(waysOf("(?:a?){990}").kind).not.toBe("at-most");
  });
});
