/**
 * From Gateway API manifests to a routes/ module: read, attach, map, write. What the manifests mean is decided here once, as a
 * controller in the cluster would decide it; the module says the result in the language of routes/.
 */
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ConfigurationRefused, Problems, shown } from "../build/problem.ts";
import { attach } from "./attachment.ts";
import { Clusters } from "./clusters.ts";
import { type Endpoints, readEndpoints, WITHOUT_ENDPOINTS } from "./endpoints.ts";
import { chooseGateway } from "./listeners.ts";
import { parseManifest, type Resource, readSources, type Source } from "./manifests.ts";
import { moduleFiles } from "./module.ts";
import { nameOf, References } from "./references.ts";
import { entriesOf, markdown, type Report } from "./report.ts";
import { settle, unreadOf } from "./unread.ts";

export interface ImportOptions {
  /** "namespace/name"; needed where the manifests have several. */
  readonly gateway?: string;
  /** endpoints.yaml (endpoints.ts). */
  readonly endpoints?: string;
  readonly out: string;
  /** Write into a folder that has files already. */
  readonly force?: boolean;
}

export interface Imported {
  readonly report: Report;
  /** Text by file, REPORT.md included. */
  readonly files: ReadonlyMap<string, string>;
  readonly totals: { readonly listeners: number; readonly apis: number; readonly clusters: number };
}

/** `left` are modules that were in the folder before and are still there: of an earlier import, perhaps, and then good for nothing. */
export interface Written extends Imported {
  readonly left: readonly string[];
}

/** Reads `paths` and writes the module. Throws ConfigurationRefused with all problems, and then has written nothing. */
export async function importManifests(paths: readonly string[], options: ImportOptions): Promise<Written> {
  const problems = new Problems(() => undefined);
  const sources = await readSources(paths, problems);
  const endpoints = options.endpoints === undefined ? undefined : await readText(options.endpoints, problems);
  const before = await filesIn(options, problems);
  const { gateway } = options;
  const imported = convert(sources, { ...(gateway && { gateway }), ...(endpoints && { endpoints }) }, problems);
  await mkdir(options.out, { recursive: true });
  for (const [file, text] of imported.files) await writeFile(join(options.out, file), text);
  const left = before.filter((file) => file.endsWith(".ts") && !imported.files.has(file)).sort();
  return { ...imported, left };
}

async function readText(file: string, problems: Problems): Promise<Source | undefined> {
  const text = await readFile(file, "utf8").catch(() => undefined);
  if (text !== undefined) return { file: shown(file), text };
  problems.add(undefined, file, "cannot be read", "give the file with --endpoints FILE");
  return undefined;
}

async function filesIn({ out, force }: ImportOptions, problems: Problems): Promise<readonly string[]> {
  const files = await readdir(out).catch((error: NodeJS.ErrnoException) => (error.code === "ENOENT" ? [] : undefined));
  if (files === undefined) problems.add(undefined, out, "is no folder", "give another one with --out DIR");
  else if (files.length > 0 && !force)
    problems.add(
      undefined,
      out,
      "has files already",
      "give another folder with --out DIR, or --force to write over them",
    );
  return files ?? [];
}

/** The same without files: from texts to texts. Throws ConfigurationRefused. */
export function convert(
  sources: readonly Source[],
  { gateway: wanted, endpoints: given }: { readonly gateway?: string; readonly endpoints?: Source },
  problems = new Problems(() => undefined),
): Imported {
  const resources = distinct(sources.flatMap(({ file, text }) => parseManifest(text, file, problems)));
  const endpoints = given ? readEndpoints(given, problems) : WITHOUT_ENDPOINTS;
  const gateway = problems.count === 0 ? chooseGateway(resources, wanted, problems) : undefined;
  if (!gateway) throw new ConfigurationRefused(problems.list);

  for (const resource of resources) settle(resource, gateway);
  const attachment = attach(gateway, resources);
  const references = new References(resources);
  const clusters = new Clusters(endpoints);
  const files = new Map(moduleFiles(attachment, references, clusters));
  for (const service of clusters.unmapped) {
    const fix = `add a line such as "${nameOf(service)}": { url: "https://..." } to it, or a \`default\``;
    problems.add(undefined, given?.file ?? "endpoints", `do not say how to reach ${nameOf(service)}`, fix);
  }
  if (problems.count > 0) throw new ConfigurationRefused(problems.list);

  const report: Report = {
    gateway: `${gateway.namespace}/${gateway.name}`,
    entries: resources.flatMap((resource) => entriesOf(resource, unreadOf(resource))),
    notes: notesOf({ references, clusters, endpoints, given: given !== undefined, routes: attachment.routes.length }),
  };
  files.set("REPORT.md", markdown(report));
  const apis = [...files.keys()].filter(
    (file) => !["index.ts", "clusters.ts", "listeners.ts", "REPORT.md"].includes(file),
  );
  const totals = { listeners: attachment.listeners.length, apis: apis.length, clusters: clusters.count };
  return { report, files, totals };
}

/** Each object once. `kubectl get` gives one object in several versions, when it is asked for several. */
function distinct(resources: readonly Resource[]): Resource[] {
  const known = new Map<string, Resource>();
  return resources.filter((resource) => {
    const { group, kind, namespace, name, root } = resource;
    if (name === "") return true;
    const key = [group, kind, namespace, name].join(" ");
    const other = known.get(key);
    known.set(key, other ?? resource);
    if (!other) return true;
    const uid = uidOf(resource);
    if (uid !== undefined && uid === uidOf(other)) return false;
    const where = `${other.root.origin.file}:${other.root.line}`;
    root.problem(`is there already, at ${where}`, "keep one of them");
    return false;
  });
}

const uidOf = ({ root }: Resource): unknown => root.at("metadata")?.at("uid")?.content;

interface Told {
  readonly references: References;
  readonly clusters: Clusters;
  readonly endpoints: Endpoints;
  readonly given: boolean;
  readonly routes: number;
}

function notesOf({ references, clusters, endpoints, given, routes }: Told): string[] {
  const notes: string[] = [];
  if (routes === 0) notes.push("No route is attached to the Gateway: every request answers 404.");
  if (!references.knowsServices && routes > 0)
    notes.push("The manifests have no Services, so that those of the routes exist is taken for granted.");
  if (!given && clusters.count > 0)
    notes.push(
      "CLUSTER_INGRESS is to hold the URL of an ingress that finds Services by /namespace/service in front of the path. " +
        "To reach them otherwise, say how in a file for --endpoints (docs/from-gateway-api.md).",
    );
  if (clusters.hasUrl)
    notes.push(
      "Clusters at a URL see that URL's host, or the Service's `host`, as Host, and the client's in X-Forwarded-Host: " +
        "`fetch` sends no other. A binding keeps the client's.",
    );
  for (const services of clusters.alike) {
    const names = [...new Set(services.map(nameOf))].sort().join(", ");
    notes.push(`Nothing tells these apart where they are reached, give them a host or a path: ${names}.`);
  }
  for (const { origin, line, path } of endpoints.unused())
    if (path !== "default") notes.push(`${origin.file}:${line}  ${path}: no route goes there.`);
  return notes;
}
