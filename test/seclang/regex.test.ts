import fc from "fast-check";
import { describe, expect, test, vi } from "vitest";
import { compileRegex } from "../../src/seclang/regex.ts";
import { UNUSUAL } from "../../src/seclang/regex-literals.ts";
import { RegexSyntaxError } from "../../src/seclang/regex-syntax.ts";
import { LinearRegex } from "../../src/waf/linear-regex.ts";

const inV8 = (pattern: string) => {
  const { source, flags } = compileRegex(pattern);
  return new RegExp(source, flags);
};

const linear = (pattern: string) => {
  const { program, reason } = compileRegex(pattern);
  if (!program) throw new Error(`${pattern} is not linear: ${reason}`);
  return new LinearRegex(program);
};

/** The pattern's characters that match alone, of all 256. */
const matched = (pattern: string) =>
  Array.from({ length: 256 }, (_, byte) => String.fromCharCode(byte))
    .filter((character) => linear(`\\A(?:${pattern})\\z`).test(character))
    .join("");

describe("PCRE on bytes", () => {
  test.each([
    [String.raw`\s`, "\t\n\v\f\r "],
    [String.raw`\h`, "\t \xa0"],
    [String.raw`\v`, "\n\v\f\r\x85"],
    [String.raw`\d`, "0123456789"],
    [String.raw`\x{e9}`, "\xe9"],
    [String.raw`\xe9`, "\xe9"],
    [String.raw`[\x{fe}-\x{ff}]`, "\xfe\xff"],
    [String.raw`\x41\103\cD`.slice(0, 4), "A"],
    [String.raw`\103`, "C"],
    [String.raw`\cD`, "\x04"],
    ["[]a]", "]a"],
    ["[a-]", "-a"],
    [String.raw`[\w-]`.replace("\\w", "\\d"), "-0123456789"],
    ["[[:digit:][:space:]]", "\t\n\v\f\r 0123456789"],
    ["(?i)[^A-C\\x00-@D-`d-\\xff]", ""],
    ["(?i)[a-c]", "ABCabc"],
    ["(?i)k", "Kk"],
    ["(?i)\xe9", "\xe9"],
    [String.raw`[\b]`, "\b"],
    [String.raw`\Q*\E`, "*"],
    ["(?x) a # the first letter\n", "a"],
  ])("%s", (pattern, characters) => {
    expect([...matched(pattern)].sort()).toEqual([...characters].sort());
  });

  test.each([
    ["a.c", "a\nc", true],
    ["(?-s)a.c", "a\nc", false],
    ["a$", "a\n", false],
    [String.raw`a\z`, "a\n", false],
    ["^b", "a\nb", false],
    ["(?m)^b$", "a\nb\nc", true],
    [String.raw`\bcat\b`, "a cat.", true],
    [String.raw`\bcat\b`, "concat", false],
    [String.raw`\Bcat`, "concat", true],
    [String.raw`\bcat\b`, "\xe9cat\xe9", true],
    ["a(?i)b|c", "C", true],
    ["(?:a(?i)b)c", "aBC", false],
    ["^(?i)up", "UP", true],
    ["a{2,3}b", "aab", true],
    ["^a{2,3}b", "ab", false],
    ["a{,3}", "a{,3}", true],
    ["x{", "x{", true],
    ["\u20ac", "\xe2\x82\xac", true],
    [String.raw`\R`, "\x85", true],
    ["<[^>]*+>", "<a>", true],
    ["", "", true],
    ["$^", "", true],
    ["$^", "a", false],
  ])("%s on %j: %j", (pattern, value, expected) => {
    expect([linear(pattern).test(value), inV8(pattern).test(value)]).toEqual([expected, expected]);
  });

  test("what needs backtracking runs in V8, atomic groups as lookaheads, and says why", () => {
    expect(inV8(String.raw`(a)(?>b|bc)(c)\2`).exec("xabcc")?.slice()).toEqual(["abcc", "a", "b", "c"]);
    expect(compileRegex("(a++)ab")).toMatchObject({ engine: "v8", groupsInV8: [0, 1] });
    expect(compileRegex("(?>a*)(ab)")).toMatchObject({ engine: "v8", groupsInV8: [0, 2] });
    expect(compileRegex("a(?=b)").reason).toMatch("ahead");
    expect(inV8("(?i:(k)x\\1)").test("KXk")).toBe(true);
  });

  test.each([
    ["(a", "a ( without its )"],
    ["a)", "a ) without its ("],
    ["[a", "a [ without its ]"],
    ["*a", "nothing to repeat"],
    ["[b-a]", "end is before its start"],
    ["a{3,2}", "less than its least"],
    [String.raw`\p{L}`, "the escape \\p is not supported"],
    [String.raw`a\Kb`, "the escape \\K is not supported"],
    [String.raw`\x{20ac}`, "write its UTF-8 bytes"],
    [String.raw`\2`, "there is no group 2"],
    ["(?R)", "the flag R"],
    ["(?(1)a|b)", "conditions, recursion"],
    ["(*UTF8)a", "(*verbs)"],
    ["[[:nope:]]", "no class [:nope:]"],
    ["a\\", "nothing behind it"],
  ])("refuses %s", (pattern, why) => {
    expect(() => compileRegex(pattern)).toThrow(RegexSyntaxError);
    expect(() => compileRegex(pattern)).toThrow(why);
  });
});

