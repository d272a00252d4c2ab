/** The gateway on this machine. */
import { type Command, Option } from "commander";
import { port, routesOption } from "./options.ts";

export function addCommands(program: Command): void {
  program
    .command("dev")
    .description("run the gateway on this machine, in front of two demo clusters, and follow the routes as they change")
    .option(...routesOption)
    .option("--port <port>", "where the gateway listens", port, 8787)
    .addOption(
      new Option("--redis <kind>", "embedded, or real for the redis-server on the PATH")
        .choices(["embedded", "real"])
        .default("embedded"),
    )
    .option("--json", "print the decision records as JSON lines")
    .action(async (options) => {
      const { runStand } = await import("../dev/stand.ts");
      await runStand(options);
    });
}
