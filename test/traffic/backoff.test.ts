import fc from "fast-check";
import { describe, expect, it, onTestFinished } from "vitest";
import { backoffBefore, parseRetryAfter } from "../../src/traffic/backoff.ts";

it("waits anything up to a time that doubles, and no longer than the longest", () => {
  const longest = (retry: number) => backoffBefore(retry, { base: 25, max: 250 }, () => 1);
  expect([1, 2, 3, 4, 5, 6, 60].map(longest)).toEqual([25, 50, 100, 200, 250, 250, 250]);
  expect(backoffBefore(3, { base: 25, max: 250 }, () => 0.25)).toBe(25);
  expect(backoffBefore(3, { base: 25, max: 250 }, () => 0)).toBe(0);
  expect(backoffBefore(3, { minimum: 40, base: 25, max: 250 }, () => 0)).toBe(40);
  expect(backoffBefore(3, { minimum: 40, base: 25, max: 250 }, () => 0.25)).toBe(65);
});

describe("Retry-After", () => {
  const now = Date.UTC(1994, 10, 6, 8, 49, 7);
  it.each([
    ["120", 120_000],
    [" 0 ", 0],
    // The three forms of RFC 9110, 5.6.7.
    ["Sun, 06 Nov 1994 08:49:37 GMT", 30_000],
    ["Sunday, 06-Nov-94 08:49:37 GMT", 30_000],
    ["Sun Nov  6 08:49:37 1994", 30_000],
    ["Sun, 06 Nov 1994 08:49:00 GMT", 0],
    ["", undefined],
    ["soon", undefined],
    ["-5", undefined],
    ["1.5", undefined],
    ["1994-11-06", undefined],
    ["99999999999", 99_999_999_999_000],
    ["9".repeat(400), Number.MAX_SAFE_INTEGER],
    ["Sun, 99 Nov 1994 08:49:37 GMT", undefined],
    [null, undefined],
  ])("%j is %j ms", (value, expected) => {
    expect(parseRetryAfter(value, now)).toBe(expected);
  });

  it("is in UTC, wherever this runs", () => {
    const { TZ } = process.env;
    process.env.TZ = "Asia/Tokyo";
    onTestFinished(() => {
      if (TZ === undefined) delete process.env.TZ;
      else process.env.TZ = TZ;
    });
    expect(new Date(now).getTimezoneOffset()).toBe(-540);
    expect(parseRetryAfter("Sun Nov  6 08:49:37 1994", now)).toBe(30_000);
  });

  it("is no time at all or one that can be waited, whatever is sent", () => {
    const value = fc.oneof(
      fc.string(),
      fc.date({ noInvalidDate: true }).map((date) => date.toUTCString()),
    );
    fc.assert(
      fc.property(value, (text) => {
        const wait = parseRetryAfter(text, now) ?? 0;
        expect(wait >= 0 && Number.isFinite(wait)).toBe(true);
      }),
    );
  });
});
