/** Which file has which commands. What a command does is read when it is called, and of the others not even their options. */
import type { Group } from "./program.ts";

export const GROUPS: readonly (readonly [commands: readonly string[], load: () => Promise<Group>])[] = [
  [["dev"], () => import("./dev.ts")],
  [["check", "prove", "build", "diff", "deploy"], () => import("./routes.ts")],
  [["explain"], () => import("./explain.ts")],
  [["replay"], () => import("./replay.ts")],
  [["import"], () => import("./import.ts")],
  [["waf"], () => import("./waf.ts")],
  [["token", "keys", "users", "consumers"], () => import("./callers.ts")],
];

/** The group of that command; of none, or of what is none: all of them, for its help or a suggestion. */
export function groupsFor(command: string | undefined): Promise<Group[]> {
  const own = GROUPS.filter(([commands]) => command !== undefined && commands.includes(command));
  return Promise.all((own.length > 0 ? own : GROUPS).map(([, load]) => load()));
}
