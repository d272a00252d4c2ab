/**
 * From manifests to a gateway that answers, by the commands that an operator has: `import`, `build`, and worker.js in workerd. Each
 * Service is an `external` service there: a fixed address, to which the URL's host goes as Host, like a VPC service on Cloudflare.
 */
import { execFile } from "node:child_process";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { stringify } from "yaml";
import { type Running, run, until } from "../../e2e/process.ts";
import type { EchoOrigin, ServicePort } from "./echo.ts";
import { SCHEME_HEADER } from "./exchange.ts";

// The package has no types; its default export is the path of the binary.
const { default: workerd } = createRequire(import.meta.url)("workerd") as { default: string };

const CLI = fileURLToPath(new URL("../../../src/cli.ts", import.meta.url));

const COMPILED = join(tmpdir(), "portcullis-conformance-compiled");

/** On which step it failed, and what that said. */
export class DeploymentFailed extends Error {
  readonly stage: "import" | "build" | "start";

  constructor(stage: DeploymentFailed["stage"], said: string) {
    super(`${stage}: ${said.trim()}`);
    this.stage = stage;
  }
}

/**
 * Imports one Gateway of the manifests and builds what comes out, into `folder`: endpoints.yaml, routes/, import.log, out/worker.js.
 * Throws DeploymentFailed.
 */
export async function build(
  gateway: string,
  manifests: readonly string[],
  services: readonly ServicePort[],
  folder: string,
): Promise<void> {
  await mkdir(folder, { recursive: true });
  const endpoints = join(folder, "endpoints.yaml");
  const routes = join(folder, "routes");
  await writeFile(endpoints, endpointsOf(services));
  // Of a run before, where the folder is kept: import writes over nothing.
  await rm(routes, { recursive: true, force: true });
  const report = await command("import", [
    ...manifests,
    "--gateway",
    gateway,
    "--endpoints",
    endpoints,
    "--out",
    routes,
  ]);
  await writeFile(join(folder, "import.log"), report);
  await command("build", ["--routes", routes, "--out", join(folder, "out")]);
}

async function command(stage: "import" | "build", args: readonly string[]): Promise<string> {
  // What the test runner has set for itself is not for the command.
  const { FORCE_COLOR: _, NODE_OPTIONS: __, VITEST: ___, ...env } = process.env;
  try {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [CLI, stage, ...args], {
      // Each of some forty commands would compile the same sources: half of what it takes.
      env: { ...env, NODE_COMPILE_CACHE: COMPILED },
    });
    return stdout + stderr;
  } catch (error) {
    const { stdout = "", stderr = "", message } = error as Error & { stdout?: string; stderr?: string };
    throw new DeploymentFailed(stage, stderr || stdout || message);
  }
}

/** One entry for each port of each Service: `"namespace/service:port": { binding: NAME }`. */
function endpointsOf(services: readonly ServicePort[]): string {
  return stringify(Object.fromEntries(services.map((served) => [keyOf(served), { binding: bindingOf(served) }])));
}

const keyOf = ({ namespace, service, port }: ServicePort): string => `${namespace}/${service}:${port}`;

/** Bindings are names in a program. */
const bindingOf = ({ namespace, service, port }: ServicePort): string =>
  `${namespace}_${service}_${port}`.toUpperCase().replaceAll(/[^A-Z0-9]/g, "_");

export class Gateway {
  readonly port: number;
  readonly #workerd: Running;

  private constructor(port: number, workerd: Running) {
    this.port = port;
    this.#workerd = workerd;
  }

  /** Runs `folder`/out/worker.js. Throws DeploymentFailed when it does not start. */
  static async start(folder: string, origins: readonly EchoOrigin[]): Promise<Gateway> {
    const config = join(folder, "out", "gateway.capnp");
    await writeFile(config, configuration(origins));
    let port: number | undefined;
    const running = run(workerd, ["serve", config, "--control-fd=3"], {
      onFd3: (line) => {
        port = (JSON.parse(line) as { port: number }).port;
      },
    });
    await Promise.race([until("workerd listens", () => port !== undefined).catch(() => {}), running.ended]);
    if (port === undefined) {
      await running.kill();
      throw new DeploymentFailed("start", running.output() || "workerd does not listen after 10 s");
    }
    return new Gateway(port, running);
  }

  /** Decision records and everything else that it has written. */
  log(): string {
    return this.#workerd.output();
  }

  close(): Promise<void> {
    return this.#workerd.kill();
  }
}

function configuration(origins: readonly EchoOrigin[]): string {
  const services = origins.map(({ served, port }) => {
    const name = JSON.stringify(bindingOf(served));
    return { service: `(name = ${name}, external = (address = "127.0.0.1:${port}", http = ()))`, name };
  });
  return `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "gateway", worker = .gateway),
    ${services.map(({ service }) => service).join(",\n    ")}
  ],
  sockets = [(
    name = "http",
    address = "127.0.0.1:0",
    http = (forwardedProtoHeader = "${SCHEME_HEADER}"),
    service = "gateway",
  )],
);
const gateway :Workerd.Worker = (
  modules = [(name = "worker.js", esModule = embed "worker.js")],
  compatibilityDate = "2026-10-20",
  compatibilityFlags = ["enable_request_signal"],
  bindings = [
    ${services.map(({ name }) => `(name = ${name}, service = ${name})`).join(",\n    ")}
  ],
);
`;
}
