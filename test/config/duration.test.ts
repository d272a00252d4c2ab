import fc from "fast-check";
import { expect, it } from "vitest";
import { parseDuration } from "../../src/config/duration.ts";

it.each([
  ["250ms", 250],
  ["5s", 5_000],
  ["1m30s", 90_000],
  ["1h", 3_600_000],
  ["2d12h", 216_000_000],
  ["0s", 0],
  ["1s1s", 2_000],
  // The longer unit first: not 1 minute and an s.
  ["1ms", 1],
])("%s is %i ms", (text, milliseconds) => {
  expect(parseDuration(text)).toBe(milliseconds);
});

it.each(["", "5", "s", "-5s", "1.5s", "5 s", "5S", "5s ", "1w", "1e3ms", "0x5s", "٥s", "1234567890s", "5s\n"])(
  "%j is no duration",
  (text) => {
    expect(parseDuration(text)).toBeUndefined();
  },
);

it("is the sum of its parts", () => {
  const units = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };
  const part = fc.tuple(fc.nat(999), fc.constantFrom(...(Object.keys(units) as (keyof typeof units)[])));
  fc.assert(
    fc.property(fc.array(part, { minLength: 1, maxLength: 5 }), (parts) => {
      const sum = parts.reduce((total, [amount, unit]) => total + amount * units[unit], 0);
      expect(parseDuration(parts.flat().join(""))).toBe(sum);
    }),
  );
});
