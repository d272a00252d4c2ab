/** `npm run gateway -- <command>`. Exit codes: 0 done, 1 the configuration or the deployment was refused, 2 wrong usage. */
import { resolve } from "node:path";
import { styleText } from "node:util";
import { Command, InvalidArgumentError, Option } from "commander";
import { ConfigurationRefused, formatProblem, type Problem } from "./build/problem.ts";
import type { WafTested } from "./build/waf-commands.ts";
import { parseDuration } from "./config/duration.ts";

const program = new Command("gateway")
  .description("Portcullis: an API gateway on Workers, from a routes/ module")
  .showHelpAfterError("(--help shows what is possible)")
  .showSuggestionAfterError()
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2));

const routesOption = ["--routes <path>", "the routes module: a file, or a folder with an index.ts", "routes"] as const;
const configOption = ["--config <file>", "wrangler's configuration (default: the one beside the routes)"] as const;
const jsonOption = ["--json", "print JSON, for scripts"] as const;

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
    const { runStand } = await import("./dev/stand.ts");
    await runStand(options);
  });

program
  .command("check")
  .description("compile the routes and tell everything that is wrong with them")
  .option(...routesOption)
  .option(...configOption)
  .option(...jsonOption)
  .action(async (options) => {
    const { compileRoutes } = await import("./build/compile.ts");
    const { table, proved: warnings } = await compileRoutes(options);
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
    const { proofs, proofsText } = await import("./build/proofs.ts");
    const found = await proofs(options);
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
    const [{ compileRoutes }, { BUILT, emit, sizesOf }] = await Promise.all([
      import("./build/compile.ts"),
      import("./build/emit.ts"),
    ]);
    // wrangler runs its [build] command in the middle of `deploy` too, which has built and measured what goes up.
    if (process.env[BUILT] === resolve(options.out)) return;
    const started = performance.now();
    const compiled = await compileRoutes(options);
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
    const { diff, diffMarkdown, diffText, FAILURES } = await import("./build/diff.ts");
    const unknown = (options.failOn ?? []).filter((one: string) => !(FAILURES as readonly string[]).includes(one));
    if (unknown.length > 0) program.error(`error: --fail-on takes ${FAILURES.join(", ")}, not ${unknown.join(", ")}`);
    const report = await diff([old, now ?? options.routes], options);
    if (report.failed.length > 0) process.exitCode = 1;
    if (options.json) print(JSON.stringify({ ok: report.failed.length === 0, ...report }));
    else print(options.markdown ? diffMarkdown(report) : diffText(report, process.stdout));
  });

program
  .command("import")
  .description("write a routes module from Gateway API manifests, and a report on what became of each of their fields")
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
      import("./import/import.ts"),
      import("./import/report.ts"),
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
    const { compileForReport, lineOf } = await import("./build/waf-commands.ts");
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
      "./build/waf-commands.ts"
    );
    const { rules, setup, paranoia, allowUnsupported } = options;
    if (rules === undefined && (setup ?? paranoia ?? allowUnsupported) !== undefined)
      program.error(
        "error: --setup, --paranoia and --allow-unsupported are about a folder of rules: name it with --rules",
      );
    const parsed = parsedRequest(requestText(request));
    let tested: WafTested;
    if (rules === undefined) {
      tested = (await import("./build/filter-commands.ts")).testByFilter(parsed);
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
    const { exclusionCode, proposals, textOf } = await import("./build/waf-commands.ts");
    const found = proposals(textOf(log));
    if (options.json) return print(JSON.stringify(found));
    if (found.proposals.length === 0) return print("no record tells of a request that a waf or a filter would refuse");
    print(`// of ${many(found.records, "request")} that would be refused. Leave out only what was no attack.`);
    print(exclusionCode(found.proposals));
  });

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
    const { explainCommand } = await import("./explain/command.ts");
    process.exitCode = await explainCommand(method, url, options);
  });

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
    const { replayCommand } = await import("./replay/command.ts");
    process.exitCode = await replayCommand(logs, options);
  });

