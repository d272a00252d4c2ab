import { api, cors, rateLimit, route, scopes, split } from "portcullis";
import { eu, us } from "./clusters.ts";
import { warehouse } from "./consumers.ts";
import { canaryKey } from "./environment.ts";
import { shopHosts } from "./hosts.ts";
import { shopToken } from "./identity.ts";

/** Reading orders is where the rewrite in orders-next is tried: 5 % of the customers, always the same ones. */
const ordersCanary = split(
  {
    stable: eu.service("orders").or(us.service("orders")).weight(95),
    canary: eu.service("orders-next").weight(5),
  },
  { sticky: "subject", override: { header: "x-canary", secret: canaryKey } },
);

export default api(
  "orders",
  { hosts: shopHosts, policies: [shopToken, cors({ origins: ["https://shop.example.com"], credentials: true })] },
  [
    route("list", { path: "/v1/orders", methods: ["GET"] }, { policies: [scopes("orders:read")], to: ordersCanary }),
    route(
      "read",
      { path: "/v1/orders/{id}", methods: ["GET"] },
      { policies: [scopes("orders:read")], to: ordersCanary },
    ),
    route(
      "create",
      { path: "/v1/orders", methods: ["POST"] },
      {
        policies: [
          scopes("orders:write"),
          rateLimit({
            per: "consumer",
            limit: 5,
            window: "1m",
            consumers: [[warehouse, 500]],
            onStoreFailure: "local",
          }),
        ],
        to: eu.service("orders"),
      },
    ),
  ],
);
