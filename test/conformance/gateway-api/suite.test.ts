/** The run as a whole, on tests that fail before a gateway stands: what it finds, how it tells, and that it goes on. */
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readTests } from "./cases.ts";
import { allPassed, featureScores, jsonReport, markdownReport, plainReport } from "./report.ts";
import { type CaseResult, runSuite, type TestResult } from "./suite.ts";

const MAIN = join(import.meta.dirname, "main.ts");

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "portcullis-conformance-"));
  await mkdir(join(folder, "manifests"));
});
afterEach(() => rm(folder, { recursive: true }));

const gateway = { namespace: "infra", name: "same-namespace", port: 80, protocol: "HTTP" };

const testOf = (name: string, cases: readonly object[]) => ({
  name,
  description: "",
  manifests: ["own.yaml"],
  features: ["Gateway", name],
  conformance: "Core",
  cases: cases.map((parts, i) => ({ kind: "http", name: `${i}`, gateway, request: { path: "/" }, ...parts })),
});

async function write(...tests: readonly object[]): Promise<{ cases: string; manifests: string }> {
  await mkdir(join(folder, "cases"), { recursive: true });
  for (const [i, test] of tests.entries()) await writeFile(join(folder, "cases", `${i}.json`), JSON.stringify(test));
  return { cases: join(folder, "cases"), manifests: join(folder, "manifests") };
}

it("reads the repository's cases: 31 tests, 175 cases", () => {
  const tests = readTests();
  expect([tests.length, tests.flatMap(({ cases }) => cases).length]).toEqual([31, 175]);
});

describe("a file of cases", () => {
  it("may have nulls, and lists of values", async () => {
    const { cases } = await write(
      testOf("A", [{ scheme: null, request: { path: "/", headers: { a: ["1", "2"] } }, expect: { mirroredTo: null } }]),
    );
    expect(readTests(cases)[0]?.cases[0]).toMatchObject({
      request: { headers: { a: "1,2" } },
      expect: { statusCodes: [200] },
    });
  });

  it("that is none is named, with the place", async () => {
    const { cases } = await write(testOf("A", [{ request: 1 }]));
    expect(() => readTests(cases)).toThrow(/0\.json is no conformance test:\n.*\n.*cases\[0\]\.request/);
    expect(() => readTests(join(folder, "manifests"))).toThrow("has no cases");
  });
});

describe("a gateway that does not come up", () => {
  it("fails its cases with what the command said, and no others", async () => {
    await writeFile(join(folder, "manifests", "own.yaml"), "kind: Service\n");
    const parts = await write(testOf("A", [{}, {}, { precondition: { wind: "calm" } }]), testOf("B", [{}]));
    const steps: string[] = [];
    const [a, ...others] = await runSuite({
      ...parts,
      only: ["a"],
      keep: join(folder, "kept"),
      onStart: (count) => steps.push(String(count)),
      onStep: (what) => steps.push(what),
    });
    expect(others).toEqual([]);
    expect(a?.cases.map(({ stage }) => stage)).toEqual(["import", "import", "import"]);
    expect(a?.cases[0]?.fault).toMatch(/^import: ./);
    expect(a?.cases[2]?.fault).toBe("import: no such precondition is known: wind");
    expect(steps.sort()).toEqual(["5", "A", "A", "A", "building A", "building A"]);
    expect(await readdir(join(folder, "kept"))).toEqual(["A-1"]);
  });

  it("is the fault of the run where its manifests are not even YAML", async () => {
    await writeFile(join(folder, "manifests", "own.yaml"), "kind: [");
    await expect(runSuite(await write(testOf("A", [{}])))).rejects.toThrow(/own\.yaml: /);
  });

  it("is told once, and the command exits with 1", async () => {
    await writeFile(join(folder, "manifests", "own.yaml"), "kind: Service\n");
    const { cases, manifests } = await write(testOf("A", [{}, {}]));
    const { code, out } = await run("--cases", cases, "--manifests", manifests);
    expect([code, out.match(/^ {4}2 cases\n {6}import: /gm)?.length]).toEqual([1, 1]);
    expect(out).toMatch(/0 of 1 tests, 0 of 2 cases passed/);
  });
});

it("refuses wrong usage with 2", async () => {
  expect(await run("--only", "nothing-like-it")).toMatchObject({
    code: 2,
    err: expect.stringContaining("HTTPRouteWeight"),
  });
  expect(await run("--colour")).toMatchObject({ code: 2 });
  expect(await run("--help")).toMatchObject({ code: 0, out: expect.stringContaining("--manifests <dir>") });
});

describe("a report", () => {
  const result = (name: string, ...faults: (string | undefined)[]): TestResult => {
    const read = testOf(
      name,
      faults.map(() => ({ expect: { statusCodes: [200], backend: "" } })),
    );
    const test = read as unknown as TestResult["test"];
    return {
      test,
      cases: test.cases.map(
        (tested, i): CaseResult => ({ case: tested, fault: faults[i], stage: "answer", tries: 2, ms: 1 }),
      ),
    };
  };
  const results = [result("A", undefined, undefined), result("B", undefined, "status 404, expected 200")];

  it("scores tests and features", () => {
    expect(featureScores(results)).toEqual([
      { name: "A", passed: 2, total: 2, tests: { name: "A", passed: 1, total: 1 } },
      { name: "B", passed: 1, total: 2, tests: { name: "B", passed: 0, total: 1 } },
      { name: "Gateway", passed: 3, total: 4, tests: { name: "Gateway", passed: 1, total: 2 } },
    ]);
    expect([allPassed(results), allPassed(results.slice(0, 1))]).toEqual([false, true]);
  });

  it("is text, JSON or Markdown", () => {
    const text = plainReport(results);
    expect(text).toMatch(/✗ B {2}own.yaml\n {4}1\n {6}status 404, expected 200/);
    expect(text).toMatch(/1 of 2 tests, 3 of 4 cases passed\n3 cases passed in a later try/);
    expect(markdownReport(results).split("\n").slice(2)).toEqual([
      "| A | Core | A | 2 of 2 |",
      "| B | Core | B | 1 of 2 |",
      "| **2 tests** | | | **3 of 4** |",
    ]);
    expect(jsonReport(results)).toMatchObject({
      ok: false,
      passed: 3,
      total: 4,
      tests: [
        { name: "A", passed: 2 },
        { cases: [{ passed: true }, { passed: false, fault: "status 404, expected 200" }] },
      ],
    });
  });
});

function run(...args: readonly string[]): Promise<{ code: number; out: string; err: string }> {
  const { FORCE_COLOR: _, NODE_OPTIONS: __, ...env } = process.env;
  return new Promise((resolve) => {
    execFile(process.execPath, [MAIN, ...args], { env: { ...env, NO_COLOR: "1" } }, (error, out, err) =>
      resolve({ code: Number(error?.code ?? 0), out, err }),
    );
  });
}
