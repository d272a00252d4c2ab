import type { MiddlewareHandler } from "hono";
import { z } from "zod";
import { policyBuilder } from "../config/policy.ts";
import type { CompileContext, Exchange, GatewayContext, PolicyRun } from "./contract.ts";

export interface MiddlewareOptions {
  /**
   * Any Hono middleware. The request that it sees is the one that the origin will get: the normal path, the gateway's headers, none
   * of those that a client may not set. It may read the body (as `c.req.json()` and the like), which is then held, and change the
   * response. Headers for the origin are set on `c.get("exchange").upstream`.
   */
  // biome-ignore lint/suspicious/noExplicitAny: middleware is written for environments of its own
  readonly handler: MiddlewareHandler<any, any, any>;
  /** How records name it. Default: the function's name. */
  readonly name?: string;
}

/** A Hono middleware with a name. In a list of policies the bare function does as well. */
export const middleware = policyBuilder<MiddlewareOptions>("middleware");

export const schema = () =>
  z.strictObject({
    handler: z.custom<MiddlewareHandler>((value) => typeof value === "function", "is no function"),
    name: z.string().min(1).optional(),
  });

/** `place` names the function in the routes module: a function is no JSON, so the Worker looks it up by its place. */
export interface MiddlewareConfig {
  readonly name: string;
  readonly place: string;
}

export const compile = ({ handler, name }: MiddlewareOptions, { place }: CompileContext): MiddlewareConfig => ({
  name: name ?? (handler.name || "middleware"),
  place,
});

export const run: PolicyRun<MiddlewareConfig> = ({ name, place }, runtime) => {
  const handler = runtime.middleware[place];
  if (!handler) throw new Error(`middleware ${name} (${place}) is not in the bundle`);
  return async (c, next) => {
    const exchange = c.get("exchange");
    const { record } = exchange;
    showUpstream(c, exchange);
    const answer = await handler(c, async () => {
      if (c.req.raw.body) exchange.body = await bodyLeft(c, name);
      await next();
      c.res = changeable(c);
    });
    // Hono's convention: a middleware that returns a response before it calls next() has answered.
    if (answer instanceof Response && !c.finalized) {
      record.policies.push({ policy: `middleware:${name}`, verdict: "deny" });
      record.reason = "policy";
    }
    return answer;
  };
};

/** Has `c.req` be the request as the origin will get it. What the client sent, forged headers and odd spellings too, is behind us. */
function showUpstream(c: GatewayContext, exchange: Exchange): void {
  const { scheme, host, path, search, upstreamSearch = search, upstream, body } = exchange;
  const original = c.req.raw;
  const authority = upstream.get("x-forwarded-host") ?? host;
  c.req.raw = new Request(`${scheme}://${authority}${path}${upstreamSearch}`, {
    method: original.method,
    headers: upstream,
    body: (body === undefined ? original.body : body) as BodyInit | null,
    signal: original.signal,
    redirect: "manual",
  });
  c.req.path = path;
}

/** What is to be sent: the body, or where the middleware has read it what Hono has kept of it. */
async function bodyLeft(c: GatewayContext, name: string): Promise<ReadableStream<Uint8Array> | Uint8Array | null> {
  const { raw, bodyCache } = c.req;
  if (!raw.bodyUsed) return raw.body;
  if (Object.keys(bodyCache).length > 0) return new Uint8Array(await c.req.arrayBuffer());
  throw new Error(`the middleware ${name} used up the body; read it with c.req.text() or the like, which keep it`);
}

/** An origin's response has fixed headers; middleware expects to change them. */
function changeable(c: GatewayContext): Response {
  const { res } = c;
  const { status, statusText, headers, webSocket } = res;
  // Else Hono would merge the old response into the new one, and lose the WebSocket.
  c.res = undefined;
  if (webSocket) return new Response(null, { status, statusText, headers, webSocket });
  return new Response(res.body, { status, statusText, headers, encodeBody: "manual" });
}
