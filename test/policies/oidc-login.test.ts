/** What an attacker tries on a login; test/e2e signs in at a real provider. */
import { afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { consumer } from "../../src/config/consumer.ts";
import { secret } from "../../src/config/values.ts";
import { compile, type OidcLoginOptions, run, schema } from "../../src/policies/oidc-login.ts";
import { compileContext, type PolicyResult, startPolicy } from "./exchange.ts";
import { type Key, makeKey, sign } from "./issuer.ts";

const ISSUER = "https://login.example.com";
const NOW = Date.UTC(2026, 10, 23, 12);
const metadata = {
  issuer: ISSUER,
  authorization_endpoint: `${ISSUER}/authorize?tenant=1`,
  token_endpoint: `${ISSUER}/token`,
  jwks_uri: `${ISSUER}/jwks`,
  end_session_endpoint: `${ISSUER}/logout`,
};
const base: OidcLoginOptions = {
  issuer: ISSUER,
  clientId: "web",
  clientSecret: secret("SECRET"),
  cookieKey: secret("KEY"),
};
const env = { SECRET: "s3cret", KEY: "k".repeat(40), OLD_KEY: "o".repeat(40) };

let key: Key;
let other: Key;
beforeAll(async () => {
  [key, other] = await Promise.all([makeKey("key"), makeKey("other")]);
});
afterEach(() => {
  vi.restoreAllMocks();
});

type Claims = Record<string, unknown>;

/** The policy before a provider that makes ID tokens of `claims`, and a browser that keeps cookies. */
function start(options: Partial<OidcLoginOptions> = {}) {
  const provider = {
    posted: [] as { authorization: string | null; body: URLSearchParams }[],
    claims: {} as Claims,
    signedBy: key,
    answer: undefined as (() => Response | Promise<Response>) | undefined,
    /** Of the login under way. */
    nonce: "",
  };
  vi.spyOn(globalThis, "fetch").mockImplementation(async (input, init) => {
    const url = String(input);
    if (provider.answer) return provider.answer();
    if (url.endsWith("openid-configuration")) return Response.json(metadata);
    if (url === metadata.jwks_uri) return Response.json({ keys: [key.jwk] });
    const request = new Request(url, { ...init, signal: null });
    provider.posted.push({
      authorization: request.headers.get("authorization"),
      body: new URLSearchParams(await request.text()),
    });
    const claims = {
      iss: ISSUER,
      aud: "web",
      sub: "u-1",
      nonce: provider.nonce,
      email: "a@b.example",
      ...provider.claims,
    };
    return Response.json({ id_token: await sign(provider.signedBy, times(claims)), scope: "openid email" });
  });
  const times = (claims: Claims) => ({ iat: clock.now / 1_000, exp: clock.now / 1_000 + 300, ...claims });
  const context = compileContext();
  const config = compile({ ...base, ...options }, context);
  expect(context.problems).toEqual([]);
  const clock = { now: NOW };
  const send = startPolicy(run, config, { env, now: () => clock.now });
  return { provider, clock, browser: () => new Browser(send, provider) };
}

class Browser {
  readonly cookies = new Map<string, string>();
  readonly #send: ReturnType<typeof startPolicy>;
  readonly #provider: { nonce: string };

  constructor(send: ReturnType<typeof startPolicy>, provider: { nonce: string }) {
    this.#send = send;
    this.#provider = provider;
  }

  async go(
    path: string,
    headers: Record<string, string> = { "sec-fetch-mode": "navigate" },
    init: RequestInit = {},
  ): Promise<PolicyResult> {
    const cookie = [...this.cookies].map(([name, value]) => `${name}=${value}`).join("; ");
    const request = new Request(`https://shop.example.com${path}`, {
      ...init,
      headers: { ...headers, ...(cookie && { cookie }) },
    });
    const result = await this.#send(request);
    for (const text of result.response.headers.getSetCookie()) {
      const [, name = "", value = "", attributes = ""] = /^([^=]+)=([^;]*)(.*)$/.exec(text) ?? [];
      expect(attributes).toMatch(/^; Path=\/; Max-Age=\d+; HttpOnly; SameSite=Lax; Secure$/);
      expect(name).toMatch(/^__Host-/);
      if (value === "") this.cookies.delete(name);
      else this.cookies.set(name, value);
    }
    return result;
  }

  /** Goes to a page, and gives the way to the provider. */
  async begin(path = "/account?tab=2"): Promise<URL> {
    const { response } = await this.go(path);
    expect(response.status).toBe(303);
    const location = new URL(response.headers.get("location") ?? "");
    this.#provider.nonce = location.searchParams.get("nonce") ?? "";
    return location;
  }

  async login(path?: string): Promise<PolicyResult> {
    const state = (await this.begin(path)).searchParams.get("state");
    return this.go(`/auth/callback?code=c&state=${state}`);
  }
}

const facts = ({ exchange }: PolicyResult) => exchange.record.policies[0]?.facts;
async function expectFailed(result: PolicyResult, why: string) {
  expect([result.response.status, facts(result)?.why]).toEqual([400, why]);
  expect(await result.response.json()).toMatchObject({ code: "login-failed" });
}

describe("a login", () => {
  test("goes to the provider with everything that protects it, and comes back to where it began", async () => {
    const { browser, provider } = start({ consumers: [consumer("staff", { claims: { tenant: "t-1" } })] });
    provider.claims = { tenant: "t-1", picture: "not kept", name: "Ann" };
    const one = browser();
    const location = await one.begin();
    expect(`${location.origin}${location.pathname}`).toBe(`${ISSUER}/authorize`);
    const parameters = Object.fromEntries(location.searchParams);
    expect(parameters).toEqual({
      tenant: "1",
      response_type: "code",
      client_id: "web",
      redirect_uri: "https://shop.example.com/auth/callback",
      scope: "openid profile email",
      state: expect.stringMatching(/^[\w-]{43}$/),
      nonce: expect.stringMatching(/^[\w-]{43}$/),
      code_challenge: expect.stringMatching(/^[\w-]{43}$/),
      code_challenge_method: "S256",
    });
    const { response, exchange } = await one.go(
      `/auth/callback?code=the-code&state=${parameters.state}&iss=${encodeURIComponent(ISSUER)}`,
    );
    expect([response.status, response.headers.get("location"), exchange.record.reason]).toEqual([
      303,
      "/account?tab=2",
      "login",
    ]);
    const [{ authorization, body } = { authorization: "", body: new URLSearchParams() }] = provider.posted;
    expect(authorization).toBe(`Basic ${btoa("web:s3cret")}`);
    expect(Object.fromEntries(body)).toEqual({
      grant_type: "authorization_code",
      code: "the-code",
      redirect_uri: "https://shop.example.com/auth/callback",
      code_verifier: expect.stringMatching(/^[\w-]{43}$/),
    });
    const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(body.get("code_verifier") ?? ""));
    expect(btoa(String.fromCharCode(...new Uint8Array(digest)))).toBe(
      `${parameters.code_challenge?.replaceAll("-", "+").replaceAll("_", "/")}=`,
    );
    expect([...one.cookies.keys()]).toEqual(["__Host-portcullis-session"]);

    for (let warm = 0; warm < 2; warm++) {
      const { exchange, passed } = await one.go("/account", {});
      expect(passed).toBe(true);
      expect(exchange.caller).toEqual({
        consumer: "staff",
        subject: `${ISSUER}|u-1`,
        scopes: ["openid", "email"],
        claims: { iss: ISSUER, sub: "u-1", email: "a@b.example", name: "Ann", tenant: "t-1", scope: "openid email" },
        credential: { kind: "oidcLogin" },
      });
      expect(exchange.upstream.has("cookie")).toBe(false);
    }
  });

  test("is asked for by pages alone", async () => {
    const one = start().browser();
    for (const [headers, init] of [
      [{ accept: "application/json" }, {}],
      [{ "sec-fetch-mode": "cors", accept: "text/html" }, {}],
      [{}, {}],
      [{ "sec-fetch-mode": "navigate" }, { method: "POST" }],
    ] as const) {
      const { response, exchange } = await one.go("/api", headers, init);
      expect([response.status, response.headers.get("www-authenticate")]).toEqual([401, 'Session realm="orders"']);
      expect(exchange.record.reason).toBe("credentials-missing");
    }
    expect((await one.go("/", { accept: "text/html,*/*" })).response.status).toBe(303);
  });

  test("leads to own paths alone", async () => {
    for (const path of ["//evil.example/x", "/\\evil.example", "//"]) {
      const { response } = await start().browser().login(path);
      // What is left of it is no other host.
      expect(new URL(response.headers.get("location") ?? "", "https://shop.example.com").host).toBe("shop.example.com");
    }
  });

  test("may be begun in several tabs, of which the oldest are forgotten", async () => {
    const { browser, provider } = start();
    const one = browser();
    const first = await one.begin("/first");
    const firstNonce = provider.nonce;
    await one.begin("/second");
    expect(one.cookies.size).toBe(2);
    provider.nonce = firstNonce;
    const back = await one.go(`/auth/callback?code=c&state=${first.searchParams.get("state")}`);
    expect(back.response.headers.get("location")).toBe("/first");
    one.cookies.delete("__Host-portcullis-session");
    for (let tab = 0; tab < 10; tab++) await one.begin();
    expect(one.cookies.size).toBeLessThanOrEqual(4);
  });
});

