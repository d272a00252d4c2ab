import fc from "fast-check";
import { expect, test } from "vitest";
import { type Item, type Member, parseDictionary, serializeMember } from "../../src/policies/structured-fields.ts";

const written = (text: string) =>
  [...(parseDictionary(text) ?? [["refused", { value: text, parameters: new Map() }] as const])].map(
    ([name, member]) => `${name}=${serializeMember(member)}`,
  );

test.each([
  // RFC 9651, 3.2, and what its grammar allows beyond.
  ['en="Applepie", da=:w4ZibGV0w6ZydGU=:', ['en="Applepie"', "da=:w4ZibGV0w6ZydGU=:"]],
  ["a=?0, b, c; foo=bar", ["a=?0", "b=?1", "c=?1;foo=bar"]],
  ["rating=1.5, feelings=(joy sadness)", ["rating=1.5", "feelings=(joy sadness)"]],
  ["a=(1 2), b=3, c=4;aa=bb, d=(5 6);valid", ["a=(1 2)", "b=3", "c=4;aa=bb", "d=(5 6);valid"]],
  ["a=1,\t b=2,   a=3", ["b=2", "a=3"]],
  [
    'sig=("@method"  "x";key="a" );created=1;keyid="k\\"\\\\"',
    ['sig=("@method" "x";key="a");created=1;keyid="k\\"\\\\"'],
  ],
  ["a=()", ["a=()"]],
  ["", []],
  ["a=-0.5;b=*tok/en:x", ["a=-0.5;b=*tok/en:x"]],
])("%s", (text, expected) => {
  expect(written(text)).toEqual(expected);
});

test.each([
  "a=1,",
  ",a=1",
  "a=1 b=2",
  "A=1",
  "a=",
  "a=(1",
  "a=(1,2)",
  'a=("x""y")',
  'a="é"',
  'a="\\n"',
  'a="x',
  "a=:%%:",
  "a=?2",
  "a=1.",
  "a=1.2345",
  "a=1234567890123456",
  "a=1;",
  "a=1;B=2",
  "a =1",
  "a\u00a0=1",
  "\ta=1",
])("refuses %j", (text) => {
  expect(parseDictionary(text)).toBeUndefined();
});

test("reads back what it writes", () => {
  const key = fc.stringMatching(/^[a-z*][a-z0-9_.*-]{0,5}$/);
  const bare = fc.oneof(
    fc.stringMatching(/^[\x20-\x7e]{0,8}$/),
    fc.integer({ min: -999_999_999_999_999, max: 999_999_999_999_999 }),
    fc.boolean(),
    fc.uint8Array({ maxLength: 8 }).map((bytes) => new Uint8Array(bytes)),
    fc.stringMatching(/^[A-Za-z*][A-Za-z0-9:/!~-]{0,5}$/).map((token) => ({ token })),
  );
  const parameters = fc
    .uniqueArray(fc.tuple(key, bare), { selector: ([name]) => name, maxLength: 3 })
    .map((all) => new Map(all));
  const item: fc.Arbitrary<Item> = fc.record({ value: bare, parameters });
  const list = fc.record({ items: fc.array(item, { maxLength: 3 }), parameters });
  const members = fc.uniqueArray(fc.tuple(key, fc.oneof(item, list) as fc.Arbitrary<Member>), {
    selector: ([name]) => name,
  });
  fc.assert(
    fc.property(members, (all) => {
      const text = all.map(([name, member]) => `${name}=${serializeMember(member)}`).join(", ");
      expect(parseDictionary(text)).toEqual(new Map(all));
    }),
  );
});

test("never throws, whatever the text", () => {
  fc.assert(fc.property(fc.string({ unit: "binary" }), (text) => void parseDictionary(text)));
  fc.assert(fc.property(fc.stringMatching(/^[ a"=;:()?,.\\1A]*$/), (text) => void parseDictionary(text)));
});
