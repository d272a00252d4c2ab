import { z } from "zod";
import { policyBuilder } from "../config/policy.ts";
import type { HeaderEdit, PolicyRun } from "./contract.ts";

export interface SecurityHeadersOptions {
  /** Seconds of Strict-Transport-Security (RFC 6797), with subdomains; 0 leaves it out. Default: 31536000, a year. */
  readonly hsts?: number;
  /** Content-Security-Policy; "" leaves it out. Default: `default-src 'none'; frame-ancestors 'none'`, right for an API. */
  readonly contentSecurityPolicy?: string;
  /** Default: `no-referrer`. */
  readonly referrerPolicy?: string;
  /** Response headers that tell what the origin runs. Default: Server, X-Powered-By, X-AspNet-Version, X-AspNetMvc-Version. */
  readonly remove?: readonly string[];
}

/** Response headers that keep browsers from guessing, framing and leaking; on every answer, also the gateway's own. */
export const securityHeaders = policyBuilder<SecurityHeadersOptions>("securityHeaders");

export const schema = () =>
  z.strictObject({
    hsts: z.int().min(0).optional(),
    contentSecurityPolicy: z.string().optional(),
    referrerPolicy: z.string().min(1).optional(),
    remove: z.array(z.string().regex(/^[A-Za-z0-9-]+$/)).optional(),
  });

export interface SecurityHeadersConfig {
  readonly edits: readonly HeaderEdit[];
}

export function compile(options: SecurityHeadersOptions): SecurityHeadersConfig {
  const hsts = options.hsts ?? 31_536_000;
  const csp = options.contentSecurityPolicy ?? "default-src 'none'; frame-ancestors 'none'";
  const edits: HeaderEdit[] = (
    options.remove ?? ["server", "x-powered-by", "x-aspnet-version", "x-aspnetmvc-version"]
  ).map((name) => ({ action: "remove", name: name.toLowerCase() }));
  const set = (name: string, value: string) => edits.push({ action: "set", name, value });
  if (hsts > 0) set("strict-transport-security", `max-age=${hsts}; includeSubDomains`);
  set("x-content-type-options", "nosniff");
  set("referrer-policy", options.referrerPolicy ?? "no-referrer");
  if (csp !== "") set("content-security-policy", csp);
  return { edits };
}

export const run: PolicyRun<SecurityHeadersConfig> = ({ edits }) => {
  return (c, next) => {
    c.get("exchange").responseEdits.push(...edits);
    return next();
  };
};
