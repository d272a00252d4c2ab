/** The gateway as it is deployed: a routes module through the build, and worker.js in workerd. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { WebSocket } from "ws";
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
  /**
   * Bindings with a `fetch` of their own, each to the server on that port, or over TLS as workerd's configuration says it. The Host
   * header stays the client's.
   */
  readonly services?: Readonly<Record<string, number | TlsService>>;
  /** Whether requests tell `request.cf` in CF_HEADER. workerd then tells nothing of its own, such as the peer's address. */
  readonly cf?: boolean;
  /** With the inspector, which `heap` asks. */
  readonly inspected?: boolean;
}

/** A server behind TLS, as workerd's own configuration has it. PEM texts. */
export interface TlsService {
  readonly port: number;
  /** The name in the server's certificate, which one of `trusted` must have issued. */
  readonly host: string;
  readonly trusted: string;
  /** What the gateway shows for itself. */
  readonly keypair?: { readonly key: string; readonly certificate: string };
}

export class Gateway {
  readonly port: number;
  readonly records: DecisionRecord[];
  readonly #workerd: Running;
  readonly #folder: string;
  readonly #inspector: number | undefined;
  #session: Promise<WebSocket> | undefined;

  private constructor(workerd: Running, ports: Ports, records: DecisionRecord[], folder: string) {
    this.#workerd = workerd;
    this.port = ports.listen as number;
    this.#inspector = ports["listen-inspector"];
    this.records = records;
    this.#folder = folder;
  }

  /** Throws ConfigurationRefused when the build refuses the routes. */
  static async start({ routes, texts, services = {}, cf = false, inspected = false }: GatewayParts): Promise<Gateway> {
    const folder = mkdtempSync(join(tmpdir(), "portcullis-gateway-"));
    await buildWorker(routes, folder);
    writeFileSync(join(folder, "out", "gateway.capnp"), configuration(texts, services, cf));

    const records: DecisionRecord[] = [];
    const ports: Ports = {};
    const inspector = inspected ? ["--inspector-addr=127.0.0.1:0"] : [];
    const running = run(workerd, ["serve", join(folder, "out", "gateway.capnp"), "--control-fd=3", ...inspector], {
      onLine: (line) => {
        if (line.startsWith("{")) records.push(JSON.parse(line));
      },
      onFd3: (line) => {
        const { event, port } = JSON.parse(line) as { event: keyof Ports; port: number };
        ports[event] = port;
      },
    });
    try {
      await until("workerd listens", () => ports.listen);
      return new Gateway(running, ports, records, folder);
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

  /** Bytes that the isolate holds, garbage included: V8's heap, what stands behind ArrayBuffers, and the runtime's own objects in it. */
  async heap(): Promise<number> {
    this.#session ??= new Promise((resolve, reject) => {
      const socket = new WebSocket(`ws://127.0.0.1:${this.#inspector}/gateway`);
      socket.once("open", () => resolve(socket)).once("error", reject);
    });
    const session = await this.#session;
    const answered = new Promise<string>((resolve) => session.once("message", (data) => resolve(String(data))));
    session.send(JSON.stringify({ id: 1, method: "Runtime.getHeapUsage" }));
    const { usedSize, embedderHeapUsedSize, backingStorageSize } = JSON.parse(await answered).result;
    return usedSize + embedderHeapUsedSize + backingStorageSize;
  }

  async close(): Promise<void> {
    (await this.#session)?.terminate();
    await this.#workerd.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** By the names of workerd's events. */
type Ports = { listen?: number; "listen-inspector"?: number };

/** Builds into `folder`. Gives the path of the Worker. */
export async function buildWorker(routes: string, folder: string): Promise<string> {
  mkdirSync(join(folder, "routes"));
  writeFileSync(join(folder, "routes", "index.ts"), routes);
  const { worker } = await emit(await compileRoutes({ routes: join(folder, "routes") }), join(folder, "out"));
  return worker;
}

function configuration(texts: GatewayParts["texts"], services: GatewayParts["services"] & object, cf: boolean): string {
  const bindings = [
    ...Object.entries(texts).map(([name, text]) => `(name = ${quoted(name)}, text = ${quoted(text)})`),
    ...Object.keys(services).map((name) => `(name = ${quoted(name)}, service = ${quoted(name)})`),
  ];
  const externals = Object.entries(services).map(
    ([name, service]) => `(name = ${quoted(name)}, external = ${externalServer(service)})`,
  );
  return `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "gateway", worker = .gateway),
    (name = "network", network = (allow = ["private", "public"])),
    ${externals.join(",\n    ")}
  ],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (${cf ? `cfBlobHeader = "${CF_HEADER}"` : ""}), service = "gateway")],
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

/** A request header that becomes `request.cf`, as JSON: what Cloudflare tells of where the request came in. */
export const CF_HEADER = "cf-blob";

function externalServer(service: number | TlsService): string {
  if (typeof service === "number") return `(address = "127.0.0.1:${service}", http = ())`;
  const { port, host, trusted, keypair } = service;
  const own = keypair
    ? `keypair = (privateKey = ${quoted(keypair.key)}, certificateChain = ${quoted(keypair.certificate)}), `
    : "";
  const tls = `tlsOptions = (${own}trustedCertificates = [${quoted(trusted)}]), certificateHost = ${quoted(host)}`;
  return `(address = "127.0.0.1:${port}", https = (options = (), ${tls}))`;
}

/** Cap'n Proto's literals take C's escapes; JSON's are the same for what stands in bindings here. */
const quoted = (text: string): string => JSON.stringify(text);
