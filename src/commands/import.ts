/** Routes from Gateway API manifests. */
import { styleText } from "node:util";
import type { Command } from "commander";
import { gatewayName, jsonOption } from "./options.ts";
import { green, many, print } from "./terminal.ts";

export function addCommands(program: Command): void {
  program
    .command("import")
    .description(
      "write a routes module from Gateway API manifests, and a report on what became of each of their fields",
    )
    .argument("<manifests...>", "YAML or JSON: files, folders, or - for standard input")
    .option("--gateway <ns/name>", "the Gateway to import; needed where the manifests have several", gatewayName)
    .option(
      "--endpoints <file>",
      "how Services are reached: docs/from-gateway-api.md (default: by path, at CLUSTER_INGRESS)",
    )
    .requiredOption("--out <dir>", "the folder to write into")
    .option("--force", "write into a folder that has files already")
    .option("--strict", "end with 1 when anything was refused; what can be carried is written all the same")
    .option(...jsonOption)
    .action(async (manifests: string[], options) => {
      const [{ importManifests }, { count, summary }] = await Promise.all([
        import("../import/import.ts"),
        import("../import/report.ts"),
      ]);
      const { report, files, totals, left } = await importManifests(manifests, options);
      const refused = count(report, "refused");
      if (options.strict && refused > 0) process.exitCode = 1;
      if (options.json) {
        print(JSON.stringify({ ok: process.exitCode !== 1, ...totals, files: [...files.keys()], left, ...report }));
        return;
      }
      const colours = { refused: "red", differs: "yellow", carried: "green", ignored: "dim" } as const;
      print(summary(report, (text, verdict) => styleText(colours[verdict], text, { stream: process.stdout })));
      const { apis, listeners, clusters } = totals;
      print(
        `${green("imported")}  Gateway ${report.gateway} into ${options.out}: ${many(apis, "API")}, ${many(listeners, "listener")}, ${many(clusters, "cluster")}`,
      );
      if (left.length > 0) print(`left as they were, and not of this import: ${left.join(", ")}`);
      print(`next: npm run gateway -- check --routes ${options.out}`);
    });
}
