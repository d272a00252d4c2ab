/**
 * The stand in a process of its own, told about by messages: what a test runner does to `import()` would take the line numbers from
 * the routes' problems, and its own work would be in the time that a reload takes.
 */
import { startStand } from "../../src/dev/stand.ts";

const [routes = "", out = ""] = process.argv.slice(2);
const send = (message: StandMessage) => process.send?.(message);

export type StandMessage =
  | { readonly line: string }
  | {
      readonly url: string;
      readonly banner: string;
      readonly requests: readonly {
        readonly shows: string;
        readonly command: string;
        readonly expect: readonly RegExp[];
      }[];
    };

const { url, banner, requests, close } = await startStand({ routes, out, port: 0, log: (line) => send({ line }) });
send({ url, banner, requests });
process.on("disconnect", close);
