/** One route for each thing that a test may want in its hands. */
import { basicAuth } from "hono/basic-auth";
import {
  api,
  basic,
  cluster,
  concurrency,
  env,
  forwardAuth,
  gateway,
  headers,
  mirror,
  penaltyBox,
  rateLimit,
  route,
  secret,
  upstreamToken,
} from "portcullis";

const eu = cluster("eu", { ingress: env("EU") });
const us = cluster("us", { ingress: env("US") });
const limited = (path: string, policy: ReturnType<typeof rateLimit>) =>
  route(path.slice(1), { path }, { policies: [policy], to: eu });

export default gateway({ store: { url: env("STORE"), token: secret("STORE_TOKEN") } }, [
  api("all", { hosts: ["api.test"] }, [
    route("retried", { path: "/retried" }, { to: eu, retry: { attempts: 2, on: [503] } }),
    route("mirrored", { path: "/mirrored" }, { to: eu, mirrors: [mirror(us, { methods: "any" })] }),
    route(
      "middleware",
      { path: "/middleware" },
      {
        policies: [
          async (c, next) => {
            const body = await c.req.text();
            if (body === "no") return c.text("refused", 418);
            await next();
            c.res.headers.set("x-read", body);
            return undefined;
          },
        ],
        to: eu,
      },
    ),
    route("refusing", { path: "/refusing" }, { policies: [basicAuth({ username: "a", password: "b" })], to: eu }),
    route("asked", { path: "/asked" }, { policies: [forwardAuth({ url: "https://auth.test/check" })], to: eu }),
    route(
      "token",
      { path: "/token" },
      {
        policies: [
          upstreamToken({ endpoint: "https://login.test/token", clientId: "gateway", clientSecret: secret("CLIENT") }),
          headers({ request: { set: { "x-from": secret("FROM") } } }),
        ],
        to: eu,
      },
    ),
    route("basic", { path: "/basic" }, { policies: [penaltyBox({ failures: 2 }), basic({ store: true })], to: eu }),
    route("concurrent", { path: "/concurrent" }, { policies: [concurrency({ limit: 1 })], to: eu }),
    limited("/fixed", rateLimit({ limit: 2, window: "1m", algorithm: "fixedWindow" })),
    limited("/sliding", rateLimit({ limit: 2, window: "1m" })),
    limited("/bucket", rateLimit({ limit: 60, window: "1m", algorithm: "tokenBucket", burst: 2 })),
    limited("/leased", rateLimit({ limit: 30, window: "1m", count: "leased" })),
    limited("/cost", rateLimit({ limit: 3, window: "1m", cost: { header: "x-cost" } })),
    limited(
      "/several",
      rateLimit({
        windows: [
          { limit: 2, window: "10s" },
          { limit: 3, window: "1h" },
        ],
      }),
    ),
  ]),
]);
