/** A real nginx as a cluster's ingress: a process with a configuration of its own, which can be killed and started again. */
import { accessSync, constants, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { freePort, type Running, run, until } from "./process.ts";

/** Where nginx is; undefined when it is not installed. Debian puts it where only root's PATH looks. */
export const nginx: string | undefined = [...(process.env.PATH ?? "").split(delimiter), "/usr/sbin"]
  .map((folder) => join(folder, "nginx"))
  .find((file) => {
    try {
      accessSync(file, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });

export interface IngressTls {
  /** Paths of PEM files. */
  readonly certificateFile: string;
  readonly keyFile: string;
  /** Whose client certificates are let in. */
  readonly clientAuthorityFile: string;
  /** What nginx answers instead of its own pages to a wrong and to a missing certificate (495, 496). Default: 400, as it comes. */
  readonly refusal?: number;
}

export interface IngressRules {
  /** By the first segment of the path: `orders` takes `/orders/...`, and hands it on unchanged. */
  readonly paths?: Readonly<Record<string, number>>;
  readonly hosts?: Readonly<Record<string, number>>;
  /** Default: plain http. Services get the subject of the client's certificate in `X-Client-DN`. */
  readonly tls?: IngressTls;
}

/** Stays on its port over restarts. What it forwards carries its name in `X-Ingress`. */
export class Ingress {
  readonly name: string;
  readonly port: number;
  readonly #scheme: "http" | "https";
  readonly #folder = mkdtempSync(join(tmpdir(), "portcullis-nginx-"));
  #process: Running | undefined;

  private constructor(name: string, port: number, rules: IngressRules) {
    this.name = name;
    this.port = port;
    this.#scheme = rules.tls ? "https" : "http";
    writeFileSync(join(this.#folder, "nginx.conf"), configuration(name, port, rules, this.#folder));
  }

  static async start(name: string, rules: IngressRules): Promise<Ingress> {
    const ingress = new Ingress(name, await freePort(), rules);
    await ingress.start();
    return ingress;
  }

  get url(): string {
    return `${this.#scheme}://127.0.0.1:${this.port}`;
  }

  async start(): Promise<void> {
    const started = run(nginx ?? "nginx", ["-p", this.#folder, "-c", join(this.#folder, "nginx.conf"), "-e", "stderr"]);
    this.#process = started;
    await until("nginx listens", () => accepts(this.port)).catch((error) => {
      throw new Error(`${error.message}\n${started.output()}`);
    });
  }

  /** At once, with whatever it was doing. */
  async kill(): Promise<void> {
    await this.#process?.kill();
    this.#process = undefined;
  }

  /** Leaves it listening, and deaf and dumb. */
  freeze(): void {
    if (this.#process) process.kill(this.#process.pid, "SIGSTOP");
  }

  thaw(): void {
    if (this.#process) process.kill(this.#process.pid, "SIGCONT");
  }

  async close(): Promise<void> {
    await this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

export const accepts = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect({ host: "127.0.0.1", port });
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
    socket.once("connect", () => socket.destroy());
  });

// nginx drops headers with underscores unless told otherwise; here they must arrive, so that the gateway is what removes them.
function configuration(name: string, port: number, rules: IngressRules, folder: string): string {
  const { paths = {}, hosts = {}, tls } = rules;
  const address = `127.0.0.1:${port}${tls ? " ssl" : ""}`;
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
  return `
daemon off;
master_process off;
worker_processes 1;
pid ${folder}/nginx.pid;
events { worker_connections 1024; }
http {
  access_log off;
  ${temporary.map((kind) => `${kind}_temp_path ${folder}/${kind};`).join("\n  ")}
  underscores_in_headers on;
  large_client_header_buffers 8 128k;
  client_max_body_size 0;
  keepalive_requests 100000;
  proxy_http_version 1.1;
  proxy_buffering off;
  proxy_request_buffering off;
  map $http_upgrade $connection_upgrade { default upgrade; "" ""; }
  proxy_set_header Host $http_host;
  proxy_set_header Upgrade $http_upgrade;
  proxy_set_header Connection $connection_upgrade;
  proxy_set_header X-Ingress ${name};
  ${tls ? tlsDirectives(tls) : ""}
  server {
    listen ${address} default_server;
    ${tls?.refusal ? `error_page 495 496 =${tls.refusal} @refused; location @refused { return 200; }` : ""}
    location / { return 404 "the ingress ${name} knows no such path"; }
${Object.entries(paths)
  .map(([segment, target]) => `    location /${segment}/ { proxy_pass http://127.0.0.1:${target}; }`)
  .join("\n")}
  }
${Object.entries(hosts)
  .map(
    ([host, target]) =>
      `  server { listen ${address}; server_name ${host}; location / { proxy_pass http://127.0.0.1:${target}; } }`,
  )
  .join("\n")}
}
`;
}

const tlsDirectives = ({ certificateFile, keyFile, clientAuthorityFile }: IngressTls): string => `
  ssl_certificate ${certificateFile};
  ssl_certificate_key ${keyFile};
  ssl_client_certificate ${clientAuthorityFile};
  ssl_verify_client on;
  proxy_set_header X-Client-DN $ssl_client_s_dn;`;
