/** A server whose backlog is full: connections to it are neither accepted nor refused. */
import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { run, until } from "./process.ts";

// A stopped process accepts nothing; the kernel completes handshakes for it until the backlog is full, and then drops SYNs.
const SERVER = `
require("node:net").createServer().listen({ port: 0, host: "127.0.0.1", backlog: 1 }, function () {
  console.log(this.address().port);
  process.kill(process.pid, "SIGSTOP");
});`;

export interface DeafServer {
  readonly port: number;
  close(): Promise<void>;
}

export async function startDeafServer(): Promise<DeafServer> {
  let port = 0;
  const server = run(process.execPath, ["-e", SERVER], {
    onLine: (line) => {
      port = Number(line);
    },
  });
  await until("the deaf server listens", () => port > 0);
  const sockets: Socket[] = [];
  await until("its backlog is full", async () => {
    const socket = connect({ port, host: "127.0.0.1" }).on("error", () => {});
    sockets.push(socket);
    // On loopback a handshake takes microseconds.
    await sleep(50);
    return socket.connecting;
  });
  return {
    port,
    close() {
      for (const socket of sockets) socket.destroy();
      return server.kill();
    },
  };
}