describe("a callback fails", () => {
  test("without the cookie of the login: another browser's, or none", async () => {
    const { browser } = start();
    const [victim, attacker] = [browser(), browser()];
    const state = (await attacker.begin()).searchParams.get("state");
    await victim.begin();
    await expectFailed(await victim.go(`/auth/callback?code=the-attacker's&state=${state}`), "state");
    await expectFailed(await browser().go(`/auth/callback?code=c&state=${state}`), "state");
    await expectFailed(await browser().go("/auth/callback"), "state");
  });

  test("with the cookie of one login and the state of another", async () => {
    const { browser } = start();
    const one = browser();
    const state = (await one.begin()).searchParams.get("state") ?? "";
    await expectFailed(await one.go(`/auth/callback?code=c&state=${state.slice(0, 8)}${"A".repeat(35)}`), "state");
  });

  test("twice, and after ten minutes", async () => {
    const { browser, clock } = start();
    const one = browser();
    const state = (await one.begin()).searchParams.get("state");
    const cookies = new Map(one.cookies);
    clock.now += 599_000;
    expect((await one.go(`/auth/callback?code=c&state=${state}`)).response.status).toBe(303);
    await expectFailed(await one.go(`/auth/callback?code=c&state=${state}`), "state");
    clock.now += 1_000;
    for (const [name, value] of cookies) one.cookies.set(name, value);
    await expectFailed(await one.go(`/auth/callback?code=c&state=${state}`), "state");
  });

  test("with a session's cookie in place of a login's", async () => {
    const { browser } = start();
    const one = browser();
    await one.login();
    const session = one.cookies.get("__Host-portcullis-session") as string;
    one.cookies.set("__Host-portcullis-session-login-", session);
    await expectFailed(await one.go("/auth/callback?code=c&state="), "state");
    const state = (await browser().begin()).searchParams.get("state") as string;
    const another = browser();
    another.cookies.set(`__Host-portcullis-session-login-${state.slice(0, 8)}`, session);
    await expectFailed(await another.go(`/auth/callback?code=c&state=${state}`), "state");
  });

  test("when the provider says no, in words that are no markup", async () => {
    const one = start().browser();
    const state = (await one.begin()).searchParams.get("state");
    await expectFailed(await one.go(`/auth/callback?error=access_denied&state=${state}`), "access_denied");
    const again = (await one.begin()).searchParams.get("state");
    const result = await one.go(`/auth/callback?error=<script>&error_description=<b>&state=${again}`);
    await expectFailed(result, "unknown");
  });

  test("when another provider answers", async () => {
    const one = start().browser();
    const state = (await one.begin()).searchParams.get("state");
    await expectFailed(await one.go(`/auth/callback?code=c&state=${state}&iss=https://evil.example`), "issuer");
  });

  test.each<[string, Claims, string]>([
    ["for another login", { nonce: "another" }, "nonce"],
    ["without a nonce", { nonce: undefined }, "id-token-claim-missing"],
    ["of another issuer", { iss: "https://evil.example" }, "id-token-issuer"],
    ["for another client", { aud: "other" }, "id-token-audience"],
    ["for several, made for another", { aud: ["web", "other"], azp: "other" }, "azp"],
    ["that has expired", { exp: NOW / 1_000 - 60 }, "id-token-expired"],
    ["without a subject", { sub: undefined }, "id-token-claim-missing"],
  ])("with an ID token %s", async (_, claims, why) => {
    const { browser, provider } = start();
    provider.claims = claims;
    await expectFailed(await browser().login(), why);
  });

  test("with an ID token of another's key, and of a consumer that is not known", async () => {
    const forged = start();
    forged.provider.signedBy = { ...other, kid: "key" };
    await expectFailed(await forged.browser().login(), "id-token-signature");
    const known = start({ consumers: [consumer("a", { claims: { tenant: "a" } })], requireConsumer: true });
    await expectFailed(await known.browser().login(), "consumer");
  });

  test("with more claims than a cookie holds", async () => {
    const { browser, provider } = start({ claims: ["much"] });
    provider.claims = { much: "x".repeat(4_000) };
    await expectFailed(await browser().login(), "size");
  });

  test("with 503 while the provider is away, and with 400 when it does not know the code", async () => {
    const { browser, provider } = start();
    const one = browser();
    const state = (await one.begin()).searchParams.get("state");
    provider.answer = () => Response.json({ error: "invalid_grant" }, { status: 400 });
    await expectFailed(await one.go(`/auth/callback?code=c&state=${state}`), "code");
    provider.answer = () => Promise.reject(new TypeError("down"));
    expect((await one.go(`/auth/callback?code=c&state=${state}`)).response.status).toBe(503);
    const cold = start();
    cold.provider.answer = () => new Response("", { status: 500 });
    const { response } = await cold.browser().go("/");
    expect([response.status, response.headers.get("retry-after")]).toEqual([503, "1"]);
  });
});

