import { expect, test } from "vitest";
import { RecentValues } from "../../src/waf/recent-values.ts";

const some = (count: number, from = 0) => Array.from({ length: count }, (_, i) => `value ${from + i}`);
const recentValues = () => new RecentValues<string>((known) => known.length);

test("what comes again stays, whatever else comes", () => {
  const recent = recentValues();
  recent.set("agent", "known");
  for (const value of some(50_000)) {
    expect(recent.get(value)).toBeUndefined();
    recent.set(value, "");
    expect(recent.get("agent")).toBe("known");
  }
});

test("what does not is forgotten: the memory is bounded, in values and in characters of them and of what is known", () => {
  const recent = recentValues();
  for (const value of some(50_000)) recent.set(value, "");
  const kept = some(50_000).filter((value) => recent.get(value) !== undefined);
  expect(kept.length).toBeGreaterThan(1_000);
  expect(kept.length).toBeLessThanOrEqual(4_096);
  const long = some(50_000).map((value) => value.padEnd(256));
  for (const value of long) recent.set(value, "");
  expect(long.filter((value) => recent.get(value) !== undefined).length).toBeLessThanOrEqual(256);
  for (const value of some(50_000)) recent.set(value, "x".repeat(240));
  expect(some(50_000).filter((value) => recent.get(value) !== undefined).length).toBeLessThanOrEqual(262);
});

test("cleared, it has none", () => {
  const recent = recentValues();
  for (const value of some(3_000)) recent.set(value, "");
  recent.clear();
  expect(some(3_000).some((value) => recent.get(value) !== undefined)).toBe(false);
});