program
  .command("token")
  .description("print a token that the demo accepts")
  .requiredOption("--sub <subject>", "who the token is about", subject)
  .option("--scope <scopes>", "scopes, separated by blanks", "")
  .option("--client <id>", "the client_id claim: storefront and warehouse are declared consumers", "storefront")
  .option("--expires <duration>", "how long it is valid", duration, "1h")
  .option("--claim <name=value...>", "more claims; values are JSON or text", claims)
  .action(async (options) => {
    const { tokenForDemo } = await import("./dev/issuer.ts");
    print(await tokenForDemo(options));
  });

const keys = program.command("keys").description("API keys: make, list, rotate and revoke them in the gateway's store");
const prefixOption = ["--prefix <prefix>", "where routes take keys of several prefixes: which one"] as const;

keys
  .command("create")
  .description("make a key and print it, this once; nothing keeps it")
  .requiredOption("--consumer <name>", "whose key it is", consumer)
  .option("--scope <scopes>", "scopes, separated by blanks", "")
  .option("--group <group...>", "groups of a consumer that the routes do not declare", groups)
  .option("--plan <name>", "the plan of a consumer that the routes do not declare")
  .option("--expires <duration>", "how long it is good (default: until it is revoked)", duration)
  .option(...prefixOption)
  .option(...routesOption)
  .option(...configOption)
  .option(...jsonOption)
  .action(async (options) => tell((await keyCommands()).createCommand(options)));

keys
  .command("list")
  .description("the keys that are live")
  .option("--consumer <name>", "of this one alone")
  .option("--all", "also those that were revoked or have expired, for 90 days")
  .option(...routesOption)
  .option(...configOption)
  .option(...jsonOption)
  .action(async (options) => tell((await keyCommands()).listCommand(options)));

keys
  .command("rotate")
  .description("make a new key for whom the one with this id is for, which goes on for a while")
  .argument("<id>")
  .option("--overlap <duration>", "how long the old one goes on; 0s: it is revoked", duration, "1d")
  .option(...prefixOption)
  .option(...routesOption)
  .option(...configOption)
  .option(...jsonOption)
  .action(async (id, options) => tell((await keyCommands()).rotateCommand(id, options)));

keys
  .command("revoke")
  .description("take the key with this id back")
  .argument("<id>", "- for the key itself on stdin, such as one that was found where it should not be")
  .option(...routesOption)
  .option(...configOption)
  .option(...jsonOption)
  .action(async (id, options) => tell((await keyCommands()).revokeCommand(id, options, process.stdin)));

const users = program
  .command("users")
  .description("names and passwords for the policy basic; passwords come over stdin");

users
  .command("hash")
  .description('print the hash of the password on stdin, for a secret: printf %s "$PASSWORD" | ... users hash')
  .action(async () => tell((await userCommands()).hashCommand(process.stdin)));

users
  .command("set")
  .description("give a user in the gateway's store the password on stdin")
  .argument("<name>")
  .option("--consumer <name>", "whose user it is", consumer)
  .option("--scope <scopes>", "scopes, separated by blanks", "")
  .option(...routesOption)
  .option(...configOption)
  .option(...jsonOption)
  .action(async (name, options) => tell((await userCommands()).setCommand(name, options, process.stdin)));

users
  .command("list")
  .description("the users in the gateway's store")
  .option(...routesOption)
  .option(...configOption)
  .option(...jsonOption)
  .action(async (options) => tell((await userCommands()).listCommand(options)));

users
  .command("remove")
  .description("take a user out of the gateway's store")
  .argument("<name>")
  .option(...routesOption)
  .option(...configOption)
  .option(...jsonOption)
  .action(async (name, options) => tell((await userCommands()).removeCommand(name, options)));

program
  .command("consumers")
  .description("who is known: declared in the routes, or by API keys alone")
  .option(...routesOption)
  .option(...configOption)
  .option(...jsonOption)
  .action(async (options) => tell((await keyCommands()).consumersCommand(options)));