describe("a session", () => {
  test("ends with its lifetime, whatever is remembered", async () => {
    const { browser, clock } = start({ lifetime: "1h" });
    const one = browser();
    await one.login();
    clock.now += 3_599_000;
    expect((await one.go("/")).passed).toBe(true);
    clock.now += 1_000;
    expect((await one.go("/")).response.status).toBe(303);
    expect((await one.go("/", {})).response.status).toBe(401);
  });

  test("cannot be made up or changed", async () => {
    const { browser } = start();
    const one = browser();
    await one.login();
    const [name, value] = [...one.cookies][0] as [string, string];
    for (const forged of ["x", `${value.slice(0, -5)}AAAAA`, "eyJhbGciOiJub25lIn0.e30."]) {
      one.cookies.set(name, forged);
      expect((await one.go("/", {})).response.status).toBe(401);
    }
  });

  test("of another client or provider is none here, though the key is the same", async () => {
    const customer = start().browser();
    await customer.login();
    for (const options of [{ clientId: "staff" }, { issuer: "https://staff.example.com" }]) {
      const staff = start(options).browser();
      for (const [name, value] of customer.cookies) staff.cookies.set(name, value);
      expect((await staff.go("/", {})).response.status).toBe(401);
    }
    const again = start().browser();
    for (const [name, value] of customer.cookies) again.cookies.set(name, value);
    expect((await again.go("/", {})).passed).toBe(true);
  });

  test("outlives a change of the key, where the old one is kept beside the new", async () => {
    const before = start({ cookieKey: secret("OLD_KEY") });
    const one = before.browser();
    await one.login();
    const after = start({ cookieKey: [secret("KEY"), secret("OLD_KEY")] }).browser();
    for (const [name, value] of one.cookies) after.cookies.set(name, value);
    expect((await after.go("/")).passed).toBe(true);
    const later = start().browser();
    for (const [name, value] of one.cookies) later.cookies.set(name, value);
    expect((await later.go("/", {})).response.status).toBe(401);
  });

  test("and logins under way are kept from the origin; other cookies are not", async () => {
    const { browser } = start();
    const one = browser();
    await one.login();
    one.cookies.set("theme", "dark");
    one.cookies.set("__Host-portcullis-session-login-abc", "x");
    expect((await one.go("/")).exchange.upstream.get("cookie")).toBe("theme=dark");
  });

  test("ends by a logout from this site, here and at the provider", async () => {
    const { browser } = start({ afterLogout: "/bye" });
    const one = browser();
    await one.login();
    const crossing = await one.go("/auth/logout", { "sec-fetch-site": "cross-site" });
    await expectFailed(crossing, "cross-site");
    expect(one.cookies.size).toBe(1);
    const { response, exchange } = await one.go("/auth/logout", { "sec-fetch-site": "same-origin" });
    expect([response.status, response.headers.get("location"), exchange.record.reason]).toEqual([
      303,
      `${ISSUER}/logout?client_id=web&post_logout_redirect_uri=https%3A%2F%2Fshop.example.com%2Fbye`,
      "logout",
    ]);
    expect(one.cookies.size).toBe(0);
  });
});

