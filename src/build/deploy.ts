/** deploy: build, tell what the Worker costs, and let wrangler upload exactly that file. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join, relative, resolve } from "node:path";
import { compileRoutes } from "./compile.ts";
import { BUILT, emit, sizesOf } from "./emit.ts";
import { lineOf, parseWrangler } from "./environment.ts";
import { ConfigurationRefused, Problems } from "./problem.ts";
import { measureStartup } from "./startup.ts";

export interface DeployOptions {
  readonly routes: string;
  /** wrangler's configuration. Default: the one beside the routes. */
  readonly config?: string;
  /** Everything but the upload; what would go up is left in `.portcullis/deployed`. Needs no account. */
  readonly dryRun?: boolean;
}

/**
 * wrangler's exit code; `rest` are further arguments for it. Builds into `.portcullis/` beside wrangler's configuration. Throws
 * ConfigurationRefused when the routes, or that configuration, would not do.
 */
export async function deploy({ routes, config, dryRun }: DeployOptions, rest: readonly string[]): Promise<number> {
  const compiled = await compileRoutes({ routes, ...(config !== undefined && { config }) });
  const { wrangler: file, table } = compiled;
  if (file === undefined) {
    const message = "has no wrangler configuration beside it";
    throw new ConfigurationRefused([{ subject: routes, message, fix: "give it with --config FILE" }]);
  }
  const folder = join(dirname(resolve(file)), ".portcullis");
  const settings = await settingsOf(file, join(folder, "worker.js"));

  const emitted = await emit(compiled, folder);
  console.log(`built    ${sizesOf(emitted)}, ${table.routes.length} routes, table ${table.id}`);
  const startup = await measureStartup({ worker: emitted.worker, ...settings });
  console.log(`startup  ${startup.toFixed(0)} ms to compile and run its global scope, in this machine's workerd`);

  const deployed = join(folder, "deployed");
  if (dryRun) await rm(deployed, { recursive: true, force: true });
  const args = ["deploy", "--config", file, ...(dryRun ? ["--dry-run", "--outdir", deployed] : []), ...rest];
  const { resolve: locate } = createRequire(import.meta.url);
  const child = spawn(process.execPath, [join(dirname(locate("wrangler/package.json")), "bin/wrangler.js"), ...args], {
    stdio: "inherit",
    env: { ...process.env, WRANGLER_SEND_METRICS: "false", [BUILT]: folder },
  });
  const [code] = (await once(child, "exit")) as [number | null];
  return code ?? 1;
}

/** What the Worker runs under. Throws ConfigurationRefused where wrangler would upload anything but `worker`. */
async function settingsOf(file: string, worker: string) {
  const text = await readFile(file, "utf8");
  const { main, no_bundle, find_additional_modules, ...settings } = parseWrangler(file, text);
  const problems = new Problems(() => undefined);
  const tell = (name: string, message: string, fix: string) =>
    problems.addAt(file, lineOf(text, name), "wrangler configuration", message, fix);
  const wanted = relative(dirname(resolve(file)), worker);
  if (typeof main !== "string" || resolve(dirname(file), main) !== worker)
    tell("main", `\`main\` is not what the build writes`, `main = "${wanted}"`);
  if (no_bundle !== true) tell("no_bundle", "wrangler would bundle the Worker once more", "no_bundle = true");
  if (find_additional_modules !== false) {
    const message = "wrangler would upload what else lies beside the Worker";
    tell("find_additional_modules", message, "find_additional_modules = false");
  }
  if (!settings.compatibility_flags?.includes("enable_request_signal")) {
    const message = "clients that go away would not close their requests to the clusters";
    tell("compatibility_flags", message, 'compatibility_flags = ["enable_request_signal"]');
  }
  if (settings.compatibility_date === undefined)
    tell("compatibility_date", "`compatibility_date` is missing", 'compatibility_date = "2026-10-20"');
  if (problems.list.length > 0) throw new ConfigurationRefused(problems.list);
  return {
    compatibilityDate: settings.compatibility_date as string,
    compatibilityFlags: settings.compatibility_flags ?? [],
  };
}
