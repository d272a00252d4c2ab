import { consumer, plan } from "portcullis";

/** The shop's own web application. */
export const storefront = consumer("storefront", { claims: { client_id: "storefront" } });

/** The warehouse's system, which orders in bulk. */
export const warehouse = consumer("warehouse", { claims: { client_id: "warehouse" } });

/** What partners get who pay nothing for it. */
export const partnerPlan = plan("partner", { limits: [{ limit: 3_000, window: "1m" }] });

/** A site that compares prices. Its API key is made by `gateway keys create --consumer price-watch`. */
export const priceWatch = consumer("price-watch", { groups: ["partners"], plan: partnerPlan });
