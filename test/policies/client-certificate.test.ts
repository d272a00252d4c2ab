import { describe, expect, test } from "vitest";
import { consumer } from "../../src/config/consumer.ts";
import { type ClientCertificateOptions, compile, run, schema } from "../../src/policies/client-certificate.ts";
import { normalName } from "../../src/policies/distinguished-name.ts";
import type { RouteTable } from "../../src/table/table.ts";
import { compileContext, type PolicyResult, startPolicy } from "./exchange.ts";

const FINGERPRINT = "AB".repeat(32);
/** As Cloudflare tells of a good certificate: everything is a text. */
const good = {
  certPresented: "1",
  certVerified: "SUCCESS",
  certRevoked: "0",
  certFingerprintSHA256: FINGERPRINT.toLowerCase(),
  certSubjectDNRFC2253: "CN=Partner One,O=Partner\\, Inc.,C=DE",
  certIssuerDNRFC2253: "CN=Shop CA,O=Shop,C=DE",
  certSerial: "00A1B2C3",
};
const partner = consumer("partner");

function start(options: ClientCertificateOptions = {}) {
  const context = compileContext();
  const config = compile(options, context);
  expect(context.problems).toEqual([]);
  const table = { consumers: { partner: { name: "partner", plan: "gold" } } } as unknown as RouteTable;
  const send = startPolicy(run, config, { table });
  return (tlsClientAuth?: Record<string, unknown>) => {
    const request = new Request("https://api.example.com/");
    Object.defineProperty(request, "cf", { value: { tlsClientAuth } });
    return send(request);
  };
}

async function expectRefused(result: PolicyResult, why: string) {
  expect([result.response.status, result.passed, result.exchange.record.policies[0]?.facts?.why]).toEqual([
    401,
    false,
    why,
  ]);
  expect(await result.response.json()).toMatchObject({ code: "credentials-invalid" });
  expect(result.response.headers.get("www-authenticate")).toBe('ClientCertificate realm="orders"');
}

describe("a certificate", () => {
  test("that Cloudflare has verified passes, and tells whose it is", async () => {
    const ask = start({ certificates: [{ fingerprint: FINGERPRINT, consumer: partner, scopes: ["read"] }] });
    for (let warm = 0; warm < 2; warm++) {
      const { exchange, passed } = await ask(good);
      expect(passed).toBe(true);
      expect(exchange.caller).toEqual({
        consumer: "partner",
        plan: "gold",
        subject: "certificate:CN=Partner One,O=Partner\\, Inc.,C=DE",
        scopes: ["read"],
        claims: {
          subject: good.certSubjectDNRFC2253,
          issuer: good.certIssuerDNRFC2253,
          serial: "a1b2c3",
          fingerprint: good.certFingerprintSHA256,
        },
        credential: { kind: "clientCertificate", id: good.certFingerprintSHA256 },
      });
      expect(Object.fromEntries(exchange.upstream)).toEqual({
        "x-consumer-name": "partner",
        "x-consumer-plan": "gold",
        "x-consumer-scopes": "read",
        "x-consumer-subject": good.certSubjectDNRFC2253,
      });
    }
  });

  test.each<[string, Partial<Record<keyof typeof good, unknown>>, string]>([
    ["that failed", { certVerified: "FAILED:self signed certificate" }, "unverified"],
    ["that has expired", { certVerified: "FAILED:certificate has expired" }, "unverified"],
    ["that was not looked at", { certVerified: "NONE" }, "unverified"],
    ["of which nothing is said", { certVerified: undefined }, "unverified"],
    ["that was revoked, and verifies all the same", { certRevoked: "1" }, "revoked"],
    ["of which nothing is said about revocation", { certRevoked: undefined }, "revoked"],
    ["with a false that is no text", { certRevoked: false }, "revoked"],
    ["of somebody else", { certFingerprintSHA256: "cd".repeat(32) }, "unknown"],
    ["without a fingerprint", { certFingerprintSHA256: undefined }, "unknown"],
  ])("%s is refused", async (_, changes, why) => {
    const ask = start({ certificates: [{ fingerprint: FINGERPRINT, consumer: partner }] });
    expect((await ask(good)).passed).toBe(true);
    await expectRefused(await ask({ ...good, ...changes }), why);
  });

  test("is looked at again each time: it may be revoked meanwhile", async () => {
    const ask = start();
    expect((await ask(good)).passed).toBe(true);
    await expectRefused(await ask({ ...good, certRevoked: "1" }), "revoked");
  });

  test.each<[string, Omit<NonNullable<ClientCertificateOptions["certificates"]>[number], "consumer">, boolean]>([
    ["fingerprint with colons", { fingerprint: (FINGERPRINT.match(/../g) as string[]).join(":") }, true],
    ["subject in another case and with blanks", { subject: "cn = partner  one, O=PARTNER\\, INC., c=de" }, true],
    ["subject with hexadecimal escapes", { subject: "CN=Partner One,O=Partner\\2c Inc.,C=DE" }, true],
    ["subject in another order", { subject: "C=DE,O=Partner\\, Inc.,CN=Partner One" }, false],
    ["part of the subject", { subject: "CN=Partner One" }, false],
    ["issuer and serial", { issuer: "CN=Shop CA,O=Shop,C=DE", serial: "a1:b2:c3" }, true],
    ["the serial of another issuer", { issuer: "CN=Other CA", serial: "a1b2c3" }, false],
    ["subject and issuer", { subject: good.certSubjectDNRFC2253, issuer: good.certIssuerDNRFC2253 }, true],
    ["subject by another issuer", { subject: good.certSubjectDNRFC2253, issuer: "CN=Other CA" }, false],
  ])("is known by %s: %s", async (_, identity, known) => {
    const ask = start({ certificates: [{ ...identity, consumer: partner }] });
    expect((await ask(good)).passed).toBe(known);
  });

  test("of nobody passes where any will do", async () => {
    expect((await start()(good)).exchange.caller).not.toHaveProperty("consumer");
    const ask = start({ certificates: [{ subject: "CN=other", consumer: partner }], anyVerified: true });
    expect((await ask(good)).exchange.caller).not.toHaveProperty("consumer");
  });

  test("is asked for where there is none", async () => {
    for (const tls of [undefined, {}, { certPresented: "0", certVerified: "NONE" }, { certPresented: true }]) {
      const { response } = await start()(tls);
      expect([response.status, await response.json()]).toEqual([
        401,
        expect.objectContaining({ code: "credentials-missing" }),
      ]);
      expect((await start({ optional: true })(tls)).passed).toBe(true);
    }
  });
});

