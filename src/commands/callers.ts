/** Who calls: keys, users, consumers, and tokens for the demo. */
import type { Command } from "commander";
import { claims, configOption, consumer, duration, groups, jsonOption, routesOption, subject } from "./options.ts";
import { print } from "./terminal.ts";

export function addCommands(program: Command): void {
  program
    .command("token")
    .description("print a token that the demo accepts")
    .requiredOption("--sub <subject>", "who the token is about", subject)
    .option("--scope <scopes>", "scopes, separated by blanks", "")
    .option("--client <id>", "the client_id claim: storefront and warehouse are declared consumers", "storefront")
    .option("--expires <duration>", "how long it is valid", duration, "1h")
    .option("--claim <name=value...>", "more claims; values are JSON or text", claims)
    .action(async (options) => {
      const { tokenForDemo } = await import("../dev/issuer.ts");
      print(await tokenForDemo(options));
    });

  const keys = program
    .command("keys")
    .description("API keys: make, list, rotate and revoke them in the gateway's store");
  const prefixOption = ["--prefix <prefix>", "where routes take keys of several prefixes: which one"] as const;

  keys
    .command("create")
    .description("make a key and print it, this once; nothing keeps it")
    .requiredOption("--consumer <name>", "whose key it is", consumer)
    .option("--scope <scopes>", "scopes, separated by blanks", "")
    .option("--group <group...>", "groups of a consumer that the routes do not declare", groups)
    .option("--plan <name>", "the plan of a consumer that the routes do not declare")
    .option("--expires <duration>", "how long it is good (default: until it is revoked)", duration)
    .option(...prefixOption)
    .option(...routesOption)
    .option(...configOption)
    .option(...jsonOption)
    .action(async (options) => tell((await keyCommands()).createCommand(options)));

  keys
    .command("list")
    .description("the keys that are live")
    .option("--consumer <name>", "of this one alone")
    .option("--all", "also those that were revoked or have expired, for 90 days")
    .option(...routesOption)
    .option(...configOption)
    .option(...jsonOption)
    .action(async (options) => tell((await keyCommands()).listCommand(options)));

  keys
    .command("rotate")
    .description("make a new key for whom the one with this id is for, which goes on for a while")
    .argument("<id>")
    .option("--overlap <duration>", "how long the old one goes on; 0s: it is revoked", duration, "1d")
    .option(...prefixOption)
    .option(...routesOption)
    .option(...configOption)
    .option(...jsonOption)
    .action(async (id, options) => tell((await keyCommands()).rotateCommand(id, options)));

  keys
    .command("revoke")
    .description("take the key with this id back")
    .argument("<id>", "- for the key itself on stdin, such as one that was found where it should not be")
    .option(...routesOption)
    .option(...configOption)
    .option(...jsonOption)
    .action(async (id, options) => tell((await keyCommands()).revokeCommand(id, options, process.stdin)));

  const users = program
    .command("users")
    .description("names and passwords for the policy basic; passwords come over stdin");

  users
    .command("hash")
    .description('print the hash of the password on stdin, for a secret: printf %s "$PASSWORD" | ... users hash')
    .action(async () => tell((await userCommands()).hashCommand(process.stdin)));

  users
    .command("set")
    .description("give a user in the gateway's store the password on stdin")
    .argument("<name>")
    .option("--consumer <name>", "whose user it is", consumer)
    .option("--scope <scopes>", "scopes, separated by blanks", "")
    .option(...routesOption)
    .option(...configOption)
    .option(...jsonOption)
    .action(async (name, options) => tell((await userCommands()).setCommand(name, options, process.stdin)));

  users
    .command("list")
    .description("the users in the gateway's store")
    .option(...routesOption)
    .option(...configOption)
    .option(...jsonOption)
    .action(async (options) => tell((await userCommands()).listCommand(options)));

  users
    .command("remove")
    .description("take a user out of the gateway's store")
    .argument("<name>")
    .option(...routesOption)
    .option(...configOption)
    .option(...jsonOption)
    .action(async (name, options) => tell((await userCommands()).removeCommand(name, options)));

  program
    .command("consumers")
    .description("who is known: declared in the routes, or by API keys alone")
    .option(...routesOption)
    .option(...configOption)
    .option(...jsonOption)
    .action(async (options) => tell((await keyCommands()).consumersCommand(options)));
}

function keyCommands() {
  return import("../admin/key-commands.ts");
}

function userCommands() {
  return import("../admin/users.ts");
}

async function tell(output: Promise<{ readonly out: string; readonly remark?: string }>): Promise<void> {
  const { out, remark } = await output;
  print(out);
  if (remark !== undefined) console.error(remark);
}
