import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { rules } from "../../src/policies/filter-rules.ts";
import { parseRegex } from "../../src/seclang/regex-syntax.ts";
import { tellingWords } from "../../src/seclang/telling-words.ts";

const words = (pattern: string) => tellingWords(parseRegex(pattern).node);

describe("telling words", () => {
  test.each([
    ["union select", [["union "]]],
    [
      "['\"] ?(?:or|and) ",
      [
        ['"', "'"],
        ["or", "and"],
      ],
    ],
    ["[;|] ?(?:cat|ls|id|ps|wget|curl|nc|rm|cp|mv) ", [[";", "|"]]],
    ["\\.{2,4}/", [[".."]]],
    ["(?i)JNDI:", [["jndi:"]]],
    ["a*", []],
    ["\\w+", []],
    ["x|", []],
    ["(?:abc)?", []],
  ])("of %s", (pattern, expected) => {
    expect(words(pattern)).toEqual(expected);
  });

  const small = fc.constantFrom(
    "a",
    "b",
    "'",
    ";",
    "(?:ab|c;)",
    "[';<]",
    "b?",
    "c*",
    "(?:a|'b)+",
    "(?:b;){2,3}",
    "[^x]",
    "$|'",
  );
  test("every match has one of each clause", () => {
    fc.assert(
      fc.property(
        fc.array(small, { minLength: 1, maxLength: 6 }),
        fc.array(fc.constantFrom("a", "b", "c", "'", ";", "<", "x", "B", "A"), { maxLength: 12 }),
        (pieces, characters) => {
          const pattern = pieces.join("");
          const value = characters.join("");
          if (!new RegExp(pattern).test(value)) return;
          for (const clause of words(pattern))
            expect(clause.some((word) => value.toLowerCase().includes(word))).toBe(true);
        },
      ),
      { numRuns: 3000 },
    );
  });

  test("are few: those of all rules of filter", () => {
    const all = new Set(rules.flatMap(({ pattern }) => words(pattern.source).flat()));
    expect(all.size).toBeLessThan(300);
  });
});
