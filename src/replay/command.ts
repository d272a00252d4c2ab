/** `gateway replay LOG... --old A --new B`. */
import { readFile } from "node:fs/promises";
import { diffSource } from "../build/diff-source.ts";
import { ProgressBar } from "../build/progress.ts";
import { painter } from "../dev/paint.ts";
import { eachLine, sizeOf } from "./lines.ts";
import { isOther, readHar, readLine } from "./logged.ts";
import { Replay } from "./replay.ts";
import { replayText } from "./text.ts";

export interface ReplayOptions {
  readonly old: string;
  /** Default: `routes`. */
  readonly new?: string;
  /** Where a revision has its routes. */
  readonly routes: string;
  /** Of lines that tell no host. Default: the first host of the new routes. */
  readonly host?: string;
  readonly failOn?: "changed" | "weakened";
  readonly json?: boolean;
}

/** The exit code: 1 where `failOn` says so. */
export async function replayCommand(files: readonly string[], options: ReplayOptions): Promise<number> {
  const [old, fresh] = [
    await diffSource(options.old, options.routes),
    await diffSource(options.new ?? options.routes, options.routes),
  ];
  const host = options.host ?? firstHost(fresh.table.routes.flatMap(({ hosts }) => hosts));
  const replay = new Replay(old.table, fresh.table);
  const bar = new ProgressBar(sizeOf(files));
  let line = 0;
  for (const file of files) {
    if (file.endsWith(".har")) {
      const entries = await readFile(file, "utf8")
        .then(readHar)
        .catch((error) => {
          throw new Error(`${file} is no HAR: ${(error as Error).message}`);
        });
      for (const entry of entries) {
        line++;
        if (entry) replay.add(entry, line);
        else replay.unread++;
      }
      continue;
    }
    await eachLine(
      file,
      (text) => {
        line++;
        const request = readLine(text, host);
        if (request) replay.add(request, line);
        else if (!isOther(text)) replay.unread++;
      },
      (bytes) => bar.add(bytes, () => `${line.toLocaleString("en")} lines`),
    ).catch((error) => {
      throw new Error(`${file} cannot be read: ${(error as Error).message}`);
    });
  }
  bar.end();
  const report = replay.report();
  if (report.requests === 0)
    throw new Error(`no request in ${files.join(", ")}: give decision records, combined logs or HAR (docs/replay.md)`);
  if (options.json) {
    const tables = { old: { name: old.name, table: old.table.id }, new: { name: fresh.name, table: fresh.table.id } };
    process.stdout.write(`${JSON.stringify({ ...tables, ...report })}\n`);
  } else {
    const names = {
      old: `${old.name} (${old.table.id})`,
      new: `${fresh.name} (${fresh.table.id})`,
      files: files.length,
    };
    process.stdout.write(replayText(report, names, painter(process.stdout.hasColors?.() ?? false)));
  }
  const { failOn } = options;
  return (failOn === "changed" && report.changed > 0) || (failOn === "weakened" && report.weakened > 0) ? 1 : 0;
}

/** A name rather than an address, and no wildcard. */
const firstHost = (hosts: readonly string[]): string =>
  hosts.find((host) => /^[^*]*\.[^*\d][^*]*$/.test(host)) ?? hosts.find((host) => !host.includes("*")) ?? "localhost";
