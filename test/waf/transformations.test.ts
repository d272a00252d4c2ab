// biome-ignore-all lint/suspicious/noTemplateCurlyInString: ${IFS} of shells
import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type TransformationName, transformations, triggers } from "../../src/waf/transformations.ts";

const names = Object.keys(transformations) as TransformationName[];

/** What each makes of values, written from ModSecurity's reference manual and the behaviour of its two versions. */
const vectors: Partial<Record<TransformationName, readonly (readonly [value: string, becomes: string])[]>> = {
  urlDecode: [
    ["a%20b+c", "a b c"],
    ["%3Cscript%3e", "<script>"],
    ["100%", "100%"],
    ["%0g%g0%", "%0g%g0%"],
    ["%u003c", "%u003c"],
    ["%%34%31", "%41"],
    ["%00%ff", "\0\xff"],
  ],
  urlDecodeUni: [
    ["%u003cscript%U003E", "<script>"],
    ["%uff1cscript%uFF1e", "<script>"],
    ["%u2215", "\x15"],
    ["%u00", "%u00"],
    ["%u00zz+%41", "%u00zz A"],
    ["%uff00%uff5f", "\x00\x5f"],
  ],
  utf8toUnicode: [
    ["plain", "plain"],
    ["\xc3\xa9", "%u00e9"],
    ["\xef\xbc\x9cscript", "%uff1cscript"],
    ["\xf0\x9f\x98\x80", "%u1f600"],
    // An overlong slash, and sequences that end too early.
    ["\xc0\xaf", "%u002f\xc0"],
    ["\xe2\x82x", "\x82x"],
    ["\x80\xc3", "\x80"],
    ["\xed\xa0\x80", "%ud800\xed"],
  ],
  jsDecode: [
    ["\\u003cscript\\x3e", "<script>"],
    ["\\uff1c", "<"],
    ["\\101\\400\\7", "A\x200\x07"],
    ["\\a\\b\\f\\n\\r\\t\\v\\'\\\"\\\\", "\x07\b\f\n\r\t\v'\"\\"],
    ["\\u00g0\\xg0\\", "u00g0xg0\\"],
  ],
  cssDecode: [
    ["\\6a\\61 vascript", "javascript"],
    ["\\00006Aavascript", "javascript"],
    ["\\ff1c\\0ff1e\\00ff1f", "<>?"],
    ["\\1ff1c", "\x1c"],
    ["ja\\\nva\\s\\", "javas"],
    ["\\a  b", "\n b"],
  ],
  escapeSeqDecode: [
    ["\\x41\\X42\\103\\q\\?", "ABCq?"],
    ["\\xg1\\400\\", "xg1\0\\"],
    ["\\n\\t", "\n\t"],
  ],
  htmlEntityDecode: [
    ["&constructor;&__proto__;", "&constructor;&__proto__;"],
    ["&lt;script&gt", "<script>"],
    ["&#60;&#x3c;&#X3C&#0060", "<<<<"],
    ["&QUOT;&amp;&nbsp;", '"&\xa0'],
    ["&foo;&#;&#x;&#xg;& ", "&foo;&#;&#x;&#xg;& "],
    ["&#316;&#99999999999999999999;", "<\xff"],
    ["&&lt;", "&<"],
  ],
  lowercase: [["ÀB\xc0", "Àb\xc0"]],
  uppercase: [["aß\xe0", "Aß\xe0"]],
  removeNulls: [["a\0b\0", "ab"]],
  replaceNulls: [["a\0b\0", "a b "]],
  removeWhitespace: [[" a\t\n\v\f\r \xa0b", "ab"]],
  compressWhitespace: [["  a \t\r\n b\xa0", " a b "]],
  trim: [[" \t a b \n", "a b"]],
  trimLeft: [[" a ", "a "]],
  trimRight: [[" a ", " a"]],
  cmdLine: [
    ['C^OMMAND /C "DIR"', "command/c dir"],
    ["cmd,/c;;DiR", "cmd/c dir"],
    ["who\\ami ' ; (x)", "whoami(x)"],
    [" ,\\; x", " x"],
  ],
  replaceComments: [
    ["a/* b */c", "a c"],
    ["a/*/c", "a "],
    ["a*/c", "a*/c"],
    ["/**//**/", "  "],
  ],
  removeComments: [
    ["a/* b */c", "ac"],
    ["a<!-- b -->c", "ac"],
    ["a -- b", "a "],
    ["a # b", "a "],
    ["a /* b", "a  "],
    ["/**/", ""],
  ],
  removeCommentsChar: [
    ["a/*b*/c<!--d-->e--f#g", "abcdefg"],
    ["//**//", "//"],
  ],
  normalizePath: [
    ["/a/./b//../c", "/a/c"],
    ["/../../etc/passwd", "/etc/passwd"],
    ["../a/../../b/", "../../b/"],
    ["/a/..", "/"],
    ["./a/.", "a"],
    ["/", "/"],
    ["/.hidden/..data", "/.hidden/..data"],
  ],
  normalizePathWin: [["c:\\a\\..\\b/./c", "c:/b/c"]],
  base64Decode: [
    ["VGVzdENhc2U=", "TestCase"],
    ["VGVz\r\ndA", "Test"],
    ["VGVz dA==", "Tes"],
    ["", ""],
  ],
  base64DecodeExt: [["P.HNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==", "<script>alert(1)</script>"]],
  base64Encode: [["Test\0\xff", "VGVzdAD/"]],
  hexDecode: [
    ["5465737400", "Test\0"],
    ["41f", "A"],
  ],
  hexEncode: [["Test\xff", "54657374ff"]],
  sqlHexDecode: [
    ["select 0x414243, 0X44", "select ABC, D"],
    ["0xg 0x4 x41", "0xg 0x4 x41"],
    ["0x41424", "AB4"],
  ],
  urlEncode: [["a b*c/%\xff", "a+b*c%2f%25%ff"]],
  length: [["abc\0", "4"]],
  parityEven7bit: [["\x01\x03", "\x81\x03"]],
  parityOdd7bit: [["\x01\x03", "\x01\x83"]],
  parityZero7bit: [["\xc1B", "AB"]],
  asSql: [
    ["1/**/union/*a*/select", "1 union select"],
    ["/*!50000union*/ 1", " union 1"],
    ["union --x\n select #y\n1", "union select 1"],
    ["a\tb\v \nc", "a b c"],
    ["1\xa0or 2\xc2\xa0or\xe3\x803", "1 or 2 or\xe3\x803"],
    ["voil\xc3\xa0 caf\xc3\xa9", "voil\xc3\xa0 caf\xc3\xa9"],
    ["admin'/*", "admin' /*"],
  ],
  asMarkup: [
    ["&lt;script&gt;&#60x&#x3e;", "<script><x>"],
    ["\\u003cscript\\x3e", "<script>"],
    ["<scr\0ipt>", "<script>"],
    ["java&Tab;script&colon;", "java script:"],
    ["&unknown;&#233;&#99999999;", "&unknown;\xc3\xa9&#99999999;"],
  ],
  asShell: [
    ["c'a'\"t\" \\x /^y", "cat x /y"],
    ["cat$IFS$@/x${ifs}y", "cat /x y"],
    ["a \t b\nc", "a b\nc"],
  ],
};

