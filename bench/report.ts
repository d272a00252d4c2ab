import { stripVTControlCharacters, styleText } from "node:util";
import type { Summary } from "./measure.ts";

export interface Figure extends Partial<Pick<Summary, "quartiles">> {
  readonly name: string;
  readonly label: string;
  /** `×`: times what is named in the label, or else the bare Worker. */
  readonly unit: "×" | "µs" | "ms" | "s" | "kB";
  readonly value: number;
  /** CPU per request, where the value is a ratio to the bare Worker. */
  readonly microseconds?: number;
  /** The value may be as large as that. */
  readonly target?: number;
}

export interface Report {
  readonly date: string;
  readonly machine: string;
  readonly versions: string;
  readonly command: string;
  readonly method: string;
  readonly notes: readonly string[];
  readonly figures: readonly Figure[];
}

export const missed = ({ value, target }: Figure): boolean => target !== undefined && value > target;

const HEAD = ["figure", "µs", "measured", "quartiles", "target"];

function cells(figure: Figure): string[] {
  const { label, unit, value, quartiles, microseconds, target } = figure;
  const digits = unit === "×" || unit === "s" ? 2 : 1;
  const shown = (number: number) => number.toFixed(digits);
  const verdict = missed(figure) ? "missed" : "ok";
  return [
    label,
    microseconds?.toFixed(1) ?? "",
    `${shown(value)} ${unit}`,
    quartiles ? quartiles.map(shown).join(" to ") : "",
    target === undefined ? "" : `≤ ${target} ${unit}  ${verdict}`,
  ];
}

const facts = ({ date, machine, versions, command, method }: Report): [string, string][] => [
  ["date", date],
  ["machine", machine],
  ["versions", versions],
  ["command", command],
  ["method", method],
];

export function plainReport(report: Report): string {
  const rows = [HEAD, ...report.figures.map(cells)];
  const widths = HEAD.map((_, column) => Math.max(...rows.map((row) => (row[column] as string).length)));
  const line = (row: string[]) =>
    row
      .map((cell, column) => {
        const width = widths[column] as number;
        const number = column > 0 && column < 4;
        const text = number ? cell.padStart(width) : cell.padEnd(width);
        return cell.endsWith("missed") ? styleText("red", text) : text;
      })
      .join("  ")
      .trimEnd();
  const [head, ...body] = rows.map(line);
  const rule = "─".repeat(Math.max(...rows.map((row) => stripVTControlCharacters(line(row)).length)));
  return [
    ...facts(report).map(([name, value]) => `${name.padEnd(10)}${value}`),
    "",
    head,
    rule,
    ...body,
    "",
    ...report.notes,
  ].join("\n");
}

export function markdownReport(report: Report): string {
  const line = (row: string[]) => `| ${row.join(" | ")} |`;
  return [
    line(HEAD),
    "| --- | ---: | ---: | ---: | --- |",
    ...report.figures.map((figure) => line(cells(figure))),
    "",
    ...facts(report).map(([name, value]) => `- ${name}: ${name === "command" ? `\`${value}\`` : value}`),
    ...report.notes.map((note) => `- ${note}`),
  ].join("\n");
}
