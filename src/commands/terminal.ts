/** What commands write: their results to stdout, what is odd to stderr, in colours on a terminal. */
import { styleText } from "node:util";
import { formatProblem, type Problem } from "../build/problem.ts";

export function warn(warnings: readonly Problem[]): void {
  for (const warning of warnings) console.error(`${yellow("warning")}  ${formatProblem(warning)}`);
}

export function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

export function many(count: number, name: string): string {
  return `${count} ${name}${count === 1 ? "" : "s"}`;
}

export function green(text: string): string {
  return styleText("green", text, { stream: process.stdout });
}

export function yellow(text: string): string {
  return styleText("yellow", text, { stream: process.stderr });
}

export function red(text: string): string {
  return styleText("red", text, { stream: process.stderr });
}
