/**
 * What the configuration asks of its environment, held against wrangler.toml (or wrangler.json, wrangler.jsonc): every name must be
 * there, with the right kind, at the top level and in each named environment, since wrangler inherits none of these.
 */
import { dirname, join } from "node:path";
import { parse as parseToml } from "smol-toml";
import type { GatewayDeclaration } from "../config/api.ts";
import type { RouteTable } from "../table/table.ts";
import type { Problems } from "./problem.ts";
import { textOfFile } from "./read.ts";

interface WranglerEnvironment {
  readonly vars?: Readonly<Record<string, unknown>>;
  readonly secrets?: { readonly required?: readonly string[] };
  readonly services?: readonly { readonly binding?: string }[];
  readonly vpc_services?: readonly { readonly binding?: string }[];
  readonly vpc_networks?: readonly { readonly binding?: string }[];
  readonly mtls_certificates?: readonly { readonly binding?: string }[];
}

interface WranglerConfig extends WranglerEnvironment {
  readonly env?: Readonly<Record<string, WranglerEnvironment>>;
}

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

export async function checkEnvironment(
  table: RouteTable,
  gateway: GatewayDeclaration,
  file: string,
  problems: Problems,
): Promise<void> {
  const text = await textOfFile(file);
  if (text === undefined) {
    problems.add(undefined, file, "cannot be read", "give wrangler's configuration with --config FILE");
    return;
  }
  let config: WranglerConfig;
  try {
    config = (file.endsWith(".toml") ? parseToml(text) : JSON.parse(withoutComments(text))) as WranglerConfig;
  } catch (error) {
    const { line = 1, message } = error as { line?: number; message: string };
    problems.addAt(
      file,
      line,
      "wrangler configuration",
      `cannot be read: ${message.split("\n")[0]}`,
      "correct the line",
    );
    return;
  }
  const environments: [where: string, WranglerEnvironment][] = [
    ["", config],
    ...Object.entries(config.env ?? {}).map(([name, environment]): [string, WranglerEnvironment] => [
      `env.${name}.`,
      environment,
    ]),
  ];
  for (const [where, environment] of environments) checkNames(table, gateway, file, text, where, environment, problems);
}

function checkNames(
  table: RouteTable,
  gateway: GatewayDeclaration,
  file: string,
  text: string,
  where: string,
  environment: WranglerEnvironment,
  problems: Problems,
): void {
  const missing = (subject: string, fix: string) => {
    problems.add(
      gateway,
      subject,
      `is not in ${file.split("/").at(-1)}${where && ` for the environment ${where.slice(4, -1)}`}`,
      fix,
    );
  };
  const vars = environment.vars ?? {};
  const secrets = environment.secrets?.required ?? [];
  for (const name of table.environment.vars) {
    if (!(name in vars)) missing(`env("${name}")`, `add ${name} = "..." to [${where}vars]`);
  }
  for (const name of table.environment.secrets) {
    if (name in vars) {
      problems.addAt(
        file,
        lineOf(text, name),
        `secret("${name}")`,
        `stands in [${where}vars] in plain text`,
        `take it out and add "${name}" to [${where}secrets] required`,
      );
    } else if (!secrets.includes(name))
      missing(
        `secret("${name}")`,
        `add "${name}" to [${where}secrets] required, then run: wrangler secret put ${name}`,
      );
  }
  const bound = (lists: readonly (readonly { readonly binding?: string }[] | undefined)[]) =>
    new Set(lists.flatMap((list) => (list ?? []).map(({ binding }) => binding)));
  const reachable = bound([environment.services, environment.vpc_services, environment.vpc_networks]);
  const certificates = bound([environment.mtls_certificates]);
  for (const cluster of Object.values(table.clusters)) {
    if ("binding" in cluster.ingress && !reachable.has(cluster.ingress.binding)) {
      missing(`binding("${cluster.ingress.binding}")`, `add it to [[${where}vpc_services]] or [[${where}services]]`);
    }
    if (cluster.certificate && "binding" in cluster.certificate && !certificates.has(cluster.certificate.binding)) {
      missing(`binding("${cluster.certificate.binding}")`, `add it to [[${where}mtls_certificates]]`);
    }
    if ("env" in cluster.ingress) checkIngress(cluster.ingress.env, vars[cluster.ingress.env], file, text, problems);
  }
}

function checkIngress(name: string, value: unknown, file: string, text: string, problems: Problems): void {
  if (value === undefined) return;
  const url = typeof value === "string" ? URL.parse(value) : null;
  const loopback = url !== null && /^(?:localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(url.hostname);
  if (!url || !/^https?:$/.test(url.protocol) || url.username || url.search || url.hash) {
    problems.addAt(
      file,
      lineOf(text, name),
      `env("${name}")`,
      `${JSON.stringify(value)} is no ingress URL`,
      "write it as https://host[:port][/path]",
    );
  } else if (url.protocol === "http:" && !loopback) {
    problems.addAt(
      file,
      lineOf(text, name),
      `env("${name}")`,
      "would carry requests over plain http",
      "use https, or a binding; http is for loopback addresses",
    );
  }
}

const lineOf = (text: string, name: string): number => {
  const line = text.split("\n").findIndex((candidate) => new RegExp(`(^|[^\\w])"?${name}"?\\s*[=:]`).test(candidate));
  return line + 1 || 1;
};

/** JSON with comments and trailing commas, as wrangler.jsonc has them. */
const withoutComments = (text: string): string =>
  text
    .replace(/("(?:[^"\\]|\\.)*")|\/\/[^\n]*|\/\*[\s\S]*?\*\//g, (_, quoted: string | undefined) => quoted ?? "")
    .replace(/,(\s*[}\]])/g, "$1");
