/** Whether an answer is what a case expects: the README's rules, which are those of the suite's CompareRoundTrip. */
import type { Case, Expectation } from "./cases.ts";
import type { Echo } from "./echo.ts";
import { type Answer, type WireRequest, wireRequest } from "./exchange.ts";
import type { GrpcResult } from "./grpc-web.ts";

/** What is wrong with an answer, in one line; undefined when nothing is. */
export type Fault = string | undefined;

const REDIRECTS = new Set([300, 301, 302, 303, 307, 308]);
const TIMEOUTS = [408, 504];

export function judge(tested: Case, answer: Answer): Fault {
  const { expect: expected } = tested;
  const { statusCodes } = expected;
  const { status } = answer;
  if (TIMEOUTS.includes(status) && statusCodes.some((code) => TIMEOUTS.includes(code))) return undefined;
  if (!statusCodes.includes(status)) return `status ${status}${told(answer)}, expected ${statusCodes.join(" or ")}`;
  if (status === 200 || status === 204) {
    return (
      (isOwn(expected) ? ownFault(answer) : upstreamFault(tested, answer)) ?? responseHeadersFault(expected, answer)
    );
  }
  return REDIRECTS.has(status) && expected.redirect
    ? redirectFault(expected.redirect, wireRequest(tested), answer)
    : undefined;
}

export function judgeGrpc({ expect, request }: Case, { code, message, assertions }: GrpcResult): Fault {
  const expected = expect.code ?? "OK";
  if (code !== expected) return `gRPC status ${code}${message && ` (${message})`}, expected ${expected}`;
  if (code !== "OK") return undefined;
  const method = `/${request.service}/${request.method}`;
  return firstFault(
    differs("method", assertions?.fullyQualifiedMethod, method),
    expect.namespace === undefined ? undefined : differs("namespace", assertions?.namespace, expect.namespace),
    podFault(assertions?.pod, expect.backend),
  );
}

/** The echo in an answer; undefined when something else answered. */
export function echoOf({ headers, body }: Answer): Partial<Echo> | undefined {
  if (headers.get("content-type")?.join() !== "application/json") return undefined;
  try {
    return JSON.parse(String(body));
  } catch {
    return undefined;
  }
}

/** Pods are named `<backend>-<hash>-<hash>`. */
export const backendOf = (pod: string): string => pod.split("-").slice(0, -2).join("-");

/** How the gateway explains itself, for who reads the fault. */
function told({ headers, body }: Answer): string {
  if (!headers.get("content-type")?.join().startsWith("application/problem+json")) return "";
  try {
    const { type, title, detail } = JSON.parse(String(body)) as Record<string, string>;
    return ` (${[type?.split(/[/:#]/).at(-1) ?? title, detail].filter(Boolean).join(": ")})`;
  } catch {
    return "";
  }
}

const isOwn = ({ answeredByGateway, namespace }: Expectation): boolean =>
  answeredByGateway === true || namespace === "";

const ownFault = (answer: Answer): Fault => {
  const echo = echoOf(answer);
  return echo?.pod && `${echo.pod} answered, expected the gateway itself`;
};

function upstreamFault(tested: Case, answer: Answer): Fault {
  const echo = echoOf(answer);
  if (!echo) return "the answer is no echo of a backend's";
  const { expect: expected, request } = tested;
  const wanted: NonNullable<Expectation["upstreamRequest"]> = expected.upstreamRequest ?? request;
  const { method = "GET", host, path = "/", headers = {}, absentHeaders = [], httpPort } = wanted;
  const seen = new Map(Object.entries(echo.headers ?? {}).map(([name, values]) => [name.toLowerCase(), values.join()]));
  return firstFault(
    // The listener's port, which the case does not have, reaches the backend with the rest of the client's Host.
    host ? differs("upstream host", echo.host, host === request.host ? wireRequest(tested).host : host) : undefined,
    differs("upstream path", echo.path, path),
    differs("upstream method", echo.method, method),
    expected.namespace === undefined ? undefined : differs("namespace", echo.namespace, expected.namespace),
    ...Object.entries(headers).map(([name, value]) => differs(`upstream ${name}`, seen.get(name.toLowerCase()), value)),
    ...absentHeaders.map((name) => isPresent(`upstream ${name}`, seen.get(name.toLowerCase()))),
    httpPort === undefined ? undefined : differs("upstream port", echo.httpPort, httpPort),
    podFault(echo.pod, expected.backend),
  );
}

function responseHeadersFault(expected: Expectation, { headers }: Answer): Fault {
  const { responseHeaders = {}, responseHeaderOneOf = {}, responseAbsentHeaders = [], ignoreWhitespace } = expected;
  const spelt = (value: string) => (ignoreWhitespace ? value.replaceAll(" ", "") : value);
  const seen = (name: string) => headers.get(name.toLowerCase())?.join();
  return firstFault(
    ...[
      ...Object.entries(responseHeaders).map(([name, value]) => [name, [value]] as const),
      ...Object.entries(responseHeaderOneOf),
    ].map(([name, values]) => {
      const value = seen(name);
      if (value !== undefined && values.map(spelt).includes(spelt(value))) return undefined;
      return `response ${name} ${shown(value)}, expected ${values.map(shown).join(" or ")}`;
    }),
    ...responseAbsentHeaders.map((name) => isPresent(`response ${name}`, seen(name))),
  );
}

function redirectFault(expected: NonNullable<Expectation["redirect"]>, sent: WireRequest, { headers }: Answer): Fault {
  const location = headers.get("location")?.join();
  const base = `${sent.scheme}://${sent.host}${sent.target}`;
  if (location === undefined || !URL.canParse(location, base)) return `Location ${shown(location)}, expected a URL`;
  const { protocol, hostname, pathname } = new URL(location, base);
  const scheme = protocol.slice(0, -1);
  const port = portOf(/^[a-z]+:\/\//i.test(location) ? location : base);
  const { path = sent.target.split("?", 1)[0] } = expected;
  const allowed = expected.port ? [expected.port] : ["", scheme === "https" ? "443" : "80"];
  const at = ` (Location ${location})`;
  return firstFault(
    expected.host ? differs("redirect host", hostname, expected.host, at) : undefined,
    allowed.includes(port)
      ? undefined
      : `redirect port ${shown(port)}, expected ${allowed.map(shown).join(" or ")}${at}`,
    differs("redirect scheme", scheme, expected.scheme ?? sent.scheme, at),
    differs("redirect path", decodeURIComponent(pathname), path as string, at),
  );
}

/** As it is written: a URL parser takes the scheme's default away. */
const portOf = (url: string): string => /^[a-z]+:\/\/[^/?#]*?:([0-9]*)(?:[/?#]|$)/i.exec(url)?.[1] ?? "";

const podFault = (pod: string | undefined, backend: string): Fault =>
  pod?.startsWith(backend) ? undefined : `pod ${shown(pod)}, expected one of ${shown(backend)}`;

const differs = (what: string, seen: string | undefined, expected: string, at = ""): Fault =>
  seen === expected ? undefined : `${what} ${shown(seen)}, expected ${shown(expected)}${at}`;

const isPresent = (what: string, seen: string | undefined): Fault =>
  seen === undefined ? undefined : `${what} ${shown(seen)}, expected none`;

const shown = (value: string | undefined): string => (value === undefined ? "absent" : JSON.stringify(value));

const firstFault = (...faults: readonly Fault[]): Fault => faults.find((fault) => fault !== undefined);
