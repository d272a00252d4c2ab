import { api, ipFilter, route, scopes } from "portcullis";
import { eu } from "./clusters.ts";
import { shopHosts } from "./hosts.ts";
import { shopToken } from "./identity.ts";

/** For the staff: from the office and the VPN only, and with a scope of its own. */
export default api(
  "admin",
  { hosts: shopHosts, policies: [ipFilter({ allow: ["10.20.0.0/16", "2001:db8:20::/48"] }), shopToken] },
  [route("all", { path: "/admin/*" }, { policies: [scopes("admin")], to: eu.service("admin") })],
);
