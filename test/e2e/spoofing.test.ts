/** Nothing that the gateway tells the cluster can be said by the client instead. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ask } from "./client.ts";
import { describeWithRealParts, Fixture } from "./fixture.ts";
import type { Gateway } from "./gateway.ts";
import { AUDIENCE, ISSUER } from "./issuer.ts";

const apis = `[
  api("shop", {}, [
    route("open", { path: "/open/*" }, { to: origin }),
    route("known", { path: "/known/*" }, { policies: [token], to: origin }),
    route("forwarded", { path: "/forwarded/*" }, { policies: [jwt({ issuer: "${ISSUER}", audience: "${AUDIENCE}",
      jwks: env("ISSUER_JWKS"), claimsToHeaders: { sub: "x-user-id" }, forwardToken: true })], to: origin }),
    route("nginx", { path: "/nginx/*" }, { to: us }),
  ]),
]`;

/** What stands in the value of every header that is sent. */
const EVIL = "evil";

const NAMES = [
  "X-User-Id",
  "x-user-email",
  "X_User_Id",
  "x_user-id",
  "X-User_Id",
  "X-Consumer-Subject",
  "x-consumer-name",
  "X_Consumer_Name",
  "X-Consumer-Anything",
  "X-Portcullis-Assertion",
  "x_portcullis_assertion",
  "X-Portcullis-Arm",
  "X-Portcullis-Anything",
  "X-Forwarded-For",
  "X_Forwarded_For",
  "X-Forwarded-Host",
  "X-Forwarded-Proto",
  "X-Forwarded-Port",
  "X-Forwarded-Prefix",
  "X-Forwarded-User",
  "X-Forwarded-Client-Cert",
  "Forwarded",
  "X-Real-IP",
  "X_Real_IP",
  "CF-Connecting-IP",
  "CF-Connecting-IPv6",
  "True-Client-IP",
  "X-Client-IP",
  "X-Cluster-Client-IP",
  "Fastly-Client-IP",
  "X-Original-URL",
  "X-Rewrite-URL",
  "X_Original_URL",
  "X-HTTP-Method",
  "X-HTTP-Method-Override",
  "X-Method-Override",
  "X-Request-Id",
]; // prettier-ignore

