import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  type ComparisonName,
  comparisons,
  ipMatch,
  prepareByteRange,
  prepareIpMatch,
  validateByteRange,
  validateUrlEncoding,
  validateUtf8Encoding,
} from "../../src/waf/operators.ts";

describe("comparisons", () => {
  const cases: readonly (readonly [ComparisonName, value: string, argument: string, boolean])[] = [
    ["streq", "GET", "GET", true],
    ["streq", "get", "GET", false],
    ["contains", "abcde", "bcd", true],
    ["contains", "abcde", "", true],
    ["contains", "abcde", "BCD", false],
    ["strmatch", "abcde", "cde", true],
    ["beginsWith", "abc", "ab", true],
    ["beginsWith", "abc", "bc", false],
    ["endsWith", "abc", "bc", true],
    ["endsWith", "bc", "abc", false],
    ["within", "POST", "GET HEAD POST", true],
    ["within", "PUT", "GET HEAD POST", false],
    ["within", "", "GET", true],
    ["containsWord", "a b c", "b", true],
    ["containsWord", "abc b_", "b", false],
    ["containsWord", "xabc abc", "abc", true],
    ["containsWord", "aaa", "aa", false],
    ["eq", "10", "10", true],
    ["eq", " +10x", "10", true],
    ["eq", "x", "0", true],
    ["ge", "10", "10", true],
    ["ge", "9", "10", false],
    ["gt", "11", "10", true],
    ["gt", "10", "10", false],
    ["le", "-1", "0", true],
    ["le", "1", "0", false],
    ["lt", "9", "10", true],
    ["lt", "", "0", false],
  ];
  it.each(cases)("%s: %j against %j is %s", (name, value, argument, matches) => {
    expect(comparisons[name](value, argument)).toBe(matches);
  });
});

describe("validateByteRange", () => {
  it("matches a byte outside of the ranges", () => {
    const allowed = prepareByteRange("9, 10,13,32-126 ,128-255");
    expect(validateByteRange("a\t\r\n~\x80\xff", allowed)).toBe(false);
    expect(validateByteRange("a\x7f", allowed)).toBe(true);
    expect(validateByteRange("\0", allowed)).toBe(true);
    expect(validateByteRange("", allowed)).toBe(false);
    expect(validateByteRange("\0\xff", prepareByteRange("0-255"))).toBe(false);
  });

  it.each(["", "256", "a-b", "10-9", "1-2-3", "-1", "1,,2"])("refuses %j", (argument) => {
    expect(() => prepareByteRange(argument)).toThrow(/is no range of bytes: write 0 to 255/);
  });
});

describe("validateUrlEncoding", () => {
  it.each([
    ["", false],
    ["a%20b%fF", false],
    ["a+b", false],
    ["%", true],
    ["a%2", true],
    ["%2g", true],
    ["%u0041", true],
  ])("%j: %s", (value, matches) => {
    expect(validateUrlEncoding(value)).toBe(matches);
  });
});

describe("validateUtf8Encoding", () => {
  it("agrees with a decoder that refuses what is no UTF-8", () => {
    const decoder = new TextDecoder("utf-8", { fatal: true });
    const edges = fc.constantFrom(
      0x00,
      0x41,
      0x7f,
      0x80,
      0x8f,
      0x90,
      0x9f,
      0xa0,
      0xbf,
      0xc0,
      0xc1,
      0xc2,
      0xdf,
      0xe0,
      0xec,
      0xed,
      0xef,
      0xf0,
      0xf4,
      0xf5,
      0xff,
    );
    const text = fc.string({ unit: "grapheme", maxLength: 4 }).map((it) => [...Buffer.from(it)]);
    fc.assert(
      fc.property(fc.oneof(fc.array(edges, { maxLength: 6 }), text), (bytes) => {
        let valid = true;
        try {
          decoder.decode(Uint8Array.from(bytes));
        } catch {
          valid = false;
        }
        expect(validateUtf8Encoding(String.fromCharCode(...bytes))).toBe(!valid);
      }),
      { numRuns: 5_000 },
    );
  });
});

describe("ipMatch", () => {
  it.each([
    ["10.1.2.3", "192.0.2.1,10.0.0.0/8", true],
    ["11.1.2.3", "192.0.2.1,10.0.0.0/8", false],
    ["10.1.2.3", "10.9.9.9/8", true],
    ["127.0.0.1", "127.0.0.1,::1", true],
    ["::1", "127.0.0.1, ::1", true],
    ["2001:db8::7", "2001:db8::/32", true],
    ["::ffff:10.0.0.1", "10.0.0.0/8", true],
    ["unknown", "0.0.0.0/0", false],
    ["", "0.0.0.0/0", false],
  ])("%s in %s: %s", (value, argument, matches) => {
    expect(ipMatch(value, prepareIpMatch(argument))).toBe(matches);
  });

  it.each(["", "10.0.0", "10.0.0.0/33", "10.0.0.0/8/9", "example.com", "::1/129"])("refuses %j", (argument) => {
    expect(() => prepareIpMatch(argument)).toThrow(/is no IP address or range: write/);
  });
});
