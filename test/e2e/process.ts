/** Processes around the tests, and waiting for what they do. */
import { spawn } from "node:child_process";
import { type AddressInfo, createServer } from "node:net";
import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";

export interface Running {
  readonly pid: number;
  /** Everything that it has written, standard error included. */
  output(): string;
  /** Resolves when it is gone, by itself or killed. */
  readonly ended: Promise<void>;
  /** Resolves when it is gone. */
  kill(): Promise<void>;
}

/** Starts `command`, which dies with this process. `onLine` gets each line of its standard output, `onFd3` of its descriptor 3. */
export function run(
  command: string,
  args: readonly string[],
  listeners: { onLine?(line: string): void; onFd3?(line: string): void } = {},
): Running {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe", "pipe"] });
  let output = "";
  const read = (stream: Readable | null, onLine?: (line: string) => void) => {
    let rest = "";
    stream?.setEncoding("utf8").on("data", (chunk: string) => {
      output += chunk;
      if (!onLine) return;
      const lines = (rest + chunk).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) onLine(line);
    });
  };
  read(child.stdout, listeners.onLine);
  read(child.stderr);
  read(child.stdio[3] as Readable, listeners.onFd3);
  const ended = new Promise<void>((resolve) => {
    child.once("close", () => resolve());
    child.once("error", (error) => {
      output += error.message;
      resolve();
    });
  });
  // The guard's standard input is a pipe that this process holds: however it ends, the pipe closes, and the guard kills the command.
  const guard = spawn("sh", ["-c", `cat >/dev/null; kill -9 ${child.pid}`], {
    stdio: ["pipe", "ignore", "ignore"],
    detached: true,
  });
  return {
    pid: child.pid ?? -1,
    output: () => output,
    ended,
    kill: async () => {
      guard.kill("SIGKILL");
      guard.stdin.destroy();
      child.kill("SIGKILL");
      await ended;
    },
  };
}

/** Waits until `condition` gives something other than undefined, null or false, and returns that. */
export async function until<T>(
  what: string,
  condition: () => T | Promise<T>,
  milliseconds = 10_000,
): Promise<Exclude<T, undefined | null | false>> {
  for (const deadline = Date.now() + milliseconds; ; await sleep(10)) {
    const found = await condition();
    if (found !== undefined && found !== null && found !== false) return found as Exclude<T, undefined | null | false>;
    if (Date.now() > deadline) throw new Error(`not within ${milliseconds} ms: ${what}`);
  }
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
