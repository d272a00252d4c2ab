/** From files, folders and standard input to Kubernetes objects. */
import { readdir, readFile, realpath, stat } from "node:fs/promises";
import { join } from "node:path";
import { text as textOf } from "node:stream/consumers";
import { type Document, isMap, isScalar, isSeq, LineCounter, type Node, parseAllDocuments } from "yaml";
import { type Problems, shown } from "../build/problem.ts";
import { type Field, fieldOf, type Origin } from "./field.ts";

export interface Resource {
  /** `gateway.networking.k8s.io`; "" for Kubernetes' core. */
  readonly group: string;
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
  /** `HTTPRoute shop/orders`. */
  readonly subject: string;
  /** When the API server took it in, in milliseconds; Infinity for what no server has seen yet. */
  readonly created: number;
  readonly root: Field;
}

/** What of a resource's identity others go by. */
export type Reference = Pick<Resource, "group" | "kind" | "namespace" | "name">;

export const GATEWAY_API = "gateway.networking.k8s.io";

export const sameObject = (a: Reference, b: Reference): boolean =>
  a.group === b.group && a.kind === b.kind && a.namespace === b.namespace && a.name === b.name;

/** The order in which the Gateway API decides between resources: the oldest first, then by "namespace/name". */
export const byAge = (a: Resource, b: Resource): number =>
  a.created !== b.created ? (a.created < b.created ? -1 : 1) : byName(a, b);

const byName = (a: Resource, b: Resource): number => {
  const [left, right] = [`${a.namespace}/${a.name}`, `${b.namespace}/${b.name}`];
  return left < right ? -1 : left > right ? 1 : 0;
};

/** Documents in `text`, each with its lists unpacked. */
export function parseManifest(text: string, file: string, problems: Problems): Resource[] {
  return documentsIn(text, file, problems).flatMap(({ document, lines }) =>
    objectsIn({ node: document.contents as Node }).flatMap((item) =>
      resourceOf(item, document, lines, { file, problems, subject: "manifest" }),
    ),
  );
}

export interface ParsedDocument {
  readonly document: Document;
  readonly lines: LineCounter;
}

/** The documents of YAML or JSON that are not empty; none, after a problem for each mistake, when it is neither. */
export function documentsIn(text: string, file: string, problems: Problems, subject = "manifest"): ParsedDocument[] {
  const lines = new LineCounter();
  const documents = parseAllDocuments(text, { lineCounter: lines, prettyErrors: false, logLevel: "silent" });
  const errors = [...documents].flatMap(({ errors }) => errors);
  for (const { message, pos } of errors) {
    const what = message.split("\n", 1)[0] as string;
    problems.addAt(file, lines.linePos(pos[0]).line, subject, `is no YAML: ${what}`, "correct the line");
  }
  if (errors.length > 0) return [];
  return [...documents]
    .filter(({ contents }) => contents !== null && !(isScalar(contents) && contents.value === null))
    .map((document) => ({ document, lines }));
}

interface Item {
  readonly node: Node;
  /** What the list says that it is in, for those that do not say it themselves: `kubectl get --raw` gives such lists. */
  readonly kind?: string;
  readonly apiVersion?: string;
}

/** `kubectl get ... -o yaml` of several objects gives them in one list. As for kubectl, what has `items` is one. */
function objectsIn(item: Item): Item[] {
  const { node } = item;
  const items = isMap(node) && node.get("items");
  if (!isMap(node) || !isSeq(items)) return [item];
  const [kind, apiVersion] = [node.get("kind"), node.get("apiVersion")];
  const implied =
    typeof kind === "string" && typeof apiVersion === "string" && /.List$/.test(kind)
      ? { kind: kind.slice(0, -"List".length), apiVersion }
      : {};
  return (items.items as Node[]).flatMap((node) => objectsIn({ node, ...implied }));
}

function resourceOf(item: Item, document: Document, lines: LineCounter, origin: Origin): Resource[] {
  const root = fieldOf(item.node, document, lines, origin);
  if (root === undefined) return [];
  if (!(root.content instanceof Map)) {
    root.problem("is no Kubernetes object", "give files that hold objects with `apiVersion` and `kind`");
    return [];
  }
  const told = (name: "kind" | "apiVersion") => (root.at(name) ? undefined : item[name]) ?? root.required(name)?.text();
  const [kind, apiVersion] = [told("kind"), told("apiVersion")];
  if (kind === undefined || apiVersion === undefined) return [];
  origin.subject = kind;
  const metadata = root.at("metadata");
  const name = metadata?.at("name")?.text() ?? "";
  const namespace = metadata?.at("namespace")?.text() ?? (CLUSTER_WIDE.has(kind) ? "" : "default");
  origin.subject = [kind, namespace ? `${namespace}/${name}` : name].join(" ").trim();
  const created = metadata?.at("creationTimestamp")?.text();
  const at = created === undefined ? Number.POSITIVE_INFINITY : Date.parse(created);
  if (Number.isNaN(at)) metadata?.at("creationTimestamp")?.problem("is no time", "write it as 2026-01-31T12:00:00Z");
  const group = apiVersion.includes("/") ? (apiVersion.split("/")[0] as string) : "";
  return [{ group, kind, namespace, name, subject: origin.subject, created: at, root }];
}

const CLUSTER_WIDE = new Set(["Namespace", "GatewayClass"]);

/** A file of manifests. */
export interface Source {
  /** As messages name it. */
  readonly file: string;
  readonly text: string;
}

/** What the paths of the command line lead to; `-` is standard input. Of folders all .yaml, .yml and .json, at any depth, sorted. */
export async function readSources(paths: readonly string[], problems: Problems): Promise<Source[]> {
  const sources: Source[] = [];
  const seen = new Set<string>();
  for (const path of paths) {
    if (path === "-") sources.push({ file: "stdin", text: await textOf(process.stdin) });
    else {
      for (const file of await filesAt(path, problems)) {
        // The same file by its name and by its folder is one file.
        const real = await realpath(file);
        if (!seen.has(real)) sources.push({ file: shown(file), text: await readFile(file, "utf8") });
        seen.add(real);
      }
    }
  }
  return sources;
}

async function filesAt(path: string, problems: Problems): Promise<string[]> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isFile()) return [path];
  if (!found?.isDirectory()) {
    problems.add(undefined, path, "there is no such file or folder", "give manifests, or - for standard input");
    return [];
  }
  const entries = await readdir(path, { recursive: true, withFileTypes: true });
  const files = entries
    .filter((entry) => !entry.isDirectory() && /\.(?:ya?ml|json)$/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
  if (files.length === 0) problems.add(undefined, path, "the folder has no .yaml, .yml or .json", "give one that has");
  return files;
}
