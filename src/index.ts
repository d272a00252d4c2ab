/** What `routes/` imports from "portcullis". */
export * from "./config/api.ts";
export * from "./config/cluster.ts";
export * from "./config/consumer.ts";
export * from "./config/listener.ts";
export { without } from "./config/policy.ts";
export { binding, env, secret } from "./config/values.ts";
export { apiKey } from "./policies/api-key.ts";
export { cors } from "./policies/cors.ts";
export { filter } from "./policies/filter.ts";
export { headers } from "./policies/headers.ts";
export { ipFilter } from "./policies/ip-filter.ts";
export { jwt } from "./policies/jwt.ts";
export { middleware } from "./policies/middleware.ts";
export { rateLimit } from "./policies/rate-limit.ts";
export { requestId } from "./policies/request-id.ts";
export { scopes } from "./policies/scopes.ts";
export { securityHeaders } from "./policies/security-headers.ts";
