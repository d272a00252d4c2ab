import { cluster, env, mirror } from "portcullis";
import { shop } from "./shop.ts";

/** Every request is copied to another cluster. */
export default shop({
  services: 1,
  route: { mirrors: [mirror(cluster("shadow", { ingress: env("SHADOW") }))] },
});
