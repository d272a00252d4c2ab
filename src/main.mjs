/**
 * `npm run gateway`: the command line, whose code is read as it was compiled the last time, its types taken out already. To do both anew
 * takes half of what a short command takes (measured: 70 of 130 ms of CPU for `--help`).
 */
import * as module from "node:module";
import { join } from "node:path";

if (module.enableCompileCache === undefined) {
  console.error(
    `failed  Node ${process.version} cannot run this: use npm run gateway, which brings its own, or Node 22.12`,
  );
  process.exit(1);
}
module.enableCompileCache(join(import.meta.dirname, "..", "node_modules", ".cache", "portcullis"));
// People wait for an explanation, and read on.
const { commandBundle } = process.argv[2] === "explain" ? await import("./explain/bundle.ts") : {};
await import((await commandBundle?.()) ?? "./cli.ts");
