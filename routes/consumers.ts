import { consumer } from "portcullis";

/** The shop's own web application. */
export const storefront = consumer("storefront", { claims: { client_id: "storefront" } });

/** The warehouse's system, which orders in bulk. */
export const warehouse = consumer("warehouse", { claims: { client_id: "warehouse" } });
