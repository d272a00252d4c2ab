/** The same request to a gateway that runs, and where its decision record differs from what is explained here. */
import { request as httpRequest } from "node:http";
import { request as httpsRequest } from "node:https";
import type { DecisionRecord } from "../policies/contract.ts";
import type { AskedRequest, Explanation } from "./explain.ts";

export interface Difference {
  readonly field: string;
  readonly here: unknown;
  readonly there: unknown;
}

/** Of requests by these, asking twice is no more than asking once and changes nothing (RFC 9110, 9.2.1). */
export const isSafe = (method: string): boolean => ["GET", "HEAD", "OPTIONS"].includes(method);

/** Milliseconds. */
const PATIENCE = 10_000;

/** Throws when there is no answer, or one without a record: a wrong secret, or a gateway without `debug`. */
export function liveRecord(
  base: string,
  { method, url, headers, body }: AskedRequest,
  secret: string,
): Promise<DecisionRecord> {
  const place = new URL(base);
  const [, host = "", target = "/"] = /^\w+:\/\/([^/?#]*)(.*)$/.exec(url) ?? [];
  const send = place.protocol === "https:" ? httpsRequest : httpRequest;
  return new Promise((resolve, reject) => {
    const sent = send(
      {
        host: place.hostname.replace(/^\[(.*)\]$/, "$1"),
        port: place.port || (place.protocol === "https:" ? 443 : 80),
        method,
        path: target.startsWith("/") ? target : `/${target}`,
        // The connection is with `base`, the request is for the host that it names.
        ...(place.protocol === "https:" && { servername: place.hostname }),
        headers: { ...grouped(headers), host, "x-portcullis-debug": secret },
        timeout: PATIENCE,
      },
      (response) => {
        response.resume();
        const record = response.headers["x-portcullis-record"];
        if (typeof record === "string") resolve(JSON.parse(record) as DecisionRecord);
        else
          reject(
            new Error(
              `${base} answered ${response.statusCode} without a record: the gateway needs debug: secret("..."), and this the same secret (docs/records.md)`,
            ),
          );
      },
    );
    sent.on("timeout", () => sent.destroy(new Error(`no answer within ${PATIENCE / 1_000} s`)));
    sent.on("error", (error) => reject(new Error(`${base}: ${error.message}`)));
    sent.end(body);
  });
}

function grouped(headers: AskedRequest["headers"]): Record<string, string[]> {
  const all: Record<string, string[]> = {};
  for (const [name, value] of headers) (all[name.toLowerCase()] ??= []).push(value);
  return all;
}

/** What both decided otherwise. Ids, times and counts are each request's own and are not compared. */
export function differences({ record: here }: Pick<Explanation, "record">, there: DecisionRecord): Difference[] {
  const found: Difference[] = [];
  const compare = (field: string, mine: unknown, theirs: unknown) => {
    if (JSON.stringify(mine) !== JSON.stringify(theirs)) found.push({ field, here: mine, there: theirs });
  };
  for (const field of ["table", "host", "path", "listener", "route", "consumer", "subject", "arm", "backend"] as const)
    compare(field, here[field], there[field]);
  compare("reason", here.reason, there.reason);
  const verdicts = ({ policies }: DecisionRecord) =>
    policies.map(({ policy, verdict, reason }) => [policy, verdict, reason].filter(Boolean).join(" "));
  compare("policies", verdicts(here), verdicts(there));
  const keys = ({ limits = [] }: DecisionRecord) => limits.map(({ name, key }) => `${name} ${key}`);
  // Without its store a limiter may let pass and count nothing, and then it has no key to tell.
  const uncounted = there.limits === undefined && there.policies.some(({ facts }) => facts?.store === "failed");
  if (!uncounted) compare("limits", keys(here), keys(there));
  // The status of what a cluster answered is the cluster's, and here it is assumed.
  if (here.reason !== undefined || there.reason !== undefined) compare("status", here.status, there.status);
  if (here.client !== there.client) compare("client", here.client, there.client);
  return found;
}