const piece: fc.Arbitrary<string> = fc.letrec<{ node: string }>((tie) => ({
  node: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    fc.constantFrom(
      "a",
      "b",
      "c",
      " ",
      "[ab]",
      "[^a]",
      ".",
      "\\w",
      "\\s",
      "\\b",
      "^",
      "$",
      "\\B",
      "ab",
      "\\n",
      "(?m:^)",
      "(?m:$)",
    ),
    fc.tuple(tie("node"), tie("node")).map(([a, b]) => a + b),
    fc.tuple(tie("node"), tie("node")).map(([a, b]) => `(?:${a}|${b})`),
    fc
      .tuple(tie("node"), fc.constantFrom("*", "+", "?", "{2}", "{1,3}", "*?", "+?", "??", "{2,}"))
      .map(([a, q]) => `(?:${a})${q}`),
    tie("node").map((a) => `(${a})`),
    tie("node").map((a) => `(?i:${a})`),
  ),
})).node;

const text = fc.string({ unit: fc.constantFrom("a", "b", "c", "A", " ", "\n", "-", "\xe9"), maxLength: 14 });

describe("the linear engine is V8's equal", () => {
  test("in what matches", () => {
    fc.assert(
      fc.property(piece, fc.array(text, { minLength: 1, maxLength: 8 }), (pattern, values) => {
        const [ours, theirs] = [linear(pattern), inV8(pattern)];
        for (const value of values)
          expect(ours.test(value), `${pattern} on ${JSON.stringify(value)}`).toBe(theirs.test(value));
      }),
      { numRuns: 1500 },
    );
  });

  // Where a loop's body can be empty, engines differ in when they leave it; RE2 differs from PCRE there in the same way.
  test("in what it matched and captured, where no loop can take nothing", () => {
    const loopless = piece.filter(
      (pattern) => !/[*+}]\??\)*[*+{]|\(\?:\(*(?:\\[bB]|[$^]|\(\?m)|[?*]\)|\|\)/.test(pattern),
    );
    fc.assert(
      fc.property(loopless, text, (pattern, value) => {
        const theirs = inV8(pattern).exec(value);
        expect(linear(pattern).exec(value)?.[0], `${pattern} on ${JSON.stringify(value)}`).toBe(theirs?.[0]);
      }),
      { numRuns: 1000 },
    );
  });

  test.each([
    [String.raw`(\w+)\s*=\s*(?:'([^']*)'|"([^"]*)")`, `x; name = "Ada" `, ["name", undefined, "Ada"]],
    ["(a+?)(a*)", "aaa", ["a", "aa"]],
    ["(a|ab)(c|bcd)(d*)", "abcd", ["a", "bcd", ""]],
    ["(?:(a)|(b))+", "ab", ["a", "b"]],
  ])("%s captures", (pattern, value, groups) => {
    expect(linear(pattern).exec(value)?.slice(1)).toEqual(groups);
  });

  test("when states are forgotten, and when a value needs more of them than is worth it", () => {
    // The 12th byte from the end decides: 2^12 states.
    const [ours, theirs] = [linear("a.{11}$"), inV8("a.{11}$")];
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom("a", "b"), minLength: 200, maxLength: 400 }), (value) => {
        expect(ours.test(value)).toBe(theirs.test(value));
      }),
      { numRuns: 300 },
    );
  });

  test("in the middle of long values", () => {
    const value = `${"x".repeat(50_000)}<b class=y>${"x".repeat(50_000)}`;
    expect(linear(String.raw`<(\w)[^>]*>`).exec(value)).toEqual(["<b class=y>", "b"]);
  });
});

