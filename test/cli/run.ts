/** The command line in a process of its own. */
import { spawn } from "node:child_process";
import { join } from "node:path";

export interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** As `npm run gateway` starts it. */
export const MAIN = join(process.cwd(), "src/main.mjs");
export const CLI = join(process.cwd(), "src/cli.ts");

/** Runs `gateway ...args`, away from a terminal. */
export function gateway(
  args: readonly string[],
  { cwd = process.cwd(), env = {} as NodeJS.ProcessEnv } = {},
): Promise<Ended> {
  return run(process.execPath, [CLI, ...args], cwd, env);
}

export function run(command: string, args: readonly string[], cwd: string, env: NodeJS.ProcessEnv): Promise<Ended> {
  // What the test runner has set for itself is not for the command; in CI Node takes a terminal for one without colours.
  const { FORCE_COLOR: _, NO_COLOR: __, NODE_OPTIONS: ___, CI: ____, ...rest } = process.env;
  const child = spawn(command, args, { cwd, env: { ...rest, ...env }, stdio: ["ignore", "pipe", "pipe"] });
  let [out, err] = ["", ""];
  child.stdout.on("data", (chunk) => (out += chunk));
  child.stderr.on("data", (chunk) => (err += chunk));
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, out, err }));
  });
}
