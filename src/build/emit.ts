/**
 * emit: from a RouteTable to the Worker. One generated entry holds the table as data and imports the `run` of exactly the policies
 * that the table uses; esbuild makes it one ES module, so that schemas, builders and unused policies are not in it.
 */
import { mkdir, rename, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { gzipSync } from "node:zlib";
import { type BuildFailure, build, type Metafile } from "esbuild";
import type { MemberPolicy } from "../policies/contract.ts";
import { FILTER_PACK } from "../policies/filter-inspection.ts";
import { indexMatches } from "../table/match.ts";
import { routesText } from "../table/routes.ts";
import type { PolicyName, RouteTable } from "../table/table.ts";
import type { Compiled } from "./compile.ts";
import { leanRatelimit } from "./lean-ratelimit.ts";
import { ConfigurationRefused, shown } from "./problem.ts";
import { portcullisImport, SOURCES } from "./read.ts";
import { registry } from "./registry.ts";

/** Set for wrangler by `deploy` to the folder that it has built into: wrangler's [build] command then leaves the Worker as it is. */
export const BUILT = "PORTCULLIS_BUILT";

export interface Emitted {
  readonly worker: string;
  readonly bytes: number;
  readonly gzipBytes: number;
  /** What went into the bundle, for those who ask why it is large. */
  readonly metafile: Metafile;
}

/** Writes `worker.js`, `table.json` and `sources.json` into `folder`. Throws ConfigurationRefused when middleware cannot be bundled. */
export async function emit(compiled: Compiled, folder: string): Promise<Emitted> {
  const { text, metafile } = await bundleWorker(compiled);
  await mkdir(folder, { recursive: true });
  await Promise.all([
    replaceFile(join(folder, "worker.js"), text),
    replaceFile(join(folder, "table.json"), `${JSON.stringify(compiled.table, null, 2)}\n`),
    replaceFile(join(folder, "sources.json"), `${JSON.stringify(compiled.sources, null, 2)}\n`),
  ]);
  return {
    worker: join(folder, "worker.js"),
    bytes: Buffer.byteLength(text),
    gzipBytes: gzipSync(text).byteLength,
    metafile,
  };
}

/** `.portcullis/worker.js  237.0 kB, 73.9 kB gzip` */
export const sizesOf = ({ worker, bytes, gzipBytes }: Emitted): string =>
  `${shown(worker)}  ${kilobytes(bytes)}, ${kilobytes(gzipBytes)} gzip`;

const kilobytes = (bytes: number): string => `${(bytes / 1000).toFixed(1)} kB`;

/** Whole or not at all: a Worker that is being served never reads half a file. */
async function replaceFile(file: string, text: string): Promise<void> {
  const fresh = `${file}.${process.pid}`;
  await writeFile(fresh, text);
  await rename(fresh, file);
}

async function bundleWorker({ table, module, packs }: Compiled): Promise<{ text: string; metafile: Metafile }> {
  try {
    const result = await build({
      stdin: {
        contents: entryOf(table, module.file, packs),
        resolveDir: dirname(module.file),
        sourcefile: "portcullis-entry.js",
        loader: "js",
      },
      bundle: true,
      write: false,
      metafile: true,
      outfile: "worker.js",
      absWorkingDir: dirname(module.file),
      format: "esm",
      platform: "browser",
      conditions: ["workerd", "worker", "browser"],
      target: "es2024",
      minify: true,
      charset: "utf8",
      legalComments: "none",
      external: ["cloudflare:*", "node:*"],
      plugins: [portcullisImport, leanRatelimit],
      nodePaths: [join(SOURCES, "..", "node_modules")],
      logLevel: "silent",
    });
    return { text: result.outputFiles[0]?.text ?? "", metafile: result.metafile };
  } catch (error) {
    const errors = (error as Partial<BuildFailure>).errors;
    if (!errors) throw error;
    const { problems } = module;
    const fix = "a routes module that holds Hono middleware is part of the Worker: it may import only what runs there";
    for (const { text, location } of errors) {
      const message = `cannot be bundled for the Worker: ${text}`;
      if (location)
        problems.addAt(resolve(dirname(module.file), location.file), location.line, "middleware", message, fix);
      else problems.add(undefined, "middleware", message, fix);
    }
    throw new ConfigurationRefused(problems.list);
  }
}

/** The generated module. Functions are no data, so a table that names middleware brings the routes module along for them. */
export function entryOf(table: RouteTable, routes: string, packs: Compiled["packs"] = new Map()): string {
  const used = [...new Set(table.policies.map(({ policy }) => policy))].sort();
  const members = [...new Set(table.policies.flatMap(membersOf))].sort();
  const file = (policy: PolicyName) => source(`policies/${registry[policy].file}`);
  const lines = [
    `import { createGateway } from ${source("edge/gateway.ts")};`,
    `import { LazyRoutes } from ${source("table/routes.ts")};`,
    ...used.map((policy) => `import { run as ${policy} } from ${file(policy)};`),
    ...members.map((policy) => `import { authenticator as ${policy}Authenticator } from ${file(policy)};`),
  ];
  const authenticators = members.map((policy) => `${policy}: ${policy}Authenticator`).join(", ");
  const functions = used.includes("middleware");
  const health = Object.values(table.clusters).some((cluster) => cluster.health);
  if (health) lines.push(`import { checkHealth, readHealth } from ${source("edge/health.ts")};`);
  if (functions) {
    lines.push(
      `import { middlewareByPlace } from ${source("config/entries.ts")};`,
      `import routes from ${JSON.stringify(routes)};`,
    );
  }
  if (packs.size > 0) {
    const decoded = [...packs].map(([id, { json, bytes }]) => {
      const text = Buffer.from(bytes).toString("latin1");
      return `${JSON.stringify(id)}: decodePack(${JSON.stringify(json)}, ${JSON.stringify(text)})`;
    });
    lines.push(
      `import { decodePack } from ${source("waf/pack-encoding.ts")};`,
      `const packs = { ${decoded.join(", ")} };`,
      ...[...packs.keys()].flatMap((id) => {
        const policy = id === FILTER_PACK ? "filter" : "waf";
        return [`import { warm as warm_${id} } from ${file(policy)};`, `warm_${id}(packs[${JSON.stringify(id)}]);`];
      }),
    );
  }
  // JSON.parse of one literal is read faster than an object literal of that size (V8 blog, "The cost of JavaScript in 2019").
  lines.push(
    `const table = { ...JSON.parse(${JSON.stringify(JSON.stringify({ ...table, routes: undefined }))}), routes: new LazyRoutes(${JSON.stringify(routesText(table.routes))}) };`,
    `const index = JSON.parse(${JSON.stringify(JSON.stringify(indexMatches(table.routes, table.listeners)))});`,
    `const app = createGateway({ table, index, runs: { ${used.join(", ")} }, ${members.length > 0 ? `authenticators: { ${authenticators} }, ` : ""}middleware: ${functions ? "middlewareByPlace(routes)" : "{}"}${packs.size > 0 ? ", packs" : ""}${health ? ", readHealth" : ""} });`,
    health
      ? "export default { fetch: app.fetch, scheduled: (event, env, context) => context.waitUntil(checkHealth(table, env)) };"
      : "export default app;",
  );
  return lines.join("\n");
}

/** The policies within a policy, at any depth. */
function membersOf({ config }: MemberPolicy): PolicyName[] {
  const { members = [] } = config as { members?: readonly MemberPolicy[] };
  return Array.isArray(members) ? members.flatMap((member) => [member.policy, ...membersOf(member)]) : [];
}

const source = (path: string): string => JSON.stringify(join(SOURCES, path));
