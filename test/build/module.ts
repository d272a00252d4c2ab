/** Routes modules on disk, each in a folder of its own, which goes when the test is done. */
import { mkdir, mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { onTestFinished } from "vitest";
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

/** A module's usual beginning: every name of the language, and a cluster. */
export const PRELUDE = `
import { allow, anyOf, api, apiKey, authorize, caller, request, binding, cluster, consumer, cors, env, filter, gateway, headers, ipFilter, jwt, oidcLogin, plan, rateLimit, redirect, requestId,
  route, scopes, secret, securityHeaders, split, without } from "portcullis";
const eu = cluster("eu", { ingress: env("EU"), services: { path: "/{service}" } });
const token = jwt({ issuer: "https://login.example.com", jwks: "https://login.example.com/keys" });
`;
