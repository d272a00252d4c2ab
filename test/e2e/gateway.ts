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
  /** Bindings with a `fetch` of their own, each to the server on that port. The Host header stays the client's. */
  readonly services?: Readonly<Record<string, number>>;
  /** Bindings that speak TLS with the server on that port, as a binding of [[mtls_certificates]] does. */
  readonly certificates?: Readonly<Record<string, TlsParts>>;
  /** Whether requests tell `request.cf` in CF_HEADER. workerd then tells nothing of its own, such as the peer's address. */
  readonly cf?: boolean;
  /** With the inspector, which `heap` asks. */
  readonly inspected?: boolean;
}

export interface TlsParts {
  readonly port: number;
  /** What the server's certificate must be for. */
  readonly host: string;
  /** Who must have signed it, as PEM. */
  readonly trusted: string;
  /** The gateway's own, as PEM. */
  readonly client?: { readonly key: string; readonly certificate: string };
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
  static async start(parts: GatewayParts): Promise<Gateway> {
    const { routes, inspected = false } = parts;
    const folder = mkdtempSync(join(tmpdir(), "portcullis-gateway-"));
    mkdirSync(join(folder, "routes"));
    writeFileSync(join(folder, "routes", "index.ts"), routes);
    await emit(await compileRoutes({ routes: join(folder, "routes") }), join(folder, "out"));
    writeFileSync(join(folder, "out", "gateway.capnp"), configuration(parts));

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

function configuration({ texts, services = {}, certificates = {}, cf = false }: GatewayParts): string {
  const bindings = [
    ...Object.entries(texts).map(([name, text]) => `(name = ${quoted(name)}, text = ${quoted(text)})`),
    ...Object.keys({ ...services, ...certificates }).map(
      (name) => `(name = ${quoted(name)}, service = ${quoted(name)})`,
    ),
  ];
  const external = (name: string, port: number, protocol: string) =>
    `(name = ${quoted(name)}, external = (address = "127.0.0.1:${port}", ${protocol}))`;
  const externals = [
    ...Object.entries(services).map(([name, port]) => external(name, port, "http = ()")),
    ...Object.entries(certificates).map(([name, { port, host, trusted, client }]) => {
      const pair = client
        ? `keypair = (privateKey = ${quoted(client.key)}, certificateChain = ${quoted(client.certificate)}), `
        : "";
      const tls = `tlsOptions = (${pair}trustedCertificates = [${quoted(trusted)}])`;
      return external(name, port, `https = (certificateHost = ${quoted(host)}, ${tls})`);
    }),
  ];
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

/** Cap'n Proto's literals take C's escapes; JSON's are the same for what stands in bindings here. */
const quoted = (text: string): string => JSON.stringify(text);
