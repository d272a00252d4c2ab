/** The development stand behind `npm start`: the gateway in workerd with all that it needs around it, on loopback. */
import { once } from "node:events";
import type { RouteTable } from "../table/table.ts";
import { bannerText } from "./banner.ts";
import { decisionLine, errorLine, eventLine } from "./decision-line.ts";
import { type Demo, startDemo } from "./demo.ts";
import { type DemoRequest, demoRequests } from "./demo-requests.ts";
import { followRoutes } from "./follow.ts";
import { type Front, startFront } from "./front.ts";
import { devKeys, STAND_FOLDER } from "./issuer.ts";
import { painter } from "./paint.ts";
import { announceStand, withdrawStand } from "./stand-file.ts";

export interface StandOptions {
  /** The routes module, or a folder with an index. */
  readonly routes: string;
  /** Where the gateway listens. Default: 8787; 0 is a free one. */
  readonly port?: number;
  /** `embedded` (default) needs nothing installed; `real` is the redis-server on the PATH. */
  readonly redis?: "embedded" | "real";
  /** The folder for the built Worker. Default: `.portcullis`. */
  readonly out?: string;
  /** Gets what happens to the routes, what the Worker prints and, without `record`, a readable line for each request. */
  readonly log: (line: string) => void;
  /** Gets each decision record as the Worker prints it, one JSON text. */
  readonly record?: (json: string) => void;
  /** Default: false. */
  readonly colour?: boolean;
}

export interface Stand {
  /** Of the gateway, without a slash at the end. */
  readonly url: string;
  readonly port: number;
  /** What is being served. */
  readonly table: RouteTable;
  /** What runs where, the routes in short, and the requests to try. */
  readonly banner: string;
  readonly requests: readonly DemoRequest[];
  /** Stops everything. Twice is fine. */
  close(): Promise<void>;
}

/**
 * Resolves when the gateway answers. Rejects when the port is taken, the routes do not compile (ConfigurationRefused) or a part does
 * not start; then nothing is left running.
 */
export async function startStand(options: StandOptions): Promise<Stand> {
  const { routes, redis = "embedded", out = STAND_FOLDER, log, record, colour = false } = options;
  const paint = painter(colour);
  // Before all others: a taken port is the likeliest obstacle, and the quickest to find.
  const front = await listenAt(options.port ?? 8787);
  let demo: Demo | undefined;
  try {
    const keys = await devKeys();
    demo = await startDemo(keys, redis);
    const following = await followRoutes({
      routes,
      out,
      front,
      demo: demo.environment,
      log,
      paint,
      onWorkerLog({ level, message }) {
        const line = decisionLine(message, paint);
        if (line !== undefined && record) record(message);
        else log(line ?? eventLine(message, paint) ?? errorLine(message, paint) ?? `worker ${level}: ${message}`);
      },
    });
    await announceStand(demo.environment);
    const url = `http://127.0.0.1:${front.port}`;
    const served = new Set(following.table.routes.map(({ id }) => id));
    const requests = demoRequests(url, keys).filter(({ route }) => served.has(route));
    const { running, close: closeDemo } = demo;
    let closing: Promise<void> | undefined;
    return {
      url,
      port: front.port,
      get table() {
        return following.table;
      },
      get banner() {
        return bannerText({
          running: [["gateway", url, `table ${following.table.id}`], ...running],
          table: following.table,
          requests,
          paint,
        });
      },
      requests,
      close() {
        closing ??= following
          .close()
          .then(front.close)
          .then(closeDemo)
          .then(() => withdrawStand());
        return closing;
      },
    };
  } catch (error) {
    await front.close();
    await demo?.close();
    throw error;
  }
}

async function listenAt(port: number): Promise<Front> {
  try {
    return await startFront(port);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EADDRINUSE") throw error;
    throw new Error(`port ${port} is taken; stop what listens there, or choose another with --port (0: any free one)`);
  }
}

/**
 * `gateway dev`: runs the stand until SIGINT or SIGTERM. With `json` the decision records go to stdout, a JSON line each, and
 * everything else to stderr.
 */
export async function runStand(options: {
  readonly routes: string;
  readonly port?: number;
  readonly redis?: string;
  readonly json?: boolean;
}): Promise<void> {
  const { routes, port, redis = "embedded", json = false } = options;
  if (redis !== "embedded" && redis !== "real") throw new Error(`--redis ${redis}: it is either embedded or real`);
  const stopped = Promise.race(["SIGINT", "SIGTERM", "SIGHUP"].map((signal) => once(process, signal)));
  const out = json ? process.stderr : process.stdout;
  const stand = await startStand({
    routes,
    redis,
    ...(port !== undefined && { port }),
    log: (line) => out.write(`${line}\n`),
    ...(json && { record: (line) => process.stdout.write(`${line}\n`) }),
    colour: out.isTTY === true && out.hasColors(),
  });
  out.write(stand.banner);
  await stopped;
  await stand.close();
}
