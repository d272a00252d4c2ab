/** What becomes of one request. */
import type { Command } from "commander";
import { configOption, groups, headerLine, jsonOption, pair, routesOption } from "./options.ts";

type Work = Pick<typeof import("../explain/command.ts"), "explainCommand">;

/** `work`: what it does, where that is there already (explain-alone.ts). */
export function addCommands(program: Command, work: () => Promise<Work> = () => import("../explain/command.ts")): void {
  program
    .command("explain")
    .description("what the gateway would do with a request, and why; asks nobody")
    .argument("<method>", "GET, POST, ...")
    .argument("<url>", "https://host/path?query, or a path alone for the routes' first host")
    .option("-H, --header <header>", 'a header of the request, "name: value"; again for each', headerLine)
    .option("-d, --data <text>", "the request's body")
    .option("--as <consumer>", "take a good credential of this consumer for granted")
    .option("--scope <scopes>", "what that credential may, separated by blanks")
    .option("--sub <subject>", "the subject of that credential (default: the consumer's name)")
    .option("--claim <name=value>", "a claim of it, JSON or text; again for each", pair)
    .option("--group <group>", "a group of a consumer that the routes do not declare; again for each", groups)
    .option("--plan <name>", "the plan of a consumer that the routes do not declare")
    .option(
      "--client <address>",
      "the client's address (default: 203.0.113.7, or with --live what the gateway there takes it for)",
    )
    .option("--cf <name=value>", "what Cloudflare tells of the request, such as country=DE; again for each", pair)
    .option("--online", "ask issuers for their keys, as the edge does")
    .option("--live <url>", "send the request to a gateway that runs there, and show where it decides otherwise")
    .option("--secret-env <name>", "the environment variable that has its debug secret", "DEBUG_KEY")
    .option("--send", "with --live: also send what may change something")
    .option("--table <file>", "a table.json, in place of the routes")
    .option("-v, --verbose", "also what each policy changes in headers")
    .option(...routesOption)
    .option(...configOption)
    .option(...jsonOption)
    .action(async (method: string, url: string, options) => {
      const { explainCommand } = await work();
      process.exitCode = await explainCommand(method, url, options);
    });
}
