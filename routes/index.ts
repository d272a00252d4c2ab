import { filter, gateway, requestId, securityHeaders } from "portcullis";
import admin from "./admin.ts";
import catalog from "./catalog.ts";
import { assertionKey, debugKey, redisToken, redisUrl } from "./environment.ts";
import feed from "./feed.ts";
import legacy from "./legacy.ts";
import orders from "./orders.ts";
import partners from "./partners.ts";

export default gateway(
  {
    policies: [requestId({}), securityHeaders({}), filter({})],
    store: { url: redisUrl, token: redisToken },
    debug: debugKey,
    assertion: { key: assertionKey, issuer: "https://api.example.com" },
  },
  [catalog, orders, partners, admin, feed, legacy],
);
