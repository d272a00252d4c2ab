/** What a running stand tells to commands beside it: where its store is. The file is for its owner alone, and goes with the stand. */
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { DemoEnvironment } from "./environment.ts";
import { STAND_FOLDER } from "./issuer.ts";

const FILE = "stand.json";
const TOLD = ["UPSTASH_REDIS_REST_URL", "UPSTASH_REDIS_REST_TOKEN"];

export async function announceStand(environment: DemoEnvironment, folder = STAND_FOLDER): Promise<void> {
  const told = Object.fromEntries(TOLD.map((name) => [name, environment[name]]));
  await mkdir(folder, { recursive: true });
  await rm(join(folder, FILE), { force: true });
  await writeFile(join(folder, FILE), `${JSON.stringify({ pid: process.pid, environment: told })}\n`, { mode: 0o600 });
}

/** Takes away what this process has told. Another stand of the same folder may have told its own since. */
export async function withdrawStand(folder = STAND_FOLDER): Promise<void> {
  if ((await readStand(folder))?.pid === process.pid) await rm(join(folder, FILE), { force: true });
}

/** The environment that the stand of this folder runs with, as far as it is told; undefined when none runs. */
export async function runningStand(folder = STAND_FOLDER): Promise<DemoEnvironment | undefined> {
  const told = await readStand(folder);
  if (!told) return undefined;
  try {
    // Sends nothing; throws when there is no such process.
    process.kill(told.pid, 0);
    return told.environment;
  } catch {
    return undefined;
  }
}

async function readStand(folder: string): Promise<{ pid: number; environment: DemoEnvironment } | undefined> {
  try {
    return JSON.parse(await readFile(join(folder, FILE), "utf8"));
  } catch {
    return undefined;
  }
}
