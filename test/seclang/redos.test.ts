import { existsSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { loadRules } from "../../src/seclang/load.ts";
import { type CompiledRegex, compileRegex } from "../../src/seclang/regex.ts";
import { readRuleSet } from "../../src/seclang/rule-set.ts";
import { LinearRegex } from "../../src/waf/linear-regex.ts";
import { WindowedRegex } from "../../src/waf/windowed-regex.ts";
import { isThere } from "../real-parts.ts";

const RULES = "/usr/share/modsecurity-crs/rules";
const SIZE = 8192;
/** Milliseconds of CPU for one value of 8 KB: cubic work would take minutes, quadratic work 30 ms and more. */
const MOST = 24;

/** Bytes that the regex treats differently, one for each way. */
function representatives({ program }: CompiledRegex): string[] {
  if (!program) return ["'", "a", " ", "<", "?", "1", "="];
  const found = new Map<number, string>();
  for (let byte = 0; byte < 256; byte++) {
    const number = ((program[5 + (byte >> 1)] as number) >> (8 * (byte & 1))) & 0xff;
    if (!found.has(number)) found.set(number, String.fromCharCode(byte));
  }
  return [...found.values()];
}

/** Values that make backtracking try everything: what the regex begins with or needs, then runs of what it repeats, and no end. */
function pumps(regex: CompiledRegex, draw: (below: number) => number): string[] {
  const bytes = representatives(regex);
  const words = regex.literals.flat();
  const piece = () => (words.length > 0 && draw(2) ? words[draw(words.length)] : bytes[draw(bytes.length)]) as string;
  const values = [" ", "\n", "'", "a"].map((byte) => (words[0] ?? "") + byte.repeat(SIZE));
  for (let count = 0; count < 8; count++) values.push(piece() + (piece() + (draw(2) ? piece() : "")).repeat(SIZE));
  const alphabet = Array.from({ length: 5 }, piece);
  let mixed = "";
  while (mixed.length < SIZE) mixed += alphabet[draw(alphabet.length)];
  return [...values, mixed].map((value) => value.slice(0, SIZE));
}

const cpu = () => process.threadCpuUsage().user / 1000;

function slowest(regex: CompiledRegex, values: readonly string[]): { time: number; value: string } {
  const runs = regex.program
    ? new LinearRegex(regex.program)
    : new WindowedRegex(regex.source, regex.flags, regex.window ?? 0, regex.groupsInV8);
  let worst = { time: 0, value: "" };
  for (const value of values) {
    // The clock of a thread ticks every 4 ms, and a busy machine adds some: what is really slow is so again.
    let time = Infinity;
    for (let turn = 0; turn < 3 && time > MOST / 2; turn++) {
      const started = cpu();
      runs.test(value);
      time = Math.min(time, cpu() - started);
    }
    if (time > worst.time) worst = { time, value };
  }
  return worst;
}

function drawing(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
    return (state >> 8) % below;
  };
}

describe.skipIf(!isThere("modsecurity-crs", existsSync(RULES)))("the Core Rule Set 3.3.4", () => {
  const { elements } = readRuleSet(loadRules(RULES, {}, () => {}).directives, () => {});
  const patterns = new Set(
    elements.flatMap((element) =>
      element.kind === "rule"
        ? element.links.flatMap(({ operator }) => (operator?.name === "rx" ? [String(operator.argument)] : []))
        : [],
    ),
  );

  test("has the regexes that are asked here", () => {
    expect(patterns.size).toBeGreaterThan(200);
  });

  test("nothing makes any of its regexes slow", { timeout: 120_000 }, () => {
    const draw = drawing(20261128);
    const slow: string[] = [];
    for (const pattern of patterns) {
      const regex = compileRegex(pattern);
      const { time, value } = slowest(regex, pumps(regex, draw));
      if (time > MOST)
        slow.push(`${time.toFixed(1)} ms: ${pattern.slice(0, 80)} on ${JSON.stringify(value.slice(0, 40))}`);
    }
    expect(slow).toEqual([]);
  });
});

describe("regexes that V8 would not end on", () => {
  test.each([
    "(a+)+$",
    "(a|a)*b",
    String.raw`\s*\s*\s*x`,
    String.raw`<script[^>]*>[\s\S]*?</script`,
    "(.*,){20}x",
    "(x+x+)+y",
    "(?:a?){40}a{40}",
  ])("%s takes linear time", (pattern) => {
    const regex = compileRegex(pattern);
    for (const pump of ["a", " ", "x", ",", "<script"]) {
      const { time } = slowest(regex, [pump.repeat(SIZE)]);
      expect(time, pump).toBeLessThan(MOST);
    }
  });

  test.each(["(?=a*b)c", String.raw`\b(\w+)\s*=\s*\1\b`, "(?<!a)a+$"])("%s, which only V8 can run, too", (pattern) => {
    const regex = compileRegex(pattern);
    expect(regex.engine).toBe("v8");
    for (const pump of ["a", " "]) expect(slowest(regex, [pump.repeat(SIZE)]).time).toBeLessThan(MOST);
  });

  test.each([String.raw`(\s+)\1x`, "(?=(a+)+b)c"])("%s, which nothing can make safe, is refused", (pattern) => {
    expect(() => compileRegex(pattern)).toThrow("backtracks without bound");
  });
});
