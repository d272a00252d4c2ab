/** An explanation for a person at a terminal: the answer first, then why. */
import type { Paint } from "../dev/paint.ts";
import type { NearRoute } from "./candidates.ts";
import type { ExplainedPolicy, ExplainedRequest, Explanation } from "./explain.ts";
import type { Difference } from "./live.ts";

export function explanationText(explanation: Explanation, paint: Paint, verbose = false): string {
  const { request, route, answer, arm, backends, upstream, mirrors, assumptions, policies } = explanation;
  const as = request.as ? `  as ${request.as.consumer ?? request.as.subject ?? "somebody"}` : "";
  const blocks: string[][] = [
    [`${paint("bold", `${request.method} ${plain(request.url)}`)}${as}  from ${request.client || "nobody known"}`],
    section(paint, "answer", answerLines(explanation, paint)),
    section(paint, "route", route ? routeLines(explanation, paint) : nearestLines(explanation, paint)),
    section(
      paint,
      "policies",
      policies.flatMap((policy) => policyLines(policy, paint, verbose)),
    ),
  ];
  if (arm) blocks.push(section(paint, "arm", [armText(arm, paint)]));
  if (backends.length > 0) blocks.push(section(paint, "backend", [backends.join(", else ")]));
  for (const sent of upstream) blocks.push(section(paint, "upstream", requestLines(sent, paint)));
  for (const sent of mirrors) blocks.push(section(paint, "mirror", requestLines(sent, paint)));
  if (verbose)
    blocks.push(
      section(
        paint,
        "headers",
        answer.headers.map(([name, value]) => `${name}: ${value}`),
      ),
    );
  if (assumptions.length > 0)
    blocks.push(
      section(
        paint,
        "assumed",
        assumptions.map((one) => paint("dim", one)),
      ),
    );
  return `${blocks
    .filter((lines) => lines.length > 0)
    .map((lines) => lines.join("\n"))
    .join("\n\n")}\n`;
}

function armText({ name, by, shares }: Explanation["arm"] & object, paint: Paint): string {
  const all = Object.entries(shares).map(([arm, share]) => `${arm} ${share} %`);
  return `${paint("bold", name)}  by ${by}  ${paint("dim", `of ${all.join(", ")}`)}`;
}

const MARGIN = 10;

function section(paint: Paint, title: string, lines: readonly string[]): string[] {
  return lines.map((line, i) =>
    i === 0 ? `${paint("cyan", title.padEnd(MARGIN))}${line}` : " ".repeat(MARGIN) + line,
  );
}

