/** What came out: for people, and as JSON. */
import { styleText } from "node:util";
import { unjudged } from "./cases.ts";
import type { CaseResult, TestResult } from "./suite.ts";

export interface Score {
  readonly name: string;
  readonly passed: number;
  readonly total: number;
}

const hasPassed = ({ fault }: CaseResult): boolean => fault === undefined;

const scoreOf = (name: string, results: readonly CaseResult[]): Score => ({
  name,
  passed: results.filter(hasPassed).length,
  total: results.length,
});

/** A test counts for each feature that it needs. */
export function featureScores(results: readonly TestResult[]): (Score & { readonly tests: Score })[] {
  const features = [...new Set(results.flatMap(({ test }) => test.features))].sort();
  return features.map((name) => {
    const of = results.filter(({ test }) => test.features.includes(name));
    const whole = of.filter(({ cases }) => cases.every(hasPassed));
    const cases = scoreOf(
      name,
      of.flatMap(({ cases }) => cases),
    );
    return { ...cases, tests: { name, passed: whole.length, total: of.length } };
  });
}

export const allPassed = (results: readonly TestResult[]): boolean =>
  results.every(({ cases }) => cases.every(hasPassed));

export function jsonReport(results: readonly TestResult[]): object {
  const cases = results.flatMap((result) => result.cases);
  return {
    ok: allPassed(results),
    passed: cases.filter(hasPassed).length,
    total: cases.length,
    tests: results.map(({ test, cases }) => ({
      ...scoreOf(test.name, cases),
      conformance: test.conformance,
      features: test.features,
      cases: cases.map(({ case: { name, kind, gateway }, fault, stage, tries, ms }) => ({
        name,
        kind,
        gateway: `${gateway.namespace}/${gateway.name}`,
        passed: fault === undefined,
        ...(fault !== undefined && { fault, stage }),
        tries,
        ms,
      })),
    })),
    features: featureScores(results).map(({ name, passed, total, tests }) => ({
      name,
      tests: { passed: tests.passed, total: tests.total },
      cases: { passed, total },
    })),
  };
}

export function plainReport(results: readonly TestResult[]): string {
  const tests = results.map(({ test, cases }) => scoreOf(test.name, cases));
  const features = featureScores(results);
  const width = Math.max(...[...tests, ...features].map(({ name }) => name.length)) + 2;
  const row = (name: string, score: Score, more = "") => `${mark(score)} ${name.padEnd(width)}${count(score)}${more}`;
  const cases = results.flatMap((result) => result.cases);
  const whole = tests.filter(({ passed, total }) => passed === total).length;
  const again = cases.filter(({ fault, tries }) => fault === undefined && tries > 1).length;
  const blind = [...new Set(cases.flatMap((result) => unjudged(result.case)))];
  return [
    ...results.filter(({ cases }) => !cases.every(hasPassed)).flatMap(failures),
    bold("Tests"),
    ...tests.map((score) => row(score.name, score)),
    "",
    bold("Features"),
    ...features.map((score) => row(score.name, score.tests, `   ${count(score)} cases`)),
    "",
    `${whole} of ${tests.length} tests, ${cases.filter(hasPassed).length} of ${cases.length} cases passed`,
    ...(again > 0 ? [`${again} cases passed in a later try: statistics, and deadlines on a busy machine`] : []),
    ...(blind.length > 0
      ? [`not looked at, since this harness does not know what they mean: ${blind.join(", ")}`]
      : []),
  ].join("\n");
}

/** For docs/conformance.md: a row per test, and the sum. */
export function markdownReport(results: readonly TestResult[]): string {
  const rows = results.map(({ test, cases }) => {
    const { passed, total } = scoreOf(test.name, cases);
    const needs = test.features.filter((feature) => feature !== "Gateway").join(", ");
    return `| ${test.name} | ${test.conformance} | ${needs} | ${passed} of ${total} |`;
  });
  const { passed, total } = scoreOf(
    "",
    results.flatMap(({ cases }) => cases),
  );
  return [
    "| test | conformance | features | cases |",
    "|---|---|---|---|",
    ...rows,
    `| **${results.length} tests** | | | **${passed} of ${total}** |`,
  ].join("\n");
}

/** A deployment that does not come up fails all of its cases, which is told once. */
function failures({ test, cases }: TestResult): string[] {
  const failed = cases.filter((result) => !hasPassed(result));
  const byFault = Map.groupBy(failed, ({ fault, stage }) => (stage === "answer" ? Symbol() : fault));
  return [
    `${red("✗")} ${bold(test.name)}  ${test.manifests.join(", ")}`,
    ...[...byFault.values()].flatMap((alike) => [
      ...(alike.length > 1 ? [`    ${alike.length} cases`] : alike.map((result) => `    ${result.case.name}`)),
      ...(alike[0]?.fault ?? "").split("\n").map((line) => `      ${line}`),
    ]),
    "",
  ];
}

const count = ({ passed, total }: Score): string => `${String(passed).padStart(3)}/${String(total).padEnd(3)}`;
const mark = ({ passed, total }: Score): string => (passed === total ? green("✓") : red("✗"));
const green = (text: string): string => styleText("green", text, { stream: process.stdout });
const red = (text: string): string => styleText("red", text, { stream: process.stdout });
const bold = (text: string): string => styleText("bold", text, { stream: process.stdout });
