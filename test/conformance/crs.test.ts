/**
 * The Core Rule Set's own tests for 3.3.4, with Debian's rules, over the wire; `npm run crs` runs the same and tells more. What fails is
 * what never reaches the rules: HTTP that workerd or the gateway refuses, or hands on in another form.
 */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { CRS_RULES, isThere } from "../real-parts.ts";
import { scoreOf } from "./crs/report.ts";
import { runSuite } from "./crs/suite.ts";

/** The tests are beside the repository: no package has them. */
const TESTS = fileURLToPath(new URL("../../../shared/crs", import.meta.url));

const REFUSED = {
  "by workerd: methods that it does not know": ["911100-5", "911100-7", "920100-10", "920100-14"],
  "by workerd: CONNECT, with 500": ["920100-4", "920100-5", "920100-6"],
  "by workerd: no Host, another version, a target without a slash": [
    "920280-1",
    "920430-5",
    "920430-8",
    "933160-21",
    "942500-1",
  ],
  "by the gateway: control characters and no UTF-8 in paths": [
    "920272-5",
    "921190-1",
    "921190-2",
    "921190-3",
    "921190-4",
  ],
};
const CHANGED = {
  "a fragment is gone": ["920100-8"],
  "headers without a value are gone": ["920310-1", "920310-4", "920311-1", "920330-1"],
  "lines that end in LF are read": ["932100-3"],
};

const present = isThere("modsecurity-crs in /usr/share", existsSync(CRS_RULES)) && existsSync(TESTS);
if (!present) console.warn("skipped: there is no modsecurity-crs in /usr/share, or no ../shared/crs");

describe.skipIf(!present)("the Core Rule Set 3.3.4", () => {
  it("passes 99 % of its own tests over the wire, and fails no others than the known ones", {
    timeout: 120_000,
  }, async () => {
    const results = await runSuite({ rules: CRS_RULES, tests: TESTS });
    const failed = results.flatMap(({ stage, fault }) => (fault === undefined ? [] : [`${stage.name}: ${fault}`]));
    const known = new Set(Object.values({ ...REFUSED, ...CHANGED }).flat());
    expect(failed.filter((line) => !known.has(line.slice(0, line.indexOf(":"))))).toEqual([]);
    const { passed, total } = scoreOf(results);
    expect(total).toBe(2403);
    expect(passed / total).toBeGreaterThanOrEqual(0.99);
  });
});
