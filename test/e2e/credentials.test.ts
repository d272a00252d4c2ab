/** Passwords, certificates, signatures and a service that decides: each by the real thing. */
import { createHash, createHmac, generateKeyPairSync, randomUUID, sign } from "node:crypto";
import { createServer, type IncomingHttpHeaders, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { hashCommand, removeCommand, setCommand } from "../../src/admin/users.ts";
import { folderOf } from "../build/module.ts";
import { describeWithRealParts, Fixture, secrets } from "./fixture.ts";
import { CF_HEADER } from "./gateway.ts";
import { type ClientKey, TlsFront } from "./tls-front.ts";

const SHARED = Buffer.from("a key that partner and gateway share, no one else");
const ed = generateKeyPairSync("ed25519");
const ec = generateKeyPairSync("ec", { namedCurve: "P-256" });

const ROUTES = (serial: string) => `
import { allow, anyOf, anonymous, authorize, basic, caller, client, deny, request, when, clientCertificate, forwardAuth, hmac } from "portcullis";
const partner = consumer("partner", { groups: ["partners"] });
const to = origin;
const certificate = clientCertificate({ certificates: [
  { subject: "CN=partner,O=Partner,C=DE", issuer: "CN=Shop CA,O=Shop,C=DE", consumer: partner },
  { issuer: "CN=Shop CA,O=Shop,C=DE", serial: "${serial}", consumer: storefront },
] });
export default gateway(settings, [
  api("credentials", {}, [
    route("basic", { path: "/basic" }, { policies: [basic({
      users: [{ name: "reports", password: secret("REPORTS_HASH"), consumer: partner }], store: true, maxAge: "1s", timeout: "5s" })], to }),
    route("certificate", { path: "/certificate" }, { policies: [certificate], to }),
    route("either", { path: "/either" }, { policies: [anyOf(certificate, token, anonymous())], to }),
    route("rules", { path: "/rules/{owner}" }, { policies: [token, authorize(
      allow("owner", when(request.method.is("GET", "PUT"), caller.claim("sub").is(request.param("owner")))),
      allow("storefront", caller.consumer.is(storefront)),
      deny("abroad", client.country.is("XX")),
    )], to }),
    route("signed", { path: "/signed" }, { policies: [hmac({ timeout: "5s", keys: [
      { id: "shared", key: secret("SHARED"), consumer: partner },
      { id: "ed", algorithm: "ed25519", key: secret("ED"), consumer: partner },
      { id: "ec", algorithm: "ecdsa-p256-sha256", key: secret("EC"), consumer: partner },
    ] })], to }),
    route("asked", { path: "/asked" }, { policies: [forwardAuth({ url: env("SERVICE"), responseHeaders: ["x-user-id"],
      subjectFrom: "x-user-id", timeout: "300ms" })], to }),
  ]),
]);`;

describeWithRealParts("credentials", () => {
  let on: Fixture;
  let front: TlsFront;
  let clients: Record<"partner" | "other" | "stranger" | "bySerial" | "revoked", ClientKey>;
  const asked: IncomingHttpHeaders[] = [];
  let answer = (response: ServerResponse): void => void response.end();
  const service = createServer(({ headers }, response) => {
    asked.push(headers);
    answer(response);
  });

  beforeAll(async () => {
    front = new TlsFront();
    clients = {
      partner: front.issue("partner", "/C=DE/O=Partner/CN=partner"),
      other: front.issue("other", "/C=DE/O=Other/CN=partner"),
      stranger: front.issue("stranger", "/C=DE/O=Partner/CN=partner", "other-ca"),
      bySerial: front.issue("serial", "/CN=anything"),
      revoked: front.issue("revoked", "/C=DE/O=Partner/CN=partner"),
    };
    front.revoke("revoked");
    await new Promise<void>((resolve) => service.listen(0, "127.0.0.1", resolve));
    on = await Fixture.start({
      routes: ROUTES(clients.bySerial.serial),
      cf: true,
      texts: {
        REPORTS_HASH: (await hashCommand(line("the password of reports"))).out,
        SHARED: SHARED.toString("base64"),
        ED: ed.publicKey.export({ type: "spki", format: "pem" }) as string,
        EC: JSON.stringify(ec.publicKey.export({ format: "jwk" })),
        SERVICE: `http://127.0.0.1:${(service.address() as AddressInfo).port}/check`,
      },
    });
    await front.start(on.gateway.port);
  });
  afterAll(async () => {
    await front?.close();
    await on?.close();
    service.closeAllConnections();
    service.close();
  });

  async function* line(text: string) {
    yield `${text}\n`;
  }

  describe("by name and password", () => {
    const login = (name: string, password: string) =>
      on.ask("/basic", {
        headers: { authorization: `Basic ${Buffer.from(`${name}:${password}`).toString("base64")}` },
      });

    it("let a declared user in, and nobody else", async () => {
      const answer = await login("reports", "the password of reports");
      expect(answer.status).toBe(200);
      expect(answer.echo().headers).toMatchObject({ "x-consumer-name": "partner", "x-consumer-subject": "reports" });
      expect(answer.echo().headers).not.toHaveProperty("authorization");
      expect((await login("reports", "the password of reportz")).status).toBe(401);
      expect((await login("guest", "the password of guests")).status).toBe(401);
    });

    it("let a user of the store in from when the command line sets it until it removes it", async () => {
      const folder = await folderOf({
        "routes/index.ts": `import { api, basic, cluster, env, gateway, route, secret } from "portcullis";
export default gateway({ store: { url: env("STORE_URL"), token: secret("STORE_TOKEN") } }, [
  api("a", { policies: [basic({ store: true })] }, [route("r", {}, { to: cluster("c", { ingress: env("C") }) })])]);`,
      });
      vi.stubEnv("STORE_URL", on.storeUrl);
      vi.stubEnv("STORE_TOKEN", secrets.store);
      const options = { routes: `${folder}/routes` };
      await setCommand("walk-in", { ...options, consumer: "partner", scope: "a b" }, line("the password of walk-ins"));
      const came = await login("walk-in", "the password of walk-ins");
      expect(came.echo().headers).toMatchObject({ "x-consumer-name": "partner", "x-consumer-scopes": "a b" });
      await removeCommand("walk-in", options);
      const removed = Date.now();
      while ((await login("walk-in", "the password of walk-ins")).status === 200)
        expect(Date.now() - removed).toBeLessThan(3_000);
      await expect(removeCommand("walk-in", options)).rejects.toThrow("there is no user walk-in");
      await expect(setCommand("a:b", options, line("long enough"))).rejects.toThrow("no colon");
      await expect(setCommand("a", options, line("short"))).rejects.toThrow("less than 8 characters");
      vi.unstubAllEnvs();
    });
  });

  describe("by certificate", () => {
    const consumer = ({ status, body }: { status: number; body: string }) =>
      status === 200 ? JSON.parse(body).headers["x-consumer-name"] : `${status} ${JSON.parse(body).code}`;

    it("let in whose subject and issuer, or serial, are known", async () => {
      expect(consumer(await front.ask("/certificate", clients.partner))).toBe("partner");
      expect(consumer(await front.ask("/certificate", clients.bySerial))).toBe("storefront");
      expect(consumer(await front.ask("/certificate", clients.other))).toBe("401 credentials-invalid");
    });

    it("keep out who has none, one of another CA, or one that was revoked", async () => {
      expect(consumer(await front.ask("/certificate"))).toBe("401 credentials-missing");
      expect(consumer(await front.ask("/certificate", clients.stranger))).toBe("401 credentials-invalid");
      expect(consumer(await front.ask("/certificate", clients.revoked))).toBe("401 credentials-invalid");
      const { policies } = await on.gateway.record(
        "of the revoked one",
        (record) => record.policies[0]?.facts?.why === "revoked",
      );
      expect(policies[0]).toMatchObject({ policy: "clientCertificate", verdict: "deny" });
    });

    it("go with tokens and the anonymous", async () => {
      expect(consumer(await front.ask("/either", clients.partner))).toBe("partner");
      expect(consumer(await front.ask("/either", undefined, await on.issuer.bearer({ client_id: "storefront" })))).toBe(
        "storefront",
      );
      expect(consumer(await front.ask("/either"))).toBe("anonymous");
      expect(consumer(await front.ask("/either", clients.revoked))).toBe("401 credentials-invalid");
    });
  });

  describe("by signature", () => {
    /** Signs as a partner would, with Node's own crypto. */
    function signed(key: "shared" | "ed" | "ec", body: string, parameters: Record<string, string | number> = {}) {
      const digest = `sha-256=:${createHash("sha256").update(body).digest("base64")}:`;
      const all = { created: Math.floor(Date.now() / 1_000), keyid: key, nonce: randomUUID(), ...parameters };
      const written = Object.entries(all).map(
        ([name, value]) => `;${name}=${typeof value === "number" ? value : `"${value}"`}`,
      );
      const input = `("@method" "@authority" "@path" "@query" "content-digest")${written.join("")}`;
      const base = Buffer.from(
        `"@method": POST\n"@authority": api.example.com\n"@path": /signed\n"@query": ?a=1\n"content-digest": ${digest}\n"@signature-params": ${input}`,
      );
      const signature = {
        shared: () => createHmac("sha256", SHARED).update(base).digest(),
        ed: () => sign(null, base, ed.privateKey),
        ec: () => sign("sha256", base, { key: ec.privateKey, dsaEncoding: "ieee-p1363" }),
      }[key]();
      return {
        "content-digest": digest,
        "signature-input": `sig=${input}`,
        signature: `sig=:${signature.toString("base64")}:`,
      };
    }
    const post = (headers: Record<string, string>, body: string) =>
      on.ask("/signed?a=1", { method: "POST", headers, body });

    it.each(["shared", "ed", "ec"] as const)(
      "let in who holds the key %s, with the body as it was signed",
      async (key) => {
        const body = "x".repeat(100_000);
        const answer = await post(signed(key, body), body);
        expect(answer.status).toBe(200);
        const { headers, body: came } = answer.echo();
        expect(headers).toMatchObject({ "x-consumer-name": "partner", "x-consumer-groups": "partners" });
        expect(headers).not.toHaveProperty("signature");
        expect(came.sha256).toBe(createHash("sha256").update(body).digest("hex"));
      },
    );

    it("keep out replays, of 20 at once all but one, and changed bodies", async () => {
      const headers = signed("shared", "body");
      const answers = await Promise.all(Array.from({ length: 20 }, () => post(headers, "body")));
      expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
      const changed = await post(signed("shared", "body"), "Body");
      expect([changed.status, changed.json().detail]).toEqual([401, "the digest is not that of the body"]);
      const old = await post(signed("ed", "body", { created: Math.floor(Date.now() / 1_000) - 600 }), "body");
      expect([old.status, old.json().detail]).toEqual([401, "the signature is too old"]);
    });
  });

  describe("and what they allow", () => {
    const ask = async (path: string, claims: Record<string, unknown> = {}, cf: object = {}) => {
      const headers = { ...(await on.issuer.bearer(claims)), [CF_HEADER]: JSON.stringify(cf) };
      const answer = await on.ask(path, { headers });
      return [answer.status, (await on.gateway.recordOf(answer)).policies.at(-1)?.facts?.rule];
    };

    it("is told by rules over request, caller and country", async () => {
      expect(await ask("/rules/user-1")).toEqual([200, "owner"]);
      expect(await ask("/rules/user-2")).toEqual([403, "none"]);
      expect(await ask("/rules/user-2", { client_id: "storefront" })).toEqual([200, "storefront"]);
      expect(await ask("/rules/user-1", {}, { country: "XX" })).toEqual([403, "abroad"]);
      expect(await ask("/rules/user-1", {}, { country: "DE" })).toEqual([200, "owner"]);
    });
  });

  describe("by a service", () => {
    const ask = () => on.ask("/asked", { headers: { authorization: "Bearer x", "x-user-id": "forged" } });

    it("let in whom it lets in, and tell the origin what it said", async () => {
      answer = (response) => response.writeHead(200, { "x-user-id": "u-1" }).end();
      const came = await ask();
      expect(came.status).toBe(200);
      expect(came.echo().headers).toMatchObject({ "x-user-id": "u-1", "x-consumer-subject": "u-1" });
      expect(asked.at(-1)).toMatchObject({
        authorization: "Bearer x",
        "x-forwarded-uri": "/asked",
      });
    });

    it("give its no to the client as it is", async () => {
      answer = (response) =>
        response.writeHead(302, { location: "https://login.example.com/", "set-cookie": ["a=1", "b=2"] }).end("go");
      const came = await ask();
      expect([came.status, came.headers.location, came.headers["set-cookie"], came.text()]).toEqual([
        302,
        "https://login.example.com/",
        ["a=1", "b=2"],
        "go",
      ]);
    });

    it("keep everybody out while it does not answer in time, with 503", async () => {
      answer = () => {};
      const started = Date.now();
      const came = await ask();
      expect([came.status, came.json().code]).toEqual([503, "credentials-unavailable"]);
      expect(Date.now() - started).toBeLessThan(2_000);
      expect((await on.gateway.recordOf(came)).policies[0]?.facts).toEqual({ service: "failed", why: "timeout" });
    });
  });

  it("leave no trace in the log", () => {
    const log = on.gateway.log();
    for (const secret of ["the password of", SHARED.toString("base64"), "pbkdf2"]) expect(log).not.toContain(secret);
    expect(on.leaked()).toEqual([]);
  });
});
