import { cluster } from "portcullis";
import { euIngress, usCluster } from "./environment.ts";

/** Frankfurt: a public ingress, which finds the service by the path in front. */
export const eu = cluster("eu", { ingress: euIngress, region: "weur", services: { path: "/{service}" } });

/** Virginia: no public endpoint; reached through a VPC service binding, and the ingress finds the service by Host. */
export const us = cluster("us", {
  ingress: usCluster,
  region: "enam",
  services: { host: "{service}.us.shop.internal" },
});
