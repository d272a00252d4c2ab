/** All policies as the edge runs them: a table that comes from elsewhere may use any. */

import type { GatewayParts } from "../edge/isolate.ts";
import * as allOf from "../policies/all-of.ts";
import * as anonymous from "../policies/anonymous.ts";
import * as anyOf from "../policies/any-of.ts";
import * as apiKey from "../policies/api-key.ts";
import * as authorize from "../policies/authorize.ts";
import * as basic from "../policies/basic.ts";
import * as clientCertificate from "../policies/client-certificate.ts";
import * as concurrency from "../policies/concurrency.ts";
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

export const runs: Required<GatewayParts["runs"]> = {
  requestId: requestId.run,
  securityHeaders: securityHeaders.run,
  cors: cors.run,
  ipFilter: ipFilter.run,
  penaltyBox: penaltyBox.run,
  jwt: jwt.run,
  oidc: oidc.run,
  introspection: introspection.run,
  apiKey: apiKey.run,
  basic: basic.run,
  clientCertificate: clientCertificate.run,
  hmac: hmac.run,
  forwardAuth: forwardAuth.run,
  oidcLogin: oidcLogin.run,
  anyOf: anyOf.run,
  allOf: allOf.run,
  anonymous: anonymous.run,
  scopes: scopes.run,
  authorize: authorize.run,
  rateLimit: rateLimit.run,
  concurrency: concurrency.run,
  filter: filter.run,
  waf: waf.run,
  upstreamToken: upstreamToken.run,
  headers: headers.run,
  middleware: middleware.run,
};

export const authenticators: GatewayParts["authenticators"] & object = {
  jwt: jwt.authenticator,
  oidc: oidc.authenticator,
  introspection: introspection.authenticator,
  apiKey: apiKey.authenticator,
  basic: basic.authenticator,
  clientCertificate: clientCertificate.authenticator,
  hmac: hmac.authenticator,
  forwardAuth: forwardAuth.authenticator,
  oidcLogin: oidcLogin.authenticator,
  anyOf: anyOf.authenticator,
  allOf: allOf.authenticator,
  anonymous: anonymous.authenticator,
};
