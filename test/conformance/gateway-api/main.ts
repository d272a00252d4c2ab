/** `npm run conformance`. Exit codes: 0 all cases passed, 1 one did not, 2 wrong usage. */
import { resolve } from "node:path";
import { Command } from "commander";
import { Progress } from "../../../bench/progress.ts";
import { allPassed, jsonReport, markdownReport, plainReport } from "./report.ts";
import { runSuite } from "./suite.ts";

const options = new Command("npm run conformance --")
  .description(
    "The Gateway API's conformance cases: from manifests by import and build to workerd, in front of real echo servers",
  )
  .option("--only <names...>", "some of the tests, by their names or parts of them")
  .option("--cases <dir>", "the cases, one JSON file a test (default: those in the repository)")
  .option("--manifests <dir>", "the manifests that they name (default: those in the repository)")
  .option("--keep <dir>", "leave there what was imported and built, and the gateways' logs")
  .option("--json", "print JSON")
  .option("--markdown", "print a table for docs/conformance.md")
  .showHelpAfterError("(--help shows what is possible)")
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2))
  .parse()
  .opts<{ only?: string[]; cases?: string; manifests?: string; keep?: string; json?: true; markdown?: true }>();

let progress = new Progress(0);
try {
  const results = await runSuite({
    ...options,
    ...(options.keep !== undefined && { keep: resolve(options.keep) }),
    onStart: (steps) => {
      progress = new Progress(steps);
    },
    onStep: (what) => progress.step(what),
  });
  progress.end();
  const text = options.json
    ? JSON.stringify(jsonReport(results), null, 2)
    : options.markdown
      ? markdownReport(results)
      : plainReport(results);
  process.stdout.write(`${text}\n`);
  process.exitCode = allPassed(results) ? 0 : 1;
} catch (error) {
  progress.end();
  process.stderr.write(`${(error as Error).message}\n`);
  process.exitCode = 2;
}
