import type { MiddlewareHandler } from "hono";
import { bodyLimit } from "hono/body-limit";
import { poweredBy } from "hono/powered-by";
import { describe, expect, it } from "vitest";
import { compile, run } from "../../src/policies/middleware.ts";
import { compileContext, type PolicyOptions, runPolicy } from "./exchange.ts";

const through = (handler: MiddlewareHandler, request: Request, options: PolicyOptions = {}) => {
  const config = compile({ handler }, compileContext());
  return runPolicy(run, config, request, { middleware: { "orders/list#0": handler }, ...options });
};
const post = (body: BodyInit) => new Request("https://api.example.com/v1", { method: "POST", body });
const sent = async (body: unknown) => new Response(body as BodyInit).text();

describe("what middleware sees", () => {
  it("is the request as the origin will get it, whatever the client sent", async () => {
    const seen: Record<string, unknown> = {};
    const handler: MiddlewareHandler = async (c, next) => {
      Object.assign(seen, { path: c.req.path, url: c.req.url, subject: c.req.header("x-consumer-subject") });
      await next();
    };
    const request = new Request("https://api.example.com/raw", { headers: { "x-consumer-subject": "admin" } });
    await through(handler, request, { exchange: { path: "/v1/normal", search: "?a=1" } });
    expect(seen).toEqual({ path: "/v1/normal", url: "https://api.example.com/v1/normal?a=1", subject: undefined });
  });
});

describe("bodies", () => {
  it.each<[string, MiddlewareHandler]>([
    ["is left alone", (_, next) => next()],
    ["is read as JSON", (c, next) => c.req.json().then(next)],
    ["is read as text", (c, next) => c.req.text().then(next)],
    ["is limited", bodyLimit({ maxSize: 1_000 })],
  ])("reach the origin whole when the body %s", async (_, handler) => {
    const { exchange, passed } = await through(handler, post('{"a": 1 }'));
    expect(passed).toBe(true);
    expect(await sent(exchange.body)).toBe('{"a": 1 }');
  });

  it("that a policy holds are the ones that middleware reads", async () => {
    let read: unknown;
    const handler: MiddlewareHandler = async (c, next) => {
      read = await c.req.text();
      await next();
    };
    const held = new TextEncoder().encode("held");
    const { exchange } = await through(handler, post("held"), { exchange: { body: held } });
    expect([read, await sent(exchange.body)]).toEqual(["held", "held"]);
  });

  it("that are used up behind Hono's back fail loudly", async () => {
    const handler: MiddlewareHandler = async (c, next) => {
      await c.req.raw.text();
      await next();
    };
    await expect(through(handler, post("x"))).rejects.toThrow("used up the body");
  });
});

describe("answers", () => {
  it("of the origin can be changed, though their headers are fixed", async () => {
    const origin = () => Response.redirect("https://elsewhere.example.com/", 307);
    const { response } = await through(poweredBy(), new Request("https://h/"), { origin });
    expect(response.status).toBe(307);
    expect(response.headers.get("x-powered-by")).toBe("Hono");
  });

  it("of the middleware itself are given and recorded", async () => {
    const { response, passed, exchange } = await through(
      (c) => Promise.resolve(c.text("no", 418)),
      new Request("https://h/"),
    );
    expect([response.status, passed]).toEqual([418, false]);
    expect(exchange.record.reason).toBe("policy");
  });
});
