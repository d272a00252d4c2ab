import { afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { consumer } from "../../src/config/consumer.ts";
import { secret } from "../../src/config/values.ts";
import { compile, type HmacOptions, run, schema } from "../../src/policies/hmac.ts";
import { compileContext, type PolicyResult, startPolicy } from "./exchange.ts";
import { storeEnv, stubStore, tableWithStore } from "./stubbed-store.ts";

const NOW = Date.UTC(2026, 10, 23, 12);
const SECONDS = NOW / 1_000;
const SHARED = new TextEncoder().encode("0123456789abcdef0123456789abcdef");
const partner = consumer("partner");

let ed: CryptoKeyPair;
let ec: CryptoKeyPair;
const env: Record<string, string> = { ...storeEnv, SHARED: btoa(String.fromCharCode(...SHARED)) };
beforeAll(async () => {
  ed = (await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"])) as CryptoKeyPair;
  ec = (await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, [
    "sign",
    "verify",
  ])) as CryptoKeyPair;
  env.ED = JSON.stringify(await crypto.subtle.exportKey("jwk", ed.publicKey));
  env.EC = JSON.stringify(await crypto.subtle.exportKey("jwk", ec.publicKey));
});
afterEach(() => {
  vi.restoreAllMocks();
});

const keys: HmacOptions["keys"] = [
  { id: "shared", key: secret("SHARED"), consumer: partner, scopes: ["write"] },
  { id: "ed", algorithm: "ed25519", key: secret("ED"), consumer: partner },
  { id: "ec", algorithm: "ecdsa-p256-sha256", key: secret("EC"), consumer: partner },
];

function start(options: Partial<HmacOptions> = {}) {
  const context = compileContext();
  const config = compile({ keys, ...options }, context);
  expect(context.problems).toEqual([]);
  const store = stubStore();
  const clock = { now: NOW };
  const send = startPolicy(run, config, {
    env,
    table: tableWithStore({ partner: { name: "partner", groups: ["partners"] } }),
    now: () => clock.now,
    origin: async ({ body }, request) =>
      new Response(body === undefined ? await request.text() : new Uint8Array(await new Response(body).arrayBuffer())),
  });
  return { store, clock, send };
}

interface Signing {
  readonly url?: string;
  readonly method?: string;
  readonly body?: string;
  readonly headers?: Record<string, string>;
  readonly components?: readonly string[];
  readonly parameters?: Record<string, string | number | undefined>;
  readonly key?: "shared" | "ed" | "ec";
  readonly label?: string;
  readonly digest?: string;
}

const COVERED = ["@method", "@authority", "@path", "@query"];
let nonces = 0;

/** A request with a signature over it, made as RFC 9421 says and with no code of the gateway's. */
async function signed(signing: Signing = {}): Promise<Request> {
  const {
    url = "https://api.example.com/v1/orders?a=1",
    method = "GET",
    body,
    key = "shared",
    label = "sig",
  } = signing;
  const headers = new Headers(signing.headers);
  const components = [...(signing.components ?? (body === undefined ? COVERED : [...COVERED, "content-digest"]))];
  if (body !== undefined) {
    const hash = new Uint8Array(
      await crypto.subtle.digest("SHA-256", new TextEncoder().encode(signing.digest ?? body)),
    );
    headers.set("content-digest", `sha-256=:${btoa(String.fromCharCode(...hash))}:`);
  }
  const parameters = { created: SECONDS, keyid: key, nonce: `nonce-${nonces++}`, ...signing.parameters };
  const written = Object.entries(parameters)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `;${name}=${typeof value === "number" ? value : `"${value}"`}`)
    .join("");
  const input = `(${components.map((component) => `"${component}"`).join(" ")})${written}`;
  const { host, pathname, search } = new URL(url);
  const derived: Record<string, string> = {
    "@method": method,
    "@authority": host,
    "@path": pathname,
    "@query": search || "?",
    "@target-uri": url,
    "@request-target": pathname + search,
  };
  const lines = components.map((component) => `"${component}": ${derived[component] ?? headers.get(component)}`);
  const base = new TextEncoder().encode([...lines, `"@signature-params": ${input}`].join("\n"));
  const signature = await {
    shared: async () => {
      const imported = await crypto.subtle.importKey("raw", SHARED, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
      return crypto.subtle.sign("HMAC", imported, base);
    },
    ed: () => crypto.subtle.sign("Ed25519", ed.privateKey, base),
    ec: () => crypto.subtle.sign({ name: "ECDSA", hash: "SHA-256" }, ec.privateKey, base),
  }[key]();
  const join = (name: string, value: string) =>
    headers.set(name, headers.has(name) ? `${headers.get(name)}, ${value}` : value);
  join("signature-input", `${label}=${input}`);
  join("signature", `${label}=:${btoa(String.fromCharCode(...new Uint8Array(signature)))}:`);
  return new Request(url, { method, headers, ...(body !== undefined && { body }) });
}

const facts = ({ exchange }: PolicyResult) => exchange.record.policies[0]?.facts;
async function expectRefused(result: PolicyResult, why: string) {
  expect([result.response.status, result.passed, facts(result)?.why]).toEqual([401, false, why]);
  expect(result.response.headers.get("www-authenticate")).toBe('Signature realm="orders"');
}

describe("a signed request", () => {
  test.each(["shared", "ed", "ec"] as const)("with the key %s passes, and tells whose it is", async (key) => {
    const { send } = start();
    const { exchange, passed } = await send(await signed({ key }));
    expect(passed).toBe(true);
    expect(exchange.caller).toEqual({
      consumer: "partner",
      groups: ["partners"],
      subject: "consumer:partner",
      scopes: key === "shared" ? ["write"] : [],
      claims: {},
      credential: { kind: "hmac", id: key },
    });
    expect([...exchange.upstream.keys()].filter((name) => name.startsWith("signature"))).toEqual([]);
  });

  test("with a body passes when the digest is the body's, and the origin gets the body", async () => {
    const { send } = start();
    const { response, passed } = await send(await signed({ method: "POST", body: '{"hello": "world"}' }));
    expect([passed, await response.text()]).toEqual([true, '{"hello": "world"}']);
    await expectRefused(await send(await signed({ method: "POST", body: "other", digest: "signed" })), "digest");
  });

  test("may cover more in one component", async () => {
    const { send } = start();
    expect((await send(await signed({ components: ["@method", "@target-uri"] }))).passed).toBe(true);
    expect((await send(await signed({ components: ["@method", "@authority", "@request-target"] }))).passed).toBe(true);
    await expectRefused(await send(await signed({ components: ["@method", "@request-target"] })), "components");
  });

  test("may carry signatures of others", async () => {
    const { send } = start();
    const headers = {
      "signature-input": 'proxy=("@method");created=1;keyid="somebody", no=();created=1',
      signature: "proxy=:AAAA:, no=:AAAA:",
    };
    expect((await send(await signed({ headers }))).passed).toBe(true);
  });

  test("is looked at by its tag, where there is one", async () => {
    const { send } = start({ tag: "orders" });
    expect((await send(await signed({ parameters: { tag: "orders" } }))).passed).toBe(true);
    await expectRefused(await send(await signed({ parameters: { tag: "other" } })), "key");
    await expectRefused(await send(await signed()), "key");
  });

  test("is checked as the client sent it, before the gateway makes its path normal", async () => {
    const { send } = start();
    const request = await signed({ url: "https://api.example.com/v1/%7Eorders?a=1" });
    expect((await send(request, { path: "/v1/~orders" })).passed).toBe(true);
  });
});

describe("a signature is refused", () => {
  test.each<[string, Signing, string]>([
    ["created long ago", { parameters: { created: SECONDS - 306 } }, "expired"],
    ["created in the future", { parameters: { created: SECONDS + 6 } }, "created"],
    ["without created", { parameters: { created: undefined } }, "created"],
    ["with a created that is no number", { parameters: { created: "now" } }, "created"],
    ["that has expired", { parameters: { expires: SECONDS - 6 } }, "expired"],
    ["with an expires that is no number", { parameters: { expires: "never" } }, "expired"],
    ["without a nonce", { parameters: { nonce: undefined } }, "nonce"],
    ["of another algorithm than the key's", { parameters: { alg: "ed25519" } }, "algorithm"],
    ["of an unknown key", { parameters: { keyid: "other" } }, "key"],
    ["of a key from Object.prototype", { parameters: { keyid: "constructor" } }, "key"],
    ["without a key", { parameters: { keyid: undefined } }, "key"],
    ["by another key than it says", { key: "ed", parameters: { keyid: "ec" } }, "signature"],
    ["that covers nothing", { components: [] }, "components"],
    ["that does not cover the query", { components: ["@method", "@authority", "@path"] }, "components"],
    ["that does not cover the body", { method: "POST", body: "x", components: COVERED }, "components"],
    ["that covers a header which is not there", { components: [...COVERED, "x-absent"] }, "component"],
  ])("%s", async (_, signing, why) => {
    await expectRefused(await start().send(await signed(signing)), why);
  });

  test.each<[string, (request: Request) => Request]>([
    ["the method", (request) => new Request(request, { method: "DELETE" })],
    ["the host", (request) => new Request(request.url.replace("api", "www"), request)],
    ["the path", (request) => new Request(request.url.replace("orders", "admin"), request)],
    ["the query", (request) => new Request(request.url.replace("a=1", "a=2"), request)],
  ])("when %s was changed", async (_, change) => {
    await expectRefused(await start().send(change(await signed())), "signature");
  });

  test.each([
    { signature: "sig=:AAAA:" },
    { "signature-input": 'sig=("@method");created=1' },
    { signature: "nonsense", "signature-input": "nonsense" },
    { signature: "sig=1", "signature-input": 'sig=("@method")' },
  ])("that is written as %j", async (headers) => {
    await expectRefused(await start().send(new Request("https://api.example.com/", { headers })), "malformed");
  });

  test("after a few of them, without looking at the rest", async () => {
    const { send } = start();
    const verify = vi.spyOn(crypto.subtle, "verify");
    let request = await signed({ label: "a0" });
    for (let i = 1; i < 20; i++)
      request = await signed({ label: `a${i}`, headers: Object.fromEntries(request.headers) });
    const spoilt = new Request(request.url.replace("a=1", "a=2"), request);
    await expectRefused(await send(spoilt), "signature");
    expect(verify).toHaveBeenCalledTimes(4);
  });
});

describe("a replay", () => {
  test("is refused, for as long as the signature would be good", async () => {
    const { send, clock, store } = start();
    const request = await signed();
    expect((await send(request.clone())).passed).toBe(true);
    clock.now += 300_000;
    await expectRefused(await send(request.clone()), "replay");
    const [, key, , ...options] = store.asked[0] as string[];
    expect(key).toMatch(/^nonce:[0-9a-f]{64}$/);
    expect(options.map(String).join(" ").toLowerCase()).toBe("nx px 310000");
  });

  test("of a nonce by another key is none, and a bad signature uses no nonce up", async () => {
    const { send, store } = start();
    const spoilt = new Request(
      (await signed({ parameters: { nonce: "n" } })).url.replace("a=1", "a=2"),
      await signed({ parameters: { nonce: "n" } }),
    );
    await expectRefused(await send(spoilt), "signature");
    expect(store.asked).toEqual([]);
    expect((await send(await signed({ parameters: { nonce: "n" } }))).passed).toBe(true);
    expect((await send(await signed({ key: "ed", parameters: { nonce: "n" } }))).passed).toBe(true);
    await expectRefused(await send(await signed({ parameters: { nonce: "n" } })), "replay");
  });

  test("cannot be told without the store: 503", async () => {
    const { send, store } = start();
    store.answer = () => Promise.reject(new TypeError("down"));
    const { response } = await send(await signed());
    expect([response.status, response.headers.get("retry-after")]).toEqual([503, "1"]);
    expect(await response.json()).toMatchObject({ code: "credentials-unavailable" });
  });

  test("is not looked for where no nonce is wanted", async () => {
    const { send, store } = start({ nonce: false });
    const request = await signed({ parameters: { nonce: undefined } });
    expect((await send(request.clone())).passed).toBe(true);
    expect((await send(request.clone())).passed).toBe(true);
    expect(store.asked).toEqual([]);
  });
});

test("a body that is too large to be checked: 413", async () => {
  const { send } = start({ maxBody: 10 });
  expect((await send(await signed({ method: "POST", body: "0123456789" }))).passed).toBe(true);
  const { response } = await send(await signed({ method: "POST", body: "0123456789a" }));
  expect([response.status, await response.json()]).toEqual([413, expect.objectContaining({ code: "body-too-large" })]);
});

test("a request without a signature is told what to sign, or passes where that is optional", async () => {
  const { response } = await start().send(new Request("https://api.example.com/"));
  expect([response.status, await response.json()]).toEqual([
    401,
    expect.objectContaining({ code: "credentials-missing" }),
  ]);
  expect(response.headers.get("accept-signature")).toBe(
    'sig=("@method" "@authority" "@path" "@query");created;keyid;nonce',
  );
  expect((await start({ optional: true }).send(new Request("https://api.example.com/"))).passed).toBe(true);
});

test("a secret that is no key: 503, and not a word of it", async () => {
  const { send } = start({ keys: [{ id: "shared", key: secret("STORE_TOKEN"), consumer: partner }] });
  const { response } = await send(await signed());
  expect([response.status, await response.json()]).toEqual([503, expect.objectContaining({ code: "not-configured" })]);
});

describe("the build", () => {
  test("reports keys of one id and components that are none", () => {
    const context = compileContext();
    compile(
      { keys: [...keys, { id: "ed", key: secret("SHARED"), consumer: partner }], components: ["Date", "@method"] },
      context,
    );
    expect(context.problems).toEqual([
      expect.stringMatching(/two keys "ed"/),
      expect.stringMatching(/"Date" is no component/),
    ]);
  });

  test("knows the shape of its options", () => {
    expect(schema().safeParse({ keys, components: ["@method"], nonce: false, tag: "a", maxBody: 0 }).success).toBe(
      true,
    );
    for (const bad of [
      { keys: [] },
      { keys: [{ id: "a", key: "literal", consumer: partner }] },
      { maxBody: -1 },
      { x: 1 },
    ])
      expect([bad, schema().safeParse({ keys, ...bad }).success]).toEqual([bad, false]);
  });
});
