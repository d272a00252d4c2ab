/** The gateway as it is deployed: a routes module through the build, and worker.js in workerd. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { compileRoutes } from "../../src/build/compile.ts";
import { emit } from "../../src/build/emit.ts";
import type { DecisionRecord } from "../../src/policies/contract.ts";
import type { Answer, RawAnswer } from "./client.ts";
import { type Running, run, until } from "./process.ts";

// The package has no types; its default export is the path of the binary.
const { default: workerd } = createRequire(import.meta.url)("workerd") as { default: string };

export interface GatewayParts {
  /** The text of the routes module. */
  readonly routes: string;
  /** Variables and secrets. */
  readonly texts: Readonly<Record<string, string>>;
  /** Bindings with a `fetch` of their own, each to the server on that port. The Host header stays the client's. */
  readonly services?: Readonly<Record<string, number>>;
  /** The request header from whose JSON workerd takes `request.cf`, as it takes it from Cloudflare's own proxy. */
  readonly cfBlobHeader?: string;
}

export class Gateway {
  readonly port: number;
  readonly records: DecisionRecord[];
  readonly #workerd: Running;
  readonly #folder: string;

  private constructor(workerd: Running, port: number, records: DecisionRecord[], folder: string) {
    this.#workerd = workerd;
    this.port = port;
    this.records = records;
    this.#folder = folder;
  }

  /** Throws ConfigurationRefused when the build refuses the routes. */
  static async start({ routes, texts, services = {}, cfBlobHeader }: GatewayParts): Promise<Gateway> {
    const folder = mkdtempSync(join(tmpdir(), "portcullis-gateway-"));
    mkdirSync(join(folder, "routes"));
    writeFileSync(join(folder, "routes", "index.ts"), routes);
    await emit(await compileRoutes({ routes: join(folder, "routes") }), join(folder, "out"));
    writeFileSync(join(folder, "out", "gateway.capnp"), configuration(texts, services, cfBlobHeader));

    const records: DecisionRecord[] = [];
    let port: number | undefined;
    const running = run(workerd, ["serve", join(folder, "out", "gateway.capnp"), "--control-fd=3"], {
      onLine: (line) => {
        if (line.startsWith("{")) records.push(JSON.parse(line));
      },
      onFd3: (line) => {
        port = (JSON.parse(line) as { event: string; port: number }).port;
      },
    });
    try {
      return new Gateway(running, await until("workerd listens", () => port), records, folder);
    } catch (error) {
      throw new Error(`${(error as Error).message}\n${running.output()}`);
    }
  }

  /** The decision record of the request that was answered so. */
  recordOf(answer: Answer | RawAnswer): Promise<DecisionRecord> {
    const named = answer.headers["x-request-id"];
    const text = typeof answer.body === "string" ? answer.body : answer.body.toString();
    const id = named ?? /urn:portcullis:request:([\w-]+)/.exec(text)?.[1];
    if (id === undefined) throw new Error(`nothing names the request of the answer ${answer.status} ${text}`);
    return this.record(`of request ${id}`, (record) => record.id === id);
  }

  /** The first record for which `wanted` holds, as soon as it is there. */
  record(what: string, wanted: (record: DecisionRecord) => boolean): Promise<DecisionRecord> {
    return until(`a record ${what}`, () => this.records.find(wanted));
  }

  /** Everything that the gateway has logged. */
  log(): string {
    return this.#workerd.output();
  }

  /** Bytes of memory that workerd holds now. */
  memory(): number {
    const status = readFileSync(`/proc/${this.#workerd.pid}/status`, "utf8");
    return Number(/^VmRSS:\s+([0-9]+) kB$/m.exec(status)?.[1]) * 1024;
  }

  async close(): Promise<void> {
    await this.#workerd.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

function configuration(
  texts: GatewayParts["texts"],
  services: Readonly<Record<string, number>>,
  cfBlobHeader: string | undefined,
): string {
  const bindings = [
    ...Object.entries(texts).map(([name, text]) => `(name = ${quoted(name)}, text = ${quoted(text)})`),
    ...Object.keys(services).map((name) => `(name = ${quoted(name)}, service = ${quoted(name)})`),
  ];
  const externals = Object.entries(services).map(
    ([name, port]) => `(name = ${quoted(name)}, external = (address = "127.0.0.1:${port}", http = ()))`,
  );
  return `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "gateway", worker = .gateway),
    (name = "network", network = (allow = ["private", "public"])),
    ${externals.join(",\n    ")}
  ],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (${cfBlobHeader ? `cfBlobHeader = ${quoted(cfBlobHeader)}` : ""}), service = "gateway")],
);
const gateway :Workerd.Worker = (
  modules = [(name = "worker.js", esModule = embed "worker.js")],
  compatibilityDate = "2026-10-20",
  compatibilityFlags = ["enable_request_signal"],
  bindings = [
    ${bindings.join(",\n    ")}
  ],
  globalOutbound = "network",
);
`;
}

/** Cap'n Proto's literals take C's escapes; JSON's are the same for what stands in bindings here. */
const quoted = (text: string): string => JSON.stringify(text);
