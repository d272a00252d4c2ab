import { api, apiKey, rateLimit, route } from "portcullis";
import { eu, us } from "./clusters.ts";
import { priceWatch } from "./consumers.ts";
import { shopHosts } from "./hosts.ts";

/** The catalogue for machines of partners: who shows an API key is limited by who it is, and no longer by where it comes from. */
export default api("partners", { hosts: shopHosts, policies: [apiKey({ prefix: "shop", consumers: [priceWatch] })] }, [
  route(
    "products",
    { path: "/v1/products/*", methods: ["GET"], headers: { "x-api-key": true } },
    {
      policies: [rateLimit({ per: "consumer", limit: 3_000, window: "1m" })],
      to: eu.service("catalog").or(us.service("catalog")),
    },
  ),
]);
