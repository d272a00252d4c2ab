import fc from "fast-check";
import { expect, test } from "vitest";
import { asBinary, binaryOf } from "../../src/policies/binary.ts";

test("a character for each byte, whichever way the runtime decodes them", () => {
  const all = Uint8Array.from({ length: 256 }, (_, byte) => byte);
  const codes = (text: string) => Array.from(text, (character) => character.charCodeAt(0));
  expect(codes(binaryOf(all))).toEqual([...all]);
  expect(binaryOf(new Uint8Array())).toBe("");
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
      expect(codes(binaryOf(bytes))).toEqual([...bytes]);
    }),
  );
  // Longer than what is made at once.
  const long = new Uint8Array(20_000).map((_, at) => at % 256);
  expect(codes(binaryOf(long))).toEqual([...long]);
});

test("text that the runtime has decoded is its bytes again, and other text stays as it is", () => {
  expect(asBinary("caf\xe9")).toBe("caf\xe9");
  expect(asBinary("€")).toBe("\xe2\x82\xac");
});
