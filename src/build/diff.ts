/** `gateway diff OLD NEW`: what a change of the routes does, for people, for a pull request and for CI. */
import { styleText } from "node:util";
import type { AcknowledgementDeclaration } from "../config/invariant.ts";
import { diffTables, type RouteChange, type TableDiff, type TableWeakening } from "../prove/diff.ts";
import { nameOf } from "../prove/invariants.ts";
import { type ExampleRequest, shownRequest } from "../prove/request-set.ts";
import type { Step } from "../prove/step.ts";
import { lostInvariants } from "../prove/weaker-invariants.ts";
import { type DiffSource, diffSource } from "./diff-source.ts";

/** What `--fail-on` takes. */
export const FAILURES = ["weakened", "added", "removed", "narrowed", "widened", "moved"] as const;
export type Failure = (typeof FAILURES)[number];

export interface Reported extends TableWeakening {
  /** Why it was meant; absent: nobody has said so. */
  readonly acknowledged?: string;
}

export interface DiffReport extends Omit<TableDiff, "weakenings"> {
  readonly old: { readonly name: string; readonly table: string; readonly routes: number };
  readonly new: { readonly name: string; readonly table: string; readonly routes: number };
  readonly weakenings: readonly Reported[];
  /** Acknowledgements that are new and that nothing needs: `orders/create rateLimit`. */
  readonly unneeded: readonly string[];
  /** `file:line` of routes. */
  readonly sources: Readonly<Record<string, string>>;
  /** Which of what was asked for to fail on there is. */
  readonly failed: readonly Failure[];
}

export async function diff(
  names: readonly [old: string, now: string],
  { routes, failOn = [] }: { readonly routes: string; readonly failOn?: readonly Failure[] },
  step?: Step,
): Promise<DiffReport> {
  // One after the other: each may take all of memory that a large table needs.
  const old = await diffSource(names[0], routes, step);
  const now = await diffSource(names[1], routes, step);
  return reportOf(old, now, failOn, step);
}

export function reportOf(old: DiffSource, now: DiffSource, failOn: readonly Failure[], step?: Step): DiffReport {
  const found = diffTables(old.table, now.table, step);
  const lost = old.invariants && now.invariants ? lostInvariants(old.invariants, now.invariants, now.table) : [];
  const all: TableWeakening[] = [
    ...lost.map((message) => ({ route: "*", policy: "invariants" as const, message })),
    ...found.weakenings,
  ];
  // What has been acknowledged before is spent: else it would allow every further weakening of the same policy.
  const spent = new Set(old.acknowledgements.map(keyOf));
  const fresh = now.acknowledgements.filter((one) => !spent.has(keyOf(one)));
  const needed = new Set<AcknowledgementDeclaration>();
  const weakenings = all.map((weakening): Reported => {
    const meant = fresh.find((one) => one.route === weakening.route && policyOf(one) === weakening.policy);
    if (!meant) return weakening;
    needed.add(meant);
    return { ...weakening, acknowledged: meant.because };
  });
  const there: Record<Failure, boolean> = {
    weakened: weakenings.some(({ acknowledged }) => acknowledged === undefined),
    added: has(found, "added"),
    removed: has(found, "removed"),
    narrowed: has(found, "narrowed"),
    widened: has(found, "widened"),
    moved: found.moves.length > 0,
  };
  const side = ({ name, table }: DiffSource) => ({ name, table: table.id, routes: table.routes.length });
  return {
    old: side(old),
    new: side(now),
    ...found,
    weakenings,
    unneeded: fresh.filter((one) => !needed.has(one)).map((one) => `${one.route} ${policyOf(one)}`),
    sources: now.sources,
    failed: failOn.filter((one) => there[one]),
  };
}

const has = ({ changes }: TableDiff, wanted: RouteChange["change"]): boolean =>
  changes.some(({ change }) => change === wanted);

const policyOf = ({ policy }: AcknowledgementDeclaration): string | undefined =>
  policy === "gateway" || policy === "invariants" ? policy : nameOf(policy);

const keyOf = (one: AcknowledgementDeclaration): string => JSON.stringify([one.route, policyOf(one), one.because]);

/** One line of a report: what it is about, and what of it. */
interface Line {
  readonly mark: "weakened" | "meant" | "removed" | "added" | "narrowed" | "widened" | "moved" | "edited";
  readonly route: string;
  readonly text: string;
  readonly example?: ExampleRequest | undefined;
}

