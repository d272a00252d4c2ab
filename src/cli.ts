/** `npm run gateway -- <command>`. Exit codes: 0 done, 1 the configuration or the deployment was refused, 2 wrong usage. */
import { groupsFor } from "./commands/groups.ts";
import { runProgram } from "./commands/program.ts";

await runProgram(await groupsFor(process.argv[2]));
