// Upstash's REST protocol in front of a Redis that speaks RESP2 over TCP, for local runs and tests.
// The protocol: https://upstash.com/docs/redis/features/restapi, and what @upstash/redis 1.39.0 sends and decodes.
// Left out: Upstash-Response-Format: resp2, the `_token` query parameter, SUBSCRIBE and MONITOR as event streams.
import { createHash, timingSafeEqual } from "node:crypto";
import { createServer, type IncomingMessage } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";

const MAX_BODY_BYTES = 10 * 1024 * 1024; // Upstash: "ERR max request size exceeded. Limit: 10485760 bytes"
const MAX_ARGUMENTS = 1024 * 1024; // beyond this Redis drops the connection, and with it everybody's commands
const CONNECT_TIMEOUT_MS = 2_000;
const REPLY_TIMEOUT_MS = 10_000;
const MAX_BACKOFF_MS = 500;

/** One RESP2 reply: a status is a string, a bulk string a Buffer (any bytes), an error `{ error }`. */
export type Reply = string | number | null | Buffer | { error: string } | Reply[];
type Argument = string | Buffer;

/** An answer other than 200: its HTTP status and the text of its `{ error }`. */
class Refusal extends Error {
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/**
 * Serves Upstash's REST protocol on loopback in front of `redis`: `POST /` (a command as a JSON array), `/pipeline`,
 * `/multi-exec` and `/<command>/<argument>...`, all of them behind `token` as a bearer token. `port` defaults to a free
 * one. Resolves after the first attempt to reach Redis, whether it succeeded or not: while Redis is away commands get
 * 503 at once, and the bridge finds it again by itself. Rejects when `token` is empty or `port` is taken.
 * `close()` drops open requests.
 */
export async function startUpstashBridge(options: {
  redis: { host: string; port: number };
  token: string;
  port?: number;
}): Promise<{ url: string; port: number; close(): Promise<void> }> {
  if (options.token === "") throw new Error("the Upstash bridge needs a token");
  const link = openRedisLink(options.redis.host, options.redis.port);
  const prepare = createCommandPreparation();
  const tokenDigest = sha256(options.token);

  async function runEach(commands: Argument[][], base64: boolean): Promise<object[]> {
    const prepared = commands.map(prepare);
    const replies = await link.send(prepared.flatMap((command) => ("error" in command ? [] : [command.frame])));
    let next = 0;
    return prepared.map((command) => ("error" in command ? command : toEntry(command, replies[next++], base64)));
  }

  async function runAtomically(commands: Argument[][], base64: boolean): Promise<object[]> {
    const discarded = (why: string) => new Refusal(400, `EXECABORT Transaction discarded because of: ${why}`);
    const prepared = commands.map(prepare).map((command) => {
      if ("error" in command) throw discarded(command.error);
      return command;
    });
    const replies = await link.send([frame(["MULTI"]), ...prepared.map((command) => command.frame), frame(["EXEC"])]);
    const results = replies.at(-1);
    if (!Array.isArray(results)) throw discarded(replies.find(isError)?.error ?? "EXEC without results");
    return prepared.map((command, index) => toEntry(command, results[index], base64));
  }

  async function answer(request: IncomingMessage): Promise<object> {
    const { authorization = "", "upstash-encoding": encoding } = request.headers;
    const given = /^Bearer (.+)$/i.exec(authorization)?.[1] ?? "";
    // Digests, because timingSafeEqual wants equal lengths.
    if (!timingSafeEqual(sha256(given), tokenDigest)) throw new Refusal(401, "WRONGPASS invalid or missing auth token");
    if (!/^(GET|HEAD|POST|PUT)$/.test(request.method ?? "")) throw new Refusal(405, "ERR method not allowed");
    const [path = "/", query = ""] = (request.url ?? "/").split(/\?(.*)/s);
    const body = await readBody(request);
    const base64 = encoding === "base64";
    if (path === "/pipeline") return runEach(parseCommands(body), base64);
    if (path === "/multi-exec") return runAtomically(parseCommands(body), base64);
    const command = path === "/" ? toCommand(parseJson(body)) : pathCommand(path, query, body);
    const [entry = {}] = await runEach([command], base64);
    if ("error" in entry) throw new Refusal(400, String(entry.error));
    return entry;
  }

  const server = createServer(async (request, response) => {
    let status = 200;
    let text: string;
    try {
      text = JSON.stringify(await answer(request));
    } catch (error) {
      status = error instanceof Refusal ? error.status : 500;
      text = JSON.stringify({ error: error instanceof Error ? error.message : String(error) });
    }
    response.writeHead(status, { "content-type": "application/json" }).end(text);
  });
  const close = async (): Promise<void> => {
    link.close();
    server.closeAllConnections();
    if (server.listening) await new Promise((resolve) => server.close(resolve));
  };
  try {
    await new Promise<void>((resolve, reject) => {
      server.on("error", reject).listen(options.port ?? 0, "127.0.0.1", resolve);
    });
    await link.firstAttempt;
  } catch (error) {
    await close();
    throw error;
  }
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}`, port, close };
}

async function readBody(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  // What is too much is still read, not kept: a connection closed in the middle of an upload loses the answer.
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes <= MAX_BODY_BYTES) chunks.push(chunk);
  }
  if (bytes <= MAX_BODY_BYTES) return Buffer.concat(chunks);
  throw new Refusal(413, `ERR max request size exceeded. Limit: ${MAX_BODY_BYTES} bytes, Actual: ${bytes} bytes`);
}

function parseJson(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString());
  } catch {
    throw new Refusal(400, "ERR the request body is not JSON");
  }
}

function parseCommands(body: Buffer): Argument[][] {
  const commands = parseJson(body);
  if (Array.isArray(commands) && commands.length > 0) return commands.map(toCommand);
  throw new Refusal(400, "ERR expected a JSON array of one or more commands");
}

function toCommand(value: unknown): Argument[] {
  const isCommand = Array.isArray(value) && value.length > 0 && value.length <= MAX_ARGUMENTS;
  if (isCommand && value.every((part) => /string|number|boolean/.test(typeof part))) return value.map(String);
  throw new Refusal(400, "ERR a command is a non-empty JSON array of strings, numbers and booleans");
}

/** `POST /set/foo?EX=100` with body `bar` is SET foo bar EX 100. */
function pathCommand(path: string, query: string, body: Buffer): Argument[] {
  const options = [...new URLSearchParams(query)].flat().filter((part) => part !== "");
  try {
    return [...path.slice(1).split("/").map(decodeURIComponent), ...(body.length > 0 ? [body] : []), ...options];
  } catch {
    throw new Refusal(400, "ERR the path is not percent-encoded UTF-8");
  }
}

// All requests share one connection. These would change its state, turn it into a stream or block it for everybody.
const REFUSED = new Set(
  `SUBSCRIBE PSUBSCRIBE SSUBSCRIBE UNSUBSCRIBE PUNSUBSCRIBE SUNSUBSCRIBE MONITOR SYNC PSYNC REPLCONF MULTI EXEC DISCARD
  WATCH UNWATCH SELECT AUTH HELLO QUIT RESET CLIENT ASKING READONLY READWRITE BLPOP BRPOP BLMOVE BLMPOP BRPOPLPUSH
  BZPOPMIN BZPOPMAX BZMPOP WAIT WAITAOF`.split(/\s+/),
);

/** A command as it goes on the wire. `translate`: from Redis's reply to the one the client expects. */
interface PreparedCommand {
  frame: Buffer;
  translate?: (reply: Reply) => Reply;
}

/**
 * Makes the function that readies a command for the wire or refuses it; it remembers scripts.
 *
 * The scripts of @upstash/ratelimit 2.1.0 and later start with `#!lua flags=allow-key-locking`. Only Upstash knows that
 * flag (Redis 7.0.15: "ERR Unexpected flag in script shebang"), so the line goes, and Redis knows the script under
 * another SHA-1 than the client. The newline stays, as it does in Redis, to keep the line numbers in Lua's errors.
 */
function createCommandPreparation(): (command: Argument[]) => PreparedCommand | { error: string } {
  const redisShaOf = new Map<string, string>(); // by the client's SHA-1; outlives Redis, which may restart without it
  const toRedisSha = (sha: Argument): string => redisShaOf.get(String(sha).toLowerCase()) ?? String(sha);
  const toRedisScript = (script: Argument): Argument => {
    const text = String(script);
    const stripped = text.replace(/^#![^\n]*\ballow-key-locking\b[^\n]*/, "");
    if (stripped === text) return script;
    redisShaOf.set(sha1(text), sha1(stripped));
    return stripped;
  };
  return (command) => {
    const name = String(command[0]).toUpperCase();
    const blocks = /^XREAD(GROUP)?$/.test(name) && / BLOCK .*STREAMS /is.test(command.join(" "));
    if (blocks || REFUSED.has(name)) return { error: `ERR Command is not available: '${name}'` };
    const frameWith = (convert: (part: Argument) => Argument, from: number, to?: number): Buffer =>
      frame([...command.slice(0, from), ...command.slice(from, to).map(convert), ...command.slice(to ?? Infinity)]);
    if (/^EVAL(_RO)?$/.test(name)) return { frame: frameWith(toRedisScript, 1, 2) };
    if (/^EVALSHA(_RO)?$/.test(name)) return { frame: frameWith(toRedisSha, 1, 2) };
    const scriptCommand = name === "SCRIPT" ? String(command[1]).toUpperCase() : "";
    if (scriptCommand === "EXISTS") return { frame: frameWith(toRedisSha, 2) };
    if (scriptCommand !== "LOAD") return { frame: frame(command) };
    const clientSha = Buffer.from(sha1(command[2] ?? ""));
    return {
      frame: frameWith(toRedisScript, 2, 3),
      translate: (reply) => (Buffer.isBuffer(reply) ? clientSha : reply),
    };
  };
}

function frame(command: Argument[]): Buffer {
  const parts = command.flatMap((part) => [`$${Buffer.byteLength(part)}\r\n`, part, "\r\n"]);
  return Buffer.concat([`*${command.length}\r\n`, ...parts].map((part) => Buffer.from(part as string)));
}

function isError(reply: Reply): reply is { error: string } {
  return typeof reply === "object" && reply !== null && "error" in reply;
}

function toEntry(command: PreparedCommand, redisReply: Reply = null, base64 = false): object {
  const reply = command.translate?.(redisReply) ?? redisReply;
  if (isError(reply)) return reply;
  // "all strings in the response will be base64 encoded, except for the "OK" response" (Upstash's documentation). The
  // client decodes the strings inside an array whatever they are, so there OK is encoded like the rest.
  return { result: toJson(reply, base64 && reply !== "OK" ? "base64" : "utf8") };
}

function toJson(reply: Reply, encoding: "base64" | "utf8"): unknown {
  if (Array.isArray(reply)) return reply.map((item) => toJson(item, encoding));
  if (Buffer.isBuffer(reply)) return reply.toString(encoding);
  const plain = isError(reply) ? reply.error : reply;
  return typeof plain === "string" ? Buffer.from(plain).toString(encoding) : plain;
}

/** One connection to Redis, shared by all requests and reopened whenever it is lost. */
function openRedisLink(host: string, port: number) {
  let socket: Socket;
  let connected = false;
  let closed = false;
  let failures = 0;
  let lastError = "not connected yet";
  const unanswered: { expected: number; sentAt: number; replies: Reply[]; settle(replies?: Reply[]): void }[] = [];
  const away = (doubt: string) => new Refusal(503, `ERR Redis at ${host}:${port} is away${doubt}: ${lastError}`);

  function attempt(settled?: () => void): void {
    const read = createReplyParser((reply) => {
      const batch = unanswered[0];
      if (batch === undefined) throw new Error(isError(reply) ? reply.error : "a reply nobody asked for");
      batch.replies.push(reply);
      if (batch.replies.length === batch.expected) unanswered.shift()?.settle(batch.replies);
    });
    socket = connect({ host, port, noDelay: true, timeout: CONNECT_TIMEOUT_MS });
    socket.on("timeout", () => socket.destroy(new Error("no connection in time")));
    socket.on("connect", () => {
      socket.setTimeout(0);
      connected = true;
      failures = 0;
      settled?.();
    });
    socket.on("data", (chunk) => {
      try {
        read(chunk as Buffer);
      } catch (error) {
        socket.destroy(error as Error);
      }
    });
    socket.on("error", (error) => {
      lastError = error.message;
    });
    socket.on("close", (failed) => {
      connected = false;
      if (!failed) lastError = "the connection was closed";
      for (const batch of unanswered.splice(0)) batch.settle();
      settled?.();
      setTimeout(() => closed || attempt(), Math.min(MAX_BACKOFF_MS, 25 * 2 ** failures++)).unref();
    });
  }

  // A Redis that holds the connection but answers nothing (stopped, or busy in a script) counts as away too.
  const watchdog = setInterval(() => {
    const waited = Date.now() - (unanswered[0]?.sentAt ?? Infinity);
    if (waited > REPLY_TIMEOUT_MS) socket.destroy(new Error(`no reply in ${REPLY_TIMEOUT_MS} ms`));
  }, 1_000).unref();

  return {
    firstAttempt: new Promise<void>((resolve) => attempt(resolve)),
    /** One reply per frame. The frames go out in one write, so no other request's frames come between them. */
    async send(frames: Buffer[]): Promise<Reply[]> {
      if (frames.length === 0) return [];
      if (!connected) throw away("");
      return new Promise((resolve, reject) => {
        const settle = (replies?: Reply[]) => (replies ? resolve(replies) : reject(away(", the outcome unknown")));
        unanswered.push({ expected: frames.length, sentAt: Date.now(), replies: [], settle });
        socket.write(Buffer.concat(frames));
      });
    },
    close(): void {
      closed = true;
      clearInterval(watchdog);
      socket.destroy();
    },
  };
}

/**
 * An incremental RESP2 parser: feed it chunks cut anywhere, `onReply` gets each reply once it is whole. Throws on bytes
 * that are not RESP2; the connection is of no use after that. An integer beyond 2^53 becomes the nearest double, which
 * is what the client's JSON.parse would make of its digits.
 */
export function createReplyParser(onReply: (reply: Reply) => void): (chunk: Buffer) => void {
  const open: { length: number; items: Reply[] }[] = []; // arrays that still miss items, the outermost first
  let chunks: Buffer[] = [];
  let buffered = 0;
  let needed = 1; // no use looking again before that many bytes are there; keeps a large bulk in many chunks linear

  function complete(reply: Reply): void {
    let value = reply;
    for (let inner = open.at(-1); inner !== undefined; inner = open.at(-1)) {
      inner.items.push(value);
      if (inner.items.length < inner.length) return;
      value = inner.items;
      open.pop();
    }
    onReply(value);
  }

  return (chunk) => {
    chunks.push(chunk);
    buffered += chunk.length;
    if (buffered < needed) return;
    const bytes = Buffer.concat(chunks);
    let at = 0;
    let bulkEnd = 0;
    for (let lineEnd = bytes.indexOf("\r\n"); lineEnd !== -1; lineEnd = bytes.indexOf("\r\n", at)) {
      const type = bytes.toString("latin1", at, at + 1);
      const line = bytes.toString("utf8", at + 1, lineEnd);
      const number = /^[+-]?\d+$/.test(line) ? Number(line) : Number.NaN;
      if (type === "$" && number >= 0) {
        bulkEnd = lineEnd + 2 + number;
        if (bytes.length < bulkEnd + 2) break;
        if (bytes.indexOf("\r\n", bulkEnd) !== bulkEnd) throw new Error("a bulk string is not as long as it says");
        complete(bytes.subarray(lineEnd + 2, bulkEnd));
        at = bulkEnd + 2;
        continue;
      }
      at = lineEnd + 2;
      if (type === "+") complete(line);
      else if (type === "-") complete({ error: line });
      else if (type === ":" && !Number.isNaN(number)) complete(number);
      else if ((type === "$" || type === "*") && number === -1) complete(null);
      else if (type === "*" && number === 0) complete([]);
      else if (type === "*" && number > 0) open.push({ length: number, items: [] });
      else throw new Error(`not a RESP2 reply: ${JSON.stringify(type + line.slice(0, 40))}`);
    }
    chunks = [bytes.subarray(at)];
    buffered = bytes.length - at;
    needed = Math.max(buffered + 1, bulkEnd + 2 - at);
  };
}

function sha1(script: Argument): string {
  return createHash("sha1").update(script).digest("hex");
}

function sha256(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
