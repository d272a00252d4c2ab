/** Clusters that ask for the gateway's certificate: a real nginx that demands one, and a server that ends the handshake without. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type Asking, ask } from "./client.ts";
import { describeWithRealParts } from "./fixture.ts";
import { Gateway, type TlsParts } from "./gateway.ts";
import { accepts, nginx } from "./ingress.ts";
import { freePort, type Running, run, until } from "./process.ts";

const HOST = "eu.example.com";
const KINDS = ["right", "foreign", "none", "bare", "untrusted"] as const;

const ROUTES = `
import { api, binding, cluster, env, gateway, route } from "portcullis";
const kinds = ${JSON.stringify(KINDS)};
export default gateway({}, [
  api("shop", {}, kinds.map((kind) =>
    route(kind, { path: "/" + kind + "/*" }, {
      to: cluster(kind, { ingress: env("EU"), certificate: binding(kind.toUpperCase()) }),
      timeouts: { firstByte: "2s", total: "4s" } }))),
]);`;

const folder = mkdtempSync(join(tmpdir(), "portcullis-mtls-"));
const file = (name: string) => join(folder, name);
const pem = (name: string) => readFileSync(file(name), "utf8");

/** A key and a certificate of this name, signed by `issuer`, or by itself. */
function certificate(name: string, subject: string, issuer?: string): void {
  const openssl = (...args: string[]) => execFileSync("openssl", args, { stdio: "pipe" });
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", file(`${name}.key`)];
  const subjectName = ["-subj", `/CN=${subject}`];
  const signed = issuer ? ["-CA", file(`${issuer}.pem`), "-CAkey", file(`${issuer}.key`)] : [];
  const names = issuer ? ["-addext", `subjectAltName=DNS:${subject}`, "-addext", "basicConstraints=CA:FALSE"] : [];
  openssl("req", "-x509", "-days", "2", "-out", file(`${name}.pem`), ...key, ...subjectName, ...signed, ...names);
}

describeWithRealParts("a cluster's certificate", () => {
  let gateway: Gateway;
  let ingress: Running;
  let strict: Server;
  beforeAll(async () => {
    certificate("authority", "authority");
    certificate("stranger", "stranger");
    certificate("server", HOST, "authority");
    certificate("gateway", "gateway", "authority");
    certificate("foreign", "gateway", "stranger");
    const port = await freePort();
    writeFileSync(file("nginx.conf"), configuration(port));
    ingress = run(nginx ?? "nginx", ["-p", folder, "-c", file("nginx.conf"), "-e", "stderr"]);
    await until("nginx listens", () => accepts(port));
    // Ends the handshake itself, as Envoy and Traefik do.
    strict = createServer(
      { key: pem("server.key"), cert: pem("server.pem"), ca: pem("authority.pem"), requestCert: true },
      (_, response) => response.end("welcome"),
    );
    await new Promise<void>((resolve) => strict.listen(0, "127.0.0.1", resolve));
    const own = (name: string) => ({ key: pem(`${name}.key`), certificate: pem(`${name}.pem`) });
    const server = { port, host: HOST, trusted: pem("authority.pem") };
    const certificates: Record<Uppercase<(typeof KINDS)[number]>, TlsParts> = {
      RIGHT: { ...server, client: own("gateway") },
      FOREIGN: { ...server, client: own("foreign") },
      NONE: server,
      BARE: { ...server, port: (strict.address() as AddressInfo).port },
      UNTRUSTED: { ...server, trusted: pem("stranger.pem"), client: own("gateway") },
    };
    gateway = await Gateway.start({ routes: ROUTES, texts: { EU: `https://${HOST}` }, certificates });
  });
  afterAll(async () => {
    strict?.close();
    await Promise.all([gateway?.close(), ingress?.kill()]);
    rmSync(folder, { recursive: true, force: true });
  });

  const codeOf = async (path: string, asking?: Asking) => {
    const answer = await ask(gateway.port, path, asking);
    return answer.status === 200 ? answer.text() : [answer.status, answer.json().code];
  };

  it("that is right opens it, for every method", async () => {
    for (const method of ["GET", "PUT", "POST"]) expect(await codeOf("/right/x", { method })).toBe("CN=gateway");
    expect((await ask(gateway.port, "/right/x", { method: "HEAD" })).status).toBe(200);
  });

  it.each(["foreign", "none"])("that is %s is told apart from a cluster that is away", async (kind) => {
    for (const method of ["GET", "POST"])
      expect(await codeOf(`/${kind}/x`, { method })).toEqual([502, "upstream-certificate"]);
  });

  it("that is missing ends the handshake where the cluster wants it there", async () => {
    expect(await codeOf("/bare/x")).toEqual([502, "upstream-tls"]);
  });

  it("of its own must be one that the gateway trusts", async () => {
    expect(await codeOf("/untrusted/x")).toEqual([502, "upstream-tls"]);
  });

  it("is not what a service complains of in words of its own", async () => {
    const answer = await ask(gateway.port, "/right/complains");
    expect([answer.status, answer.text()]).toEqual([400, "<p>Your SSL certificate is not ours.</p>"]);
  });
});

const configuration = (port: number) => `
daemon off;
master_process off;
worker_processes 1;
pid ${folder}/nginx.pid;
events {}
http {
  access_log off;
  ${["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((kind) => `${kind}_temp_path ${folder}/${kind};`).join("\n  ")}
  server {
    listen 127.0.0.1:${port} ssl;
    ssl_certificate ${folder}/server.pem;
    ssl_certificate_key ${folder}/server.key;
    ssl_client_certificate ${folder}/authority.pem;
    ssl_verify_client on;
    location /right/complains { default_type text/html; return 400 "<p>Your SSL certificate is not ours.</p>"; }
    location / { return 200 "$ssl_client_s_dn"; }
  }
}
`;
