/** The issuer's keys: fetched over http, rotated, and not to be had. */
import { afterAll, beforeAll, beforeEach, expect, it, onTestFinished } from "vitest";
import { type Answer, ask, open } from "./client.ts";
import { describeWithRealParts, Fixture } from "./fixture.ts";
import type { Gateway } from "./gateway.ts";
import { AUDIENCE, ISSUER, type Key, makeKey } from "./issuer.ts";
import { until } from "./process.ts";

describeWithRealParts("the issuer's keys", () => {
  let on: Fixture;
  let second: Key;
  beforeAll(async () => {
    on = await Fixture.start({
      routes: `export default gateway(settings, [api("a", {}, [route("r", { path: "/*" }, { policies: [token], to: origin })])]);`,
    });
    second = await makeKey("second");
  });
  afterAll(() => on?.close());
  beforeEach(() => {
    on.issuer.published = [on.issuer.key.jwk];
    on.issuer.asked = 0;
  });

  /** A gateway that knows no keys yet. Each of `paths` has a key set of its own, published at the path of that name. */
  async function cold(
    paths: readonly string[] = ["/jwks"],
    keySet = `{ timeout: "300ms", coolDown: "1s" }`,
  ): Promise<Gateway> {
    const { origin } = new URL(on.issuer.jwksUrl);
    const routes = paths.map(
      (
        path,
        i,
      ) => `route("r${i}", { path: "${path}" }, { to: origin, policies: [jwt({ issuer: "${ISSUER}", audience: "${AUDIENCE}",
        jwks: "${origin}${path}", keySet: ${keySet} })] })`,
    );
    const gateway = await on.another(`export default gateway(settings, [api("a", {}, [${routes.join(",\n")}])]);`);
    onTestFinished(() => gateway.close());
    return gateway;
  }

  /** With a token that no gateway has seen before. */
  async function asking(gateway: Gateway, path = "/jwks", key: Key = on.issuer.key): Promise<Answer> {
    const token = await on.issuer.token({ jti: crypto.randomUUID() }, {}, key);
    return ask(gateway.port, path, { headers: { authorization: `Bearer ${token}` } });
  }

  it("are fetched once for 50 clients at once", async () => {
    const gateway = await cold();
    const answers = await Promise.all(Array.from({ length: 50 }, () => asking(gateway)));
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    expect(on.issuer.asked).toBe(1);
  });

  it("go on to serve when the issuer is gone, also new tokens and beyond their age", async () => {
    const gateway = await cold(["/jwks"], `{ timeout: "300ms", maxAge: "1s", coolDown: "1s" }`);
    expect((await asking(gateway)).status).toBe(200);
    await on.issuer.close();
    const stale = await until("the record tells of stale keys", async () => {
      const answer = await asking(gateway);
      expect(answer.status).toBe(200);
      const record = await gateway.recordOf(answer);
      return record.policies[0]?.facts?.keys === "stale" && record;
    });
    expect(stale.policies).toMatchObject([{ policy: "jwt", verdict: "pass", facts: { kid: "first", keys: "stale" } }]);
    await on.issuer.listen();
    await until("the keys are fresh again", async () => {
      const answer = await asking(gateway);
      return (await gateway.recordOf(answer)).policies[0]?.facts?.keys === undefined;
    });
  });

  it("that were never to be had mean 503, and serve as soon as the issuer is there", async () => {
    await on.issuer.close();
    const gateway = await cold();
    for (let i = 0; i < 3; i++) {
      const answer = await asking(gateway);
      expect([answer.status, answer.json().code]).toEqual([503, "keys-unavailable"]);
      expect(answer.headers["retry-after"]).toMatch(/^[1-5]$/);
      expect(answer.headers).not.toHaveProperty("www-authenticate");
      expect(await gateway.recordOf(answer)).toMatchObject({ reason: "keys-unavailable", attempts: [] });
    }
    // Who shows no token, or none that could be one, needs no keys to be refused.
    expect((await ask(gateway.port, "/jwks")).status).toBe(401);
    await on.issuer.listen();
    await until("the gateway has keys", async () => (await asking(gateway)).status === 200);
  });

  it("are not taken from an issuer that answers strangely", async () => {
    const strange: Record<string, Parameters<typeof on.issuer.answers.set>[1]> = {
      "/error": (response) => response.writeHead(500).end("{}"),
      "/html": (response) => response.end("<html>"),
      "/null": (response) => response.end("null"),
      "/array": (response) => response.end("[]"),
      "/no-set": (response) => response.end('{"keys":{}}'),
      "/redirect": (response) => response.writeHead(302, { location: on.issuer.jwksUrl }).end(),
      "/endless": (response) => {
        const more = setInterval(() => response.write(" ".repeat(100_000)), 1);
        response.on("close", () => clearInterval(more));
      },
      "/silent": () => {},
      "/torn": (response) => response.write('{"keys":[', () => response.destroy()),
    };
    for (const [path, answer] of Object.entries(strange)) on.issuer.answers.set(path, answer);
    onTestFinished(() => on.issuer.answers.clear());
    const gateway = await cold(Object.keys(strange));
    const answers = await Promise.all(Object.keys(strange).map((path) => asking(gateway, path)));
    for (const [i, path] of Object.keys(strange).entries()) {
      expect([path, answers[i]?.status, answers[i]?.json().code]).toEqual([path, 503, "keys-unavailable"]);
    }
    on.issuer.answers.clear();
    await until("the gateway has all keys", async () => {
      const again = await Promise.all(Object.keys(strange).map((path) => asking(gateway, path)));
      return again.every(({ status }) => status === 200);
    });
  });

  it("are picked up when they rotate, and old ones put away", async () => {
    const gateway = await cold();
    const old = { authorization: `Bearer ${await on.issuer.token()}` };
    expect((await ask(gateway.port, "/jwks", { headers: old })).status).toBe(200);
    expect((await asking(gateway, "/jwks", second)).status).toBe(401);
    on.issuer.published = [on.issuer.key.jwk, second.jwk];
    await until("the new key is accepted", async () => (await asking(gateway, "/jwks", second)).status === 200);
    expect((await ask(gateway.port, "/jwks", { headers: old })).status).toBe(200);
    on.issuer.published = [second.jwk];
    // A token of an unknown key makes the gateway look, and then the remembered token of the removed key is worth nothing.
    const third = await makeKey("third");
    await until("the old key is refused", async () => {
      await asking(gateway, "/jwks", third);
      return (await ask(gateway.port, "/jwks", { headers: old })).status === 401;
    });
    expect((await asking(gateway, "/jwks", second)).status).toBe(200);
  });

  it("are not fetched as often as strangers would have it", async () => {
    const gateway = await cold();
    expect((await asking(gateway)).status).toBe(200);
    const started = Date.now();
    const statuses = new Set<number>();
    const stranger = async (client: number) => {
      for (let i = 0; i < 20; i++) {
        const token = await on.issuer.token({}, { kid: `stranger-${client}-${i}` });
        statuses.add((await ask(gateway.port, "/jwks", { headers: { authorization: `Bearer ${token}` } })).status);
      }
    };
    await Promise.all(Array.from({ length: 10 }, (_, client) => stranger(client)));
    expect(statuses).toEqual(new Set([401]));
    // One for the start, and one per second of cool-down.
    expect(on.issuer.asked).toBeLessThanOrEqual(2 + Math.floor((Date.now() - started) / 1_000));
  });

  it("arrive also when the client that made the gateway fetch them goes away", async () => {
    let answering: (() => void) | undefined;
    on.issuer.answers.set("/held", (response) => {
      answering = () => response.end(JSON.stringify({ keys: on.issuer.published }));
    });
    onTestFinished(() => on.issuer.answers.clear());
    const gateway = await cold(["/held"], `{ timeout: "5s", coolDown: "30s" }`);
    const { sent, response } = open(gateway.port, "/held", { headers: await on.issuer.bearer() });
    sent.on("error", () => {});
    response.catch(() => {});
    sent.end();
    await until("the keys are asked for", () => answering !== undefined);
    const waiting = asking(gateway, "/held");
    sent.socket?.resetAndDestroy();
    answering?.();
    expect((await waiting).status).toBe(200);
    expect(on.issuer.asked).toBe(1);
  });

  it("and tokens leave no trace in the log", () => {
    expect(on.issuer.minted.length).toBeGreaterThan(200);
    expect(on.leaked()).toEqual([]);
  });
});