function linesOf(report: DiffReport): Line[] {
  const { changes, moves, weakenings, edited } = report;
  return [
    ...weakenings.map(({ route, policy, message, from, example, acknowledged }): Line => {
      const whose = from === undefined ? message : `of requests that "${from}" answered: ${message}`;
      const text = acknowledged === undefined ? whose : `${whose} (acknowledged: ${acknowledged})`;
      const subject = policy === "invariants" ? policy : route;
      return { mark: acknowledged === undefined ? "weakened" : "meant", route: subject, text, example };
    }),
    ...(["removed", "added", "narrowed", "widened"] as const).flatMap((change) =>
      changes
        .filter((one) => one.change === change)
        .map(({ route, other, example }): Line => ({ mark: change, route, text: TEXTS[change](other), example })),
    ),
    ...moves.map(({ from, to, example }): Line => ({ mark: "moved", route: from, text: `to "${to}"`, example })),
    ...edited.map(
      ({ route, members }): Line => ({
        mark: "edited",
        route,
        text: `has other ${members.map((one) => MEMBERS[one] ?? one).join(", ")}`,
      }),
    ),
  ];
}

const MEMBERS: Readonly<Record<string, string>> = { action: "targets" };

const TEXTS: Readonly<Record<RouteChange["change"], (other?: string) => string>> = {
  removed: (other) => (other ? `what it answered goes to "${other}"` : "nobody answers what it answered"),
  added: (other) => (other ? `answers what "${other}" answered` : "answers what nobody answered"),
  narrowed: (other) => `no longer asks for all that it did; ${other ? `"${other}" answers` : "nobody answers"}`,
  widened: (other) => `asks for more than it did; ${other ? `"${other}" answered` : "nobody answered"}`,
};

const COLOURS = {
  weakened: "red",
  removed: "red",
  meant: "dim",
  added: "green",
  narrowed: "yellow",
  widened: "yellow",
  moved: "yellow",
  edited: "dim",
} as const satisfies Record<Line["mark"], string>;

const FIX = 'to allow what is meant, add acknowledge("<route>", <policy>, "why") to invariants.ts';

export function diffText(report: DiffReport, stream: NodeJS.WriteStream): string {
  const lines = linesOf(report).map(({ mark, route, text, example }) => {
    const label = styleText(COLOURS[mark], mark.padEnd(8), { stream });
    const place = report.sources[`route ${route}`];
    const subject = route === "*" ? "gateway" : route === "invariants" ? "invariants.ts" : `route "${route}"`;
    return `${label}  ${place ? `${place}  ` : ""}${subject}: ${text}${example ? `\n            ${shownRequest(example)}` : ""}`;
  });
  return [...lines, ...remarks(report), summary(report)].join("\n");
}

function remarks({ weakenings, unneeded, uncompared }: DiffReport): string[] {
  return [
    ...(weakenings.some(({ acknowledged }) => acknowledged === undefined) ? [FIX] : []),
    ...unneeded.map((one) => `acknowledged, but not weakened: ${one}`),
    ...(uncompared > 0 ? [`${uncompared} pairs of routes were not compared: too many meet`] : []),
  ];
}

function summary({ old, new: now, changes, moves, weakenings, edited }: DiffReport): string {
  const count = (number: number, what: string) => (number > 0 ? [`${number} ${what}`] : []);
  const parts = [
    ...count(weakenings.filter(({ acknowledged }) => acknowledged === undefined).length, "weakened"),
    ...count(weakenings.filter(({ acknowledged }) => acknowledged !== undefined).length, "weakened on purpose"),
    ...(["removed", "added", "narrowed", "widened"] as const).flatMap((change) =>
      count(changes.filter((one) => one.change === change).length, change),
    ),
    ...count(moves.length, "moved"),
    ...count(edited.length, "edited"),
  ];
  const what =
    parts.length > 0 ? parts.join(", ") : old.table === now.table ? "the same table" : "no route is different";
  return `${old.name} (${old.routes} routes, table ${old.table}) to ${now.name} (${now.routes} routes, table ${now.table}): ${what}`;
}

/** For a pull request. */
export function diffMarkdown(report: DiffReport): string {
  const lines = linesOf(report);
  const rows = lines.map(({ mark, route, text, example }) => {
    const place = report.sources[`route ${route}`];
    const shown = [
      mark === "weakened" ? "**weakened**" : mark,
      code(route),
      cell(text),
      example ? code(shownRequest(example)) : "",
      place ? code(place) : "",
    ];
    return `| ${shown.join(" | ")} |`;
  });
  const table = rows.length > 0 ? ["| | route | | for example | where |", "|---|---|---|---|---|", ...rows, ""] : [];
  return [
    "### What this changes at the gateway",
    "",
    ...table,
    ...remarks(report).map((one) => `> ${one}\n`),
    cell(summary(report)),
  ].join("\n");
}

const cell = (text: string): string => text.replace(/[|\\<>]/g, "\\$&").replaceAll("\n", " ");
// A request may have anything in its values, also what ends a code span.
const code = (text: string): string => `\`${text.replace(/[`|\n]/g, (one) => encodeURIComponent(one))}\``;
