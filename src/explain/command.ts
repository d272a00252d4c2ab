/** `gateway explain METHOD URL`. */
import { painter } from "../dev/paint.ts";
import type { AssumedCaller } from "../offline/callers.ts";
import { usualHost } from "../offline/host.ts";
import type { DecisionRecord } from "../policies/contract.ts";
import { type AskedRequest, explain } from "./explain.ts";
import { type SubjectOptions, subjectOf } from "./subject.ts";
import { differencesText, explanationText } from "./text.ts";

export interface ExplainOptions extends SubjectOptions {
  readonly header?: readonly string[];
  readonly data?: string;
  readonly as?: string;
  readonly scope?: string;
  readonly sub?: string;
  readonly claim?: readonly string[];
  readonly group?: readonly string[];
  readonly plan?: string;
  readonly client?: string;
  readonly cf?: readonly string[];
  readonly online?: boolean;
  readonly live?: string;
  readonly secretEnv: string;
  readonly send?: boolean;
  readonly verbose?: boolean;
  readonly json?: boolean;
}

/** The exit code: 1 when a running gateway decides otherwise. */
export async function explainCommand(method: string, url: string, options: ExplainOptions): Promise<number> {
  const subject = await subjectOf(options);
  const asked = askedRequest(method, url, options, subject.table.routes[0]?.hosts);
  const { live, json, verbose } = options;
  const there = live === undefined ? undefined : await recordThere(live, asked, options);
  // The request comes from this machine, wherever that is to the gateway.
  const client = options.client ?? there?.client ?? asked.client;
  const explanation = await explain(subject, { ...asked, client });
  const found = there && (await import("./live.ts")).differences(explanation, there);
  if (json) process.stdout.write(`${JSON.stringify({ ...explanation, ...(found && { live, differences: found }) })}\n`);
  else {
    const paint = painter(process.stdout.hasColors?.() ?? false);
    process.stdout.write(explanationText(explanation, paint, verbose));
    if (found) process.stdout.write(`\n${differencesText(found, live ?? "", paint)}`);
  }
  return found && found.length > 0 ? 1 : 0;
}

async function recordThere(
  live: string,
  asked: AskedRequest,
  { secretEnv, send }: ExplainOptions,
): Promise<DecisionRecord> {
  const { isSafe, liveRecord } = await import("./live.ts");
  const secret = process.env[secretEnv];
  if (!secret) throw new Error(`the gateway's debug secret is wanted in the environment variable ${secretEnv}`);
  if (!URL.parse(live)?.protocol.startsWith("http")) throw new Error(`--live ${live} is no http(s) URL`);
  if (asked.as)
    throw new Error("a running gateway takes nobody for granted: give the credential with -H in place of --as");
  if (!isSafe(asked.method) && !send)
    throw new Error(`${asked.method} may change something where it is sent: add --send if that is wanted`);
  return liveRecord(live, asked, secret);
}

function askedRequest(
  method: string,
  given: string,
  options: ExplainOptions,
  hosts: readonly string[] | undefined,
): AskedRequest {
  const headers = (options.header ?? []).map((text): [string, string] => {
    const colon = text.indexOf(":");
    return [text.slice(0, colon).trim(), text.slice(colon + 1).trim()];
  });
  const url = /^https?:\/\//i.test(given)
    ? given
    : `https://${given.startsWith("/") ? usualHost(hosts ?? []) : ""}${given}`;
  const { as, scope, sub, claim = [], group, plan } = options;
  const claims = pairs(claim, (text) => {
    try {
      return JSON.parse(text);
    } catch {
      return text;
    }
  });
  const assumed = [as, scope, sub, group, plan].some((one) => one !== undefined) || claim.length > 0;
  const caller: AssumedCaller = {
    ...(as !== undefined && { consumer: as }),
    ...(sub !== undefined && { subject: sub }),
    ...(scope !== undefined && { scopes: scope.split(/[ ,]+/).filter(Boolean) }),
    ...(group && { groups: group }),
    ...(plan !== undefined && { plan }),
    claims,
  };
  return {
    method: method.toUpperCase(),
    url,
    headers,
    body: options.data,
    client: options.client ?? "203.0.113.7",
    cf: pairs(options.cf ?? [], (text) => (/^-?\d+$/.test(text) ? Number(text) : text)),
    ...(assumed && { as: caller }),
    ...(options.online && { online: true }),
  };
}

function pairs(texts: readonly string[], read: (text: string) => unknown): Record<string, unknown> {
  return Object.fromEntries(
    texts.map((text) => {
      const equals = text.indexOf("=");
      return [text.slice(0, equals), read(text.slice(equals + 1))];
    }),
  );
}
