import { expect, test } from "vitest";
import { RecentValues } from "../../src/waf/recent-values.ts";

const some = (count: number, from = 0) => Array.from({ length: count }, (_, i) => `value ${from + i}`);

test("what comes again stays, whatever else comes", () => {
  const recent = new RecentValues();
  recent.add("agent");
  for (const value of some(50_000)) {
    expect(recent.has(value)).toBe(false);
    recent.add(value);
    expect(recent.has("agent")).toBe(true);
  }
});

test("what does not is forgotten: the memory is bounded, in values and in characters", () => {
  const recent = new RecentValues();
  for (const value of some(50_000)) recent.add(value);
  const kept = some(50_000).filter((value) => recent.has(value));
  expect(kept.length).toBeGreaterThan(1_000);
  expect(kept.length).toBeLessThanOrEqual(4_096);
  const long = some(50_000).map((value) => value.padEnd(256));
  for (const value of long) recent.add(value);
  expect(long.filter((value) => recent.has(value)).length).toBeLessThanOrEqual(256);
});

test("cleared, it has none", () => {
  const recent = new RecentValues();
  for (const value of some(3_000)) recent.add(value);
  recent.clear();
  expect(some(3_000).some((value) => recent.has(value))).toBe(false);
});
