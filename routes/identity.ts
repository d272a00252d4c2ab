import { jwt } from "portcullis";
import { storefront, warehouse } from "./consumers.ts";
import { issuerKeys } from "./environment.ts";

/** The shop's tokens: who has one is known by subject and, for our own applications, as a consumer. */
export const shopToken = jwt({
  issuer: "https://login.example.com",
  audience: "https://api.example.com",
  jwks: issuerKeys,
  consumers: [storefront, warehouse],
  claimsToHeaders: { sub: "x-user-id", email: "x-user-email" },
});
