import fc from "fast-check";
import { expect, test } from "vitest";
import { hasDuplicateMembers } from "../../src/policies/duplicate-members.ts";

test("no JSON of a value has a member twice, and every object in it that gets one again has", () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.string(), fc.string(), (value, name, other) => {
      const inner = JSON.stringify(value);
      expect(hasDuplicateMembers(inner)).toBe(false);
      const [first, second] = [JSON.stringify(name), JSON.stringify(other)];
      expect(hasDuplicateMembers(`[${inner},{${first}:${inner},${second}:${inner}}]`)).toBe(name === other);
      expect(hasDuplicateMembers(`[{${first}:${inner}},{${first}:${inner}}, ${first}, ${first}]`)).toBe(false);
    }),
  );
});

test("a name is the same in all of its spellings", () => {
  expect(hasDuplicateMembers('{"a":1,"\\u0061":2}')).toBe(true);
  expect(hasDuplicateMembers('{"\\\\":1,"\\\\\\\\":2}')).toBe(false);
  expect(hasDuplicateMembers('{ "a" : "\\"a\\":1" , "b" : { "a" : [ "a" , "a" ] } }')).toBe(false);
});
