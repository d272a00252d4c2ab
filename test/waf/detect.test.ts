import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { detectSqli, injectedShape, SQLI_CHARACTERS, SQLI_WORDS } from "../../src/waf/detect-sqli.ts";
import { detectXss, XSS_CHARACTERS } from "../../src/waf/detect-xss.ts";
import { scripts, sqlInjections } from "./corpus/attacks.ts";
import { ordinary, refusedByPatterns } from "./corpus/ordinary.ts";

const bytes = (text: string) => Buffer.from(text, "utf8").toString("latin1");

describe("@detectSQLi", () => {
  test.each(sqlInjections)("finds %j", (value) => {
    expect(detectSqli(bytes(value))).toBeDefined();
  });

  test("finds what else stands around it", () => {
    for (const value of sqlInjections) expect(detectSqli(`${value} `), value).toBeDefined();
    for (const value of sqlInjections.filter((each) => each.startsWith("x'"))) {
      expect(detectSqli(`some longer text, as in a form ${value}`), value).toBeDefined();
    }
  });

  test("tells the shape of what it found, and nothing of the value", () => {
    expect(detectSqli("secret' or 'hidden'='hidden")).toBe("'s&scq");
    expect(detectSqli("1 union select hidden from secret")).toBe("1UEnkn");
  });
});

describe("@detectXSS", () => {
  test.each(scripts)("finds %j", (value) => {
    expect(detectXss(bytes(value))).toBe(true);
  });

  test("finds it whatever NULs are in it", () => {
    for (const value of scripts) expect(detectXss(`\0${value.replace(/[a-z]/i, "$&\0")}`), value).toBe(true);
  });
});

describe.each([...Object.entries(ordinary), ["but refused by patterns", refusedByPatterns] as const])(
  "ordinary %s",
  (_, values) => {
    test("are none of both", () => {
      const wrong = values.filter((value) => detectSqli(bytes(value)) !== undefined || detectXss(bytes(value)));
      expect(wrong).toEqual([]);
    });
  },
);

test("words that every object of JavaScript has are words like others", () => {
  for (const word of ["constructor", "__proto__", "valueof"]) {
    expect(detectSqli(`1; ${word} x = 1`)).toBeUndefined();
    expect(detectXss(`&${word};`)).toBe(false);
  }
});

describe("what the detectors promise the engine", () => {
  test("without one of their characters there is nothing to find, but for words that stand alone", () => {
    const without = (value: string, characters: string) => ![...characters].some((each) => value.includes(each));
    for (const value of scripts) expect(without(value, XSS_CHARACTERS), value).toBe(false);
    const bare = sqlInjections.filter((value) => without(value, SQLI_CHARACTERS));
    expect(bare.filter((value) => !SQLI_WORDS.some((word) => value.toLowerCase().includes(word)))).toEqual([]);
  });

  test("what the look at the characters lets pass is no injection either when it is read", () => {
    const words =
      "1 0x1 1e0 a true and or not in union intersect all select from where into outfile order by having waitfor delay";
    const more = "table exec xp_cmdshell procedure case when , . : $ \\ sleep";
    const gaps = fc.constantFrom(" ", "\0", "\n", "\xa0", "\x01", "");
    const piece = fc.tuple(fc.constantFrom(...`${words} ${more}`.split(" ")), gaps).map((parts) => parts.join(""));
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 7 }), (parts) => {
        const value = parts.join("");
        expect(detectSqli(value)).toBe(injectedShape(value));
      }),
      { numRuns: 5_000 },
    );
  });

  test("they end, whatever the value", () => {
    const pieces = fc.constantFrom(
      "'",
      '"',
      "(",
      ")",
      "--",
      "#",
      "/*",
      "*/",
      "/*!",
      "\n",
      " or ",
      "=",
      "1",
      "a",
      "union select ",
      "<",
      "<a ",
      "on",
      ">",
      "&#",
      ":",
      "\\",
      "`",
      "[",
      "\0",
      "\xff",
      ";",
      ",",
      "@",
    );
    fc.assert(
      fc.property(fc.array(pieces, { maxLength: 60 }), (parts) => {
        detectSqli(parts.join(""));
        detectXss(parts.join(""));
      }),
      { numRuns: 3000 },
    );
  });

  // 8 KB take 1 to 10 ms; were anything quadratic, 128 KB would take seconds.
  test.each([
    "'",
    '"',
    "(",
    "--",
    "/*",
    "/*!",
    "`",
    "a.",
    "or 1=",
    "f(",
    "<",
    "<a ",
    "<a x='",
    "<style>",
    "onload=",
    "&#",
    '="',
    ",(",
  ])("%j, repeated, takes linear time", (pump) => {
    const value = `'"${pump.repeat(2 ** 17 / pump.length)}`;
    const started = performance.now();
    detectSqli(value);
    detectXss(value);
    expect(performance.now() - started).toBeLessThan(1_500);
  });
});
