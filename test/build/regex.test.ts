import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { runInNewContext } from "node:vm";
import fc from "fast-check";
import { checkSync } from "recheck";
import { describe, expect, it, vi } from "vitest";
import { backtracking, isLinear } from "../../src/build/regex.ts";

// Only to count how often it is asked; it answers as ever.
vi.mock("recheck", { spy: true });

describe("backtracking", () => {
  it.each([
    /(a+)+/s,
    /(.*)*x/s,
    /\/(?:[a-z]+\s?)+/s,
    /(a|a)*b/s,
    /(x+x+)+y/s,
    /([a-z]+)+\d/i,
    /(\w+\s?)*!/s,
    /^(([a-z])+.)+[A-Z]([a-z])+$/s,
  ])("%s is refused, with a text on which it really hangs", (regex) => {
    const told = backtracking(regex) ?? "";
    const [, attack = ""] = /^backtracks: it takes exponential time on input such as (.+)$/.exec(told) ?? [];
    // recheck writes the text as an expression of JavaScript.
    const match = `new RegExp(${JSON.stringify(`^(?:${regex.source})$`)}, "${regex.flags}").test(${attack})`;
    expect(() => runInNewContext(match, {}, { timeout: 50 })).toThrow("timed out");
  });

  it.each([
    [/.*a.*a.*a/, "more than linear"],
    [/[a-z-]+-[a-z-]+x/s, "more than linear"],
    [/a+a+/s, "more than linear"],
    [/\d*\d*\d*z/s, "more than linear"],
  ])("%s is refused: %s", (regex, time) => {
    expect(backtracking(regex)).toMatch(`backtracks: it takes ${time} time on input such as `);
  });

  it.each([
    /\/v1\/items\/[0-9]+/s,
    /^\/v1\/[^/]+\/[^/]+$/s,
    /\/(?<year>\d{4})-(?<month>\d{2})\/.*/s,
    /\/files\/.*\.(?:png|jpe?g|gif)/s,
    /[a-z]{2}(?:-[A-Z]{2})?/s,
    /.*Chrome.*/s,
    /Bearer .+/s,
    /v[12]|latest/i,
    /(?!internal-).*/s,
    /[\w.+-]+@example\.com/s,
    /(?:[a-z0-9]+-)*[a-z0-9]+/s,
  ])("%s passes", (regex) => {
    expect(backtracking(regex)).toBeUndefined();
  });

  it("refuses what recheck cannot read, since it proves nothing", () => {
    expect(backtracking(/(?i:a)b/)).toBe("could not be proved to be safe from backtracking");
  });

  it("refuses what is too long to be looked at", () => {
    expect(backtracking(new RegExp(`a?${"b?".repeat(600)}`))).toBe(
      "is longer than 1000 characters, too long to be proved safe from backtracking",
    );
  });

  it("looks at a regex once", () => {
    const ask = vi.mocked(checkSync);
    ask.mockClear();
    for (let i = 0; i < 100; i++) backtracking(/\/once\/(?:a|b)*/s);
    expect(ask).toHaveBeenCalledTimes(1);
  });

  it("starts no program and no thread", async () => {
    const script = `
      import { backtracking } from ${JSON.stringify(fileURLToPath(new URL("../../src/build/regex.ts", import.meta.url)))};
      console.log(backtracking(/(a+)+/), backtracking(/(?:a|b)*/));`;
    const args = ["--permission", "--allow-fs-read=*", "--input-type=module", "--eval", script];
    const { stdout } = await promisify(execFile)(process.execPath, args);
    expect(stdout).toMatch(/^backtracks: .* undefined\n$/);
  });
});

describe("isLinear", () => {
  const one = fc.constantFrom(
    "a",
    "b",
    "\\/",
    "\\.",
    "-",
    "[ab]",
    "[^/]",
    "[a-z-]",
    "[^ab]",
    "\\d",
    "\\w",
    "\\W",
    ".",
    "1",
  );
  const times = fc.constantFrom("", "", "+", "*", "{2}", "{0}", "?", "+?", "{1,3}");
  const step = fc.tuple(one, times).map((parts) => parts.join(""));
  const group = fc.tuple(fc.constantFrom("(", "(?:", "(?<n>"), fc.array(step), fc.constantFrom(")", ")+", ")?"));
  const regexes = fc
    .array(
      fc.oneof(
        { weight: 4, arbitrary: step },
        group.map(([open, steps, close]) => open + steps.join("") + close),
      ),
      { maxLength: 7 },
    )
    .filter((parts) => parts.filter((part) => part.includes("<n>")).length < 2)
    .chain((parts) => fc.constantFrom("s", "is").map((flags) => new RegExp(parts.join(""), flags)));

  it("proves nothing that is not so", () => {
    let proved = 0;
    fc.assert(
      fc.property(regexes, (regex) => {
        if (!isLinear(regex)) return;
        proved++;
        expect(checkSync(`^(?:${regex.source})$`, regex.flags).status).not.toBe("vulnerable");
      }),
      { numRuns: 300 },
    );
    expect(proved).toBeGreaterThan(30);
  });

  it.each([
    [/\/v1\/[^/]+\/(?<id>\d+)/s, true],
    [/[a-z]+-[a-z]+/s, true],
    [/a+a/s, true],
    [/.*/s, true],
    [/[a-z-]+-[a-z]+/s, false],
    [/[A-Z]+a[a-z]+/s, true],
    [/[A-Z]+a[a-z]+/is, false],
    [/a+b*a+/s, false],
    [/a+(?:b)?a+/s, false],
    [/a|b/s, false],
    [/(?=a)b/s, false],
    [/(a)\1+/s, false],
    [/a\\$/s, false],
  ])("%s: %s", (regex, linear) => {
    expect(isLinear(regex)).toBe(linear);
  });
});
