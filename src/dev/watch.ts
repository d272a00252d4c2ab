/** Tells that files have changed. Folders are watched, not files: an editor that saves by renaming leaves a new file behind. */
import { type FSWatcher, watch } from "node:fs";
import { readdir } from "node:fs/promises";
import { basename, dirname, extname, join } from "node:path";

/** Milliseconds of quiet after a change before it is told: an editor writes a file in several steps. */
const QUIET = 40;

const SOURCE = /^\.(?:[cm]?[jt]sx?|json)$/;

export interface Watched {
  /** Whose folders are watched, for these files and for sources that are new there. */
  readonly sources: readonly string[];
  /** Watched for sources together with all folders in it. */
  readonly folder?: string;
  /** Watched for themselves alone, also when they do not exist yet. */
  readonly files: readonly string[];
}

export interface Watcher {
  /** Replaces what is watched. */
  watch(watched: Watched): Promise<void>;
  close(): void;
}

export function watchFiles(onChange: () => void): Watcher {
  let watchers: FSWatcher[] = [];
  let timer: NodeJS.Timeout | undefined;
  let closed = false;
  const tell = () => {
    clearTimeout(timer);
    timer = setTimeout(onChange, QUIET);
  };
  return {
    async watch({ sources, folder, files }) {
      const sourceFolders = new Set([
        ...sources.map((file) => dirname(file)),
        ...(folder ? await foldersIn(folder) : []),
      ]);
      const named = new Set([...sources, ...files, ...sourceFolders]);
      const fresh = [...new Set([...sourceFolders, ...files.map((file) => dirname(file))])].flatMap((place) => {
        try {
          const watcher = watch(place, (_event, name) => {
            const file = name === null ? place : join(place, name);
            const isSource = sourceFolders.has(place) && (SOURCE.test(extname(file)) || extname(file) === "");
            if (named.has(file) || isSource) tell();
          });
          // The folder is gone; the next change shows whether that matters.
          watcher.on("error", () => watcher.close());
          return [watcher];
        } catch {
          return [];
        }
      });
      // The new ones see before the old ones stop looking.
      for (const watcher of watchers) watcher.close();
      watchers = fresh;
      if (closed) for (const watcher of watchers) watcher.close();
    },
    close() {
      closed = true;
      clearTimeout(timer);
      for (const watcher of watchers) watcher.close();
    },
  };
}

async function foldersIn(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  const inner = entries.filter((entry) => entry.isDirectory() && !/^(?:\.|node_modules$)/.test(basename(entry.name)));
  const deeper = await Promise.all(inner.map(({ name }) => foldersIn(join(folder, name))));
  return [folder, ...deeper.flat()];
}
