import { Command } from "commander";
import { expect, it } from "vitest";
import { GROUPS, groupsFor } from "../../src/commands/groups.ts";

it("each command is found in the file that is read for it, alone", async () => {
  for (const [commands, load] of GROUPS) {
    const program = new Command();
    (await load()).addCommands(program);
    expect(program.commands.map((command) => command.name())).toEqual(commands);
    for (const command of commands) expect(await groupsFor(command)).toHaveLength(1);
  }
  expect(await groupsFor("--help")).toHaveLength(GROUPS.length);
});
