/** What becomes of the requests in a log. */
import { type Command, Option } from "commander";
import { jsonOption, routesOption } from "./options.ts";

export function addCommands(program: Command): void {
  program
    .command("replay")
    .description("which requests of a log two versions of the routes treat otherwise")
    .argument(
      "<logs...>",
      "decision records, combined logs of nginx or ingress-nginx (.gz and .zst too), HAR; - for standard input",
    )
    .requiredOption("--old <source>", "routes, a table.json, a folder with one, or a git revision")
    .option("--new <source>", "the same (default: the routes as they are now)")
    .option("--host <name>", "of lines that tell no host (default: the first host of the new routes)")
    .addOption(
      new Option("--fail-on <what>", "end with 1 when any request is changed, or is let through with less").choices([
        "changed",
        "weakened",
      ]),
    )
    .option(...routesOption)
    .option(...jsonOption)
    .action(async (logs: string[], options) => {
      const { replayCommand } = await import("../replay/command.ts");
      process.exitCode = await replayCommand(logs, options);
    });
}