describe("transformations", () => {
  for (const name of names) {
    const [own = []] = [vectors[name]];
    if (own.length > 0) {
      it(name, () => {
        expect(own.map(([value]) => transformations[name](value))).toEqual(own.map(([, becomes]) => becomes));
      });
    }
  }

  it("have vectors, each of them, except the second spellings and the digests", () => {
    const without = names.filter((name) => !vectors[name]);
    expect(without).toEqual(["md5", "normalisePath", "normalisePathWin", "sha1"]);
  });

  it("md5 and sha1 give the digest's bytes", () => {
    fc.assert(
      fc.property(bytes, (value) => {
        for (const name of ["md5", "sha1"] as const) {
          const digest = createHash(name).update(value, "latin1").digest("latin1");
          expect(transformations[name](value)).toBe(digest);
        }
      }),
    );
  });
});

const bytes = fc
  .array(fc.integer({ min: 0, max: 255 }), { maxLength: 40 })
  .map((codes) => String.fromCharCode(...codes));
/** What escapes are made of, so that they come about. */
const escapes = fc
  .array(
    fc.constantFrom(
      ..."%u+\\x0123fFaAbn&#;<>lt'\"/*-!. \t\n\0",
      "\xa0",
      "\xc3",
      "\xa9",
      "\xef",
      "\xbc",
      "\x9c",
      "..",
      "/.",
      "<!--",
      "--",
      "0x",
      "amp",
    ),
    { maxLength: 24 },
  )
  .map((parts) => parts.join(""));
const values = fc.oneof(bytes, escapes);

describe("every transformation", () => {
  it.each(names)("%s gives bytes, and the same value where there is no trigger", (name) => {
    const chars = triggers[name];
    fc.assert(
      fc.property(values, (value) => {
        const became = transformations[name](value);
        for (let i = 0; i < became.length; i++) if (became.charCodeAt(i) > 0xff) return false;
        return chars === undefined || [...chars].some((char) => value.includes(char)) || became === value;
      }),
      { numRuns: 400 },
    );
  });

  /** ModSecurity decodes in place: a value that grows would be a mistake here too. */
  const growing: readonly TransformationName[] = [
    "base64Encode",
    "hexEncode",
    "length",
    "md5",
    "sha1",
    "urlEncode",
    "utf8toUnicode",
  ];
  it.each(names.filter((name) => !growing.includes(name)))("%s never makes a value longer", (name) => {
    fc.assert(fc.property(values, (value) => transformations[name](value).length <= Math.max(value.length, 1)));
  });

  it("takes time in proportion to the value: no 100 kB of what it looks for are slow", () => {
    const pumps = [
      "%",
      "\\",
      "&#",
      "&a",
      "/*",
      "<!--",
      "-->",
      "/../",
      "./",
      " ",
      "0x",
      "0x41",
      "\xc3",
      "\xc3\xa9",
      "A",
      '"',
      "#",
      "--",
      "&#x4",
    ];
    for (const name of names) {
      for (const pump of pumps) {
        const value = pump.repeat(Math.ceil(100_000 / pump.length));
        const started = performance.now();
        transformations[name](value);
        expect(performance.now() - started, `${name} of ${pump}`).toBeLessThan(1_000);
      }
    }
  });

  it("undoes what it did, where one is the other's inverse", () => {
    fc.assert(
      fc.property(bytes, (value) => {
        expect(transformations.hexDecode(transformations.hexEncode(value))).toBe(value);
        expect(transformations.base64Decode(transformations.base64Encode(value))).toBe(value);
        expect(transformations.urlDecode(transformations.urlEncode(value))).toBe(value);
      }),
    );
  });

  it("normalizePath settles: a second time changes nothing", () => {
    for (const name of ["normalizePath", "normalizePathWin"] as const) {
      fc.assert(
        fc.property(escapes, (value) => {
          const once = transformations[name](value);
          expect(transformations[name](once)).toBe(once);
        }),
      );
    }
  });
});
