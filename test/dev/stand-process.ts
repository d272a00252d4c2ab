/**
 * The stand in a process of its own, as `npm start` runs it, told about by messages: in the test runner's process, the runner's own
 * work on each imported module would be in the time that a reload takes.
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
