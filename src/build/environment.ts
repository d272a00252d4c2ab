/**
 * What the configuration asks of its environment, held against wrangler.toml (or wrangler.json, wrangler.jsonc): every name must be
 * there, with the right kind, at the top level and in each named environment, since wrangler inherits none of these.
 */
import { basename, dirname, join } from "node:path";
import { type TransformFailure, transform } from "esbuild";
import { parse as parseToml } from "smol-toml";
import { z } from "zod";
import type { Declaration } from "../config/declaration.ts";
import type { Reference } from "../config/values.ts";
import type { RouteTable } from "../table/table.ts";
import type { Problems } from "./problem.ts";
import { textOfFile } from "./read.ts";

const bindings = z.array(z.looseObject({ binding: z.string() })).optional();
const environment = z.looseObject({
  vars: z.record(z.string(), z.unknown()).optional(),
  secrets: z.looseObject({ required: z.array(z.string()).optional() }).optional(),
  services: bindings,
  vpc_services: bindings,
  vpc_networks: bindings,
  mtls_certificates: bindings,
  triggers: z.looseObject({ crons: z.array(z.string()).optional() }).optional(),
});
/** What of wrangler's configuration concerns the gateway. */
const wranglerConfig = environment.extend({
  main: z.string().optional(),
  no_bundle: z.boolean().optional(),
  find_additional_modules: z.boolean().optional(),
  compatibility_date: z.string().optional(),
  compatibility_flags: z.array(z.string()).optional(),
  env: z.record(z.string(), environment).optional(),
});

type WranglerEnvironment = z.infer<typeof environment>;
export type WranglerConfig = z.infer<typeof wranglerConfig>;

const FILES = ["wrangler.toml", "wrangler.json", "wrangler.jsonc"];

/** The wrangler configuration that goes with a routes module: in its folder, or beside its folder when that is named `routes`. */
export async function wranglerFileFor(routes: string): Promise<string | undefined> {
  const folder = dirname(routes);
  const folders = folder.endsWith("/routes") ? [folder, dirname(folder)] : [folder];
  for (const place of folders) {
    for (const name of FILES) {
      const file = join(place, name);
      if ((await textOfFile(file)) !== undefined) return file;
    }
  }
  return undefined;
}

/** The configuration in `text`; `file` tells by its name how it is written. Throws what the parser throws. */
export const parseWrangler = (file: string, text: string): WranglerConfig =>
  (file.endsWith(".toml") ? parseToml(text) : JSON.parse(withoutComments(text))) as WranglerConfig;

/** Where what is asked of the environment stands in the routes module. */
export interface Asking {
  /** By `env NAME`, `secret NAME` and `binding NAME`. */
  readonly references: ReadonlyMap<string, Reference>;
  /** By `cluster NAME`. */
  readonly declarations: ReadonlyMap<string, Declaration>;
}

export async function checkEnvironment(
  table: RouteTable,
  asking: Asking,
  file: string,
  problems: Problems,
): Promise<void> {
  const text = await textOfFile(file);
  if (text === undefined) {
    problems.add(undefined, file, "cannot be read", "give wrangler's configuration with --config FILE");
    return;
  }
  const subject = "wrangler configuration";
  let config: WranglerConfig;
  try {
    config = parseWrangler(file, text);
  } catch (error) {
    const message = (error as Error).message.split("\n", 1)[0];
    problems.addAt(file, await lineOfError(error, text), subject, `cannot be read: ${message}`, "correct the line");
    return;
  }
  const { success, error } = wranglerConfig.safeParse(config);
  if (!success) {
    for (const { path, message } of error.issues) {
      const at = lineOf(text, String(path.findLast((name) => typeof name === "string") ?? ""));
      problems.addAt(
        file,
        at,
        subject,
        `\`${path.join(".")}\`: ${message}`,
        "write it as wrangler's documentation says",
      );
    }
    return;
  }
  checkNames(table, asking.references, file, text, "", config, problems);
  for (const [name, environment] of Object.entries(config.env ?? {}))
    checkNames(table, asking.references, file, text, `env.${name}.`, environment, problems);
  checkTriggers(table, asking.declarations, file, config, problems);
}

/** Health is asked for by a cron trigger. Triggers are inherited by named environments. */
function checkTriggers(
  { clusters }: RouteTable,
  declarations: Asking["declarations"],
  file: string,
  { env = {}, ...config }: WranglerConfig,
  problems: Problems,
): void {
  const first = Object.values(clusters).find(({ health }) => health);
  if (!first) return;
  const environments = [["", config], ...Object.entries(env)] as const;
  for (const [name, { triggers = config.triggers }] of environments) {
    if (triggers?.crons?.length) continue;
    const message = `has health checks, which nothing starts: ${basename(file)} has no cron trigger${name && ` for the environment ${name}`}`;
    const fix = `add crons = ["* * * * *"] to [${name && `env.${name}.`}triggers]`;
    problems.add(declarations.get(`cluster ${first.name}`), `cluster "${first.name}"`, message, fix);
  }
}

