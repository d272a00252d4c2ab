/**
 * A rule set's own tests, in go-ftw's format (version 2, and what the Core Rule Set 3.3 has: `stage` around each stage, `log_contains`,
 * `stop_magic`, data as a list of lines). Each stage is one request and what is expected of it.
 */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { parse } from "yaml";
import { type Input, rawRequest } from "./request.ts";

export interface Stage {
  /** `920100-2`, of several stages of one test `920100-2/1`. */
  readonly name: string;
  /** What is sent: one character for each byte. */
  readonly request: string;
  readonly expected: Expected;
  readonly file: string;
}

export interface Expected {
  /** One of these. */
  readonly statuses: readonly number[];
  /** Rules that must have matched, and that must not. */
  readonly ids: readonly number[];
  readonly noIds: readonly number[];
  /** On the log's lines. */
  readonly match?: RegExp;
  readonly noMatch?: RegExp;
  /** The connection breaks without an answer (true), or must not. */
  readonly error?: boolean;
}

/** Of all files below `folder`, or of one file, in order. Throws when there is none, or one cannot be read. */
export function readStages(path: string): Stage[] {
  const stages = filesOf(path).flatMap(stagesOf);
  if (stages.length === 0) throw new Error(`${path} has no tests: give a folder of go-ftw's YAML files`);
  return stages;
}

function filesOf(path: string): string[] {
  if (statSync(path).isFile()) return [path];
  return readdirSync(path, { recursive: true, encoding: "utf8" })
    .filter((name) => /\.ya?ml$/.test(name))
    .map((name) => join(path, name))
    .sort();
}

interface File {
  readonly rule_id?: number;
  readonly tests?: readonly Test[];
}

interface Test {
  readonly test_id?: number;
  readonly test_title?: string;
  readonly stages: readonly (FileStage | { readonly stage: FileStage })[];
}

interface FileStage {
  readonly input: Input;
  readonly output: {
    readonly status?: number | readonly number[];
    readonly expect_error?: boolean;
    readonly log_contains?: string;
    readonly no_log_contains?: string;
    readonly log?: {
      readonly expect_ids?: readonly number[];
      readonly no_expect_ids?: readonly number[];
      readonly match_regex?: string;
      readonly no_match_regex?: string;
    };
  };
}

function stagesOf(path: string): Stage[] {
  let file: File | null;
  try {
    file = parse(readFileSync(path, "utf8"), { uniqueKeys: false }) as File | null;
  } catch (error) {
    throw new Error(`${path}: ${(error as Error).message}`);
  }
  const rule = file?.rule_id ?? Number(/[0-9]+/.exec(basename(path))?.[0] ?? Number.NaN);
  return (file?.tests ?? []).flatMap((test, i) => {
    const name = test.test_title ?? `${rule}-${test.test_id ?? i + 1}`;
    return test.stages.map((entry, j) => {
      const first = "stage" in entry;
      const { input, output } = first ? entry.stage : entry;
      return {
        name: test.stages.length > 1 ? `${name}/${j + 1}` : name,
        request: rawRequest(input, first ? 1 : 2),
        expected: expectedOf(output),
        file: path,
      };
    });
  });
}

function expectedOf(output: FileStage["output"]): Expected {
  const { log = {}, status, expect_error: error } = output;
  const match = log.match_regex ?? notAnId(output.log_contains);
  const noMatch = log.no_match_regex ?? notAnId(output.no_log_contains);
  return {
    ids: log.expect_ids ?? idOf(output.log_contains),
    noIds: log.no_expect_ids ?? idOf(output.no_log_contains),
    statuses: status === undefined ? [] : typeof status === "number" ? [status] : status,
    ...(match !== undefined && { match: new RegExp(match) }),
    ...(noMatch !== undefined && { noMatch: new RegExp(noMatch) }),
    ...(error !== undefined && { error }),
  };
}

/** `id "920100"` is about a rule; what else is looked for is a regular expression. */
const ID = /^(?:id[ :])?"?([0-9]{6})"?$/;
const idOf = (contains: string | undefined): number[] => {
  const id = contains === undefined ? undefined : ID.exec(contains)?.[1];
  return id === undefined ? [] : [Number(id)];
};
const notAnId = (contains: string | undefined): string | undefined =>
  contains !== undefined && idOf(contains).length === 0 ? contains : undefined;
