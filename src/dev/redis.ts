// A Redis for local runs and tests: Debian's redis-server where it is installed, js-redis-server (JavaScript, with Lua
// in WASM) where it is not. Both run in a process of their own: started inside a vitest process, js-redis-server hangs
// on EVAL and jams its connection (measured with 0.3.0 and vitest 5.1.1), in its own process it does not.
import { spawn } from "node:child_process";
import { accessSync, constants, mkdtempSync } from "node:fs";
import { createRequire } from "node:module";
import { type AddressInfo, connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";

const HOST = "127.0.0.1";
const START_TIMEOUT_MS = 20_000;
const READY = "Ready to accept connections"; // what redis-server logs once it listens; the embedded server prints it too

/** A Redis listening on loopback without a password. `close()` kills it and waits until it is gone; twice is fine. */
export interface RunningRedis {
  host: string;
  port: number;
  close(): Promise<void>;
}

/** `port` defaults to a free one. */
export interface RedisOptions {
  port?: number;
}

// The guard sits between us and the server. Its stdin is a pipe we hold, so however we die (SIGKILL too) the pipe
// closes and the guard kills the server; a server stuck in a script would not notice that by itself. The guard also
// removes the server's working directory.
const GUARD = `
const [command, ...args] = process.argv.slice(1);
const directory = process.cwd();
const server = require("node:child_process").spawn(command, args, { stdio: ["ignore", "inherit", "inherit"] });
const leave = (code) => {
  process.chdir("/");
  require("node:fs").rmSync(directory, { recursive: true, force: true });
  process.exit(code);
};
server.on("error", (error) => (console.error(error.message), leave(127)));
server.on("exit", (code) => leave(code ?? 1));
process.stdin.on("end", () => server.kill("SIGKILL")).resume();
`;

// createRedisServer() of js-redis-server 0.3.0 listens on every interface and takes no host, hence the parts.
const EMBEDDED = `
const { RedisServerState, Resp2Server, createRedisCommandExecutor } = require(process.argv[1]);
const state = new RedisServerState({ databaseCount: 16 });
const { server } = new Resp2Server({ server: state, executor: createRedisCommandExecutor(), logger: console });
server.on("error", () => process.exit(1));
server.listen(Number(process.argv[2]), "${HOST}", () => console.log("${READY}"));
`;

/**
 * Starts js-redis-server in a child process and resolves once it answers PING. It dies with this process.
 * Rejects with the server's output when it does not come up (a taken `port`, for one).
 */
export function startEmbeddedRedis(options: RedisOptions = {}): Promise<RunningRedis> {
  const library = createRequire(import.meta.url).resolve("js-redis-server/core");
  return start(options.port, (port) => [process.execPath, "-e", EMBEDDED, "--", library, String(port)]);
}

/**
 * Starts the redis-server on PATH, without persistence, in a temporary directory, and resolves once it answers PING.
 * It dies with this process. Rejects with the server's output when it does not come up; see `redisServerAvailable`.
 */
export function startRedisServer(options: RedisOptions = {}): Promise<RunningRedis> {
  const quiet = ["--save", "", "--appendonly", "no"];
  return start(options.port, (port) => ["redis-server", "--bind", HOST, "--port", String(port), ...quiet]);
}

/** Whether a redis-server binary is on PATH. */
export function redisServerAvailable(): boolean {
  return (process.env.PATH ?? "").split(delimiter).some((directory) => {
    try {
      accessSync(join(directory, "redis-server"), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

async function start(wanted: number | undefined, command: (port: number) => string[]): Promise<RunningRedis> {
  // A port that was free can be taken by the time the server binds it, so a port of our own choice gets more tries.
  for (let triesLeft = wanted === undefined ? 3 : 1; ; ) {
    const port = wanted ?? (await freePort());
    try {
      return await startGuarded(port, command(port));
    } catch (error) {
      triesLeft -= 1;
      if (triesLeft === 0) throw error;
    }
  }
}

async function startGuarded(port: number, command: string[]): Promise<RunningRedis> {
  const guard = spawn(process.execPath, ["-e", GUARD, "--", ...command], {
    cwd: mkdtempSync(join(tmpdir(), "portcullis-redis-")),
    detached: true, // Ctrl-C reaches the whole process group; Redis is to outlive whoever is still shutting down
    stdio: "pipe",
  });
  guard.stdin.on("error", () => {}); // it was already gone when we closed the pipe
  const gone = new Promise<void>((resolve) => guard.once("close", () => resolve()));
  const close = async (): Promise<void> => {
    guard.stdin.end();
    await gone;
  };
  try {
    // Our own child's word comes first: on a port somebody else took, PING would be answered by a stranger.
    await new Promise<void>((resolve, reject) => {
      let output = "";
      const listen = (chunk: Buffer): void => {
        output = (output + chunk.toString()).slice(-2000);
        if (output.includes(READY)) resolve();
      };
      guard.stdout.on("data", listen);
      guard.stderr.on("data", listen);
      guard.once("error", reject);
      void gone.then(() => reject(new Error(`${command[0]} ended before it was ready on port ${port}:\n${output}`)));
      setTimeout(() => reject(new Error(`${command[0]} was not ready in time:\n${output}`)), START_TIMEOUT_MS).unref();
    });
    await ping(port);
  } catch (error) {
    await close();
    throw error;
  }
  return { host: HOST, port, close };
}

function ping(port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: HOST, port, timeout: START_TIMEOUT_MS });
    socket.on("timeout", () => socket.destroy(new Error("no answer to PING")));
    socket.on("error", reject);
    socket.on("close", () => reject(new Error("the connection closed before PING was answered")));
    socket.once("data", (answer) => {
      if (answer.toString().startsWith("+PONG")) resolve();
      else reject(new Error(`PING was answered with ${answer.toString()}`));
      socket.destroy();
    });
    socket.write("*1\r\n$4\r\nPING\r\n");
  });
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer().once("error", reject);
    probe.listen(0, HOST, () => {
      const { port } = probe.address() as AddressInfo;
      probe.close(() => resolve(port));
    });
  });
}