function answerLines({ answer, table, upstream }: Explanation, paint: Paint): string[] {
  const { status, reason, title, detail, location } = answer;
  const colour = status >= 500 ? "red" : status >= 400 ? "yellow" : status >= 300 ? "cyan" : "green";
  const by = reason === undefined ? `what ${upstream.at(-1)?.backend ?? "the cluster"} answers` : reason;
  return [
    `${paint(colour, reason === undefined ? "sent on" : String(status))}  ${paint("bold", by)}${title ? `  ${title}` : ""}`,
    ...(detail === undefined ? [] : [detail]),
    ...(location === undefined ? [] : [`location: ${location}`]),
    paint("dim", `by table ${table}${reason && title ? `; docs/errors.md#${reason}` : ""}`),
  ];
}

function routeLines({ route, listener, lost, behind }: Explanation, paint: Paint): string[] {
  if (!route) return [];
  return [
    `${paint("bold", route.id)}  ${paint("dim", route.source ?? "")}`.trimEnd(),
    `${route.match}  on ${route.hosts.join(", ")}${listener === undefined ? "" : `, listener ${listener}`}`,
    ...nearLines("nearer, but", lost, paint),
    ...nearLines("also fits, but", behind, paint),
  ];
}

function nearestLines({ answer, nearest }: Explanation, paint: Paint): string[] {
  if (nearest.length === 0) return answer.reason === "not-found" ? ["none, and none is near"] : [];
  return [paint("bold", "none"), ...nearLines("nearest", nearest, paint)];
}

function nearLines(title: string, routes: readonly (NearRoute & { source?: string })[], paint: Paint): string[] {
  return routes.flatMap((near, i) => [
    `${(i === 0 ? title : "").padEnd(15)}${near.route}  ${near.match}  ${paint("dim", near.source ?? "")}`.trimEnd(),
    ...[...near.lacks, ...(near.behind === undefined ? [] : [near.behind])].map(
      (one) => `${" ".repeat(17)}${paint("yellow", plain(one))}`,
    ),
  ]);
}

const MARKS = {
  pass: ["green", "✓"],
  applies: ["green", "·"],
  answers: ["cyan", "→"],
  deny: ["red", "✗"],
  "would-deny": ["magenta", "~"],
  error: ["red", "!"],
  skipped: ["dim", " "],
} as const;

function policyLines(policy: ExplainedPolicy, paint: Paint, verbose: boolean): string[] {
  const [colour, mark] = MARKS[policy.verdict];
  const keys = policy.inputs.filter((one) => one.startsWith("key "));
  const inputs = policy.inputs.filter((one) => !one.startsWith("key "));
  const verdict = [
    policy.verdict === "deny" || policy.verdict === "would-deny"
      ? paint(colour, `${policy.verdict} ${policy.reason}`)
      : "",
    policy.verdict === "skipped" ? paint("dim", "not reached") : "",
    policy.mode === "report" ? paint("magenta", "reports only") : "",
  ];
  const facts = Object.entries(policy.facts ?? {}).filter(([name]) => name !== "assumed");
  const told = facts.map(([name, value]) => `${name} ${typeof value === "string" ? value : JSON.stringify(value)}`);
  const changes = verbose ? [...(policy.upstream ?? []), ...(policy.response ?? []).map((one) => `answer ${one}`)] : [];
  const lasting = policy.policy === "requestId" ? [] : (policy.upstream ?? []);
  const shown = verbose ? changes : lasting;
  return [
    `${paint(colour, mark)} ${policy.policy.padEnd(16)} ${[...verdict, ...inputs, ...told].filter(Boolean).map(plain).join("; ")}`.trimEnd(),
    ...keys.map((key) => `${" ".repeat(19)}${paint("dim", plain(key))}`),
    ...shown.map((change) => `${" ".repeat(19)}${paint("dim", plain(change))}`),
  ];
}

function requestLines({ backend, method, url, binding, headers, bytes }: ExplainedRequest, paint: Paint): string[] {
  const via = binding === undefined ? "" : `  ${paint("dim", `through binding ${binding}`)}`;
  return [
    `${paint("bold", backend)}${via}`,
    `${method} ${plain(url)}`,
    ...headers.map(([name, value]) => `  ${paint("dim", `${name}:`)} ${plain(value)}`),
    ...(bytes > 0 ? [paint("dim", `  ${bytes} bytes of body`)] : []),
  ];
}

export function differencesText(differences: readonly Difference[], where: string, paint: Paint): string {
  if (differences.length === 0) return `${paint("green", "same")}  ${where} decides as this table does\n`;
  const lines = differences.map(
    ({ field, here, there }) =>
      `  ${field.padEnd(10)} here ${paint("green", shown(here))}, there ${paint("red", shown(there))}`,
  );
  return `${paint("red", "differs")}  ${where}\n${lines.join("\n")}\n`;
}

const shown = (value: unknown): string =>
  value === undefined ? "nothing" : plain(typeof value === "string" ? value : JSON.stringify(value));

/** What came from elsewhere must not steer the terminal; the escapes that paint are ours. */
const plain = (text: string): string =>
  // biome-ignore lint/suspicious/noControlCharactersInRegex: those are what has to go
  text.replace(/[\x00-\x1a\x1c-\x1f\x7f-\x9f]|\x1b(?!\[[0-9;]*m)/g, "?");
