import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { runInNewContext } from "node:vm";
import { checkSync } from "recheck";
import { describe, expect, it, vi } from "vitest";
import { backtracking } from "../../src/build/regex.ts";

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
    /(?i:a)b/s,
    /(?i:a)(?=b)b/s,
    /\/files\/.*(?<!\.php)/s,
    /[a-z]{1,100}[0-9a-z]{1,100}/s,
  ])("%s passes", (regex) => {
    expect(backtracking(regex)).toBeUndefined();
  });

  it.each([
    /(?i:(a))\1/,
    // recheck calls it safe; it takes V8 seconds.
    /()\1(?:a|a){25}b/s,
  ])("%s is refused: it cannot be counted", (regex) => {
    expect(backtracking(regex)).toBe("could not be proved to be safe from backtracking");
  });

  it.each([
    [/(?:a|a){25}b/s, 'more than 250 ways through values that begin with "aaaaaaa"'],
    [/(?=a)(?:a|a){25}b/s, 'more than 250 ways through values that begin with "aaaaaaa"'],
    [/a{101}(?:a|a){25}b/s, `more than 250 ways through values that begin with "${"a".repeat(100)}"...`],
    // Half a second for a URL of 8 KB.
    [/.*(?:a|a){11}b/s, 'more than 250 ways through values that begin with "aaaaaa"'],
  ])("%s is refused: it ends, but only after seconds, which recheck takes for safe", (regex, ways) => {
    const { status } = checkSync(`^(?:${regex.source})$`, regex.flags, { timeout: 60_000 });
    expect(status).toBe("safe");
    expect(backtracking(regex)).toBe(`backtracks: there are ${ways}`);
  });

  it("asks recheck only for texts on which others hang", () => {
    const ask = vi.mocked(checkSync);
    ask.mockClear();
    for (let i = 0; i < 200; i++) backtracking(new RegExp(`\\/s${i}\\/[a-z]+\\/(?:x|y)`, "s"));
    expect(ask).not.toHaveBeenCalled();
  });

  it("refuses what is too long to be looked at", () => {
    expect(backtracking(new RegExp(`a?${"b?".repeat(600)}`))).toBe(
      "is longer than 1000 characters, too long to be proved safe from backtracking",
    );
  });

  it("looks at a regex once", () => {
    const ask = vi.mocked(checkSync);
    ask.mockClear();
    for (let i = 0; i < 100; i++) backtracking(/\/once\/(a)\1(?:a|b)*/s);
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
