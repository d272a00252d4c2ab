import { relative } from "node:path";
import type { Fix, Place } from "../config/declaration.ts";

/** One thing that is wrong with a configuration. */
export interface Problem {
  /** Relative to the working directory; absent when no place can be told. */
  readonly file?: string;
  readonly line?: number;
  /** What it is about: `route "orders/create"`. */
  readonly subject: string;
  readonly message: string;
  readonly fix: Fix;
}

/** Collects problems, so that all of them are told at once. */
export class Problems {
  readonly list: Problem[] = [];
  /** Also of those that are too many to be listed. */
  count = 0;
  /** File and line of a declaration, where its stack tells. */
  readonly locate: (place: Place) => { file: string; line: number } | undefined;

  constructor(locate: Problems["locate"]) {
    this.locate = locate;
  }

  add(declaration: { readonly declaredAt?: Place } | undefined, subject: string, message: string, fix: Fix): void {
    const place = declaration?.declaredAt && this.locate(declaration.declaredAt);
    this.#list(place, subject, message, fix);
  }

  addAt(file: string, line: number, subject: string, message: string, fix: Fix): void {
    this.#list({ file, line }, subject, message, fix);
  }

  #list(
    place: { file: string; line: number } | undefined,
    ...texts: [subject: string, message: string, fix: Fix]
  ): void {
    this.count++;
    if (this.count > MOST) return;
    const [subject, message, fix] = this.count < MOST ? (texts.map(printable) as typeof texts) : TOO_MANY;
    this.list.push({ ...(place && { file: shown(place.file), line: place.line }), subject, message, fix });
  }
}

const MOST = 1_000;
const TOO_MANY = ["configuration", "has more problems than are listed here", "correct these first"] as const;
const LONGEST = 500;

/** One line of bounded length: names and keys in it may be anything. */
const printable = (text: string): string =>
  // biome-ignore lint/suspicious/noControlCharactersInRegex: those are what has to go
  (text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text).replace(/[\x00-\x1f\x7f-\x9f]/g, " ");

/** Any value as a message names it: a text in quotes, of everything else what it is. Never throws. */
export function quoted(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.slice(0, 80));
  if (typeof value === "number" || typeof value === "boolean" || value === null || value === undefined)
    return `${value}`;
  if (Array.isArray(value)) return value.length === 0 ? "an empty list" : "a list";
  const { kind } = value as { kind?: unknown };
  const what = typeof kind === "string" ? kind : typeof value;
  return `${/^[aeiou]/.test(what) ? "an" : "a"} ${what}`;
}

/** Relative to the working directory, where the file is below it. */
export const shown = (file: string): string => {
  const path = relative(process.cwd(), file);
  return path.startsWith("..") ? file : path;
};

/** `routes/orders.ts:14  route "create": what is wrong`, and a line below it how to fix it. */
export function formatProblem(problem: Problem): string {
  const where = problem.file ? `${problem.file}:${problem.line}  ` : "";
  return `${where}${problem.subject}: ${problem.message}\n    fix: ${problem.fix}`;
}

const byPlace = (a: Problem, b: Problem): number =>
  (a.file ?? "").localeCompare(b.file ?? "") || (a.line ?? 0) - (b.line ?? 0);

/** The configuration was refused; `problems` says everything that is wrong with it, in the order of files and lines. */
export class ConfigurationRefused extends Error {
  override readonly name = "ConfigurationRefused";
  readonly problems: readonly Problem[];

  constructor(problems: readonly Problem[]) {
    const inOrder = problems.toSorted(byPlace);
    super(inOrder.map(formatProblem).join("\n"));
    this.problems = inOrder;
  }
}

/** By name, since another copy of this module may have thrown it: the bundle of explain has one (explain/bundle.ts). */
export const isRefusal = (error: unknown): error is ConfigurationRefused =>
  error instanceof Error && error.name === "ConfigurationRefused";
