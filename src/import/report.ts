/** What became of each field of each resource, with its place. */
import { shown } from "../build/problem.ts";
import { type Field, membersOf, type Verdict } from "./field.ts";
import type { Resource } from "./manifests.ts";

export interface Entry {
  /** `HTTPRoute shop/orders`. */
  readonly resource: string;
  /** `spec.rules[0].timeouts.request`; "" for the resource as a whole. */
  readonly field: string;
  readonly verdict: Verdict["kind"];
  readonly note?: string;
  readonly file: string;
  readonly line: number;
}

/** In the order of the manifests. */
export interface Report {
  /** `shop/public`. */
  readonly gateway: string;
  readonly entries: readonly Entry[];
  /** What holds for the import as a whole. */
  readonly notes: readonly string[];
}

/** `unread` is what becomes of fields that nobody has read. */
export function entriesOf({ subject, root }: Resource, unread: Verdict): Entry[] {
  const entries: Entry[] = [];
  const add = ({ path, line, origin }: Field, { kind, ...rest }: Verdict): void => {
    entries.push({ resource: subject, field: path, verdict: kind, ...rest, file: origin.file, line });
  };
  const walk = (field: Field): void => {
    const { verdict } = field;
    const below = membersOf(field);
    if (below.length === 0) add(field, verdict ?? unread);
    // Of what is not carried as a whole only those parts are told that have a reason of their own.
    else if (verdict && verdict.kind !== "carried") add(field, verdict);
    if (verdict?.kind === "refused" || verdict?.kind === "ignored") {
      for (const refusal of refusalsIn(field)) if (refusal !== field) add(refusal, refusal.verdict);
    } else below.forEach(walk);
  };
  walk(root);
  return entries;
}

type Refused = Field & { readonly verdict: { readonly kind: "refused"; readonly note: string } };

/** Fields at and below `field` that are refused, each for a reason of its own. */
export const refusalsIn = (field: Field): Refused[] => [
  ...(field.verdict?.kind === "refused" ? [field as Refused] : []),
  ...membersOf(field).flatMap(refusalsIn),
];

export const count = ({ entries }: Report, verdict: Verdict["kind"]): number =>
  entries.filter((entry) => entry.verdict === verdict).length;

const TITLES = {
  refused: "Refused",
  differs: "Carried with a difference",
  carried: "Carried",
  ignored: "Not for the gateway",
} as const satisfies Record<Verdict["kind"], string>;

const KINDS = ["refused", "differs", "carried", "ignored"] as const;

/** REPORT.md. */
export function markdown(report: Report): string {
  const totals = KINDS.map((kind) => `| ${TITLES[kind].toLowerCase()} | ${count(report, kind)} |`);
  const notes = report.notes.map((note) => `- ${note}`).join("\n");
  const told = KINDS.slice(0, 2).flatMap((kind) => {
    const entries = report.entries.filter(({ verdict }) => verdict === kind);
    if (entries.length === 0) return [];
    const rows = entries.map((entry) => row(entry.resource, code(nameOf(entry)), entry.note, place(entry)));
    return `## ${TITLES[kind]}\n\n| resource | field | | where |\n|---|---|---|---|\n${rows.join("\n")}`;
  });
  const resources = Map.groupBy(report.entries, ({ resource, file }) => `${resource}, ${shown(file)}`);
  const every = [...resources].map(([title, entries]) => {
    const rows = entries.map((entry) =>
      row(
        entry.line,
        code(nameOf(entry)),
        [TITLES[entry.verdict].toLowerCase(), entry.note].filter(Boolean).join(": "),
      ),
    );
    return `### ${title}\n\n| line | field | |\n|---|---|---|\n${rows.join("\n")}`;
  });
  return `${[
    `# Gateway ${report.gateway}, imported`,
    "What became of each field of the manifests. What is refused is not in the routes.",
    `| | fields |\n|---|---|\n${totals.join("\n")}`,
    ...(notes ? [notes] : []),
    ...told,
    "## Every field",
    ...every,
  ].join("\n\n")}\n`;
}

const row = (...cells: readonly (string | number | undefined)[]): string =>
  `| ${cells
    .map((cell) =>
      String(cell ?? "")
        .replaceAll("|", "\\|")
        .replaceAll(/[\s\p{Cc}]+/gu, " "),
    )
    .join(" | ")} |`;

const nameOf = ({ field }: Entry): string => field || "all of it";
const place = ({ file, line }: Entry): string => `${shown(file)}:${line}`;
const code = (text: string): string => `\`${text.replaceAll("`", "'")}\``;

/** For a terminal: what is refused, each with its place, and the totals. `paint` colours by verdict. */
export function summary(report: Report, paint: (text: string, verdict: Verdict["kind"]) => string): string {
  const refused = report.entries.filter(({ verdict }) => verdict === "refused");
  const lines = refused.slice(0, MOST).map((entry) => {
    const what = `${entry.resource} ${nameOf(entry)}: ${entry.note}`.replaceAll(/[\s\p{Cc}]+/gu, " ");
    return `${paint("refused", "refused")}  ${place(entry)}  ${what}`;
  });
  if (refused.length > MOST) lines.push(`${refused.length - MOST} more are in REPORT.md`);
  const totals = KINDS.map((kind) => paint(`${count(report, kind)} ${TITLES[kind].toLowerCase()}`, kind));
  return [...lines, ...report.notes, totals.join(", ")].join("\n");
}

const MOST = 20;
