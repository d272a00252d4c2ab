import { rateLimit } from "portcullis";
import { shop } from "./shop.ts";

/** The limit of limited.ts, counted in leases. */
export default shop({
  services: 1,
  policies: [
    rateLimit({
      per: "consumer",
      limit: 1_000_000_000,
      window: "1h",
      count: "leased",
      onStoreFailure: "closed",
      timeout: "5s",
    }),
  ],
});