describe("distinguished names", () => {
  test.each([
    ["CN=a,O=b", "cn=A, o=B", true],
    ["CN=a  b", "CN= a b ", true],
    ["CN=a\\,b", "CN=a\\2Cb", true],
    ["CN=\\C3\\A4", "CN=ä", true],
    ["CN=a+O=b", "O=b+CN=a", true],
    ["CN=a,O=b", "O=b,CN=a", false],
    ["CN=a,O=b", "CN=a+O=b", false],
    ["CN=a\\,O=b", "CN=a,O=b", false],
    ["CN=a\\\\,O=b", "CN=a\\\\,o=B", true],
    ["2.5.4.3=a", "CN=a", false],
    ["CN=50%", "CN=50\\25", true],
  ])("%s and %s are the same: %s", (one, other, same) => {
    expect(normalName(one)).toBeDefined();
    expect(normalName(one) === normalName(other)).toBe(same);
  });

  test.each(["", "a", "=a", "CN=a,", ",CN=a", "CN=a,,O=b", "CN=\\ff"])("%j is none", (text) => {
    expect(normalName(text)).toBeUndefined();
  });
});

describe("the build", () => {
  test.each<[RegExp, ClientCertificateOptions]>([
    [/of "partner" is told apart by nothing/, { certificates: [{ consumer: partner }] }],
    [/of "partner" is told apart by nothing/, { certificates: [{ issuer: "CN=a", consumer: partner }] }],
    [/serial "1" may be that of any issuer/, { certificates: [{ serial: "1", consumer: partner }] }],
    [/fingerprint "ab" is no SHA-256/, { certificates: [{ fingerprint: "ab", consumer: partner }] }],
    [/serial "12 34" is no number/, { certificates: [{ serial: "12 34", issuer: "CN=a", consumer: partner }] }],
    [/subject "partner" is no distinguished name/, { certificates: [{ subject: "partner", consumer: partner }] }],
  ])("reports %s", (expected, options) => {
    const context = compileContext();
    compile(options, context);
    expect(context.problems).toEqual([expect.stringMatching(expected)]);
  });

  test("knows the shape of its options", () => {
    expect(schema().safeParse({ certificates: [{ subject: "CN=a", consumer: partner }], optional: true }).success).toBe(
      true,
    );
    for (const bad of [{ certificates: [] }, { certificates: [{ subject: "CN=a", consumer: "a" }] }, { x: 1 }])
      expect([bad, schema().safeParse(bad).success]).toEqual([bad, false]);
  });
});
