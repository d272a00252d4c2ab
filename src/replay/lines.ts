/** The lines of logs, some megabytes at a time; compressed ones, by the end of their names, as they are unpacked. */
import { createReadStream, statSync } from "node:fs";
import type { Readable } from "node:stream";
import { createGunzip, createZstdDecompress } from "node:zlib";

/** Characters of a line. Longer than any URL and any record; what is longer is no log, and must not fill the memory. */
const MOST = 1 << 20;

/** The bytes of all files that are read, by their sizes; undefined where standard input is among them. */
export function sizeOf(files: readonly string[]): number | undefined {
  return files.includes("-") ? undefined : files.reduce((sum, file) => sum + statSync(file).size, 0);
}

/** Calls `each` with every line, of one beyond `MOST` with its beginning, and `read` with how many bytes have been read of the file. Throws where it cannot be read. */
export async function eachLine(
  file: string,
  each: (line: string) => void,
  read: (bytes: number) => void = () => {},
): Promise<void> {
  const source = file === "-" ? process.stdin : createReadStream(file, { highWaterMark: 1 << 20 });
  source.on("data", (chunk) => read(chunk.length));
  const unpacked: Readable = file.endsWith(".gz")
    ? source.pipe(createGunzip())
    : file.endsWith(".zst")
      ? source.pipe(createZstdDecompress())
      : source;
  if (unpacked !== source) source.on("error", (error) => unpacked.destroy(error));
  unpacked.setEncoding("utf8");
  let rest = "";
  for await (const chunk of unpacked as AsyncIterable<string>) {
    const lines = (rest + chunk).split("\n");
    rest = (lines.pop() as string).slice(0, MOST);
    for (const line of lines) each(line);
  }
  if (rest !== "") each(rest);
}
