/** What the commands take that people wait for: wall-clock time, which wants a quiet machine to be measured, and CPU time. */
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import type { RouteTable } from "../src/table/table.ts";
import { gatewayCommand } from "./processes.ts";
import { writeRecords } from "./replay-log.ts";

const ROOT = join(import.meta.dirname, "..");
const CLI = join(ROOT, "src", "main.mjs");
const EXPLAINED = ["explain", "GET", "/v1/orders/7", "--as", "storefront", "--scope", "orders:read"];

export const REPLAYED = 1_000_000;

/** Milliseconds. */
export interface Taken {
  readonly wall: number;
  readonly cpu: number;
}

// As the process ends it tells its CPU time, of all threads.
const TELLS = `data:text/javascript,process.on("exit", () => {
  const { user, system } = process.cpuUsage();
  process.stderr.write("CPU " + (user + system));
});`;

async function timed(args: readonly string[]): Promise<Taken> {
  const started = performance.now();
  const options = { cwd: ROOT, maxBuffer: 2 ** 28 };
  const { stderr } = await promisify(execFile)(process.execPath, ["--import", TELLS, CLI, ...args], options);
  return { wall: performance.now() - started, cpu: Number(/CPU (\d+)$/.exec(stderr)?.[1]) / 1_000 };
}

/** Of whole processes; what they keep between them is there. */
export async function measureExplain(rounds: number, step: () => void): Promise<Taken[]> {
  await timed(EXPLAINED);
  const times: Taken[] = [];
  for (let i = 0; i < rounds; i++) {
    times.push(await timed(EXPLAINED));
    step();
  }
  return times;
}

/** Of `gateway check` over routes with many regexes. */
export async function measureCheck(rounds: number, step: () => void): Promise<Taken[]> {
  const routes = join(import.meta.dirname, "routes", "regexes.ts");
  const times: Taken[] = [];
  for (let i = 0; i < rounds; i++) {
    times.push(await timed(["check", "--json", "--routes", routes]));
    step();
  }
  return times;
}

/** Of a million records against a table in which every limit is another. */
export async function measureReplay(): Promise<Taken> {
  const folder = await mkdtemp(join(tmpdir(), "portcullis-replay-"));
  try {
    const out = join(folder, "old");
    await gatewayCommand("build", "--json", "--routes", join(ROOT, "routes"), "--out", out);
    const table = JSON.parse(await readFile(join(out, "table.json"), "utf8")) as RouteTable;
    const changed = JSON.stringify({ ...table, id: "changed" }).replace(/"quota":(\d+)/g, '"quota":$10');
    await writeFile(join(folder, "new.json"), changed);
    await writeRecords(join(folder, "records.log"), REPLAYED, table.id);
    const args = [join(folder, "records.log"), "--old", join(out, "table.json"), "--new", join(folder, "new.json")];
    return await timed(["replay", ...args, "--json"]);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