describe("the build", () => {
  test.each<[RegExp, Partial<OidcLoginOptions>]>([
    [/no address of an issuer/, { issuer: "http://login.example.com" }],
    [/the scope "email" gives no ID token/, { scope: "email" }],
    [/"\/a" is both callbackPath and logoutPath/, { callbackPath: "/a", logoutPath: "/a" }],
    [/lifetime "1s" is no duration from 60s/, { lifetime: "1s" }],
    [/cannot go into the header "cookie"/, { claimsToHeaders: { sub: "cookie" } }],
  ])("reports %s", (expected, options) => {
    const context = compileContext();
    compile({ ...base, ...options }, context);
    expect(context.problems).toEqual([expect.stringMatching(expected)]);
  });

  test("knows the shape of its options", () => {
    expect(
      schema().safeParse({ ...base, cookieKey: [secret("A"), secret("B")], callbackPath: "/a/b", claims: [] }).success,
    ).toBe(true);
    for (const bad of [
      { callbackPath: "a" },
      { callbackPath: "/a?b" },
      { cookie: "__Host-x" },
      { cookieKey: "literal" },
      { afterLogout: "https://evil.example" },
      { x: 1 },
    ])
      expect([bad, schema().safeParse({ ...base, ...bad }).success]).toEqual([bad, false]);
  });
});
