/** `gateway keys` and `gateway consumers`: what is printed where. A new key goes to stdout alone, so that a script can take it. */
import { parseDuration } from "../config/duration.ts";
import type { ApiKeyConfig } from "../policies/api-key.ts";
import type { IndexedKey } from "../policies/api-key-format.ts";
import type { RouteTable } from "../table/table.ts";
import { configsOf } from "./configs.ts";
import { firstLine } from "./first-line.ts";
import { createKey, idOfKey, type KeyWishes, listKeys, type MadeKey, revokeKey, rotateKey, stateOf } from "./keys.ts";
import { scopesOf } from "./scopes.ts";
import { type StoreOptions, withStore } from "./store.ts";

interface Output {
  /** What a script reads. */
  readonly out: string;
  /** What a person reads beside it. */
  readonly remark?: string;
}

export interface KeyOptions extends StoreOptions {
  readonly json?: boolean;
  readonly prefix?: string;
}

export interface CreateOptions extends KeyOptions {
  readonly consumer: string;
  readonly scope?: string;
  readonly group?: readonly string[];
  readonly plan?: string;
  readonly expires?: string;
}

export const createCommand = (options: CreateOptions): Promise<Output> =>
  withStore(options, async ({ redis, compiled: { table } }) => {
    const { consumer, scope = "", group = [], plan, expires } = options;
    const prefix = prefixOf(table, options.prefix);
    refuseStranger(table, consumer, prefix);
    const declared = table.consumers[consumer];
    if (declared && (plan !== undefined || group.length > 0))
      throw new Error(`the routes declare the consumer "${consumer}"; give it groups and a plan there`);
    if (plan !== undefined && !table.plans?.[plan])
      throw new Error(`the routes declare no plan "${plan}"${among(Object.keys(table.plans ?? {}))}`);
    const scopes = scopesOf(scope);
    const now = Date.now();
    const wishes: KeyWishes = {
      consumer,
      ...(scopes.length > 0 && { scopes }),
      ...(group.length > 0 && { groups: group }),
      ...(plan !== undefined && { plan }),
      ...(expires !== undefined && { expires: now + lifetime(expires) }),
    };
    const made = await createKey(redis, prefix, wishes, now);
    return madeOutput(made, options, `key ${made.record.id} of ${consumer}`);
  });

export const rotateCommand = (id: string, options: KeyOptions & { overlap: string }): Promise<Output> =>
  withStore(options, async ({ redis, compiled: { table } }) => {
    const overlap = milliseconds("--overlap", options.overlap);
    const made = await rotateKey(redis, prefixOf(table, options.prefix), id, { overlap });
    const { old } = made;
    const until = old.revoked === undefined ? `goes on until ${timeOf(old.expires)}` : "is revoked";
    return madeOutput(made, options, `${id} of ${old.consumer} ${until}. New key ${made.record.id}`, {
      old: shown(old),
    });
  });

/** `given`: an id, or `-` for the key itself, in the first line of `input`. */
export const revokeCommand = (given: string, options: KeyOptions, input: AsyncIterable<unknown>): Promise<Output> =>
  withStore(options, async ({ redis, compiled }) => {
    const id = given === "-" ? await idOfKey(redis, await firstLine(input)) : given;
    const revoked = await revokeKey(redis, id);
    if (options.json) return { out: JSON.stringify(shown(revoked)) };
    const lag = Math.max(0, ...apiKeys(compiled.table).map(({ maxAge }) => maxAge)) / 1_000;
    return { out: `revoked  ${id} of ${revoked.consumer}; isolates that know it forget it within ${lag} s` };
  });

export const listCommand = (options: KeyOptions & { consumer?: string; all?: boolean }): Promise<Output> =>
  withStore(options, async ({ redis }) => {
    const keys = (await listKeys(redis)).filter(
      (key) =>
        (options.consumer === undefined || key.consumer === options.consumer) &&
        (options.all || stateOf(key) === "live"),
    );
    if (options.json) return { out: JSON.stringify(keys.map(shown)) };
    const rows = keys.map((key) => [
      key.id,
      key.consumer,
      stateOf(key),
      timeOf(key.created),
      timeOf(key.revoked ?? key.expires),
      key.scopes?.join(" ") ?? "",
    ]);
    return { out: columns(["id", "consumer", "state", "created", "ends", "scopes"], rows) };
  });

