/** What the shop's routes are to do, as their operators see it (docs/testing.md). */
import { type TestGateway, testGateway } from "portcullis/testing";
import { beforeEach, describe, expect, test } from "vitest";

let gateway: TestGateway;
beforeEach(async () => {
  gateway = await testGateway("./routes");
});

const reader = { consumer: "storefront", scopes: ["orders:read"] };
const writer = { consumer: "storefront", scopes: ["orders:write"] };

describe("orders", () => {
  test("are the caller's own: who shows no token gets none", async () => {
    for (const path of ["/v1/orders", "/v1/orders/7"]) {
      const answer = await gateway.fetch("GET", path);
      expect([answer.status, answer.reason]).toEqual([401, "token-missing"]);
      expect(answer.upstream).toEqual([]);
    }
  });

  test("go to the service of that name in Europe, which learns who asks", async () => {
    const { status, upstream } = await gateway.fetch("POST", "/v1/orders", { as: writer, body: { sku: "KB-100" } });
    expect(status).toBe(200);
    expect(upstream).toMatchObject([{ cluster: "eu", url: "https://ingress.eu.shop.example.com/orders/v1/orders" }]);
    expect(upstream[0]?.headers.get("x-consumer-name")).toBe("storefront");
    expect(upstream[0]?.json()).toEqual({ sku: "KB-100" });
  });

  test("are not for who may only read them", async () => {
    const answer = await gateway.fetch("POST", "/v1/orders", { as: reader });
    expect(answer.status).toBe(403);
    expect(await answer.json()).toMatchObject({ code: "scope-missing", missing: ["orders:write"] });
  });

  test("are five a minute, and many more for the warehouse", async () => {
    const order = (as: object) => gateway.fetch("POST", "/v1/orders", { as });
    for (let i = 0; i < 5; i++) expect((await order(writer)).status).toBe(200);
    const refused = await order(writer);
    expect([refused.status, refused.reason]).toEqual([429, "rate-limited"]);
    expect((await order({ ...writer, consumer: "warehouse" })).status).toBe(200);
    await gateway.advance("2m");
    expect((await order(writer)).status).toBe(200);
  });

  test("are counted here where the store is away", async () => {
    gateway.store.away = true;
    const answer = await gateway.fetch("POST", "/v1/orders", { as: writer });
    expect(answer.status).toBe(200);
    expect(answer.record.policies).toContainEqual(
      expect.objectContaining({ policy: "rateLimit", facts: expect.objectContaining({ fallback: "local" }) }),
    );
  });

  test("are read from the other region when Europe has none to answer", async () => {
    gateway.upstream(({ cluster }) => new Response(cluster, { status: cluster === "eu" ? 503 : 200 }));
    const answer = await gateway.fetch("GET", "/v1/orders", { as: { ...reader, subject: "somebody-on-stable" } });
    expect(await answer.text()).toBe("us");
    expect(answer.record.attempts.map(({ backend, status }) => `${backend} ${status}`)).toEqual([
      "eu/orders 503",
      "us/orders 200",
    ]);
  });

  test("are read from the rewrite by the same twentieth of the customers", async () => {
    const armOf = async (subject: string) =>
      (await gateway.fetch("GET", "/v1/orders", { as: { ...reader, subject } })).record.arm;
    const customers = Array.from({ length: 200 }, (_, i) => `customer-${i}`);
    const arms = await Promise.all(customers.map(armOf));
    expect(arms.filter((arm) => arm === "canary").length).toBeGreaterThan(2);
    expect(arms.filter((arm) => arm === "canary").length).toBeLessThan(25);
    expect(await Promise.all(customers.map(armOf))).toEqual(arms);
  });
});

test("a token of the issuer says who it is, until it expires", async () => {
  const headers = { authorization: `Bearer ${gateway.token({ sub: "alice", scopes: ["orders:read"] })}` };
  const answer = await gateway.fetch("GET", "/v1/orders", { headers });
  expect(answer.record).toMatchObject({ status: 200, subject: "https://login.example.com|alice" });
  expect(answer.upstream[0]?.headers.has("authorization")).toBe(false);
  await gateway.advance("2h");
  expect((await gateway.fetch("GET", "/v1/orders", { headers })).reason).toBe("token-expired");
});

test("a partner's key opens the catalogue by the partner's own limit", async () => {
  const key = await gateway.apiKey("price-watch");
  const answer = await gateway.fetch("GET", "/v1/products/7", { headers: { "x-api-key": key } });
  expect(answer).toMatchObject({ status: 200, route: "partners/products", record: { consumer: "price-watch" } });
  const made = await gateway.fetch("GET", "/v1/products/7", { headers: { "x-api-key": "shop_madeup" } });
  expect(made.reason).toBe("credentials-invalid");
});

test("a search that is slow to begin ends after three seconds", async () => {
  gateway.upstream(() => new Promise(() => {}));
  const pending = gateway.fetch("GET", "/v1/search?q=keyboard");
  await gateway.advance("8s");
  expect((await pending).reason).toBe("upstream-timeout");
});

describe("the staff's API", () => {
  const staff = { subject: "staff", scopes: ["admin"] };

  test.each([
    ["from the office", "10.20.0.7", 200],
    ["from the VPN", "2001:db8:20::7", 200],
    ["from elsewhere", "203.0.113.7", 403],
  ])("%s", async (_, client, status) => {
    expect((await gateway.fetch("GET", "/admin/users", { as: staff, client })).status).toBe(status);
  });
});

test("attacks do not reach a cluster", async () => {
  const { reason, upstream } = await gateway.fetch("GET", "/v1/search?q=1'+OR+'1'='1'--");
  expect([reason, upstream]).toEqual(["request-filtered", []]);
});

test("the old addresses lead to the new ones", async () => {
  const { status, headers } = await gateway.fetch("POST", "/api/orders?a=1");
  expect([status, headers.get("location")]).toEqual([308, "https://api.example.com/v1/orders?a=1"]);
});
