/** The built Worker in workerd, by Miniflare. */
import { Log, LogLevel, Miniflare, type MiniflareOptions, type WorkerdStructuredLog } from "miniflare";
import type { Version } from "./front.ts";

/** What the Worker finds in its environment: a text, or for a binding with a `fetch` the loopback address it leads to. */
export type WorkerEnvironment = Readonly<Record<string, { readonly text: string } | { readonly address: string }>>;

export interface WorkerOptions {
  /** The ES module. */
  readonly source: string;
  readonly environment: WorkerEnvironment;
  readonly compatibilityDate: string;
  readonly compatibilityFlags: readonly string[];
  /** Everything that the Worker and the runtime print. */
  readonly onLog: (log: WorkerdStructuredLog) => void;
}

export interface RunningWorker extends Version {
  /** Does what a cron trigger does. Resolves when all is done, with whether it went well. */
  scheduled(): Promise<boolean>;
}

/**
 * Starts a workerd of its own (measured: 100 to 130 ms) and resolves once it listens. Rejects with what workerd said when the module
 * does not run.
 */
export async function startWorker(options: WorkerOptions): Promise<RunningWorker> {
  const { source, environment, compatibilityDate, compatibilityFlags } = options;
  const spoken: string[] = [];
  let serving = false;
  const miniflare = withoutSignalHandlers({
    host: "127.0.0.1",
    port: 0,
    // Or it would fetch Cloudflare's idea of `request.cf`.
    cf: false,
    telemetry: { enabled: false },
    enableDevRegistry: false,
    logRequests: false,
    log: new Log(LogLevel.NONE),
    handleStructuredLogs(log) {
      if (serving) options.onLog(log);
      else spoken.push(log.message);
    },
    workers: [
      {
        config: {
          name: "portcullis",
          compatibilityDate,
          compatibilityFlags: [...compatibilityFlags],
          manifest: { mainModule: "worker.js", modules: { "worker.js": { type: "esm", contents: source } } },
          env: Object.fromEntries(
            Object.entries(environment).map(([name, value]) => [
              name,
              "text" in value
                ? { type: "text" as const, value: value.text }
                : { type: "external" as const, address: value.address, http: {} },
            ]),
          ),
        },
        // Miniflare's own entrance would parse the URL and rewrite headers before the gateway sees them. `proxy`: the request line says
        // the whole URL, scheme included, and the Worker gets it unparsed (measured).
        dev: { unsafeDirectSockets: [{ host: "127.0.0.1", port: 0, proxy: true }] },
      },
    ],
  });
  try {
    const { port } = await miniflare.unsafeGetDirectURL();
    serving = true;
    return {
      port: Number(port),
      async scheduled() {
        const worker = await miniflare.getWorker();
        return (await worker.scheduled({ cron: "* * * * *" })).outcome === "ok";
      },
      close: () => miniflare.dispose(),
    };
  } catch (error) {
    await miniflare.dispose().catch(() => {});
    throw new Error(`workerd does not run the Worker: ${spoken.join("\n") || (error as Error).message}`);
  }
}

/**
 * Miniflare ends the process at once on SIGINT, SIGTERM and SIGHUP; the stand has more to put away than Miniflare knows of. What it
 * does when the process exits stays, and kills workerd.
 */
function withoutSignalHandlers(options: MiniflareOptions): Miniflare {
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  const before = new Set(signals.flatMap((signal) => process.listeners(signal)));
  const miniflare = new Miniflare(options);
  for (const signal of signals) {
    for (const listener of process.listeners(signal)) if (!before.has(listener)) process.off(signal, listener);
  }
  return miniflare;
}
