/** What is kept from one command to the next, in a folder that git ignores, and whether it is still what it was made of. */
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const SOURCES = fileURLToPath(new URL("..", import.meta.url));

/** Relative to the working directory. */
export const FOLDER = join(".portcullis", "explain");

/** All of Portcullis: which of its files go into what is not worth knowing. */
export const ownFiles = (): string[] =>
  readdirSync(SOURCES, { recursive: true }).map((file) => join(SOURCES, String(file)));

/** Changes when one of the files does. */
export function stampOf(files: readonly string[]): string {
  const hash = createHash("sha256").update(process.version);
  for (const file of files) {
    const { mtimeMs = 0, size = 0 } = statSync(file, { throwIfNoEntry: false }) ?? {};
    hash.update(`${file}\n${mtimeMs}\n${size}\n`);
  }
  return hash.digest("hex");
}

/** Undefined: there is no such file, or none that is JSON. */
export function parse(file: string): unknown {
  try {
    return JSON.parse(readFileSync(file, "utf8"));
  } catch {
    return undefined;
  }
}

/** Whole or not at all; false where nothing can be kept, as in a folder that is read-only. */
export function keep(file: string, text: string): boolean {
  try {
    mkdirSync(FOLDER, { recursive: true });
    const fresh = `${file}.${process.pid}`;
    writeFileSync(fresh, text);
    renameSync(fresh, file);
    return true;
  } catch {
    return false;
  }
}
