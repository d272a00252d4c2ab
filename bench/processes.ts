/** The processes that the benchmark starts: workerd, nginx, and what stands behind them. They all end with it, however it ends. */
import { type ChildProcess, execFile, execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { type AddressInfo, createServer } from "node:net";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

/** The binary for this platform, as the package tells it; the package has no types. */
const { default: workerd } = createRequire(import.meta.url)("workerd") as { default: string };

/** Removed when the benchmark ends. */
export const folder = mkdtempSync(join(tmpdir(), "portcullis-bench-"));

const children = new Set<ChildProcess>();
process.once("exit", () => {
  for (const child of children) child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.once(signal, () => process.exit(128 + constants.signals[signal]));
}

export interface Running {
  readonly pid: number;
  readonly port: number;
  stop(): Promise<void>;
}

function start(command: string, args: string[], controlPipe = false): { child: ChildProcess; ended: Promise<string> } {
  // stdout is where workerd's console.log goes. It is written there, to where writing costs least; stderr is for us.
  const child = spawn(command, args, {
    stdio: ["ignore", "ignore", "pipe", ...(controlPipe ? ["pipe" as const] : [])],
  });
  children.add(child);
  let stderr = "";
  child.stderr?.on("data", (chunk) => {
    stderr = (stderr + chunk).slice(-2_000);
  });
  const ended = new Promise<string>((resolve) => {
    child.on("error", (error) => resolve(error.message));
    child.on("close", () => resolve(stderr));
  });
  void ended.then(() => children.delete(child));
  return { child, ended };
}

const stopper = (child: ChildProcess, ended: Promise<string>) => async () => {
  child.kill("SIGKILL");
  await ended;
};

export interface WorkerdOptions {
  /** In the configuration's folder: `<name>.js`. */
  readonly name: string;
  readonly bindings?: Readonly<Record<string, string>>;
  /** A file that lies in the configuration as a module which nothing imports. */
  readonly carries?: string;
}

let configurations = 0;

/** Starts workerd with the Worker `<name>.js` in `folder`. Resolves when it listens, which it does once the module is evaluated. */
export async function startWorkerd({ name, bindings = {}, carries }: WorkerdOptions): Promise<Running> {
  const quote = (text: string) => JSON.stringify(text);
  const texts = Object.entries(bindings).map(([key, value]) => `(name = ${quote(key)}, text = ${quote(value)})`);
  const modules = [`(name = "worker.js", esModule = embed ${quote(`${name}.js`)})`];
  if (carries) modules.push(`(name = "carried.txt", text = embed ${quote(carries)})`);
  // A Worker may run several times, with other bindings each time.
  const config = join(folder, `${name}-${++configurations}.capnp`);
  writeFileSync(
    config,
    `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "main", worker = (
      modules = [${modules.join(", ")}],
      compatibilityDate = "2026-10-20",
      compatibilityFlags = ["enable_request_signal"],
      bindings = [${texts.join(", ")}],
      globalOutbound = "net",
    )),
    (name = "net", network = (allow = ["private", "public"])),
  ],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
);
`,
  );
  const { child, ended } = start(workerd, ["serve", "--control-fd=3", config], true);
  const port = await Promise.race([
    new Promise<number>((resolve) =>
      child.stdio[3]?.once("data", (chunk: Buffer) => resolve((JSON.parse(String(chunk)) as { port: number }).port)),
    ),
    ended.then((why) => {
      throw new Error(`workerd ended before it listened:\n${why}`);
    }),
  ]);
  return { pid: child.pid as number, port, stop: stopper(child, ended) };
}

/** Starts nginx as one process with these blocks of `http`, and `main` before them. `$PORT` in them is the port to listen on. */
export async function startNginx(name: string, http: string, main = ""): Promise<Running> {
  const port = await freePort();
  const config = join(folder, `${name}.conf`);
  // The paths, because the compiled-in ones are for root.
  const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
    (kind) => `${kind}_temp_path ${folder}/${name}-${kind};`,
  );
  writeFileSync(
    config,
    `${main} daemon off; master_process off; pid ${folder}/${name}.pid; error_log stderr crit;
events { worker_connections 1024; }
http {
  access_log off; keepalive_requests 100000000; keepalive_timeout 1h; ${paths.join(" ")}
  ${http.replaceAll("$PORT", String(port))}
}
`,
  );
  const { child, ended } = start("nginx", ["-e", "stderr", "-c", config]);
  const running = { pid: child.pid as number, port, stop: stopper(child, ended) };
  await Promise.race([
    answering(port),
    ended.then((why) => {
      throw new Error(`nginx ended at once:\n${why}`);
    }),
  ]);
  return running;
}

/** `1.22.1`, or undefined where nginx is not installed. */
export function nginxVersion(): string | undefined {
  try {
    // It says so on stderr.
    const said = execFileSync("sh", ["-c", "nginx -v 2>&1"], { encoding: "utf8", stdio: "pipe" });
    return /nginx\/([0-9.]+)/.exec(said)?.[1];
  } catch {
    return undefined;
  }
}

async function answering(port: number): Promise<void> {
  for (let tries = 0; tries < 200; tries++) {
    if (await fetch(`http://127.0.0.1:${port}/`).catch(() => undefined)) return;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error(`nothing answers on port ${port}`);
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer().once("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const { port } = probe.address() as AddressInfo;
      probe.close(() => resolve(port));
    });
  });
}

/** Whether this machine tells what a process has used: Linux, with scheduler statistics. */
export function cpuTimeAvailable(): boolean {
  try {
    return cpuTime(process.pid) > 0;
  } catch {
    return false;
  }
}

/**
 * CPU time of a process up to now, user and system, in nanoseconds: the first number of each thread's schedstat (Linux,
 * Documentation/scheduler/sched-stats.rst). /proc/<pid>/stat has it for the whole process, but in ticks of 10 ms. Threads that have
 * ended are not counted; workerd, nginx and V8 keep theirs.
 */
export function cpuTime(pid: number): number {
  let sum = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    sum += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "utf8").split(" ", 1)[0]);
  }
  return sum;
}

/** Runs a command of the gateway, as an operator would, and gives what it prints. */
export async function gatewayCommand(...args: string[]): Promise<string> {
  const cli = join(import.meta.dirname, "..", "src", "cli.ts");
  const running = promisify(execFile)(process.execPath, [cli, ...args]);
  children.add(running.child);
  try {
    return (await running).stdout;
  } catch (error) {
    const { stdout, stderr } = error as { stdout: string; stderr: string };
    throw new Error(`gateway ${args.join(" ")} failed:\n${stdout}${stderr}`);
  } finally {
    children.delete(running.child);
  }
}
