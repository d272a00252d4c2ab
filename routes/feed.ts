import { api, route, without } from "portcullis";
import { eu } from "./clusters.ts";
import { shopHosts } from "./hosts.ts";

/** Stock levels as they change, over a WebSocket. */
export default api("feed", { hosts: shopHosts }, [
  route(
    "stock",
    { path: "/v1/feed", methods: ["GET"] },
    // An upgraded connection's response passes untouched, so there is nothing for response headers to stand on.
    { policies: [without("securityHeaders")], to: eu.service("feed"), websocket: true, timeouts: { total: "0s" } },
  ),
]);
