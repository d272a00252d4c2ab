import { api, redirect, route } from "portcullis";
import { shopHosts } from "./hosts.ts";

/** The API before /v1. 308, so that a POST stays a POST. */
export default api("legacy", { hosts: shopHosts }, [
  route("moved", { path: "/api/*" }, { to: redirect({ status: 308, path: { prefix: "/v1" } }) }),
]);
