import { z } from "zod";
import { type Deciding, policyBuilder } from "../config/policy.ts";
import { inRange, parseAddress, parseRange } from "../table/cidr.ts";
import { type CompileContext, type PolicyRun, pass, refuse } from "./contract.ts";

export interface IpFilterOptions extends Deciding {
  /** Addresses and CIDR ranges, v4 and v6. When given, all others are refused. */
  readonly allow?: readonly string[];
  /** Refused, also when allowed. */
  readonly deny?: readonly string[];
}

/** Lets requests through by the client's trusted address; 403 `address-denied` otherwise. */
export const ipFilter = policyBuilder<IpFilterOptions>("ipFilter");

export const schema = () =>
  z.strictObject({
    mode: z.enum(["enforce", "report", "off"]).optional(),
    allow: z.array(z.string()).min(1).optional(),
    deny: z.array(z.string()).min(1).optional(),
  });

export interface IpFilterConfig {
  readonly allow?: readonly string[];
  readonly deny?: readonly string[];
}

export function compile(options: IpFilterOptions, context: CompileContext): IpFilterConfig {
  const { allow, deny } = options;
  if (!allow && !deny) context.problem("ipFilter has neither `allow` nor `deny`", "give at least one list of ranges");
  for (const text of [...(allow ?? []), ...(deny ?? [])]) {
    if (!parseRange(text)) {
      context.problem(
        `"${text}" is no address or CIDR range`,
        "write it as 10.0.0.0/8 or 2001:db8::/32, with no bits set after the prefix",
      );
    }
  }
  return { ...(allow && { allow: [...allow].sort() }), ...(deny && { deny: [...deny].sort() }) };
}

export const run: PolicyRun<IpFilterConfig> = (config, _runtime, mode) => {
  const ranges = (texts?: readonly string[]) =>
    texts?.map((text) => parseRange(text)).filter((range) => range !== undefined);
  const allow = ranges(config.allow);
  const deny = ranges(config.deny);
  return async (c, next) => {
    const exchange = c.get("exchange");
    const address = parseAddress(exchange.clientAddress);
    // An address that cannot be read is on no list: an allow list refuses it, and so does a deny list, since it may hide one.
    const allowed =
      address !== undefined &&
      !deny?.some((range) => inRange(address, range)) &&
      (!allow || allow.some((range) => inRange(address, range)));
    if (!allowed) {
      const answer = refuse(exchange, "ipFilter", mode, "address-denied");
      if (answer) return answer;
    } else {
      pass(exchange, "ipFilter");
    }
    return next();
  };
};
