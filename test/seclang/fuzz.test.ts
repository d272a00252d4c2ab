import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { compileRules } from "../../src/seclang/compile.ts";
import { type RuleProblem, readDirectives } from "../../src/seclang/directives.ts";
import { exclusionsOf } from "../../src/seclang/exclusions.ts";
import { readRuleSet } from "../../src/seclang/rule-set.ts";

const folder = mkdtempSync(join(tmpdir(), "portcullis-rules-"));
const file = join(folder, "a.conf");
afterAll(() => rmSync(folder, { recursive: true }));

const words = (text: string) => fc.constantFrom(...text.split(" "));
const junk = fc.oneof(
  fc.string({ maxLength: 12 }),
  fc.string({ unit: "binary", maxLength: 6 }),
  words("\\ \" ' , : ; | ! & = % @ /( %{ %{TX.a} constructor __proto__ -1 9e9 \\\n # \0 é"),
);
const regex = words("a ^a+$ ( [ a{2,1} (?=a)b (a)\\1 (?i) \\x{ff} [[:constructor:]] (a*)*b \\ (?<n>a) a|b .*");
const collection = words("ARGS TX REQUEST_HEADERS XML IP FILES NOTHING MATCHED_VARS &ARGS !ARGS REMOTE_ADDR");
const selector = fc.oneof(
  words(":a :'b|c' :/* ://@* :level :"),
  regex.map((source) => `:/${source}/`),
  fc.constant(""),
  junk,
);
const target = fc.tuple(collection, selector).map((parts) => parts.join(""));
const targets = fc
  .array(target, { minLength: 1, maxLength: 3 })
  .chain((all) => words("| ,").map((mark) => all.join(mark)));
const operator = fc.oneof(
  regex.map((source) => `@rx ${source}`),
  regex,
  fc
    .tuple(
      words(
        "@pm @pmFromFile @eq @streq !@within @ipMatch @validateByteRange @detectSQLi @rbl @constructor @ @validateUrlEncoding",
      ),
      junk,
    )
    .map((parts) => parts.join(" ")),
  fc.constant("@eq 1"),
);
const action = fc.oneof(
  words("pass deny block drop allow:phase redirect:/x log nolog capture multiMatch chain status:200 status:x"),
  words(
    "phase:1 phase:2 phase:constructor phase:9 t:none t:lowercase t:rot13 severity:CRITICAL severity:9 skipAfter:END skip:1",
  ),
  words(
    "setvar:tx.level=1 setvar:tx.a=+%{tx.level} setvar:!tx.a setvar: setvar:ip.%{tx.a}=1 initcol:ip=1 expirevar:ip.a=1 exec:x",
  ),
  fc
    .tuple(
      words("ruleRemoveById ruleRemoveByTag ruleRemoveByMsg ruleRemoveTargetById ruleEngine constructor"),
      regex,
      target,
    )
    .map(([kind, what, of]) => `ctl:${kind}=${what};${of}`),
  words("ctl:ruleRemoveById=1-3 ctl:ruleEngine=constructor ctl:requestBodyLimit=x msg:'a' msg:'a msg tag:b"),
  junk,
);
const actions = fc
  .tuple(fc.nat({ max: 6 }), fc.array(action, { maxLength: 5 }))
  .map(([id, all]) => [`id:${id}`, ...all].join(","));
const quoted = (text: string) => `"${text}"`;
const directive = fc.oneof(
  fc.tuple(targets, operator, actions).map((args) => ["SecRule", ...args.map(quoted)].join(" ")),
  actions.map((all) => `SecAction ${quoted(all)}`),
  actions.map((all) => `SecDefaultAction ${quoted(all)}`),
  fc
    .tuple(words("SecRuleUpdateTargetById SecRuleUpdateTargetByTag"), fc.oneof(words("1 1-4 x"), regex), targets)
    .map((all) => all.join(" ")),
  fc
    .tuple(
      words("SecRuleRemoveById SecRuleRemoveByTag SecRuleRemoveByMsg SecRuleUpdateActionById"),
      fc.oneof(words("1 1-4 x"), regex),
      actions,
    )
    .map(([name, what, all]) => `${name} ${what} ${quoted(all)}`),
  fc
    .tuple(
      words("SecMarker SecRuleEngine SecRequestBodyLimit SecArgumentSeparator Include Frobnicate constructor"),
      junk,
    )
    .map((all) => all.join(" ")),
  junk,
);
const texts = fc.array(directive, { maxLength: 8 }).map((all) => all.join("\n"));

describe("whatever stands in a file of rules", () => {
  const located = (problems: readonly RuleProblem[], text: string) => {
    const lines = text.split(/\r?\n/).length;
    for (const { file: where, line, message, fix } of problems) {
      expect(where.startsWith(folder), where).toBe(true);
      expect(line).toBeLessThanOrEqual(lines);
      // Line 0 is the folder's: it has no rule.
      if (line === 0) expect(message).toMatch(/^there is no rule/);
      expect(fix).not.toBe("");
    }
  };

  test("reading it ends with directives, and problems that say where", () => {
    fc.assert(
      fc.property(texts, (text) => {
        const problems: RuleProblem[] = [];
        const told = (problem: RuleProblem) => problems.push(problem);
        readRuleSet(readDirectives(text, file, told), told);
        located(problems, text);
      }),
      { numRuns: 1_000 },
    );
  });

  test("compiling it ends with a pack, and problems that say where", () => {
    fc.assert(
      fc.property(texts, fc.boolean(), target, (text, allowUnsupported, excluded) => {
        writeFileSync(file, text);
        const compiled = compileRules(folder, { allowUnsupported, messages: true, phases: [1, 2, 3, 4, 5] });
        located([...compiled.problems, ...compiled.warnings, ...compiled.notes], text);
        exclusionsOf({ rule: "1-9", target: excluded }, compiled);
      }),
      { numRuns: 250 },
    );
  });

  // Each of 256 KB, which take some 10 ms; what is quadratic takes many seconds.
  test.each<readonly [name: string, begin: string, pump: string, end: string]>([
    ["targets", 'SecRule "', "ARGS:a|", 'ARGS" "a" "id:1"'],
    ["selectors", 'SecRule "ARGS', ":/", '" "a" "id:1"'],
    ["exclusions", 'SecAction "id:1"\nSecRuleUpdateTargetById 1 "', "!ARGS:a|", '!ARGS"'],
    ["open regexes", 'SecAction "id:1"\nSecRuleUpdateTargetById 1 "', "|", '"'],
    ["actions", 'SecAction "id:1', ",tag:'a'", '"'],
    ["one action", "SecAction \"id:1,msg:'", "a", "'\""],
    ["blanks", 'SecAction "id:1', "  ", '"'],
    ["quotes", "SecAction ", '"', ""],
    ["backslashes", 'SecAction "', "\\\\", ""],
    ["lines that go on", "SecAction ", "a\\\n", ""],
    ["macros", "SecAction \"id:1,setvar:'tx.a=", "%{", "'\""],
    ["variables", 'SecAction "id:1,setvar:', "a=", '"'],
    ["ids", "SecRuleRemoveById ", "1-2,", ""],
    ["an operator", 'SecRule ARGS "', "@a ", '" "id:1"'],
    ["comments", "", "#\n", ""],
  ])("%s, repeated, take linear time", (_, begin, pump, end) => {
    const text = begin + pump.repeat(2 ** 18 / pump.length) + end;
    const started = performance.now();
    readRuleSet(
      readDirectives(text, file, () => {}),
      () => {},
    );
    expect(performance.now() - started).toBeLessThan(2_000);
  });
});
