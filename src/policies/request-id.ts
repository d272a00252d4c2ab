import { z } from "zod";
import { policyBuilder } from "../config/policy.ts";
import type { PolicyRun } from "./contract.ts";

export interface RequestIdOptions {
  /** Default: `X-Request-Id`. */
  readonly header?: string;
  /** Take over an id that the client sends, if it is 8 to 64 letters, digits, `-`, `_` or `.`. Default: false. */
  readonly accept?: boolean;
}

/** Gives the request's id to the origin and to the client, so that both can name the request to who reads the records. */
export const requestId = policyBuilder<RequestIdOptions>("requestId");

export const schema = () =>
  z.strictObject({
    header: z
      .string()
      .regex(/^[A-Za-z0-9-]+$/)
      .optional(),
    accept: z.boolean().optional(),
  });

export interface RequestIdConfig {
  readonly header: string;
  readonly accept: boolean;
}

export const compile = ({ header = "x-request-id", accept = false }: RequestIdOptions): RequestIdConfig => ({
  header: header.toLowerCase(),
  accept,
});

export const run: PolicyRun<RequestIdConfig> = ({ header, accept }) => {
  return (c, next) => {
    const { record, upstream, responseEdits } = c.get("exchange");
    const sent = accept ? c.req.raw.headers.get(header) : null;
    if (sent !== null && /^[\w.-]{8,64}$/.test(sent)) record.id = sent;
    upstream.set(header, record.id);
    responseEdits.push({ action: "set", name: header, value: record.id });
    return next();
  };
};
