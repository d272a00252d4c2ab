/** A cluster that lets in nobody but the gateway: real nginx that demands a client certificate, and what the client is told without. */
import { createServer, type Server } from "node:https";
import type { AddressInfo } from "node:net";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, expect, it } from "vitest";
import { CertificateAuthority, opensslAvailable } from "./certificates.ts";
import { type Asking, ask as askAt } from "./client.ts";
import { describeWithRealParts } from "./fixture.ts";
import { Gateway, type TlsService } from "./gateway.ts";
import { Ingress } from "./ingress.ts";
import { Origin } from "./origin.ts";

const HOST = "eu.example.com";
const ROUTES = `
import { api, binding, cluster, env, gateway, requestId, route } from "portcullis";
const names = ["good", "stranger", "none", "untrusted", "elsewhere", "refusal", "tls12", "tls13", "plain", "nobody"];
const all = Object.fromEntries(names.map((name) =>
  [name, cluster(name, { ingress: env("INGRESS"), certificate: binding(name.toUpperCase()) })]));
// nginx that demands certificates answers 421 where the Host header is another name than the handshake's.
const behind = (name) => cluster("behind-" + name.toLowerCase(), { ingress: binding(name), host: "${HOST}" });
export default gateway({ policies: [requestId({})] }, [
  api("shop", {}, [
    ...names.map((name) => route(name, { path: "/" + name + "/*" }, { to: all[name] })),
    route("behind-good", { path: "/behind-good/*" }, { to: behind("GOOD") }),
    route("behind-stranger", { path: "/behind-stranger/*" }, { to: behind("STRANGER") }),
    route("rescued", { path: "/rescued/*" }, { to: all.stranger.or(all.good) }),
  ]),
]);`;

describeWithRealParts("a cluster that demands a certificate", suite, { openssl: opensslAvailable() });

