/** Rules of a web application firewall. */
import { styleText } from "node:util";
import { type Command, Option } from "commander";
import type { WafTested } from "../build/waf-commands.ts";
import { jsonOption, level } from "./options.ts";
import { green, many, print } from "./terminal.ts";

export function addCommands(program: Command): void {
  const waf = program
    .command("waf")
    .description("rules of a web application firewall, such as the OWASP Core Rule Set: compile, try and tune them");
  const setupOption = ["--setup <file>", "a file in place of the folder's crs-setup.conf"] as const;
  const paranoiaOption = ["--paranoia <level>", "1 to 4: how strict (default: the setup's)", level] as const;
  const unsupportedOption = ["--allow-unsupported", "leave out what cannot be compiled, and list it"] as const;

  waf
    .command("compile")
    .description("compile a folder of rules, and tell what became of them and what cannot be compiled")
    .argument("<folder>", "a checkout of the Core Rule Set, or a folder of *.conf files")
    .option(...setupOption)
    .option(...paranoiaOption)
    .option("--response", "with the rules for answers")
    .addOption(
      new Option("--bodies <kinds...>", "only the kinds of bodies that an API reads").choices([
        "form",
        "multipart",
        "json",
        "xml",
      ]),
    )
    .option(...unsupportedOption)
    .option(...jsonOption)
    .action(async (folder: string, options) => {
      const { compileForReport, lineOf } = await import("../build/waf-commands.ts");
      const { report } = compileForReport(folder, options);
      if (!report.ok) process.exitCode = 1;
      if (options.json) return print(JSON.stringify(report));
      for (const problem of report.problems) print(lineOf(problem));
      for (const warning of report.warnings) print(`left out  ${lineOf(warning)}`);
      for (const note of report.notes) print(`note  ${lineOf(note)}`);
      if (!report.ok) return;
      const { rules, regexes, words, bytes, gzipBytes, pruned } = report;
      print(
        `${green("compiled")}  ${rules.compiled} of ${rules.read} rules (${rules.decided} decided by the configuration, ${pruned.length} for other bodies), ` +
          `${regexes.linear + regexes.windowed} regexes, ${words} words, ${(bytes / 1000).toFixed(1)} kB, ${(gzipBytes / 1000).toFixed(1)} kB gzip`,
      );
      if (pruned.length > 0) print(`gone with --bodies ${options.bodies.join(" ")}: ${pruned.join(", ")}`);
    });

  waf
    .command("test")
    .description("tell which rules match a request, on what, and what it scores; ends with 1 when they refuse it")
    .argument(
      "<request>",
      "a file with the request as it goes over the wire, - for standard input, or a target such as /?q=1",
    )
    .option("--rules <folder>", "the folder of rules (default: those of the policy filter)")
    .option(...setupOption)
    .option(...paranoiaOption)
    .option(...unsupportedOption)
    .option(...jsonOption)
    .action(async (request: string, options) => {
      const { compileForReport, lineOf, parsedRequest, requestText, testRequest } = await import(
        "../build/waf-commands.ts"
      );
      const { rules, setup, paranoia, allowUnsupported } = options;
      if (rules === undefined && (setup ?? paranoia ?? allowUnsupported) !== undefined)
        program.error(
          "error: --setup, --paranoia and --allow-unsupported are about a folder of rules: name it with --rules",
        );
      const parsed = parsedRequest(requestText(request));
      let tested: WafTested;
      if (rules === undefined) {
        tested = (await import("../build/filter-commands.ts")).testByFilter(parsed);
      } else {
        const { report, compiled } = compileForReport(rules, { ...options, messages: true });
        if (!report.ok) {
          for (const problem of report.problems) process.stderr.write(`${lineOf(problem)}\n`);
          process.exitCode = 1;
          return;
        }
        tested = testRequest(compiled, parsed);
      }
      if (tested.refused) process.exitCode = 1;
      if (options.json) return print(JSON.stringify(tested));
      for (const { id, message, on } of tested.rules) {
        print(`${id}  ${message}`);
        for (const { name, value } of on)
          print(`        ${name}${value === undefined ? "" : `  ${JSON.stringify(value.slice(0, 120))}`}`);
      }
      const verdict = tested.refused ? styleText("red", "refused", { stream: process.stdout }) : green("passes");
      print(`${verdict}  score ${tested.score}, ${many(tested.rules.length, "rule")}`);
    });

  waf
    .command("tune")
    .description("propose what to leave out, as code for routes/, so that the requests in decision records would pass")
    .argument("<log>", "decision records of a waf or a filter in report mode, one JSON a line, or - for standard input")
    .option(...jsonOption)
    .action(async (log: string, options) => {
      const { exclusionCode, proposals, textOf } = await import("../build/waf-commands.ts");
      const found = proposals(textOf(log));
      if (options.json) return print(JSON.stringify(found));
      if (found.proposals.length === 0)
        return print("no record tells of a request that a waf or a filter would refuse");
      print(`// of ${many(found.records, "request")} that would be refused. Leave out only what was no attack.`);
      print(exclusionCode(found.proposals));
    });
}
