/** `gateway waf compile`, `waf test` and `waf tune`: rules for people. */
import { existsSync, readFileSync } from "node:fs";
import { relative } from "node:path";
import { gzipSync } from "node:zlib";
import type { DecisionRecord } from "../policies/contract.ts";
import { type CompiledRules, compileRules } from "../seclang/compile.ts";
import type { RuleProblem } from "../seclang/directives.ts";
import { prunedFor } from "../seclang/exclusions.ts";
import { Engine } from "../waf/engine.ts";
import { encodePack } from "../waf/pack-encoding.ts";
import type { WafRequest } from "../waf/request.ts";

export interface WafCompileOptions {
  readonly setup?: string;
  readonly paranoia?: number;
  readonly detection?: number;
  readonly response?: boolean;
  readonly bodies?: readonly ("form" | "multipart" | "json" | "xml")[];
  readonly allowUnsupported?: boolean;
  readonly messages?: boolean;
}

export interface WafReport {
  readonly ok: boolean;
  /** Rules that were read; that the configuration decided, so that they are not in the pack; that are in it. */
  readonly rules: { readonly read: number; readonly decided: number; readonly compiled: number };
  readonly words: number;
  readonly regexes: { readonly linear: number; readonly windowed: number };
  readonly bytes: number;
  readonly gzipBytes: number;
  /** Ids of rules that `bodies` makes impossible. */
  readonly pruned: readonly number[];
  readonly problems: readonly RuleProblem[];
  /** What was left out. */
  readonly warnings: readonly RuleProblem[];
  /** Rules that mean less here than in ModSecurity. */
  readonly notes: readonly RuleProblem[];
}

export function compileForReport(
  folder: string,
  options: WafCompileOptions,
): { report: WafReport; compiled: CompiledRules } {
  const compiled = compileRules(folder, {
    ...(options.setup !== undefined && { setup: options.setup }),
    ...(options.paranoia !== undefined && { paranoia: options.paranoia }),
    ...(options.detection !== undefined && { detection: options.detection }),
    ...(options.messages && { messages: true }),
    phases: options.response ? [1, 2, 3, 4] : [1, 2],
    allowUnsupported: options.allowUnsupported === true,
  });
  const { pack, counts } = compiled;
  const { json, bytes } = encodePack(pack);
  const pruned = options.bodies ? prunedFor(options.bodies, pack) : [];
  const report = {
    ok: compiled.problems.length === 0,
    rules: { read: counts.read, decided: counts.folded, compiled: counts.compiled - pruned.length },
    words: counts.words,
    regexes: {
      linear: pack.operators.filter(({ op }) => op === "rx").length,
      windowed: pack.operators.filter(({ op }) => op === "rx-backtracking").length,
    },
    bytes: json.length + bytes.length,
    gzipBytes: gzipSync(json).length + gzipSync(bytes).length,
    pruned: pruned.map((place) => pack.rules[place]?.id as number),
    problems: compiled.problems,
    warnings: compiled.warnings,
    notes: compiled.notes,
  };
  return { report, compiled };
}

/** `rules/a.conf:12: rule 100: what is wrong; how to correct it`. */
export const lineOf = ({ file, line, rule, message, fix }: RuleProblem): string =>
  `${relative(process.cwd(), file)}:${line}: ${rule === undefined ? "" : `rule ${rule}: `}${message}; ${fix}`;

export interface WafTested {
  /** Whether the rules would refuse the request. */
  readonly refused: boolean;
  readonly score: number;
  readonly status?: number;
  readonly rules: readonly {
    readonly id: number | string;
    readonly message: string;
    /** Without the value where `filter` was asked. */
    readonly on: readonly { readonly name: string; readonly value?: string }[];
  }[];
}

export function testRequest({ pack }: CompiledRules, request: WafRequest): WafTested {
  const { matches, scores, interruption } = new Engine(pack).evaluate(request);
  return {
    refused: interruption !== undefined,
    score: scores.blocking_inbound_anomaly_score ?? scores.anomaly_score ?? 0,
    ...(interruption && { status: interruption.status }),
    rules: matches.map(({ id, message = "", on }) => ({
      id,
      message,
      on: on.map(({ name, value }) => ({ name, value })),
    })),
  };
}

/** `text`: a request as it goes over the wire, or only its target, which is then a GET's. */
export function parsedRequest(text: string): WafRequest {
  const bytes = Buffer.from(text, "utf8").toString("latin1");
  if (!/^[A-Z]+ \S+ HTTP\//.test(bytes)) {
    const headers = ["host: localhost", "user-agent: gateway waf test", "accept: */*"].map(
      (line) => line.split(": ") as [string, string],
    );
    return { method: "GET", uri: bytes.trim(), protocol: "HTTP/1.1", headers, body: "", clientAddress: "127.0.0.1" };
  }
  const end = /\r?\n\r?\n/.exec(bytes);
  const [line = "", ...lines] = (end ? bytes.slice(0, end.index) : bytes.trimEnd()).split(/\r?\n/);
  const [method = "", uri = "", protocol = ""] = line.split(" ");
  const headers = lines.map((header): [string, string] => {
    const colon = header.indexOf(":");
    return [header.slice(0, colon).trim(), header.slice(colon + 1).trim()];
  });
  // Of a file with one newline at its end, that is the file's.
  const body = end ? bytes.slice(end.index + end[0].length).replace(/\r?\n$/, "") : "";
  const has = (name: string) => headers.some(([held]) => held.toLowerCase() === name);
  if (body !== "" && !has("content-length") && !has("transfer-encoding"))
    headers.push(["content-length", String(body.length)]);
  return { method, uri, protocol, headers, body, clientAddress: "127.0.0.1" };
}