function suite(): void {
  let gateway: Gateway;
  let origin: Origin;
  const closing: (() => unknown)[] = [];

  beforeAll(async () => {
    const [authority, other] = [new CertificateAuthority("shop"), new CertificateAuthority("stranger")];
    const [server, own, stranger] = [authority.issue(HOST), authority.issue("gateway"), other.issue("gateway")];
    origin = await Origin.start("orders");
    const tls = { ...server, clientAuthorityFile: authority.own.certificateFile };
    const hosts = { [HOST]: origin.port, "api.example.com": origin.port };
    const ingress = await Ingress.start("eu", { hosts, tls });
    const refusing = await Ingress.start("refusing", { tls: { ...tls, refusal: 495 } });
    // As Envoy, Traefik and HAProxy do it: who has no certificate does not get through the handshake.
    const strict = await Promise.all(
      (["TLSv1.2", "TLSv1.3"] as const).map((version) => {
        const demands = { requestCert: true, rejectUnauthorized: true, minVersion: version, maxVersion: version };
        const options = { ...demands, key: server.key, cert: server.certificate, ca: authority.own.certificate };
        return listening(createServer(options, (_, response) => response.end("let in")));
      }),
    );
    const service = (port: number, keypair?: TlsService["keypair"], more: Partial<TlsService> = {}): TlsService => ({
      port,
      host: HOST,
      trusted: authority.own.certificate,
      ...(keypair && { keypair }),
      ...more,
    });
    const [tls12, tls13] = strict.map((server) => (server.address() as AddressInfo).port) as [number, number];
    gateway = await Gateway.start({
      routes: ROUTES,
      texts: { INGRESS: `https://${HOST}` },
      services: {
        GOOD: service(ingress.port, own),
        STRANGER: service(ingress.port, stranger),
        NONE: service(ingress.port),
        UNTRUSTED: service(ingress.port, own, { trusted: other.own.certificate }),
        ELSEWHERE: service(ingress.port, own, { host: "us.example.com" }),
        REFUSAL: service(refusing.port, stranger),
        TLS12: service(tls12, stranger),
        TLS13: service(tls13, stranger),
        PLAIN: service(origin.port, own),
        // Port 1 is tcpmux, which nothing listens on.
        NOBODY: service(1, own),
      },
    });
    closing.push(
      () => gateway.close(),
      () => Promise.all([ingress.close(), refusing.close(), origin.close()]),
      () => Promise.all(strict.map((server) => new Promise((resolve) => server.close(resolve).closeAllConnections()))),
      () => [authority, other].map((each) => each.close()),
    );
  });
  afterAll(async () => {
    for (const close of closing) await close();
  });

  const ask = (path: string, asking?: Asking) => askAt(gateway.port, path, asking);

  it.each(["/good/x", "/behind-good/x"])("answers the gateway, which shows its own, at %s", async (path) => {
    for (const asking of [{}, { method: "POST", body: "{}" }]) {
      const answer = await ask(path, asking);
      expect(answer.status).toBe(200);
      expect(answer.echo().headers["x-client-dn"]).toBe("CN=gateway");
    }
  });

  it.each([
    ["of another authority", "stranger"],
    ["at all", "none"],
    ["of another authority, and says so with 495", "refusal"],
    ["of another authority through a binding", "behind-stranger"],
  ])("refuses one %s: 502 upstream-certificate", async (_, name) => {
    for (const asking of [{}, { method: "POST", body: "{}" }]) {
      const answer = await ask(`/${name}/x`, asking);
      expect([answer.status, answer.json().code]).toEqual([502, "upstream-certificate"]);
      expect(answer.headers["content-type"]).toBe("application/problem+json");
      expect(answer.text()).not.toContain("nginx");
      expect(await gateway.recordOf(answer)).toMatchObject({
        reason: "upstream-certificate",
        attempts: [{ backend: name, error: "upstream-certificate" }],
      });
    }
    expect(origin.arrivedAt(`/${name}/`)).toEqual([]);
  });

  // nginx does not read what comes after its refusal, so that the connection may be reset before the gateway has read that.
  it("refuses one also in the middle of an upload", async () => {
    const answer = await ask("/none/x", { method: "POST", body: Buffer.alloc(5_000_000) });
    expect(answer.status).toBe(502);
    expect(["upstream-certificate", "upstream-unreachable"]).toContain(answer.json().code);
  });

  it.each([
    ["has one of an authority that is not trusted", "untrusted"],
    ["has one for another name", "elsewhere"],
    ["refuses the gateway's in the handshake of TLS 1.2", "tls12"],
    ["speaks no TLS", "plain"],
  ])("that %s is not asked: 502 upstream-tls", async (_, name) => {
    const answer = await ask(`/${name}/x`);
    expect([answer.status, answer.json().code]).toEqual([502, "upstream-tls"]);
    expect(answer.text()).not.toMatch(/internal error|reference/);
    expect(await gateway.recordOf(answer)).toMatchObject({
      reason: "upstream-tls",
      attempts: [{ backend: name, error: "upstream-tls" }],
    });
    expect(origin.arrivedAt(`/${name}/`)).toEqual([]);
  });

  it("that refuses it in the handshake of TLS 1.3 looks as if it hung up", async () => {
    const answer = await ask("/tls13/x");
    expect(answer.status).toBe(502);
    expect(["upstream-tls", "upstream-unreachable"]).toContain(answer.json().code);
  });

  it("that is not there is told apart from one that refuses", async () => {
    expect((await ask("/nobody/x")).json().code).toBe("upstream-unreachable");
  });

  it("is replaced by the next one when it refuses", async () => {
    const answer = await ask("/rescued/x");
    expect(answer.status).toBe(200);
    expect(await gateway.recordOf(answer)).toMatchObject({
      attempts: [
        { backend: "stranger", error: "upstream-certificate" },
        { backend: "good", status: 200 },
      ],
    });
  });

  const page = (text: string) => `<html><head><title>${text}</title></head><body>${text}</body></html>`;
  it.each([
    ["a page", page("400 Bad Request"), {}],
    ["a page about certificates", page("The SSL certificate error of your payment"), {}],
    ["a long page", page("400 The SSL certificate error").padEnd(2_000), {}],
    ["a compressed page", gzipSync(page("400 The SSL certificate error")), { "content-encoding": "gzip" }],
    ["a problem", '{"title":"400 The SSL certificate error"}', { "content-type": "application/problem+json" }],
    ["nothing", "", {}],
  ])("may answer 400 with %s of its own", async (_, body, headers) => {
    origin.on("/good/wrong", (__, response) => {
      response.writeHead(400, { "content-type": "text/html", "content-length": Buffer.byteLength(body), ...headers });
      response.end(body);
    });
    const answer = await ask("/good/wrong", { headers: { "accept-encoding": "gzip" } });
    expect(answer.status).toBe(400);
    expect(answer.body.equals(Buffer.from(body))).toBe(true);
    expect(await gateway.recordOf(answer)).not.toHaveProperty("reason");
  });

  it("leaves no key in the log", () => {
    expect(gateway.records.length).toBeGreaterThan(10);
    expect(gateway.log()).not.toContain("PRIVATE KEY");
  });
}

async function listening(server: Server): Promise<Server> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server;
}
