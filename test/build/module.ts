/** Routes modules on disk, each in a folder of its own, which goes when the test is done. */
import { mkdir, mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { expect, it, onTestFinished } from "vitest";
import { compileRoutes } from "../../src/build/compile.ts";
import { ConfigurationRefused, type Problem } from "../../src/build/problem.ts";

export type Files = Readonly<Record<string, string>>;

/** The folder, in which `files` are by their paths. */
export async function folderOf(files: Files): Promise<string> {
  const folder = await realpath(await mkdtemp(join(tmpdir(), "routes-")));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await writeFile(join(folder, name), text);
  }
  return folder;
}

/** What the build says of `files`, by paths in the folder; [] when it has nothing to say. */
export async function problemsOf(files: Files, path = "", config?: string): Promise<readonly Problem[]> {
  const folder = await folderOf(files);
  try {
    await compileRoutes({ routes: join(folder, path), ...(config && { config: join(folder, config) }) });
    return [];
  } catch (error) {
    if (!(error instanceof ConfigurationRefused)) throw error;
    return error.problems.map((problem) => ({
      ...problem,
      ...(problem.file && { file: problem.file.replace(`${folder}/`, "") }),
      subject: problem.subject.replace(folder, ""),
    }));
  }
}

/** Places in `files` that are marked `//!` or `#!`, as `file:line`. */
export const markedIn = (files: Files): string[] =>
  Object.entries(files).flatMap(([file, text]) =>
    text.split("\n").flatMap((line, at) => (/(?:\/\/|#)!/.test(line) ? [`${file}:${at + 1}`] : [])),
  );

export type Told = readonly [subject: string, message: string, fix: string];

/** The build must tell of exactly these, each where `files` are marked. */
export async function expectProblems(files: Files, ...told: readonly Told[]): Promise<void> {
  const problems = await problemsOf(files);
  expect(problems.map(({ subject, message, fix }) => [subject, message, fix])).toEqual(told);
  const marked = markedIn(files);
  const places = problems.map(({ file, line }) => (file === undefined ? "nowhere" : `${file}:${line}`));
  const wanted = told.map((_, at) => (marked.length > 1 ? marked[at] : (marked[0] ?? "nowhere")));
  expect(places).toEqual(wanted);
}

/** One of what is told where: `[what the case is called, the module after the prelude, what is told]`. */
export function cases(all: readonly (readonly [name: string, text: string, ...told: Told])[]): void {
  it.each(all.map(([name, text, ...told]) => ({ name, text, told })))("$name", async ({ text, told }) => {
    await expectProblems({ "index.ts": PRELUDE + text }, told);
  });
}

/** A module's usual beginning: every name of the language, and a cluster. */
export const PRELUDE = `
import { allow, anyOf, api, apiKey, authorize, balance, binding, caller, cluster, concurrency, consumer, cors, env, filter, gateway, headers,
  ipFilter, jwt, listener, mirror, missing, nearest, oidcLogin, plan, rateLimit, redirect, request, requestId, route, scopes, secret,
  securityHeaders, split, without } from "portcullis";
const eu = cluster("eu", { ingress: env("EU"), services: { path: "/{service}" } });
const token = jwt({ issuer: "https://login.example.com", jwks: "https://login.example.com/keys" });
`;
