import { shop } from "./shop.ts";

/** Everything that is there for bad days, on a good one. */
export default shop({
  services: 1,
  clusters: ["eu", "us"],
  cluster: { outlier: {}, breaker: {}, concurrency: 1_000, health: {} },
  route: { retry: {} },
});
