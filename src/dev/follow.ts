/**
 * Keeps the front serving what the routes say. A change that compiles is served at once; a mistake is told with file and line, and
 * the last good version goes on.
 */
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { type Compiled, compileRoutes } from "../build/compile.ts";
import { emit } from "../build/emit.ts";
import { ConfigurationRefused, formatProblem } from "../build/problem.ts";
import type { RouteTable } from "../table/table.ts";
import { type DemoEnvironment, environmentFiles, standEnvironment } from "./environment.ts";
import type { Front } from "./front.ts";
import type { Paint } from "./paint.ts";
import { type Watched, watchFiles } from "./watch.ts";
import { type RunningWorker, startWorker, type WorkerOptions } from "./worker.ts";

/** What a cron trigger of `* * * * *` waits between two runs, in milliseconds. */
const EVERY_MINUTE = 60_000;

/** Milliseconds in which a mistake that is being corrected is not worth telling. */
const UNDECIDED = 100;

export interface FollowOptions {
  readonly routes: string;
  /** The folder for the built Worker. */
  readonly out: string;
  readonly front: Front;
  readonly demo: DemoEnvironment;
  readonly log: (line: string) => void;
  readonly onWorkerLog: WorkerOptions["onLog"];
  readonly paint: Paint;
}

export interface Following {
  /** What is being served. */
  readonly table: RouteTable;
  /** Stops looking for changes, and waits for one that is being served. */
  close(): Promise<void>;
}

/** Resolves when the first version is served. Rejects (ConfigurationRefused, for one) when there is none to serve. */
export async function followRoutes(options: FollowOptions): Promise<Following> {
  const { routes, out, front, demo, log, paint } = options;
  let serving: { readonly table: RouteTable; readonly identity: string } | undefined;
  let watched: Watched = { sources: [], files: [] };
  let mistaken = false;
  let pending = false;
  let working: Promise<void> | undefined;
  let cron: ReturnType<typeof setInterval> | undefined;
  let closed = false;

  const watcher = watchFiles(() => {
    pending = true;
    working ??= catchUp().finally(() => {
      working = undefined;
    });
  });

  async function catchUp(): Promise<void> {
    while (pending && !closed) {
      pending = false;
      const began = performance.now();
      try {
        const isNew = await reload();
        const ms = Math.round(performance.now() - began);
        if (isNew) log(`${paint("green", "reloaded")}  table ${serving?.table.id} in ${ms} ms`);
        else if (mistaken) log(`${paint("green", "corrected")}  table ${serving?.table.id} is what was being served`);
        mistaken = false;
      } catch (error) {
        // An editor may have been half done: what it writes next comes in a moment, and the mistake may be gone.
        await wait(UNDECIDED);
        if (pending || closed) continue;
        mistaken = true;
        tell(error);
        log(`${paint("red", "not reloaded")}  the last good version, table ${serving?.table.id}, keeps serving`);
        await watcher.watch(watched);
      }
    }
  }

  function tell(error: unknown): void {
    if (error instanceof ConfigurationRefused) for (const problem of error.problems) log(formatProblem(problem));
    else log(error instanceof Error ? error.message : String(error));
  }

  /** Whether there is anything new. */
  async function reload(): Promise<boolean> {
    const compiled = await compileRoutes({ routes });
    watched = watchedFor(compiled);
    await watcher.watch(watched);
    const { worker } = await emit(compiled, out);
    const source = await readFile(worker, "utf8");
    const { missing, ...environment } = await standEnvironment(compiled, demo);
    const identity = JSON.stringify([source, environment]);
    if (identity === serving?.identity) return false;
    const running = await startWorker({ source, ...environment, onLog: options.onWorkerLog });
    front.serve(running);
    startCron(compiled.table, running);
    serving = { table: compiled.table, identity };
    for (const warning of compiled.proved) log(`${paint("yellow", "warning")}  ${formatProblem(warning)}`);
    for (const name of missing)
      log(`${paint("yellow", "missing")}  ${name}: what needs it answers 503; set it in .dev.vars`);
    return true;
  }

  /** Cloudflare runs cron triggers, and Miniflare does not. Without health checks there is nothing for them to do. */
  function startCron({ clusters }: RouteTable, worker: RunningWorker): void {
    clearInterval(cron);
    if (!Object.values(clusters).some(({ health }) => health)) return;
    // What goes wrong the Worker logs itself.
    const run = () => void worker.scheduled().catch(() => {});
    run();
    cron = setInterval(run, EVERY_MINUTE);
  }

  function watchedFor({ module, inputs, wrangler }: Compiled): Watched {
    const given = resolve(routes);
    return {
      sources: inputs,
      files: environmentFiles(wrangler),
      // New files of a folder that is the routes module are for it; those beside a module that is a file need not be.
      ...(given !== module.file && { folder: given }),
    };
  }

  try {
    await reload();
  } catch (error) {
    watcher.close();
    throw error;
  }
  return {
    get table() {
      return (serving as { table: RouteTable }).table;
    },
    async close() {
      closed = true;
      watcher.close();
      await working;
      clearInterval(cron);
    },
  };
}
