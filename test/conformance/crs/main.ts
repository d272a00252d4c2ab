/** `npm run crs`. Exit codes: 0 as many stages passed as `--least` asks, 1 fewer did, 2 wrong usage. */
import { resolve } from "node:path";
import { Command, InvalidArgumentError } from "commander";
import { Progress } from "../../../bench/progress.ts";
import { jsonReport, plainReport, scoreOf } from "./report.ts";
import { runSuite } from "./suite.ts";
import { escaped } from "./wire.ts";

const options = new Command("npm run crs --")
  .description("A rule set's own tests (go-ftw), over the wire through the gateway in workerd; none is left out")
  .requiredOption("--rules <dir>", "a checkout of the Core Rule Set, or a folder of rules")
  .requiredOption("--tests <dir>", "its tests: a folder of go-ftw's YAML files, or one of them")
  .option("--direct", "call the compiled engine with the parsed requests, without a gateway")
  .option(
    "--verbatim",
    'send < > " in request targets as they are, which workerd refuses before the Worker (default: escaped)',
  )
  .option("--only <names...>", "some of the stages, by their names or parts of them: 942100, 920100-2")
  .option("--least <percent>", "exit with 1 when fewer stages pass", percent, 99)
  .option("--json", "print JSON: { passed, total, failures }")
  .showHelpAfterError("(--help shows what is possible)")
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2))
  .parse()
  .opts<{
    rules: string;
    tests: string;
    direct?: true;
    verbatim?: true;
    only?: string[];
    least: number;
    json?: true;
  }>();

let progress = new Progress(0);
try {
  const results = await runSuite({
    ...options,
    rules: resolve(options.rules),
    tests: resolve(options.tests),
    onStart: (stages) => {
      progress = new Progress(stages);
    },
    onStep: (name) => progress.step(name),
  });
  progress.end();
  const changed =
    options.direct || options.verbatim
      ? 0
      : results.filter(({ stage }) => escaped(stage.request) !== stage.request).length;
  if (changed > 0)
    process.stderr.write(
      `${changed} requests have < > or " in their target, and were sent with these escaped; see --verbatim\n`,
    );
  process.stdout.write(`${options.json ? JSON.stringify(jsonReport(results), null, 2) : plainReport(results)}\n`);
  const { passed, total } = scoreOf(results);
  process.exitCode = (100 * passed) / total >= options.least ? 0 : 1;
} catch (error) {
  progress.end();
  process.stderr.write(`${(error as Error).message}\n`);
  process.exitCode = 2;
}

function percent(text: string): number {
  const value = Number(text);
  if (!(value >= 0 && value <= 100)) throw new InvalidArgumentError("Write a number from 0 to 100.");
  return value;
}
