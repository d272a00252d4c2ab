import { check } from "recheck";
import { describe, expect, test } from "vitest";
import { filterRules } from "../../src/build/filter-pack.ts";
import { asMarkup, asShell, asSql } from "../../src/waf/transforms/readings.ts";

// Seeds of the automaton analysis only, without breeding them further: finds every super-linear pattern that the full search found
// while these rules were written, in a tenth of its time. The timeout is recheck's own, wide enough for a busy machine.
const SEARCH = {
  timeout: 60_000,
  maxIteration: 0,
  maxInitialGenerationSize: 200,
  attackTimeout: 5_000,
  incubationTimeout: 1_000,
};

describe("patterns take linear time", () => {
  // As the pack has them, which is what V8 runs.
  const { rules, operators } = filterRules();
  const patterns = rules.map(({ message, links }) => [String(message), operators[links[0]?.operator ?? -1]] as const);
  test.each(patterns)("%s", { timeout: 90_000 }, async (_, operator) => {
    if (operator?.op !== "rx-backtracking") throw new Error("no regex for V8");
    expect(operator.window).toBe(0);
    const { status, ...found } = await check(operator.source, operator.flags, SEARCH);
    expect(status, JSON.stringify(found)).toBe("safe");
  });

  test("as opposed to these", async () => {
    for (const pattern of [/\s+x/, /<[a-z][^<>]*on[a-z]+ ?=/, /(?:a|b|ab)+c/, /[=(] ?\(+ ?select/]) {
      expect((await check(pattern.source, pattern.flags, SEARCH)).status).toBe("vulnerable");
    }
  });
});

// For half a megabyte linear work is 10 to 40 ms; n² would be minutes, or 15 s where each step is one of memchr.
test.each(Object.entries({ asSql, asMarkup, asShell }))("reading %s takes linear time", (_, read) => {
  for (const pump of [
    "/*",
    "/**/",
    "/*!",
    "*/",
    "--",
    "#",
    "# ",
    "-- \n",
    "  ",
    "\t\n",
    "&#",
    "&#x0",
    "&lt",
    "\\",
    "\\x",
    "$",
    "${",
    "${ifs",
    "'",
    "\xc3\xa9\xa0",
    "\xe2\x80",
    "\xe3\x80\x80\xe3",
  ]) {
    const text = pump.repeat(2 ** 19 / pump.length);
    const started = performance.now();
    read(text);
    expect(performance.now() - started, JSON.stringify(pump)).toBeLessThan(1_000);
  }
});
