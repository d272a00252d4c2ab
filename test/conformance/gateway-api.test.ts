/** The Gateway API's conformance cases, each a test of its own. `npm run conformance` runs the same and tells more. */
import { beforeAll, describe, expect, it } from "vitest";
import { runSuite, type TestResult, testsOf } from "./gateway-api/suite.ts";

let results: readonly TestResult[] = [];
beforeAll(async () => {
  results = await runSuite();
}, 300_000);

for (const [i, test] of testsOf({}).entries()) {
  describe(test.name, () => {
    for (const [j, { name }] of test.cases.entries()) {
      it(name, () => {
        const result = results[i]?.cases[j];
        expect(result?.case.name).toBe(name);
        expect(result?.fault).toBeUndefined();
      });
    }
  });
}
