import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { compileRoutes } from "../../src/build/compile.ts";
import { ProgressBar, watched } from "../../src/build/progress.ts";

const { isTTY } = process.stderr;
let written = "";

beforeEach(() => {
  written = "";
  vi.useFakeTimers({ toFake: ["performance"] });
  process.stderr.isTTY = true;
  vi.spyOn(process.stderr, "write").mockImplementation((text) => {
    written += text;
    return true;
  });
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
  process.stderr.isTTY = isTTY;
});

it("is drawn from the third second on, on a terminal alone, and is gone at the end", () => {
  const bar = new ProgressBar();
  bar.step("proving", 0, 2_000);
  expect(written).toBe("");
  vi.advanceTimersByTime(2_000);
  process.stderr.isTTY = false;
  bar.step("proving", 500, 2_000);
  expect(written).toBe("");
  process.stderr.isTTY = true;
  bar.step("proving", 1_000, 2_000);
  expect(written).toBe(`\r\x1b[K${"█".repeat(15)}${"░".repeat(15)} 50 % proving, 1,000 of 2,000`);
  written = "";
  bar.end();
  expect(written).toBe("\r\x1b[K");
});

it("goes also where the work fails", async () => {
  const failing = watched(async (step) => {
    vi.advanceTimersByTime(2_000);
    step("proving", 1, 2);
    throw new Error("failed");
  });
  await expect(failing).rejects.toThrow("failed");
  expect(written.endsWith("\r\x1b[K")).toBe(true);
});

it("is told of every stage of a compilation", async () => {
  const stages = new Map<string, number>();
  await compileRoutes({
    routes: "routes",
    notes: true,
    step(what, done, total) {
      expect(done).toBeLessThan(total);
      stages.set(what, (stages.get(what) ?? 0) + 1);
    },
  });
  expect([...stages.keys()]).toEqual([
    "checking APIs",
    "planning routes",
    "looking for what nothing reaches",
    "looking for what only names part",
    "looking for hosts that are lost",
    "looking for what leaves requests to others",
    "proving invariants",
  ]);
});
