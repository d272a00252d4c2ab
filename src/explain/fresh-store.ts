/**
 * A store that holds nothing: what a policy's script or look-up answers the first who asks. Scripts are told apart by their keys, and
 * those of @upstash/ratelimit 2.2.0 by how many keys and arguments they have; test/explain holds the answers against Lua's own.
 */
type Command = readonly (string | number)[];

/** Upstash's REST protocol: one command, or a list of them at `/pipeline`. */
export async function freshStore(path: string, body: unknown): Promise<Response> {
  if (path === "/pipeline")
    return Response.json((body as Command[]).map((command) => ({ result: freshReply(command) })));
  return Response.json({ result: freshReply(body as Command) });
}

export function freshReply([name, ...rest]: Command): unknown {
  if (String(name).toLowerCase() === "set") return "OK";
  if (!/^eval(sha)?$/i.test(String(name))) return null;
  const keys = Number(rest[1]);
  const args = rest.slice(2 + keys);
  const number = (at: number) => Number(args[at]);
  const key = String(rest[2]);
  if (key.startsWith("concurrency:")) return args.length === 3 ? 1 : 0;
  if (key.startsWith("penalty:")) return [0, 0];
  switch (`${keys} ${args.length}`) {
    // A fixed window, a sliding one, a token bucket.
    case "1 3":
      return [number(2), number(0)];
    case "2 4":
      return [number(0) - number(3), number(0)];
    case "1 5":
      return [number(0) - number(4), number(3) + number(1), number(0)];
    default:
      return keys === 1 && args.length >= 9 ? granted(args) : null;
  }
}

/** limit-script.ts. */
function granted(args: Command): number[] {
  const [quota, window, life, need, want] = args.slice(1, 6).map(Number) as [number, number, number, number, number];
  const bucket = args[0] === "tokenBucket";
  const now = Date.now();
  const since = bucket ? now : now - (now % window);
  const units = Math.min(quota, Math.max(need, Math.min(want, Math.max(Math.floor(quota / 4), 20))));
  return [units, quota - units, since, bucket ? life : since + window - now, 0];
}
