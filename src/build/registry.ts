/** The policies as the build sees them: what checks their options and what compiles them. */
import type { z } from "zod";
import * as allOf from "../policies/all-of.ts";
import * as anonymous from "../policies/anonymous.ts";
import * as anyOf from "../policies/any-of.ts";
import * as apiKey from "../policies/api-key.ts";
import * as authorize from "../policies/authorize.ts";
import * as basic from "../policies/basic.ts";
import * as clientCertificate from "../policies/client-certificate.ts";
import * as concurrency from "../policies/concurrency.ts";
import type { CompileContext } from "../policies/contract.ts";
import * as cors from "../policies/cors.ts";
import * as filter from "../policies/filter.ts";
import * as forwardAuth from "../policies/forward-auth.ts";
import * as headers from "../policies/headers.ts";
import * as hmac from "../policies/hmac.ts";
import * as introspection from "../policies/introspection.ts";
import * as ipFilter from "../policies/ip-filter.ts";
import * as jwt from "../policies/jwt.ts";
import * as middleware from "../policies/middleware.ts";
import * as oidc from "../policies/oidc.ts";
import * as oidcLogin from "../policies/oidc-login.ts";
import * as penaltyBox from "../policies/penalty-box.ts";
import * as rateLimit from "../policies/rate-limit.ts";
import * as requestId from "../policies/request-id.ts";
import * as scopes from "../policies/scopes.ts";
import * as securityHeaders from "../policies/security-headers.ts";
import * as upstreamToken from "../policies/upstream-token.ts";
import * as waf from "../policies/waf.ts";
import type { PolicyName } from "../table/table.ts";

export interface RegisteredPolicy {
  /** In src/policies/, whose `run` the Worker imports. */
  readonly file: string;
  readonly schema: () => z.ZodType;
  readonly compile: (options: never, context: CompileContext) => unknown;
}

const registered = (
  file: string,
  { schema, compile }: { schema: () => z.ZodType; compile: unknown },
): RegisteredPolicy => {
  let made: z.ZodType | undefined;
  // 10,000 routes may declare 10,000 policies, and to make a schema takes longer than to use it.
  return { file, schema: () => (made ??= schema()), compile: compile as RegisteredPolicy["compile"] };
};

export const registry: Readonly<Record<PolicyName, RegisteredPolicy>> = {
  requestId: registered("request-id.ts", requestId),
  securityHeaders: registered("security-headers.ts", securityHeaders),
  cors: registered("cors.ts", cors),
  ipFilter: registered("ip-filter.ts", ipFilter),
  penaltyBox: registered("penalty-box.ts", penaltyBox),
  jwt: registered("jwt.ts", jwt),
  oidc: registered("oidc.ts", oidc),
  introspection: registered("introspection.ts", introspection),
  apiKey: registered("api-key.ts", apiKey),
  basic: registered("basic.ts", basic),
  clientCertificate: registered("client-certificate.ts", clientCertificate),
  hmac: registered("hmac.ts", hmac),
  forwardAuth: registered("forward-auth.ts", forwardAuth),
  oidcLogin: registered("oidc-login.ts", oidcLogin),
  anyOf: registered("any-of.ts", anyOf),
  allOf: registered("all-of.ts", allOf),
  anonymous: registered("anonymous.ts", anonymous),
  scopes: registered("scopes.ts", scopes),
  authorize: registered("authorize.ts", authorize),
  rateLimit: registered("rate-limit.ts", rateLimit),
  concurrency: registered("concurrency.ts", concurrency),
  filter: registered("filter.ts", filter),
  waf: registered("waf.ts", waf),
  upstreamToken: registered("upstream-token.ts", upstreamToken),
  headers: registered("headers.ts", headers),
  middleware: registered("middleware.ts", middleware),
};