export interface Proposal {
  readonly policy: "waf" | "filter";
  readonly rule: number | string;
  /** Absent: the record could not tell the variable's name, as it might have been a value. */
  readonly target?: string;
  readonly requests: number;
  readonly routes: readonly string[];
}

/** Decides nothing, and tells of nothing that a request was. */
const SCORING = /^(?:949|959|980)/;

/**
 * What would have to be left out for the requests of these records to pass: one proposal per rule and variable, the most frequent first.
 * Lines that are no records are passed over.
 */
export function proposals(log: string): { readonly proposals: Proposal[]; readonly records: number } {
  const found = new Map<string, Omit<Proposal, "routes" | "requests"> & { requests: number; routes: Set<string> }>();
  let records = 0;
  for (const line of log.split("\n")) {
    const { route, refused } = refusalIn(line);
    if (refused.length > 0) records++;
    for (const { policy, rule, target } of refused) {
      if (SCORING.test(String(rule))) continue;
      const key = `${policy} ${rule} ${target ?? ""}`;
      const one = found.get(key) ?? { policy, rule, ...(target && { target }), requests: 0, routes: new Set<string>() };
      one.requests++;
      one.routes.add(route);
      found.set(key, one);
    }
  }
  const sorted = [...found.values()].sort(
    (a, b) => b.requests - a.requests || String(a.rule).localeCompare(String(b.rule), "en", { numeric: true }),
  );
  return { records, proposals: sorted.map((one) => ({ ...one, routes: [...one.routes].sort() })) };
}

/** What a waf and a filter refused the request for, or would have. */
function refusalIn(line: string): { route: string; refused: Pick<Proposal, "policy" | "rule" | "target">[] } {
  const start = line.indexOf("{");
  if (start === -1) return { route: "", refused: [] };
  try {
    const { route = "", policies = [] } = JSON.parse(line.slice(start)) as DecisionRecord;
    const refused = policies
      .filter(({ verdict }) => verdict === "would-deny" || verdict === "deny")
      .flatMap(({ policy, facts }) => matchesIn(policy, (facts?.rules ?? []) as unknown[]));
    return { route, refused };
  } catch {
    return { route: "", refused: [] };
  }
}

function matchesIn(policy: string, rules: readonly unknown[]): Pick<Proposal, "policy" | "rule" | "target">[] {
  if (policy === "waf")
    return (rules as { rule: number; targets: string[] }[]).flatMap(({ rule, targets }) =>
      targets.map((target) => ({ policy, rule, target })),
    );
  if (policy !== "filter") return [];
  // A method is no part that could be left out.
  return (rules as { id: string; target: string }[]).map(({ id, target }) => ({
    policy,
    rule: id,
    ...(target !== "method" && { target }),
  }));
}

/** As code for routes/. */
export function exclusionCode(proposed: readonly Proposal[]): string {
  const both = new Set(proposed.map(({ policy }) => policy)).size > 1;
  return (["waf", "filter"] as const)
    .map((policy) => ({ policy, own: proposed.filter((one) => one.policy === policy) }))
    .filter(({ own }) => own.length > 0)
    .map(({ policy, own }) => {
      const lines = own.map(({ rule, target, requests, routes }) => {
        const where = target === undefined ? "" : `, target: ${JSON.stringify(target)}`;
        const told = `${requests} ${requests === 1 ? "request" : "requests"} to ${routes.join(", ")}`;
        return `  { rule: ${JSON.stringify(rule)}${where} }, // ${told}`;
      });
      return [...(both || policy === "filter" ? [`// of ${policy}`] : []), "exclude: [", ...lines, "],"].join("\n");
    })
    .join("\n");
}

/** Of a file, or of standard input for `-`. Throws an Error that says how to name one. */
export function textOf(file: string): string {
  try {
    return readFileSync(file === "-" ? 0 : file, "utf8");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const what = code === "ENOENT" ? "there is no such file" : `it cannot be read (${code})`;
    throw new Error(`${file}: ${what}; name a file, or - for standard input`);
  }
}

/** A target such as `/admin?q=1` says itself what is asked; anything else, and a file that is there, is read. */
export const requestText = (request: string): string =>
  request.startsWith("/") && !existsSync(request) ? request : textOf(request);
