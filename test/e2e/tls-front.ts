/**
 * What Cloudflare does in front of a Worker for client certificates, by a real nginx: it ends TLS, verifies what the client shows
 * against a CA and its revocation list, and tells the Worker in `request.cf.tlsClientAuth`. Certificates are made by openssl.
 */

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:https";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CF_HEADER } from "./gateway.ts";
import { nginx } from "./ingress.ts";
import { freePort, type Running, run, until } from "./process.ts";

export interface ClientKey {
  readonly cert: Buffer;
  readonly key: Buffer;
  /** In hexadecimal. */
  readonly serial: string;
}

export class TlsFront {
  readonly #folder = mkdtempSync(join(tmpdir(), "portcullis-tls-"));
  #process: Running | undefined;
  #port = 0;

  constructor() {
    writeFileSync(join(this.#folder, "index.txt"), "");
    writeFileSync(join(this.#folder, "crlnumber"), "1000\n");
    writeFileSync(
      join(this.#folder, "ca.cnf"),
      `[ca]\ndefault_ca=c\n[c]\ndatabase=${this.#folder}/index.txt\ncrlnumber=${this.#folder}/crlnumber\ndefault_md=sha256\ndefault_crl_days=1\n`,
    );
    this.#authority("ca", "/C=DE/O=Shop/CN=Shop CA");
    this.#authority("other-ca", "/CN=Other CA");
  }

  /** A certificate for `subject`, written as `/C=DE/CN=name`. */
  issue(name: string, subject: string, by = "ca", days = 1): ClientKey {
    const file = (end: string) => join(this.#folder, `${name}.${end}`);
    this.#openssl(
      "req",
      "-new",
      "-newkey",
      "ec",
      "-pkeyopt",
      "ec_paramgen_curve:P-256",
      "-nodes",
      "-subj",
      subject,
      "-keyout",
      file("key"),
      "-out",
      file("csr"),
    );
    const authority = (end: string) => join(this.#folder, `${by}.${end}`);
    this.#openssl(
      "x509",
      "-req",
      "-in",
      file("csr"),
      "-CA",
      authority("pem"),
      "-CAkey",
      authority("key"),
      "-CAcreateserial",
      "-days",
      String(days),
      "-out",
      file("pem"),
    );
    const serial = this.#openssl("x509", "-in", file("pem"), "-noout", "-serial").trim().replace("serial=", "");
    return { cert: readFileSync(file("pem")), key: readFileSync(file("key")), serial };
  }

  /** From the next `start` on. */
  revoke(name: string): void {
    const authority = [
      "-config",
      join(this.#folder, "ca.cnf"),
      "-cert",
      join(this.#folder, "ca.pem"),
      "-keyfile",
      join(this.#folder, "ca.key"),
    ];
    this.#openssl("ca", ...authority, "-revoke", join(this.#folder, `${name}.pem`));
    this.#openssl("ca", ...authority, "-gencrl", "-out", join(this.#folder, "crl.pem"));
  }

  /** In front of the gateway on `port`. */
  async start(port: number): Promise<void> {
    this.#port = await freePort();
    writeFileSync(join(this.#folder, "nginx.conf"), configuration(this.#folder, this.#port, port));
    const started = run(nginx ?? "nginx", ["-p", this.#folder, "-c", join(this.#folder, "nginx.conf"), "-e", "stderr"]);
    this.#process = started;
    await until("nginx listens", () => accepts(this.#port)).catch((error) => {
      throw new Error(`${error.message}\n${started.output()}`);
    });
  }

  ask(
    path: string,
    client?: ClientKey,
    headers: Record<string, string> = {},
  ): Promise<{ status: number; body: string }> {
    return new Promise((resolve, reject) => {
      const sent = request(
        {
          host: "127.0.0.1",
          port: this.#port,
          path,
          headers: { host: "api.example.com", ...headers },
          ca: readFileSync(join(this.#folder, "ca.pem")),
          checkServerIdentity: () => undefined,
          agent: false,
          ...(client && { cert: client.cert, key: client.key }),
        },
        (response) => {
          let body = "";
          response.setEncoding("utf8").on("data", (chunk: string) => (body += chunk));
          response.on("end", () => resolve({ status: response.statusCode ?? 0, body }));
        },
      );
      sent.on("error", reject).end();
    });
  }

  async close(): Promise<void> {
    await this.#process?.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #authority(name: string, subject: string): void {
    const file = (end: string) => join(this.#folder, `${name}.${end}`);
    this.#openssl(
      "req",
      "-x509",
      "-newkey",
      "ec",
      "-pkeyopt",
      "ec_paramgen_curve:P-256",
      "-nodes",
      "-days",
      "1",
      "-subj",
      subject,
      "-keyout",
      file("key"),
      "-out",
      file("pem"),
    );
  }

  #openssl(...args: string[]): string {
    return execFileSync("openssl", args, { encoding: "utf8", stdio: "pipe" });
  }
}

const accepts = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect({ host: "127.0.0.1", port });
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
    socket.once("connect", () => socket.destroy());
  });

/** nginx says that a revoked certificate failed; Cloudflare says that it verifies, and beside it that it is revoked. */
function configuration(folder: string, port: number, gateway: number): string {
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
  return `
daemon off;
master_process off;
pid ${folder}/nginx.pid;
events { worker_connections 64; }
http {
  access_log off;
  ${temporary.map((kind) => `${kind}_temp_path ${folder}/${kind};`).join("\n  ")}
  map $ssl_client_verify $presented { NONE 0; default 1; }
  map $ssl_client_verify $verified { "FAILED:certificate revoked" SUCCESS; default $ssl_client_verify; }
  map $ssl_client_verify $revoked { "FAILED:certificate revoked" 1; default 0; }
  server {
    listen 127.0.0.1:${port} ssl;
    ssl_certificate ${folder}/ca.pem;
    ssl_certificate_key ${folder}/ca.key;
    ssl_client_certificate ${folder}/ca.pem;
    ssl_crl ${folder}/crl.pem;
    ssl_verify_client optional_no_ca;
    # A certificate that failed is the gateway's to refuse, as behind Cloudflare.
    error_page 495 = @gateway;
    location / { try_files /none @gateway; }
    location @gateway {
      proxy_set_header Host $http_host;
      proxy_set_header ${CF_HEADER} '{"tlsClientAuth":{"certPresented":"$presented","certVerified":"$verified","certRevoked":"$revoked","certSubjectDNRFC2253":"$ssl_client_s_dn","certIssuerDNRFC2253":"$ssl_client_i_dn","certSerial":"$ssl_client_serial"}}';
      proxy_pass http://127.0.0.1:${gateway};
    }
  }
}
`;
}
