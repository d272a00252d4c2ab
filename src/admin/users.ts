/** `gateway users`: names and passwords for the policy basic. Passwords come over stdin, where neither the shell nor `ps` sees them. */
import type { Redis } from "@upstash/redis";
import { type BasicConfig, type StoredUser, USER, userKey } from "../policies/basic.ts";
import { hashPassword } from "../policies/password.ts";
import { configsOf } from "./configs.ts";
import { firstLine } from "./first-line.ts";
import { scopesOf } from "./scopes.ts";
import { type StoreOptions, withStore } from "./store.ts";

/** Redis hash of all users, name to a ListedUser as JSON. Only the command line reads it. */
const USER_INDEX = "users";

interface ListedUser extends Omit<StoredUser, "password"> {
  readonly name: string;
  /** Milliseconds since the epoch. */
  readonly changed: number;
}

export interface UserOptions extends StoreOptions {
  readonly json?: boolean;
}

const SHORTEST = 8;

/** The hash of the password in `input`, for a secret. */
export async function hashCommand(input: AsyncIterable<unknown>): Promise<{ out: string }> {
  return { out: await hashPassword(await passwordFrom(input)) };
}

export async function setCommand(
  name: string,
  options: UserOptions & { consumer?: string; scope?: string },
  input: AsyncIterable<unknown>,
): Promise<{ out: string }> {
  if (!USER.test(name)) throw new Error("a user's name has 1 to 128 visible characters and no colon");
  const password = await hashPassword(await passwordFrom(input));
  return withStore(options, async ({ redis, compiled: { table } }) => {
    if (!configsOf<BasicConfig>(table, "basic").some(({ store }) => store))
      throw new Error("no route takes users of the store; add basic({ store: true }) to one");
    const { consumer, scope = "" } = options;
    const scopes = scopesOf(scope);
    const facts = { ...(consumer !== undefined && { consumer }), ...(scopes.length > 0 && { scopes }) };
    const listed: ListedUser = { name, ...facts, changed: Date.now() };
    const stored: StoredUser = { password, ...facts };
    const write = redis.multi();
    write.set(userKey(name), JSON.stringify(stored));
    write.hset(USER_INDEX, { [name]: JSON.stringify(listed) });
    await write.exec();
    return { out: options.json ? JSON.stringify(shown(listed)) : `set  ${name}` };
  });
}

export const listCommand = (options: UserOptions): Promise<{ out: string }> =>
  withStore(options, async ({ redis }) => {
    const users = (await listUsers(redis)).map(shown);
    if (options.json) return { out: JSON.stringify(users) };
    return {
      out: users.map(({ name, consumer = "", scopes = [] }) => [name, consumer, ...scopes].join("  ")).join("\n"),
    };
  });

export const removeCommand = (name: string, options: UserOptions): Promise<{ out: string }> =>
  withStore(options, async ({ redis }) => {
    const write = redis.multi();
    write.del(userKey(name));
    write.hdel(USER_INDEX, name);
    const [removed] = await write.exec<[number, number]>();
    if (Number(removed) === 0) throw new Error(`there is no user ${name}; gateway users list tells the names`);
    return { out: options.json ? JSON.stringify({ name, removed: true }) : `removed  ${name}` };
  });

async function listUsers(redis: Redis): Promise<ListedUser[]> {
  const stored = (await redis.hvals(USER_INDEX)) as string[];
  return stored.map((json) => JSON.parse(json) as ListedUser).sort((a, b) => (a.name < b.name ? -1 : 1));
}

const shown = ({ changed, ...user }: ListedUser) => ({ ...user, changed: new Date(changed).toISOString() });

async function passwordFrom(input: AsyncIterable<unknown>): Promise<string> {
  const password = await firstLine(input);
  if (password.length < SHORTEST) throw new Error(`the password on stdin has less than ${SHORTEST} characters`);
  return password;
}