/** Consumers that the routes declare, and those that only keys name. */
export const consumersCommand = (options: KeyOptions): Promise<Output> =>
  withStore(options, async ({ redis, compiled }) => {
    const keys = await listKeys(redis);
    const names = [
      ...new Set([...Object.keys(compiled.table.consumers), ...keys.map(({ consumer }) => consumer)]),
    ].sort();
    const consumers = names.map((name) => {
      const declared = compiled.table.consumers[name];
      return {
        name,
        declared: compiled.sources[`consumer ${name}`] ?? null,
        groups: declared?.groups ?? [],
        plan: declared?.plan ?? null,
        keys: keys.filter((key) => key.consumer === name && stateOf(key) === "live").length,
      };
    });
    if (options.json) return { out: JSON.stringify(consumers) };
    const rows = consumers.map(({ name, declared, groups, plan, keys }) => [
      name,
      declared ?? "",
      groups.join(" "),
      plan ?? "",
      String(keys),
    ]);
    return { out: columns(["consumer", "declared", "groups", "plan", "live keys"], rows) };
  });

function madeOutput({ record, key }: MadeKey, { json }: KeyOptions, what: string, more: object = {}): Output {
  if (json) return { out: JSON.stringify({ ...shown(record), key, ...more }) };
  return { out: key, remark: `${what}, good until ${timeOf(record.expires, "it is revoked")}. It is shown this once.` };
}

/** Times as texts; without the hash, which is of no use to anybody else. */
function shown({ hash: _, ...key }: Partial<IndexedKey>) {
  const times = Object.fromEntries(
    (["created", "expires", "revoked"] as const).flatMap((name) => (key[name] ? [[name, timeOf(key[name])]] : [])),
  );
  return { ...key, ...times };
}

const timeOf = (ms: number | undefined, never = ""): string => (ms === undefined ? never : new Date(ms).toISOString());

function columns(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((name, at) => Math.max(name.length, ...rows.map((row) => (row[at] as string).length)));
  return [head, ...rows]
    .map((row) =>
      row
        .map((cell, at) => cell.padEnd(widths[at] as number))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

const apiKeys = (table: RouteTable) => configsOf<ApiKeyConfig>(table, "apiKey");

function prefixOf(table: RouteTable, wanted: string | undefined): string {
  const prefixes = [...new Set(apiKeys(table).map(({ prefix }) => prefix))];
  if (prefixes.length === 0) throw new Error("no route takes API keys; add apiKey({ ... }) to one");
  if (wanted !== undefined && !prefixes.includes(wanted))
    throw new Error(`no route takes keys that begin with ${wanted}${among(prefixes)}`);
  if (wanted === undefined && prefixes.length > 1)
    throw new Error(`routes take keys of several prefixes; choose with --prefix${among(prefixes)}`);
  return wanted ?? (prefixes[0] as string);
}

/** A key that no route takes is a typo in the consumer's name. */
function refuseStranger(table: RouteTable, consumer: string, prefix: string): void {
  const lists = apiKeys(table)
    .filter((one) => one.prefix === prefix)
    .map(({ consumers }) => consumers);
  if (lists.some((names) => names === undefined || names.includes(consumer))) return;
  throw new Error(`no route takes keys of "${consumer}"${among([...new Set(lists.flatMap((names) => names ?? []))])}`);
}

const among = (names: readonly string[]): string => (names.length === 0 ? "" : `; there is ${names.join(", ")}`);

function lifetime(text: string): number {
  const ms = milliseconds("--expires", text);
  if (ms === 0)
    throw new Error(`--expires ${text} is a key that was never good; write how long it is to be, such as 90d`);
  return ms;
}

function milliseconds(option: string, text: string): number {
  const ms = parseDuration(text);
  if (ms === undefined) throw new Error(`${option} ${text} is no duration; write it as 90s, 15m, 1h30m or 7d`);
  return ms;
}
