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
  /** File and line of a declaration, where its stack tells. */
  readonly locate: (place: Place) => { file: string; line: number } | undefined;

  constructor(locate: Problems["locate"]) {
    this.locate = locate;
  }

  add(declaration: { readonly declaredAt?: Place } | undefined, subject: string, message: string, fix: Fix): void {
    const place = declaration?.declaredAt && this.locate(declaration.declaredAt);
    this.list.push({ ...(place && { file: shown(place.file), line: place.line }), subject, message, fix });
  }

  addAt(file: string, line: number, subject: string, message: string, fix: Fix): void {
    this.list.push({ file: shown(file), line, subject, message, fix });
  }
}

const shown = (file: string): string => {
  const path = relative(process.cwd(), file);
  return path.startsWith("..") ? file : path;
};

/** `routes/orders.ts:14  route "create": what is wrong`, and a line below it how to fix it. */
export function formatProblem(problem: Problem): string {
  const where = problem.file ? `${problem.file}:${problem.line}  ` : "";
  return `${where}${problem.subject}: ${problem.message}\n    fix: ${problem.fix}`;
}

/** The configuration was refused; `problems` says everything that is wrong with it. */
export class ConfigurationRefused extends Error {
  override readonly name = "ConfigurationRefused";
  readonly problems: readonly Problem[];

  constructor(problems: readonly Problem[]) {
    super(problems.map(formatProblem).join("\n"));
    this.problems = problems;
  }
}
