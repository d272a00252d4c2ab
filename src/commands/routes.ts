/** From a routes module to a table, a Worker and a deployment, and what is true of them. */
import { resolve } from "node:path";
import type { Command } from "commander";
import { configOption, failures, jsonOption, routesOption } from "./options.ts";
import { green, print, warn } from "./terminal.ts";

export function addCommands(program: Command): void {
  program
    .command("check")
    .description("compile the routes and tell everything that is wrong with them")
    .option(...routesOption)
    .option(...configOption)
    .option(...jsonOption)
    .action(async (options) => {
      const [{ compileRoutes }, { watched }] = await Promise.all([
        import("../build/compile.ts"),
        import("../build/progress.ts"),
      ]);
      const { table, proved: warnings } = await watched((step) => compileRoutes({ ...options, step }));
      const summary = {
        ok: true,
        table: table.id,
        routes: table.routes.length,
        clusters: Object.keys(table.clusters).length,
        policies: table.policies.length,
      };
      if (options.json) print(JSON.stringify({ ...summary, problems: [], warnings }));
      else {
        warn(warnings);
        print(
          `${green("ok")}  ${summary.routes} routes, ${summary.clusters} clusters, ${summary.policies} policies, table ${summary.table}`,
        );
      }
    });

  program
    .command("prove")
    .description(
      "tell what is true of the whole table: what is unreachable, shadowed or dead, and what a request can cost",
    )
    .option(...routesOption)
    .option(...configOption)
    .option("--route <id>", "of this route alone: api/route")
    .option(...jsonOption)
    .action(async (options) => {
      const [{ proofs, proofsText }, { watched }] = await Promise.all([
        import("../build/proofs.ts"),
        import("../build/progress.ts"),
      ]);
      const found = await watched((step) => proofs({ ...options, step }));
      print(options.json ? JSON.stringify({ ok: true, ...found }) : proofsText(found, process.stdout));
    });

  program
    .command("build")
    .description(
      "compile the routes into DIR: worker.js, one module that workerd and wrangler run as it is; table.json; sources.json",
    )
    .option(...routesOption)
    .option(...configOption)
    .requiredOption("--out <dir>", "the folder to write into")
    .option(...jsonOption)
    .action(async (options) => {
      const [{ compileRoutes }, { BUILT, emit, sizesOf }, { watched }] = await Promise.all([
        import("../build/compile.ts"),
        import("../build/emit.ts"),
        import("../build/progress.ts"),
      ]);
      // wrangler runs its [build] command in the middle of `deploy` too, which has built and measured what goes up.
      if (process.env[BUILT] === resolve(options.out)) return;
      const started = performance.now();
      const compiled = await watched((step) => compileRoutes({ ...options, step }));
      const emitted = await emit(compiled, options.out);
      const ms = Math.round(performance.now() - started);
      const { id, routes } = compiled.table;
      if (options.json) {
        const { worker, bytes, gzipBytes } = emitted;
        print(JSON.stringify({ ok: true, table: id, routes: routes.length, worker, bytes, gzipBytes, ms }));
      } else {
        warn(compiled.proved);
        print(`${green("built")}  ${sizesOf(emitted)}, ${routes.length} routes, table ${id}, ${ms} ms`);
      }
    });

  program
    .command("diff")
    .description(
      "tell what a change of the routes does: which requests are answered otherwise, and what holds them back less",
    )
    .argument("<old>", "a git revision, a table.json, a folder or a routes module")
    .argument("[new]", "the same (default: the routes as they are)")
    .option(...routesOption)
    .option(
      "--fail-on <what>",
      "end with 1 on some of these, separated by commas: weakened, added, removed, narrowed, widened, moved",
      failures,
    )
    .option("--markdown", "print Markdown, for a pull request")
    .option(...jsonOption)
    .action(async (old: string, now: string | undefined, options) => {
      const [{ diff, diffMarkdown, diffText, FAILURES }, { watched }] = await Promise.all([
        import("../build/diff.ts"),
        import("../build/progress.ts"),
      ]);
      const unknown = (options.failOn ?? []).filter((one: string) => !(FAILURES as readonly string[]).includes(one));
      if (unknown.length > 0) program.error(`error: --fail-on takes ${FAILURES.join(", ")}, not ${unknown.join(", ")}`);
      const report = await watched((step) => diff([old, now ?? options.routes], options, step));
      if (report.failed.length > 0) process.exitCode = 1;
      if (options.json) print(JSON.stringify({ ok: report.failed.length === 0, ...report }));
      else print(options.markdown ? diffMarkdown(report) : diffText(report, process.stdout));
    });

  program
    .command("deploy")
    .description("build, show what the Worker costs, and hand it to wrangler; further options are wrangler's")
    .option(...routesOption)
    .option(...configOption)
    .option("--dry-run", "do everything but upload; needs no account")
    .allowUnknownOption()
    .allowExcessArguments()
    .action(async (options, command: Command) => {
      const { deploy } = await import("../build/deploy.ts");
      process.exitCode = await deploy(options, command.args);
    });
}