program
  .command("deploy")
  .description("build, show what the Worker costs, and hand it to wrangler; further options are wrangler's")
  .option(...routesOption)
  .option(...configOption)
  .option("--dry-run", "do everything but upload; needs no account")
  .allowUnknownOption()
  .allowExcessArguments()
  .action(async (options, command: Command) => {
    const { deploy } = await import("./build/deploy.ts");
    process.exitCode = await deploy(options, command.args);
  });

try {
  await program.parseAsync();
} catch (error) {
  fail(error);
}

function fail(error: unknown): void {
  const wantsJson = process.argv.includes("--json");
  if (error instanceof ConfigurationRefused) {
    if (wantsJson) print(JSON.stringify({ ok: false, problems: error.problems }));
    else {
      for (const problem of error.problems) console.error(formatProblem(problem));
      const count = error.problems.length;
      console.error(red(`${count} problem${count === 1 ? "" : "s"}; nothing was changed`));
    }
    process.exitCode = 1;
  } else {
    const message = error instanceof Error ? error.message : String(error);
    if (wantsJson) print(JSON.stringify({ ok: false, error: message }));
    else console.error(`${red("failed")}  ${message}`);
    process.exitCode = 1;
  }
}

function warn(warnings: readonly Problem[]): void {
  for (const warning of warnings) console.error(`${yellow("warning")}  ${formatProblem(warning)}`);
}

function keyCommands() {
  return import("./admin/key-commands.ts");
}

function userCommands() {
  return import("./admin/users.ts");
}

async function tell(output: Promise<{ readonly out: string; readonly remark?: string }>): Promise<void> {
  const { out, remark } = await output;
  print(out);
  if (remark !== undefined) console.error(remark);
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

function many(count: number, name: string): string {
  return `${count} ${name}${count === 1 ? "" : "s"}`;
}

function green(text: string): string {
  return styleText("green", text, { stream: process.stdout });
}

function yellow(text: string): string {
  return styleText("yellow", text, { stream: process.stderr });
}

function red(text: string): string {
  return styleText("red", text, { stream: process.stderr });
}

function failures(text: string): string[] {
  return text.split(",").map((one) => one.trim());
}

function duration(text: string): string {
  if (parseDuration(text) === undefined)
    throw new InvalidArgumentError("A duration is written as 90s, 15m, 1h30m or 7d.");
  return text;
}

function headerLine(text: string, others: readonly string[] = []): readonly string[] {
  if (!/^[\w!#$%&'*+.^`|~-]+:/.test(text)) throw new InvalidArgumentError('A header is written as "name: value".');
  return [...others, text];
}

function pair(text: string, others: readonly string[] = []): readonly string[] {
  if (!/^[^=]+=/.test(text)) throw new InvalidArgumentError("It is written as name=value.");
  return [...others, text];
}

function claims(text: string, others: readonly string[] = []): readonly string[] {
  if (!/^[^=]+=/.test(text)) throw new InvalidArgumentError("A claim is written as name=value.");
  return [...others, text];
}

function consumer(text: string): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(text))
    throw new InvalidArgumentError("A consumer's name has letters, digits, - . _; 63 at most.");
  return text;
}

function groups(text: string, others: readonly string[] = []): readonly string[] {
  if (!/^[\x21-\x24\x26-\x2b\x2d-\x7e]{1,64}$/.test(text))
    throw new InvalidArgumentError("A group has 1 to 64 visible characters without commas and %.");
  return [...others, text];
}

function subject(text: string): string {
  if (text === "") throw new InvalidArgumentError("A token is about somebody.");
  return text;
}

function gatewayName(text: string): string {
  if (!/^[^/]+\/[^/]+$/.test(text)) throw new InvalidArgumentError("A Gateway is written as namespace/name.");
  return text;
}

function level(text: string): number {
  if (!/^[1-4]$/.test(text)) throw new InvalidArgumentError("it is 1, 2, 3 or 4");
  return Number(text);
}

function port(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0 || value > 65_535)
    throw new InvalidArgumentError("A port is a number from 0 to 65535.");
  return value;
}
