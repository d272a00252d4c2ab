import { api, cors, rateLimit, route } from "portcullis";
import { eu, us } from "./clusters.ts";
import { shopHosts } from "./hosts.ts";

/** What everybody may read. Europe answers; when it cannot, the other region does. */
export default api(
  "catalog",
  {
    hosts: shopHosts,
    policies: [cors({ origins: ["https://shop.example.com", "https://*.shop.example.com"], maxAge: 600 })],
  },
  [
    route(
      "products",
      { path: "/v1/products/*", methods: ["GET"] },
      {
        policies: [rateLimit({ per: "client", limit: 300, window: "1m", onStoreFailure: "open" })],
        to: eu.service("catalog").or(us.service("catalog")),
        retry: { attempts: 2 },
      },
    ),
    route(
      "search",
      { path: "/v1/search", methods: ["GET"], query: { q: true } },
      {
        policies: [
          rateLimit({
            per: "client",
            windows: [
              { limit: 10, window: "10s" },
              { limit: 100, window: "1h" },
            ],
          }),
        ],
        to: eu.service("search").or(us.service("search")),
        timeouts: { firstByte: "3s", total: "8s" },
      },
    ),
  ],
);
