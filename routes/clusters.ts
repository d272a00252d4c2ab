import { cluster } from "portcullis";
import { euIngress, usCluster } from "./environment.ts";

/** Services that keep failing are left out for a time; what nobody can answer is refused at once instead of waited for. */
const watched = { outlier: {}, breaker: {} };

/** Frankfurt: a public ingress, which finds the service by the path in front. */
export const eu = cluster("eu", { ingress: euIngress, region: "weur", services: { path: "/{service}" }, ...watched });

/** Virginia: no public endpoint; reached through a VPC service binding, and the ingress finds the service by Host. */
export const us = cluster("us", {
  ingress: usCluster,
  region: "enam",
  services: { host: "{service}.us.shop.internal" },
  ...watched,
});
