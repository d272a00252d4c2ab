/** Which files a rule set is made of, and in which order they count. */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { type Directive, type RuleProblem, readDirectives } from "./directives.ts";

export interface LoadedRules {
  readonly directives: readonly Directive[];
  /** All files, absolute, in the order in which they count. */
  readonly files: readonly string[];
  /** Absent: the rule set came without one, and has its own defaults. */
  readonly setup?: string;
}

/**
 * A folder of rules, such as a checkout of the Core Rule Set: `crs-setup.conf` (or else `crs-setup.conf.example`), the plugins'
 * `*-config.conf` and `*-before.conf`, the rules in the order of their names, the plugins' `*-after.conf`. The rules are in
 * `rules/`, or in the folder itself.
 */
export function loadRules(
  folder: string,
  options: { readonly setup?: string; readonly before?: readonly string[]; readonly after?: readonly string[] },
  problem: (problem: RuleProblem) => void,
): LoadedRules {
  const root = resolve(folder);
  if (!isFolder(root)) {
    problem({
      file: root,
      line: 0,
      message: "there is no such folder of rules",
      fix: "name the folder that has the *.conf files",
    });
    return { directives: [], files: [] };
  }
  const rules = isFolder(join(root, "rules")) ? join(root, "rules") : root;
  const setup = options.setup ?? firstFile(SETUPS.flatMap((name) => [join(root, name), join(rules, name)]));
  const plugins = isFolder(join(root, "plugins")) ? filesIn(join(root, "plugins")) : [];
  const plugin = (end: string) => plugins.filter((file) => file.endsWith(end));
  const files = [
    ...(setup ? [setup] : []),
    ...plugin("-config.conf"),
    ...(options.before ?? []),
    ...plugin("-before.conf"),
    ...filesIn(rules).filter((file) => file.endsWith(".conf") && file !== setup),
    ...plugin("-after.conf"),
    ...(options.after ?? []),
  ];
  const read: string[] = [];
  const directives = files.flatMap((file) => readFile(file, problem, read, []));
  if (!directives.some(({ name }) => /^sec(?:rule|action)$/i.test(name)))
    problem({
      file: rules,
      line: 0,
      message: "there is no rule in the folder",
      fix: "name the folder that has the *.conf files",
    });
  return { directives, files: read, ...(setup && { setup }) };
}

const SETUPS = ["crs-setup.conf", "crs-setup.conf.example"];

/** With the files that it includes, in their place. */
function readFile(
  file: string,
  problem: (problem: RuleProblem) => void,
  read: string[],
  within: readonly string[],
): Directive[] {
  let text: string;
  try {
    text = readFileSync(file, "latin1");
  } catch {
    problem({ file, line: 0, message: "the file cannot be read", fix: "correct its name, or leave it out" });
    return [];
  }
  read.push(file);
  return readDirectives(text, file, problem).flatMap((directive) => {
    if (!/^include(?:optional)?$/i.test(directive.name)) return [directive];
    const path = resolve(dirname(file), directive.args[0] ?? "");
    const found = included(path);
    // Also by way of other files, or of its folder.
    if (found.some((inner) => inner === file || within.includes(inner))) {
      problem({ ...placeOf(directive), message: "the file includes itself", fix: "take the Include out" });
      return [];
    }
    if (found.length === 0 && directive.name.toLowerCase() === "include")
      problem({
        ...placeOf(directive),
        message: `there is no file ${path}`,
        fix: "correct the Include, or write IncludeOptional",
      });
    return found.flatMap((inner) => readFile(inner, problem, read, [...within, file]));
  });
}

/** A file, a folder's *.conf, or those that a name with `*` fits. */
function included(path: string): string[] {
  if (!path.includes("*")) {
    if (isFolder(path)) return filesIn(path).filter((file) => file.endsWith(".conf"));
    return existsSync(path) ? [path] : [];
  }
  const folder = dirname(path);
  const name = path
    .slice(folder.length + 1)
    .split("*")
    .map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&"));
  return isFolder(folder) ? filesIn(folder).filter((file) => new RegExp(`/${name.join("[^/]*")}$`).test(file)) : [];
}

const placeOf = ({ file, line }: Directive) => ({ file, line });
const firstFile = (files: readonly string[]): string | undefined => files.find((file) => existsSync(file));
const isFolder = (path: string): boolean => existsSync(path) && statSync(path).isDirectory();
// Names alone decide, not the language of the machine.
const filesIn = (folder: string): string[] =>
  readdirSync(folder)
    .sort()
    .map((name) => join(folder, name));
