/** Signing in at a real provider, as a browser does it: from a page, over the provider, and back to the page. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { type Answer, ask } from "./client.ts";
import { describeWithRealParts, Fixture } from "./fixture.ts";
import { type RunningProvider, startProvider, WEB } from "./provider.ts";

const COOKIE_KEY = "the key with which sessions are encrypted";
const ROUTES = `
import { anyOf, oidcLogin } from "portcullis";
const staff = consumer("staff", { claims: { email: "${WEB.user}@example.com" } });
const login = oidcLogin({ issuer: env("PROVIDER"), clientId: "${WEB.id}", clientSecret: secret("WEB_SECRET"), cookieKey: secret("COOKIE_KEY"),
  consumers: [staff], groupsFrom: "groups", claimsToHeaders: { email: "x-user-email" } });
export default gateway(settings, [
  api("site", { policies: [anyOf(token, login)] }, [
    route("pages", { path: "/*" }, { to: origin }),
    route("admin", { path: "/admin/*" }, { policies: [scopes("admin")], to: origin }),
  ]),
]);`;

/** Keeps cookies by host and follows redirects; the gateway's host leads to the gateway. */
class Browser {
  readonly jar = new Map<string, Map<string, string>>();
  /** Where it has been, in order. */
  readonly visited: string[] = [];
  readonly #gateway: number;

  constructor(gateway: number) {
    this.#gateway = gateway;
  }

  async go(address: string): Promise<Answer> {
    let url = new URL(address, `http://${WEB.host}`);
    for (let hops = 0; hops < 12; hops++) {
      this.visited.push(`${url.host === WEB.host ? "" : "provider"}${url.pathname}`);
      const cookies = this.jar.get(url.host) ?? new Map<string, string>();
      this.jar.set(url.host, cookies);
      const answer = await ask(url.host === WEB.host ? this.#gateway : Number(url.port), url.pathname + url.search, {
        host: url.host,
        headers: {
          accept: "text/html",
          "sec-fetch-mode": "navigate",
          ...(cookies.size > 0 && { cookie: [...cookies].map((pair) => pair.join("=")).join("; ") }),
        },
      });
      for (const text of answer.headers["set-cookie"] ?? []) {
        const [, name = "", value = ""] = /^([^=]+)=([^;]*)/.exec(text) ?? [];
        if (value === "" || /max-age=0|1970/i.test(text)) cookies.delete(name);
        else cookies.set(name, value);
      }
      const { location } = answer.headers;
      if (location === undefined) return answer;
      url = new URL(location, url);
    }
    throw new Error(`it goes round in circles: ${this.visited.join(" ")}`);
  }
}

describeWithRealParts("a browser", () => {
  let provider: RunningProvider;
  let on: Fixture;
  beforeAll(async () => {
    provider = await startProvider();
    on = await Fixture.start({
      routes: ROUTES,
      texts: { PROVIDER: provider.issuer, WEB_SECRET: WEB.secret, COOKIE_KEY },
    });
  });
  afterAll(async () => {
    await on?.close();
    await provider?.close();
  });

  it("is signed in on its way to a page, and stays so", async () => {
    const browser = new Browser(on.gateway.port);
    const answer = await browser.go("/account?tab=2");
    expect(answer.status).toBe(200);
    const { url, headers } = answer.echo();
    expect(url).toBe("/account?tab=2");
    expect(headers).toMatchObject({
      "x-consumer-name": "staff",
      "x-consumer-groups": "staff",
      "x-consumer-subject": WEB.user,
      "x-user-email": `${WEB.user}@example.com`,
    });
    expect(headers).not.toHaveProperty("cookie");
    expect(browser.visited[0]).toBe("/account");
    expect(browser.visited.slice(-2)).toEqual(["/auth/callback", "/account"]);
    expect(browser.visited.filter((place) => place.startsWith("provider")).length).toBeGreaterThan(2);

    const before = browser.visited.length;
    expect((await browser.go("/other")).status).toBe(200);
    expect(browser.visited.slice(before)).toEqual(["/other"]);
    const record = await on.gateway.record("of the page", ({ path }) => path === "/other");
    expect(record).toMatchObject({ consumer: "staff", subject: `${provider.issuer}|${WEB.user}` });
    const step = await on.gateway.record("of the login", ({ reason }) => reason === "login");
    expect(step).toMatchObject({ path: "/auth/callback", status: 303 });
    expect((await browser.go("/admin/x")).status).toBe(403);
  });

  it("is signed out here and led to the provider", async () => {
    const browser = new Browser(on.gateway.port);
    await browser.go("/");
    expect(browser.jar.get(WEB.host)?.size).toBe(1);
    const answer = await browser.go("/auth/logout");
    expect([answer.status, browser.visited.at(-1)]).toEqual([200, "provider/session/end"]);
    expect(answer.text()).not.toContain("invalid");
    expect(browser.jar.get(WEB.host)?.size).toBe(0);
  });

  it("and an API client are told apart: the one is led, the other gets 401, or passes with a token", async () => {
    const answer = await on.ask("/account", { headers: { accept: "application/json" } });
    expect([answer.status, answer.json().code]).toEqual([401, "credentials-missing"]);
    expect(answer.headers["www-authenticate"]).toBe('Bearer realm="site", Session realm="site"');
    expect((await on.ask("/account", { headers: await on.issuer.bearer() })).status).toBe(200);
    const bad = await on.ask("/account", { headers: { authorization: "Bearer x", accept: "text/html" } });
    expect(bad.status).toBe(401);
  });

  it("leaves no secret in the log", () => {
    const log = on.gateway.log();
    for (const secret of [COOKIE_KEY, WEB.secret, btoa(`${WEB.id}:${WEB.secret}`), "code=", "state="])
      expect(log).not.toContain(secret);
    expect(on.leaked()).toEqual([]);
  });
});
