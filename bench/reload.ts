/** From saving a file of routes/ to the first answer by it, at the stand of `npm start`: what a person waits for after an edit. */
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { startStand } from "../src/dev/stand.ts";

const ROOT = join(import.meta.dirname, "..");
const POLL_MS = 10;

/** Milliseconds by round. The same redirect gets another status each time. */
export async function measureReload(rounds: number, step: () => void): Promise<number[]> {
  await mkdir(join(ROOT, ".portcullis"), { recursive: true });
  // Within the project, where the routes find their imports.
  const folder = await mkdtemp(join(ROOT, ".portcullis", "reload-"));
  const routes = join(folder, "routes");
  await cp(join(ROOT, "routes"), routes, { recursive: true });
  await cp(join(ROOT, "wrangler.toml"), join(folder, "wrangler.toml"));
  const stand = await startStand({ routes, out: join(folder, "out"), port: 0, log: () => {} });
  const file = join(routes, "legacy.ts");
  const taken: number[] = [];
  try {
    let from = 308;
    for (let round = 0; round < rounds; round++) {
      const to = from === 308 ? 307 : 308;
      const source = await readFile(file, "utf8");
      const edited = source.replace(`status: ${from}`, `status: ${to}`);
      if (edited === source) throw new Error(`${file} has no redirect with status ${from}`);
      const began = performance.now();
      await writeFile(file, edited);
      while ((await fetch(`${stand.url}/api/products`, { redirect: "manual" })).status !== to) await sleep(POLL_MS);
      taken.push(performance.now() - began);
      from = to;
      step();
    }
  } finally {
    await stand.close();
    await rm(folder, { recursive: true, force: true });
  }
  return taken;
}
