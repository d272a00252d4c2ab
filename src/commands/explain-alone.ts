/** The command line with `explain` alone and all that it does, to be bundled as one file (explain/bundle.ts). */
import * as command from "../explain/command.ts";
import { addCommands } from "./explain.ts";
import { runProgram } from "./program.ts";

await runProgram([{ addCommands: (program) => addCommands(program, async () => command) }]);
