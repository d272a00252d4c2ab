/** What came out: for people, and as JSON. */
import { styleText } from "node:util";
import type { StageResult } from "./suite.ts";

export interface Score {
  readonly passed: number;
  readonly total: number;
}

export const scoreOf = (results: readonly StageResult[]): Score => ({
  passed: results.filter(({ fault }) => fault === undefined).length,
  total: results.length,
});

export const percentOf = ({ passed, total }: Score): string => `${((100 * passed) / total).toFixed(2)} %`;

export function jsonReport(results: readonly StageResult[]): object {
  return {
    ...scoreOf(results),
    failures: results.flatMap(({ stage, fault, outcome }) =>
      fault === undefined
        ? []
        : [{ stage: stage.name, reason: fault, file: stage.file, matched: outcome.matches.map(({ id }) => id) }],
    ),
  };
}

/** Failures by reason, with what differs between them as N; then the score of each folder of tests, and of all. */
export function plainReport(results: readonly StageResult[]): string {
  const failed = results.filter(({ fault }) => fault !== undefined);
  const byReason = Map.groupBy(failed, ({ fault = "" }) => fault.replace(/[0-9]{6}/g, "N"));
  const reasons = [...byReason].sort(([, a], [, b]) => b.length - a.length);
  const folders = Map.groupBy(results, ({ stage }) => stage.name.slice(0, 3));
  const score = scoreOf(results);
  return [
    ...reasons.flatMap(([reason, alike]) => [
      `${styleText("red", "✗", { stream: process.stdout })} ${alike.length} × ${reason}`,
      `    ${alike.map(({ stage }) => stage.name).join(" ")}`,
    ]),
    ...(failed.length > 0 ? [""] : []),
    ...[...folders]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([area, of]) => {
        const { passed, total } = scoreOf(of);
        return `${area}  ${String(passed).padStart(5)} of ${String(total).padEnd(5)} ${percentOf({ passed, total }).padStart(9)}`;
      }),
    "",
    `${score.passed} of ${score.total} stages passed: ${percentOf(score)}`,
  ].join("\n");
}