describe("required literals", () => {
  test.each([
    [String.raw`(?i)\bunion\s+(?:all\s+)?select\b`, [["select"], ["union"], ["\t", "\n", "\v", "\f", "\r", " "]]],
    ["(?i:foo|ba[rz])", [["foo", "bar", "baz"]]],
    ["a*b", [["b"]]],
    ["a*", []],
    ["(?:evil|)", []],
    ["(?:evilness|evil)", [["evil"]]],
    ["x{2,}[^a]y?", [["xx"]]],
    ["(?=ab)c", [["c"]]],
    ["[a-z]+@", [["@"]]],
  ])("%s", (pattern, clauses) => {
    expect(compileRegex(pattern).literals).toEqual(clauses);
  });

  test("are in every match", () => {
    fc.assert(
      fc.property(piece, fc.array(text, { minLength: 1, maxLength: 8 }), (pattern, values) => {
        const { literals } = compileRegex(pattern);
        const regex = inV8(pattern);
        for (const value of values.filter((each) => regex.test(each))) {
          const lower = value.replace(/A/g, "a");
          for (const clause of literals) expect(clause.some((word) => lower.includes(word))).toBe(true);
        }
      }),
      { numRuns: 1500 },
    );
  });

  test.each([
    // Between any two letters what a shell passes over.
    [String.raw`l["'\\]*s["'\\]*[\s;]`, [["ls "]]],
    ['(?:;|a["$]?)bc', [["abc"]]],
    ["x(?:;y)?z", [["xz"]]],
    [String.raw`\$\{`, undefined],
    ["a;+b", undefined],
  ])("of plain values: %s", (pattern, clauses) => {
    expect(compileRegex(pattern).literalsOfPlain).toEqual(clauses);
  });

  test("of plain values are in every match that has no unusual byte", () => {
    const isPlain = (value: string) => !UNUSUAL.some((byte) => value.includes(byte));
    fc.assert(
      fc.property(piece, fc.array(text, { minLength: 1, maxLength: 8 }), (pattern, values) => {
        const { literalsOfPlain } = compileRegex(pattern);
        const regex = inV8(pattern);
        for (const value of values.filter((each) => isPlain(each) && regex.test(each))) {
          const lower = value.replace(/A/g, "a");
          expect(literalsOfPlain).toBeDefined();
          for (const clause of literalsOfPlain ?? []) expect(clause.some((word) => lower.includes(word))).toBe(true);
        }
      }),
      { numRuns: 1500 },
    );
  });
});

test("takes no longer for what it has looked at before", () => {
  const { program } = compileRegex("a[ab]{12}(?:[ab][ab]|[ab])*!");
  // Bytes are counted beyond 32 bits, which would take minutes to reach: 8 bits instead.
  vi.stubGlobal("Uint32Array", Uint8Array);
  const regex = new LinearRegex(program as Uint16Array);
  vi.unstubAllGlobals();
  let random = 1;
  const value = Array.from({ length: 290 }, () => {
    random = (random * 48_271) % 0x7fff_ffff;
    return random % 2 ? "a" : "b";
  }).join("");
  const before = performance.now();
  expect(regex.test(value)).toBe(false);
  expect(performance.now() - before).toBeLessThan(100);
});