describeWithRealParts("a client that lies", () => {
  let on: Fixture;
  let appending: Gateway;
  beforeAll(async () => {
    on = await Fixture.start({
      routes: `export default gateway({ ...settings, trustedProxies: ["127.0.0.2"] }, ${apis})`,
    });
    appending = await on.another(`export default gateway({ ...settings, forwardedFor: "append" }, ${apis})`);
  });
  afterAll(async () => {
    await appending?.close();
    await on?.close();
  });

  const lies = (values: (name: string) => string = () => EVIL) =>
    Object.fromEntries([...NAMES.map((name) => [name, values(name)] as const), ["X-Harmless", "kept"]]);

  it.each(["/open/x", "/nginx/x"])(
    "gets none of its headers to the cluster in the gateway's name, at %s",
    async (path) => {
      const echo = (await on.ask(path, { headers: lies() })).echo();
      expect(echo.headers["x-harmless"]).toBe("kept");
      expect(echo.lines.filter(([, value]) => value.includes(EVIL))).toEqual([]);
      expect(echo.headers).toMatchObject({
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-host": "api.example.com",
        "x-forwarded-proto": "http",
        "x-real-ip": "127.0.0.1",
      });
      expect(echo).toMatchObject({ method: "GET", url: path });
    },
  );

  it("gets none of them there in several lines or lists either", async () => {
    const lines = NAMES.flatMap((name) => [
      `${name}: ${EVIL}`,
      `${name}: ,${EVIL}`,
      `${name.toUpperCase()}: a, ${EVIL}`,
    ]);
    const answer = await on.write(
      `GET /open/x HTTP/1.1\r\nHost: api.example.com\r\n${lines.join("\r\n")}\r\nConnection: close\r\n\r\n`,
    );
    expect(answer.status).toBe(200);
    expect(answer.body).toContain('"x-forwarded-for":"127.0.0.1"');
    expect(answer.body).not.toContain(EVIL);
  });

  it("with a token of its own is still told apart from whom it claims to be", async () => {
    const headers = { ...lies(), ...(await on.issuer.bearer({ sub: "mallory", scope: "a b" })) };
    const { headers: came, lines } = (await on.ask("/known/x", { headers })).echo();
    expect(came).toMatchObject({ "x-user-id": "mallory", "x-consumer-subject": "mallory", "x-consumer-scopes": "a b" });
    expect(came).not.toHaveProperty("x-user-email");
    expect(came).not.toHaveProperty("x-consumer-name");
    expect(lines.filter(([, value]) => value.includes(EVIL))).toEqual([]);
  });

  it("cannot have the gateway's headers taken away by listing them in Connection", async () => {
    const listed =
      "x-user-id, x-consumer-subject, X-Portcullis-Assertion, x-forwarded-for, x-real-ip, x-request-id, Authorization, Cookie, Host, x-hop, close";
    const { authorization } = await on.issuer.bearer({ sub: "mallory" });
    const answer = await on.write(
      `GET /forwarded/x HTTP/1.1\r\nHost: api.example.com\r\nAuthorization: ${authorization}\r\nCookie: a=1\r\nX-Hop: 1\r\nConnection: ${listed}\r\n\r\n`,
    );
    expect(answer.status).toBe(200);
    const { headers } = JSON.parse(answer.body);
    expect(headers).toMatchObject({
      "x-user-id": "mallory",
      "x-consumer-subject": "mallory",
      "x-portcullis-assertion": expect.stringMatching(/^ey/),
      "x-forwarded-for": "127.0.0.1",
      "x-real-ip": "127.0.0.1",
      "x-request-id": expect.stringMatching(/^[0-9a-f-]{36}$/),
      authorization,
      cookie: "a=1",
    });
    expect(headers).not.toHaveProperty("x-hop");
  });

  describe("about its address", () => {
    it("is known by the address that it comes from", async () => {
      const answer = await on.ask("/open/x", {
        headers: { "cf-connecting-ip": "203.0.113.9", "x-forwarded-for": "203.0.113.9" },
      });
      expect(answer.echo().headers["x-forwarded-for"]).toBe("127.0.0.1");
      expect(await on.gateway.recordOf(answer)).toMatchObject({ client: "127.0.0.1" });
    });

    it("is believed only when it is a trusted proxy", async () => {
      const headers = { "cf-connecting-ip": "203.0.113.9", "x-forwarded-for": "198.51.100.7" };
      const answer = await on.ask("/open/x", { from: "127.0.0.2", headers });
      expect(answer.echo().headers).toMatchObject({ "x-forwarded-for": "203.0.113.9", "x-real-ip": "203.0.113.9" });
      expect(answer.echo().headers).not.toHaveProperty("cf-connecting-ip");
      expect(await on.gateway.recordOf(answer)).toMatchObject({ client: "203.0.113.9" });
      // A proxy that says nothing is the client.
      expect((await on.ask("/open/x", { from: "127.0.0.2" })).echo().headers["x-forwarded-for"]).toBe("127.0.0.2");
    });

    it("is put after what it claims, where the gateway is told to append", async () => {
      const tell = async (headers: Record<string, string>) =>
        (await ask(appending.port, "/open/x", { headers })).echo().headers["x-forwarded-for"];
      expect(await tell({ "x-forwarded-for": "198.51.100.7, 192.0.2.1" })).toBe("198.51.100.7, 192.0.2.1, 127.0.0.1");
      expect(await tell({})).toBe("127.0.0.1");
    });
  });

  it("leaves no secret in the log", () => {
    expect(on.gateway.records.length).toBeGreaterThan(6);
    expect(on.leaked()).toEqual([]);
  });
});
