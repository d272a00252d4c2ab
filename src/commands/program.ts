/** The command line, made of some groups of commands, and what becomes of its errors. */
import { Command } from "commander";
import { formatProblem, isRefusal } from "../build/problem.ts";
import { print, red } from "./terminal.ts";

export interface Group {
  addCommands(program: Command): void;
}

export async function runProgram(groups: readonly Group[]): Promise<void> {
  const program = new Command("gateway")
    .description("Portcullis: an API gateway on Workers, from a routes/ module")
    .showHelpAfterError("(--help shows what is possible)")
    .showSuggestionAfterError()
    .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2));
  for (const { addCommands } of groups) addCommands(program);
  try {
    await program.parseAsync();
  } catch (error) {
    fail(error);
  }
}

function fail(error: unknown): void {
  const wantsJson = process.argv.includes("--json");
  if (isRefusal(error)) {
    if (wantsJson) print(JSON.stringify({ ok: false, problems: error.problems }));
    else {
      for (const problem of error.problems) console.error(formatProblem(problem));
      const count = error.problems.length;
      console.error(red(`${count} problem${count === 1 ? "" : "s"}; nothing was changed`));
    }
    process.exitCode = 1;
  } else {
    const message = error instanceof Error ? error.message : String(error);
    if (wantsJson) print(JSON.stringify({ ok: false, error: message }));
    else console.error(`${red("failed")}  ${message}`);
    process.exitCode = 1;
  }
}
