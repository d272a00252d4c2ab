/** A built Worker under `workerd serve`, as it is: no Miniflare, no wrangler, no bundler in between. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { copyFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { onTestFinished } from "vitest";
import { folderOf } from "./module.ts";

const { default: workerd } = createRequire(import.meta.url)("workerd") as { default: string };

/** The address it listens at; it ends with the test. Rejects with what workerd says when the Worker does not start. */
export async function serve(worker: string, environment: Readonly<Record<string, string>> = {}): Promise<string> {
  const bindings = Object.entries(environment).map(
    ([name, value]) => `(name = "${name}", text = ${JSON.stringify(value)})`,
  );
  const folder = await folderOf({});
  await copyFile(worker, join(folder, "worker.js"));
  await writeFile(
    join(folder, "config.capnp"),
    `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "main", worker = (
      modules = [(name = "worker.js", esModule = embed "worker.js")],
      compatibilityDate = "2026-10-20",
      compatibilityFlags = ["enable_request_signal"],
      bindings = [${bindings.join(", ")}],
    )),
    (name = "internet", network = (allow = ["private"])),
  ],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
);`,
  );
  const args = ["serve", "config.capnp", "--control-fd=3"];
  const child = spawn(workerd, args, { cwd: folder, stdio: ["ignore", "ignore", "pipe", "pipe"] });
  let said = "";
  (child.stderr as Readable).on("data", (chunk) => (said += chunk));
  const exited = once(child, "exit");
  onTestFinished(async () => {
    child.kill("SIGKILL");
    await exited;
  });
  // workerd tells the port that it got on its control channel, one JSON object a line.
  for await (const line of createInterface(child.stdio[3] as Readable)) {
    const { event, port } = JSON.parse(line) as { event: string; port?: number };
    if (event === "listen" && port) return `http://127.0.0.1:${port}`;
  }
  throw new Error(said);
}
