/** What a Worker costs before its first request: to compile the module and to run its global scope, which Cloudflare limits to 1 s. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";

// The package has no types; it exports the path of this machine's binary.
const { default: workerd } = createRequire(import.meta.url)("workerd") as { default: string };

export interface StartupOptions {
  /** The Worker's file, one ES module. */
  readonly worker: string;
  readonly compatibilityDate: string;
  readonly compatibilityFlags: readonly string[];
  /** Default: 15. */
  readonly starts?: number;
}

/**
 * Milliseconds, of this machine's workerd. Starts the Worker and an empty one in turn, each time in a new isolate, and gives the
 * difference of the medians: what an isolate costs by itself is in both. Throws when the Worker does not start.
 */
export async function measureStartup({ worker, starts = 15, ...compatibility }: StartupOptions): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), "portcullis-startup-"));
  try {
    await Promise.all([
      writeFile(join(folder, "config.capnp"), CONFIG),
      writeFile(join(folder, "loader.js"), LOADER),
      writeFile(join(folder, "compatibility.json"), JSON.stringify(compatibility)),
      writeFile(join(folder, "worker.js"), await readFile(worker)),
    ]);
    return await measure(folder, starts);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function measure(folder: string, starts: number): Promise<number> {
  const args = ["serve", "config.capnp", "--experimental", "--control-fd=3"];
  const child = spawn(workerd, args, { cwd: folder, stdio: ["ignore", "ignore", "pipe", "pipe"] });
  let said = "";
  (child.stderr as Readable).on("data", (chunk) => (said += chunk));
  const exited = once(child, "exit");
  try {
    const port = await Promise.race([
      portOf(child.stdio[3] as Readable),
      exited.then(() => Promise.reject(new Error(`workerd does not start: ${said}`))),
    ]);
    const start = async (which: "worker" | "empty") => {
      const response = await fetch(`http://127.0.0.1:${port}/${which}`);
      const text = await response.text();
      if (!response.ok) throw new Error(`the Worker does not start: ${text}`);
      return Number(text);
    };
    // The first of each pays for what workerd sets up once.
    await start("empty");
    await start("worker");
    const times = { empty: [] as number[], worker: [] as number[] };
    for (let i = 0; i < starts; i++) {
      times.empty.push(await start("empty"));
      times.worker.push(await start("worker"));
    }
    return Math.max(0, median(times.worker) - median(times.empty));
  } finally {
    child.kill("SIGKILL");
    await exited;
  }
}

/** workerd tells the port that it got on its control channel, one JSON object a line. */
async function portOf(control: Readable): Promise<number> {
  for await (const line of createInterface(control)) {
    const { event, port } = JSON.parse(line) as { event: string; port?: number };
    if (event === "listen" && port !== undefined) return port;
  }
  throw new Error("workerd does not listen");
}

const median = (values: readonly number[]): number => {
  const sorted = values.toSorted((a, b) => a - b);
  return ((sorted[(sorted.length - 1) >> 1] as number) + (sorted[sorted.length >> 1] as number)) / 2;
};

// A worker loader makes an isolate from source text: the gateway is imported, and what answers is a module beside it, so that no
// request is in the time.
const LOADER = `
import worker from "worker-source";
import compatibility from "compatibility";
let started = 0;
export default {
  async fetch(request, env) {
    const which = new URL(request.url).pathname.slice(1);
    const source = which === "worker" ? worker : "export default {};";
    const stub = env.LOADER.get(String(started++), () => ({
      ...compatibility,
      mainModule: "main.js",
      modules: { "main.js": 'import "./worker.js"; export default { fetch: () => new Response() };', "worker.js": source },
    }));
    const before = performance.now();
    try {
      await stub.getEntrypoint().fetch("http://worker/");
    } catch (error) {
      return new Response(String(error), { status: 500 });
    }
    return new Response(String(performance.now() - before));
  },
};`;

const CONFIG = `
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = (
    modules = [
      (name = "loader.js", esModule = embed "loader.js"),
      (name = "worker-source", text = embed "worker.js"),
      (name = "compatibility", json = embed "compatibility.json"),
    ],
    compatibilityDate = "2026-10-20",
    bindings = [(name = "LOADER", workerLoader = ())],
  ))],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
);`;
