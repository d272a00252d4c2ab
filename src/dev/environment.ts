/** What the Worker finds in its environment on the stand. */
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { parseEnv } from "node:util";
import type { Compiled } from "../build/compile.ts";
import { parseWrangler } from "../build/environment.ts";
import type { WorkerEnvironment } from "./worker.ts";

/** The demo's own values, by the names that the shipped routes use. Of a binding it is the loopback address behind it. */
export type DemoEnvironment = Readonly<Record<string, string>>;

export interface StandEnvironment {
  readonly environment: WorkerEnvironment;
  readonly compatibilityDate: string;
  readonly compatibilityFlags: readonly string[];
  /** Names that the routes ask for and nobody gives. */
  readonly missing: readonly string[];
}

/** The files that say what stands in the environment, whether they exist or not. */
export function environmentFiles(wrangler: string | undefined): string[] {
  const developersOwn = join(wrangler ? dirname(wrangler) : process.cwd(), ".dev.vars");
  return [developersOwn, ...(wrangler ? [wrangler] : [])];
}

/**
 * For each name that the routes ask for, the first of: `.dev.vars` beside wrangler's configuration, the demo's own value, `[vars]`
 * of wrangler's configuration. A binding is given in `.dev.vars` as well, by the http address that it leads to.
 */
export async function standEnvironment(
  { table, wrangler }: Pick<Compiled, "table" | "wrangler">,
  demo: DemoEnvironment,
): Promise<StandEnvironment> {
  const [developersOwn = ""] = environmentFiles(wrangler);
  const config = wrangler ? parseWrangler(wrangler, await readFile(wrangler, "utf8")) : {};
  const own = parseEnv(await readFile(developersOwn, "utf8").catch(() => "")) as Record<string, string>;
  const { vars, optional = [], secrets, bindings } = table.environment;
  const environment: Record<string, { text: string } | { address: string }> = {};
  const missing: string[] = [];
  for (const name of [...vars, ...secrets, ...optional]) {
    const value = own[name] ?? demo[name] ?? config.vars?.[name];
    if (value !== undefined) environment[name] = { text: String(value) };
    else if (!optional.includes(name)) missing.push(name);
  }
  for (const name of bindings) {
    const address = URL.parse(own[name] ?? demo[name] ?? "")?.host;
    if (!address) missing.push(name);
    else environment[name] = { address };
  }
  return {
    environment,
    // The date is the shipped configuration's; a routes module without one is run as the demo is.
    compatibilityDate: config.compatibility_date ?? "2026-10-20",
    compatibilityFlags: config.compatibility_flags ?? ["enable_request_signal"],
    missing,
  };
}