function checkNames(
  table: RouteTable,
  references: ReadonlyMap<string, Reference>,
  file: string,
  text: string,
  where: string,
  environment: WranglerEnvironment,
  problems: Problems,
): void {
  const missing = (kind: Reference["kind"], name: string, fix: string) => {
    const message = `is not in ${basename(file)}${where && ` for the environment ${where.slice(4, -1)}`}`;
    problems.add(references.get(`${kind} ${name}`), `${kind}("${name}")`, message, fix);
  };
  const vars = environment.vars ?? {};
  const secrets = environment.secrets?.required ?? [];
  const { optional = [] } = table.environment;
  for (const name of [...table.environment.vars, ...optional]) {
    if (!Object.hasOwn(vars, name)) {
      if (!optional.includes(name)) missing("env", name, `add ${name} = "..." to [${where}vars]`);
    } else if (typeof vars[name] !== "string" || vars[name] === "") {
      const at = lineOf(text, name);
      problems.addAt(file, at, `env("${name}")`, "is no text", `write it as ${name} = "..." in [${where}vars]`);
    }
  }
  for (const name of table.environment.secrets) {
    if (Object.hasOwn(vars, name)) {
      const fix = `take it out and add "${name}" to [${where}secrets] required`;
      problems.addAt(file, lineOf(text, name), `secret("${name}")`, `stands in [${where}vars] in plain text`, fix);
    } else if (!secrets.includes(name)) {
      const fix = `add "${name}" to [${where}secrets] required, then run: wrangler secret put ${name}`;
      missing("secret", name, fix);
    }
  }
  const bound = (...lists: (readonly { readonly binding: string }[] | undefined)[]) =>
    new Set(lists.flatMap((list) => (list ?? []).map(({ binding }) => binding)));
  const reachable = bound(environment.services, environment.vpc_services, environment.vpc_networks);
  const certificates = bound(environment.mtls_certificates);
  for (const { ingress, certificate } of Object.values(table.clusters)) {
    if ("binding" in ingress && !reachable.has(ingress.binding))
      missing("binding", ingress.binding, `add it to [[${where}vpc_services]] or [[${where}services]]`);
    if (certificate && "binding" in certificate && !certificates.has(certificate.binding))
      missing("binding", certificate.binding, `add it to [[${where}mtls_certificates]]`);
    if ("env" in ingress && Object.hasOwn(vars, ingress.env))
      checkIngress(ingress.env, vars[ingress.env], file, text, problems);
  }
}

function checkIngress(name: string, value: unknown, file: string, text: string, problems: Problems): void {
  // That it must be a text is told of every variable.
  if (typeof value !== "string" || value === "") return;
  const fault = ingressFault(value);
  if (fault) problems.addAt(file, lineOf(text, name), `env("${name}")`, ...fault);
}

/** What is wrong with an ingress's URL, and what to do about it. */
export function ingressFault(value: string): [message: string, fix: string] | undefined {
  const url = URL.parse(value);
  const loopback = url !== null && /^(?:localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(url.hostname);
  if (!url || !/^https?:$/.test(url.protocol) || url.username || url.search || url.hash)
    return [`${JSON.stringify(value)} is no ingress URL`, "write it as https://host[:port][/path]"];
  if (url.protocol === "http:" && !loopback)
    return ["would carry requests over plain http", "use https, or a binding; http is for loopback addresses"];
  return undefined;
}

/** The first line that gives `name` a value; 1 when there is none. */
export const lineOf = (text: string, name: string): number => {
  const given = new RegExp(`(^|[^\\w])"?${name.replace(/\W/g, "\\$&")}"?\\s*[=:\\]]`);
  return text.split("\n").findIndex((line) => given.test(line)) + 1 || 1;
};

/** smol-toml tells the line, JSON.parse does not; esbuild, which is here anyway, does. */
async function lineOfError(error: unknown, text: string): Promise<number> {
  const { line } = error as { line?: number };
  if (line !== undefined) return line;
  const failure: unknown = await transform(withoutComments(text), { loader: "json", logLevel: "silent" }).catch(
    (e) => e,
  );
  return (failure as Partial<TransformFailure>).errors?.[0]?.location?.line ?? 1;
}

/** JSON with comments and trailing commas, as wrangler.jsonc has them, without these; everything else keeps its place. */
const withoutComments = (text: string): string =>
  text
    .replace(
      /("(?:[^"\\]|\\.)*")|\/\/[^\n]*|\/\*[\s\S]*?\*\//g,
      (found, quoted: string | undefined) => quoted ?? found.replace(/[^\n]/g, " "),
    )
    .replace(/("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])/g, (_, quoted: string | undefined) => quoted ?? " ");
