/** Automata must read texts as the regexes and the normalisation do that the edge runs. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Automaton, DEAD, shortestWord } from "../../src/prove/automaton.ts";
import { NormalPaths } from "../../src/prove/normal-path.ts";
import { pathIn } from "../../src/prove/path-set.ts";
import { regexLanguage } from "../../src/prove/regex-language.ts";
import { valueIn } from "../../src/prove/value-set.ts";
import { normalisePath } from "../../src/table/path.ts";

function reads(automaton: Automaton, text: string): boolean {
  let state = automaton.start;
  for (let i = 0; i < text.length && state !== DEAD; i++) state = automaton.step(state, text.charCodeAt(i));
  return state !== DEAD && automaton.accepts(state);
}

const atom = fc.constantFrom(
  "a",
  "b",
  "/",
  ".",
  "\\.",
  "[ab]",
  "[^a]",
  "\\d",
  "\\w",
  "\\S",
  "\\W",
  "(?:)",
  "é",
  "[a-c/]",
);
const regexes = fc.letrec<{ regex: string }>((tie) => ({
  regex: fc.oneof(
    { maxDepth: 4, withCrossShrink: true },
    atom,
    fc.tuple(tie("regex"), tie("regex")).map((pair) => pair.join("")),
    fc.tuple(tie("regex"), tie("regex")).map((pair) => `(?:${pair.join("|")})`),
    fc
      .tuple(tie("regex"), fc.constantFrom("*", "+", "?", "{2}", "{0,2}", "{1,}", "*?"))
      .map(([one, times]) => `(${one})${times}`),
    fc.tuple(tie("regex"), fc.constantFrom("i", "s", "-i", "is")).map(([one, flags]) => `(?${flags}:${one})`),
    tie("regex").map((one) => `^${one}`),
    tie("regex").map((one) => `${one}$`),
  ),
})).regex;
const texts = fc.string({
  unit: fc.constantFrom("a", "b", "A", "c", "/", ".", "1", "é", "É", "\n", "ſ"),
  maxLength: 6,
});

describe("regexLanguage", () => {
  it("reads what the regex matches", () => {
    fc.assert(
      fc.property(regexes, fc.array(texts, { minLength: 1, maxLength: 20 }), (source, all) => {
        const automaton = regexLanguage(source) as Automaton;
        const regex = new RegExp(`^(?:${source})$`);
        for (const text of all) if (reads(automaton, text) !== regex.test(text)) throw new Error(JSON.stringify(text));
      }),
      { numRuns: 1_500 },
    );
  });

  it("finds the shortest text that one matches and another does not", () => {
    fc.assert(
      fc.property(regexes, regexes, fc.array(texts, { maxLength: 20 }), (one, other, all) => {
        const word = shortestWord([regexLanguage(one) as Automaton], [regexLanguage(other) as Automaton], 2_000);
        const isIn = (text: string) =>
          new RegExp(`^(?:${one})$`).test(text) && !new RegExp(`^(?:${other})$`).test(text);
        const known = all.filter(isIn);
        if (word === "empty") expect(known).toEqual([]);
        if (typeof word !== "object") return;
        expect(isIn(word.found)).toBe(true);
        for (const text of known) expect(word.found.length).toBeLessThanOrEqual(text.length);
      }),
      { numRuns: 500 },
    );
  });

  it.each(["(a)\\1", "(?=a)a", "(?<!a)b", "a\\b", "(?m:^a$)", "(?:a{99}){99}"])(
    "knows that it does not know %s",
    (source) => {
      expect(regexLanguage(source)).toBeUndefined();
    },
  );
});

describe("NormalPaths", () => {
  const part = fc.constantFrom(
    ...'/ . .. a B ~ ; : % %20 %41 %2F %5C %2e %C3%A9 %c3 %C0%AF %E2%82%AC %ED%A0%80 %F0%9F%98%80 %7F % é \\ < " %0A ;x'.split(
      " ",
    ),
  );
  it.each(["refuse", "keep"] as const)("has the paths that stay as they are (%s)", (escapedSlashes) => {
    const automaton = new NormalPaths(escapedSlashes);
    fc.assert(
      fc.property(fc.array(part, { maxLength: 6 }), (parts) => {
        const path = `/${parts.join("")}`;
        const normal = normalisePath(path, { escapedSlashes });
        expect(reads(automaton, path), path).toBe(!normal.refused && normal.path === path);
      }),
      { numRuns: 3_000 },
    );
  });
});

describe("a path that a route asks for", () => {
  const regex = (value: string) => ({ kind: "regex", value }) as const;
  it("is found among normal paths alone", () => {
    expect(pathIn([regex("/.")], [], "refuse")).toEqual({ found: "/x" });
    // All that these match is respelled or refused before.
    for (const source of ["//", "/a/\\.\\.", "/%41", "/[<>]", "/a b", "/\\.well-known/portcullis/.+"])
      expect(pathIn([regex(source)], [], "refuse"), source).toBe("empty");
    expect(pathIn([regex("/a%2Fb")], [], "refuse")).toBe("empty");
    expect(pathIn([regex("/a%2Fb")], [], "keep")).toEqual({ found: "/a%2Fb" });
    expect(pathIn([regex("/(?:%[0-9A-F]{2}){2}")], [], "refuse")).toEqual({ found: "/%20%20" });
  });
});

describe("a value that conditions ask for", () => {
  const name = "x";
  it("is found where there is one", () => {
    expect(valueIn("header", [], [{ name }])).toEqual({ found: null });
    expect(
      valueIn(
        "header",
        [{ name }],
        [
          { name, exact: "1" },
          { name, regex: "[a-z]+" },
        ],
      ),
    ).toMatchObject({ found: expect.stringMatching(/^(?!1$)/) });
    expect(valueIn("header", [{ name, regex: "v[0-9]" }], [{ name, exact: "v0" }])).toEqual({ found: "v1" });
    expect(
      valueIn(
        "header",
        [{ name, regex: "v[01]" }],
        [
          { name, exact: "v0" },
          { name, exact: "v1" },
        ],
      ),
    ).toBe("empty");
    expect(valueIn("query", [{ name, regex: "é+" }], [])).toEqual({ found: "é" });
    // Whatever is sent, it arrives trimmed.
    expect(valueIn("header", [{ name, exact: " a" }], [])).toBe("empty");
    expect(valueIn("cookie", [{ name, exact: "a;b" }], [])).toBe("empty");
    // How bytes beyond ASCII arrive differs between runtimes.
    expect(valueIn("header", [{ name, exact: "é" }], [])).toBe("value");
    expect(valueIn("query", [{ name, regex: "(.)\\1" }], [])).toBe("regex");
  });
});
