import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { automatonTables } from "../../src/seclang/automaton.ts";
import { Automaton } from "../../src/waf/automaton.ts";

function found(words: readonly string[], value: string): number[] {
  const hits = new Set<number>();
  new Automaton(automatonTables(words)).scan(value, (word) => hits.add(word));
  return [...hits].sort((a, b) => a - b);
}

const lower = (text: string) => text.replace(/[A-Z]/g, (letter) => letter.toLowerCase());

describe("an automaton", () => {
  test.each([
    [["he", "she", "his", "hers"], "ushers", [0, 1, 3]],
    [["select", "ELECT"], "SeLeCt", [0, 1]],
    [["a", "aa", "aaa"], "aa", [0, 1]],
    [["abcd", "bc"], "abce", [1]],
    [["xabc", "ab", "b"], "xab", [1, 2]],
    [["\xe9"], "\xc9", []],
    [["a long beginning and one end", "a long beginning and another"], "A LONG beginning AND another", [1]],
    [["a long beginning"], "a long beginnin", []],
    [["same", "Same"], "same", [0, 1]],
    [["a"], "", []],
    [[], "a", []],
  ])("of %j in %j", (words, value, expected) => {
    expect(found(words, value)).toEqual(expected);
  });

  test("finds what a search for each word finds", () => {
    const text = (least: number, most: number) =>
      fc.string({ unit: fc.constantFrom("a", "b", "A", "c", "\xff", "\0"), minLength: least, maxLength: most });
    // Words longer than what the automaton knows of them as well, and values that hold them.
    const word = fc.oneof(text(1, 5), text(6, 12));
    fc.assert(
      fc.property(fc.array(word, { maxLength: 12 }), text(0, 40), fc.nat(), (words, some, at) => {
        const value = some + (words[at % 13] ?? "").toUpperCase().slice(at % 2) + some.slice(at % 7);
        const expected = words.flatMap((word, number) => (lower(value).includes(lower(word)) ? [number] : []));
        expect(found(words, value)).toEqual(expected);
      }),
      { numRuns: 2000 },
    );
  });

  test("tells of the bytes that a value has", () => {
    const masks = new Int32Array(256);
    masks[0x27] = 1;
    masks[0x3c] = 2;
    const automaton = new Automaton(automatonTables(["x"]), masks);
    expect(automaton.scan("it's", () => {})).toBe(1);
    expect(automaton.scan("'<", () => {})).toBe(3);
    expect(automaton.scan("plain", () => {})).toBe(0);
  });

  test("refuses what it could not find", () => {
    expect(() => automatonTables(["a", ""])).toThrow("word 1 is empty");
    expect(() => automatonTables(["\u20ac"])).toThrow("not latin1");
    const many = Array.from({ length: 20000 }, (_, at) => at.toString(36).padStart(5, "-") + at);
    expect(() => automatonTables(["x".repeat(263)])).toThrow("longer than 262");
    expect(() => automatonTables(many)).toThrow("at most");
  });
});

describe("a detector", () => {
  const letters = ["a", "b", "A", "c", "'", "="];
  const text = (least: number, most: number) =>
    fc.string({ unit: fc.constantFrom(...letters), minLength: least, maxLength: most });

  test("says whether a value has a wanted word, or a byte that tells by itself", () => {
    fc.assert(
      fc.property(
        fc.array(text(1, 6), { maxLength: 8 }),
        fc.array(fc.boolean()),
        text(0, 30),
        (words, asked, value) => {
          const wanted = words.map((_, number) => asked[number] === true);
          const detector = new Automaton(automatonTables(words)).detector(wanted);
          const has = words.some((word, number) => wanted[number] && lower(value).includes(lower(word)));
          expect(detector.test(value, detector.classes("", ""))).toBe(has);
          expect(detector.test(value, detector.classes("'", ""))).toBe(has || value.includes("'"));
        },
      ),
      { numRuns: 2000 },
    );
  });

  test("finds no word across a separator, and every word between two", () => {
    fc.assert(
      fc.property(fc.array(text(1, 4), { maxLength: 8 }), text(0, 30), (words, value) => {
        const detector = new Automaton(automatonTables(words)).detector(words.map((word) => !word.includes("=")));
        const plain = words.filter((word) => !word.includes("="));
        const has = value.split("=").some((part) => plain.some((word) => lower(part).includes(lower(word))));
        expect(detector.test(value, detector.classes("", "="))).toBe(has);
      }),
      { numRuns: 2000 },
    );
  });
});
